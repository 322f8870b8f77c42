"""Classes of few and of many images: what a run says of them, and what it prints."""

import io

import numpy as np
import pytest
from rich.console import Console

from tl_toolkit.cli.console import show_metrics
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.printing.tables import build_summary
from tl_toolkit.tasks.classification.metrics import measure_classification
from tl_toolkit.tasks.classification.spec import SPEC
from tl_toolkit.tasks.classification.task import Classification


def make_manifest(**counts):
    examples = [
        Example(f"{name}/{number}.jpg", f"{name}{number}", split, (name,))
        for split in ("train", "validation")
        for name, count in counts.items()
        for number in range(count)
    ]
    return Manifest(tuple(examples), tuple(counts))


def measure_constant(*counts):
    """The metrics of a model that predicts the first class, whatever it sees."""
    names = [f"class{number}" for number in range(len(counts))]
    labels = np.repeat(np.arange(len(counts)), counts)
    probabilities = np.eye(len(counts), dtype=np.float32)[np.zeros_like(labels)]
    return measure_classification(labels, probabilities, names)


def summarize(**splits):
    text = io.StringIO()
    Console(file=text, width=120).print(build_summary(splits, SPEC()))
    return text.getvalue()


def test_imbalanced_classes_are_named_when_the_images_were_inspected():
    task = Classification(("ants", "bees", "wasps"))

    text = task.describe_imbalance(make_manifest(ants=100, bees=2, wasps=50))

    assert "100 training images of ants to 2 of bees" in text
    assert "always ants would have an accuracy of 0.66" in text


@pytest.mark.parametrize(("most", "is_said"), [(30, False), (31, True)])
def test_three_images_to_one_are_no_imbalance(most, is_said):
    task = Classification(("ants", "bees"))

    assert bool(task.describe_imbalance(make_manifest(ants=most, bees=10))) == is_said


def test_the_table_of_a_run_shows_means_over_classes_where_these_are_imbalanced():
    even, uneven = measure_constant(6, 2), measure_constant(100, 2)

    assert "macro F1" not in summarize(validation=even)
    table = summarize(validation=even, test=uneven)
    heading, *rows = (line.split() for line in table.splitlines() if line.strip())
    validation, _, test, constant = rows
    assert heading == "split images accuracy balanced accuracy macro F1 loss".split()
    assert test[3:7] == ["102", "0.9804", "0.5000", "0.4950"]
    assert len(validation) == len(test)
    assert constant == ["majority", "class", "test", "0.9804", "0.5000", "0.4950"]


def test_up_to_twenty_classes_have_a_table_of_confusions(capsys):
    show_metrics("test", measure_constant(3, 2), SPEC())

    lines = capsys.readouterr().out.splitlines()
    place = lines.index("images of each class (a row) by prediction (a column)")
    rows = [line.split() for line in lines[place + 2 : place + 5]]
    assert rows == [["class", "class0", "class1"], ["class0", "3", "0"], ["class1", "2", "0"]]


def test_of_more_classes_the_most_frequent_confusions_are_shown(capsys):
    show_metrics("test", measure_constant(*range(1, 22)), SPEC())

    lines = capsys.readouterr().out.splitlines()
    place = lines.index("the most frequent confusions")
    assert lines[place + 3].split() == ["class20", "class0", "21", "100.0%"]
    assert len(lines[place + 3 :]) == 10


def test_a_model_without_errors_has_no_confusions(capsys):
    labels = np.arange(30)
    metrics = measure_classification(labels, np.eye(30, dtype=np.float32), list(map(str, labels)))

    show_metrics("test", metrics, SPEC())

    assert "confusions" not in capsys.readouterr().out
