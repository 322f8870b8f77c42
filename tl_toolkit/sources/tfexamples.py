"""The layout of TFRecord files, and of tf.train.Example in them."""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.recipe.remote import name_object
from tl_toolkit.sources.packed import PackedRecords, is_packed

__all__ = [
    "EXPECTED",
    "RecordFile",
    "Span",
    "Values",
    "open_records",
    "read_example",
    "walk_records",
]

EXPECTED = "TFRecord files are expected, of tf.train.Example with an encoded image and targets."
_MASK = 0xA282EAD8  # of the checksums, as TensorFlow's writer has it
_BLOCK = 1 << 16
_FIXED = {1: 8, 5: 4}
"""Bytes of fields of fixed length, by their kind."""


class Span(NamedTuple):
    """Bytes of a file that are not read yet.

    Attributes:
        start: The first of them.
        end: The first after them.
    """

    start: int
    end: int


Values = list[Span] | list[float] | list[int]


class RecordFile:
    """A file that is read at places, a block at a time.

    Args:
        file: The open file.
        size: Its bytes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.size = size
        self._file = file
        self._start = 0
        self._block = b""

    def read(self, span: Span) -> bytes:
        """Returns some bytes, fewer at the end of the file.

        Args:
            span: Their places.
        """
        start, end = span.start - self._start, span.end - self._start
        if 0 <= start and end <= len(self._block):
            return self._block[start:end]
        self._file.seek(span.start)
        data = self._file.read(max(span.end - span.start, _BLOCK))
        if span.end - span.start <= _BLOCK:
            self._start, self._block = span.start, data
        return data[: span.end - span.start]

    def reaches(self, end: int) -> bool:
        """Returns whether the file has as many bytes.

        Args:
            end: Their number.
        """
        return end <= self.size

    def release(self, place: int) -> None:
        """Says that nothing before a place is read any more.

        Args:
            place: The place.
        """


class PackedFile(RecordFile):
    """A compressed file: its places are those of the unpacked bytes, and are reached in order.

    Args:
        file: The open file.
        size: Its bytes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, size)
        self._records = PackedRecords(file, size)

    def read(self, span: Span) -> bytes:
        """Returns some bytes of the record that was reached last; see `RecordFile`.

        Args:
            span: Their places.
        """
        return self._records.read(span.start, span.end)

    def reaches(self, end: int) -> bool:
        """Unpacks up to a place; returns whether there are as many bytes.

        Args:
            end: Their number.

        Raises:
            ValueError: As in `PackedRecords.reaches`.
        """
        return self._records.reaches(end)

    def release(self, place: int) -> None:
        """Forgets what comes before a place.

        Args:
            place: The place.
        """
        self._records.release(place)


@contextmanager
def open_records(path: Path) -> Iterator[RecordFile]:
    """Opens a file of records; what is wrong with it becomes a DataError.

    Args:
        path: The file.
    """
    try:
        if not path.is_file():
            raise ValueError("is no regular file" if path.exists() else "does not exist")
        with open(path, "rb") as file:
            head, size = file.read(12), os.path.getsize(path)
            file.seek(0)
            # A plain record of 35,615 bytes begins as gzip does, and has a checksum.
            is_plain = _read_length(head) is not None or not is_packed(head)
            yield RecordFile(file, size) if is_plain else PackedFile(file, size)
    except OSError as error:
        what = f"{name_object(str(path))!r} cannot be read: {error.strerror}"
        raise DataError(Problem("", what, EXPECTED)) from error
    except ValueError as error:
        raise DataError(Problem("", f"{name_object(str(path))!r} {error}", EXPECTED)) from error


def walk_records(data: RecordFile) -> Iterator[Span]:
    """Yields the places of the records: each has its length, a checksum of that, and another one.

    Args:
        data: The file.

    Raises:
        ValueError: The file is none of records, or ends within one.
    """
    place = 0
    while data.reaches(place + 1):
        is_whole = data.reaches(place + 12)
        length = _read_length(data.read(Span(place, place + 12)))
        if is_whole and length is None:
            raise ValueError(f"is damaged at byte {place:,}" if place else "holds no TFRecord")
        end = place + 12 + (length or 0)
        if not is_whole or not data.reaches(end + 4):
            raise ValueError(f"ends within a record, at byte {place:,}")
        yield Span(place + 12, end)
        place = end + 4
        data.release(place)


