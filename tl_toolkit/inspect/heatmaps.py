"""Heat maps: which parts of an image speak for an output of a model.

Each method returns one number for each position: above 0 where it speaks for the output. All of
them explain the score before softmax or sigmoid: a probability near 1 has hardly a gradient, and
that of one class rises where another class loses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.inspect.methods import HEAT_METHODS, check_method
from tl_toolkit.inspect.scores import Goals, ScoredModel

__all__ = [
    "METHODS",
    "HeatMaps",
    "compute_gradcam",
    "compute_gradcam_plus_plus",
    "compute_heatmaps",
    "compute_layercam",
    "explain_images",
    "integrate_gradients",
    "occlude",
    "scale_heat",
]

BATCH_SIZE = 4
"""Images whose activations, and gradients, are in memory at once."""

STEPS = 32
"""Steps of the sum that stands for the integral of gradients."""

_OCCLUSIONS = 16
"""Images with an occluded patch that run at once."""

_SIDES = 8
"""Patches that lie side by side along the shorter side of an image."""

Method = Callable[[ScoredModel, np.ndarray, Goals], np.ndarray]
"""From images float32 (batch, h, w, channels) and what is explained of each to float32 (batch, h',
w'), positive where a position speaks for it."""


@dataclass(frozen=True)
class HeatMaps:
    """Heat maps of some images.

    Attributes:
        heat: float32 (n, h, w) in [0, 1], as `compute_heatmaps` returns it.
        outputs: int (n,), the explained output of each image.
        values: float32 (n,), what the model gives for it, as a probability; of pixels the mean over
            those that count.
        shares: float32 (n,), the share of the pixels that count; 1 where an image has one vector of
            outputs.
        layer: Name of the layer whose map is explained.
    """

    heat: np.ndarray
    outputs: np.ndarray
    values: np.ndarray
    shares: np.ndarray
    layer: str


def compute_heatmaps(
    model: keras.Model,
    images: np.ndarray,
    method: str = "gradcam",
    *,
    targets: Sequence[int] | np.ndarray | None = None,
    layer: str | None = None,
    is_pair: bool = False,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Computes the heat map of each image.

    Args:
        model: A flat functional model, as `Run.model` or `assemble` gives it: float32 (batch, h, w,
            channels) to (batch, outputs); or [images, pixels] to (batch, n, outputs), as tasks with
            an output for each pixel have it. It runs in inference mode.
        images: (n, h, w, channels), as the model takes them: RGB in 0..255, or bands.
        method: One of `HEAT_METHODS`.
        targets: The explained output of each image; None for the one with the greatest score. Of
            pixels, it is the sum of an output's scores over the pixels where it is the greatest
            (above 0, if it is the only one) on a grid of up to 56 x 56 of them; None for the
            output that is predicted at most pixels. A map is 0 where it is predicted at none.
        layer: Name of the layer whose map is explained. By default the last one of the base with
            more than one position, which is its last cut of that kind; for integrated gradients the
            images. A map that is read by the head and by layers behind it counts for both.
            Occlusion takes none.
        is_pair: The model has one output, the probability of the second of two classes: target 0 is
            the first class, target 1 the second.
        batch_size: Images at once.

    Returns:
        float32 (n, h, w) in [0, 1]: the positive part, divided by its greatest value, so that each
        map has a 1, unless it is 0 all over.

    Raises:
        RecipeError: There is no such method, or no map of that layer.
        ValueError: `targets` are no outputs of the model.
    """
    return explain_images(
        model,
        images,
        method,
        targets=targets,
        layer=layer,
        is_pair=is_pair,
        batch_size=batch_size,
    ).heat


def explain_images(
    model: keras.Model,
    images: np.ndarray,
    method: str = "gradcam",
    *,
    targets: Sequence[int] | np.ndarray | None = None,
    layer: str | None = None,
    everywhere: bool = False,
    is_pair: bool = False,
    batch_size: int = BATCH_SIZE,
) -> HeatMaps:
    """Computes the heat map of each image, and says what it explains.

    Args:
        model: As in `compute_heatmaps`.
        images: As in `compute_heatmaps`.
        method: As in `compute_heatmaps`.
        targets: As in `compute_heatmaps`.
        layer: As in `compute_heatmaps`.
        everywhere: All pixels count, as those of outputs that are no classes.
        is_pair: As in `compute_heatmaps`.
        batch_size: As in `compute_heatmaps`.

    Raises:
        RecipeError: As in `compute_heatmaps`.
        ValueError: As in `compute_heatmaps`.
    """
    check_method(method, layer)
    if targets is not None and len(targets) != len(images):
        raise ValueError(f"targets: expected {len(images)} numbers, got {len(targets)}")
    runs_often = method in _RUNNING_OFTEN
    if runs_often and layer is None:
        layer = model.inputs[0].name
    scored = ScoredModel(model, layer, compiled=runs_often, is_pair=is_pair)
    heat, goals = [], []
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size], np.float32)
        outputs = None if targets is None else targets[start : start + batch_size]
        goals.append(scored.find_goals(batch, outputs, everywhere=everywhere))
        heat.append(scored.resize(METHODS[method](scored, batch, goals[-1])))
    return HeatMaps(
        scale_heat(np.concatenate(heat)),
        np.concatenate([goal.outputs for goal in goals]),
        np.concatenate([goal.values for goal in goals]),
        np.concatenate([goal.counted.mean(axis=1) for goal in goals]),
        scored.layer,
    )


def scale_heat(heat: np.ndarray) -> np.ndarray:
    """Returns the positive part of maps, each divided by its greatest value.

    Args:
        heat: (n, h, w).

    Returns:
        float32 (n, h, w) in [0, 1]; 0 where a map has no value above 0.
    """
    positive = np.maximum(heat, 0)
    greatest = positive.max(axis=(1, 2), keepdims=True)
    scaled: np.ndarray = positive / np.where(greatest > 0, greatest, 1)
    return scaled.astype(np.float32)


def compute_gradcam(scored: ScoredModel, images: np.ndarray, goals: Goals) -> np.ndarray:
    """Grad-CAM (Selvaraju et al., 2017): channels, each weighted by its mean gradient.

    Behind average pooling and one dense layer this is CAM (Zhou et al., 2016), but for a factor.

    Args:
        scored: The model, and the layer whose map is explained.
        images: float32 (batch, h, w, channels).
        goals: What is explained of each image.

    Returns:
        float32 (batch, h', w'); the paper's ReLU is left to `scale_heat`.
    """
    maps, gradients = scored.differentiate(images, goals)
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    heat: np.ndarray = tf.reduce_sum(weights * maps, axis=-1).numpy()
    return heat


def compute_gradcam_plus_plus(scored: ScoredModel, images: np.ndarray, goals: Goals) -> np.ndarray:
    """Grad-CAM++ (Chattopadhay et al., 2018): each position of a channel has a weight of its own.

    Several objects of a class count alike, whatever their sizes. The paper explains exp(score):
    its derivatives are powers of the score's gradient (equation 19), and the common factor
    exp(score) is left out, as maps are scaled afterwards.

    Args:
        scored: As in `compute_gradcam`.
        images: As in `compute_gradcam`.
        goals: As in `compute_gradcam`.

    Returns:
        As `compute_gradcam`.
    """
    maps, gradients = scored.differentiate(images, goals)
    # Gradients of large maps are small, and their cubes would vanish in float32.
    greatest = tf.reduce_max(tf.abs(gradients), axis=(1, 2, 3), keepdims=True)
    gradients = tf.math.divide_no_nan(gradients, greatest)
    sums = tf.reduce_sum(maps, axis=(1, 2), keepdims=True)
    below = 2 * gradients**2 + sums * greatest * gradients**3
    shares = tf.math.divide_no_nan(gradients**2, below)
    weights = tf.reduce_sum(shares * tf.nn.relu(gradients), axis=(1, 2), keepdims=True)
    heat: np.ndarray = tf.reduce_sum(weights * maps, axis=-1).numpy()
    return heat


def compute_layercam(scored: ScoredModel, images: np.ndarray, goals: Goals) -> np.ndarray:
    """LayerCAM (Jiang et al., 2021): each value by its gradient, where that is above 0.

    It suits blocks near the input too, whose mean gradients say little.

    Args:
        scored: As in `compute_gradcam`.
        images: As in `compute_gradcam`.
        goals: As in `compute_gradcam`.

    Returns:
        As `compute_gradcam`.
    """
    maps, gradients = scored.differentiate(images, goals)
    heat: np.ndarray = tf.reduce_sum(tf.nn.relu(gradients) * maps, axis=-1).numpy()
    return heat


def integrate_gradients(
    scored: ScoredModel, images: np.ndarray, goals: Goals, *, steps: int = STEPS
) -> np.ndarray:
    """Integrated gradients (Sundararajan et al., 2017), on the way from black to each image.

    At a map inside, the gradient there goes with the change of the map along the same way: the
    conductance of its positions (Dhamdhere et al., 2019).

    Args:
        scored: As in `compute_gradcam`.
        images: As in `compute_gradcam`.
        goals: As in `compute_gradcam`.
        steps: Steps of the sum; gradients are taken in the middle of each.

    Returns:
        float32 (batch, h', w'). The sum over positions tends to the score of the image less that of
        a black one as steps grow, if all paths from the image to the output cross the map.
    """
    total = np.zeros((len(images), 1, 1), np.float32)
    before = scored.read(np.zeros_like(images))
    for step in range(steps):
        after = scored.read(images * np.float32((step + 1) / steps))
        middle = images * np.float32((step + 0.5) / steps)
        _, gradients = scored.differentiate(middle, goals)
        change = tf.cast(after, tf.float32) - tf.cast(before, tf.float32)
        total = total + tf.reduce_sum(gradients * change, axis=-1).numpy()
        before = after
    return total


def occlude(
    scored: ScoredModel,
    images: np.ndarray,
    goals: Goals,
    *,
    patch: int | None = None,
    stride: int | None = None,
) -> np.ndarray:
    """Occlusion (Zeiler and Fergus, 2014): how far the score falls when a patch is hidden.

    The patch is a square of the image's mean colour (the paper's is grey), which moves over the
    image by its stride; the last one in a row or column ends at the border.

    Args:
        scored: The model; its layer does not matter.
        images: As in `compute_gradcam`.
        goals: As in `compute_gradcam`.
        patch: Its side in pixels; by default an eighth of the image's shorter side.
        stride: By how many pixels it moves; by default half its side.

    Returns:
        float32 (batch, h, w): the mean over the patches that hide a pixel.
    """
    height, width = images.shape[1:3]
    patch = patch or max(1, round(min(height, width) / _SIDES))
    stride = stride or max(1, patch // 2)
    corners = [
        (y, x) for y in _starts(height, patch, stride) for x in _starts(width, patch, stride)
    ]
    heat = np.zeros(images.shape[:3], np.float32)
    for index, image in enumerate(images):
        whole = scored.score(image[np.newaxis], goals.take(index, 1))[0]
        hidden = np.zeros((height, width), np.float32)
        for start in range(0, len(corners), _OCCLUSIONS):
            chunk = corners[start : start + _OCCLUSIONS]
            occluded = np.repeat(image[np.newaxis], len(chunk), axis=0)
            for row, (y, x) in enumerate(chunk):
                occluded[row, y : y + patch, x : x + patch] = image.mean(axis=(0, 1))
            scores = scored.score(occluded, goals.take(index, len(chunk)))
            for (y, x), score in zip(chunk, scores, strict=True):
                heat[index, y : y + patch, x : x + patch] += whole - score
                hidden[y : y + patch, x : x + patch] += 1
        heat[index] /= hidden
    return heat


def _starts(length: int, patch: int, stride: int) -> list[int]:
    """Returns where patches begin along a side."""
    return sorted({*range(0, length - patch, stride), max(0, length - patch)})


METHODS: dict[str, Method] = dict(
    zip(
        HEAT_METHODS,
        (
            compute_gradcam,
            compute_gradcam_plus_plus,
            compute_layercam,
            integrate_gradients,
            occlude,
        ),
        strict=True,
    )
)
"""The function of each word of `HEAT_METHODS`."""

_RUNNING_OFTEN = ("integrated_gradients", "occlusion")
"""Methods that run the model many times; they explain the images unless a layer is named."""
