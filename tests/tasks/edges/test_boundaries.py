"""Metrics of edges, against lines drawn by hand."""

import numpy as np
import pytest
from scipy import sparse

from tl_toolkit.tasks.edges.boundaries import (
    THRESHOLDS,
    TOLERANCE,
    BoundaryCounts,
    _find_matched,
    _find_near,
    count_matches,
    find_ridges,
    summarize,
)

SIDE = 100  # a diagonal of 141 pixels, so that 1.06 pixels are within the tolerance


def line(at=50, *, width=1, value=1.0):
    edges = np.zeros((SIDE, SIDE))
    edges[at : at + width, 10:90] = value
    return edges


def square(inset=20):
    edges = np.zeros((SIDE, SIDE))
    edges[[inset, -inset - 1], inset:-inset] = 1
    edges[inset:-inset, [inset, -inset - 1]] = 1
    return edges


def circle(radius=30):
    ys, xs = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    return (abs(np.hypot(ys, xs) - radius) < 0.5).astype(float)


def measure(*pairs):
    images = [count_matches(prediction, target > 0) for prediction, target in pairs]
    return images, summarize(images)


@pytest.mark.parametrize("draw", [line, square, circle, lambda: line().T])
def test_a_perfect_map_has_nothing_wrong(draw):
    _, actual = measure((draw(), draw()))

    assert actual["ods"] == actual["ois"] == actual["average_precision"] == 1
    assert actual["ods_precision"] == actual["ods_recall"] == 1


def test_one_pixel_beside_is_within_the_tolerance():
    assert SIDE * np.sqrt(2) * TOLERANCE >= 1

    assert measure((line(51), line(50)))[1]["ods"] == 1


def test_two_pixels_beside_are_not():
    _, actual = measure((line(52), line(50)))

    assert actual["ods"] == actual["average_precision"] == 0


@pytest.mark.parametrize(("step", "score"), [((1, 0), 1), ((0, 1), 1), ((1, 1), 0)])
def test_distances_are_those_of_a_circle_not_of_a_square(step, score):
    dot = np.zeros((SIDE, SIDE))
    dot[50, 50] = 1

    _, actual = measure((np.roll(dot, step, (0, 1)), dot))

    assert actual["ods"] == score


def test_the_tolerance_is_a_fraction_of_the_diagonal():
    small = slice(20, 80)  # 60 x 60: a diagonal of 85, of which 0.64 pixels

    assert measure((line(51)[small, small], line(50)[small, small]))[1]["ods"] == 0
    assert measure((line(50)[small, small], line(50)[small, small]))[1]["ods"] == 1


def test_of_two_lines_one_is_wrong_though_both_are_near():
    prediction = np.maximum(line(49), line(51))

    _, actual = measure((prediction, line(50)))

    assert actual["ods_recall"] == 1
    assert actual["ods_precision"] == pytest.approx(0.5)
    assert actual["ods"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("width", [2, 3, 4, 7])
def test_a_wide_line_is_thinned_to_one(width):
    middle = 50 - (width - 1) // 2

    ridges = find_ridges(line(middle, width=width))

    assert (ridges[:, 20:80].sum(axis=0) == 1).all()


def test_a_wide_line_in_the_truth_counts_once():
    images, actual = measure((line(50), line(49, width=3)))

    assert images[0].expected == pytest.approx(80, abs=4)
    assert actual["ods"] > 0.97


@pytest.mark.parametrize("blur", [1.0, 2.0])
def test_a_blurred_line_is_thinned_to_its_middle(blur):
    from scipy import ndimage

    ridges = find_ridges(ndimage.gaussian_filter(line(50), blur))

    assert (np.flatnonzero(ridges[:, 50]) == [50]).all()


def test_a_diagonal_line_stays_whole():
    edges = np.eye(SIDE)

    assert (find_ridges(edges) == (edges > 0)).mean() == 1


def test_a_prediction_without_edges_finds_nothing():
    images, actual = measure((np.zeros((SIDE, SIDE)), line()))

    assert actual["ods"] == actual["ois"] == actual["average_precision"] == 0
    assert images[0].detected.max() == 0


@pytest.mark.parametrize("value", [0.5, 1.0])
def test_a_constant_map_has_an_average_precision_of_0(value):
    images, actual = measure((np.full((SIDE, SIDE), value), line()))

    assert actual["average_precision"] == 0
    assert images[0].detected.max() == 0


def test_an_empty_truth_makes_every_edge_wrong():
    images, actual = measure((line(value=0.5), np.zeros((SIDE, SIDE))))

    assert images[0].matched.max() == 0 and images[0].detected.max() > 0
    assert actual["average_precision"] == 0
    assert actual["ods"] == actual["ois"] == 0


def test_without_an_edge_in_all_of_the_truth_there_is_no_score():
    # As the score of epochs, which would else disagree.
    _, actual = measure((np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))))

    assert actual["ods"] == actual["ois"] == 0


