"""Scores of a model's outputs, before softmax or sigmoid, and their gradient at any map of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import as_list
from tl_toolkit.architectures.graph import find_cuts, sorted_calls
from tl_toolkit.errors import Problem, RecipeError, closest
from tl_toolkit.keras_private import logits_of
from tl_toolkit.transfer.heads import is_head

__all__ = ["MOST_PLACES", "Goals", "ScoredModel", "list_maps"]

MOST_PLACES = 56
"""Rows and columns of pixels, at most, whose outputs a model of pixels is explained by."""


@dataclass(frozen=True)
class Goals:
    """The outputs of a batch whose scores are explained.

    Attributes:
        outputs: int (batch,), an output of each image.
        counted: bool (batch, pixels), the pixels whose scores are added up: those where the output
            is predicted. (batch, 1) of ones where an image has one vector of outputs.
        values: float32 (batch,), the model's own output, as a probability: its mean over the pixels
            that count.
    """

    outputs: np.ndarray
    counted: np.ndarray
    values: np.ndarray

    def take(self, index: int, count: int) -> Goals:
        """Returns the goals of one image, several times.

        Args:
            index: The image's place in the batch.
            count: How many times.
        """
        rows = np.full(count, index)
        return Goals(self.outputs[rows], self.counted[rows], self.values[rows])


def list_maps(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns the maps (batch, h, w, channels) of a model by the names of their layers.

    Args:
        model: A functional model.

    Returns:
        The images, which come first, and the base's maps in the order of the graph; of a layer that
        is called twice the last one.
    """
    calls = sorted_calls(model)
    maps = {
        call.operation.name: call.outputs[0]
        for call in calls
        if not is_head(call.operation)
        and len(call.outputs) == 1
        and call.outputs[0] is not model.outputs[0]
        and len(call.outputs[0].shape or ()) == 4
    }
    image = model.inputs[0]
    first = next(name for name, tensor in maps.items() if tensor is image)
    return {first: image, **maps}


