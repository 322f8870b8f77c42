"""TFRecord files of tf.train.Example with encoded images, and the folders that tfds prepares.

Their layout is walked here: listing then takes no TensorFlow, and reads keys and targets, not the
images between them. Compressed files are unpacked as they are walked, by what they begin with.
"""

from __future__ import annotations

import functools
import os
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.recipe.remote import name_object
from tl_toolkit.sources.listing import MAX_BYTES
from tl_toolkit.sources.table_rows import RawRow, find_shards, name_member, refuse_file
from tl_toolkit.sources.tfexamples import (
    EXPECTED,
    RecordFile,
    Span,
    Values,
    open_records,
    read_example,
    walk_records,
)

__all__ = ["find_files", "has_ending", "read_header", "read_images", "read_rows", "recognizes"]

_SUFFIXES = (".tfrecord", ".tfrecords", ".tfrecord.gz", ".tfrecords.gz")
_SHARD = re.compile(r"-\d{5}-of-\d{5}(\.gz)?$")
_PATTERNS = (
    "*-of-[0-9][0-9][0-9][0-9][0-9]",
    "*-of-[0-9][0-9][0-9][0-9][0-9].gz",
    *(f"*{suffix}" for suffix in _SUFFIXES),
)
_MAX_ROWS = 20_000_000
_MOST_VALUES = 1000
"""Values of a list that is a cell: more are pixels or the like."""

_MAGICS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"\x93NUMPY")
_IMAGES = ("image/encoded", "image")
_LABELS = ("label", "image/class/text", "image/class/label")
"""Keys of the class of an image, in the order in which they are taken."""

_SEPARATOR = "|"
_BLOCK = 1 << 16


def has_ending(name: str) -> bool:
    """Returns whether a name ends as that of a TFRecord file does.

    Args:
        name: A path or an address.
    """
    return name.endswith(_SUFFIXES) or _SHARD.search(name) is not None


def recognizes(path: Path) -> bool:
    """Returns whether it is a TFRecord file by its name, or a folder of them; see `TableReader`.

    Args:
        path: The file or folder.
    """
    return has_ending(path.name) if path.is_file() else bool(_find_shards(path))


def find_files(path: Path) -> list[tuple[Path, str]]:
    """Returns the files that a table is divided into, and the split of each.

    Args:
        path: The file, whose split is "", or the folder.
    """
    return _find_shards(path) or [(path, "")]


def _find_shards(path: Path) -> list[tuple[Path, str]]:
    return next(filter(None, (find_shards(path, pattern) for pattern in _PATTERNS)), [])


def read_header(path: Path, expected: str) -> tuple[tuple[str, ...], list[Problem]]:
    """Returns the names of the columns; see `TableReader`.

    Args:
        path: The file or folder.
        expected: The expected content, for messages.
    """
    rows, problems = read_rows(path, (), expected)
    return tuple(dict.fromkeys(name for row in rows for name in row.cells)) or ("path",), problems


def read_rows(
    path: Path, header: tuple[str, ...], expected: str
) -> tuple[list[RawRow], list[Problem]]:
    """Returns the examples of all files; see `TableReader`.

    Args:
        path: The file or folder.
        header: The names of the columns.
        expected: The expected content, for messages.
    """
    rows: list[RawRow] = []
    for file, split in find_files(path):
        try:
            state = os.stat(file)
            rows += _read(file, split, state.st_size, state.st_mtime_ns)
        except OSError as error:
            what = f"{name_object(str(file))!r} cannot be read: {error.strerror}"
            return [], [Problem("data.csv", what, EXPECTED)]
        except DataError as error:
            return [], [Problem("data.csv", one.what, EXPECTED, one.hint) for one in error.problems]
    return rows, []


def read_images(path: Path, rows: Collection[int]) -> Iterator[tuple[int, bytes]]:
    """Yields the encoded images of some examples, with their places.

    Args:
        path: The file.
        rows: The places, from 1; an example without an image is left out.

    Raises:
        DataError: The file cannot be read.
    """
    wanted = set(rows)
    with open_records(path) as data:
        image = ""
        for place, record in enumerate(walk_records(data), 1):
            if image and place not in wanted:
                continue
            values = read_example(data, record)
            image = image or _find_image(data, values)
            for span in values.get(image, [])[:1] if place in wanted else ():
                if isinstance(span, Span) and 0 < span.end - span.start <= MAX_BYTES:
                    yield place, data.read(span)


