"""Parquet files with images in them, or with the names of images, read by pyarrow.

Listing reads no image: the column that holds them is left out. pyarrow is imported where such a
file is named, and nowhere else.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.recipe.remote import name_object
from tl_toolkit.sources.table_rows import RawRow, find_shards, name_member

__all__ = [
    "SUFFIX",
    "find_files",
    "has_ending",
    "read_header",
    "read_images",
    "read_rows",
    "recognizes",
]

SUFFIX = ".parquet"
_MAX_ROWS = 20_000_000
_BATCH = 16
"""Images that are in memory at a time while a file is read."""

_PATHS = ("path", "file_name")
_SEPARATOR = "|"
_EXPECTED = "A Parquet file is expected with images (bytes, or bytes and path) and targets."
_HINT = "pip install 'tl-toolkit[parquet]'"


def has_ending(name: str) -> bool:
    """Returns whether a name ends as that of a Parquet file does.

    Args:
        name: A path or an address.
    """
    return name.lower().endswith(SUFFIX)


def recognizes(path: Path) -> bool:
    """Returns whether it is a Parquet file, or a folder of them; see `TableReader`.

    Args:
        path: The file or folder.
    """
    return has_ending(path.name) or bool(find_shards(path, f"*{SUFFIX}"))


def find_files(path: Path) -> list[tuple[Path, str]]:
    """Returns the files that a table is divided into, and the split of each.

    Args:
        path: The file, whose split is "", or the folder.
    """
    return find_shards(path, f"*{SUFFIX}") or [(path, "")]


def read_header(path: Path, expected: str) -> tuple[tuple[str, ...], list[Problem]]:
    """Returns the names of the columns; see `TableReader`.

    Args:
        path: The file or folder.
        expected: The expected content, for messages.
    """
    rows, problems = read_rows(path, (), expected)
    return tuple(rows[0].cells) if rows else ("path",), problems


def read_rows(
    path: Path, header: tuple[str, ...], expected: str
) -> tuple[list[RawRow], list[Problem]]:
    """Returns the rows of all files; see `TableReader`.

    Args:
        path: The file or folder.
        header: The names of the columns.
        expected: The expected content, for messages.
    """
    rows: list[RawRow] = []
    for file, split in find_files(path):
        try:
            if not file.is_file():
                raise DataError(Problem("", f"{name_object(str(file))!r} is no file"))
            state = os.stat(file)
            rows += _read(file, split, state.st_size, state.st_mtime_ns)
        except DataError as error:
            return [], [
                Problem("data.csv", one.what, _EXPECTED, one.hint) for one in error.problems
            ]
    return rows, []


def read_images(path: Path, rows: Collection[int]) -> Iterator[tuple[int, bytes]]:
    """Yields the encoded images of some rows, with the rows, a few at a time.

    Args:
        path: The file.
        rows: The rows, from 1; one without bytes is left out.

    Raises:
        DataError: The file cannot be read.
    """
    with _Opened(path) as file:
        column = _find_images(file.schema_arrow)
        wanted, first = set(rows), 1
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if not wanted.isdisjoint(range(first, first + count)):
                place = first
                for batch in file.iter_batches(_BATCH, [group], [column]):
                    for value in batch.column(0):
                        data = _as_bytes(value) if place in wanted else None
                        if data:
                            yield place, data
                        place += 1
            first += count


class _Opened:
    """Opens a file with pyarrow, whose errors become a DataError, and closes it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def __enter__(self) -> Any:
        try:
            from pyarrow import parquet
        except ImportError as error:
            what = f"{str(self._path)!r} is a Parquet file, which the package pyarrow reads"
            raise DataError(Problem("", what, _EXPECTED, _HINT)) from error
        try:
            self._file = parquet.ParquetFile(self._path)
        except Exception as error:
            self.__exit__(type(error), error, None)
            raise
        return self._file

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._file is not None:
            self._file.close()
        import pyarrow

        if isinstance(error, OSError | pyarrow.ArrowException):
            name, reason = name_object(str(self._path)), str(error).splitlines()[0][:200]
            what = f"{name!r} cannot be read: {reason}"
            raise DataError(Problem("", what, _EXPECTED)) from error


