"""Compares each pixel's prediction of an exported model with the Keras model's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.images.bands import decode_file
from tl_toolkit.images.decoder import resize_image
from tl_toolkit.tasks.dense.predictor import DensePredictor
from tl_toolkit.tasks.dense.resizing import blank_unseen, find_seen, place_pixels
from tl_toolkit.tasks.dense.serving import RANGES, name_encoded
from tl_toolkit.tasks.dense.task import PREFIX_BATCH, DenseTask
from tl_toolkit.tasks.parity import BYTES_LIMIT, Limits, add_probes, make_report, read_otherwise
from tl_toolkit.tasks.types import Ask, Resize

__all__ = ["compare_maps"]

MAX_PIXELS = 8 << 20
"""Pixels of all images together: each is predicted twice, which takes minutes for large photos."""

_LINES = 96
"""Rows, and columns, of each image that the Keras side predicts: it interpolates the hypercolumn
itself, which takes up to 44 times longer. Images up to that size, as
the probes, are compared whole."""

_MARGIN = "margin"


@dataclass(frozen=True)
class _Expected:
    """The Keras model's prediction on some lines of an image.

    Attributes:
        size: Height and width of the image.
        rows: int (n,), ascending.
        columns: int (m,), ascending.
        maps: Maps of the task, by name, (n, m, ...) each.
        clear: bool (n, m), where no other class is nearly as probable.
    """

    size: tuple[int, ...]
    rows: np.ndarray
    columns: np.ndarray
    maps: Mapping[str, np.ndarray]
    clear: np.ndarray


def compare_maps(
    model: keras.Model,
    files: Mapping[str, bytes],
    task: DenseTask,
    resize: Resize,
    *,
    ask: Ask,
    limits: Limits,
) -> dict[str, Any]:
    """Compares an exported model, in a process of its own, with the Keras model in this one.

    Images keep their own sizes. The Keras side interpolates the hypercolumn before its first dense
    layer, the exported model behind it.

    Args:
        model: [images, pixels] to outputs.
        files: Encoded images by name, perhaps none; those beyond MAX_PIXELS are left out.
        task: The task, which reduces outputs to maps.
        resize: How images are resized to the model's size.
        ask: Runs the exported model.
        limits: The largest differences allowed.

    Returns:
        The report. A clear pixel with another class counts as a difference of 1.
    """
    channels = model.inputs[0].shape[-1]
    encoded_images = add_probes(_choose(files, channels), channels)
    images = {name: read_otherwise(data, channels) for name, data in encoded_images.items()}
    wait = ask([image[np.newaxis] for image in images.values()], [*encoded_images.values()])
    otherwise = _decode_otherwise(encoded_images, images)
    predicted = list(
        _predict_in_keras(model, [*images.values(), *otherwise.values()], task, resize)
    )
    expecting = dict(zip(images, predicted, strict=False))
    expecting_of_files = expecting | dict(zip(otherwise, predicted[len(images) :], strict=True))
    differences = []
    num_wrong = 0
    served = wait()
    for name, batch, encoded in zip(images, served.pixels, served.encoded, strict=True):
        from_pixels, wrong_pixels = _compare(_first(batch), expecting[name])
        expected = expecting_of_files[name]
        from_bytes, wrong_bytes = _compare(_read_files(encoded, expected), expected)
        differences.append((name, from_pixels, from_bytes))
        num_wrong += wrong_pixels + wrong_bytes
    return make_report(
        differences,
        labels_equal=not num_wrong,
        class_names_equal=served.class_names == task.classes,
        limits=limits,
    )


def _choose(files: Mapping[str, bytes], channels: int) -> dict[str, bytes]:
    """Returns the first files up to MAX_PIXELS, at least one."""
    chosen: dict[str, bytes] = {}
    pixels = 0
    for name, data in files.items():
        pixels += math.prod(read_otherwise(data, channels).shape[:2])
        if chosen and pixels > MAX_PIXELS:
            break
        chosen[name] = data
    return chosen


def _decode_otherwise(
    files: Mapping[str, bytes], images: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the images as our decoder reads them where it differs from Pillow by one level.

    CMYK images may differ, which is enough to change a prediction where classes meet. Images that
    differ by more are not returned, and the comparison will report them.
    """
    decoded = {}
    for name, data in files.items():
        image = decode_file(data, images[name].shape[-1]).numpy()
        same_size = image.shape == images[name].shape
        if same_size and np.abs(np.subtract(image, images[name], dtype=np.float32)).max() == 1:
            decoded[name] = image
    return decoded


def _predict_in_keras(
    model: keras.Model, images: Sequence[np.ndarray], task: DenseTask, resize: Resize
) -> Iterator[_Expected]:
    predictor = DensePredictor(model, mode="gather_first")
    size = predictor.image_size

    def postprocess(outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {**task.postprocess(outputs), _MARGIN: _find_margin(outputs)}

    for start in range(0, len(images), PREFIX_BATCH):
        some = images[start : start + PREFIX_BATCH]
        maps = predictor.read_maps(np.stack([resize_image(image, size, resize) for image in some]))
        for number, image in enumerate(some):
            rows, columns = (_pick(length) for length in image.shape[:2])
            ys, xs = place_pixels(image.shape[:2], size, resize)
            ys, xs = ys[rows], xs[columns]
            predicted = predictor.predict([tensor[number] for tensor in maps], ys, xs, postprocess)
            seen = np.logical_and.outer(*find_seen(ys, xs, size))
            clear = (predicted.pop(_MARGIN) > 2 * BYTES_LIMIT) | ~seen
            blanked = {name: blank_unseen(values, seen) for name, values in predicted.items()}
            yield _Expected(image.shape[:2], rows, columns, blanked, clear)


def _pick(length: int) -> np.ndarray:
    """Returns evenly spread indices, the first and the last among them."""
    return np.linspace(0, length - 1, min(length, _LINES)).round().astype(int)


def _find_margin(outputs: tf.Tensor) -> tf.Tensor:
    """Returns how far the best of probabilities (..., units) is above the next, (...)."""
    if outputs.shape[-1] == 1:
        return tf.abs(2 * outputs[..., 0] - 1)
    best = tf.math.top_k(outputs, 2).values
    return best[..., 0] - best[..., 1]


def _first(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the outputs of the first image of a batch."""
    return {name: values[0] for name, values in batch.items()}


def _read_files(encoded: Mapping[str, np.ndarray], expected: _Expected) -> dict[str, np.ndarray]:
    """Returns maps as they were before they became PNG files; see `build_endpoints`."""
    if (int(encoded["height"]), int(encoded["width"])) != expected.size:
        return {}
    maps = {}
    for name, target in expected.maps.items():
        values = encoded[name_encoded(name)]
        values = values if target.ndim == 3 else values[..., 0]
        if values.dtype == np.uint16:
            low, high = RANGES[name]
            values = low + values / np.float64(65535) * (high - low)
        maps[name] = values
    return maps


def _compare(maps: Mapping[str, np.ndarray], expected: _Expected) -> tuple[float, int]:
    """Returns the largest difference, and how many clear pixels have another class."""
    differences, num_wrong = [], 0
    for name, target in expected.maps.items():
        values = maps.get(name)
        if values is None or values.shape != expected.size + target.shape[2:]:
            return 1.0, target.shape[0] * target.shape[1]
        values = values[np.ix_(expected.rows, expected.columns)]
        if target.dtype.kind == "u":
            count = int(((values != target) & expected.clear).sum())
            num_wrong += count
            differences.append(float(count > 0))
        else:
            differences.append(float(np.abs(values - target).max()))
    return float(np.max(differences)), num_wrong
