"""The SavedModel of a task with an answer for each pixel: images in, answers of their size out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import keras
import tensorflow as tf

from tl_toolkit.export.saved_model import write_signatures
from tl_toolkit.images.decoder import decode_image, resize_image
from tl_toolkit.recipe.pixel_schema import IGNORE
from tl_toolkit.tasks.base import PixelTask
from tl_toolkit.tasks.dense.predictor import DensePredictor

__all__ = ["RANGES", "write_pixel_model"]

RANGES = {"probability": (0.0, 1.0), "normal": (-1.0, 1.0)}
"""What float answers lie between, by the name that a task keeps them by: black and white as PNG."""

_Answer = dict[str, tf.Tensor]


def write_pixel_model(
    model: keras.Model,
    path: Path,
    *,
    task: PixelTask,
    classes: Sequence[str],
    resize: Literal["stretch", "crop"] = "stretch",
) -> None:
    """Writes a model for TensorFlow Serving or plain TensorFlow.

    Answers have the size of the images that are given, and are those that the task keeps, by its
    names: of a segmentation `mask`, the index of the class, and `probability`. Three signatures:

    - `serving_default(image)` takes uint8 RGB (batch, h, w, 3) of any size and returns each answer
      as it is: `mask` uint8 (batch, h, w), `probability` float32 (batch, h, w), in 0..1.
    - `serve_bytes(bytes)` takes encoded images (batch,), each of its own size, and returns each
      answer as PNG files (batch,), with `height` and `width` int32 (batch,), those of the image
      turned upright. Integers are 8-bit grey and hold the index. Floats have 16 bits, 0 for the
      lowest value and 65535 for the highest: a `probability` is grey / 65535; a `normal` is RGB,
      value / 65535 * 2 - 1. Rounding to 16 bits changes a probability by 8e-6 at most.
    - `class_names()` returns the names in the order of the indices.

    Where "crop" cut pixels off, integers are 255 and floats 0. Images are answered one by one and
    in tiles of rows: memory does not grow with the batch, nor an answer change with it.

    Args:
        model: [images, pixels] to outputs, as a run keeps it.
        path: Folder to write; must not exist.
        task: Says what is kept of the outputs.
        classes: Class names in the order of the outputs.
        resize: How images come to the model's size, as in the recipe.

    Raises:
        ValueError: The task keeps a float answer that RANGES lacks, or integers other than uint8.
    """
    kept = task.keep(tf.zeros((1, 1, task.units)))
    _check_encodings(kept)
    answer = _draw_answer(DensePredictor(model), task, resize)

    def serve_images(image: tf.Tensor) -> _Answer:
        signature = {
            name: tf.TensorSpec((None, None, *one.shape[2:]), one.dtype)
            for name, one in kept.items()
        }
        return tf.map_fn(answer, image, parallel_iterations=1, fn_output_signature=signature)

    def serve_one(encoded: tf.Tensor) -> _Answer:
        image = decode_image(encoded)
        height, width = tf.unstack(tf.shape(image)[:2])
        files = {name: _encode(name, one) for name, one in answer(image).items()}
        return {**files, "height": height, "width": width}

    def serve_bytes(encoded: tf.Tensor) -> _Answer:
        signature = {name: tf.TensorSpec((), tf.string) for name in kept}
        signature |= {side: tf.TensorSpec((), tf.int32) for side in ("height", "width")}
        return tf.map_fn(serve_one, encoded, parallel_iterations=1, fn_output_signature=signature)

    write_signatures(
        model, path, serve_images=serve_images, serve_bytes=serve_bytes, classes=classes
    )


def _draw_answer(
    predictor: DensePredictor, task: PixelTask, resize: str
) -> tf.types.experimental.Callable:
    """Returns the function from one image, uint8 (h, w, 3), to its answers, (h, w, ...) each."""

    # Compiled for itself, so that both signatures call one function and it is written once.
    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)], autograph=False)
    def answer(image: tf.Tensor) -> _Answer:
        resized = resize_image(image, predictor.image_size, resize)
        maps = predictor.build_maps(tf.cast(resized, tf.float32)[tf.newaxis])
        ys, xs = place_pixels_in_graph(tf.shape(image)[:2], predictor.image_size, resize)
        found = predictor.build_predictions([one[0] for one in maps], ys, xs, reduce=task.keep)
        down, along = (
            (places >= -0.5) & (places <= side - 0.5)
            for places, side in zip((ys, xs), predictor.image_size, strict=True)
        )
        seen = down[:, tf.newaxis] & along
        return {name: _blank(one, seen) for name, one in found.items()}

    return answer


def place_pixels_in_graph(
    source: tf.Tensor, size: tuple[int, int], mode: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws `tl_toolkit.images.targets.place_pixels` into a graph, equal to it bit for bit.

    Args:
        source: int32 (2,), height and width of the image.
        size: Height and width that it is resized to.
        mode: As of `resize_image`.

    Returns:
        float32 (height,) and (width,).
    """
    before = tf.cast(source, tf.float64)
    after = tf.constant(size, tf.float64)
    scale = after / before
    if mode == "crop":
        scale = tf.repeat(tf.reduce_max(scale), 2)
    shift = (after - before * scale) / 2
    rows, columns = (
        tf.cast(
            (tf.cast(tf.range(source[axis]), tf.float64) + 0.5) * scale[axis] + shift[axis] - 0.5,
            tf.float32,
        )
        for axis in (0, 1)
    )
    return rows, columns


def _blank(answer: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    """Empties an answer (h, w, ...) where the model has not seen the image: bool (h, w)."""
    # Not shared with `tl_toolkit.tasks.dense.evaluation.blank_unseen`: parity holds it to that one.
    while seen.shape.rank < answer.shape.rank:
        seen = seen[..., tf.newaxis]
    return tf.where(seen, answer, tf.cast(IGNORE if answer.dtype.is_integer else 0, answer.dtype))


def _check_encodings(kept: _Answer) -> None:
    for name, one in kept.items():
        if one.dtype.is_floating and name not in RANGES:
            raise ValueError(f"{name}: expected one of {sorted(RANGES)}, whose range is known")
        if not one.dtype.is_floating and one.dtype != tf.uint8:
            raise ValueError(f"{name}: expected uint8 or a float, got {one.dtype.name}")


def _encode(name: str, answer: tf.Tensor) -> tf.Tensor:
    """Encodes an answer (h, w) or (h, w, 3) as PNG; see `write_pixel_model`."""
    if answer.dtype.is_floating:
        low, high = RANGES[name]
        answer = tf.round((answer - low) / (high - low) * tf.uint16.max)
        answer = tf.saturate_cast(answer, tf.uint16)
    return tf.io.encode_png(answer if answer.shape.rank == 3 else answer[..., tf.newaxis])
