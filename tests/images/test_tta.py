"""The views that outputs are averaged over."""

import numpy as np
import pytest

from tl_toolkit.images.tta import build_views, find_sizes, list_views


@pytest.mark.parametrize(
    "words, names",
    [
        ((), []),
        (("flip",), ["whole", "whole, mirrored"]),
        (("flip_vertical",), ["whole", "whole, upside down"]),
        (
            ("flip", "flip_vertical"),
            ["whole", "whole, mirrored", "whole, upside down", "whole, mirrored, upside down"],
        ),
    ],
)
def test_flips_make_each_mirror_image_once(words, names):
    assert [view.name for view in list_views(words)] == names


def test_crops_lie_in_the_corners_and_the_centre_of_a_larger_image():
    views = list_views(("crops",))
    small, large = find_sizes((14, 7), views)
    images = {size: np.zeros((1, *size, 3), np.uint8) for size in (small, large)}
    images[large][0] = np.indices(large).sum(axis=0)[..., np.newaxis]  # row + column

    seen = build_views(images, small, views)[0, ..., 0]

    assert (small, large) == ((14, 7), (16, 8))
    assert seen.shape == (6, 14, 7)
    corners = [int(view[0, 0]) for view in seen[1:]]
    assert corners == [0, 0 + 1, 2 + 0, 2 + 1, 1 + 0]


def test_a_mirrored_view_shows_the_last_column_first_and_upside_down_the_last_row():
    views = list_views(("flip", "flip_vertical"))
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(1, 2, 3, 3)

    seen = build_views({(2, 3): pixels}, (2, 3), views)

    np.testing.assert_array_equal(seen[0, 0], pixels[0])
    np.testing.assert_array_equal(seen[0, 1], pixels[0, :, ::-1])
    np.testing.assert_array_equal(seen[0, 2], pixels[0, ::-1])
    np.testing.assert_array_equal(seen[0, 3], pixels[0, ::-1, ::-1])
