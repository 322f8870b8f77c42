"""What `evaluate` and `predict` print of answers, without a model."""

import csv
import io

import pytest
from tl_toolkit.evaluation.predict import Prediction

from tl_toolkit.cli import using
from tl_toolkit.tasks.dense.evaluation import MaskPrediction

REFUSED = "no image"


def records_of(*answers):
    return [answer.as_record() for answer in answers]


@pytest.mark.parametrize(
    "answers",
    [
        [MaskPrediction("a", shares={"tree": 0.7, "sky": 0.3}), MaskPrediction("b", error=REFUSED)],
        [MaskPrediction("b", error=REFUSED), MaskPrediction("a", shares={"tree": 0.7, "sky": 0.3})],
        [Prediction("a", "tree", {"sky": 0.3, "tree": 0.7}), Prediction("b", None, {}, REFUSED)],
        [MaskPrediction("b", error=REFUSED)],
    ],
)
def test_columns_of_csv_are_the_classes_of_the_run_in_their_order(answers, capsys):
    using._print_csv(records_of(*answers), ("sky", "tree"))

    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header[-3:] == ["sky", "tree", "error"]
    found = {row[0]: row[-3:] for row in rows}
    assert found["b"] == ["", "", REFUSED]
    assert found.get("a", ["0.3", "0.7", ""]) == ["0.3", "0.7", ""]


def test_tables_of_answers_without_classes_have_no_columns_for_them(capsys):
    files = {"normals": "out/a_normals.png", "overlay": "out/a_overlay.png"}

    using._print_table(records_of(MaskPrediction("a", files=files)))
    without = capsys.readouterr().out
    using._print_table(records_of(MaskPrediction("a", shares={"sky": 1.0}, files=files)))
    with_classes = capsys.readouterr().out

    assert without.split()[:3] == ["file", "normals", "overlay"]
    assert "out/a_normals.png" in without
    assert "most of it" in with_classes and "sky" in with_classes


def test_a_class_without_images_or_pixels_is_told_as_its_means_take_it():
    images = using._tell_absent(["bee", "ant"], of_pixels=False)
    pixels = using._tell_absent(["sky"], of_pixels=True)

    assert images == "no images of bee, ant: the means are over the other classes"
    assert "no pixel of sky in the masks: mean accuracy leaves it out; mean IoU counts" in pixels