@functools.lru_cache(maxsize=4096)  # sets have a thousand shards, and are asked for three times
def _read(path: Path, split: str, size: int, changed: int) -> tuple[RawRow, ...]:
    """Reads the targets of all examples once for each state of a file."""
    rows: list[RawRow] = []
    with open_records(path) as data:
        image = ""
        for place, record in enumerate(walk_records(data), 1):
            if place > _MAX_ROWS:
                raise ValueError(f"has more than {_MAX_ROWS:,} examples")
            values = read_example(data, record)
            image = image or _find_image(data, values)
            cells = {"path": "image"}
            cells |= {key: _as_text(data, values[key]) for key in sorted(values) if key != image}
            label = next((cells[key] for key in _LABELS if cells.get(key)), None)
            if label is not None:
                cells["label"] = label
            if split and "split" not in cells:
                cells["split"] = split
            rows.append(RawRow(place, cells, path, name_member(path, place)))
    return tuple(_name_classes(path.parent, rows))


def _name_classes(folder: Path, rows: list[RawRow]) -> list[RawRow]:
    """Puts names in the place of numbers of classes, where tfds has written them beside files."""
    keys = {key for row in rows[:1] for key in row.cells if "/" not in key}
    names = {}
    for key in keys:
        file = folder / f"{key}.labels.txt"
        if file.is_file() and not refuse_file(file):
            names[key] = _read_names(file)
            lists = any(_SEPARATOR in (row.cells.get(key) or "") for row in rows)
            joined = [word for word in names[key] if _SEPARATOR in word]
            if lists and joined:
                what = f"has a name with {_SEPARATOR!r} in it: {joined[0]!r}"
                raise DataError(Problem("", f"{name_object(str(file))!r} {what}"))
    if not names:
        return rows

    def name(key: str, text: str) -> str:
        words = names.get(key, [])
        numbers = text.split(_SEPARATOR) if words else []
        if not numbers or not all(number.isdecimal() for number in numbers):
            return "" if words and text.startswith("-") else text  # -1 stands for no label
        return _SEPARATOR.join(words[int(it)] if int(it) < len(words) else it for it in numbers)

    return [
        row._replace(cells={key: name(key, text or "") for key, text in row.cells.items()})
        for row in rows
    ]


def _read_names(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(Problem("", f"{name_object(str(file))!r} is not UTF-8")) from error


def _find_image(data: RecordFile, values: Mapping[str, Values]) -> str:
    """Returns the key of the encoded image: the first whose bytes begin as those of one.

    Raises:
        ValueError: There is none.
    """
    for key in sorted(values, key=lambda key: (key not in _IMAGES, key)):
        span = values[key][0] if values[key] else None
        if isinstance(span, Span):
            start = data.read(Span(span.start, min(span.end, span.start + 16)))
            # Of a text that begins as a BMP file does, no bytes are 0.
            if start.startswith(_MAGICS) or (start.startswith(b"BM") and start[6:10] == bytes(4)):
                return key
    keys = ", ".join(sorted(values)) or "none"
    raise ValueError(f"has no encoded image in its first example, whose keys are {keys}")


def _as_text(data: RecordFile, values: Values) -> str:
    """Returns the values of a key as a cell; of an array, or of bytes that are no text, "".

    Raises:
        ValueError: One of several names holds the sign that is put between them.
    """
    if len(values) > _MOST_VALUES:
        return ""
    texts = []
    for value in values:
        if isinstance(value, Span):
            if value.end - value.start > _BLOCK:
                return ""
            try:
                texts.append(data.read(value).decode())
            except UnicodeDecodeError:
                return ""
        else:
            texts.append(_spell(value) if isinstance(value, float) else str(value))
    if len(texts) > 1 and any(_SEPARATOR in text for text in texts):
        raise ValueError(f"has a name with {_SEPARATOR!r} in it, in {texts!r}"[:200])
    return _SEPARATOR.join(texts)


def _spell(value: float) -> str:
    """Returns the shortest text of a float32."""
    packed = struct.pack("<f", value)
    texts = (f"{value:.{digits}g}" for digits in range(6, 10))
    return next((text for text in texts if struct.pack("<f", float(text)) == packed), repr(value))
