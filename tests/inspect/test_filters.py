"""Filters beside the classical edge filters, and the sheets that show them and activations."""

import keras
import numpy as np
import pytest

from tl_toolkit.architectures.edges import edge_kernels
from tl_toolkit.errors import RecipeError
from tl_toolkit.inspect.filters import (
    draw_activations,
    draw_edges,
    draw_filters,
    find_kernel,
    list_edge_filters,
    match_filters,
)

SOBEL_X = edge_kernels("sobel_x")[0]


def as_kernel(*filters):
    """Filters (h, w) as a kernel of a grey image, (h, w, 1, filters)."""
    return np.stack([np.asarray(values, np.float32) for values in filters], -1)[:, :, np.newaxis]


def test_each_classical_filter_is_listed_once_and_resembles_itself():
    filters = list_edge_filters()

    matches = match_filters(as_kernel(*filters.values()))

    assert len(filters) == 2 + 2 + 2 + 8 + 8
    assert all(abs(match.cosine) == pytest.approx(1) for match in matches)
    same = {"robinson_n": "sobel_y", "robinson_e": "sobel_x"}
    same |= {"robinson_s": "sobel_y", "robinson_w": "sobel_x"}
    same |= {
        f"robinson_{there}": f"robinson_{back}" for there, back in (("sw", "ne"), ("nw", "se"))
    }
    assert [match.name for match in matches] == [same.get(name, name) for name in filters]


def test_the_cosine_is_the_one_computed_by_hand():
    centre = [[0, 0, 0], [-1, 0, 1], [0, 0, 0]]

    (match,) = match_filters(as_kernel(centre))

    # 4 / sqrt(2 * 12) for Sobel; 2 / sqrt(2 * 6) for Prewitt.
    assert (match.name, match.cosine) == ("sobel_x", pytest.approx(0.8165, abs=1e-4))


def test_a_cosine_says_how_many_random_filters_have_it():
    random = np.random.default_rng(1).normal(size=(3, 3, 1, 2000))

    chances = [match.chance for match in match_filters(random)]

    assert np.mean(chances) == pytest.approx(0.5, abs=0.03)  # a share is spread evenly by itself
    assert match_filters(as_kernel(SOBEL_X))[0].chance == 0


def test_a_filter_of_the_opposite_direction_has_a_negative_cosine():
    (match,) = match_filters(as_kernel(-SOBEL_X))

    assert (match.name, match.cosine) == ("sobel_x", pytest.approx(-1))


def test_the_filter_of_a_grey_image_is_the_sum_over_its_channels():
    colors = np.stack([SOBEL_X + 1, SOBEL_X - 2, SOBEL_X + 1], axis=-1)[..., np.newaxis]

    (match,) = match_filters(colors.astype(np.float32))

    assert (match.name, match.cosine) == ("sobel_x", pytest.approx(1))


def test_larger_filters_are_compared_with_stretched_ones():
    ramp = np.tile(np.linspace(-1, 1, 7), (7, 1))  # no weight in the middle row, as Prewitt

    matches = match_filters(as_kernel(ramp, ramp.T, np.zeros((7, 7))))

    assert [match.name for match in matches[:2]] == ["prewitt_x", "prewitt_y"]
    assert matches[0].cosine > 0.97 and matches[2].cosine == 0


def test_kernels_of_all_kinds_of_convolutions_are_found():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="plain")(image)
    x = keras.layers.DepthwiseConv2D(3, name="deep")(x)
    x = keras.layers.Conv2DTranspose(2, 5, name="up")(x)
    model = keras.Model(image, keras.layers.Flatten(name="flat")(x))

    assert [find_kernel(model, name)[1].shape for name in ("plain", "deep", "up")] == [
        (3, 3, 3, 4),
        (3, 3, 1, 4),
        (5, 5, 4, 2),
    ]
    assert find_kernel(model, "first")[0] == "plain"
    with pytest.raises(RecipeError, match="'plane' is no layer(.|\n)*mean 'plain'"):
        find_kernel(model, "plane")
    with pytest.raises(RecipeError, match="'flat' has no filters"):
        find_kernel(model, "flat")


def tile_of(sheet, place, size, *, columns, lines=1):
    """The pixels of one picture of a sheet."""
    left = 8 + place % columns * (size[0] + 8)
    top = 8 + place // columns * (size[1] + 8 + 16 * lines)
    return np.asarray(sheet)[top : top + size[1], left : left + size[0]]


def test_activations_share_one_scale():
    maps = np.zeros((8, 8, 3), np.float32)
    maps[0, 0], maps[7, 7] = [4, 2, -1], [-3, 0, 0]

    sheet = draw_activations(maps)

    # Each position is a square of 9 pixels.
    first, second, third = (tile_of(sheet, place, (72, 72), columns=3) for place in range(3))
    assert (first[:9, :9] == 255).all() and (first[9:] == 0).all()
    assert (second[:9, :9] == 127).all() or (second[:9, :9] == 128).all()
    assert not third.any()


def test_only_the_strongest_channels_are_drawn_in_their_own_order():
    maps = np.ones((72, 72, 70), np.float32)
    maps[..., 5:11] = 0.5  # six of seventy, which are left out

    sheet = draw_activations(maps)

    tiles = [tile_of(sheet, place, (72, 72), columns=8) for place in range(64)]
    assert all((tile == 255).all() for tile in tiles)
    assert len(np.asarray(sheet)) == 8 + 8 * (72 + 8 + 16)


def test_edge_filters_show_the_edges_that_they_are_made_for():
    photo = np.zeros((72, 72, 3), np.uint8)
    photo[:, 36:] = 200

    sheet = draw_edges(photo)

    # photo, prewitt, prewitt_x, prewitt_y, sobel, sobel_x, ...: brighter to the right is white.
    across, along = (tile_of(sheet, place, (72, 72), columns=4) for place in (2, 3))
    assert (across[:, 35:37] == 255).all() and (np.delete(across, [35, 36], 1) == 128).all()
    assert (along == along[0, 0]).all()


def test_filters_are_drawn_beside_their_matches():
    kernel = as_kernel(SOBEL_X, -SOBEL_X)

    plain, matched = draw_filters(kernel), draw_filters(kernel, match_filters(kernel))

    assert matched.width > 1.8 * plain.width
    assert plain.tobytes() == draw_filters(2 * kernel).tobytes()  # each by its own largest weight
