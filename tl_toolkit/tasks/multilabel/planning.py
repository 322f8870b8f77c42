"""Images of any number of classes: a table with the column `labels`, or a column for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tl_toolkit.errors import DataError, Problem, closest
from tl_toolkit.plan.tasks import Proposal, Survey, TaskPlanning, splits_of
from tl_toolkit.sources.listing import Found, Listing, SourceFile, find_fractions, name_some
from tl_toolkit.sources.survey import Splits
from tl_toolkit.sources.tables import NOT_TARGETS, read_header, read_table
from tl_toolkit.tasks.multilabel.spec import MultilabelSection

__all__ = ["Planning"]

_EXPECTED = (
    "A table is expected with the columns path and labels (names with | between them), or path and "
    "a column of 0 and 1 for each class; and split if you like"
)


class Planning(TaskPlanning):
    """The light half of multi-label classification."""

    @property
    def _section(self) -> MultilabelSection:
        section = self.recipe.task
        if not isinstance(section, MultilabelSection):
            raise TypeError(f"task: expected multilabel, got {section.kind}")
        return section

    def survey(self) -> Survey:
        """Looks at the recipe's table; opens no image."""
        path = self.data.csv
        if path is None:  # refused with the recipe
            return self.as_survey(Listing((), (), stratify=""), ())
        return self.as_survey(
            *_list_table(path, splits_of(self.data), self._section, self.data.classes)
        )

    def list_for_evaluation(self, source: Path, classes: Sequence[str]) -> Listing:
        """Lists a table, all in the split "test".

        Args:
            source: The table.
            classes: Of the run; it may lack some.

        Raises:
            DataError: It is missing, or names other classes.
        """
        listing, problems = _list_table(source, Splits(), self._section, classes, partial=True)
        if problems:
            raise DataError([problem for _, problem in problems])
        files = tuple(file._replace(split="test") for file in listing.files)
        return Listing(tuple(classes), files, columns=listing.columns, stratify="")

    @staticmethod
    def propose(source: Path, place: Path, image_size: int) -> Proposal | None:
        """Recognizes a table with a column `labels`.

        Args:
            source: The table.
            place: Folder that the recipe will be in.
            image_size: Side of the images.

        Raises:
            DataError: Rows of it are wrong.
        """
        from tl_toolkit.plan.starter import remark, write_table

        section = MultilabelSection()
        if not source.is_file() or section.labels not in read_header(source, expected="")[0]:
            return None
        listing, problems = _list_table(source, Splits(validation=0.2), section, None)
        if problems:
            raise DataError([problem for _, problem in problems])
        counts = dict.fromkeys(listing.classes, 0)
        for file in listing.files:
            for name in split_names(file.targets[0], section.separator):
                counts[name] += 1
        return Proposal(
            opening=f"{len(listing.files):,} images of any of {len(counts)} classes",
            counts=[(count, repr(name)) for name, count in counts.items()],
            task=[remark("task: multilabel", "any number of classes for each image")],
            data=write_table(source, place, "the images"),
            folder=source.with_suffix(""),
        )


def split_names(text: str, separator: str) -> list[str]:
    """Returns the names in a cell, each once, in their order.

    Args:
        text: As "cat|dog"; "" for none.
        separator: What stands between them.
    """
    return list(dict.fromkeys(name.strip() for name in text.split(separator) if name.strip()))


def _list_table(
    path: Path,
    splits: Splits,
    section: MultilabelSection,
    classes: Sequence[str] | None,
    *,
    partial: bool = False,
) -> tuple[Listing, list[Found]]:
    header, unreadable = read_header(path, expected=_EXPECTED)
    if unreadable:
        return Listing((), (), stratify=""), [("csv", problem) for problem in unreadable]
    if section.labels in header:
        listed, problems = read_table(
            path, (section.labels,), refuse=lambda column, value: "", expected=_EXPECTED
        )
        names = sorted(
            {name for file in listed for name in split_names(file.targets[0], section.separator)}
        )
        problems += [] if problems else _check_names(path, names, classes, partial=partial)
    else:
        names = [name for name in header if name not in NOT_TARGETS]
        problems = _check_names(path, names, classes, partial=partial)
        wanted = [name for name in classes or names if name in names]
        listed, wrong = read_table(path, wanted, refuse=_refuse_flag, expected=_EXPECTED)
        problems += wrong
        listed = [_join_flags(file, wanted, section.separator) for file in listed]
    chosen = tuple(classes or names)
    files, fractions = find_fractions(
        [_select(file, chosen, section.separator) for file in listed], splits.fractions
    )
    return Listing(chosen, files, fractions, columns=("labels",), stratify=""), problems


def _check_names(
    path: Path, names: Sequence[str], classes: Sequence[str] | None, *, partial: bool
) -> list[Found]:
    missing = [] if partial else [name for name in classes or () if name not in names]
    if missing:
        near = closest(missing[0], names)
        what = f"{str(path)!r} has no image of {name_some(map(repr, missing))}"
        expected = f"Its classes are {name_some(map(repr, names))}{'; ' if near else '.'}{near}"
        return [("classes", Problem("data.classes", what, expected))]
    if partial:
        others = [name for name in names if name not in (classes or ())]
        if others:
            what = f"{str(path)!r} names other classes: {name_some(map(repr, others))}"
            expected = f"The classes are {name_some(map(repr, classes or ()))}."
            return [("csv", Problem("--data", what, expected))]
        return []
    if len(classes or names) < 2:
        what = f"{str(path)!r} names {len(names)} class{'' if len(names) == 1 else 'es'}"
        return [("csv", Problem("data.csv", what, "At least 2 classes are needed."))]
    return []


def _refuse_flag(column: str, value: str) -> str:
    return "" if value in ("0", "1") else f"{column} {value!r}; expected 0 or 1"


def _join_flags(file: SourceFile, names: Sequence[str], separator: str) -> SourceFile:
    flags: Iterator[tuple[str, str]] = zip(names, file.targets, strict=True)
    return file._replace(targets=(separator.join(name for name, flag in flags if flag == "1"),))


def _select(file: SourceFile, classes: Sequence[str], separator: str) -> SourceFile:
    """Leaves the classes in that are used."""
    names = split_names(file.targets[0], separator)
    return file._replace(targets=(separator.join(name for name in names if name in classes),))
