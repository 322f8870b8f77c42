"""What convolution promises, measured: translation equivariance, and channels that stay zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.costs import Axis, Field, measure_graph
from tl_toolkit.architectures.graph import BlockGraph, apply_pixel_rule, build_base, find_blocks
from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.images.pipeline import read_image
from tl_toolkit.keras_private import calls_of
from tl_toolkit.runtime import derive_seed
from tl_toolkit.transfer.weights import find_weights, load_weights

DRAWN_IMAGES = 4
"""How many images are drawn where none are given."""

_Run = Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class BlockProbe:
    """What was measured at the end of a block.

    Attributes:
        block: Its name.
        end: Name of the layer that ends it.
        shape: Of its output, without the batch.
        shift: Pixels that the images were moved down and right; a whole number of positions.
        difference: Largest difference between f(shift x) and shift f(x) at the positions compared;
            None where there is nothing to compare.
        relative: The same, divided by the largest value of f(x).
        compared: How many rows and columns of the output were compared: those that padding cannot
            reach where `is_exact`, else the middle half.
        is_exact: Whether the two must be equal there but for rounding.
        reason: Why they must, or why they need not.
        channels: How many channels were looked at: of all its ReLU outputs, else of its end.
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
    """What was measured of an architecture.

    Attributes:
        name: Its name in the catalog.
        image_size: (height, width) in pixels.
        weights: As given: "random", "imagenet" or a path.
        images: How the images came about, in words.
        num_images: How many there were.
        blocks: One for each block, input to output.
    """

    name: str
    image_size: tuple[int, int]
    weights: str
    images: str
    num_images: int
    blocks: tuple[BlockProbe, ...]


@dataclass(frozen=True)
class _Region:
    """Positions of a map along one axis, and how far the shift moves them."""

    start: int
    stop: int
    moved: int

    @property
    def length(self) -> int:
        return self.stop - self.start


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
        images: Image files, stretched to that size; without any, some are drawn in code.
        weights: "random", "imagenet" or the path of a weight file.
        seed: Random weights and drawn images follow from it. Sets Keras's global seed.

    Raises:
        DataError: A file cannot be decoded.
        WeightsError: The weight file is missing, damaged, or of another network.
    """
    pixels = _read_or_draw(images, image_size, seed)
    keras.utils.set_random_seed(derive_seed(seed, "base"))
    image = keras.Input((*image_size, 3), dtype="float32", name="image")
    preprocessed = apply_pixel_rule(image, architecture.pixels)
    features = build_base(architecture, preprocessed, arguments)
    blocks = find_blocks(architecture, preprocessed, features)
    path = None
    if architecture.file:
        weights = "its own"  # of the file that it was built from
    else:
        path = find_weights(architecture, arguments, image_size, weights)
    if path is not None:
        load_weights([layer for block in blocks for layer in block.layers], path)
    costs = measure_graph(image, features)
    ends = [block.units[-1].tensor for block in blocks]
    dead = _find_dead(image, blocks, pixels)
    shifts = _measure_shifts(
        _compile(image, ends), [costs.field(end) for end in ends], ends, pixels
    )
    return Probe(
        name=architecture.name,
        image_size=image_size,
        weights=weights,
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


def _read_or_draw(
    images: Sequence[str | Path], image_size: tuple[int, int], seed: int
) -> np.ndarray:
    """Returns uint8 (n, h, w, 3), RGB in 0..255."""
    if len(images):
        return np.stack([read_image(path, image_size, "stretch") for path in images])
    return draw_images(DRAWN_IMAGES, image_size, seed=seed)


def draw_images(count: int, image_size: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    """Draws images with structure at all scales: sums of random squares of several sizes.

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
    return ((total - low) / (high - low) * 255).astype(np.uint8)


def _compile(image: keras.KerasTensor, outputs: Sequence[keras.KerasTensor]) -> _Run:
    model = keras.Model(image, list(outputs))
    # Compiled, so that maps are freed as soon as nothing reads them any more.
    call = tf.function(lambda x: model(x, training=False), autograph=False, reduce_retracing=True)

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        return [found.numpy() for found in call(tf.cast(pixels, tf.float32))]

    return run


# ------------------------------------------------------------------------------------ equivariance


