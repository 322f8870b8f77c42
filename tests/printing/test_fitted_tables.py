"""Tables on a terminal of 80 columns: no word, header or number of any verb is broken."""

import io

import numpy as np
import pytest
from rich.console import Console

from tests.command import tltool
from tests.evaluation.test_metrics import measure_edges, measure_normals
from tl_toolkit.events import Event
from tl_toolkit.printing import tables
from tl_toolkit.printing.printer import Printer
from tl_toolkit.printing.tables import Figure, FittedTable, build_table, open_console
from tl_toolkit.printing.trials import TrialTable
from tl_toolkit.tasks.classification.metrics import measure_classification

SPACE = {
    "phases.head.learning_rate": 0.0012345678,
    "phases.tune.learning_rate": 0.00012345678,
    "phases.tune.unfreeze": {"from": "conv_dw_12"},
    "model.head.dropout": 0.30000000000000004,
    "augment.rotation": 0.1,
    "model.edge_filter": None,
}


def printed(table, width=80):
    text = io.StringIO()
    Console(file=text, width=width, soft_wrap=True, highlight=False).print(table)
    return text.getvalue()


class Built:
    """Every table that was built, and the words that it must show whole."""

    def __init__(self):
        self.words = []
        self.tables = []

    def build(self, columns, rows, **settings):
        for text in (*columns, *(tables._as_text(cell) for row in rows for cell in row)):
            self.words += text.split()
        self.tables.append(build_table(columns, rows, **settings))
        return self.tables[-1]

    def check(self, text):
        words = text.split()
        assert self.words
        assert sorted(set(self.words) - set(words)) == []
        lines = [line for table in self.tables for line in printed(table).splitlines()]
        assert [line for line in lines if len(line) > 80] == []


@pytest.fixture
def built(monkeypatch):
    """Tables that are printed 80 columns wide, whatever the stream."""
    built = Built()
    monkeypatch.setattr(tables, "_FILE_WIDTH", 80)
    for module in ("console", "models", "model_tables", "recipes", "cache", "searching", "using"):
        monkeypatch.setattr(f"tl_toolkit.cli.{module}.build_table", built.build)
    monkeypatch.setattr("tl_toolkit.printing.printer.build_table", built.build)
    monkeypatch.setattr(tables, "build_table", built.build)
    return built


@pytest.mark.parametrize(
    "command",
    [
        "models list",
        "models show vgg_tiny --units --unfreeze 2",
        "models probe lenet5",
        "recipes list",
        *(
            pytest.param(command, marks=pytest.mark.slow)
            for command in (
                "models show mobilenet",
                "models show mobilenet --units",
                "models show mobilenet --layers --classes 10",
                "models show alexnet --layers --classes 10",
                "models probe vgg_tiny",
            )
        ),
    ],
)
def test_no_table_of_a_command_breaks_a_word(command, built, tmp_path):
    done = tltool(*command.split(), cwd=tmp_path)

    built.check(done.stdout)


def test_metrics_of_a_split_and_of_each_class_are_shown_whole(built, capsys):
    from tl_toolkit.cli.console import show_metrics
    from tl_toolkit.recipe.tasks import find_task

    labels = {
        "mean_average_precision": 0.5, "micro_f1": 0.4, "macro_f1": 0.3, "loss": 1e-4,
        "images": 12_345, "per_class": {
            "a rather long name of a class": {
                "images": 1234, "average_precision": 0.5, "f1": 0.25, "precision": 1.0,
                "recall": 0.125, "threshold": 0.5,
            },
        },
    }  # fmt: skip

    confusion = measure_classification(
        np.arange(20), np.eye(20), [f"class_of_things_{number}" for number in range(20)]
    )

    for task, metrics in (
        ("classification", confusion),
        ("normals", measure_normals()),
        ("edges", measure_edges()),
        ("multilabel", labels),
    ):
        show_metrics("validation", metrics, find_task(task)())

    built.check(capsys.readouterr().out)


