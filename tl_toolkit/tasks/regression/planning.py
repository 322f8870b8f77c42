"""Images with numbers: a table with a column for each of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import DataError, Problem, closest, nearest
from tl_toolkit.plan.tasks import Proposal, Survey, TaskPlanning, splits_of
from tl_toolkit.sources.listing import FieldProblem, Listing, SourceFile, find_fractions, name_some
from tl_toolkit.sources.survey import Splits
from tl_toolkit.sources.tables import (
    NOT_TARGETS,
    blame_table,
    describe_cells,
    find_wrong_cells,
    is_slip,
    is_table,
    mend_decimal,
    read_columns,
    read_header,
    read_table,
    refuse_index,
)
from tl_toolkit.tasks.regression.spec import RESERVED, RegressionSection

__all__ = ["Planning"]

_LARGEST = 3.4e38
"""The largest float32, the type in which models compute."""

_EXPECTED = (
    "A table is expected with a column path, a column of numbers for each target, and split if you "
    "like"
)


class Planning(TaskPlanning):
    """The light half of regression."""

    columns: ClassVar[str] = "path and columns of numbers"

    def survey(self) -> Survey:
        """Reads the recipe's table; opens no image."""
        path, section = self.data.table_path, self.recipe.task
        if path is None or not isinstance(section, RegressionSection):  # refused with the recipe
            return self.as_survey(Listing((), (), stratify=""), ())
        listing, problems = _list_table(path, splits_of(self.data), section.columns)
        return self.as_survey(listing, problems)

    def list_for_evaluation(self, source: Path, classes: Sequence[str]) -> Listing:
        """Lists a table, all in the split "test".

        Args:
            source: The table.
            classes: The columns that the run predicts, in the order of its outputs.

        Raises:
            DataError: It is missing, lacks columns, or holds no numbers.
        """
        listing, problems = _list_table(
            source, Splits(links="follow", names=self.data.column_names), classes
        )  # the user names it
        if problems:
            raise DataError([replace(problem, where="--data") for _, problem in problems])
        files = tuple(file._replace(split="test") for file in listing.files)
        return Listing(listing.classes, files, columns=listing.columns, stratify="")

    @staticmethod
    def propose(source: Path, place: Path, image_size: int, channels: int = RGB) -> Proposal | None:
        """Recognizes a table with columns of numbers, and proposes all of them.

        Args:
            source: The table.
            place: Folder that the recipe will be in.
            image_size: Side of the images.
            channels: Channels of the images.

        Raises:
            DataError: Rows of it are wrong.
        """
        from tl_toolkit.plan.starter_lines import name_after, quote, remark, write_table

        if not is_table(source):
            return None
        header, _ = read_header(source, expected="")
        if "label" in header:
            return None
        columns = read_columns(source, [name for name in header if name not in RESERVED])
        wrong = find_wrong_cells(columns, _refuse_number)
        slips = {
            name: wrong[name] for name, cells in columns.items() if is_slip(wrong[name], cells)
        }
        if slips:
            raise DataError(describe_cells(source, slips, _refuse_number))
        numbers = [name for name, cells in columns.items() if cells and not wrong[name]]
        if not numbers:
            return None
        ignored = [
            f"{name!r} ({len(wrong[name])} of {len(cells)} cells are no numbers, first "
            f"{wrong[name][0].value!r} in line {wrong[name][0].line})"
            for name, cells in columns.items()
            if wrong[name]
        ]
        if index := refuse_index(source, numbers):
            raise DataError(index)
        listing, problems = _list_table(source, Splits(validation=0.2), numbers)
        if problems:
            raise DataError([problem for _, problem in problems])
        splits = Counter(file.split for file in listing.files)
        return Proposal(
            opening=f"{len(listing.files):,} images with numbers: {', '.join(numbers)}",
            counts=(),
            task=[
                remark("task:", "one or several numbers for each image"),
                "  kind: regression",
                f"  columns: [{', '.join(map(quote, numbers))}]",
            ],
            data=write_table(source, place, "the images", splits=splits),
            images=splits,
            outputs=len(numbers),
            folder=name_after(source),
            reason=f"columns of numbers: {name_some(numbers)}",
            ignored=ignored,
        )


