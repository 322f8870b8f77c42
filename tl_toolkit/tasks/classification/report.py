"""The report's sections of classification, from labels and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tl_toolkit.reports.facts import MOST_SHOWN, RunFacts
from tl_toolkit.reports.matrices import plot_matrix
from tl_toolkit.reports.sections import DataTable, Gallery, Part, Section, Text
from tl_toolkit.tasks.calibration import build_calibration
from tl_toolkit.tasks.doubts import find_label_errors
from tl_toolkit.tasks.predictions import Columns, name_columns, read_numbers
from tl_toolkit.tasks.ranking import plot_ranking

__all__ = ["build_sections", "tabulate_data"]

_MOST_CLASSES = 40  # of a matrix that a screen holds
_MOST_PAIRS = 10


def tabulate_data(facts: RunFacts) -> list[DataTable]:
    """Returns the number of images of each class in each split.

    Args:
        facts: Of the run.
    """
    counts = facts.manifest.count()
    rows = [
        [name, *(of_split.get(name, 0) for of_split in counts.values())] for name in facts.classes
    ]
    rows.append(["all", *(sum(of_split.values()) for of_split in counts.values())])
    return [DataTable("Usable images of each class", ["class", *counts], rows)]


def build_sections(facts: RunFacts) -> list[Section]:
    """Returns the sections of classes, calibration and images.

    Args:
        facts: Of the run.
    """
    if not facts.split:
        return []
    predictions = {split: _Predicted(columns, facts.classes)
                   for split, columns in facts.predictions.items()}  # fmt: skip
    judged = predictions[facts.split]
    sets = {split: (each.labels, each.probabilities) for split, each in predictions.items()}
    return [
        _build_classes(facts, judged),
        build_calibration(sets, facts.split),
        _build_images(facts, judged),
    ]


@dataclass(frozen=True)
class _Predicted:
    """What predictions.csv holds of a split."""

    columns: Columns
    classes: Sequence[str]

    @cached_property
    def labels(self) -> np.ndarray:
        places = {name: place for place, name in enumerate(self.classes)}
        return np.array([places[label] for label in self.columns["label"]])

    @cached_property
    def probabilities(self) -> np.ndarray:
        return read_numbers(self.columns, name_columns("probability", self.classes))

    @cached_property
    def predicted(self) -> np.ndarray:
        return np.asarray(self.probabilities.argmax(axis=1))

    def describe(self, image: int) -> list[str]:
        """Returns label and prediction of an image, each with its probability."""
        own, best = self.labels[image], self.predicted[image]
        row = self.probabilities[image]
        return [
            f"label {self.classes[own]} ({row[own]:.0%})",
            f"predicted {self.classes[best]} ({row[best]:.0%})",
        ]


def _build_classes(facts: RunFacts, judged: _Predicted) -> Section:
    measured = facts.measured
    members = np.eye(len(facts.classes), dtype=int)[judged.labels]
    curves, areas = plot_ranking(facts.classes, members, judged.probabilities)
    rows = [
        [
            name,
            *(values[key] for key in ("precision", "recall", "f1")),
            *(areas.get(name, {}).get(key) for key in ("roc_auc", "average_precision")),
            values["images"],
        ]
        for name, values in measured["per_class"].items()
    ]
    caption = f"Each class on the {facts.split} images"
    columns = ["class", "precision", "recall", "F1", "ROC AUC", "AP", "support"]
    parts = [
        DataTable(caption, columns, rows),
        *_plot_confusion(facts, measured["confusion"]),
        _tabulate_pairs(facts.classes, measured["confusion"]),
        *curves,
    ]
    return Section("classes", "Classes", parts, {"ranking": areas})


def _plot_confusion(facts: RunFacts, counts: Sequence[Sequence[int]]) -> list[Part]:
    matrix, classes = np.array(counts), np.array(facts.classes)
    parts: list[Part] = []
    if len(classes) > _MOST_CLASSES:
        errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
        kept = np.sort(np.argsort(-errors, kind="stable")[:_MOST_CLASSES])
        matrix, classes = matrix[np.ix_(kept, kept)], classes[kept]
        text = f"The matrix shows the {_MOST_CLASSES} classes of {len(errors)} with most errors."
        parts.append(Text(text))
    hits, total = int(np.trace(np.array(counts))), int(np.sum(counts))
    parts.append(
        plot_matrix(
            "confusion",
            "Confusion matrix",
            f"{hits:,} of {total:,} {facts.split} images lie on the diagonal, where label and "
            "prediction agree.",
            list(map(str, classes)),
            matrix.tolist(),
        )
    )
    return parts


def _tabulate_pairs(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Part:
    pairs = sorted(
        (-count, label, predicted)
        for label, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if count and label != predicted
    )[:_MOST_PAIRS]
    if not pairs:
        return Text("No image was taken for another class.")
    rows = [
        [classes[label], classes[predicted], -count, f"{-count / sum(counts[label]):.1%}"]
        for count, label, predicted in pairs
    ]
    columns = ["class", "predicted", "images", "of the class"]
    return DataTable("The most confused pairs", columns, rows)


def _build_images(facts: RunFacts, judged: _Predicted) -> Section:
    own = judged.probabilities[np.arange(len(judged.labels)), judged.labels]
    is_right = judged.predicted == judged.labels
    ordered = np.sort(judged.probabilities, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    order = np.argsort(own, kind="stable")
    wrong, right = order[~is_right[order]][:MOST_SHOWN], order[::-1][is_right[order[::-1]]]
    chosen = {
        "The surest errors": wrong,
        "The surest hits": right[:MOST_SHOWN],
        "The least certain": np.argsort(margin, kind="stable")[:MOST_SHOWN],
    }
    parts: list[Part] = [facts.describe_heat("the predicted class")]
    parts += [
        _build_gallery(facts, judged, title, images)
        for title, images in chosen.items()
        if len(images)
    ]
    parts += _doubt_labels(facts, judged)
    parts += _doubt_training_labels(facts)
    return Section("images", "Images", parts)


def _doubt_labels(facts: RunFacts, judged: _Predicted) -> list[Part]:
    """Returns images whose labels confident learning doubts: none of them was trained on."""
    doubts = find_label_errors(judged.probabilities, judged.labels)
    if not doubts:
        return [Text(f"No label of the {facts.split} images is doubted.")]
    text = (
        f"The labels of {len(doubts):,} {facts.split} images are doubted by confident learning: "
        "the model finds another class more likely than images of that class are on average. Look "
        "at them before you trust the score; a weak model doubts much."
    )
    listed = np.array([doubt.image for doubt in doubts[:MOST_SHOWN]])
    return [Text(text), _build_gallery(facts, judged, "Labels that may be wrong", listed)]


def _doubt_training_labels(facts: RunFacts) -> list[Part]:
    """Returns training images whose labels the run doubts, by features that it had at hand."""
    found = facts.metrics.get("training_labels")
    check = f"tltool data check {facts.recipe}"  # without a recipe it asks about no labels
    if found is None:
        text = "Labels of training images are not asked about here: "
        return [Text(f"{text}{check} does it.")]
    if not found["doubted"]:
        return [Text(f"No label of {found['images']:,} training images is doubted.")]
    text = (
        f"The labels of {found['doubted']:,} of {found['images']:,} training images are doubted: a "
        "linear classifier on the untrained base, solved without the image, finds another class "
        "more likely than images of that class are on average. "
        f"{check} --json lists all."
    )
    shown = found["labels"][:MOST_SHOWN]
    lines = [
        [f"label {row['label']} ({row['own']:.0%})", f"rather {row['suggested']} "
         f"({row['other']:.0%})"]
        for row in shown
    ]  # fmt: skip
    paths = [row["path"] for row in shown]
    return [Text(text), facts.show_files("Training labels that may be wrong", paths, lines)]


def _build_gallery(facts: RunFacts, judged: _Predicted, title: str, images: np.ndarray) -> Gallery:
    lines = [judged.describe(image) for image in images]
    return facts.build_gallery(title, images, lines, judged.predicted[images])
