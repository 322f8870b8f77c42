"""Draws the pictures of the documentation from finished runs.

python docs/pictures.py run RUN FILE.svg                  # what `tltool finetune` printed
python docs/pictures.py predictions RUN FOLDER FILE.png   # images, their labels, probabilities
python docs/pictures.py masks RUN IMAGE TARGET OVERLAY FILE.png
python docs/pictures.py maps RUN IMAGES TARGETS FILE.png  # of edges or normals
python docs/pictures.py heat IMAGES FOLDER... FILE.png    # what `tltool explain` wrote
python docs/pictures.py report PAGE FILE.png              # a report, as Chromium shows it
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib import pyplot
from PIL import Image, ImageFilter
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

import tl_toolkit as tl

_WIDTH = 78
_MOST_BYTES = 90_000
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.S)  # they would be fetched from elsewhere
_PAGE, _COLUMNS = (860, 1500), 3  # width and height in pixels of a column of a report
_MAPS = 6
_PALE, _STRONG = "#c9d3e0", "#2a6fbb"


def draw_run(run: Path, target: Path) -> None:
    """Draws the terminal of a run, from its command.log.

    Args:
        run: The run's folder.
        target: The SVG.
    """
    text = (run / "command.log").read_text(encoding="utf-8").replace(f"{Path.cwd()}", "~")
    command = text.partition("\n$ ")[0]  # later ones, as `tltool predict`, write to it too
    lines = [line.rstrip() for line in command.rstrip().splitlines()]
    lines = [line for line in lines if len(line) <= _WIDTH]
    console = Console(record=True, width=_WIDTH, file=open("/dev/null", "w"))  # noqa: SIM115
    for line in _shorten(lines):
        styled = Text(line, no_wrap=True)
        if line.startswith(("$", "  tltool")):
            styled.stylize("bold green")
        elif line.endswith("*"):
            styled.stylize("bold")
        elif re.match(r"(epoch|phase| +split)\b.* ", line):
            styled.stylize("cyan")
        elif line.startswith("best epoch"):
            styled.stylize("bold yellow")
        console.print(styled)
    svg = console.export_svg(title="tltool", theme=MONOKAI)
    target.write_text(_FONTS.sub("", svg), encoding="utf-8")


def _shorten(lines: list[str]) -> list[str]:
    """Leaves out the middle of each phase's epochs."""
    kept: list[str] = []
    for line in lines:
        count = re.match(r"\w+ (\d+)/(\d+) ", line)
        if count and 3 < int(count[1]) <= int(count[2]) - 3:
            if kept[-1] != "...":
                kept.append("...")
            continue
        kept.append(line)
    return kept


def draw_predictions(run: Path, folder: Path, target: Path) -> None:
    """Draws images, each with its three most probable classes; predicted ones are strong.

    Args:
        run: A run of classification or of several labels.
        folder: Images.
        target: The PNG.
    """
    predictions = tl.load_run(run).predict(folder)
    columns = 4
    rows = -(-len(predictions) // columns)
    figure, axes = pyplot.subplots(
        2 * rows, columns, figsize=(7.2, 2.4 * rows), height_ratios=[3, 1.1] * rows, dpi=90
    )
    for index, prediction in enumerate(predictions):
        row, column = divmod(index, columns)
        photo, bars = axes[2 * row, column], axes[2 * row + 1, column]
        photo.imshow(Image.open(prediction.path).filter(ImageFilter.GaussianBlur(0.6)))  # noise
        photo.set_title(Path(prediction.path).name, fontsize=8, color="#555555")
        photo.axis("off")
        best = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:3]
        names = [name for name, _ in best]
        predicted = getattr(prediction, "labels", names[:1])
        colors = [_STRONG if name in predicted else _PALE for name in names]
        bars.barh(names, [value for _, value in best], color=colors)
        for place, (_, value) in enumerate(best):
            is_long = value > 0.6
            bars.text(
                value - 0.02 if is_long else value + 0.03,
                place,
                f"{value:.2f}",
                va="center",
                ha="right" if is_long else "left",
                color="white" if is_long and colors[place] == _STRONG else "black",
                fontsize=8,
            )
        bars.set(xlim=(0, 1), xticks=[])
        bars.invert_yaxis()
        bars.tick_params(labelsize=9, length=0)
        for side in bars.spines.values():
            side.set_visible(False)
    _save(figure, target)


