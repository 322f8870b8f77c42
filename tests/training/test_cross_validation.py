"""Cross-validation: folds share features and begin alike; the run's model sees all images."""

import csv
import json
import statistics

import numpy as np
import pytest

import tl_toolkit as tl
from tests.models import plan_values
from tests.tables import draw_tables, make_recipe, write_table
from tests.training.test_loop import digits_recipe
from tl_toolkit.errors import DataError, NonFiniteError, RecipeError
from tl_toolkit.events import ignore
from tl_toolkit.features import source
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.recipe.load import read_recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.training.checkpoint import Epoch
from tl_toolkit.training.folds import FoldTrainings, average_histories
from tl_toolkit.training.outcome import Training
from tl_toolkit.training.prepare import scan_images, survey_images

HEAD = [{"name": "head", "epochs": 3, "learning_rate": 1e-2}]


def folded_recipe(**sections):
    sections = {"yardsticks": False, "features": {"store": "always"}} | sections
    recipe = digits_recipe(phases=HEAD, **sections)
    recipe["data"] |= {"folds": 3, "examples_per_class": 8, "test": 0.02}
    return recipe


class Listener:
    def __init__(self):
        self.texts, self.computed = [], 0

    def handle(self, event):
        self.texts.append(event.text)
        if event.kind == "features_computed" and event.done == event.total:
            self.computed += event.total


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """A run of three folds with a store of its own, and what was heard of it."""
    folder, listener = tmp_path_factory.mktemp("folded"), Listener()

    def refuse(*arguments, **settings):
        raise AssertionError("the frozen part ran live")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_TOOLKIT_CACHE", str(folder / "cache"))
        patch.setattr(source, "LiveFeatures", refuse)
        run = tl.finetune(folded_recipe(), out=folder / "run", progress=listener.handle)
    return run, listener


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_frozen_part_runs_once_for_each_image(folded):
    run, listener = folded

    assert listener.computed == len(read_rows(run.folder.manifest)) > 24


@pytest.mark.slow
def test_each_image_is_predicted_once_in_its_fold(folded):
    run, _ = folded

    predicted = {row["path"]: row for row in read_rows(run.folder.predictions)}

    manifest = read_rows(run.folder.manifest)
    assert len(manifest) == len(predicted) == len(read_rows(run.folder.predictions))
    assert all(predicted[row["path"]]["fold"] == row["fold"] for row in manifest)
    assert {row["split"] for row in predicted.values() if not row["fold"]} == {"test"}


@pytest.mark.slow
def test_mean_and_deviation_are_those_of_the_folds_predictions(folded):
    run, _ = folded
    rows = [row for row in read_rows(run.folder.predictions) if row["fold"]]

    hits = [
        statistics.fmean(row["label"] == row["predicted"] for row in rows if row["fold"] == fold)
        for fold in "123"
    ]

    folds = run.metrics["folds"]
    assert folds["mean"]["accuracy"] == pytest.approx(statistics.fmean(hits))
    assert folds["deviation"]["accuracy"] == pytest.approx(statistics.stdev(hits))
    assert [fold["best"]["val_accuracy"] for fold in folds["each"]] == pytest.approx(hits)
    assert run.metrics["validation"]["images"] == 24
    assert run.metrics["validation"]["accuracy"] == pytest.approx(statistics.fmean(hits))


@pytest.mark.slow
def test_the_model_keeps_the_epoch_that_is_best_in_the_mean(folded):
    run, _ = folded
    histories = [read_rows(run.path / f"folds/{n}/phases/1-head/history.csv") for n in "123"]

    means = [
        statistics.fmean(float(history[epoch]["val_loss"]) for history in histories)
        for epoch in range(4)
    ]

    assert [epoch["val_loss"] for epoch in run.history] == pytest.approx(means)
    scores = [epoch["val_accuracy"] for epoch in run.history]
    best = max((1, 2, 3), key=lambda epoch: (scores[epoch], -means[epoch]))
    assert run.metrics["best"]["epoch"] == best
    assert run.evaluate()["split"] == "test"


