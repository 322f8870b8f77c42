"""Images of one class each: from folders, a table with a column label, or a built-in set."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.plan.tasks import Proposal, Survey, TaskPlanning, splits_of
from tl_toolkit.recipe.tree import FieldPath
from tl_toolkit.sources.class_folders import prefers_folders
from tl_toolkit.sources.folder_checks import check_unused
from tl_toolkit.sources.folders import read_folders
from tl_toolkit.sources.listing import FieldProblem, Listing, name_some, suffixes_of
from tl_toolkit.sources.survey import (
    Splits,
    check_builtin,
    count_builtin,
    list_builtin,
    list_class_folders,
    list_class_table,
    survey_folders,
)
from tl_toolkit.sources.tables import NOT_TARGETS, is_table, read_header, read_table

__all__ = ["Planning"]

_PHOTOS = {"images", "image", "imgs", "img", "photos", "inputs", "rgb"}
_MASKS = {
    "masks", "mask", "labels", "label", "annotations", "annotation", "gt", "groundtruth",
    "ground_truth", "segmentation", "segmentations", "targets",
}  # fmt: skip


class Planning(TaskPlanning):
    """The light half of classification."""

    folders: ClassVar[str] = "a folder per class"
    columns: ClassVar[str] = "path and label"
    takes_any_folder: ClassVar[bool] = True

    def survey(self) -> Survey:
        """Lists the recipe's data; opens no image and loads no built-in set."""
        data, splits = self.data, splits_of(self.data)
        if data.builtin is not None:
            return self._survey_builtin(data.builtin)
        if (table := data.table_path) is not None:
            return self.as_survey(*list_class_table(table, splits, data.classes))
        return self.as_survey(*survey_folders(splits, data.classes))

    def _survey_builtin(self, name: str) -> Survey:
        data, splits = self.data, splits_of(self.data)
        if problems := check_builtin(name, data.classes):
            return Survey(data.classes or (), {}, problems, lambda: Listing((), ()))
        counts = count_builtin(name, data.classes)
        return Survey(
            tuple(counts), {None: counts}, (), lambda: list_builtin(name, splits, data.classes)
        )

    def list_for_evaluation(self, source: Path, classes: Sequence[str]) -> Listing:
        """Lists a folder of class folders, or a table with a column label, as the split "test".

        Args:
            source: The folder or table, with some or all of the classes.
            classes: Classes of the run.

        Raises:
            DataError: It is missing, or it holds other classes.
        """
        # A folder per class may hold a table of something else.
        is_listed = source.is_file() or (
            self.data.train is None
            and is_table(source)
            and not prefers_folders(source, self.data.column_names.get("label", "label"))
        )
        if not is_listed and source.suffix.lower() != ".csv":
            return list_class_folders(
                source,
                classes=classes,
                links=self.data.links,
                suffixes=suffixes_of(self.data.channels),
                class_folders=self.data.class_folders,
            )
        files, faults = read_table(
            source, links="follow", names=self.data.column_names
        )  # the user names it
        problems = [replace(problem, where="--data") for _, problem in faults]
        unknown = sorted({file.targets[0] for file in files} - set(classes))
        if unknown and not problems:
            what = f"{str(source)!r} has labels of other classes: {name_some(map(repr, unknown))}"
            expected = f"The classes are {name_some(map(repr, classes))}."
            problems = [Problem("--data", what, expected)]
        if problems:
            raise DataError(problems)
        return Listing(tuple(classes), tuple(file._replace(split="test") for file in files))

    def check(
        self, architecture: Architecture, classes: Sequence[str]
    ) -> Iterator[tuple[FieldPath, Problem]]:
        """Yields a problem if the head has a sigmoid and there are not two classes.

        Args:
            architecture: The record of the base.
            classes: In the order of the outputs.
        """
        head = self.recipe.model.head
        if head != "paper" and head.activation == "sigmoid" and classes and len(classes) != 2:
            what = "model.head.activation = 'sigmoid'"
            expected = f"expected exactly 2 classes for a sigmoid, got {len(classes)}."
            hint = "activation: softmax, or name two classes in data.classes"
            yield ("model", "head", "activation"), Problem("", what, expected, hint)

    @staticmethod
    def propose(source: Path, place: Path, image_size: int, channels: int = RGB) -> Proposal | None:
        """Recognizes a folder per class, in splits or not, and a table with a column label.

        Args:
            source: The folder or table.
            place: Folder that the recipe will be in.
            image_size: Side of the images.
            channels: Channels of the images.

        Raises:
            DataError: The folders hold no classes.
        """
        from tl_toolkit.plan.starter_lines import find_splits, name_after

        is_listed = is_table(source) and not prefers_folders(source, "label", "labels")
        is_listed = is_listed and "label" in read_header(source, expected="")[0]
        if source.is_file() and not is_listed:
            return None
        if is_listed:
            header, _ = read_header(source, expected="")
            folder, reason = name_after(source), "the column label"
            ignored = [repr(name) for name in header if name not in (*NOT_TARGETS, "label")]
            data, listing, problems = _propose_table(source, place)
        else:
            folder, reason, ignored = source, "a folder for each class", []
            data, listing, problems = _propose_folders(
                find_splits(source), place, suffixes_of(channels)
            )
        if problems:
            raise DataError([problem for _, problem in problems])
        counts = listing.count()
        train = counts.get("train") or counts.get(None) or {}
        return Proposal(
            opening=f"{sum(train.values()):,} images to train from, of {len(train)} classes",
            counts=[(count, repr(label)) for label, count in train.items()],
            data=data,
            images=Counter(file.split for file in listing.files),
            outputs=len(listing.classes),
            folder=folder,
            is_centred=True,
            reason=reason,
            ignored=ignored,
            doubts=[] if is_listed else _list_doubts(find_splits(source)["train"]),
        )