class ScoredModel:
    """A model as a function of images to a map inside, and to the scores of its outputs.

    Scores are logits where the last layer has a softmax or sigmoid, else the outputs themselves.

    Args:
        model: float32 (batch, h, w, channels) to (batch, outputs); or [images, pixels] to (batch,
            n, outputs), where `pixels` is (batch, n, 2), y and x: there the scores of a grid of
            pixels count, of all of them up to MOST_PLACES rows and columns.
        layer: Name of the layer whose map is read; by default the last cut of the base that has
            more than one position.
        compiled: Compile what runs, which takes seconds and pays for many calls.
        is_pair: The model has one output, the probability of the second of two classes; it is
            explained as one with an output of each, whose scores are each other's negative.

    Attributes:
        layer: The name of that layer.
        is_image: Whether it is the input, so that the map is the images themselves.

    Raises:
        RecipeError: The model has no such map.
    """

    def __init__(
        self,
        model: keras.Model,
        layer: str | None = None,
        *,
        compiled: bool = False,
        is_pair: bool = False,
    ) -> None:
        self._compiled = compiled
        self._is_pair = is_pair
        maps = list_maps(model)
        self.layer = _find_last(maps) if layer is None else layer
        if self.layer not in maps:
            raise RecipeError(_describe_unknown(self.layer, maps))
        self.is_image = maps[self.layer] is model.inputs[0]
        outputs = [model.outputs[0]] if self.is_image else [maps[self.layer], model.outputs[0]]
        self._inputs = model.inputs
        self._graph = keras.Model(model.inputs, outputs)
        self._run = self._compile(self._call)
        self._derive = self._compile(self._differentiate)
        self._padded = maps["pixels_pad"].shape[1:3] if "pixels_pad" in maps else None

    def _compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function of batches of any size."""
        images = tf.TensorSpec(self._inputs[0].shape, tf.float32)
        outputs, counted = tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None, None), tf.bool)
        if self._compiled:
            rest = () if function == self._call else (outputs, counted)
            traced: Callable[..., Any] = tf.function(
                function, input_signature=(images, *rest), autograph=False
            )
            return traced
        return lambda images, *rest: function(tf.convert_to_tensor(images, tf.float32), *rest)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        height, width = self._inputs[0].shape[1:3]
        return height, width

    def read(self, images: Any) -> tf.Tensor:
        """Returns the map of each image, float32 (batch, h', w', c).

        Args:
            images: float32 (batch, h, w, channels), as the model takes them.
        """
        return tf.convert_to_tensor(images) if self.is_image else self._run(images)[0]

    def _call(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns maps, scores and outputs, the latter two (batch, pixels, outputs)."""
        count = tf.shape(images)[0]
        further = [tf.tile(self._places[np.newaxis], (count, 1, 1)) for _ in self._inputs[1:]]
        results = as_list(self._graph([images, *further] if further else images, training=False))
        maps = images if self.is_image else results[0]
        scores, outputs = (
            tf.reshape(tf.cast(tensor, tf.float32), (count, -1, tensor.shape[-1]))
            for tensor in (logits_of(results[-1]), results[-1])
        )
        if self._is_pair:
            scores, outputs = (
                tf.concat(columns, axis=-1)
                for columns in ((-scores, scores), (1 - outputs, outputs))
            )
        return maps, scores, outputs

    @property
    def _places(self) -> np.ndarray:
        """The grid of pixels, float32 (n, 2), y and x."""
        ys, xs = map(_spread, self.image_size)
        grid = np.meshgrid(ys, xs, indexing="ij")
        return np.stack(grid, axis=-1).reshape(-1, 2).astype(np.float32)

    def find_goals(
        self,
        images: Any,
        outputs: Sequence[int] | np.ndarray | None,
        *,
        everywhere: bool = False,
    ) -> Goals:
        """Returns what is explained of each image.

        Args:
            images: float32 (batch, h, w, channels).
            outputs: An output of each image; None for the predicted one: the output of the greatest
                score; of pixels, the one that most of them are predicted as.
            everywhere: All pixels count, as those of outputs that are no classes.
        """
        _, scores, values = (tensor.numpy() for tensor in self._run(images))
        best = scores.argmax(axis=-1)
        chosen = _choose_outputs(best, scores.shape[-1], outputs)
        counted = np.ones(best.shape, bool)
        if scores.shape[1] > 1 and not everywhere:
            is_only = scores.shape[-1] == 1
            counted = scores[..., 0] > 0 if is_only else best == chosen[:, np.newaxis]
        own = np.take_along_axis(values, chosen[:, np.newaxis, np.newaxis], axis=-1)[..., 0]
        means = (own * counted).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
        return Goals(chosen, counted, means.astype(np.float32))

    def score(self, images: Any, goals: Goals) -> np.ndarray:
        """Returns the score that is explained of each image, float32 (batch,).

        Args:
            images: float32 (batch, h, w, channels).
            goals: Those of the same images.
        """
        scores: np.ndarray = _add_up(self._run(images)[1], goals.outputs, goals.counted).numpy()
        return scores

    def differentiate(self, images: Any, goals: Goals) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the map of each image, and the gradient of its score there.

        The gradient reaches the map through all layers behind it, also where a head reads it and
        maps behind it.

        Args:
            images: float32 (batch, h, w, channels).
            goals: Those of the same images.

        Returns:
            float32 (batch, h', w', c), twice.
        """
        maps, gradients = self._derive(images, goals.outputs, goals.counted)
        return maps, gradients

    def _differentiate(
        self, images: tf.Tensor, outputs: tf.Tensor, counted: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            maps, scores, _ = self._call(images)
            score = _add_up(scores, outputs, counted)
        gradients = tape.gradient(score, maps, unconnected_gradients="zero")
        return tf.cast(maps, tf.float32), tf.cast(gradients, tf.float32)

    def resize(self, heat: np.ndarray) -> np.ndarray:
        """Returns values of the map's positions as values of the images' pixels, bilinear.

        Args:
            heat: float32 (batch, h', w').

        Returns:
            float32 (batch, h, w).
        """
        if self.is_image:
            return heat
        # A model of pixels pads images below and at the right, to whole cells of its maps.
        resized = tf.image.resize(heat[..., np.newaxis], self._padded or self.image_size)
        height, width = self.image_size
        values: np.ndarray = resized[:, :height, :width, 0].numpy()
        return values


def _choose_outputs(
    best: np.ndarray, units: int, outputs: Sequence[int] | np.ndarray | None
) -> np.ndarray:
    """Returns an output of each image, int (batch,); by default the best at most pixels."""
    if outputs is None:
        outputs = [int(np.bincount(row, minlength=units).argmax()) for row in best]
    chosen = np.asarray(outputs, int)
    if chosen.shape != (len(best),) or chosen.min() < 0 or chosen.max() >= units:
        expected = f"expected {len(best)} numbers from 0 to {units - 1}"
        raise ValueError(f"targets: {expected}, got {list(chosen.ravel())}")
    return chosen


def _add_up(scores: tf.Tensor, outputs: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
    """Returns the sum over the counted pixels of an output's scores, float32 (batch,)."""
    own = tf.gather(scores, outputs, axis=-1, batch_dims=1)
    return tf.reduce_sum(own * tf.cast(counted, tf.float32), axis=-1)


def _spread(length: int) -> np.ndarray:
    """Returns places along a side of so many pixels, as far apart from each other."""
    step = -(-length // MOST_PLACES)
    return np.asarray(np.arange(length // step) * step + (step - 1) / 2)


def _find_last(maps: dict[str, keras.KerasTensor]) -> str:
    """Returns the last cut of the base with more than one position; the images if no other has."""
    names, tensors = list(maps), list(maps.values())
    if len(names) == 1:
        return names[0]
    # From the images to the last map: a head that reads several maps leaves no cut between them.
    cuts = find_cuts(keras.Function(tensors[0], tensors[-1]))
    wide = [cut.layer for cut in cuts if cut.layer in maps and cut.tensor.shape[1:3] != (1, 1)]
    return wide[-1] if wide else names[0]


def _describe_unknown(layer: str, maps: dict[str, keras.KerasTensor]) -> Problem:
    names = list(maps)
    guess = closest(layer, names)
    expected = f"Expected a layer with a map, from {names[0]} to {names[-1]}"
    what = f"{layer!r} has no map in this model"
    return Problem("--block", what, f"{expected}; {guess}" if guess else f"{expected}.")