@pytest.mark.slow
def test_a_run_without_test_images_has_none_to_evaluate(folded, tmp_path):
    run, _ = folded
    rows = [row for row in read_rows(run.folder.manifest) if row["split"] != "test"]
    files = {path: path.read_text() for path in (run.folder.manifest, run.folder.lock)}
    write_table(run.folder.manifest, [list(rows[0]), *(list(row.values()) for row in rows)])
    run.folder.lock.write_text("{}")  # which has the digest of the table

    try:
        with pytest.raises(DataError, match="none is left to measure it on"):
            tl.load_run(run.path).evaluate()
    finally:
        for path, text in files.items():
            path.write_text(text)


@pytest.mark.slow
def test_the_summary_shows_mean_and_deviation(folded, capsys):
    from rich.console import Console

    from tl_toolkit.printing.tables import build_summary

    run, _ = folded
    with (console := Console(width=100)).capture() as captured:
        console.print(build_summary(run.metrics, run.recipe.task))

    mean = run.metrics["folds"]["mean"]["accuracy"]
    lines = captured.get().splitlines()
    assert any("mean of 3 folds" in line and f"{mean:.4f}" in line for line in lines)
    assert any("deviation of folds" in line for line in lines)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    return draw_tables(tmp_path_factory.mktemp("numbers"), count=14) / "numbers.csv"


@pytest.mark.slow
def test_a_fold_is_the_training_on_its_images_alone_bit_for_bit(numbers, tmp_path):
    """A regression, whose model holds the scale of its training targets, and trains its base."""
    phases = [{"name": "all", "epochs": 2, "learning_rate": 0.003, "unfreeze": 1}]
    recipe = make_recipe("regression", numbers, phases=phases)
    recipe["data"]["folds"] = 2
    run = tl.finetune(recipe, out=tmp_path / "folded")
    table = [["path", "split", "size", "dose"]]
    for row in read_rows(run.folder.manifest):
        split = "validation" if row["fold"] == "2" else "train"
        table.append([row["path"], split, row["size"], row["dose"]])
    alone = make_recipe("regression", write_table(tmp_path / "alone.csv", table), phases=phases)

    single = tl.finetune(alone, out=tmp_path / "alone")

    texts = [
        (folder / "phases/1-all/history.csv").read_text()
        for folder in (run.path / "folds/2", single.path)
    ]
    assert texts[0] == texts[1]
    assert run.metrics["folds"]["each"][1]["loss"] == single.metrics["validation"]["loss"]


@pytest.mark.slow
def test_trials_are_scored_by_the_mean_and_share_the_features(folded, tmp_path, monkeypatch):
    """Trials of hyperband, whose folds pause and resume, at rates that are one as float32."""
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    space = {"phases.head.learning_rate": [1e-2, 1e-2 + 1e-12, 1e-2 + 2e-12]}
    recipe = folded_recipe(search={"algorithm": "hyperband", "space": space})
    listener = Listener()

    search = tl.search(recipe, out=tmp_path / "search", progress=listener.handle)

    assert listener.computed == 24
    assert search.summary["best"]["score"] == folded[0].metrics["best"]["val_accuracy"]
    assert search.summary["best"]["continues"] is not None


