"""The second LiteRT file of a dense task: outputs between the pixels of the model's image.

A photo has other pixels than the image that the model takes, and its prediction lies between the
outputs of that image: the maps of the base are interpolated, not the outputs. `tltool predict`
reads this file.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.errors import ParityError, Problem
from tl_toolkit.export import lines_process
from tl_toolkit.export.apart import find_last_line, run_apart
from tl_toolkit.export.formats import FinishedModel
from tl_toolkit.export.quick_lines import FILE
from tl_toolkit.runs.files import hash_file
from tl_toolkit.tasks.types import Lines

__all__ = ["write_lines"]

_IMAGES = 2
_SAMPLES = (23, 31)  # rows and columns, at places between pixels


def write_lines(finished: FinishedModel, folder: Path, limit: float) -> dict[str, Any] | None:
    """Writes the file, and compares it with the Keras model; None where an image has one output.

    Args:
        finished: The model.
        folder: Receives it.
        limit: The largest difference.

    Returns:
        `file`, its `sha256`, `largest_difference`, `limit`, and whether it `holds`.

    Raises:
        ParityError: It cannot be converted, or run.
    """
    lines = finished.task.build_lines(finished.model)
    if lines is None:
        return None
    path = folder / FILE
    try:
        path.write_bytes(_convert(lines))
        largest = _compare(lines, path)
    except (OSError, ParityError):
        raise
    except Exception as error:  # converters and runtimes raise whatever they meet
        what = f"this model cannot be converted: {find_last_line(str(error))}"
        raise ParityError(Problem("litert", what, "Nothing was published.")) from error
    return {
        "file": FILE,
        "sha256": hash_file(path),
        "largest_difference": largest,
        "limit": limit,
        "holds": largest <= limit,
    }


def _convert(lines: Lines) -> bytes:
    height, width, channels = lines.model.inputs[0].shape[1:]
    signature = [
        tf.TensorSpec((1, height, width, channels), tf.float32, name="image"),
        tf.TensorSpec((None,), tf.float32, name="ys"),
        tf.TensorSpec((None,), tf.float32, name="xs"),
    ]

    def predict(image: tf.Tensor, ys: tf.Tensor, xs: tf.Tensor) -> tf.Tensor:
        return lines.build(image, ys, xs)

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of converters, about releases of numpy and protobuf
        archive = keras.export.ExportArchive()
        archive.track(lines.model)
        archive.add_endpoint("serve", predict, input_signature=signature)
        archive.write_out(folder, verbose=False)
        converted: bytes = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    return converted


def _compare(lines: Lines, path: Path) -> float:
    """Returns the largest difference of outputs at places between the pixels of noise.

    The file is run in a fresh process, as every export is.
    """
    height, width, channels = lines.model.inputs[0].shape[1:]
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (_IMAGES, height, width, channels)).astype(np.float32)
    ys, xs = (
        np.sort(random.uniform(-0.5, side - 0.5, (_IMAGES, count))).astype(np.float32)
        for side, count in zip((height, width), _SAMPLES, strict=True)
    )
    arrays = run_apart(
        lines_process.__file__, [str(path)], {"images": images, "ys": ys, "xs": xs}, {},
        failure="cannot be run by LiteRT", consequence="Nothing was published.",
    )  # fmt: skip
    worst = 0.0
    for image, rows, columns, outputs in zip(images, ys, xs, arrays["outputs"], strict=True):
        places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(1, -1, 2)
        expected = np.asarray(lines.model([image[np.newaxis], places], training=False))
        worst = max(worst, float(np.abs(outputs.reshape(expected.shape) - expected).max()))
    return worst
