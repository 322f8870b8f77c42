"""The light half of a task: it lists images and targets, and checks that a recipe fits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.catalog.records import RGB
from tl_toolkit.catalog.taps import units_read
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.recipe.remote import name_objects
from tl_toolkit.recipe.schema import Data, Head, Recipe
from tl_toolkit.recipe.tree import FieldPath
from tl_toolkit.sources.exclusions import exclude_files
from tl_toolkit.sources.listing import FieldProblem, Listing, name_some, suffixes_of
from tl_toolkit.sources.objects import name_listed
from tl_toolkit.sources.survey import Splits

__all__ = ["Proposal", "Survey", "TaskPlanning", "naming_addresses", "plan_task", "splits_of"]


@dataclass(frozen=True)
class Survey:
    """The images that a recipe names, and their problems.

    Attributes:
        classes: Class names in the order of the outputs; none where outputs are no classes, or
            where problems in the data leave them unknown.
        counts: Images by class in each split (None: fractions decide).
        problems: Problems by field of the `data` section, or by a dotted field of another.
        list_files: Lists all files; reads a built-in set, which counting does not.
    """

    classes: tuple[str, ...]
    counts: Mapping[str | None, Mapping[str, int]]
    problems: Sequence[FieldProblem]
    list_files: Callable[[], Listing]


@dataclass(frozen=True)
class Proposal:
    """Lines that `init` writes for data that a task recognizes.

    Attributes:
        opening: Content of the data, for the first line, as "244 images to train from, of 2
            classes".
        counts: Lines of a table below it: a number and what it counts.
        task: Lines of the recipe that name the task; none for the default.
        data: Lines of the `data` section with the places of images and targets.
        images: Number of images by split (None: fractions decide); none where the head of such a
            task cannot be solved.
        outputs: Number of classes, or of numbers for each image.
        batch_size: Images in a training step.
        head: Lines of the head before its dropout.
        is_centred: Whether what an image is labelled for is usually in its centre.
        folder: The folder that the recipe is named after.
        reason: What in the data this task was recognized by, as "the column label".
        ignored: Columns that the recipe does not use, with the reason of each.
        doubts: Sentences on what may be meant instead.
        next_step: What its user must do to make the recipe valid, as "name the classes in it"; ""
            if it is valid.
    """

    opening: str
    counts: Sequence[tuple[int, str]]
    data: Sequence[str]
    folder: Path
    task: Sequence[str] = ()
    images: Mapping[str | None, int] = field(default_factory=dict)
    outputs: int = 1
    batch_size: int = 32
    head: Sequence[str] = ()
    is_centred: bool = False
    reason: str = ""
    ignored: Sequence[str] = ()
    doubts: Sequence[str] = ()
    next_step: str = ""


class TaskPlanning:
    """The light half of a task; each has a child called `Planning` in `planning.py` of its folder.

    Args:
        recipe: The recipe that is planned.

    Attributes:
        counted_as: The name for the number of images that have no class.
        folders: Folders that `propose` recognizes, in words; "" for none.
        columns: Columns of a table that it recognizes, in words; "" for none.
        takes_any_folder: Whether it takes every folder for its own; such a task is asked last.
    """

    counted_as: ClassVar[str] = "images"
    folders: ClassVar[str] = ""
    columns: ClassVar[str] = ""
    takes_any_folder: ClassVar[bool] = False

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @property
    def ranking_score(self) -> str:
        """The score that bases are ranked by."""
        section = self.recipe.task
        return section.final_score or section.score

    @property
    def data(self) -> Data:
        """The recipe's `data` section."""
        return self.recipe.data

    def survey(self) -> Survey:
        """Lists the recipe's data; opens no image."""
        raise NotImplementedError

    def list_for_evaluation(self, source: Path, classes: Sequence[str]) -> Listing:
        """Lists other data of the same kind, all in the split "test".

        Args:
            source: A folder or a table.
            classes: Classes of the run, in the order of the outputs.

        Raises:
            DataError: It is missing, or of another kind.
        """
        raise NotImplementedError

    def check(
        self, architecture: Architecture, classes: Sequence[str]
    ) -> Iterator[tuple[FieldPath, Problem]]:
        """Yields the fields that do not fit the task, and why.

        Args:
            architecture: The record of the base.
            classes: In the order of the outputs; none if they are not known.
        """
        return iter(())

    def readable_units(self, architecture: Architecture) -> tuple[str, ...] | None:
        """Returns the units whose outputs reach the head, None for all.

        Args:
            architecture: The record of the base.
        """
        head = self.recipe.model.head
        if isinstance(head, Head) and isinstance(head.taps, tuple):
            return units_read(architecture, head.taps)
        return None

    def begin_ranking(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields of a recipe by which a base is judged: its head reads all maps.

        Args:
            values: Fields of the recipe, with the base's own `model` section without a head.
        """
        head = {"taps": "all", "pooling": "statistics", "normalize": True}
        return {**values, "model": {**values["model"], "head": head}}

    def begin_with_head(
        self, values: Mapping[str, Any], is_random: Callable[[], bool]
    ) -> dict[str, Any]:
        """Returns the fields of a recipe whose base stays as it is: its head is solved.

        Args:
            values: Fields of the recipe that `init` writes.
            is_random: Whether its weights are random, after all overrides.
        """
        model = {name: value for name, value in values["model"].items() if name != "head"}
        kept = {name: value for name, value in values.items() if name != "phases"}
        return {**kept, "model": model, "preset": "fast"}

    @staticmethod
    def propose(source: Path, place: Path, image_size: int, channels: int = RGB) -> Proposal | None:
        """Returns what `init` writes for a folder or table, None if it is not this task's.

        Args:
            source: The folder or table.
            place: Folder that the recipe will be in.
            image_size: Side of the images.
            channels: Channels of the images.

        Raises:
            DataError: It is this task's, and something in it is wrong.
        """
        return None

    def as_survey(self, listing: Listing, problems: Sequence[FieldProblem]) -> Survey:
        """Returns listed files as a survey, without those that the recipe leaves out.

        Args:
            listing: The files.
            problems: Their problems.
        """
        listing = name_listed(listing)
        if self.data.exclude is not None:
            listing, wrong = exclude_files(listing, self.data.exclude)
            problems = [*problems, *wrong]
            if not problems:
                problems = _check_left(listing, self.data.exclude)
        problems = [(field, _name_addresses(problem)) for field, problem in problems]
        if self.data.table is not None:
            problems = [_name_table(*problem) for problem in problems]
        counted: dict[str | None, dict[str, int]] = {}
        if not problems:
            for split, by_class in listing.count().items():
                counted[split] = {name or self.counted_as: by_class[name] for name in by_class}
        return Survey(listing.classes, counted, problems, lambda: listing)


def _name_addresses(problem: Problem) -> Problem:
    """Returns a problem of a folder or a table that stands for an address, in terms of that."""
    return Problem(
        *map(name_objects, (problem.where, problem.what, problem.expected, problem.hint))
    )


@contextlib.contextmanager
def naming_addresses() -> Iterator[None]:
    """Puts addresses in the place of what stands for them, in errors of data raised within."""
    try:
        yield
    except DataError as error:
        raise DataError([_name_addresses(problem) for problem in error.problems]) from error


def _name_table(field: str, problem: Problem) -> FieldProblem:
    """Places a problem of a table at the field that names it, where that is not `csv`."""
    where = "data.table" if problem.where == "data.csv" else problem.where
    return "table" if field == "csv" else field, replace(problem, where=where)


def _check_left(listing: Listing, table: Path) -> list[FieldProblem]:
    """Returns problems of splits or classes that no image is left in."""
    empty = [
        f"{name!r} in {split or 'train'}" if name else str(split or "train")
        for split, by_class in listing.count().items()
        for name, count in by_class.items()
        if not count
    ]
    if not empty and listing.files:
        return []
    what = f"{str(table)!r} leaves no image of {name_some(empty) or 'any split'}"
    return [("exclude", Problem("data.exclude", what, "Each split needs images of every class."))]


def plan_task(recipe: Recipe) -> TaskPlanning:
    """Returns the light half of a recipe's task.

    Args:
        recipe: The recipe.
    """
    planning: TaskPlanning = recipe.task.open("planning").Planning(recipe)
    return planning


def splits_of(data: Data) -> Splits:
    """Returns where the images of each split come from.

    Args:
        data: The section.
    """
    validation = data.validation if data.folds is None else None
    suffixes = suffixes_of(data.channels)
    return Splits(
        data.train, validation, data.test, data.links, data.group or "", suffixes,
        data.class_folders, data.column_names,
    )  # fmt: skip