def test_the_mean_has_the_epochs_that_all_folds_reached():
    def history(*losses):
        return [
            Epoch("head", n, 0.1, None if n == 0 else loss, None, loss, -loss)
            for n, loss in enumerate(losses)
        ]

    mean = average_histories([history(4.0, 2.0, 1.0), history(2.0, 1.0)])

    assert [(epoch.epoch, epoch.val_loss, epoch.val_score) for epoch in mean] == [
        (0, 3.0, -3.0),
        (1, 1.5, -1.5),
    ]
    assert mean[0].loss is None and mean[1].loss == 1.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.folds=1"], "folds"),
        (
            ["data.group=label"],
            "expected none without data.csv or data.table: groups are a column of a table",
        ),
        (["search={space: {data.folds: [2, 3]}}"], "scores on other images cannot be compared"),
    ],
)
def test_folds_are_refused_where_they_have_no_meaning(changes, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe(folded_recipe(), changes)


def test_a_folder_of_validation_images_is_refused_beside_folds():
    recipe = folded_recipe()
    recipe["data"] |= {"train": "photos", "validation": "more"}
    del recipe["data"]["builtin"]

    with pytest.raises(
        RecipeError, match=r"(?s)each image that trains validates once.*~data.validat"
    ):
        read_recipe(recipe)


def test_tables_say_their_groups(numbers, tmp_path):
    rows = read_rows(numbers)
    table = [["path", "who", "size", "dose"]]
    table += [
        [str(numbers.parent / row["path"]), f"p{n // 4}", row["size"], row["dose"]]
        for n, row in enumerate(rows)
    ]
    path = write_table(tmp_path / "groups.csv", table)
    recipe = make_recipe("regression", path)
    recipe["data"] |= {"group": "who", "folds": 2}
    named = ["task={kind: regression, columns: [size]}"]

    plan = check_recipe(read_recipe(recipe))

    assert plan.classes == ("size", "dose")
    assert [file.group for file in plan.listing.files] == [row[1] for row in table[1:]]
    with pytest.raises(DataError, match=r"(?s)has no column 'whom'.*data.group=who"):
        check_recipe(read_recipe(recipe, ["data.group=whom", *named]))
    write_table(path, [*table[:-1], [table[-1][0], "", 1, 2]])
    with pytest.raises(DataError, match="no who"):
        check_recipe(read_recipe(recipe))


@pytest.mark.parametrize("changes", [[], ["data.folds=2"]], ids=["plain", "folds"])
def test_a_group_of_a_table_lies_on_one_side(numbers, tmp_path, changes):
    rows = [["path", "who", "size"]]
    rows += [
        [str(numbers.parent / row["path"]), f"p{n % 5}", row["size"]]
        for n, row in enumerate(read_rows(numbers))
    ]
    recipe = make_recipe("regression", write_table(tmp_path / "groups.csv", rows))
    recipe["data"] |= {"group": "who", "validation": 0.4}
    plan, task = plan_values(recipe, changes)

    manifest = scan_images(plan, task, RunFolder(tmp_path))

    sides = {}
    for number, example in enumerate(manifest.examples):
        sides.setdefault(number % 5, set()).add((example.split, example.fold))
    assert all(len(of_group) == 1 for of_group in sides.values())
    assert len(set.union(*sides.values())) == 2


def test_a_table_with_rows_for_validation_is_refused_beside_folds(numbers, tmp_path):
    rows = [["path", "split", "size"]]
    rows += [[str(numbers.parent / f"images/numbers{n}.png"), "train", n] for n in range(4)]
    rows[-1][1] = "validation"
    recipe = make_recipe("regression", write_table(tmp_path / "split.csv", rows))
    recipe["data"]["folds"] = 2

    with pytest.raises(DataError, match="rows of the split validation"):
        check_recipe(read_recipe(recipe))


def test_a_target_with_the_name_of_folds_is_refused_beside_them(numbers, tmp_path):
    rows = [["path", "fold"]]
    rows += [[str(numbers.parent / f"images/numbers{n}.png"), n] for n in range(4)]
    recipe = make_recipe("regression", write_table(tmp_path / "fold.csv", rows))
    check_recipe(read_recipe(recipe))

    with pytest.raises(DataError, match="a target is called 'fold'"):
        check_recipe(read_recipe(recipe, ["data.folds=2"]))


@pytest.mark.slow
def test_an_error_names_the_fold(tmp_path):
    recipe = folded_recipe()
    recipe["phases"] = [{"name": "head", "epochs": 3, "learning_rate": 1e38, "optimizer": "sgd"}]

    with pytest.raises(NonFiniteError, match="^fold 1, phase 'head', epoch "):
        tl.finetune(recipe, out=tmp_path / "run")


@pytest.mark.slow
def test_metrics_are_plain_numbers(folded):
    run, _ = folded

    assert json.loads(run.folder.metrics.read_text()) == run.metrics
    assert np.isfinite(run.metrics["folds"]["deviation"]["loss"])


@pytest.mark.parametrize("keep_start", [False, True])
def test_a_trained_start_may_be_best_in_the_mean(keep_start):
    losses = [[1.0, 2.0], [1.0, 0.5]]  # 1.0 before, and 1.25 after the epoch
    histories = [
        [
            Epoch("tune", n, 0.1, None, None, val_loss=loss, val_score=0.5)
            for n, loss in enumerate(of)
        ]
        for of in losses
    ]
    folds = [Training(history[0], tuple(history), (), "") for history in histories]

    best = FoldTrainings(tuple(folds), keep_start=keep_start).best

    assert best.epoch == (0 if keep_start else 1)


@pytest.mark.slow
def test_each_fold_is_measured_by_the_scale_of_its_own_training_targets(tmp_path):
    """Targets of which one is far from the others: the scales of two folds differ much."""
    table = draw_tables(tmp_path, count=12) / "numbers.csv"
    rows = [["path", "size"], *([row["path"], row["size"]] for row in read_rows(table))]
    rows[1][1] = 9000
    phases = [{"name": "head", "epochs": 1, "learning_rate": 0.003}]
    recipe = make_recipe("regression", write_table(table, rows), phases=phases)
    recipe["data"]["folds"] = 2

    metrics = tl.finetune(recipe, out=tmp_path / "run").metrics

    each, joint = metrics["folds"]["each"], metrics["validation"]
    losses = [fold["best"]["val_loss"] for fold in each]
    assert max(losses) > 20 * min(losses)
    assert [fold["loss"] for fold in each] == pytest.approx(losses, rel=1e-5)
    assert [fold["r2"] for fold in each] == pytest.approx(
        [fold["best"]["val_r2"] for fold in each], rel=1e-4
    )
    assert joint["loss"] == pytest.approx(statistics.fmean(losses), rel=1e-5)  # of 6 images each
    assert joint["mean"]["r2"] == pytest.approx(0, abs=1e-6)  # the mean of all images
    assert metrics["best"]["val_loss"] == pytest.approx(statistics.fmean(losses), rel=1e-5)


@pytest.mark.slow
def test_folds_that_train_in_bfloat16_are_measured_in_float32(tmp_path):
    """At a rate of almost 0 the models of the folds and of the run are one."""
    phases = [{"name": "tune", "epochs": 1, "learning_rate": 1e-20, "unfreeze": 1}]
    recipe = digits_recipe(phases=phases, precision="bfloat16", yardsticks=False)
    recipe["data"] |= {"folds": 2, "classes": ["0", "1", "2"], "examples_per_class": 4}

    run = tl.finetune(recipe, out=tmp_path / "run")

    plan, task = plan_values(recipe)
    _, images = survey_images(plan, task, RunFolder(tmp_path), ignore)
    order = [example.path for example in images["train"].examples]
    pixels, _ = next(iter(images["train"].batches(np.arange(12), 12)))
    exact = dict(zip(order, np.asarray(run.model(np.asarray(pixels, np.float32))), strict=True))
    for row in read_rows(run.folder.predictions):
        values = [float(row[f"probability_{label}"]) for label in "012"]
        np.testing.assert_allclose(values, exact[row["path"]], atol=1e-6)
    each = run.metrics["folds"]["each"]
    losses = [fold["best"]["val_loss"] for fold in each]
    assert losses != pytest.approx([fold["loss"] for fold in each], rel=1e-6)  # of bfloat16
    assert run.metrics["best"]["val_loss"] == pytest.approx(statistics.fmean(losses))
