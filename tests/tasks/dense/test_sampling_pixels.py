"""Which pixels are sampled of an image for a step of training."""

import numpy as np
import pytest

from tl_toolkit.tasks.dense.sampling import find_borders, sample_pixels
from tl_toolkit.tasks.dense.spec import IGNORE

# Three classes, of 80, 16 and 4 pixels of those that count, and 20 that do not.
MASK = np.full((10, 12), 0, np.uint8)
MASK[:, 10:] = IGNORE
MASK[:4, :4] = 1
MASK[9, :4] = 2
CLASSES = MASK.reshape(-1)


def draw(count, sampling="uniform", *, mask=MASK, seed=0):
    return sample_pixels(mask, count, np.random.default_rng(seed), sampling)


def test_uniform_draws_each_counted_pixel_once_if_all_are_asked_for():
    assert sorted(draw(100)) == np.flatnonzero(CLASSES != IGNORE).tolist()


@pytest.mark.parametrize("sampling", ["uniform", "balanced", "edges"])
def test_ignored_pixels_are_never_drawn(sampling):
    for seed in range(20):
        assert IGNORE not in CLASSES[draw(50, sampling, seed=seed)]


def test_uniform_repeats_no_pixel_while_there_are_enough():
    for seed in range(20):
        assert len(set(draw(60, seed=seed))) == 60


def test_uniform_repeats_pixels_where_there_are_too_few():
    actual = draw(250)

    assert len(actual) == 250
    assert len(set(actual)) == 100, "some were left out for repeats of others"


def test_uniform_draws_all_alike():
    counts = sum(np.bincount(draw(10, seed=seed), minlength=MASK.size) for seed in range(2000))

    counted = counts[CLASSES != IGNORE]
    # 200 each; six standard deviations of a binomial (2000, 0.1) are 80.
    assert counted.min() > 120 and counted.max() < 280


def test_balanced_draws_as_many_of_each_class():
    actual = CLASSES[draw(12, "balanced")]

    assert np.bincount(actual).tolist() == [4, 4, 4]


def test_balanced_deals_out_what_does_not_divide_by_lot():
    counts = [np.bincount(CLASSES[draw(11, "balanced", seed=seed)]) for seed in range(30)]

    assert all(sorted(one) == [3, 4, 4] for one in counts)
    assert {int(one.argmin()) for one in counts} == {0, 1, 2}


def test_balanced_repeats_pixels_of_a_rare_class_only():
    actual = draw(60, "balanced")

    assert np.bincount(CLASSES[actual]).tolist() == [20, 20, 20]
    assert len(set(actual[CLASSES[actual] == 0])) == 20


def test_edges_draws_half_beside_a_border():
    actual = draw(30, "edges")

    assert find_borders(MASK).reshape(-1)[actual].sum() == 15


def test_edges_of_one_class_alone_draws_all_alike():
    mask = np.zeros((6, 6), np.uint8)

    assert sorted(draw(36, "edges", mask=mask)) == list(range(36))


def test_a_border_is_two_pixels_deep_on_either_side():
    mask = np.repeat(np.array([[0] * 5 + [1] * 5], np.uint8), 3, axis=0)

    assert find_borders(mask)[1].tolist() == [False] * 3 + [True] * 4 + [False] * 3


def test_pixels_of_no_class_make_no_border():
    mask = np.repeat(np.array([[0] * 5 + [IGNORE] * 5], np.uint8), 3, axis=0)

    assert not find_borders(mask).any()


def test_without_a_counted_pixel_any_are_drawn():
    actual = draw(50, mask=np.full((4, 5), IGNORE, np.uint8))

    assert len(actual) == 50 and 0 <= actual.min() and actual.max() < 20


@pytest.mark.parametrize("sampling", ["uniform", "balanced", "edges"])
def test_the_same_seed_draws_the_same_pixels(sampling):
    np.testing.assert_array_equal(draw(30, sampling, seed=3), draw(30, sampling, seed=3))
    assert draw(30, sampling, seed=3).tolist() != draw(30, sampling, seed=4).tolist()
