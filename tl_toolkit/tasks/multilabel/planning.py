"""Images of any number of classes: a table with the column `labels`, or a column for each class."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import DataError, Problem, closest, nearest
from tl_toolkit.plan.tasks import Proposal, Survey, TaskPlanning, splits_of
from tl_toolkit.sources.listing import (
    FieldProblem,
    Links,
    Listing,
    SourceFile,
    find_fractions,
    name_some,
)
from tl_toolkit.sources.tables import (
    NOT_TARGETS,
    blame_table,
    describe_cells,
    find_wrong_cells,
    is_slip,
    is_table,
    read_columns,
    read_header,
    read_table,
    refuse_index,
)
from tl_toolkit.tasks.multilabel.spec import MultilabelSection

__all__ = ["Planning", "split_names"]

_EXPECTED = (
    "A table is expected with the columns path and labels (names with | between them), or path and "
    "a column of 0 and 1 for each class; and split if you like"
)


_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
"""Cells of a column for a class, in small letters: pandas writes True or 1.0."""

_SIGNS = (";", ",", "/", "+")
"""What tables have between names, beside the default."""


class Planning(TaskPlanning):
    """The light half of multi-label classification."""

    columns: ClassVar[str] = "path and labels (names with | between them)"

    @property
    def _section(self) -> MultilabelSection:
        section = self.recipe.task
        if not isinstance(section, MultilabelSection):
            raise TypeError(f"task: expected multilabel, got {section.kind}")
        return section

    def survey(self) -> Survey:
        """Reads the recipe's table; opens no image."""
        path, classes = self.data.table_path, self.data.classes
        if path is None:  # refused with the recipe
            return self.as_survey(Listing((), (), stratify=""), ())
        files, names, problems = _read_labels(
            path,
            self._section,
            classes,
            self.data.group or "",
            links=self.data.links,
            names=self.data.column_names,
        )
        chosen = tuple(classes or names)
        if not problems:
            problems = _check(path, classes, names, files, self._section.separator)
        used = set(chosen)
        selected = [_select(file, used, self._section.separator) for file in files]
        paired, fractions = find_fractions(selected, splits_of(self.data).fractions)
        listing = Listing(chosen, paired, fractions, columns=("labels",), stratify="")
        return self.as_survey(listing, problems)

    def list_for_evaluation(self, source: Path, classes: Sequence[str]) -> Listing:
        """Lists a table, all in the split "test".

        A table with names may lack some of the classes if it has no image of them. Other classes
        are left out if the recipe chose some of its table's.

        Args:
            source: The table.
            classes: Classes of the run.

        Raises:
            DataError: It is missing, lacks the column of a class, or names other classes.
        """
        chosen = classes if self.data.classes else None
        files, names, problems = _read_labels(
            source,
            self._section,
            chosen,
            self.data.group or "",
            is_grouped=False,
            links="follow",  # the user names it
            names=self.data.column_names,
        )
        unknown = [] if problems or chosen else [name for name in names if name not in classes]
        if unknown:
            what = f"{str(source)!r} names other classes: {name_some(map(repr, unknown))}"
            expected = f"The classes are {name_some(map(repr, classes))}."
            problems = [("csv", Problem("data.csv", what, expected))]
        if not problems and self._section.labels not in self._header_of(source):
            problems = _check_classes(source, classes, names)
        if problems:
            raise DataError([replace(problem, where="--data") for _, problem in problems])
        used = set(classes)
        selected = (_select(file, used, self._section.separator) for file in files)
        test = tuple(file._replace(split="test") for file in selected)
        return Listing(tuple(classes), test, columns=("labels",), stratify="")

    def _header_of(self, source: Path) -> tuple[str, ...]:
        return read_header(source, expected="", names=self.data.column_names)[0]

    @staticmethod
    def propose(source: Path, place: Path, image_size: int, channels: int = RGB) -> Proposal | None:
        """Recognizes a table with a column `labels`, or with columns of 0 and 1 alone.

        Args:
            source: The table.
            place: Folder that the recipe will be in.
            image_size: Side of the images.
            channels: Channels of the images.

        Raises:
            DataError: Rows of it are wrong.
        """
        from tl_toolkit.plan.starter_lines import name_after, write_table

        if not is_table(source):
            return None
        section = MultilabelSection()
        header, _ = read_header(source, expected="")
        classes: list[str] | None = None
        if section.labels in header:
            section = _choose_separator(source, section)
            reason = f"the column {section.labels}"
            ignored = [repr(name) for name in header if name not in (*NOT_TARGETS, section.labels)]
        else:
            classes, rest = _find_flags(source, header)
            if not classes:
                return None
            if index := refuse_index(source, header):
                raise DataError(index)
            reason = f"columns of 0 and 1: {name_some(classes)}"
            ignored = [f"{name!r} (neither 0 and 1 nor numbers)" for name in rest]
            classes = classes if rest else None
        files, names, problems = _read_labels(source, section, classes)
        if problems := problems or _check(source, classes, names, files, section.separator):
            raise DataError([problem for _, problem in problems])
        counts = dict.fromkeys(classes or names, 0)
        for file in files:
            for name in split_names(file.targets[0], section.separator):
                counts[name] += 1
        splits = Counter(file.split for file in files)
        return Proposal(
            opening=f"{len(files):,} images of any of {len(counts)} classes",
            counts=[(count, repr(name)) for name, count in counts.items()],
            task=_write_task(section),
            data=[
                *write_table(source, place, "the images", splits=splits),
                *_write_classes(classes),
            ],
            images=splits,
            outputs=len(counts),
            folder=name_after(source),
            reason=reason,
            ignored=ignored,
        )


