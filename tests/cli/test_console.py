"""Tables as people read them."""

import pytest

from tests.evaluation.test_metrics import measure_edges, measure_normals
from tl_toolkit.cli import console
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
