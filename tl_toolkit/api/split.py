"""The verb `split_data`: a table of splits for a folder or a table of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tl_toolkit.api.progress import handling
from tl_toolkit.errors import DataError, Problem, RecipeError, closest
from tl_toolkit.events import Handler, report_counts
from tl_toolkit.plan.sets import ImageSet, is_listed, list_folder, list_table
from tl_toolkit.recipe.remote import name_object
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.sources.addresses import find_source
from tl_toolkit.sources.listing import Links, is_lost, name_some
from tl_toolkit.sources.tables import NOT_TARGETS, read_columns, read_header, read_splits

if TYPE_CHECKING:
    from tl_toolkit.audit.inspect import InspectedFile
    from tl_toolkit.audit.split import DataSplit

__all__ = ["EXIF", "split_data"]

EXIF = "exif"
"""The word for the time at which a photo was taken, in place of a column."""


def split_data(
    source: str | Path,
    output: str | Path | None = None,
    *,
    validation: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    exact: bool = False,
    group: str | None = None,
    near: bool = False,
    time: str | None = None,
    stratify: str = "label",
    follow_links: bool = False,
    overwrite: bool = False,
    progress: Handler | bool = False,
) -> DataSplit:
    """Splits a folder of class folders, or a table, into train, validation and test, as a table.

    The split of an image follows from a hash of its bytes (or of its group's name) and the seed
    alone, so that images that are added move no others. Equal images stay together. A table that
    exists is continued: images that it names keep their splits, whatever the other arguments are.
    Images that cannot be read are left out, and named in the notes.

    Args:
        source: A folder with a folder per class, or with images alone; or a table with the column
            path, whose other columns are kept. Of an address on an object store, the table that is
            written names addresses, which `data.links: follow` takes.
        output: The table to write, CSV, which recipes take as `data.csv`; None writes none.
        validation: The share of validation, 0 to below 1.
        test: The share of test; both together below 1.
        seed: Another seed, other splits.
        exact: Meet the shares of each class to the image, where a hash meets them nearly.
        group: Column of the table that names what images have in common: they stay together.
        near: Keep images together that look the same.
        time: Column of times, or "exif": the oldest images train, the newest are the test.
        stratify: Column of the table whose values are the classes.
        follow_links: In a folder, use linked folders, and linked files outside it; else they are
            left out, and counted in the notes.
        overwrite: Begin anew where `output` exists.
        progress: As for `tl.finetune`; receives the number of images inspected.

    Returns:
        The split: `images`, `count()`, `tabulate()`, `notes`.

    Raises:
        DataError: There are no images, they have splits already, rows are wrong, or a time is
            missing.
        RecipeError: Arguments do not go together.
        OutputError: `output` cannot be written.
    """
    fractions = {"validation": validation, "test": test}
    source = find_source(source, "SOURCE")
    _check(source, fractions, group=group, time=time, exact=exact, label=stratify)
    images = _list(source, group or "", stratify, "follow" if follow_links else "refuse")
    known = {} if output is None or overwrite else _read_known(Path(output))
    from tl_toolkit.audit.inspect import inspect_files
    from tl_toolkit.audit.split import SplitSettings, build_split

    with handling(progress) as handle:
        files = inspect_files(
            images.listing.files,
            images.labels,
            channels=images.channels,
            progress=report_counts(handle, "images_inspected"),
        )
    if near and any(file.content.bands for file in files):
        what = "near: arrays and images of bands are compared by their bytes alone"
        raise RecipeError(Problem("", what, "Copies of equal bytes stay together without it."))
    columns, values = _read_values(source, images, stratify)
    split = build_split(
        files,
        columns,
        values,
        SplitSettings(fractions, seed, exact, group or "", near),
        times=_read_times(files, columns, values, time) if time else (),
        known=known,
    )
    if lost := [entry.path for entry in images.listing.ignored if is_lost(entry)]:
        note = f"{len(lost)} links are left out: {name_some(lost)}. Try: --follow-links"
        split = replace(split, notes=(note, *split.notes))
    if images.note:
        split = replace(split, notes=(f"a recipe for this table: {images.note}", *split.notes))
    if output is not None:
        text = split.format(Path(output).absolute().parent)
        write_atomically(Path(output), text.encode("utf-8", "surrogateescape"))
    return split


def _check(
    source: Path,
    fractions: Mapping[str, float],
    *,
    group: str | None,
    time: str | None,
    exact: bool,
    label: str,
) -> None:
    """Refuses a source that is missing, and arguments that do not go together."""
    if not source.exists():
        expected = "A folder of images or a table (CSV) is expected."
        raise DataError(Problem(str(source), "does not exist", expected))
    if (
        not all(0 <= share < 1 for share in fractions.values())
        or not 0 < sum(fractions.values()) < 1
    ):
        what = f"validation = {fractions['validation']:g}, test = {fractions['test']:g}"
        expected = "Shares of 0 or more are expected, above 0 and below 1 together."
        raise RecipeError(Problem("", what, expected, "--validation 0.2 --test 0.1"))
    if exact and time:
        what = "exact and time: the newest images are the test, whatever their classes"
        raise RecipeError(Problem("", what, "One of the two is expected."))
    if group and not is_listed(source, label):
        what = f"group = {group!r}: a folder has no columns"
        raise RecipeError(Problem("", what, "", "--near, or a table with that column"))


def _list(source: Path, group: str, label: str, links: Links) -> ImageSet:
    if is_listed(source, label):
        return list_table(source, group=group, label=label, links=links)
    images = list_folder(source, links=links)
    if splits := {file.split for file in images.listing.files if file.split}:
        what = f"holds splits already: {', '.join(sorted(splits))}"
        name = name_object(str(source))
        raise DataError(Problem(name, what, "", f"{name}/train, or a table"))
    return images


def _read_values(
    source: Path, images: ImageSet, label: str
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns the columns of the table beside path and split, and the values of each image."""
    if not is_listed(source, label):
        if not images.listing.stratify:
            return (), [()] * len(images.listing.files)
        return ("label",), [(label,) for label in images.labels]
    header, _ = read_header(source, expected="")
    names = tuple(name for name in header if name not in NOT_TARGETS)
    cells = read_columns(source, names)
    rows = zip(*([cell.value for cell in cells[name]] for name in names), strict=True)
    return names, list(rows) if names else [()] * len(images.listing.files)


def _read_times(
    files: Sequence[InspectedFile],
    columns: Sequence[str],
    values: Sequence[Sequence[str]],
    time: str,
) -> list[float]:
    """Returns when each image was taken; 0 for one that cannot be read."""
    if time in columns:
        texts = [row[columns.index(time)] for row in values]
    elif time == EXIF:
        texts = [file.content.taken for file in files]
    else:
        near = closest(time, columns)
        expected = f"A column of the table is expected, or {EXIF}{'; ' if near else '.'}{near}"
        raise RecipeError(Problem("", f"time = {time!r}: no such column", expected))
    usable = [index for index, file in enumerate(files) if file.is_usable]
    missing = [files[index].path for index in usable if not texts[index]]
    if missing:
        what = f"{len(missing)} images have no time: {name_some(missing)}"
        raise DataError(Problem("", what, hint="a table with a column of times, --time COLUMN"))
    from tl_toolkit.images.placing import parse_times

    try:
        numbers = parse_times([texts[index] for index in usable])
    except ValueError as error:
        expected = "Dates as 2024-05-01 or 2024-05-01T12:00:00 are expected, or numbers."
        raise DataError(Problem("", f"time = {time!r}: {str(error)!r}", expected)) from None
    known = dict(zip(usable, numbers, strict=True))
    return [known.get(index, 0.0) for index in range(len(files))]


def _read_known(table: Path) -> dict[str, str]:
    """Returns the splits that an earlier table names, by path; none if there is no table."""
    if not table.is_file():
        return {}
    header, problems = read_header(table, expected="A table of an earlier split is expected")
    if not problems and not {"path", "split"} <= set(header):
        what = f"{str(table)!r} is no table of splits: it has no column path or no column split"
        problems = [Problem("", what, "", "another name, or --overwrite")]
    if problems:
        raise DataError(problems)
    return read_splits(table)
