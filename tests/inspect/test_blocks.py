"""Blocks, units and layers, found by name in a model."""

import numpy as np
import pytest

from tests.models import build_transfer
from tl_toolkit.catalog.lookup import find_architecture
from tl_toolkit.errors import RecipeError
from tl_toolkit.inspect.blocks import (
    build_feature_model,
    build_loaded_base,
    find_block_of,
    find_map,
)
from tl_toolkit.inspect.heatmaps import compute_gradcam
from tl_toolkit.inspect.scores import ScoredModel


@pytest.fixture(scope="module")
def lenet():
    return build_transfer("lenet5").model, find_architecture("lenet5")


@pytest.mark.parametrize(
    ("base", "settings", "name", "layer"),
    [
        ("vgg_tiny", {}, "block2", "block2_pool"),
        ("vgg_tiny", {}, "block2_conv1_relu", "block2_conv1_relu"),
        ("mobilenet", {"arguments": {"alpha": 0.25}}, "block4", "conv_pw_11_relu"),
        ("mobilenet", {"arguments": {"alpha": 0.25}}, "conv_dw_3", "conv_pw_3_relu"),
    ],
)
def test_a_block_a_unit_and_a_layer_lead_to_a_map(base, settings, name, layer):
    model = build_transfer(base, **settings).model

    assert find_map(model, find_architecture(base), name) == layer


def test_the_images_are_a_map_as_well(lenet):
    assert find_map(*lenet, "image") == "image"
    assert find_block_of(lenet[1], "image") == "image"


def test_a_block_of_vectors_has_no_map(lenet):
    with pytest.raises(RecipeError, match="'f6' has no map: a vector has no positions"):
        find_map(*lenet, "f6")


def test_an_unknown_block_is_refused_with_the_blocks_and_a_near_one(lenet):
    with pytest.raises(
        RecipeError, match="'c33' is no block(.|\n)*c1, (.|\n)*mean 'c3'"
    ) as refused:
        find_map(*lenet, "c33")

    assert refused.value.problems[0].hint == "tltool models show lenet5 --layers"


def test_a_base_alone_is_explained_by_its_mean_features():
    record = find_architecture("vgg_tiny")
    image, features, _ = build_loaded_base(record, {}, (32, 32), weights="random", seed=0)
    model = build_feature_model(image, features)
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    scored = ScoredModel(model)

    heat = compute_gradcam(scored, images, scored.find_goals(images, None))

    maps = scored.read(images).numpy()
    mean = maps.mean(axis=(1, 2), keepdims=True)
    positions = maps.shape[1] * maps.shape[2]
    np.testing.assert_allclose(heat * positions, (maps * mean).sum(axis=-1), rtol=1e-4)
