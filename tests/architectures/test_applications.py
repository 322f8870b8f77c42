import keras
import numpy as np
import pytest
from keras.src.applications import mobilenet, mobilenet_v2

from tl_toolkit.architectures.catalog import ARCHITECTURES, find_weight_file

TWINS = {"mobilenet": keras.applications.MobileNet, "mobilenet_v2": keras.applications.MobileNetV2}
MODULES = {"mobilenet": mobilenet, "mobilenet_v2": mobilenet_v2}


class RequestedError(Exception):
    """Raised in place of a download; holds the name and the address."""


@pytest.fixture
def requested(monkeypatch):
    """Returns which file Keras itself would fetch."""

    def get_file(name, origin, **_):
        raise RequestedError(name, origin)

    def ask(name, alpha, size):
        monkeypatch.setattr(MODULES[name].file_utils, "get_file", get_file)
        with pytest.raises(RequestedError) as caught:
            TWINS[name](alpha=alpha, include_top=False, input_shape=(size, size, 3))
        return caught.value.args

    return ask


@pytest.mark.parametrize("name", TWINS)
def test_the_flat_base_gives_the_outputs_of_its_keras_twin(name, drawn):
    base = drawn(name).model
    twin = TWINS[name](include_top=False, weights=None, input_shape=(32, 32, 3))
    twin.set_weights(base.get_weights())
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")

    actual = base(images)

    preprocessed = keras.applications.mobilenet.preprocess_input(images.copy())
    # Preprocessing multiplies where Keras divides.
    np.testing.assert_allclose(actual, twin(preprocessed), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TWINS)
def test_an_alpha_that_was_never_published_has_the_same_units(name, draw):
    blocks = draw(name, {"alpha": 0.4}).blocks

    units = [unit.name for block in blocks for unit in block.units]
    assert units == [unit.name for unit in ARCHITECTURES[name].units]


def test_a_shortcut_that_a_tiny_alpha_adds_moves_the_end_of_its_unit(draw):
    # All widths fall to 8 channels, so units that widen in the paper get a shortcut here.
    blocks = draw("mobilenet_v2", {"alpha": 0.05}).blocks

    ends = {unit.name: unit.end_layer for block in blocks for unit in block.units}

    assert ends["block_10"] == "block_10_add"
    recorded = {unit.name: unit.end for unit in ARCHITECTURES["mobilenet_v2"].units}
    assert recorded["block_10"] == "block_10_project_BN"


@pytest.mark.parametrize(
    ("name", "alpha", "size"), [("mobilenet", 0.5, 160), ("mobilenet_v2", 1.3, 96)]
)
def test_the_weight_file_is_the_one_that_keras_fetches(name, alpha, size, requested):
    file = find_weight_file(ARCHITECTURES[name], {"alpha": alpha}, (size, size))

    assert (file.name, file.url) == requested(name, alpha, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", TWINS)
def test_every_weight_file_is_one_that_keras_fetches(name, requested):
    for file in ARCHITECTURES[name].weight_files:
        asked = requested(name, file.when["alpha"], file.image_size)

        assert (file.name, file.url) == asked