def _list_table(
    path: Path, splits: Splits, columns: Sequence[str] | None
) -> tuple[Listing, list[FieldProblem]]:
    """Lists the rows; the "classes" are the columns, in the order of the outputs."""
    header, unreadable = read_header(path, expected=_EXPECTED, names=splits.names)
    if unreadable:
        return Listing((), (), stratify=""), blame_table(unreadable)
    left_out = {*NOT_TARGETS, *filter(None, [splits.group])}
    names = [name for name in header if name not in left_out]
    chosen = tuple(columns or names)
    if columns is None and (index := refuse_index(path, names)):
        return Listing((), (), stratify=""), [("csv", index)]
    if problems := _check_columns(path, chosen, names):
        problems = _blame(problems, columns)
        return Listing((), (), stratify=""), problems
    listed, problems = read_table(
        path,
        chosen,
        refuse=_refuse_number,
        expected=_EXPECTED,
        group=splits.group,
        links=splits.links,
        names=splits.names,
    )
    problems = _blame(_check_numbers(path, chosen, listed), columns) or problems
    files, fractions = find_fractions(listed, splits.fractions)
    return Listing(chosen, files, fractions, columns=chosen, stratify=""), problems


def _blame(problems: list[FieldProblem], columns: Sequence[str] | None) -> list[FieldProblem]:
    """Places problems of columns that a recipe names in its field for them, not at the table."""
    if columns is None:
        return problems
    field = "task.columns"
    return [(field, replace(problem, where=field)) for _, problem in problems]


def _check_columns(path: Path, chosen: Sequence[str], names: Sequence[str]) -> list[FieldProblem]:
    missing = [name for name in chosen if name not in names]
    if missing:
        near = closest(missing[0], names)
        what = f"{str(path)!r} has no column {name_some(map(repr, missing))}"
        expected = f"Its columns are {name_some(map(repr, names))}{'; ' if near else '.'}{near}"
        meant = [name if name in names else nearest(name, names) for name in chosen]
        hint = _hint(list(dict.fromkeys(filter(None, meant))))
        return [("csv", Problem("data.csv", what, expected, hint))]
    if not chosen:
        what = f"{str(path)!r} has no column of targets"
        return [("csv", Problem("data.csv", what, f"{_EXPECTED}."))]
    reserved = [name for name in chosen if name in RESERVED]
    if reserved:
        what = f"{str(path)!r} has the column {reserved[0]!r}"
        expected = f"No target is called {', '.join(RESERVED)}."
        usable = [name for name in chosen if name not in RESERVED]
        return [("csv", Problem("data.csv", what, expected, _hint(usable)))]
    taken = [name for name in chosen if name.removeprefix("predicted_") in {*chosen} - {name}]
    if taken:
        what = f"{str(path)!r} has the targets {taken[0].removeprefix('predicted_')!r} and "
        expected = f"predictions.csv has a column {taken[0]!r} for the first one's predictions."
        usable = [name for name in chosen if name not in taken]
        problem = Problem("data.csv", f"{what}{taken[0]!r}", expected, _hint(usable))
        return [("csv", problem)]
    return []


def _check_numbers(
    path: Path, columns: Sequence[str], files: Sequence[SourceFile]
) -> list[FieldProblem]:
    """Refuses columns without any number as a whole, instead of each of their cells."""
    words = {
        name
        for place, name in enumerate(columns)
        if files and all(_refuse_number(name, file.targets[place]) for file in files)
    }
    if not words:
        return []
    numbers = [name for name in columns if name not in words]
    columns_text = name_some(repr(name) for name in columns if name in words)
    what = f"{str(path)!r} has no numbers in {columns_text}"
    hint = _hint(numbers)
    commas = [target for file in files for target in file.targets if mend_decimal(target)]
    if commas and not hint:
        hint = f"a decimal point: {mend_decimal(commas[0])} for {commas[0]}"
    return [("csv", Problem("data.csv", what, f"{_EXPECTED}.", hint))]


def _hint(columns: Sequence[str]) -> str:
    from tl_toolkit.plan.starter_lines import quote

    names = ", ".join(map(quote, columns))
    return f"task.columns=[{names}]" if names else ""


def _refuse_number(column: str, value: str) -> str:
    try:
        # Python reads 1_000 as a number; people and spreadsheets do not write it.
        number = math.nan if "_" in value else float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        point = mend_decimal(value)
        return f"column {column!r} = {value!r}; expected a number{f', as {point}' * bool(point)}"
    if abs(number) < _LARGEST:
        return ""
    return f"column {column!r} = {value!r}; expected less than {_LARGEST:g}"