def draw_masks(run: Path, image: Path, mask: Path, overlay: Path, target: Path) -> None:
    """Draws an image, its target, the predicted classes, their probability, and the overlay.

    Args:
        run: A run of segmentation.
        image: The image.
        mask: Its target, a mask of class numbers.
        overlay: What `tltool predict --out` wrote for it.
        target: The PNG.
    """
    finished = tl.load_run(run)
    (prediction,) = finished.predict(image)
    pixels = np.asarray(Image.open(image))
    panels = [
        ("image", pixels, {}),
        ("target", np.asarray(Image.open(mask)), {}),
        ("prediction", prediction.maps["mask"], {}),
        ("probability", prediction.maps["probability"], {"cmap": "gray", "vmin": 0, "vmax": 1}),
        ("overlay", np.asarray(Image.open(overlay)), {}),
    ]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(8, 1.9), dpi=100)
    colors = {"cmap": "viridis", "vmin": 0, "vmax": len(finished.classes) - 1}
    for axis, (title, values, options) in zip(axes, panels, strict=True):
        axis.imshow(values, interpolation="nearest", **(options or colors))
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    _save(figure, target)


def draw_maps(run: Path, images: Path, targets: Path, target: Path) -> None:
    """Draws a folder's first images, and below each its target and what a run predicts.

    Args:
        run: A run of edges or normals.
        images: A folder of images.
        targets: The folder of their maps.
        target: The PNG.
    """
    photos = sorted(images.iterdir())[:_MAPS]
    maps = [next(iter(found.maps.values())) for found in tl.load_run(run).predict(photos)]
    rows = {
        "image": [np.asarray(Image.open(photo)) for photo in photos],
        "target": [np.asarray(Image.open(targets / photo.name)) for photo in photos],
        "prediction": [(values + 1) / 2 if values.ndim == 3 else values for values in maps],
    }
    figure, axes = pyplot.subplots(len(rows), _MAPS, figsize=(1.3 * _MAPS, 3.7), dpi=90)
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, fontsize=9)
        for axis, values in zip(line, row, strict=True):
            axis.imshow(values, cmap="gray", interpolation="nearest")
            axis.set(xticks=[], yticks=[])
    _save(figure, target)


def draw_heat(*places: Path) -> None:
    """Draws images, and below each what `tltool explain` wrote for it into some folders.

    Args:
        places: The folder of the images, the folders of the heat maps, and the PNG.
    """
    images, *folders, target = places
    photos = sorted(images.iterdir())
    rows = [("image", photos), *((folder.name, sorted(folder.glob("*.png"))) for folder in folders)]
    figure, axes = pyplot.subplots(
        len(rows), len(photos), figsize=(1.1 * len(photos) + 0.4, 1.1 * len(rows)), dpi=90
    )
    for line, (name, files) in zip(axes, rows, strict=True):
        line[0].set_ylabel(name, fontsize=9)
        for axis, file in zip(line, files, strict=True):
            with Image.open(file) as picture:
                axis.imshow(picture.resize((112, 112)))
            axis.set(xticks=[], yticks=[])
            for side in axis.spines.values():
                side.set_visible(False)
    _save(figure, target)


def draw_report(page: Path, target: Path) -> None:
    """Draws a report as a headless Chromium shows it, in columns beside each other.

    Args:
        page: The page.
        target: The PNG.
    """
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        size = f"{_PAGE[0]},{_PAGE[1] * _COLUMNS}"
        subprocess.run(
            [
                "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--blink-settings=preferredColorScheme=1", f"--user-data-dir={folder}/profile",
                f"--window-size={size}", f"--screenshot={shot}", page.resolve().as_uri(),
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        whole = Image.open(shot).convert("RGB")
        picture = Image.new("RGB", (_PAGE[0] * _COLUMNS, _PAGE[1]), "white")
        for column in range(_COLUMNS):
            top = column * _PAGE[1]
            part = whole.crop((0, top, _PAGE[0], top + _PAGE[1]))
            picture.paste(part, (column * _PAGE[0], 0))
    _save_picture(picture.resize((picture.width // 2, picture.height // 2)), target)


def _save(figure: pyplot.Figure, target: Path) -> None:
    figure.tight_layout(pad=0.6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pyplot.close(figure)
    _save_picture(Image.open(buffer).convert("RGB"), target, is_large=buffer.tell() > _MOST_BYTES)


def _save_picture(picture: Image.Image, target: Path, *, is_large: bool = True) -> None:
    if is_large:  # a palette takes a third of the bytes
        picture = picture.quantize(
            96 if picture.width > 1000 else 200, kmeans=4, dither=Image.Dither.NONE
        )
    picture.save(target, optimize=True)


DRAWERS = {
    "run": draw_run,
    "predictions": draw_predictions,
    "masks": draw_masks,
    "maps": draw_maps,
    "heat": draw_heat,
    "report": draw_report,
}


if __name__ == "__main__":
    DRAWERS[sys.argv[1]](*map(Path, sys.argv[2:]))