def _read_length(head: bytes) -> int | None:
    """Returns the length of a record by its head; None where its checksum is that of another."""
    if len(head) < 12:
        return None
    length, checksum = struct.unpack("<QI", head)
    return int(length) if checksum == _sum(head[:8]) else None


def read_example(data: RecordFile, record: Span) -> dict[str, Values]:
    """Returns the values of a tf.train.Example by key: of bytes, the places.

    Args:
        data: The file.
        record: The place of the example.

    Raises:
        ValueError: It is none.
    """
    values: dict[str, Values] = {}
    for features in _spans(data, record, 1):
        for entry in _spans(data, features, 1):
            keys, held = _spans(data, entry, 1), _spans(data, entry, 2)
            if not keys or keys[0].end - keys[0].start > _BLOCK:
                raise ValueError("holds no tf.train.Example")
            key = data.read(keys[0]).decode("utf-8", "replace")
            values[key] = _read_values(data, held[-1]) if held else []
    return values


def _read_values(data: RecordFile, feature: Span) -> Values:
    for number, value in _walk_fields(data, feature):
        if isinstance(value, Span):
            if number == 1:
                return _spans(data, value, 1)
            if number == 2:
                return _read_floats(data, value)
            if number == 3:
                return _read_numbers(data, value)
    return []


def _read_floats(data: RecordFile, span: Span) -> list[float]:
    packed = b"".join(data.read(part) for part in _spans(data, span, 1))
    return list(struct.unpack(f"<{len(packed) // 4}f", packed[: len(packed) // 4 * 4]))


def _read_numbers(data: RecordFile, span: Span) -> list[int]:
    numbers: list[int] = []
    for number, value in _walk_fields(data, span):
        if number == 1 and isinstance(value, int):
            numbers.append(value)
        elif number == 1 and isinstance(value, Span):
            place = value.start
            while place < value.end:
                entry, place = _read_varint(data, place, value.end)
                numbers.append(entry)
    return [number - (1 << 64) if number >> 63 else number for number in numbers]


def _spans(data: RecordFile, span: Span, wanted: int) -> list[Span]:
    """Returns the fields of a number that have bytes."""
    fields = _walk_fields(data, span)
    return [value for number, value in fields if number == wanted and isinstance(value, Span)]


def _walk_fields(data: RecordFile, span: Span) -> Iterator[tuple[int, Span | int]]:
    """Yields the fields of a message of protocol buffers: numbers, and places of all else.

    Raises:
        ValueError: It is none.
    """
    place = span.start
    while place < span.end:
        key, place = _read_varint(data, place, span.end)
        kind = key & 7
        if kind == 0:
            value, place = _read_varint(data, place, span.end)
            yield key >> 3, value
            continue
        if kind == 2:
            length, place = _read_varint(data, place, span.end)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise ValueError("holds no tf.train.Example")
        if place + length > span.end:
            raise ValueError("holds no tf.train.Example")
        yield key >> 3, Span(place, place + length)
        place += length


def _read_varint(data: RecordFile, place: int, end: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(data.read(Span(place, min(place + 10, end)))):
        value |= (byte & 127) << (7 * shift)
        if byte < 128:
            return value, place + shift + 1
    raise ValueError("holds no tf.train.Example")


@functools.cache
def _table() -> tuple[int, ...]:
    """Returns the table of CRC-32C (Castagnoli)."""
    entries = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
        entries.append(entry)
    return tuple(entries)


def _sum(data: bytes) -> int:
    """Returns the masked checksum that TensorFlow writes behind a length."""
    checksum, table = 0xFFFFFFFF, _table()
    for byte in data:
        checksum = checksum >> 8 ^ table[(checksum ^ byte) & 255]
    checksum ^= 0xFFFFFFFF
    return ((checksum >> 15 | checksum << 17) + _MASK) & 0xFFFFFFFF
