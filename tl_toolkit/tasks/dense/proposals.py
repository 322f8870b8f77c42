"""What `init` writes for images with masks: in folders, as PASCAL VOC or as COCO."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from tl_toolkit.errors import DataError
from tl_toolkit.plan.tasks import Proposal
from tl_toolkit.sources.coco import read_coco
from tl_toolkit.sources.coco_listing import find_annotations, list_coco
from tl_toolkit.sources.listing import PILLOW_FORMATS, FieldProblem, suffixes_of
from tl_toolkit.sources.pairs import PairFolders, list_pairs
from tl_toolkit.tasks.dense.spec import BATCH_SIZE

__all__ = ["propose"]

_OPENED = 50
"""Masks that `propose` opens, at most one more."""

_MOST_CLASSES = 64
_BORDER = 255
"""The value of pixels of no class in the masks of PASCAL VOC and many after it."""

# No file holds the names of the classes, which a valid recipe must have.
_MASKS = (
    "  # The classes, in the order of their values in the masks; put yours here:",
    "  # classes: [background, cat]",
    "  # masks:",
    "  #   ids: [0, 1]                # their values, if not 0, 1, 2, ...",
    "  #   ignore: 255                # the value of pixels of no class, if there are any",
)

_VOC = PairFolders("JPEGImages", "SegmentationClass", lists="ImageSets/Segmentation")
_VOC_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()


def propose(source: Path, place: Path, channels: int) -> Proposal | None:
    """Returns what `init` writes for a folder, None if no masks are found there.

    Args:
        source: The folder.
        place: Folder that the recipe will be in.
        channels: Channels of the images.

    Raises:
        DataError: Images or masks are missing.
    """
    if not source.is_dir():
        return None
    if all((source / name).is_dir() for name in (_VOC.images, _VOC.masks, _VOC.lists)):
        return _propose_voc(source, place)
    if files := find_annotations(source):
        return _propose_coco(source, place, files)
    return _propose_folders(source, place, channels)


def _propose_voc(source: Path, place: Path) -> Proposal:
    from tl_toolkit.plan.starter_lines import remark, write_paths

    files, problems = list_pairs(source, "train", _VOC, where="data.train")
    if problems:
        raise DataError([problem for _, problem in problems])
    paths = [file.targets[0] for file in files]
    masks, is_named = _propose_masks(paths), False
    values = _read_values(_pick(paths))
    if source.name.upper().startswith("VOC") and values <= {*range(len(_VOC_NAMES)), _BORDER}:
        lines = [f"  classes: [{', '.join(_VOC_NAMES)}]", "  masks:"]
        lines.append(remark(f"    ignore: {_BORDER}", "borders of objects"))
        masks, is_named = lines, True
    names = [f"images: {_VOC.images}", f"masks: {_VOC.masks}"]
    names.append(remark(f"lists: {_VOC.lists}", "the splits: train.txt, val.txt"))
    start = masks.index("  masks:") if "  masks:" in masks else len(masks)
    masks[start : start + 1] = ["  masks:", *(f"    {line}" for line in names)]
    return _build(
        source,
        sum(file.split == "train" for file in files),
        [*write_paths({"train": source}, place, "the images, without val.txt"), *masks],
        reason="the folders of PASCAL VOC",
        next_step="" if is_named else "name the classes in it",
    )


def _propose_coco(source: Path, place: Path, files: dict[str, Path]) -> Proposal:
    from tl_toolkit.plan.starter_lines import quote, remark, write_paths

    categories = read_coco(files["train"]).categories
    has_own = any(name.strip("_").lower() == "background" for name in categories)
    classes = [*([] if has_own else ["background"]), *categories]
    problems: list[FieldProblem] = []
    counts = {}
    for split, file in files.items():
        listed, wrong = list_coco(file, split, classes, where=f"data.{split}")
        counts[split] = len(listed)
        problems += wrong
    if problems:
        raise DataError([problem for _, problem in problems])
    line = f"  classes: [{', '.join(map(quote, classes))}]"
    return _build(
        source,
        counts["train"],
        [*write_paths(files, place, "the images"), remark(line, "or some of them, and background")],
        reason="annotations of COCO",
    )


def _propose_folders(source: Path, place: Path, channels: int) -> Proposal | None:
    from tl_toolkit.plan.starter_lines import find_splits, write_paths

    folders = dict(find_splits(source))
    if not all((folders["train"] / name).is_dir() for name in ("images", "masks")):
        return None
    unlabelled = []
    if "test" in folders and not (folders["test"] / "masks").is_dir():
        images = folders.pop("test")
        command = f"tltool predict latest {shlex.quote(str(images))}"
        unlabelled = [f"  # {images.name}/ has no masks: {command}"]
    problems: list[FieldProblem] = []
    pairs = PairFolders(suffixes=suffixes_of(channels))
    masks: list[str] = []
    numbers = {}
    for name, folder in folders.items():
        files, wrong = list_pairs(folder, name, pairs, where=f"data.{name}")
        numbers[name] = len(files)
        masks += [file.targets[0] for file in files]
        problems += wrong
    if problems:
        raise DataError([problem for _, problem in problems])
    return _build(
        source,
        numbers["train"],
        [*write_paths(folders, place, "the images"), *_propose_masks(masks), *unlabelled],
        reason="the folders images and masks",
        next_step="name the classes in it",
    )


def _build(
    source: Path, number: int, data: Sequence[str], *, reason: str, next_step: str = ""
) -> Proposal:
    from tl_toolkit.plan.starter_lines import remark

    return Proposal(
        opening=f"{number:,} images to train from, each with a mask",
        counts=(),
        task=[remark("task: segmentation", "or edges, or normals: those have no classes")],
        data=data,
        batch_size=BATCH_SIZE,
        head=("    hidden:", "      - units: 256"),
        folder=source,
        reason=reason,
        next_step=next_step,
    )


def _pick(files: Sequence[str]) -> list[str]:
    """Returns some of many files, spread evenly."""
    places = {round(at * (len(files) - 1) / _OPENED) for at in range(_OPENED + 1)}
    return [files[place] for place in sorted(places)] if files else []


def _propose_masks(paths: Sequence[str]) -> list[str]:
    """Returns lines that name the classes by the values in some of the masks."""
    from tl_toolkit.plan.starter_lines import remark

    opened = _pick(paths)
    values = _read_values(opened)
    if not 2 <= len(values) <= _MOST_CLASSES:
        return list(_MASKS)
    in_order = sorted(values)
    ignored = in_order[-1] == _BORDER and in_order[:-1] == list(range(len(in_order) - 1))
    ignored = ignored and len(in_order) > 2
    ids = in_order[:-1] if ignored else in_order
    names = ", ".join(f"class_{value}" for value in ids)
    is_counted = ids == list(range(len(ids)))
    return [
        f"  # {len(opened)} masks were opened; they hold {', '.join(map(str, in_order))}.",
        remark(f"  classes: [{names}]", "in the order of their values; put your names here"),
        "  masks:",
        f"    {'# ' if is_counted else ''}ids: [{', '.join(map(str, ids))}]",
        remark(f"    ignore: {_BORDER}", "pixels of no class; or name it as a class")
        if ignored
        else f"    # ignore: {_BORDER}                # the value of pixels of no class, if any",
    ]


def _read_values(paths: Sequence[str]) -> set[int]:
    """Returns the values in masks of one channel of 8 bits; none if one is of another kind."""
    from PIL import Image

    values: set[int] = set()
    for path in paths:
        try:
            with Image.open(path, formats=PILLOW_FORMATS) as image:
                if image.mode not in ("L", "P"):
                    return set()
                values |= {value for value, count in enumerate(image.histogram()) if count}
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return set()
    return values
