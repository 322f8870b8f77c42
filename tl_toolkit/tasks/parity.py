"""Comparisons of an exported model with the Keras model: probes, limits, and the report."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from tl_toolkit.catalog.records import RGB
from tl_toolkit.images.bands import encode_npy
from tl_toolkit.images.npy_header import NPY_MAGIC
from tl_toolkit.images.upright import turn_by_exif
from tl_toolkit.sources.listing import PILLOW_FORMATS

__all__ = [
    "BYTES_LIMIT",
    "FURTHER",
    "PIXEL_LIMIT",
    "Limits",
    "Outputs",
    "add_probes",
    "compare_further",
    "make_report",
    "read_by_pillow",
    "read_otherwise",
    "render_probes",
]

_MODES = {1: "L", 2: "LA", 4: "RGBA"}
"""Pillow's modes by channels."""

PIXEL_LIMIT = 1e-5
"""Largest difference of an output, the same pixels on both sides."""

BYTES_LIMIT = 2e-3
"""Largest difference of an output from encoded bytes, decoded by Pillow on the Keras side.

Measured: 0 for what both decode alike, 9.4e-4 for a CMYK photo, where they differ by one level."""

FURTHER = 10.0
"""How many times the limit of an output other numbers may differ by, as distances of features that
were standardized."""


@dataclass(frozen=True)
class Limits:
    """Largest differences from the Keras model that are published.

    Attributes:
        pixels: From the same pixels on both sides.
        encoded: From encoded images, which the Keras side has decoded by Pillow.
    """

    pixels: float = PIXEL_LIMIT
    encoded: float = BYTES_LIMIT


@dataclass(frozen=True)
class Outputs:
    """Outputs of an exported model, by their names.

    Attributes:
        pixels: Outputs for batches of pixels, (n, ...) as the signature gives them.
        encoded: Outputs for files, without the batch's axis; those encoded as PNG are decoded.
        class_names: Names in the order of the outputs.
        numerics: The arithmetic of the process.
    """

    pixels: tuple[Mapping[str, np.ndarray], ...]
    encoded: tuple[Mapping[str, np.ndarray], ...]
    class_names: tuple[str, ...]
    numerics: Mapping[str, Any] = field(default_factory=dict)


