"""What `evaluate` and `predict` print of predictions, without a model."""

import csv
import io
import json

import pytest

from tests.command import tltool
from tl_toolkit.api.run import Run
from tl_toolkit.cli import using
from tl_toolkit.printing.tables import build_table, open_console
from tl_toolkit.recipe.load import build_recipe, dump_recipe
from tl_toolkit.recipe.tasks import find_task
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.classification.outputs import ClassPrediction
from tl_toolkit.tasks.dense.outputs import MapPrediction
from tl_toolkit.tasks.multilabel.outputs import LabelsPrediction
from tl_toolkit.tasks.regression.outputs import ValuesPrediction

REFUSED = "no image"


@pytest.fixture
def run_of(tmp_path):
    """Returns a function that makes the run of a task: a folder of recipe and classes."""

    def make(task, classes=()):
        names = {"classes": list(classes)} if task == "segmentation" else {}
        source = "csv" if task in ("multilabel", "regression") else "train"
        recipe = build_recipe(
            {
                "version": 1,
                "name": "x",
                "task": task,
                "data": {source: str(tmp_path), "validation": 0.2, "image_size": 32, **names},
                "model": {"base": "pixelnet", "weights": "random"},
                "phases": [{"name": "head", "epochs": 1}],
            }
        ).recipe
        (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
        (tmp_path / "classes.json").write_text(json.dumps(classes))
        (tmp_path / "status.json").write_text("{}")
        return Run(RunFolder(tmp_path))

    return make


def test_views_that_a_task_has_not_are_refused_in_the_words_of_the_command(run_of):
    run = run_of("segmentation", ("sky", "tree"))

    for command in (("evaluate", run.path), ("predict", run.path, "x.jpg")):
        result = tltool(*command, "--tta-views", "crops", cwd=run.path, code=2)

        assert "--tta: crops  a crop lacks pixels of the image" in result.stderr
        assert "Try: --tta-views flip" in result.stderr


def test_a_view_that_is_none_is_refused_before_anything_is_opened(run_of):
    result = tltool(
        "evaluate", run_of("classification").path, "--tta-views", "flop", cwd="/", code=2
    )

    assert "--tta-views  'flop' is no view" in result.stderr
    assert "Try: --tta-views flip" in result.stderr


@pytest.mark.parametrize(
    "task, predictions",
    [
        (
            "segmentation",
            [
                MapPrediction("a", shares={"tree": 0.7, "sky": 0.3}),
                MapPrediction("b", error=REFUSED),
            ],
        ),
        (
            "segmentation",
            [
                MapPrediction("b", error=REFUSED),
                MapPrediction("a", shares={"tree": 0.7, "sky": 0.3}),
            ],
        ),
        (
            "classification",
            [
                ClassPrediction("a", "tree", {"sky": 0.3, "tree": 0.7}),
                ClassPrediction("b", None, {}, REFUSED),
            ],
        ),
        ("segmentation", [MapPrediction("b", error=REFUSED)]),
    ],
)
def test_columns_of_csv_are_the_classes_of_the_run_in_their_order(
    task, predictions, run_of, capsys
):
    using._print_csv(run_of(task, ("sky", "tree")), predictions)

    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    prefix = "share" if task == "segmentation" else "probability"
    assert header[-3:] == [f"{prefix}_sky", f"{prefix}_tree", "error"]
    cells = {row[0]: row[-3:] for row in rows}
    assert cells["b"] == ["", "", REFUSED]
    assert cells.get("a", ["0.3", "0.7", ""]) == ["0.3", "0.7", ""]


@pytest.mark.parametrize(
    ("task", "prediction"),
    [
        ("classification", ClassPrediction("a", "path", {"error": 0.3, "label": 0.1, "path": 0.6})),
        ("segmentation", MapPrediction("a", shares={"error": 0.3, "label": 0.1, "path": 0.6})),
        ("multilabel", LabelsPrediction("a", ("path",), {"error": 0.3, "label": 0.1, "path": 0.6})),
        ("regression", ValuesPrediction("a", {"error": 1.0, "label": 2.0, "path": 3.0})),
    ],
)
def test_no_class_has_the_column_of_another_thing(task, prediction, run_of, capsys):
    using._print_csv(run_of(task, ("error", "label", "path")), [prediction])

    (header, row) = csv.reader(io.StringIO(capsys.readouterr().out))
    assert len(set(header)) == len(header) == len(row)
    assert row[header.index("path")] == "a" and row[header.index("error")] == ""


def test_tables_of_predictions_without_classes_have_no_columns_for_them(run_of):
    files = {"normals": "out/a_normals.png", "overlay": "out/a_overlay.png"}

    without = printed(run_of("normals").tabulate([MapPrediction("a", files=files)]))
    shares = [MapPrediction("a", shares={"sky": 1.0}, files=files)]
    with_classes = printed(run_of("segmentation", ("sky", "tree")).tabulate(shares))

    assert without.split()[:3] == ["file", "normals", "overlay"]
    assert "out/a_normals.png" in without
    assert "most of it" in with_classes and "sky" in with_classes


def printed(table):
    text = io.StringIO()
    open_console(text).print(build_table(table.columns, table.rows))
    return text.getvalue()


def test_a_class_without_images_or_pixels_is_told_as_its_means_take_it():
    images = {"bee": {"images": 0}, "fly": {"images": 2}, "ant": {"images": 0}}
    pixels = {"sky": {"pixels": 0}, "tree": {"pixels": 9}}

    images = find_task("classification").describe_absent({"per_class": images})
    pixels = find_task("segmentation").describe_absent({"per_class": pixels})

    assert images == "no images of bee, ant: the means are over the other classes"
    assert "no pixel of sky in the masks: mean accuracy leaves it out; mean IoU counts" in pixels
    assert find_task("regression").describe_absent({"r2": 0.5}) == ""


@pytest.mark.parametrize(
    ("task", "good", "bad"),
    [
        (
            "classification",
            ClassPrediction("a", "tree", {"sky": 0.3, "tree": 0.7}),
            ClassPrediction("b", None, {}, REFUSED),
        ),
        (
            "multilabel",
            LabelsPrediction("a", ("tree",), {"sky": 0.3, "tree": 0.7}),
            LabelsPrediction("b", (), {}, REFUSED),
        ),
        (
            "regression",
            ValuesPrediction("a", {"sky": 1.0, "tree": 2.0}),
            ValuesPrediction("b", {}, REFUSED),
        ),
        ("segmentation", MapPrediction("a", shares={"sky": 1.0}), MapPrediction("b", error="no")),
    ],
)
def test_a_refused_file_has_a_row_of_blank_cells(task, good, bad, run_of):
    run = run_of(task, ("sky", "tree"))
    ranked = [{"top": 2}, {"top": 1, "wide": True}] if run.recipe.task.ranks_classes else []

    tables = [run.tabulate([good, bad], **it) for it in ({}, {"wide": True}, *ranked)]

    for table in tables:
        assert all(table.columns) and len(set(table.columns)) == len(table.columns)
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert table.rows[1][0] == "b" and not any(table.rows[1][1:])


@pytest.mark.parametrize("option", [["--any"], ["--engine", "litert"], ["--tta"], ["x.jpg"]])
def test_a_list_refuses_what_it_would_ignore(run_of, tmp_path, option):
    (tmp_path / "files.txt").write_text("x.jpg\n")
    command = ["predict", run_of("classification").path, "--list", tmp_path / "files.txt"]

    result = tltool(*command, *option, cwd=tmp_path, code=2)

    assert "--list goes with --out, --part, --ray and --workers alone" in result.stderr