def _propose_table(table: Path, place: Path) -> tuple[list[str], Listing, list[FieldProblem]]:
    """Returns lines of `data` for a table, what it lists, and problems that remain."""
    from tl_toolkit.plan.starter_lines import write_classes, write_table

    files, problems = read_table(table)
    lines = write_table(table, place, "each class", splits={file.split for file in files})
    splits: dict[str, dict[str, list[str]]] = {"train": {}}
    for file in files:
        of_split = splits.setdefault(file.split or "train", {})
        of_split.setdefault(file.targets[0], []).append(file.path)
    classes, left_out = _choose_classes(splits)
    if problems or len(classes) < 2:
        classes, left_out = [], []
    listing, problems = list_class_table(
        table, Splits(validation=0.2), classes if left_out else None
    )
    return [*lines, *write_classes(classes, left_out)], listing, problems


def _propose_folders(
    folders: Mapping[str, Path], place: Path, suffixes: Set[str]
) -> tuple[list[str], Listing, list[FieldProblem]]:
    """Returns lines of `data` for folders of splits, what they list, and problems that remain.

    Where folders cannot be used as they are, the lines say what else can be done.
    """
    from tl_toolkit.plan.starter_lines import remark, write_classes, write_paths

    used = dict(folders)
    contents = {
        name: read_folders(folder, name, f"data.{name}", links="follow", suffixes=suffixes)[0]
        for name, folder in folders.items()
    }
    after: list[str] = []
    if "test" in used and not contents["test"].classes:
        images = used.pop("test")
        command = f"tltool predict latest {shlex.quote(str(images))}"
        after.append(f"  # {images.name}/ has no class folders: {command}")
    refused = [
        read_folders(folder, name, name, suffixes=suffixes)[0] for name, folder in used.items()
    ]
    is_linked = any(check_unused(entry, None) for entry in refused)
    if is_linked:
        after.append(remark("  links: follow", "or ignore: folders in it are links"))
    classes, left_out = _choose_classes({name: contents[name].classes for name in used})
    if len(classes) < 2:
        classes, left_out = [], []
    listing, problems = survey_folders(
        Splits(
            used["train"],
            used.get("validation", 0.2),
            used.get("test"),
            "follow" if is_linked else "refuse",
            suffixes=suffixes,
        ),
        classes if left_out else None,
    )
    lines = [*write_paths(used, place, "each class"), *write_classes(classes, left_out), *after]
    return lines, listing, problems


def _list_doubts(folder: Path) -> list[str]:
    """Returns sentences on folders that may be something else than classes.

    Args:
        folder: Holds the class folders of the training images.
    """
    contents = read_folders(folder, "train", "", links="follow")[0]
    names = {name.lower(): name for name in contents.classes}
    photos, masks = (sorted(words & set(names)) for words in (_PHOTOS, _MASKS))
    doubts = []
    if photos and masks and len(names) == 2:
        doubts.append(
            f"{names[photos[0]]}/ and {names[masks[0]]}/ are taken for two classes; if they are "
            "images and their masks, call them images and masks"
        )
    for name, paths in contents.classes.items():
        below = {Path(path).relative_to(contents.folder).parts[1:-1] for path in paths}
        inner = sorted({parts[0] for parts in below if parts})
        if len(inner) > 1 and () not in below:
            command = f"tltool init {shlex.quote(str(folder / name))}"
            doubts.append(
                f"{name}/ is taken for one class; if its folders ({name_some(inner)}) are the "
                f"classes: {command}, or data.class_folders=all"
            )
    return doubts


def _choose_classes(
    splits: Mapping[str, Mapping[str, Sequence[str]]],
) -> tuple[list[str], list[str]]:
    """Returns the classes that every split has images of, and sentences on the others."""
    needed = {name: 1 for name in splits}
    needed["train"] += "validation" not in splits  # a fraction of each class
    chosen, left_out = [], []
    for label in sorted({label for classes in splits.values() for label in classes}):
        counts = {name: len(classes.get(label, ())) for name, classes in splits.items()}
        few = [name for name in splits if counts[name] < needed[name]]
        if few:
            lacking = ", ".join(f"{counts[name]} of {needed[name]} in {name}" for name in few)
            left_out.append(f"{label!r} is left out, it has too few images: {lacking}")
        else:
            chosen.append(label)
    return chosen, left_out
