"""Proof that an exported model returns what the Keras model does."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from PIL import Image, ImageOps

from tl_toolkit.architectures.batches import FixedBatch
from tl_toolkit.errors import ParityError, Problem
from tl_toolkit.export.asking import ask
from tl_toolkit.export.formats import Ask, Limits
from tl_toolkit.images.decoder import resize_image
from tl_toolkit.training.steps import class_probabilities

__all__ = [
    "BYTES_LIMIT",
    "LIMITS",
    "PIXEL_LIMIT",
    "ask",
    "check_report",
    "compare",
    "make_report",
    "read_by_pillow",
    "render_probes",
]

PIXEL_LIMIT = 1e-5
"""Largest difference in probability, the same pixels on both sides."""

BYTES_LIMIT = 2e-3
"""Largest difference in probability from encoded bytes, decoded by Pillow on the Keras side.

Measured: 0 for what both decode alike, 9.4e-4 for a CMYK photo, where they differ by one level."""


LIMITS = Limits(PIXEL_LIMIT, BYTES_LIMIT)
"""Of a SavedModel."""


def compare(
    model: keras.Model,
    saved_model: Path,
    files: Mapping[str, bytes],
    *,
    classes: Sequence[str],
    resize: Literal["stretch", "crop"],
    ask_exported: Ask = ask,
    limits: Limits = LIMITS,
) -> dict[str, Any]:
    """Asks an exported model in a fresh process and the Keras model here, and compares.

    The Keras side is fed with pixels that Pillow decoded and turned, a second opinion on the
    decoder inside the exported model. Probes rendered here (turned by EXIF, grey, CMYK) are added.

    Args:
        model: The Keras model.
        saved_model: The exported model; by default a SavedModel.
        files: Encoded images by name, at least 1.
        classes: Class names in the order of the outputs.
        resize: As in the recipe.
        ask_exported: Asks a model of that format.
        limits: Largest differences in probability.

    Returns:
        The report: largest differences, limits, an entry for each image, and whether it holds.
    """
    files = {**files, **render_probes()}
    size = tuple(model.input.shape[1:3])
    pixels = np.stack(
        [resize_image(read_by_pillow(data), size, resize).numpy() for data in files.values()]
    )
    expected = class_probabilities(np.asarray(FixedBatch(model)(pixels)))
    outputs = ask_exported(saved_model, [pixels], list(files.values()))
    encoded = np.stack([output["probabilities"] for output in outputs.encoded])
    from_pixels = np.abs(outputs.pixels[0]["probabilities"] - expected).max(axis=1)
    from_bytes = np.abs(encoded - expected).max(axis=1)
    # A tie between two classes may fall either way; a clear winner may not.
    ranked = np.sort(expected, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 2 * limits.encoded
    labels = np.array([output["label"] for output in outputs.encoded])
    expected_labels = np.array(classes)[expected.argmax(axis=1)]
    return make_report(
        list(zip(files, from_pixels, from_bytes, strict=True)),
        labels_equal=bool((labels == expected_labels)[clear].all()),
        class_names_equal=outputs.class_names == tuple(classes),
        limits=limits,
    )


def make_report(
    images: Sequence[tuple[str, float, float]],
    *,
    labels_equal: bool,
    class_names_equal: bool,
    limits: Limits = LIMITS,
) -> dict[str, Any]:
    """Returns the report of a comparison, and whether it holds.

    Args:
        images: Name of each image, its largest difference from pixels and that from bytes.
        labels_equal: Whether labels with a clear winner are equal.
        class_names_equal: Whether the class names are.
        limits: Largest differences that hold.
    """
    # Of numpy: Python's max may lose a NaN.
    from_pixels, from_bytes = (float(np.max([image[side] for image in images])) for side in (1, 2))
    return {
        "holds": from_pixels <= limits.pixels
        and from_bytes <= limits.encoded
        and labels_equal
        and class_names_equal,
        "pixels": {"largest_difference": from_pixels, "limit": limits.pixels},
        "bytes": {"largest_difference": from_bytes, "limit": limits.encoded},
        "labels_equal": labels_equal,
        "class_names_equal": class_names_equal,
        "images": [
            {"name": name, "pixels": float(pixels), "bytes": float(encoded)}
            for name, pixels, encoded in images
        ],
    }


def check_report(report: Mapping[str, Any], *, where: str) -> None:
    """Refuses an export whose outputs differ from the Keras model's.

    Args:
        report: What `make_report` returned.
        where: The file that holds it.

    Raises:
        ParityError: A difference is above its limit, or a label or class name differs.
    """
    if report["holds"]:
        return
    worst = max(report["images"], key=lambda image: max(image["pixels"], image["bytes"]))
    raise ParityError(
        Problem(
            where=where,
            what=f"the exported model differs from the Keras model, most on {worst['name']}: "
            f"{worst['pixels']:.2g} from pixels, {worst['bytes']:.2g} from bytes",
            expected=f"At most {report['pixels']['limit']:g} and {report['bytes']['limit']:g}, and "
            "equal labels. Nothing was published; the report has every image.",
            hint="tltool export RUN again; if it fails again, report it with that file",
        )
    )


def render_probes() -> dict[str, bytes]:
    """Renders images that naive decoders get wrong: turned by EXIF, grey, CMYK.

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


def read_by_pillow(data: bytes) -> np.ndarray:
    """Decodes by Pillow alone: turned by EXIF, alpha dropped, 16 bits cut to the upper 8.

    Args:
        data: An image file.

    Returns:
        uint8 (h, w, 3), RGB in 0..255.
    """
    with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
        warnings.simplefilter("ignore")  # of damaged EXIF blocks, and of alpha that is dropped
        turned = ImageOps.exif_transpose(image)
        if turned.mode.startswith("I;16"):
            turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
        return np.asarray(turned.convert("RGB"))
