"""A run of an earlier version loads, predicts and measures as it did.

tests/earlier/0.3.0 was written by that version, from a recipe with two phases on built-in digits.
"""

import csv
import shutil
from pathlib import Path

import pytest

import tl_toolkit as tl
from tl_toolkit.sources.builtin import load_builtin_image

EARLIER = Path(__file__).parents[1] / "earlier"


@pytest.fixture(scope="module", params=sorted(path.name for path in EARLIER.iterdir()))
def run(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("earlier") / "runs/digits/001"
    return tl.load_run(shutil.copytree(EARLIER / request.param, place))


@pytest.mark.slow
def test_it_predicts_the_same(run):
    with open(run.folder.predictions, newline="") as file:
        rows = list(csv.DictReader(file))[:8]

    predictions = run.predict([load_builtin_image(row["path"]) for row in rows])

    assert [it.label for it in predictions] == [row["predicted"] for row in rows]
    # Another processor rounds otherwise.
    assert [it.probability for it in predictions] == pytest.approx(
        [float(row["probability"]) for row in rows], abs=1e-5
    )


def test_it_measures_the_same(run):
    before = run.metrics["test"]

    now = run.evaluate()

    assert now["accuracy"] == before["accuracy"]
    assert now["loss"] == pytest.approx(before["loss"], abs=1e-5)


def test_it_is_listed_and_finished(run):
    facts = tl.list_runs(run.path.parents[1])

    assert [it.state for it in facts] == ["done"]
    again = tl.finetune(run.path / "recipe.yaml", out=run.path, resume=True)
    assert again.metrics == run.metrics
