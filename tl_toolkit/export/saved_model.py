"""The SavedModel: images or encoded bytes in, named outputs out, class names inside."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import keras
import tensorflow as tf

from tl_toolkit.tasks.base import Task

__all__ = ["write_saved_model"]


def write_saved_model(
    model: keras.Model,
    path: Path,
    task: Task,
    *,
    resize: Literal["stretch", "crop"] = "stretch",
) -> None:
    """Writes a model for TensorFlow Serving or plain TensorFlow.

    Three signatures: `serving_default(image)` takes uint8 RGB (batch, h, w, 3) of any size,
    `serve_bytes(bytes)` encoded images (batch,), and both return what the task's endpoints return;
    `class_names()` returns what the outputs stand for. Decoding, turning, resizing and
    preprocessing are inside.

    Args:
        model: The whole model.
        path: Folder to write; must not exist.
        task: What it has learned.
        resize: How images come to the model's size, as in the recipe.
    """
    endpoints = task.build_endpoints(model, resize)
    names = tf.constant(list(task.classes), tf.string)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default",
        endpoints.serve_images,
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")],
    )
    archive.add_endpoint(
        "serve_bytes",
        endpoints.serve_bytes,
        input_signature=[tf.TensorSpec((None,), tf.string, name="bytes")],
    )
    archive.add_endpoint("class_names", lambda: {"class_names": names}, input_signature=[])
    archive.write_out(str(path), verbose=False)
