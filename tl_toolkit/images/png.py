"""Finds in a PNG file what Pillow reads on past, and libpng refuses."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

__all__ = ["find_png_flaw"]

_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_ANCILLARY = 0x20  # the bit of a chunk's first letter that lets readers skip it
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by color type
# First column and row of each pass of an interlaced image, and the steps between its pixels.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
           (0, 1, 1, 2))  # fmt: skip
_WINDOW = 1 << 20


def find_png_flaw(encoded: bytes) -> str:
    """Returns what is wrong with a PNG file, in words; "" for nothing.

    Checksums of chunks, and what its pixels say, are left to the reader.

    Args:
        encoded: The file, with an intact header.
    """
    compressed = []
    count = -1
    for kind, data in _list_chunks(encoded):
        if not kind[0] & _ANCILLARY and kind not in _CRITICAL:
            return f"a PNG image with the unknown chunk {kind.decode('latin-1')}"
        if kind == b"IHDR":
            count = _count_bytes(data)
        if kind == b"IDAT":
            compressed.append(data)
        if kind == b"IEND":
            inflated = _inflate(b"".join(compressed), count)
            return "" if inflated == count else "a PNG image of too few or too many pixels"
    return "a PNG image without its end"


def _list_chunks(encoded: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields kind and content of each whole chunk."""
    start = 8  # after the signature
    while start + 12 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, start)
        if start + 12 + length > len(encoded):
            return
        yield kind, encoded[start + 8 : start + 8 + length]
        start += 12 + length


def _count_bytes(header: bytes) -> int:
    """Returns the bytes that the content of IHDR implies: a row is its filter and its pixels."""
    width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", header)
    bits = depth * _SAMPLES[color]
    count = 0
    for column, row, across, down in _PASSES if interlace else ((0, 0, 1, 1),):
        columns, rows = -(-(width - column) // across), -(-(height - row) // down)
        if columns > 0 and rows > 0:
            count += rows * (1 + (columns * bits + 7) // 8)
    return count


def _inflate(compressed: bytes, most: int) -> int:
    """Returns how many bytes a stream inflates to; -1 if it does not end well, or has many more."""
    stream, count, rest = zlib.decompressobj(), 0, compressed
    try:
        while rest and count <= most:
            count += len(stream.decompress(rest, _WINDOW))
            rest = stream.unconsumed_tail
    except zlib.error:
        return -1
    return count if stream.eof and not stream.unused_data else -1
