"""The views that epochs see: new ones follow from a seed of the phase, kept ones do not."""

import numpy as np
import pytest

from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.features.views import TrainingViews
from tl_toolkit.images.augment import AugmentSettings

FLIP = AugmentSettings(flip="horizontal")
COUNT = 16


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)


def make_views(views):
    return TrainingViews(FeatureSettings((8, 8), "stretch", FLIP, views=views), FLIP, np.arange(16))


def flips(views, pixels, **seed):
    """Tells which images an epoch mirrors."""
    changed = views.augment(pixels, np.arange(COUNT), 1, **seed).numpy()
    return [
        not np.array_equal(after, before) for after, before in zip(changed, pixels, strict=True)
    ]


def test_new_views_differ_between_phases(pixels):
    views = make_views(None)

    seen = [flips(views, pixels, phase_seed=seed) for seed in (1, 2, 1)]

    assert seen[0] == seen[2] != seen[1]


def test_views_that_are_kept_are_those_of_every_phase(pixels):
    views = make_views(2)

    seen = [flips(views, pixels, **seed) for seed in ({}, {"phase_seed": 1}, {"phase_seed": 2})]

    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("count", [None, 2])
def test_pixels_move_as_the_image_of_the_phase_does(pixels, count):
    views = make_views(count)
    columns = np.arange(64).reshape(8, 8) % 8

    for seed in (1, 2):
        moved = [
            views.geometric_transform(index, 1, phase_seed=seed).move(columns, -1)
            for index in range(COUNT)
        ]

        flipped = flips(views, pixels, phase_seed=seed)
        assert [target[0, 0] == 7 for target in moved] == flipped
