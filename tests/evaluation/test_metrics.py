"""What thresholds can be set on, and which way they go."""

import numpy as np
import pytest

from tl_toolkit.errors import RecipeError, ThresholdError
from tl_toolkit.evaluation.metrics import check_limits, check_names, check_thresholds
from tl_toolkit.recipe.tasks import find_task
from tl_toolkit.tasks.edges.task import EdgeMetric
from tl_toolkit.tasks.normals.task import NormalMetric

NORMALS = ["mean_angle", "median_angle", "rmse_angle", "within_11_25", "within_22_5", "within_30"]


def measure_normals():
    """The metrics of angles of 5, 15, 25 and 60 degrees."""
    angles = np.radians([[5, 15, 25, 60]])
    vectors = np.stack([np.sin(angles), np.zeros_like(angles), np.cos(angles)], axis=-1)
    metric = NormalMetric()
    metric.add({"normal": vectors}, np.broadcast_to([0.0, 0.0, 1.0], vectors.shape))
    return metric.result()


def measure_edges():
    edges = np.zeros((50, 50), np.float32)
    edges[20, 5:45] = 1
    metric = EdgeMetric()
    metric.add({"probability": edges * 0.9}, edges)
    return metric.result()


def graded(kind):
    """What the metrics of a task mean for thresholds."""
    task = find_task(kind)
    return {"lower_is_better": task.lower_is_better, "ungraded": task.ungraded}


@pytest.mark.parametrize("name", NORMALS)
def test_a_normal_may_be_off_by_at_most_an_angle_and_be_near_in_at_least_a_share(name):
    metrics = measure_normals()
    better, worse = metrics[name] - 0.1, metrics[name] + 0.1  # of a limit on an angle
    bound = "at most"
    if not name.endswith("_angle"):
        better, worse, bound = worse, better, "at least"

    check_thresholds(metrics, {name: worse}, **graded("normals"))

    with pytest.raises(ThresholdError, match=f"Asked for {bound} "):
        check_thresholds(metrics, {name: better}, **graded("normals"))


def test_the_trivial_answer_has_the_metrics_of_the_model():
    assert list(measure_normals()["facing"]) == NORMALS


@pytest.mark.parametrize("name", ["mean_angle", "within_30"])
def test_a_metric_that_is_not_a_number_passes_no_threshold(name):
    metrics = {**measure_normals(), name: float("nan")}

    with pytest.raises(ThresholdError, match=f"{name} = nan"):
        check_thresholds(metrics, {name: 0.0}, **graded("normals"))


def test_the_threshold_of_edges_is_no_quality_to_ask_for():
    metrics, ungraded = measure_edges(), find_task("edges").ungraded

    check_thresholds(metrics, {"ods": 0.5, "ods_precision": 0.5}, **graded("edges"))

    with pytest.raises(RecipeError, match="'ods_threshold' is no metric of the run"):
        check_names({"ods_threshold": 0.5}, {"validation": metrics}, ungraded=ungraded)
    with pytest.raises(RecipeError, match="One of ods, ods_precision, ods_recall, ois, average_"):
        check_thresholds(metrics, {"ods_threshold": 0.5}, **graded("edges"))


OVERLAPS = {"mean_iou": 0.5, "frequency_weighted_iou": 0.6}
SCORES = {"accuracy": 0.5, "macro_f1": 0.7}
CLASSES = {"mean_average_precision": 0.5, "micro_f1": 0.6, "macro_f1": 0.7, "loss": 1.0}


@pytest.mark.parametrize(
    ("task", "metrics", "typed", "name"),
    [
        ("multilabel", CLASSES, "mAP", "mean_average_precision"),
        ("multilabel", CLASSES, "micro F1", "micro_f1"),
        ("classification", SCORES, "f1", "macro_f1"),
        ("classification", SCORES, "acc", "accuracy"),
        ("segmentation", OVERLAPS, "IoU", "mean_iou"),
        ("segmentation", OVERLAPS, "weighted IoU", "frequency_weighted_iou"),
        ("regression", {"r2": 0.5, "mae": 1.0}, "R2", "r2"),
    ],
)  # fmt: skip
def test_a_limit_may_have_the_name_that_tables_or_other_tools_have(task, metrics, typed, name):
    section = find_task(task)
    options = {"lower_is_better": {"loss"}, "aliases": section.list_aliases()}

    check_thresholds(metrics, {typed: metrics[name]}, **options)
    with pytest.raises(ThresholdError, match=f"{name} = "):
        check_thresholds(metrics, {typed: metrics[name] + 0.01}, **options)


def test_a_name_of_two_metrics_is_answered_by_both():
    with pytest.raises(RecipeError) as caught:
        check_names({"f1": 0.5}, {"validation": CLASSES})

    (problem,) = caught.value.problems
    assert problem.what == "'f1' is no metric of the run; it may be micro_f1 or macro_f1"
    assert problem.hint == "--fail-under micro_f1=0.5"


@pytest.mark.parametrize(
    ("typed", "limit", "hint"), [("accuracy", 80, "0.8"), ("macro_f1", 1.1, "0.9")]
)
def test_a_limit_that_no_score_reaches_is_refused(typed, limit, hint):
    with pytest.raises(RecipeError, match="no model reaches it") as caught:
        check_limits({typed: limit, "loss": 3.0}, lower_is_better={"loss"})

    (problem,) = caught.value.problems
    assert problem.hint == f"--fail-under {typed}={hint}"


def test_limits_of_errors_and_of_whole_scores_are_taken():
    check_limits({"angle": 20.0, "accuracy": 1.0}, lower_is_better={"mean_angle", "rmse_angle"})
    check_limits({"MAE": 7.0}, lower_is_better={"mae"}, aliases={"MAE": "mae"})
