"""Intervals by the bootstrap, and paired comparisons, against figures worked out by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from tl_toolkit.recipe.tasks import find_task
from tl_toolkit.tasks.classification.metrics import measure_classification, sample_classes
from tl_toolkit.tasks.edges.task import EdgeMetric
from tl_toolkit.tasks.multilabel.metrics import measure_multilabel, sample_labels
from tl_toolkit.tasks.normals.task import NormalMetric
from tl_toolkit.tasks.regression.metrics import measure_regression, sample_values
from tl_toolkit.tasks.resampling import Sample, compare_samples, find_intervals, sum_groups
from tl_toolkit.tasks.segmentation.task import MaskMetric


def classes():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 50)
    shares = random.dirichlet([1, 1, 1, 1], 50)  # no image is of the last class
    losses = random.uniform(0, 2, 50)

    def measure(places):
        return measure_classification(labels[places], shares[places], "abcd", losses=losses[places])

    return measure, sample_classes(labels, shares, losses=losses)


def labels():
    random = np.random.default_rng(1)
    targets = random.integers(0, 2, (40, 3))
    shares = random.integers(0, 8, (40, 3)) / 8  # many are equal
    thresholds, losses = np.full(3, 0.5), random.uniform(0, 2, 40)

    def measure(places):
        return measure_multilabel(
            targets[places], shares[places], thresholds, "abc", losses=losses[places]
        )

    return measure, sample_labels(targets, shares, thresholds, losses=losses)


def values():
    random = np.random.default_rng(2)
    targets = random.normal(1000, 1, (30, 2)).astype(np.float32)
    predictions = targets + random.normal(0, 0.5, (30, 2)).astype(np.float32)

    def measure(places):
        return measure_regression(targets[places], predictions[places], "ab", np.zeros(2))

    return measure, sample_values(targets, predictions)


def maps(metric_of, name, draw):
    random = np.random.default_rng(3)
    pairs = [draw(random) for _ in range(8)]

    def fill(places):
        metric = metric_of()
        for prediction, target in (pairs[place] for place in places):
            metric.add({name: prediction}, target)
        return metric

    return lambda places: fill(places).result(), fill(range(8)).sample()


def masks():
    def draw(random):
        return random.integers(0, 3, (6, 6)), random.integers(0, 2, (6, 6)).astype(np.uint8)

    return maps(lambda: MaskMetric("abcd"), "mask", draw)


def edges():
    def draw(random):
        target = np.zeros((24, 24), np.float32)
        target[random.integers(4, 20), 3:21] = 1
        return 0.5 * target + random.uniform(0, 0.5, (24, 24)), target

    return maps(EdgeMetric, "probability", draw)


def normals():
    def draw(random):
        vectors = random.normal(size=(2, 5, 5, 3))
        return tuple(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))

    return maps(NormalMetric, "normal", draw)


CASES = [classes, labels, values, masks, edges, normals]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_resample_has_the_metrics_of_the_images_in_it(case):
    measure, sample = case()
    places = np.random.default_rng(5).integers(0, sample.images, (2, sample.images))
    counts = np.stack([np.bincount(row, minlength=sample.images) for row in places])

    measured = sample.measure(counts.astype(float))

    assert len(measured) >= 3
    for row in range(2):
        expected = measure(places[row])
        for name, figures in measured.items():
            assert figures[row] == pytest.approx(expected[name], rel=1e-9), name


def test_the_interval_of_a_mean_is_the_normal_ones():
    numbers = np.random.default_rng(0).normal(3, 2, 400)
    sample = Sample(400, lambda counts: {"mean": counts @ numbers / counts.sum(axis=1)})

    low, high = find_intervals(sample)["mean"]

    margin = 1.96 * numbers.std() / 20
    assert (low, high) == pytest.approx(
        (numbers.mean() - margin, numbers.mean() + margin), abs=0.03
    )
    assert find_intervals(sample)["mean"] == [low, high]


def test_resamples_are_drawn_with_replacement_and_are_as_large_as_the_split():
    seen = []

    def measure(counts):
        seen.append(counts)
        return {"n": counts.sum(axis=1)}

    find_intervals(Sample(7, measure))

    counts = np.concatenate(seen)
    assert counts.shape == (1000, 7) and set(counts.sum(axis=1)) == {7} and counts.max() > 2


def test_one_image_has_no_interval():
    assert find_intervals(Sample(1, lambda counts: {"n": counts[:, 0]})) == {}


@pytest.mark.parametrize(("only_run", "only_other"), [(9, 2), (2, 9), (12, 1), (0, 0), (0, 6)])
def test_hits_are_compared_by_the_exact_binomial_of_scipy(only_run, only_other):
    run = np.array([True] * (5 + only_run) + [False] * only_other)
    other = np.array([True] * 5 + [False] * only_run + [True] * only_other)

    found = compare_samples(*(Sample(len(hits), lambda counts: {}, hits) for hits in (run, other)),
                            "accuracy")  # fmt: skip

    total = only_run + only_other
    p = stats.binomtest(only_run, total).pvalue if total else 1.0
    assert found["p"] == pytest.approx(p)
    assert (found["only_run"], found["only_other"]) == (only_run, only_other)
    better = "better" if only_run > only_other else "worse"
    assert found["verdict"] == (better if p < 0.05 else "open")


@pytest.mark.parametrize(("shift", "verdict"), [(0.5, "better"), (-0.5, "worse"), (0.0, "open")])
def test_what_is_no_hit_is_compared_on_the_same_resamples(shift, verdict):
    random = np.random.default_rng(0)
    plain = random.normal(0, 10, 200)  # far apart, so that only pairs tell the two apart
    shifted = plain + shift + random.normal(0, 1, 200)
    run, other = (
        Sample(200, lambda counts, of=of: {"r2": counts @ of / 200}) for of in (shifted, plain)
    )

    found = compare_samples(run, other, "r2")

    assert found["verdict"] == verdict
    assert found["difference"] == pytest.approx((shifted - plain).mean())
    low, high = found["interval"]
    assert low < found["difference"] < high and high - low < 0.4


def test_groups_are_summed_by_their_counts():
    counts = np.array([[1.0, 2, 0], [0, 3, 1]])

    assert sum_groups(counts, np.array([1, 1, 0]), 3).tolist() == [[0, 3, 0], [1, 3, 0]]


def test_the_majority_has_scikit_learns_metrics_of_a_constant():
    truth = np.array([0, 1, 1, 1, 2, 2])
    constant = np.ones_like(truth)

    measured = measure_classification(truth, np.eye(4)[truth], "abcd")["majority"]

    assert measured == {
        "class": "b",
        "accuracy": pytest.approx(1 / 2),
        "balanced_accuracy": pytest.approx(sklearn.balanced_accuracy_score(truth, constant)),
        "macro_f1": pytest.approx(
            sklearn.f1_score(truth, constant, average="macro", zero_division=0.0)
        ),
    }


def test_a_comparison_is_a_plain_sentence():
    section = find_task("classification")
    facts = {"test": "mcnemar", "only_run": 9, "only_other": 2, "p": 0.0654}

    def said(verdict):
        return section.describe_comparisons({"against": {"probe": {"verdict": verdict, **facts}}})

    rest = "9 images are right in this run alone, 2 in that alone (McNemar's exact p = 0.065)"
    assert said("open") == [f"not to be told apart from the linear probe: {rest}"]
    assert said("better") == [f"better than the linear probe: {rest}"]
    assert section.describe_comparisons({}) == []


def test_a_difference_of_figures_is_a_plain_sentence():
    facts = {"verdict": "worse", "test": "bootstrap", "metric": "r2", "difference": -0.1,
             "interval": [-0.2, -0.05]}  # fmt: skip

    (said,) = find_task("regression").describe_comparisons({"against": {"probe": facts}})

    assert said == (
        "worse than the linear probe: R2 -0.100, -0.200 to -0.050 with 95 % confidence "
        "(paired bootstrap)"
    )
