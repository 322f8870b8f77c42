"""Proof that an exported model answers as the Keras model does."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from PIL import Image, ImageOps

from tl_toolkit.architectures.batches import FixedBatch
from tl_toolkit.errors import ParityError, Problem
from tl_toolkit.export import serving_process
from tl_toolkit.images.decoder import resize_image
from tl_toolkit.training.steps import class_probabilities

PIXEL_LIMIT = 1e-5
"""Largest difference in probability, the same pixels on both sides."""

BYTES_LIMIT = 2e-3
"""Largest difference in probability from encoded bytes, decoded by Pillow on the Keras side.

Measured: 0 for what both decode alike, 9.4e-4 for a CMYK photo, where they differ by one level."""


@dataclass(frozen=True)
class Answers:
    """What a SavedModel answered, by the names of its outputs.

    Attributes:
        pixels: Answers to batches of pixels, rows (n, ...) as the signature gives them.
        encoded: Answers to files, without the batch's axis; those encoded as PNG are decoded.
        class_names: Names in the order of the outputs.
    """

    pixels: tuple[Mapping[str, np.ndarray], ...]
    encoded: tuple[Mapping[str, np.ndarray], ...]
    class_names: tuple[str, ...]


def compare(
    model: keras.Model,
    saved_model: Path,
    files: Mapping[str, bytes],
    *,
    classes: Sequence[str],
    resize: Literal["stretch", "crop"],
) -> dict[str, Any]:
    """Asks a SavedModel in a fresh process and the Keras model here, and compares.

    The Keras side is fed with pixels that Pillow decoded and turned, a second opinion on the
    decoder inside the SavedModel. Probes drawn here (turned by EXIF, grey, CMYK) are added.

    Args:
        model: The Keras model.
        saved_model: Its SavedModel.
        files: Encoded images by name, at least 1.
        classes: Class names in the order of the outputs.
        resize: As in the recipe.

    Returns:
        The report: largest differences, limits, a row for each image, and whether it holds.
    """
    files = {**files, **render_probes()}
    size = tuple(model.input.shape[1:3])
    pixels = np.stack(
        [resize_image(read_by_pillow(data), size, resize).numpy() for data in files.values()]
    )
    expected = class_probabilities(FixedBatch(model)(pixels).numpy())
    answers = ask(saved_model, [pixels], list(files.values()))
    encoded = np.stack([answer["probabilities"] for answer in answers.encoded])
    from_pixels = np.abs(answers.pixels[0]["probabilities"] - expected).max(axis=1)
    from_bytes = np.abs(encoded - expected).max(axis=1)
    # A tie between two classes may fall either way; a clear answer may not.
    clear = np.sort(expected, axis=1)[:, -1] - np.sort(expected, axis=1)[:, -2] > 2 * BYTES_LIMIT
    labels = np.array([answer["label"] for answer in answers.encoded])
    right = np.array(classes)[expected.argmax(axis=1)]
    return make_report(
        list(zip(files, from_pixels, from_bytes, strict=True)),
        labels_equal=bool((labels == right)[clear].all()),
        class_names_equal=answers.class_names == tuple(classes),
    )


def make_report(
    rows: Sequence[tuple[str, float, float]], *, labels_equal: bool, class_names_equal: bool
) -> dict[str, Any]:
    """Returns the report of a comparison, and whether it holds.

    Args:
        rows: Name of each image, its largest difference from pixels and that from bytes.
        labels_equal: Whether answers that are clear are equal.
        class_names_equal: Whether the class names are.
    """
    # Of numpy: Python's max may lose a NaN.
    from_pixels, from_bytes = (float(np.max([row[side] for row in rows])) for side in (1, 2))
    return {
        "holds": from_pixels <= PIXEL_LIMIT
        and from_bytes <= BYTES_LIMIT
        and labels_equal
        and class_names_equal,
        "pixels": {"largest_difference": from_pixels, "limit": PIXEL_LIMIT},
        "bytes": {"largest_difference": from_bytes, "limit": BYTES_LIMIT},
        "labels_equal": labels_equal,
        "class_names_equal": class_names_equal,
        "images": [
            {"name": name, "pixels": float(one), "bytes": float(other)} for name, one, other in rows
        ],
    }


def check_report(report: Mapping[str, Any], *, where: str) -> None:
    """Refuses an export that does not answer as the Keras model.

    Raises:
        ParityError: A difference is above its limit, or a label or class name differs.
    """
    if report["holds"]:
        return
    worst = max(report["images"], key=lambda row: max(row["pixels"], row["bytes"]))
    raise ParityError(
        Problem(
            where=where,
            what=f"the exported model differs from the Keras model, most on {worst['name']}: "
            f"{worst['pixels']:.2g} from pixels, {worst['bytes']:.2g} from bytes",
            expected=f"At most {PIXEL_LIMIT:g} and {BYTES_LIMIT:g}, and equal labels. Nothing was "
            "published; the report has every image.",
            hint="tltool export RUN again; if it fails again, report it with that file",
        )
    )


def render_probes() -> dict[str, bytes]:
    """Draws images that naive decoders get wrong: turned by EXIF, grey, CMYK.

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

    Returns:
        uint8 (h, w, 3), RGB in 0..255.
    """
    with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
        warnings.simplefilter("ignore")  # of damaged EXIF blocks, and of alpha that is dropped
        turned = ImageOps.exif_transpose(image)
        if turned.mode.startswith("I;16"):
            turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
        return np.asarray(turned.convert("RGB"))


def ask(saved_model: Path, batches: Sequence[np.ndarray], encoded: Sequence[bytes]) -> Answers:
    """Loads and asks a SavedModel in a process that has never seen this package.

    Args:
        saved_model: Its folder.
        batches: Images, uint8 (n, h, w, 3) each.
        encoded: Image files, asked for together.

    Raises:
        ParityError: It cannot be loaded, or gives no answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        np.savez(
            inputs,
            bytes=np.frombuffer(b"".join(encoded), np.uint8),
            lengths=np.array([len(data) for data in encoded]),
            **{f"image/{number}": batch for number, batch in enumerate(batches)},
        )
        script = [sys.executable, "-I", serving_process.__file__]
        child = subprocess.run(
            [*script, str(saved_model), str(inputs), str(outputs)],
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode != 0:
            raise ParityError(
                Problem(
                    where=str(saved_model),
                    what="cannot be loaded and asked by plain TensorFlow: "
                    + (child.stderr.strip().splitlines() or ["no message"])[-1],
                    expected="Nothing was published.",
                )
            )
        with np.load(outputs, allow_pickle=False) as found:
            names = tuple(map(str, found["class_names"]))
            read = {key: found[key] for key in found.files}
    return Answers(
        _gather(read, "pixels", len(batches)), _gather(read, "bytes", len(encoded)), names
    )


def _gather(
    read: Mapping[str, np.ndarray], side: str, count: int
) -> tuple[Mapping[str, np.ndarray], ...]:
    """Returns the answers of one side, in the order of what was asked."""
    found: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
    for key, value in read.items():
        kind, *rest = key.split("/")
        if kind == side:
            found[int(rest[0])][rest[1]] = value
    return tuple(found)
