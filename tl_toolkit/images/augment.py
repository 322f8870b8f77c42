"""Random changes to training images, by Keras's own layers with seeds of our own.

What an image becomes depends on the seed, the epoch and the image's key alone: not on its place in
a batch, the size of the batch, the order of the images or the process. How its pixels move can
therefore be computed without it, and the targets of the pixels can move as the image does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.catalog.records import RGB
from tl_toolkit.images.geometry import GeometricTransform
from tl_toolkit.keras_private import (
    rand_augment_layers,
    shear_matrix,
    translation_matrix,
    zoom_matrix,
)

__all__ = [
    "AugmentFunction",
    "AugmentSettings",
    "GeometricTransform",
    "RandAugmentSettings",
    "TransformFunction",
    "build_augment",
    "build_geometric_transform",
]

# (images, seed, epoch, keys) -> images; see build_augment.
AugmentFunction = Callable[[np.ndarray | tf.Tensor, int, int, np.ndarray], tf.Tensor]

# (seed, epoch, key) -> how the pixels of the image move; see build_geometric_transform.
TransformFunction = Callable[[int, int, int], "GeometricTransform"]

_RANGE = (0, 255)


@dataclass(frozen=True)
class RandAugmentSettings:
    """RandAugment (Cubuk et al., 2020): a few operations chosen at random for each image.

    Attributes:
        num_ops: Operations per image.
        magnitude: Their strength, 0 to 1.
    """

    num_ops: int = 2
    magnitude: float = 0.5


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes to training images, in this order; what is None or 0 changes nothing.

    Attributes:
        flip: "horizontal", "vertical" or "both": mirror half of the images.
        rotation: Largest turn either way as a fraction of a full turn.
        zoom: Largest zoom in or out as a fraction of the size.
        contrast: Largest change of contrast as a fraction.
        brightness: Largest change of brightness as a fraction of white.
        saturation: Largest change of saturation as a fraction.
        hue: Largest turn of the hue as a fraction of the colour circle.
        rand_augment: RandAugment.
        erasing: Share of the images in which a rectangle is erased (Zhong et al., 2020).
        mixup: Parameter of the shares by which images are blended, as in `mixing.Mixer`.
        cutmix: That of the boxes by which images are pasted.
    """

    flip: str | None = None
    rotation: float | None = None
    zoom: float | None = None
    contrast: float | None = None
    brightness: float | None = None
    saturation: float | None = None
    hue: float | None = None
    rand_augment: RandAugmentSettings | None = None
    erasing: float | None = None
    mixup: float | None = None
    cutmix: float | None = None

    @property
    def changes_images(self) -> bool:
        """Whether images are changed, each by itself; mixing alone leaves them as they are."""
        return self != AugmentSettings(mixup=self.mixup, cutmix=self.cutmix)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> AugmentSettings:
        """Returns the changes that plain values describe, as a recipe has them.

        Args:
            values: The attributes; `rand_augment` as a mapping or None.
        """
        chosen = values.get("rand_augment")
        rand_augment = None if chosen is None else RandAugmentSettings(**chosen)
        return cls(**{**values, "rand_augment": rand_augment})


class _ImageSeeds(keras.random.SeedGenerator):
    """Gives the first, second, ... seed of the current image, in place of a stream with a state.

    Keras's layers take a whole number or a SeedGenerator as seed, and nothing else.
    """

    def __init__(self) -> None:
        super().__init__(
            seed=0
        )  # a fixed one: sampling it would advance Python's own random numbers
        self._image: tf.Tensor | None = None
        self._sampled = 0

    def start(self, image: tf.Tensor) -> None:
        """Begins an image, whose own seed is this pair of int64."""
        self._image = image
        self._sampled = 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        """Returns a seed that no other sample for this image gets."""
        self._sampled += 1
        return tf.random.fold_in(self._image, self._sampled, alg="philox")