def test_an_image_without_an_edge_costs_nothing_where_nothing_is_found():
    alone = measure((line(), line()))[1]
    _, actual = measure((line(), line()), (line(value=0.5), np.zeros((SIDE, SIDE))))

    assert actual["ois"] == alone["ois"] == 1


def test_pixels_that_do_not_count_are_neither_found_nor_missed():
    counted = np.ones((SIDE, SIDE), bool)
    counted[:, 50:] = False
    prediction = np.maximum(line(50), line(20))
    prediction[20, :50] = 0  # what is wrong lies where nothing counts

    actual = count_matches(prediction, line(50) > 0, counted=counted)

    assert actual.f_scores.max() == 1
    assert actual.expected == pytest.approx(40, abs=2)


def test_each_threshold_counts_edges_from_it_on():
    prediction = np.maximum(line(20, value=0.4), line(70, value=0.8))

    actual = count_matches(prediction, line(20) + line(70) > 0)

    below, between, above = (np.flatnonzero(THRESHOLDS > t)[0] for t in (0.1, 0.5, 0.85))
    assert actual.detected[below] == 2 * actual.detected[between] == actual.expected
    assert actual.matched[between] == actual.detected[between]
    assert actual.detected[above] == 0


def test_one_threshold_for_all_is_no_better_than_one_for_each():
    noise = np.maximum(line(20, value=0.3), line(70, value=0.3))
    strong = np.maximum(line(50, value=0.9), noise)  # best above 0.3
    weak = line(50, value=0.2)  # best at 0.2

    _, actual = measure((strong, line(50)), (weak, line(50)))

    assert actual["ods"] < actual["ois"] == 1


def test_a_matching_uses_each_pixel_once_and_as_many_as_it_can():
    # The edge at 11 can have the target at 10 alone; that at 10 must take the one at 9.
    target = np.zeros((SIDE, SIDE), bool)
    target[50, [9, 10]] = True
    prediction = np.zeros((SIDE, SIDE))
    prediction[50, [10, 11]] = 1

    near = _find_near(np.argwhere(prediction), target)

    assert _find_matched(near).tolist() == [True, True]
    assert near.toarray().sum() == 3


def count_matched(near):
    """The size of the largest matching as SciPy finds it."""
    return int((sparse.csgraph.maximum_bipartite_matching(near, perm_type="column") >= 0).sum())


@pytest.mark.parametrize("share", [0.03, 0.2, 0.5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_first_edges_of_any_number_have_as_many_matches_as_there_can_be(share, seed):
    random = np.random.default_rng(seed)
    edges = random.permutation(np.argwhere(random.uniform(size=(300, 30)) < share))
    near = _find_near(edges, random.uniform(size=(300, 30)) < 0.8 * share)

    actual = np.cumsum(_find_matched(near))

    for count in np.linspace(1, len(edges), 12).astype(int):
        assert actual[count - 1] == count_matched(near[:count])
    assert actual[-1] < len(edges)  # the last ones do compete


def test_the_area_under_precision_and_recall_is_the_one_worked_out_by_hand():
    # Half of the target at a precision of 1, all of it at 0.5.
    matched = np.where(THRESHOLDS > 0.5, 5, 10)
    detected = np.where(THRESHOLDS > 0.5, 5, 20)

    actual = summarize([BoundaryCounts(matched, detected, 10)])

    assert actual["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert actual["ods"] == pytest.approx(2 * 5 / 15)