def _measure_shifts(
    run: _Run,
    fields: Sequence[Field | None],
    ends: Sequence[keras.KerasTensor],
    pixels: np.ndarray,
) -> list[dict[str, Any]]:
    """Returns for each block the attributes of `BlockProbe` that are about the shift."""
    plans = [
        _plan(field, tuple(end.shape), pixels.shape[1:3])
        for field, end in zip(fields, ends, strict=True)
    ]
    largest = np.zeros(len(plans))
    scale = np.full(len(plans), np.finfo(np.float32).tiny)
    # One image at a time: the maps of all blocks at once would not fit for large ones.
    for one in (pixels[index : index + 1] for index in range(len(pixels))):
        still = run(one)
        for shift in {plan["shift"] for plan in plans if plan["regions"]}:
            moved = run(np.roll(one, (shift, shift), axis=(1, 2)))
            for index, plan in enumerate(plans):
                if plan["shift"] == shift and plan["regions"]:
                    found = _compare(still[index], moved[index], plan["regions"])
                    largest[index] = max(largest[index], found)
                    scale[index] = max(scale[index], np.abs(still[index]).max())
    return [
        {
            "shift": plan["shift"],
            "difference": float(largest[index]) if plan["regions"] else None,
            "relative": float(largest[index] / scale[index]) if plan["regions"] else None,
            "compared": tuple(region.length for region in plan["regions"]) or None,
            "is_exact": plan["is_exact"],
            "reason": plan["reason"],
        }
        for index, plan in enumerate(plans)
    ]


def _compare(still: np.ndarray, moved: np.ndarray, regions: Sequence[_Region]) -> float:
    """Returns the largest difference between f(shift x) and shift f(x) in a region."""
    after = tuple(slice(region.start, region.stop) for region in regions)
    before = tuple(slice(r.start - r.moved, r.stop - r.moved) for r in regions)
    return float(np.abs(moved[:, *after] - still[:, *before]).max())


def _plan(field: Field | None, shape: tuple[int, ...], image_size: Sequence[int]) -> dict[str, Any]:
    """Says by how much to shift, which positions to compare, and what must come out."""
    none: dict[str, Any] = {"shift": None, "regions": (), "is_exact": False}
    if field is None or len(shape) != 4:
        return {**none, "reason": "a dense or global part has no positions left to shift"}
    shift = math.lcm(*(axis.period for axis in field.axes))
    inner = [
        _inner(axis, size, pixels, shift)
        for axis, size, pixels in zip(field.axes, shape[1:3], image_size, strict=True)
    ]
    is_inner = all(region.length > 0 for region in inner)
    regions = inner if is_inner else [
        _middle(axis, size, shift) for axis, size in zip(field.axes, shape[1:3], strict=True)
    ]  # fmt: skip
    if any(region.length <= 0 for region in regions):
        return {**none, "reason": f"{shape[1]} x {shape[2]} positions are too few to shift"}
    is_exact = is_inner and not field.reads_whole
    return {
        "shift": shift,
        "regions": tuple(regions),
        "is_exact": is_exact,
        "reason": _tell_reason(field, is_inner),
    }


def _tell_reason(field: Field, is_inner: bool) -> str:
    if field.reads_whole:
        return "a global part, as squeeze-and-excitation, reads the borders too"
    if not is_inner:
        return "the border of the image reaches every position"
    return "away from the border each position sees the same pixels"


def _inner(axis: Axis, size: int, pixels: int, shift: int) -> _Region:
    """Returns the positions that see, before and after the shift, nothing beyond the border."""
    start = math.ceil((shift - axis.low) / axis.step)
    stop = math.floor((pixels - 1 - axis.high) / axis.step) + 1
    moved = int(shift / axis.step)
    return _Region(max(start, moved), min(stop, size), moved)


def _middle(axis: Axis, size: int, shift: int) -> _Region:
    """Returns the middle half of an axis, as far as the shift leaves it there."""
    moved = int(shift / axis.step)
    return _Region(max(size // 4, moved), max(size - size // 4, 1), moved)


# ------------------------------------------------------------------------------------ dead channels


def _find_dead(
    image: keras.KerasTensor, blocks: Sequence[BlockGraph], pixels: np.ndarray
) -> list[np.ndarray]:
    """Returns for each block which of its channels are zero on all images."""
    watched = [list(_watched(block)) for block in blocks]
    peaks = [_peak(tensor) for tensors in watched for tensor in tensors]
    run = _compile(image, peaks)
    found = [run(pixels[index : index + 1]) for index in range(len(pixels))]
    zero = iter([np.max(one, axis=(0, 1)) == 0 for one in zip(*found, strict=True)])
    return [np.concatenate([next(zero) for _ in tensors]) for tensors in watched]


def _watched(block: BlockGraph) -> Iterator[keras.KerasTensor]:
    """Yields the outputs of a block's ReLUs; its end where it has none."""
    # The last call: keras.applications may have drawn a layer before, into a graph of its own.
    found = [calls_of(layer)[-1].outputs[0] for layer in block.layers if _is_relu(layer)]
    yield from found or [block.units[-1].tensor]


def _is_relu(layer: keras.layers.Layer) -> bool:
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", "")
    return isinstance(layer, keras.layers.ReLU) or name in ("relu", "relu6")


def _peak(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the largest magnitude of each channel: (batch, channels)."""
    axes = tuple(range(1, len(tensor.shape) - 1))
    magnitude = keras.ops.absolute(tensor)
    return keras.ops.max(magnitude, axis=axes) if axes else magnitude