class _RandAugment(keras.layers.RandAugment):
    """Keras's RandAugment with the same result, computing only the operations that were sampled.

    Keras computes all eleven at each step and then picks one. One image at a time only.
    """

    def transform_images(
        self, images: tf.Tensor, transformation: dict[str, Any], training: bool = True
    ) -> tf.Tensor:
        """Applies the sampled operations to float32 (1, h, w, 3), one after the other."""
        transforms = transformation["transforms"]
        shape = images.shape
        for step in range(self.num_ops):
            branches = [
                functools.partial(_transform, layer, images, transforms[name])
                for name, layer in rand_augment_layers(self).items()
            ]
            images = tf.switch_case(transformation["layer_idxes"][step], branches)
            images = tf.ensure_shape(images, shape)
        return images


def _transform(layer: keras.Layer, images: tf.Tensor, transformation: dict[str, Any]) -> tf.Tensor:
    return tf.cast(layer.transform_images(images, transformation), tf.float32)


def build_augment(augment: AugmentSettings | None) -> AugmentFunction:
    """Builds the function that changes training images.

    Args:
        augment: The changes; None changes nothing.

    Returns:
        A function of uint8 or float images (n, h, w, 3) in 0..255, the run's seed, the epoch, and
        int64 keys (n,), one for each image. It gives float32 images of the same shape in 0..255.
        Images with other channels than 3 have no range, and are not cut to one.
    """
    seeds = _ImageSeeds()
    layers = _build_layers(augment, seeds) if augment is not None else []
    if not layers:
        return lambda images, seed, epoch, keys: tf.cast(images, tf.float32)
    functions: dict[
        tuple[int, ...], Callable[..., tf.Tensor]
    ] = {}  # One trace for each shape of images.

    def run(images: np.ndarray | tf.Tensor, seed: int, epoch: int, keys: np.ndarray) -> tf.Tensor:
        # On the CPU: some of the operations have no deterministic form on a GPU.
        with tf.device("CPU:0"):
            images = tf.cast(images, tf.float32)
            shape = tuple(images.shape[1:])
            if shape not in functions:
                functions[shape] = _compile(_release(layers, shape), seeds, shape)
            start = tf.constant([seed, epoch], tf.int64)
            return functions[shape](images, start, tf.constant(keys, tf.int64))

    return run


def build_geometric_transform(
    augment: AugmentSettings, image_size: tuple[int, int]
) -> TransformFunction:
    """Builds the function that computes how `build_augment` moves the pixels of an image.

    Args:
        augment: The changes.
        image_size: Height and width of the images.

    Returns:
        A function of the run's seed, the epoch and the image's key, which several threads may call.
    """
    seeds = _ImageSeeds()
    layers = _build_layers(augment, seeds)
    # Traced here: the seeds cannot be counted in two threads at a time.
    with tf.device("CPU:0"):
        sample = _compile_transform(layers, seeds, image_size).get_concrete_function()

    def run(seed: int, epoch: int, key: int) -> GeometricTransform:
        with tf.device("CPU:0"):
            start = tf.constant([seed, epoch], tf.int64)
            steps = sample(start, tf.constant(key, tf.int64))
        return GeometricTransform(steps.numpy())

    return run


def _build_layers(augment: AugmentSettings, seeds: _ImageSeeds) -> list[keras.Layer]:
    # A fixed seed keeps Keras from sampling one for each layer from Python's random numbers.
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
    if augment.brightness:
        layers.append(
            keras.layers.RandomBrightness(augment.brightness, value_range=_RANGE, **common)
        )
    if augment.saturation:
        # Keras takes f for the multiple f / (1 - f), and limits saturations, from 0 to 1, by the
        # range that is meant for colours.
        least, most = (
            share / (1 + share) for share in (1 - augment.saturation, 1 + augment.saturation)
        )
        layers.append(keras.layers.RandomSaturation((least, most), value_range=(0, 1), **common))
    if augment.hue:
        # Keras's unit is half of the circle.
        layers.append(keras.layers.RandomHue((0, 2 * augment.hue), value_range=_RANGE, **common))
    if augment.rand_augment:
        chosen = augment.rand_augment
        layers.append(
            _RandAugment(_RANGE, num_ops=chosen.num_ops, factor=chosen.magnitude, **common)
        )
    if augment.erasing:
        # A pair, or the probability itself would be sampled.
        share = (augment.erasing, augment.erasing)
        layers.append(keras.layers.RandomErasing(share, value_range=_RANGE, **common))
    for layer in layers:
        # RandAugment takes none as an argument; its parts sample from its own generator.
        layer.generator = seeds
    return layers


