"""Photos read and resized by Pillow and numpy are as the decoder has them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tl_toolkit.images.decoder import decode_image, resize_image
from tl_toolkit.images.geometry import Padding
from tl_toolkit.images.plain import NotPlain, read_plain, resize_plain


def draw(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(pixels, kind, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def edit(encoded, change):
    """Encodes a PNG anew, with each chunk as `change` has it, and checksums that are right."""
    edited, start = encoded[:8], 8
    while start < len(encoded):
        (length,) = struct.unpack_from(">I", encoded, start)
        kind, data = encoded[start + 4 : start + 8], encoded[start + 8 : start + 8 + length]
        for name, content in change(kind, data):
            checksum = zlib.crc32(name + content)
            edited += struct.pack(">I4s", len(content), name) + content
            edited += struct.pack(">I", checksum)
        start += 12 + length
    return edited


def leave_out_a_row(kind, data):
    return [(kind, zlib.compress(zlib.decompress(data)[:-91]) if kind == b"IDAT" else data)]


def add_chunk(kind, data):
    return [*([(b"ABCD", b"")] if kind == b"IDAT" else []), (kind, data)]


def interlace(pixels):
    """Encodes a PNG in seven passes, which Pillow does not write."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2)]  # fmt: skip
    parts = [pixels[row::down, column::across] for column, row, across, down in passes]
    lines = b"".join(b"\0" + line.tobytes() for part in parts if part.size for line in part)
    return edit(
        encode(pixels, "PNG"),
        lambda kind, data: [
            (kind, {b"IHDR": data[:-1] + b"\1", b"IDAT": zlib.compress(lines)}.get(kind, data))
        ],
    )


@pytest.mark.parametrize("resize", ["stretch", "crop", Padding((1, 2, 250))], ids=str)
@pytest.mark.parametrize(
    "source, size", [((40, 48), (32, 32)), ((13, 90), (64, 40)), ((1, 300), (32, 32))]
)
def test_resizing_is_that_of_the_decoder(resize, source, size):
    pixels = draw(*source)

    resized = resize_plain(pixels, size, resize).astype(int)

    expected = resize_image(pixels, size, resize).numpy()
    differences = np.abs(resized - expected)
    assert differences.max() <= 1  # where a sum lies halfway between two levels
    assert (differences > 0).mean() < 0.005


def test_an_image_of_the_size_is_left_as_it_is():
    pixels = draw(8, 9)

    assert np.array_equal(resize_plain(pixels, (8, 9), "crop"), pixels)


def turned(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


@pytest.mark.parametrize(
    "encoded",
    [
        encode(draw(20, 30), "JPEG", exif=turned(6)),
        encode(draw(20, 30), "JPEG", "L"),
        encode(draw(20, 30), "JPEG", progressive=True),
        encode(draw(20, 30), "PNG", "RGBA", exif=turned(3)),
        encode(draw(20, 30), "PNG", "P", transparency=3),
        encode(draw(20, 30), "PNG", "1"),
        encode(draw(21, 30), "PNG", "I;16"),
        interlace(draw(20, 30)),
        interlace(draw(3, 2)),
    ],
)
def test_pixels_are_those_of_the_decoder(encoded, tmp_path):
    path = tmp_path / "photo"
    path.write_bytes(encoded)

    assert np.array_equal(read_plain(path), decode_image(encoded).numpy())


JPEG, PNG = encode(draw(20, 30), "JPEG"), encode(draw(20, 30), "PNG")


@pytest.mark.parametrize(
    "encoded, reason",
    [
        (JPEG[:-200], "without its end"),
        (JPEG[:-2], "without its end"),
        (PNG[:-40] + b"\0" + PNG[-39:], "checksum"),
        (edit(PNG, leave_out_a_row), "too few or too many pixels"),
        (edit(PNG, add_chunk), "unknown chunk ABCD"),
        (encode(draw(20, 30), "JPEG", "CMYK"), "mode CMYK"),
        (encode(draw(20, 30), "GIF"), "no JPEG or PNG image"),
        (
            encode(draw(9, 9), "PNG", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
            "animated",
        ),
        (b"", "no JPEG or PNG image"),
    ],
)
def test_what_only_the_decoder_tells_is_left_to_it(encoded, reason, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded)

    with pytest.raises(NotPlain, match=reason):
        read_plain(path)