@functools.lru_cache(maxsize=64)
def _read(path: Path, split: str, size: int, changed: int) -> tuple[RawRow, ...]:
    """Reads the columns that are no images once for each state of a file."""
    with _Opened(path) as file:
        count = file.metadata.num_rows
        if count > _MAX_ROWS:
            what = f"{name_object(str(path))!r} has {count:,} rows; at most {_MAX_ROWS:,} are read"
            raise DataError(Problem("", what))
        schema = file.schema_arrow
        image = _find_images(schema)
        features = _read_features(schema.metadata or {})
        names = [field.name for field in schema if field.name != image and _is_text(field.type)]
        own = next((name for name in _PATHS if name in names), "")
        if not image and not own:
            what = f"has no column of images; it has {', '.join(schema.names)}"
            raise DataError(Problem("", f"{name_object(str(path))!r} {what}"))
        read = zip(names, file.read(names).columns, strict=True)
        try:
            columns = {
                name: [_as_text(value, features.get(name, ())) for value in column.to_pylist()]
                for name, column in read
            }
        except ValueError as error:
            raise DataError(Problem("", f"{name_object(str(path))!r} {error}")) from error
    return tuple(_build_rows(path, count, "" if image else own, split, columns))


def _build_rows(
    path: Path, count: int, own: str, split: str, columns: Mapping[str, Sequence[str]]
) -> Iterator[RawRow]:
    names = [name for name in columns if name not in _PATHS]
    for place in range(count):
        cells = {"path": columns[own][place] if own else "image"}
        cells |= {name: columns[name][place] for name in names}
        if split and "split" not in columns:
            cells["split"] = split
        yield RawRow(place + 1, cells, path, "" if own else name_member(path, place + 1))


def _find_images(schema: Any) -> str:
    """Returns the name of the column of encoded images, "" for none.

    Of several columns of bytes it is the one that Hugging Face notes as images, that is called so,
    that has the bytes in a struct, or the first.
    """
    import pyarrow.types as kinds

    noted = [
        name
        for name, feature in _read_notes(schema.metadata or {}).items()
        if isinstance(feature, dict) and feature.get("_type") == "Image"
    ]
    ranks: dict[str, tuple[bool, bool, bool]] = {}
    for field in schema:
        name, kind = str(field.name), field.type
        is_struct = kinds.is_struct(kind)
        if is_struct:
            inner = kind.get_field_index("bytes")
            kind = kind.field(inner).type if inner >= 0 else kind
        if kinds.is_binary(kind) or kinds.is_large_binary(kind):
            ranks.setdefault(name, (name in noted, name == "image", is_struct))
    return max(ranks, key=lambda name: ranks[name], default="")


def _is_text(kind: Any) -> bool:
    """Returns whether values of a type are cells: text, numbers, truths, and lists of them."""
    import pyarrow.types as kinds

    if kinds.is_list(kind) or kinds.is_large_list(kind):
        kind = kind.value_type
    kind = kind.value_type if kinds.is_dictionary(kind) else kind
    checks = (kinds.is_string, kinds.is_large_string, kinds.is_integer, kinds.is_floating)
    return any(check(kind) for check in (*checks, kinds.is_boolean))


def _read_features(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Returns the names of the classes of columns that Hugging Face has written as numbers."""
    found = {}
    try:
        for name, feature in _read_notes(metadata).items():
            inner = feature if "names" in feature else feature.get("feature") or {}
            names = inner.get("names")
            if isinstance(names, list) and all(isinstance(word, str) for word in names):
                found[name] = tuple(names)
    except (TypeError, AttributeError):
        return {}
    return found


def _read_notes(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Returns what Hugging Face notes of each column, nothing where it does not."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _as_text(value: Any, names: Sequence[str]) -> str:
    """Returns a value as a cell: that of a class by its name, and a list with signs between.

    Raises:
        ValueError: A name in a list holds that sign.
    """
    if value is None:
        return ""
    if isinstance(value, list):
        texts = [_as_text(each, names) for each in value]
        if any(_SEPARATOR in text for text in texts):
            raise ValueError(f"has a name with {_SEPARATOR!r} in it, in {texts!r}"[:200])
        return _SEPARATOR.join(texts)
    if names and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else ""  # -1 stands for no label
    return repr(value) if isinstance(value, float) else str(value)


def _as_bytes(value: Any) -> bytes | None:
    data = value.as_py()
    data = data.get("bytes") if isinstance(data, dict) else data
    return data if isinstance(data, bytes) else None