def _release(layers: Sequence[keras.Layer], shape: tuple[int, ...]) -> Sequence[keras.Layer]:
    """Lets layers that cut to a range leave the values of bands, which have none, as they are."""
    if shape[-1] != RGB:
        for layer in layers:
            if hasattr(layer, "value_range"):
                layer.value_range = (tf.float32.min, tf.float32.max)
    return layers


def _compile(
    layers: Sequence[keras.Layer], seeds: _ImageSeeds, shape: tuple[int, ...]
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    image_spec = tf.TensorSpec(shape, tf.float32)

    def change(image: tf.Tensor, start: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        seeds.start(tf.random.fold_in(start, key, alg="philox"))
        # Alone in its batch: Keras's Equalization counts the grey levels of the whole batch.
        images = image[tf.newaxis]
        for layer in layers:
            images = layer(images, training=True)
        return tf.clip_by_value(images[0], *_RANGE) if shape[-1] == RGB else images[0]

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, *shape], tf.float32),
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

    compiled: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor] = run
    return compiled


def _compile_transform(
    layers: Sequence[keras.Layer], seeds: _ImageSeeds, size: tuple[int, int]
) -> tf.types.experimental.PolymorphicFunction:
    """Returns the function from (seed, epoch) and a key to the steps of a `GeometricTransform`."""

    @tf.function(
        input_signature=[tf.TensorSpec([2], tf.int64), tf.TensorSpec([], tf.int64)],
        autograph=False,
    )
    def run(start: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        seeds.start(tf.random.fold_in(start, key, alg="philox"))
        shape = tf.zeros((1, *size, 3))  # all that sampling needs of an image
        steps = [tf.zeros((0, 3, 3))]
        for layer in layers:
            sampled = layer.get_random_transformation(shape, training=True)
            steps.append(_find_steps(layer, sampled, size))
        return tf.concat(steps, axis=0)

    compiled: tf.types.experimental.PolymorphicFunction = run
    return compiled


def _find_steps(layer: keras.Layer, sampled: Any, size: tuple[int, int]) -> tf.Tensor:
    """Returns how a layer moves pixels by what was sampled, as float32 (n, 3, 3).

    By Keras's own matrices. Its layers move masks too, but to the nearest pixel at each step, and
    fill them as they fill images.
    """
    height, width = size
    kinds = keras.layers
    if isinstance(layer, kinds.RandAugment):
        parts = [
            _find_steps(part, sampled["transforms"][name], size)
            for name, part in rand_augment_layers(layer).items()
        ]
        return tf.gather(tf.concat(parts, axis=0), sampled["layer_idxes"])
    if isinstance(layer, kinds.RandomFlip):
        x, y = (axis in layer.mode for axis in ("horizontal", "vertical"))
        turned = [-1, 0, width - 1] if x else [1, 0, 0], [0, -1, height - 1] if y else [0, 1, 0]
        return tf.where(sampled["flips"][..., 0], tf.constant([[*turned, [0, 0, 1]]], tf.float32),
                        tf.eye(3))  # fmt: skip
    if isinstance(layer, kinds.RandomRotation):
        rows = sampled["rotation_matrix"]
    elif isinstance(layer, kinds.RandomZoom):
        zooms = tf.concat([sampled["width_zoom"], sampled["height_zoom"]], axis=1)
        rows = zoom_matrix(layer, zooms, height, width)
    elif isinstance(layer, kinds.RandomTranslation):
        rows = translation_matrix(layer, sampled["translations"])
    elif isinstance(layer, kinds.RandomShear):
        rows = shear_matrix(layer, sampled["shear_factor"])
    elif hasattr(layer, "fill_mode"):
        raise TypeError(f"It is not known how {layer.name} moves pixels.")
    else:
        return tf.eye(3)[tf.newaxis]  # colours stay where they are
    return tf.reshape(tf.concat([rows, [[1.0]]], axis=1), (1, 3, 3))
