"""What the reports of tasks with one output per pixel share: overlays and maps of errors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tl_toolkit.errors import DataError
from tl_toolkit.images.thumbnails import open_small
from tl_toolkit.printing.page import encode_picture
from tl_toolkit.reports.charts import Series, plot_series
from tl_toolkit.reports.facts import RunFacts
from tl_toolkit.reports.sections import DataTable, Gallery, Part, Section, Text, Tile
from tl_toolkit.tasks.dense.pictures import choose_palette

__all__ = ["MapReport", "build_images", "tabulate_data"]

_MOST_SHOWN = 4  # images of a gallery, each with four pictures
_SIDE = 160
_OVERLAY = 0.5
OVERLAYS_LEFT_OUT = "Overlays are left out of the report of a short run: tltool report draws them."
_RED = (235, 40, 60)

Maps = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class MapReport:
    """How a task's targets and errors are shown.

    Attributes:
        as_prediction: Returns a target as the task's prediction would be, to be rendered alike.
        measure_errors: Returns the error of each pixel, float (h, w) in [0, 1], from a prediction
            and its target; 0 for pixels that count nowhere.
    """

    as_prediction: Callable[[np.ndarray], Maps]
    measure_errors: Callable[[Maps, np.ndarray], np.ndarray]


def tabulate_data(facts: RunFacts) -> list[DataTable]:
    """Returns the number of images in each split.

    Args:
        facts: Of the run.
    """
    counts = facts.manifest.count("")
    return [DataTable("Usable images", [*counts], [[each[""] for each in counts.values()]])]


def build_images(facts: RunFacts, shown: MapReport) -> Section:
    """Returns the worst and the best images with targets, predictions and errors.

    Args:
        facts: Of the run.
        shown: How the task shows them.
    """
    name = facts.section.score
    scores = np.array([float(cell) if cell else np.nan for cell in facts.columns[name]])
    measured = np.flatnonzero(np.isfinite(scores))
    order = measured[np.argsort(scores[measured], kind="stable")]
    title = facts.section.title_of(name)
    parts: list[Part] = [_plot_scores(scores[measured], title)]
    if facts.predict is None:
        return Section("images", "Images", [*parts, Text(OVERLAYS_LEFT_OUT)])
    worst = order[: min(_MOST_SHOWN, -(-len(order) // 2))]
    best = order[len(worst) :][::-1][:_MOST_SHOWN]
    paths = [facts.columns["path"][int(image)] for image in (*worst, *best)]
    lines = [[f"{title} {scores[image]:.3f}"] for image in (*worst, *best)]
    tiles = _build_tiles(facts, paths, lines, shown)
    galleries = {"The worst images": tiles[: len(worst)], "The best images": tiles[len(worst) :]}
    parts += [Gallery(heading, chosen) for heading, chosen in galleries.items() if chosen]
    return Section("images", "Images", parts)


def _plot_scores(scores: np.ndarray, title: str) -> Part:
    ordered = np.sort(scores)
    shares = np.arange(1, len(ordered) + 1) / len(ordered)
    return plot_series(
        "scores", f"{title} of single images",
        f"From {ordered[0]:.3f} to {ordered[-1]:.3f}; the median is {np.median(ordered):.3f}.",
        [Series("images", ordered.tolist(), shares.tolist())],
        x_title=title, y_title="share of images up to it", y_limits=(0, 1),
    )  # fmt: skip


def _build_tiles(
    facts: RunFacts, paths: Sequence[str], lines: Sequence[Sequence[str]], shown: MapReport
) -> list[Tile]:
    task, predictions = facts.predict(paths) if facts.predict else (None, [])
    palette = choose_palette(len(task.classes)) if task.palette is None else task.palette
    place = facts.manifest.columns.index("mask")
    masks = {entry.path: entry.targets[place] for entry in facts.manifest.examples}
    tiles = []
    for path, prediction, below in zip(paths, predictions, lines, strict=True):
        pictures = {"image": ""}
        if not prediction.error:
            # A file that has moved, or that Pillow cannot read, has no pictures; nor has an object
            # of a store that does not answer.
            with contextlib.suppress(OSError, ValueError, DataError):
                target = task.reader.read(masks[path])
                pictures = _draw(path, prediction.maps, target, task, palette, shown)
        tiles.append(Tile(facts.shorten(path), pictures, below))
    return tiles


def _draw(
    path: str, maps: Maps, target: np.ndarray, task: Any, palette: np.ndarray, shown: MapReport
) -> dict[str, str]:
    """Returns image, target and prediction laid over it, and the errors, as data URIs."""
    photo = open_small(path, _SIDE)
    errors = np.asarray(shown.measure_errors(maps, target), np.float32)
    amount = Image.fromarray((errors * 255).round().astype(np.uint8)).resize(photo.size)
    pictures = {
        "image": photo,
        "target": _overlay(photo, task.render(shown.as_prediction(target), palette)),
        "prediction": _overlay(photo, task.render(maps, palette)),
        "errors": Image.composite(Image.new("RGB", photo.size, _RED), _darken(photo), amount),
    }
    return {name: encode_picture(picture) for name, picture in pictures.items()}


def _darken(photo: Image.Image) -> Image.Image:
    return Image.blend(photo, Image.new("RGB", photo.size), _OVERLAY)


def _overlay(photo: Image.Image, picture: Image.Image) -> Image.Image:
    return Image.blend(photo, picture.convert("RGB").resize(photo.size), _OVERLAY)
