"""The SavedModel: images or encoded bytes in, named outputs out, class names inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import keras
import tensorflow as tf

from tl_toolkit.export.asking import ask
from tl_toolkit.export.formats import FinishedModel, Format
from tl_toolkit.export.parity import LIMITS
from tl_toolkit.images.decoder import decode_image, resize_image
from tl_toolkit.tasks.base import answers_pixels

__all__ = ["FORMAT", "write_saved_model", "write_signatures"]


def write_saved_model(
    model: keras.Model,
    path: Path,
    *,
    classes: Sequence[str],
    resize: Literal["stretch", "crop"] = "stretch",
) -> None:
    """Writes a model for TensorFlow Serving or plain TensorFlow.

    Three signatures: `serving_default(image)` takes uint8 RGB (batch, h, w, 3) of any size,
    `serve_bytes(bytes)` encoded images (batch,), and both return `probabilities` float32 (batch,
    classes), `label` string (batch,) and `index` int32 (batch,); `class_names()` returns the names.
    Decoding, turning, resizing, preprocessing and softmax are inside.

    Args:
        model: float32 RGB (batch, h, w, 3) in 0..255 to probabilities.
        path: Folder to write; must not exist.
        classes: Class names in the order of the model's outputs.
        resize: How images come to the model's size, as in the recipe.
    """
    size = tuple(model.input.shape[1:3])
    names = tf.constant(list(classes))

    def predict(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = model(tf.cast(pixels, tf.float32), training=False)
        if probabilities.shape[-1] == 1:
            probabilities = tf.concat([1.0 - probabilities, probabilities], axis=-1)
        index = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
        return {"probabilities": probabilities, "label": tf.gather(names, index), "index": index}

    def serve_images(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return predict(resize_image(image, size, resize))

    def serve_bytes(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.map_fn(
            lambda data: resize_image(decode_image(data), size, resize),
            encoded,
            fn_output_signature=tf.TensorSpec((*size, 3), tf.uint8),
        )
        return predict(pixels)

    write_signatures(
        model, path, serve_images=serve_images, serve_bytes=serve_bytes, classes=classes
    )


def write_signatures(
    model: keras.Model,
    path: Path,
    *,
    serve_images: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
    serve_bytes: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
    classes: Sequence[str],
) -> None:
    """Writes the signatures that every exported model has, whatever its task.

    Args:
        model: What the functions call.
        path: Folder to write; must not exist.
        serve_images: Outputs for uint8 (batch, h, w, 3), as `serving_default(image)`.
        serve_bytes: Outputs for encoded images (batch,), as `serve_bytes(bytes)`.
        classes: What `class_names()` returns; none for a task without.
    """
    names = tf.constant(list(classes), tf.string)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default",
        serve_images,
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")],
    )
    archive.add_endpoint(
        "serve_bytes",
        serve_bytes,
        input_signature=[tf.TensorSpec((None,), tf.string, name="bytes")],
    )
    archive.add_endpoint("class_names", lambda: {"class_names": names}, input_signature=[])
    archive.write_out(str(path), verbose=False)


def _write(finished: FinishedModel, path: Path) -> None:
    """Writes the signatures of the model's task."""
    # Imported late: it writes its signatures by the function above.
    from tl_toolkit.tasks.dense.serving import write_pixel_model

    classes, resize = finished.classes, finished.resize
    if answers_pixels(finished.task):
        write_pixel_model(finished.model, path, task=finished.task, classes=classes, resize=resize)
    else:
        write_saved_model(finished.model, path, classes=classes, resize=resize)


FORMAT = Format(_write, ask=ask, limits=LIMITS)
