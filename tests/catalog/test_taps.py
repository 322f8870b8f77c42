"""Finds the units of taps by names alone, as the graph has them."""

import keras
import pytest

from tests.architectures.conftest import without_values
from tl_toolkit.architectures.graph import build_base, find_blocks, sorted_calls
from tl_toolkit.architectures.taps import find_taps
from tl_toolkit.catalog.lookup import ARCHITECTURES, find_architecture
from tl_toolkit.catalog.taps import find_unit_of, is_no_layer, units_read

BASES = [
    "lenet5", "resnet18", "mobilenet",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("vgg16", "densenet40", "unet", "pixelnet", "xception", "mobilenet_v3_small",
                     "efficientnet_b0", "resnet50_v2", "convnext_tiny")
    ),
]  # fmt: skip


def draw(name):
    architecture = find_architecture(name)
    size = max(architecture.minimum_size, 32)
    image = keras.Input((size, size, 3))
    with without_values():
        return architecture, image, build_base(architecture, image, {})


@pytest.mark.parametrize("name", BASES)
def test_layers_lie_in_the_units_that_their_names_tell(name):
    architecture, image, features = draw(name)
    blocks = find_blocks(architecture, image, features)
    units = {layer.name: unit.name for block in blocks for unit in block.units
             for layer in unit.layers}  # fmt: skip
    layers = [call.operation.name for call in sorted_calls(keras.Function(image, features))]

    units_by_layer = {
        layer: find_unit_of(architecture, layer) for layer in layers if layer in units
    }

    assert not any(is_no_layer(architecture, layer) for layer in units_by_layer)
    assert {layer: unit for layer, unit in units_by_layer.items() if unit} == {
        layer: units[layer] for layer, unit in units_by_layer.items() if unit
    }


@pytest.mark.parametrize(
    "name",
    ["mobilenet", *(pytest.param(n, marks=pytest.mark.slow) for n in ("pixelnet", "resnet18"))],
)
def test_units_are_read_up_to_the_last_map(name):
    architecture, image, features = draw(name)
    taps = find_taps(architecture, image, features)

    read = find_blocks(architecture, image, taps)

    assert units_read(architecture, None) == tuple(u.name for b in read for u in b.units)


def test_the_default_taps_of_every_base_lie_in_its_units():
    for architecture in ARCHITECTURES.values():
        assert (units_read(architecture, None) is None) == (not architecture.taps)