def _write_task(section: MultilabelSection) -> list[str]:
    from tl_toolkit.plan.starter_lines import remark

    words = "any number of classes for each image"
    if section == MultilabelSection():
        return [remark("task: multilabel", words)]
    return [
        remark("task:", words),
        "  kind: multilabel",
        remark(f'  separator: "{section.separator}"', f"between names in {section.labels}"),
    ]


def _write_classes(classes: Sequence[str] | None) -> list[str]:
    from tl_toolkit.plan.starter_lines import quote, remark

    if classes is None:
        return []
    line = f"  classes: [{', '.join(map(quote, classes))}]"
    return [remark(line, "the columns of 0 and 1")]


def split_names(text: str, separator: str) -> list[str]:
    """Returns the names in a cell, each once, in their order.

    Args:
        text: As "cat|dog"; "" for none.
        separator: The text between them.
    """
    return list(dict.fromkeys(name.strip() for name in text.split(separator) if name.strip()))


def _find_flags(source: Path, header: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns a table's columns of 0 and 1, if it has no numbers, and its other columns.

    Raises:
        DataError: They would all hold 0 and 1, were it not for a few cells.
    """
    names = [name for name in header if name not in NOT_TARGETS]
    columns = read_columns(source, [name for name in names if not refuse_index(source, [name])])
    wrong = find_wrong_cells(columns, _refuse_flag)
    flags = [name for name, cells in columns.items() if cells and not wrong[name]]
    slips = {name: wrong[name] for name, cells in columns.items() if is_slip(wrong[name], cells)}
    rest = [name for name in columns if name not in flags and name not in slips]
    if len(flags) + len(slips) < 2 or "label" in rest or any(
        _is_number(cell.value) for name in rest for cell in columns[name]
    ):  # fmt: skip
        return [], rest
    if slips:
        command = f"tltool init --task regression {shlex.quote(str(source))}"
        hint = f"0 or 1 there; if the columns are numbers: {command}"
        raise DataError(describe_cells(source, slips, _refuse_flag, hint))
    return flags, rest


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _find_separator(cells: Sequence[str], separator: str) -> str:
    """Returns what stands between names instead of the separator, or "".

    That is a sign which divides a name into names that stand elsewhere too: a single class whose
    name has a comma in it is none.
    """
    names = {name for text in cells for name in split_names(text, separator)}
    for sign in _SIGNS:
        parts = {name: split_names(name, sign) for name in names if sign in name}
        uses = Counter(part for of_name in parts.values() for part in of_name)
        uses.update(name for name in names if name not in parts)
        if any(of_name[1:] and min(map(uses.__getitem__, of_name)) > 1
               for of_name in parts.values()):  # fmt: skip
            return sign
    return ""


def _choose_separator(source: Path, section: MultilabelSection) -> MultilabelSection:
    """Returns the section with the separator that the table has between names."""
    cells = [cell.value for cell in read_columns(source, [section.labels])[section.labels]]
    sign = _find_separator(cells, section.separator)
    return section.model_copy(update={"separator": sign}) if sign else section


def _write_separator(sign: str) -> str:
    """Returns the override as a shell and YAML both take it."""
    return f"task.separator='\"{sign}\"'"


def _check_separator(path: Path, files: Sequence[SourceFile], separator: str) -> list[FieldProblem]:
    cells = [file.targets[0] for file in files]
    sign = _find_separator(cells, separator)
    if not sign:
        return []
    example = next(name for text in cells for name in split_names(text, separator)
                   if sign in name)  # fmt: skip
    what = f"{str(path)!r} has the class {example!r}"
    expected = (
        f"Names in {sign!r} stand alone elsewhere; task.separator = {separator!r} is expected "
        "between names."
    )
    return [("csv", Problem("data.csv", what, expected, _write_separator(sign)))]


def _read_labels(
    path: Path,
    section: MultilabelSection,
    classes: Sequence[str] | None,
    group: str = "",
    *,
    is_grouped: bool = True,
    links: Links = "refuse",
    names: Mapping[str, str] = MappingProxyType({}),
) -> tuple[list[SourceFile], list[str], list[FieldProblem]]:
    """Reads either form of table, whose column of groups is no class.

    Args:
        path: The table.
        section: The names of its columns.
        classes: The classes that are used; None for all.
        group: The column of groups; "" for none.
        is_grouped: Whether each image needs a group.
        links: As in `read_table`.
        names: As in `read_table`.

    Returns:
        The files, whose target is the names of their classes; all classes; and the problems.
    """
    header, unreadable = read_header(path, expected=_EXPECTED, names=names)
    if unreadable:
        return [], [], blame_table(unreadable)
    separator = section.separator
    if section.labels in header:
        files, problems = read_table(
            path,
            (section.labels,),
            refuse=_accept,
            expected=_EXPECTED,
            group=group * is_grouped,
            links=links,
            names=names,
        )
        problems = problems or _check_separator(path, files, separator)
        held = {name for file in files for name in split_names(file.targets[0], separator)}
        return files, sorted(held), problems
    left_out = {*NOT_TARGETS, *filter(None, [group])}
    flags = [name for name in header if name not in left_out]
    if classes is None and (index := refuse_index(path, flags)):
        return [], [], [("csv", index)]
    wanted = [name for name in flags if classes is None or name in classes]
    files, problems = read_table(
        path,
        wanted,
        refuse=_refuse_flag,
        expected=_EXPECTED,
        group=group * is_grouped,
        links=links,
        names=names,
    )
    problems = _check_columns(path, wanted, files, section) or problems
    return [_join_flags(file, wanted, separator) for file in files], flags, problems


def _check_columns(
    path: Path, names: Sequence[str], files: Sequence[SourceFile], section: MultilabelSection
) -> list[FieldProblem]:
    """Refuses columns that are no classes as a whole, instead of each of their cells."""
    flags = {name: {file.targets[place] for file in files} for place, name in enumerate(names)}
    without_flags = [
        name for name, values in flags.items() if files and not any(map(_is_flag, values))
    ]
    if without_flags:
        column = without_flags[0]
        if section.labels != MultilabelSection().labels:  # the recipe names it
            what = f"{str(path)!r} has no column {section.labels!r}"
            near = nearest(section.labels, names)
            expected = f"Its columns are {name_some(map(repr, names))}."
            hint = f"task.labels={near}" if near else ""
            return [("task.labels", Problem("task.labels", what, expected, hint))]
        what = f"{str(path)!r} has no column {section.labels!r}, and no 0 and 1 in {column!r}"
        hint = "data.classes with the columns that are classes"
        if len(names) == 1:
            hint = f"task={{kind: multilabel, labels: {column}}}"
        return [("csv", Problem("data.csv", what, f"{_EXPECTED}.", hint))]
    joined = [name for name in names if section.separator in name]
    if joined:
        what = f"{str(path)!r} has the column {joined[0]!r}"
        expected = f"No class has the separator {section.separator!r} in its name."
        return [("csv", Problem("data.csv", what, expected, _write_separator(";")))]
    return []


def _check_classes(
    path: Path, classes: Sequence[str] | None, names: Sequence[str]
) -> list[FieldProblem]:
    """Refuses classes that the table does not know, and fewer than two."""
    known = set(names)
    missing = [name for name in classes or () if name not in known]
    if missing:
        near = closest(missing[0], names)
        what = f"{str(path)!r} has no class {name_some(map(repr, missing))}"
        expected = f"Its classes are {name_some(map(repr, names))}{'; ' if near else '.'}{near}"
        return [("classes", Problem("data.classes", what, expected))]
    number = len(classes or names)
    if number < 2:
        what = f"{str(path)!r} names {number} class{'' if number == 1 else 'es'}"
        return [("csv", Problem("data.csv", what, "At least 2 classes are needed."))]
    return []


def _check(
    path: Path,
    classes: Sequence[str] | None,
    names: Sequence[str],
    files: Sequence[SourceFile],
    separator: str,
) -> list[FieldProblem]:
    """Refuses also classes that no training image is of: they could not be learned."""
    if problems := _check_classes(path, classes, names):
        return problems
    training = [file for file in files if file.split in (None, "train")]
    held = {name for file in training for name in split_names(file.targets[0], separator)}
    empty = [name for name in classes or names if name not in held]
    if not empty:
        return []
    what = f"{str(path)!r} has no image of {name_some(map(repr, empty))} to train from"
    return [("csv", Problem("data.csv", what, "Each class needs an image at least."))]


def _accept(column: str, value: str) -> str:
    return ""


def _is_flag(value: str) -> bool:
    return value.lower() in _FLAGS


def _refuse_flag(column: str, value: str) -> str:
    return "" if _is_flag(value) else f"column {column!r} = {value!r}; expected 0 or 1"


def _join_flags(file: SourceFile, names: Sequence[str], separator: str) -> SourceFile:
    held = [
        name for name, flag in zip(names, file.targets, strict=True) if _FLAGS.get(flag.lower())
    ]
    return file._replace(targets=(separator.join(held),))


def _select(file: SourceFile, classes: Set[str], separator: str) -> SourceFile:
    """Returns a file with only those of its classes that are used."""
    names = split_names(file.targets[0], separator)
    return file._replace(targets=(separator.join(name for name in names if name in classes),))
