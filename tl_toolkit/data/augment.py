"""Random changes to training images, by Keras's own layers with seeds of our own.

What an image becomes hangs on the seed, the epoch and the image's key alone: not on its place in a
batch, the size of the batch, the order of the images or the process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.recipe.schema import Augment

__all__ = ["AugmentFunction", "build_augment"]

# (images, seed, epoch, keys) -> images; see build_augment.
AugmentFunction = Callable[[np.ndarray | tf.Tensor, int, int, np.ndarray], tf.Tensor]

_RANGE = (0, 255)


class _ImageSeeds(keras.random.SeedGenerator):
    """Gives the first, second, ... seed of the current image, in place of a stream with a state.

    Keras's layers take a whole number or a SeedGenerator as seed, and nothing else.
    """

    def __init__(self) -> None:
        super().__init__(seed=0)  # not drawn: that would move Python's own random numbers
        self._image: tf.Tensor | None = None
        self._drawn = 0

    def start(self, image: tf.Tensor) -> None:
        """Begins an image, whose own seed is this pair of int64."""
        self._image = image
        self._drawn = 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        """Returns a seed that no other draw for this image gets."""
        self._drawn += 1
        return tf.random.fold_in(self._image, self._drawn, alg="philox")


class _RandAugment(keras.layers.RandAugment):
    """Keras's RandAugment with the same result, computing only the operations that were drawn.

    Keras computes all eleven at each step and then picks one. One image at a time only.
    """

    def transform_images(
        self, images: tf.Tensor, transformation: dict[str, Any], training: bool = True
    ) -> tf.Tensor:
        """Applies the drawn operations to float32 (1, h, w, 3), one after the other."""
        transforms = transformation["transforms"]
        shape = images.shape
        for step in range(self.num_ops):
            branches = [
                functools.partial(_transform, getattr(self, name), images, transforms[name])
                for name in self._AUGMENT_LAYERS
            ]
            images = tf.switch_case(transformation["layer_idxes"][step], branches)
            images = tf.ensure_shape(images, shape)
        return images


def _transform(layer: keras.Layer, images: tf.Tensor, transformation: dict[str, Any]) -> tf.Tensor:
    return tf.cast(layer.transform_images(images, transformation), tf.float32)


def build_augment(augment: Augment | None) -> AugmentFunction:
    """Builds the function that changes training images.

    Args:
        augment: The recipe's section; None changes nothing.

    Returns:
        A function of uint8 or float images (n, h, w, 3) in 0..255, the run's seed, the epoch, and
        int64 keys (n,), one for each image. It gives float32 images of the same shape in 0..255.
    """
    layers = _build_layers(augment) if augment is not None else []
    if not layers:
        return lambda images, seed, epoch, keys: tf.cast(images, tf.float32)
    seeds = _ImageSeeds()
    for layer in layers:
        # RandAugment takes none as an argument; its parts draw from its own generator.
        layer.generator = seeds
    functions: dict[
        tuple[int, ...], Callable[..., tf.Tensor]
    ] = {}  # One trace for each image size.

    def run(images: np.ndarray | tf.Tensor, seed: int, epoch: int, keys: np.ndarray) -> tf.Tensor:
        # On the CPU: some of the operations have no deterministic form on a GPU.
        with tf.device("CPU:0"):
            images = tf.cast(images, tf.float32)
            size = tuple(images.shape[1:3])
            if size not in functions:
                functions[size] = _compile(layers, seeds, size)
            start = tf.constant([seed, epoch], tf.int64)
            return functions[size](images, start, tf.constant(keys, tf.int64))

    return run


def _build_layers(augment: Augment) -> list[keras.Layer]:
    # A fixed seed keeps Keras from drawing one for each layer from Python's random numbers.
    common = {"seed": 0, "dtype": "float32", "data_format": "channels_last"}
    layers: list[keras.Layer] = []
    if augment.flip:
        mode = "horizontal_and_vertical" if augment.flip == "both" else augment.flip
        layers.append(keras.layers.RandomFlip(mode, **common))
    if augment.rotation:
        layers.append(keras.layers.RandomRotation(augment.rotation, **common))
    if augment.zoom:
        layers.append(keras.layers.RandomZoom(augment.zoom, **common))
    if augment.contrast:
        # A pair: from one number Keras 3.15 makes (0, number), which can only raise the contrast.
        factor = (augment.contrast, augment.contrast)
        layers.append(keras.layers.RandomContrast(factor, value_range=_RANGE, **common))
    if augment.rand_augment:
        chosen = augment.rand_augment
        layers.append(
            _RandAugment(_RANGE, num_ops=chosen.num_ops, factor=chosen.magnitude, **common)
        )
    return layers


def _compile(
    layers: Sequence[keras.Layer], seeds: _ImageSeeds, size: tuple[int, int]
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    image_spec = tf.TensorSpec([*size, 3], tf.float32)

    def change(image: tf.Tensor, start: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        seeds.start(tf.random.fold_in(start, key, alg="philox"))
        # Alone in its batch: Keras's Equalization counts the grey levels of the whole batch.
        images = image[tf.newaxis]
        for layer in layers:
            images = layer(images, training=True)
        return tf.clip_by_value(images[0], *_RANGE)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, *size, 3], tf.float32),
            tf.TensorSpec([2], tf.int64),
            tf.TensorSpec([None], tf.int64),
        ],
        autograph=False,
    )
    def run(images: tf.Tensor, start: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda pair: change(pair[0], start, pair[1]),
            (images, keys),
            fn_output_signature=image_spec,
        )

    return run
