"""Images drawn in code, encoded by Pillow, and read back by Pillow as a second opinion."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps


@pytest.fixture
def draw():
    """Draws an image that has smooth areas, edges, and no symmetry that a turn could hide in."""

    def draw_image(mode="RGB", *, width=52, height=36, seed=0):
        random = np.random.default_rng(seed)
        blocks = random.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        pixels = np.kron(blocks, np.ones((4, 4, 1), np.uint8))
        pixels[: height // 3, : width // 2, 0] = np.arange(width // 2, dtype=np.uint8) * 4
        image = Image.fromarray(pixels)
        if mode == "I;16":
            high = np.asarray(image.convert("L")).astype(np.uint16)
            return Image.fromarray(high * 256 + 77)
        if mode in ("RGBA", "LA"):
            alpha = Image.fromarray(random.integers(0, 256, pixels.shape[:2], dtype=np.uint8))
            image = image.convert(mode.removesuffix("A"))
            image.putalpha(alpha)
            return image
        return image.convert(mode)

    return draw_image


@pytest.fixture
def encode():
    """Encodes a Pillow image; `orientation` adds an EXIF block."""

    def encode_image(image, kind, *, orientation=None, **options):
        if orientation is not None:
            exif = Image.Exif()
            exif[271] = "a camera"
            exif[274] = orientation
            options["exif"] = exif
        output = io.BytesIO()
        image.save(output, kind, **options)
        return output.getvalue()

    return encode_image


@pytest.fixture
def read_with_pillow():
    """Decodes by Pillow alone: upright, RGB, alpha dropped, 16 bits cut to the upper 8."""

    def read(encoded):
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
        if image.mode.startswith("I;16"):
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(grey[..., np.newaxis], 3, axis=-1)
        return np.asarray(image.convert("RGB"))

    return read


@pytest.fixture
def write_png():
    """Writes a PNG by hand: pixels uint8 or uint16 (h, w, 3 or 4), and chunks after the pixels."""

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    def write(pixels, *, size=None, before=(), after=()):
        height, width, channels = pixels.shape
        rows = [b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels]
        size = size or (width, height)
        head = struct.pack(
            ">IIBBBBB", *size, 8 * pixels.itemsize, 2 if channels == 3 else 6, 0, 0, 0
        )
        data = zlib.compress(b"".join(rows))
        parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), *(chunk(*part) for part in before)]
        # Two chunks of pixels, so that a walk over the chunks is one.
        parts += [chunk(b"IDAT", data[:20]), chunk(b"IDAT", data[20:])]
        return b"".join([*parts, *(chunk(*part) for part in after), chunk(b"IEND", b"")])

    return write


@pytest.fixture
def save(tmp_path):
    """Saves an array or a Pillow image as a file."""

    def save_as(image, name="mask.png", **options):
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(tmp_path / name, **options)
        return str(tmp_path / name)

    return save_as
