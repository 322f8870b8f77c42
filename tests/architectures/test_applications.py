import re

import keras
import numpy as np
import pytest
from keras.src.applications import mobilenet, mobilenet_v2
from keras.src.utils import file_utils

from tl_toolkit.architectures.graph import build_base, producer_of
from tl_toolkit.architectures.heads import find_head_maps
from tl_toolkit.catalog.lookup import ARCHITECTURES, find_weight_file

TWINS = {"mobilenet": keras.applications.MobileNet, "mobilenet_v2": keras.applications.MobileNetV2}
each_twin = pytest.mark.parametrize(
    "name", ["mobilenet", pytest.param("mobilenet_v2", marks=pytest.mark.slow)]
)
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


@each_twin
def test_the_flat_base_gives_the_outputs_of_its_keras_twin(name, drawn):
    base = drawn(name).model
    twin = TWINS[name](include_top=False, weights=None, input_shape=(32, 32, 3))
    twin.set_weights(base.get_weights())
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")

    actual = base(images)

    preprocessed = keras.applications.mobilenet.preprocess_input(images.copy())
    # Preprocessing multiplies where Keras divides.
    np.testing.assert_allclose(actual, twin(preprocessed), rtol=1e-5, atol=1e-5)


@each_twin
@pytest.mark.usefixtures("blank")
def test_an_alpha_that_was_never_published_has_the_same_units(name, draw):
    blocks = draw(name, {"alpha": 0.4}).blocks

    units = [unit.name for block in blocks for unit in block.units]
    assert units == [unit.name for unit in ARCHITECTURES[name].units]


@pytest.mark.slow
def test_a_shortcut_that_a_tiny_alpha_adds_moves_the_end_of_its_unit(draw):
    # All widths fall to 8 channels, so units that widen in the paper get a shortcut here.
    blocks = draw("mobilenet_v2", {"alpha": 0.05}).blocks

    ends = {unit.name: unit.end_layer for block in blocks for unit in block.units}

    assert ends["block_10"] == "block_10_add"
    recorded = {unit.name: unit.end for unit in ARCHITECTURES["mobilenet_v2"].units}
    assert recorded["block_10"] == "block_10_project_BN"


@pytest.mark.slow
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


def title_of(record):
    """Returns the name in keras.applications, as "VGG16" of "PixelNet on VGG-16, without conv7"."""
    return record.title.rpartition(" on ")[2].partition(",")[0].replace("-", "")


PUBLISHED = [
    (name, record.settings.get("application") or title_of(record), dict(file.when))
    for name, record in ARCHITECTURES.items()
    if record.weight_files and name not in TWINS
    for file in record.weight_files
]


@pytest.mark.slow
@pytest.mark.turns
@pytest.mark.parametrize(
    ("name", "application", "when"),
    PUBLISHED,
    ids=["-".join(map(str, [name, *when.values()])) for name, _, when in PUBLISHED],
)
def test_a_published_file_and_its_digest_are_those_of_keras(name, application, when, monkeypatch):
    def get_file(fname=None, origin=None, file_hash=None, **_):
        raise RequestedError(fname, origin, file_hash)

    draw = getattr(keras.applications, application)
    # Replaced where it is defined: ResNet V2 is drawn in another module than the one that names it.
    monkeypatch.setattr(file_utils, "get_file", get_file)
    size = ARCHITECTURES[name].default_size
    file = find_weight_file(ARCHITECTURES[name], when, (size, size))

    with pytest.raises(RequestedError) as caught:
        # Keras draws the second rescaling for its own files by itself.
        settings = {key: value for key, value in when.items() if key != "imagenet_rescaling"}
        # PixelNet takes the file of the whole network.
        draw(
            include_top=not re.search("no.?top", file.name), input_shape=(size, size, 3), **settings
        )

    assert (file.name, file.url, file.digest[1]) == caught.value.args


def names_of(graph):
    return [operation.name for operation in graph.operations]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenet_v3_small", {"conv_rescaling1", "conv_act1", "conv_1_act1"}),
        *(
            pytest.param(name, expected, marks=pytest.mark.slow)
            for name, expected in [
                ("xception", {"block2_conv1", "block2_bn1", "block2_add1", "block12_add1"}),
                ("convnext_tiny", {"stage_0_block_0_add1", "stage_3_block_2_norm1"}),
                ("efficientnet_b0", {"stem_rescaling1", "stem_normalization1", "stem_rescaling2"}),
                ("inception_v3", {"stem_pool2", "mixed0_conv7", "mixed9_pool1", "mixed10_conv9"}),
            ]
        ),
    ],
)
def test_layers_that_keras_counts_are_named_after_their_unit(name, expected, outline):
    assert expected <= set(names_of(outline(name).model))


@pytest.mark.slow
def test_an_efficientnet_divides_by_the_deviation_once_more(outline):
    layer = outline("efficientnet_b0").model.get_layer("stem_rescaling2")

    np.testing.assert_allclose(layer.scale, 1 / np.sqrt([0.229, 0.224, 0.225]))


def test_a_head_reads_what_the_last_separable_convolutions_of_xception_read():
    record = ARCHITECTURES["xception"]
    image = keras.Input((71, 71, 3))
    features = build_base(record, image, {})

    ends, maps = (
        [producer_of(tensor).name for tensor in find_head_maps(record, taps, image, features)]
        for taps in ("all", "inner")
    )

    assert [name for name in maps if name not in ends] == [
        "block1_conv1_act",
        *(f"block{number}_sepconv2_act" for number in (2, 3, 4)),
        *(f"block{number}_sepconv3_act" for number in range(5, 13)),
        "block13_sepconv2_act",
        "block14_sepconv1_act",
    ]
