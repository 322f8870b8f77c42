"""Files of records that are compressed, by gzip or zlib: unpacked on the way, and never to disk."""

from __future__ import annotations

import zlib
from typing import BinaryIO

__all__ = ["PackedRecords", "is_packed"]

_GZIP = b"\x1f\x8b\x08"
_ZLIB = 0x78  # a window of 32 KiB, as every common writer has it
_KINDS = zlib.MAX_WBITS | 32  # gzip or zlib, told by the first bytes
_AGAIN = "write or fetch it again"
_CHUNK = 1 << 16
_PIECE = 1 << 20
_MOST_HELD = 512 << 20
"""Bytes of one record, which is held as a whole."""

_MOST_RATIO = 200
_SMALL = 256 << 20
"""Unpacked bytes that any file may have; above them they are at most `_MOST_RATIO` times its own.

Deflate packs zeros a thousandfold: ten such megabytes would be unpacked for a minute.
"""


def is_packed(head: bytes) -> bool:
    """Returns whether a file begins as one of gzip or of zlib does.

    Args:
        head: Its first bytes, at least three.
    """
    is_zlib = len(head) > 1 and head[0] == _ZLIB and int.from_bytes(head[:2], "big") % 31 == 0
    return head.startswith(_GZIP) or is_zlib


class PackedRecords:
    """The unpacked bytes of a compressed file, of which those of one record are held at a time.

    Args:
        file: The open file, at its beginning.
        size: Its bytes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._most = max(_SMALL, _MOST_RATIO * size)
        self._size = size
        self._start = 0
        self._held = bytearray()
        self._input = b""
        self._inflate = zlib.decompressobj(_KINDS)
        self._is_done = False

    def read(self, start: int, end: int) -> bytes:
        """Returns bytes that are held.

        Args:
            start: The place of the first one among all that were unpacked.
            end: The first place after them.
        """
        return bytes(self._held[start - self._start : end - self._start])

    def release(self, place: int) -> None:
        """Forgets what comes before a place.

        Args:
            place: The first one that is still wanted.
        """
        del self._held[: place - self._start]
        self._start = place

    def reaches(self, end: int) -> bool:
        """Unpacks up to a place; returns whether there are as many bytes.

        Args:
            end: The first place that need not be held.

        Raises:
            ValueError: The file is damaged, ends too early or unpacks to far more than its bytes;
                or the record is too large to be held.
        """
        if end - self._start > _MOST_HELD:
            raise ValueError(f"has an example of more than {_MOST_HELD >> 20} MiB")
        while self._start + len(self._held) < end and not self._is_done:
            self._held += self._unpack()
            if self._start + len(self._held) > self._most:
                most = f"unpacks to more than {self._most >> 20:,} MiB"
                hint = "a plain file, which zcat makes of gzip, may be of any size"
                raise ValueError(f"{most}, and has {self._size:,} bytes; {hint}")
        return self._start + len(self._held) >= end

    def _unpack(self) -> bytes:
        """Returns the next bytes; none at the end of the file, which the checksum has confirmed."""
        if self._inflate.eof:  # another part may follow, as of files that cat has joined
            self._input = self._inflate.unused_data or self._file.read(_CHUNK)
            self._is_done = not self._input
            self._inflate = zlib.decompressobj(_KINDS)
        if self._is_done:
            return b""
        given = self._input or self._file.read(_CHUNK)
        try:
            data = self._inflate.decompress(given, _PIECE)
        except zlib.error as error:
            reason = str(error).rpartition(": ")[2]
            raise ValueError(f"is compressed, and damaged: {reason}; {_AGAIN}") from error
        self._input = self._inflate.unconsumed_tail
        if not given and not data and not self._inflate.eof:
            raise ValueError(f"is compressed, and ends before its data do; {_AGAIN}")
        return data
