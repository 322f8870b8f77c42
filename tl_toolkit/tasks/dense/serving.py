"""The functions of an exported model with one output per pixel: from images to maps."""

from __future__ import annotations

import keras
import tensorflow as tf

from tl_toolkit.images.bands import dtype_of, find_decoder
from tl_toolkit.images.decoder import fit_inside, resize_image
from tl_toolkit.images.geometry import Padding
from tl_toolkit.tasks.dense.predictor import DensePredictor
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.dense.task import DenseTask
from tl_toolkit.tasks.types import Endpoints, Resize

__all__ = ["RANGES", "build_endpoints", "name_encoded", "place_pixels_in_graph"]

RANGES = {"probability": (0.0, 1.0), "normal": (-1.0, 1.0)}
"""The range of float maps, by the task's name for them: black and white as PNG."""

_Maps = dict[str, tf.Tensor]


def build_endpoints(
    model: keras.Model, task: DenseTask, resize: Resize, *, webp: bool = True
) -> Endpoints:
    """Returns the functions of an exported model.

    Maps have the size of their images and the task's names: of a segmentation `mask`, the
    index of the class, and `probability`.

    - `serve_images` takes uint8 RGB (batch, h, w, 3), or float32 bands (batch, h, w, channels), of
      any size and returns each map as it is:
      `mask` uint8 (batch, h, w), `probability` float32 (batch, h, w), in 0..1.
    - `serve_bytes` takes encoded images (batch,), each of its own size, and returns each map as PNG
      files (batch,), named `mask_bytes` and `probability_bytes`, with `height` and `width` int32
      (batch,), those of the image turned upright.
      Integers are 8-bit grey and hold the index. Floats have 16 bits, 0 for the lowest value and
      65535 for the highest: a `probability` is grey / 65535; a `normal` is RGB, value / 65535 * 2 -
      1. Rounding to 16 bits changes a probability by 8e-6 at most.

    Where "crop" cut pixels off, integers are 255 and floats 0. Images are predicted one by one and
    in tiles of rows: memory does not grow with the batch, nor does a map change with it.

    Args:
        model: [images, pixels] to outputs, as a run keeps it.
        task: The task, which reduces outputs to maps.
        resize: How images are resized to the model's size.
        webp: Whether encoded images may be WebP, which takes TensorFlow 2.20.

    Raises:
        ValueError: The task has a float map that RANGES lacks, or integers other than uint8.
    """
    examples = task.postprocess(tf.zeros((1, 1, task.units)))
    _check_encodings(examples)
    predictor = DensePredictor(model)
    predict = _build_prediction(predictor, task, resize)
    decode = find_decoder(predictor.channels, webp=webp)

    def serve_images(image: tf.Tensor) -> _Maps:
        signature = {
            name: tf.TensorSpec((None, None, *values.shape[2:]), values.dtype)
            for name, values in examples.items()
        }
        maps: _Maps = tf.map_fn(
            predict, image, parallel_iterations=1, fn_output_signature=signature
        )
        return maps

    def serve_file(encoded: tf.Tensor) -> _Maps:
        image = decode(encoded)
        height, width = tf.unstack(tf.shape(image)[:2])
        files = {
            name_encoded(name): _encode(name, values) for name, values in predict(image).items()
        }
        return {**files, "height": height, "width": width}

    def serve_bytes(encoded: tf.Tensor) -> _Maps:
        signature = {name_encoded(name): tf.TensorSpec((), tf.string) for name in examples}
        signature |= {side: tf.TensorSpec((), tf.int32) for side in ("height", "width")}
        maps: _Maps = tf.map_fn(
            serve_file, encoded, parallel_iterations=1, fn_output_signature=signature
        )
        return maps

    return Endpoints(serve_images, serve_bytes)


def name_encoded(name: str) -> str:
    """Returns the name of an output that holds the files of a map, as "mask_bytes".

    TensorFlow Serving's REST interface encodes outputs of such a name as base64; it takes all other
    strings for UTF-8, which a PNG file is not.

    Args:
        name: The task's name for the map.
    """
    return f"{name}_bytes"


def _build_prediction(
    predictor: DensePredictor, task: DenseTask, resize: Resize
) -> tf.types.experimental.Callable:
    """Returns the function from one image, (h, w, channels), to its maps, (h, w, ...) each."""
    spec = tf.TensorSpec(
        (None, None, predictor.channels), tf.as_dtype(dtype_of(predictor.channels))
    )

    # Compiled by itself, so that both signatures call one function, which is saved once.
    @tf.function(input_signature=[spec], autograph=False)
    def predict(image: tf.Tensor) -> _Maps:
        resized = resize_image(image, predictor.image_size, resize)
        maps = predictor.build_maps(tf.cast(resized, tf.float32)[tf.newaxis])
        ys, xs = place_pixels_in_graph(tf.shape(image)[:2], predictor.image_size, resize)
        predictions = predictor.build_predictions(
            [tensor[0] for tensor in maps], ys, xs, reduce=task.postprocess
        )
        down, along = (
            (places >= -0.5) & (places <= side - 0.5)
            for places, side in zip((ys, xs), predictor.image_size, strict=True)
        )
        seen = down[:, tf.newaxis] & along
        return {name: _blank(values, seen) for name, values in predictions.items()}

    return predict


def place_pixels_in_graph(
    source: tf.Tensor, size: tuple[int, int], mode: Resize
) -> tuple[tf.Tensor, tf.Tensor]:
    """Builds `tl_toolkit.tasks.dense.resizing.place_pixels` into a graph, equal to it bit for bit.

    Args:
        source: int32 (2,), height and width of the image.
        size: Height and width that it is resized to.
        mode: As in `resize_image`.

    Returns:
        float32 (height,) and (width,).
    """
    before = tf.cast(source, tf.float64)
    after = tf.constant(size, tf.float64)
    scale = after / before
    if mode == "crop":
        scale = tf.repeat(tf.reduce_max(scale), 2)
    shift = (after - before * scale) / 2
    if isinstance(mode, Padding):
        scale, start, _ = fit_inside(source, size)
        shift = tf.cast(start, tf.float64)
    rows, columns = (
        tf.cast(
            (tf.cast(tf.range(source[axis]), tf.float64) + 0.5) * scale[axis] + shift[axis] - 0.5,
            tf.float32,
        )
        for axis in (0, 1)
    )
    return rows, columns


def _blank(values: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    """Empties a map (h, w, ...) where the model has not seen the image: bool (h, w)."""
    # Not shared with `tl_toolkit.tasks.dense.evaluation.blank_unseen`: parity compares the two.
    while seen.shape.rank < values.shape.rank:
        seen = seen[..., tf.newaxis]
    return tf.where(seen, values, tf.cast(IGNORE if values.dtype.is_integer else 0, values.dtype))


def _check_encodings(maps: _Maps) -> None:
    for name, values in maps.items():
        if values.dtype.is_floating and name not in RANGES:
            raise ValueError(f"{name}: expected one of {sorted(RANGES)}, whose range is known")
        if not values.dtype.is_floating and values.dtype != tf.uint8:
            raise ValueError(f"{name}: expected uint8 or a float, got {values.dtype.name}")


def _encode(name: str, values: tf.Tensor) -> tf.Tensor:
    """Encodes a map (h, w) or (h, w, 3) as PNG; see `build_endpoints`."""
    if values.dtype.is_floating:
        low, high = RANGES[name]
        values = tf.round((values - low) / (high - low) * tf.uint16.max)
        values = tf.saturate_cast(values, tf.uint16)
    return tf.io.encode_png(values if values.shape.rank == 3 else values[..., tf.newaxis])
