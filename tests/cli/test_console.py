"""Tables as people read them."""

import io

import pytest

from tests.evaluation.test_metrics import measure_edges, measure_normals
from tl_toolkit.cli import console
from tl_toolkit.events import Event
from tl_toolkit.printing.printer import Printer
from tl_toolkit.recipe.tasks import find_task


@pytest.fixture
def printed(capsys):
    """Shows the metrics of a split, and returns what was printed."""

    def show(metrics, task):
        console.show_metrics("test", metrics, find_task(task)())
        return capsys.readouterr().out

    return show


def test_metrics_of_pixels_have_titles(printed):
    normals, edges = printed(measure_normals(), "normals"), printed(measure_edges(), "edges")

    for title in ("mean angle", "RMSE angle", "within 11.25", "within 22.5", "within 30"):
        assert title in normals
    for title in ("ODS threshold", "ODS precision", "ODS recall", "OIS", "AP"):
        assert title in edges


def test_the_trivial_answer_to_normals_is_shown_beside_the_model(printed):
    metrics = measure_normals()  # the target is the trivial baseline

    lines = printed(metrics, "normals").splitlines()

    (trivial,) = [line for line in lines if line.startswith("facing the viewer")]
    assert trivial.split()[3:] == ["0.0000", "0.0050", "0.0000", "1.0000", "1.0000", "1.0000"]


def test_a_run_is_printed_in_the_words_of_its_own_task(tmp_path):
    text = io.StringIO()
    printer = Printer(text)
    epoch = {"phase": "head", "epoch": 1, "loss": None, "val_loss": 0.5, "val_r2": 0.25}
    metrics = {"best": epoch, "validation": {"images": 9, "r2": 0.25, "average_precision": 0.1}}

    section = find_task("regression")()
    printer.handle(Event("run_began", facts={"folder": tmp_path, "task": section}))
    printer.handle(Event("epoch_ended", facts=epoch | {"r2": None}))
    printer.handle(Event("run_ended", facts={"metrics": metrics, "exported": {}}))

    (heading,) = [line for line in text.getvalue().splitlines() if line.startswith("epoch ")]
    assert heading.split() == ["epoch", "loss", "R2", "val", "loss", "val", "R2", "seconds"]
    (columns,) = [line for line in text.getvalue().splitlines() if "split" in line]
    assert columns.split() == ["split", "images", "R2", "average", "precision"]  # no other's "AP"