def test_the_plan_and_the_summary_of_a_run_are_shown_whole(built):
    from tl_toolkit.recipe.tasks import find_task

    phase = {
        "solver": None, "name": "tune_everything", "epochs": 100, "trains": "head, conv_dw_12",
        "total_parameters": 12_345_678, "optimizer": "adamw", "learning_rate": "cosine 0.001",
    } | {"parameters": 10_000_000}  # fmt: skip
    numbers = {"images": 12_345, **measure_normals(), "loss": 0.5}
    metrics = {"best": {"phase": "tune", "epoch": 1}} | {"validation": numbers, "test": numbers}
    text = io.StringIO()
    printer = Printer(text)

    printer.handle(Event("planned", facts={"phases": [phase]}))
    text.write(printed(tables.build_summary(metrics, find_task("normals")())))

    built.check(text.getvalue())


def test_the_end_of_a_run_shows_what_no_model_would_score():
    from tl_toolkit.recipe.tasks import find_task

    mean = {"mae": 9.5, "rmse": 12.5, "r2": 0.0}
    values = {"images": 8, "mae": 2.5, "rmse": 3.5, "r2": 0.75, "loss": 0.1, "mean": mean}

    shown = printed(tables.build_summary({"validation": values}, find_task("regression")()))

    run, baseline = shown.strip().splitlines()[-2:]
    assert run.split()[:4] == ["this", "run", "validation", "8"] and "2.5" in run
    assert baseline.startswith("mean of training  validation")
    assert "9.5" in baseline and "12.5" in baseline


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("count", range(1, len(SPACE) + 1))
def test_trials_show_number_score_and_seconds_whole_however_many_fields(count, width):
    text = io.StringIO()
    table = TrialTable(Console(file=text, width=width, soft_wrap=True))
    fields = dict(list(SPACE.items())[:count])
    trial = {"number": 123, "continues": 98, "state": "paused", "budget": 27, "score": 0.87654}
    table._rows = [({**trial, "values": fields, "seconds": 1234.5}, True)]

    table.stop()

    out = text.getvalue()
    for word in ("trial", "score", "seconds", "123 (98)", "0.8765 after 27", "1234.5"):
        assert word in out
    assert "…" not in out and max(map(len, out.splitlines())) <= width
    assert count < 3 or ("from" in out and "conv_dw_12" in out)


def test_fields_of_trials_have_short_names_that_differ():
    text = io.StringIO()
    table = TrialTable(Console(file=text, width=120))
    trial = {"number": 1, "continues": None, "state": "completed", "score": 0.5, "seconds": 1.0}
    table._rows = [({**trial, "values": SPACE}, False)]

    table.stop()

    names = ("head.learning_rate", "tune.learning_rate", "unfreeze", "dropout", "rotation")
    assert all(f"{name} " in text.getvalue() for name in names)
    assert "model.head.dropout" not in text.getvalue()


def test_a_table_that_does_not_fit_is_continued_below_with_its_first_column():
    columns = ["class", *(f"metric_{number:02}" for number in range(12))]
    rows = [["ants", *[0.123456] * 12], ["bees", *[0.5] * 12]]

    lines = printed(build_table(columns, rows)).splitlines()

    assert [line.split()[0] for line in lines if line.strip()] == ["class", "ants", "bees"] * 2
    assert max(map(len, lines)) <= 80


def test_words_move_to_further_lines_and_paths_are_broken_after_a_slash():
    path = "photos/a_folder_with_a_long_name/another_folder_with_a_name/" + "image.jpg"
    rows = [[path, "of several words that take a lot of room", Figure("12.3 M")]]

    lines = printed(build_table(["path", "what it shows", "size"], rows)).splitlines()

    assert max(map(len, lines)) <= 80 and "12.3 M" in lines[1]
    assert lines[1].startswith("photos/a_folder_with_a_long_name/")
    assert lines[2].startswith("another_folder_with_a_name/")


def test_a_word_without_room_is_broken_and_nothing_is_lost():
    lines = printed(build_table(["name"], [["x" * 200]])).splitlines()

    assert "".join(line.strip() for line in lines[1:]) == "x" * 200


def test_a_notebook_gets_text_and_no_html(monkeypatch):
    class ZMQInteractiveShell:
        """By the name of this class rich knows a notebook."""

    monkeypatch.setattr("builtins.get_ipython", ZMQInteractiveShell, raising=False)
    file = io.StringIO()

    open_console(file).print(FittedTable(["phase"], [["head"]]))

    assert file.getvalue().split() == ["phase", "head"]
