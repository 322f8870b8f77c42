"""The SavedModel: images or encoded bytes in, named outputs out, class names inside."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf

from tl_toolkit.export.asking import ask
from tl_toolkit.export.formats import FinishedModel, Format
from tl_toolkit.images.bands import dtype_of

__all__ = ["FORMAT", "write_saved_model"]


def write_saved_model(finished: FinishedModel, path: Path) -> None:
    """Writes a model for TensorFlow Serving or plain TensorFlow.

    Three signatures: `serving_default(image)` takes uint8 RGB (batch, h, w, 3) of any size, or
    float32 bands (batch, h, w, channels) in the numbers of the files,
    `serve_bytes(bytes)` encoded images (batch,), and both return what the task's endpoints return;
    `class_names()` returns what the outputs stand for. Decoding, turning, resizing and
    preprocessing are inside.

    Args:
        finished: The model.
        path: Folder to write; must not exist.
    """
    endpoints = finished.task.build_endpoints(finished.model, finished.resize, webp=finished.webp)
    channels = finished.model.inputs[0].shape[-1]
    dtype = tf.as_dtype(dtype_of(channels))
    names = tf.constant(list(finished.task.classes), tf.string)
    archive = keras.export.ExportArchive()
    archive.track(finished.model)
    archive.add_endpoint(
        "serving_default",
        endpoints.serve_images,
        input_signature=[tf.TensorSpec((None, None, None, channels), dtype, name="image")],
    )
    archive.add_endpoint(
        "serve_bytes",
        endpoints.serve_bytes,
        input_signature=[tf.TensorSpec((None,), tf.string, name="bytes")],
    )
    archive.add_endpoint("class_names", lambda: {"class_names": names}, input_signature=[])
    archive.write_out(str(path), verbose=False)


FORMAT = Format(write_saved_model, ask=ask)
