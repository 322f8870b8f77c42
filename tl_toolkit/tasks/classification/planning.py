"""Images of one class each: from folders, a table with a column label, or a built-in set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.plan.tasks import Proposal, Survey, TaskPlanning, splits_of
from tl_toolkit.recipe.tree import FieldPath
from tl_toolkit.sources.listing import Listing, name_some
from tl_toolkit.sources.survey import (
    Splits,
    check_builtin,
    count_builtin,
    list_builtin,
    list_class_folders,
    list_class_table,
    survey_folders,
)
from tl_toolkit.sources.tables import read_header, read_table

__all__ = ["Planning"]


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
        if data.csv is not None:
            return self.as_survey(*list_class_table(data.csv, splits, data.classes))
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
        if not source.is_file():
            return list_class_folders(source, classes=classes, links=self.data.links)
        files, faults = read_table(source)
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
    def propose(source: Path, place: Path, image_size: int) -> Proposal | None:
        """Recognizes a folder per class, in splits or not, and a table with a column label.

        Args:
            source: The folder or table.
            place: Folder that the recipe will be in.
            image_size: Side of the images.

        Raises:
            DataError: The folders hold no classes.
        """
        from tl_toolkit.plan.starter import find_splits, write_paths, write_table

        if source.is_file():
            header, _ = read_header(source, expected="")
            if "label" not in header:
                return None
            listing, problems = list_class_table(source, Splits(validation=0.2))
            data, folder = write_table(source, place, "each class"), source.with_suffix("")
        else:
            folders = find_splits(source)
            listing, problems = survey_folders(
                Splits(folders["train"], folders.get("validation", 0.2), folders.get("test"))
            )
            data, folder = write_paths(folders, place, "each class"), source
        if problems:
            raise DataError([problem for _, problem in problems])
        counts = listing.count()
        train = counts.get("train") or counts.get(None) or {}
        return Proposal(
            opening=f"{sum(train.values()):,} images to train from, of {len(train)} classes",
            counts=[(count, repr(label)) for label, count in train.items()],
            data=data,
            folder=folder,
        )
