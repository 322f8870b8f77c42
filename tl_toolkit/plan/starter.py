"""A first recipe for a folder of images: what was seen there, and choices with their reasons."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from tl_toolkit.catalog.lookup import Architecture, find_architecture
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.recipe.schema import PIXEL_BATCH_SIZE, Data, Masks
from tl_toolkit.recipe.yaml_reader import read_scalar
from tl_toolkit.sources.survey import check_sources, count_sources

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}

# No file tells the names of the classes, and without them the recipe is not valid.
_MASKS = [
    "  # The classes, in the order of their values in the masks; put yours here:",
    "  # classes: [background, cat]",
    "  # masks:",
    "  #   ids: [0, 1]                # their values, if not 0, 1, 2, ...",
    "  #   ignore: 255                # the value of pixels of no class, if there are any",
]


def write_starter(
    data_dir: Path, *, base: str = "mobilenet", place: Path = Path()
) -> tuple[str, str]:
    """Looks at a folder and writes a recipe for it.

    Args:
        data_dir: A folder per class, or folders images and masks; or folders train, validation (or
            val) and test with these.
        base: Architecture to start from.
        place: Folder that the recipe will be in; its paths are relative to it.

    Returns:
        The text of the recipe, and its name. With masks it is one of segmentation, and not
        valid until the user has named the classes.

    Raises:
        DataError: The folder is missing, or holds neither classes nor images with masks.
        RecipeError: There is no such architecture.
    """
    record = find_architecture(base)
    folders = _find_splits(data_dir)
    masks = Masks() if _has_masks(folders["train"]) else None
    data = Data(**folders, masks=masks, image_size=record.default_size)
    problems = [problem for _, problem in check_sources(data)]
    if problems:
        raise DataError(problems)
    name = _name_recipe(data_dir.resolve())
    return _compose(name, record, folders, count_sources(data), place), name


def _name_recipe(folder: Path) -> str:
    """The folder's own name, or its parent's where it is only called train."""
    if folder.name.lower() in SPLIT_NAMES["train"]:
        folder = folder.parent
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", folder.name).strip("._-")[:57] or "images"
    # A number, a word of YAML's or the name of the newest run would be read as something else.
    is_name = isinstance(read_scalar(name), str) and name != "latest"
    return name if is_name else f"images_{name}"


def _find_splits(data_dir: Path) -> dict[str, Path]:
    if not data_dir.is_dir():
        raise DataError(
            Problem(
                where=str(data_dir),
                what="is no folder",
                expected="Expected a folder per class, or images/ and masks/, or train and "
                "validation folders with either.",
                hint="tltool init DATA_DIR",
            )
        )
    below = {entry.name.lower(): entry for entry in sorted(data_dir.iterdir()) if entry.is_dir()}
    found = {
        split: below[name]
        for split, names in SPLIT_NAMES.items()
        for name in reversed(names)
        if name in below
    }
    return found if "train" in found else {"train": data_dir}


def _has_masks(folder: Path) -> bool:
    """Whether it holds folders of images and of masks, and not folders of classes."""
    return all((folder / name).is_dir() for name in ("images", "masks"))


def _compose(
    name: str,
    record: Architecture,
    folders: Mapping[str, Path],
    counts: Mapping[str | None, Mapping[str, int]],
    place: Path,
) -> str:
    paths = {split: _quote(_relative(path, place)) for split, path in folders.items()}
    train = counts.get("train") or counts.get(None) or {}
    has_masks = _has_masks(folders["train"])
    data = [f"  train: {paths['train']}"]
    if "validation" in paths:
        data.append(f"  validation: {paths['validation']}")
    else:
        of_what = "the images" if has_masks else "each class"
        data.append(_remark("  validation: 0.2", f"this fraction of {of_what}"))
    if "test" in paths:
        data.append(f"  test: {paths['test']}")
    classes = [f"#   {count:6,}  {label!r}" for label, count in _at_most(train, 20)]
    of_what = f"of {len(train)} classes"
    task = []
    if has_masks:
        data += _MASKS
        classes, of_what = [], "each with a mask"
        task = [_remark("task: segmentation", "or edges, or normals: those have no classes")]
    lines = [
        f"# {name}: {sum(train.values()):,} images to train from, {of_what}.",
        "# yaml-language-server: $schema=recipe.schema.json",
        "#",
        "#   tltool validate THIS_FILE",
        "#   tltool finetune THIS_FILE",
        "#",
        *classes,
        "version: 1",
        f"name: {name}",
        *task,
        "seed: 0",
        "",
        "data:",
        *data,
        _remark(f"  image_size: {record.default_size}", f"{record.minimum_size} or more"),
        f"  batch_size: {PIXEL_BATCH_SIZE if has_masks else 32}",
        _remark("  broken: skip", "damaged images are named and left out; or refuse"),
        _remark("  convert: true", "TIFF and some WebP are re-encoded into the run"),
        "",
        _remark("# augment:", "random changes of training images; slower, better with few"),
        "#   flip: horizontal",
        "#   rotation: 0.05",
        "",
        "model:",
        _remark(f"  base: {record.name}", "tltool models list"),
        *_write_training(record, hidden=has_masks),
    ]
    return "\n".join(lines) + "\n"


def _write_training(record: Architecture, *, hidden: bool) -> list[str]:
    """The rest of `model`, and the phases: fine-tuning if there is something to fine-tune."""
    layers = ["    hidden:", "      - units: 256"] if hidden else []
    head = ["  head:", *layers, "    dropout: 0.2", "", "phases:"]
    if not record.weight_files:
        return [
            _remark("  weights: random", "none were published; a file is taken too"),
            *head,
            _remark("  - name: all", "from random weights, everything trains"),
            "    epochs: 30",
            "    learning_rate: 1e-3",
            f"    unfreeze: {len(record.blocks)}",
            "    batch_norm: train",
            "    batch_norm_momentum: 0.9",
        ]
    last = record.blocks[-1].units[-2:][0].name
    return [
        _remark("  weights: imagenet", "or a file"),
        *head,
        _remark("  - name: head", "the new head alone, on a frozen base"),
        "    epochs: 10",
        "    learning_rate: 1e-3",
        _remark("  - name: tune", "then the last units too, at a tenth of the rate"),
        "    epochs: 5",
        "    learning_rate: 1e-4",
        _remark(f"    unfreeze: {{from: {last}}}", f"tltool models show {record.name}"),
    ]


def _remark(line: str, remark: str) -> str:
    return f"{line:<32} # {remark}"


def _relative(path: Path, place: Path) -> str:
    """Relative where the recipe and its data are near each other, so that both can move."""
    relative = os.path.relpath(path, place)
    return str(path.absolute()) if relative.startswith("../..") else relative


def _at_most(counts: Mapping[str, int], limit: int) -> list[tuple[str, int]]:
    """The first classes, and one line for the others."""
    rows = list(counts.items())
    rest = rows[limit:]
    if not rest:
        return rows
    return [*rows[:limit], (f"in {len(rest)} more classes", sum(count for _, count in rest))]


def _quote(path: str) -> str:
    """A path as YAML: plain if it can be, else in double quotes."""
    if re.fullmatch(r"[A-Za-z0-9./_-]*[A-Za-z/_][A-Za-z0-9./_-]*", path):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
