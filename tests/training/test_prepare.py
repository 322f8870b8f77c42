"""What is prepared for a trainer, and beside the survey of the images."""

import dataclasses

import pytest

from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.images.augment import AugmentSettings, RandAugmentSettings
from tl_toolkit.images.geometry import Padding
from tl_toolkit.plan.training import feature_values
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.recipe.schema import Augment, Features, RandAugment


@pytest.mark.parametrize(
    "section, settings",
    [(Augment, AugmentSettings), (RandAugment, RandAugmentSettings), (Features, FeatureSettings)],
)
def test_settings_have_the_fields_of_their_section(section, settings):
    fields = {field.name: field.default for field in dataclasses.fields(settings)}
    beside = {"augment", "channels", "image_size", "resize", "seed", "shares"}

    assert set(fields) - (beside if section is Features else set()) == set(section.model_fields)
    assert all(fields[name] == field.default for name, field in section.model_fields.items())


@pytest.mark.parametrize(
    "values, color", [({}, (114, 114, 114)), ({"pad_color": 0}, (0, 0, 0)),
                      ({"pad_color": [1, 20, 255]}, (1, 20, 255)), ({"channels": 1}, (0, 0, 0))],
)  # fmt: skip
def test_the_colour_of_a_padding_reaches_the_features(values, color):
    recipe = build_recipe(
        {
            "version": 1,
            "name": "x",
            "data": {"builtin": "digits", "image_size": 32, "resize": "pad", **values},
            "model": {"base": "lenet5", "weights": "random"},
        }
    ).recipe

    assert FeatureSettings.from_values(feature_values(recipe)).resize == Padding(color)


def test_what_a_recipe_says_of_features_reaches_their_settings():
    recipe = build_recipe(
        {
            "version": 1,
            "name": "x",
            "data": {"builtin": "digits", "image_size": [32, 48], "resize": "crop"},
            "augment": {"flip": "both", "zoom": 0.2, "rand_augment": {"num_ops": 3}},
            "features": {"views": 4, "dtype": "float16", "folded": True, "max_gb": 0.5},
            "model": {"base": "lenet5", "weights": "random"},
            "phases": [{"name": "head", "epochs": 1}],
            "seed": 7,
        }
    ).recipe

    assert FeatureSettings.from_values(feature_values(recipe)) == FeatureSettings(
        image_size=(32, 48),
        resize="crop",
        augment=AugmentSettings(flip="both", zoom=0.2, rand_augment=RandAugmentSettings(num_ops=3)),
        seed=7,
        views=4,
        dtype="float16",
        folded=True,
        max_gb=0.5,
    )
