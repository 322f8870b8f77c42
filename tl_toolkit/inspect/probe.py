"""Measures translation equivariance of an architecture, and channels that stay zero."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.costs import measure_graph
from tl_toolkit.architectures.graph import BlockGraph
from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.images.pipeline import read_image
from tl_toolkit.inspect.blocks import build_loaded_base
from tl_toolkit.inspect.equivariance import Run, measure_shifts
from tl_toolkit.keras_private import calls_of
from tl_toolkit.runtime import derive_seed, numerics

RENDERED_IMAGES = 4
"""How many images are rendered if the caller passes none."""


@dataclass(frozen=True)
class BlockProbe:
    """Measurements at the end of a block.

    Attributes:
        block: Its name.
        end: Name of the layer that ends it.
        shape: Shape of its output, without the batch.
        shift: Pixels that the images were moved down and right; a whole number of positions.
        difference: Largest difference between f(shift x) and shift f(x) at the positions compared;
            None where there is nothing to compare.
        relative: The difference, divided by the largest value of f(x).
        compared: How many rows and columns of the output were compared: those that padding cannot
            reach where `is_exact`, else the middle half.
        is_exact: Whether the two must be equal there but for rounding.
        reason: Why they must be equal, or why they need not be.
        channels: How many channels were inspected: of all its ReLU outputs, else of its end.
        dead: How many of them were zero on all images, at every position.
    """

    block: str
    end: str
    shape: tuple[int, ...]
    shift: int | None
    difference: float | None
    relative: float | None
    compared: tuple[int, int] | None
    is_exact: bool
    reason: str
    channels: int
    dead: int

    @property
    def dead_share(self) -> float:
        """Share of the channels that were zero on all images."""
        return self.dead / self.channels


@dataclass(frozen=True)
class Probe:
    """Measurements of an architecture.

    Attributes:
        name: Its name in the catalog.
        image_size: (height, width) in pixels.
        weights: As in the arguments: "random", "imagenet" or a path.
        images: Where the images came from, in words.
        num_images: Number of images.
        blocks: Measurements of each block, input to output.
    """

    name: str
    image_size: tuple[int, int]
    weights: str
    images: str
    num_images: int
    blocks: tuple[BlockProbe, ...]


@numerics(deterministic=True)  # rounding to TensorFloat-32 would hide what is exact
def probe_base(
    architecture: Architecture,
    arguments: Mapping[str, Any],
    image_size: tuple[int, int],
    images: Sequence[str | Path] = (),
    *,
    weights: str = "random",
    seed: int = 0,
) -> Probe:
    """Runs a base on images and on shifted images, in inference mode.

    Args:
        architecture: The catalog's record.
        arguments: Arguments of the builder.
        image_size: (height, width) in pixels.
        images: Image files, stretched to that size; without any, some are rendered in code.
        weights: "random", "imagenet" or the path of a weight file.
        seed: Random weights and rendered images follow from it.

    Raises:
        DataError: A file cannot be decoded.
        WeightsError: The weight file is missing, damaged, or of another network.
    """
    pixels = _read_or_render(images, image_size, seed)
    image, features, blocks = build_loaded_base(
        architecture, arguments, image_size, weights=weights, seed=seed
    )
    costs = measure_graph(image, features)
    ends = [block.units[-1].tensor for block in blocks]
    dead = _find_dead(image, blocks, pixels)
    fields = [costs.field(end) for end in ends]
    shifts = measure_shifts(_compile(image, ends), fields, ends, pixels)
    return Probe(
        name=architecture.name,
        image_size=image_size,
        weights="its own" if architecture.file else weights,  # from the file it was built from
        images="given" if len(images) else "drawn in code",
        num_images=len(pixels),
        blocks=tuple(
            BlockProbe(
                block=block.name,
                end=block.units[-1].end_layer,
                shape=tuple(end.shape[1:]),
                **shift,
                channels=len(zero),
                dead=int(zero.sum()),
            )
            for block, end, shift, zero in zip(blocks, ends, shifts, dead, strict=True)
        ),
    )


def _read_or_render(
    images: Sequence[str | Path], image_size: tuple[int, int], seed: int
) -> np.ndarray:
    """Returns uint8 (n, h, w, 3), RGB in 0..255."""
    if len(images):
        return np.stack([read_image(path, image_size, "stretch") for path in images])
    return render_images(RENDERED_IMAGES, image_size, seed=seed)


def render_images(count: int, image_size: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    """Renders images with structure at all scales: sums of random squares of several sizes.

    Args:
        count: How many.
        image_size: (height, width) in pixels.
        seed: Another seed gives other images.

    Returns:
        uint8 (count, h, w, 3), RGB in 0..255.
    """
    random = np.random.default_rng(derive_seed(seed, "probe"))
    height, width = image_size
    total = np.zeros((count, height, width, 3))
    side = 1
    while side <= max(height, width):
        rows, columns = math.ceil(height / side), math.ceil(width / side)
        squares = random.uniform(-1, 1, (count, rows, columns, 3))
        total += squares.repeat(side, axis=1).repeat(side, axis=2)[:, :height, :width]
        side *= 4
    low, high = total.min(), total.max()
    pixels: np.ndarray = ((total - low) / (high - low) * 255).astype(np.uint8)
    return pixels


def _compile(image: keras.KerasTensor, outputs: Sequence[keras.KerasTensor]) -> Run:
    model = keras.Model(image, list(outputs))
    # Compiled, so that maps are freed as soon as nothing reads them any more.
    call = tf.function(lambda x: model(x, training=False), autograph=False, reduce_retracing=True)

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        return [output.numpy() for output in call(tf.cast(pixels, tf.float32))]

    return run


# ------------------------------------------------------------------------------------ dead channels


def _find_dead(
    image: keras.KerasTensor, blocks: Sequence[BlockGraph], pixels: np.ndarray
) -> list[np.ndarray]:
    """Returns for each block which of its channels are zero on all images."""
    watched = [list(_watched(block)) for block in blocks]
    peaks = [_peak(tensor) for tensors in watched for tensor in tensors]
    run = _compile(image, peaks)
    outputs = [run(pixels[index : index + 1]) for index in range(len(pixels))]
    zero = iter([np.max(maxima, axis=(0, 1)) == 0 for maxima in zip(*outputs, strict=True)])
    return [np.concatenate([next(zero) for _ in tensors]) for tensors in watched]


def _watched(block: BlockGraph) -> Iterator[keras.KerasTensor]:
    """Yields the outputs of a block's ReLUs; its end where it has none."""
    # The last call: keras.applications may have called a layer before, in a graph of its own.
    relus = [calls_of(layer)[-1].outputs[0] for layer in block.layers if _is_relu(layer)]
    yield from relus or [block.units[-1].tensor]


def _is_relu(layer: keras.layers.Layer) -> bool:
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", "")
    return isinstance(layer, keras.layers.ReLU) or name in ("relu", "relu6")


def _peak(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the largest magnitude of each channel: (batch, channels)."""
    axes = tuple(range(1, len(tensor.shape) - 1))
    magnitude = keras.ops.absolute(tensor)
    return keras.ops.max(magnitude, axis=axes) if axes else magnitude
