"""Images with numbers: a table with a column for each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from tl_toolkit.errors import DataError, Problem, closest
from tl_toolkit.plan.tasks import Proposal, Survey, TaskPlanning, splits_of
from tl_toolkit.sources.listing import Found, Listing, find_fractions, name_some
from tl_toolkit.sources.survey import Splits
from tl_toolkit.sources.tables import NOT_TARGETS, read_header, read_table
from tl_toolkit.tasks.regression.spec import RESERVED, RegressionSection

__all__ = ["Planning"]

_EXPECTED = (
    "A table is expected with a column path, a column of numbers for each target, and split if you "
    "like"
)


class Planning(TaskPlanning):
    """The light half of regression."""

    def survey(self) -> Survey:
        """Looks at the recipe's table; opens no image."""
        path, section = self.data.csv, self.recipe.task
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
        listing, problems = _list_table(source, Splits(), classes)
        if problems:
            raise DataError([problem for _, problem in problems])
        files = tuple(file._replace(split="test") for file in listing.files)
        return Listing(listing.classes, files, columns=listing.columns, stratify="")

    @staticmethod
    def propose(source: Path, place: Path, image_size: int) -> Proposal | None:
        """Recognizes a table whose columns beside path and split hold numbers.

        Args:
            source: The table.
            place: Folder that the recipe will be in.
            image_size: Side of the images.
        """
        from tl_toolkit.plan.starter import remark, write_table

        if not source.is_file():
            return None
        listing, problems = _list_table(source, Splits(validation=0.2), None)
        if problems:
            return None
        columns = ", ".join(listing.columns)
        return Proposal(
            opening=f"{len(listing.files):,} images with numbers: {columns}",
            counts=(),
            task=[
                remark("task:", "one or several numbers for each image"),
                "  kind: regression",
                f"  columns: [{columns}]",
            ],
            data=write_table(source, place, "the images"),
            folder=source.with_suffix(""),
        )


def _list_table(
    path: Path, splits: Splits, columns: Sequence[str] | None
) -> tuple[Listing, list[Found]]:
    """Lists the rows; the "classes" are the columns, in the order of the outputs."""
    header, unreadable = read_header(path, expected=_EXPECTED)
    if unreadable:
        return Listing((), (), stratify=""), [("csv", problem) for problem in unreadable]
    names = [name for name in header if name not in NOT_TARGETS]
    chosen = tuple(columns or names)
    if problems := _check_columns(path, chosen, names):
        return Listing((), (), stratify=""), problems
    listed, wrong = read_table(path, chosen, refuse=_refuse_number, expected=_EXPECTED)
    files, fractions = find_fractions(listed, splits.fractions)
    return Listing(chosen, files, fractions, columns=chosen, stratify=""), wrong


def _check_columns(path: Path, chosen: Sequence[str], names: Sequence[str]) -> list[Found]:
    missing = [name for name in chosen if name not in names]
    if missing:
        near = closest(missing[0], names)
        what = f"{str(path)!r} has no column {name_some(map(repr, missing))}"
        expected = f"Its columns are {name_some(map(repr, names))}{'; ' if near else '.'}{near}"
        return [("csv", Problem("data.csv", what, expected))]
    reserved = [name for name in chosen if name in RESERVED]
    if reserved or not chosen:
        what = f"{str(path)!r} has {'the column ' + reserved[0] if reserved else 'no target'}"
        expected = f"{_EXPECTED}; no target is called {', '.join(RESERVED)}."
        return [("csv", Problem("data.csv", what, expected))]
    return []


def _refuse_number(column: str, value: str) -> str:
    try:
        return "" if math.isfinite(float(value)) else f"{column} {value!r}; expected a number"
    except ValueError:
        return f"{column} {value!r}; expected a number"