def make_report(
    images: Sequence[tuple[str, float, float]],
    *,
    labels_equal: bool,
    class_names_equal: bool,
    limits: Limits,
    further: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Returns the report of a comparison, and whether it holds.

    Args:
        images: Name of each image, its largest difference from pixels and that from bytes.
        labels_equal: Whether predictions that are clear are equal.
        class_names_equal: Whether the class names are equal.
        limits: The largest differences allowed.
        further: Comparisons of further outputs, from `compare_further`.
    """
    further = further or {}
    # numpy's maximum, as Python's may lose a NaN.
    from_pixels, from_bytes = (float(np.max([image[side] for image in images])) for side in (1, 2))
    return {
        "holds": from_pixels <= limits.pixels
        and from_bytes <= limits.encoded
        and labels_equal
        and class_names_equal
        and all(output["holds"] for output in further.values()),
        "pixels": {"largest_difference": from_pixels, "limit": limits.pixels},
        "bytes": {"largest_difference": from_bytes, "limit": limits.encoded},
        "labels_equal": labels_equal,
        "class_names_equal": class_names_equal,
        "further_outputs": dict(further),
        "images": [
            {"name": name, "pixels": float(pixels), "bytes": float(encoded)}
            for name, pixels, encoded in images
        ],
    }


def compare_further(
    outputs: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    clear: Mapping[str, np.ndarray],
    limit: float,
) -> dict[str, dict[str, Any]]:
    """Compares the outputs of a model beside the one that it is compared by.

    Args:
        outputs: What an export returned, by name.
        expected: What the Keras model returns.
        clear: Where each output of truth values must be equal.
        limit: The largest difference of the main output; none where it is infinite.

    Returns:
        For each name, the `largest_difference` with its `limit`, or the share of `equal` truth
        values; and whether it `holds`.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, values in expected.items():
        given = outputs.get(name)
        if given is None or given.size != values.size:
            found[name] = {"holds": False}
            continue
        given = given.reshape(values.shape)
        if values.dtype == bool:
            equal = given.astype(bool) == values
            must = clear[name] if np.isfinite(limit) else np.zeros_like(values)
            found[name] = {"equal": float(equal.mean()), "holds": bool(equal[must].all())}
        else:
            largest = float(np.max(np.abs(given - values)))
            most = FURTHER * limit
            found[name] = {
                "largest_difference": largest,
                "limit": most if np.isfinite(most) else None,
                "holds": bool(largest <= most),
            }
    return found


def add_probes(files: Mapping[str, bytes], channels: int) -> dict[str, bytes]:
    """Returns files with images that naive decoders get wrong.

    Args:
        files: Encoded images by name, perhaps none.
        channels: Channels of the images.

    Returns:
        For photos also JPEG files: turned by EXIF, grey, CMYK. For bands also the first file as
        .npy arrays whose numbers lie otherwise: by columns, and with the highest byte first.
    """
    first = next(iter(files.values()), b"")
    if channels == RGB or (channels == 1 and first and not first.startswith(NPY_MAGIC)):
        return {**files, **render_probes()}
    pixels = read_otherwise(first, channels) if first else _render_bands(channels)
    return {
        **files,
        "probe: Fortran order": encode_npy(np.asfortranarray(pixels)),
        "probe: big-endian": encode_npy(pixels.astype(">f4")),
    }


def _render_bands(channels: int) -> np.ndarray:
    """Renders bands (64, 96, channels), each a ramp, in 0..1."""
    ramp = np.linspace(0, 1, 64 * 96 * channels, dtype=np.float32)
    return ramp.reshape(64, 96, channels)


def render_probes() -> dict[str, bytes]:
    """Renders photos that naive decoders get wrong: turned by EXIF, grey, CMYK.

    Returns:
        JPEG files by name, 96 x 64 pixels: a ramp with a bright corner, so that a turn shows.
    """
    ramp = np.linspace(0, 200, 96, dtype=np.uint8)[None, :].repeat(64, axis=0)
    picture = np.stack([ramp, ramp[:, ::-1], np.full_like(ramp, 90)], axis=-1)
    picture[:16, :24] = (255, 240, 30)
    image = Image.fromarray(picture)
    probes = {
        "probe: grey": _encode(image.convert("L")),
        "probe: CMYK": _encode(image.convert("CMYK")),
    }
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        probes[f"probe: EXIF orientation {orientation}"] = _encode(image, exif=exif)
    return probes


def _encode(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=95, **options)
    return buffer.getvalue()


def read_otherwise(data: bytes, channels: int) -> np.ndarray:
    """Decodes by Pillow or numpy alone, as a second opinion on the decoder.

    Args:
        data: An encoded image.
        channels: Channels of the image.

    Returns:
        uint8 (h, w, 3), RGB in 0..255: turned by EXIF, alpha dropped, 16 bits cut to the upper 8.
        With other channels float32 (h, w, channels).
    """
    if channels == RGB:
        return read_by_pillow(data)
    if data.startswith(NPY_MAGIC):
        pixels = np.asarray(np.load(io.BytesIO(data), allow_pickle=False), np.float32)
        return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
    pixels = read_by_pillow(data, _MODES[channels]).astype(np.float32)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def read_by_pillow(data: bytes, mode: str = "RGB") -> np.ndarray:
    """Decodes by Pillow alone: turned by EXIF, 16 bits cut to the upper 8.

    Args:
        data: An encoded image.
        mode: Pillow's word for the channels; all but RGBA and LA drop alpha.

    Returns:
        uint8 (h, w, 3), RGB in 0..255; the channels of another mode.
    """
    opened = Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)
    with warnings.catch_warnings(), opened as image:
        warnings.simplefilter("ignore")  # of damaged EXIF blocks, and of alpha that is dropped
        turned = turn_by_exif(image)
        if turned.mode.startswith("I;16"):
            turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
        if mode == "L":
            turned = turned.convert("RGB")  # CMYK and alpha, as the decoder has them
        return np.asarray(turned.convert(mode))
