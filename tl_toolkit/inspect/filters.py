"""Filters of convolutions, activation maps, and the classical edge filters beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import keras
import numpy as np
from PIL import Image, ImageOps

from tl_toolkit.architectures.edges import EDGE_KINDS, EdgeFilter, edge_kernels
from tl_toolkit.errors import Problem, RecipeError, closest
from tl_toolkit.inspect.drawing import Tile, draw_sheet, enlarge

__all__ = [
    "FilterMatch",
    "draw_activations",
    "draw_edges",
    "draw_filters",
    "find_kernel",
    "list_edge_filters",
    "match_filters",
]

FIRST = "first"
"""The word for the first convolution of a model."""

_MOST = 64
"""Filters, or channels, on one sheet."""

_RANDOM_FILTERS = 10_000
_SIDE = 72
_COLUMNS = 8
_COMPASS = ("n", "ne", "e", "se", "s", "sw", "w", "nw")


@dataclass(frozen=True)
class FilterMatch:
    """The classical edge filter that a learned one resembles most.

    Attributes:
        index: The learned filter, counted from 0.
        name: The classical filter, as `sobel_x`, or `kirsch_ne` for its mask to the north-east.
        cosine: Cosine of the angle between the two, in [-1, 1]; below 0 where the learned one
            responds to the opposite direction, or has the opposite sign.
        chance: The share of random filters of this size that resemble a classical filter as much,
            or more: of 3 x 3 one in twenty reaches 0.81.
    """

    index: int
    name: str
    cosine: float
    chance: float


@lru_cache(1)
def list_edge_filters() -> dict[str, np.ndarray]:
    """Returns the kernels of all classical edge filters by name, float32 (3, 3).

    Those of `prewitt` and `sobel` are their x and y; those of `robinson` and `kirsch` end with the
    direction that they respond to most.
    """
    kernels = {}
    for kind in EDGE_KINDS:
        masks = edge_kernels(kind)
        if len(masks) == 1:
            kernels[kind] = masks[0]
        elif len(masks) == len(_COMPASS):
            names = [f"{kind}_{direction}" for direction in _COMPASS]
            kernels |= dict(zip(names, masks, strict=True))
    return kernels


def find_kernel(model: keras.Model, layer: str) -> tuple[str, np.ndarray]:
    """Returns the kernel of a convolution.

    Args:
        model: The model.
        layer: Name of a layer; "first" for the first convolution.

    Returns:
        The layer's name; its kernel, float32 (h, w, inputs, filters). A depthwise one has one
        input, and a filter for each channel.

    Raises:
        RecipeError: No convolution has this name.
    """
    read = {entry.name: _read_kernel(entry) for entry in model.layers}
    kernels = {name: kernel for name, kernel in read.items() if kernel is not None}
    name = next(iter(kernels), "") if layer == FIRST else layer
    if name in kernels:
        return name, kernels[name]
    what = f"{layer!r} {'has no filters' if layer in read else 'is no layer of this model'}"
    guess = closest(layer, list(kernels))
    expected = f"Expected {FIRST} or a convolution, as {', '.join(list(kernels)[:3])}"
    expected = f"{expected}; {guess}" if guess else f"{expected}."
    raise RecipeError(Problem("--filters", what, expected))


def _read_kernel(layer: keras.layers.Layer) -> np.ndarray | None:
    """Returns the kernel of a layer as `find_kernel` does; None where it has none."""
    weights = [weight for weight in layer.weights if len(weight.shape) == 4]
    if isinstance(layer, keras.Model) or not weights:
        return None
    kernel: np.ndarray = np.asarray(weights[0].numpy(), np.float32)
    if "depthwise" in weights[0].name or isinstance(layer, keras.layers.DepthwiseConv2D):
        return kernel.reshape(*kernel.shape[:2], 1, -1)
    if isinstance(layer, keras.layers.Conv2DTranspose):
        return kernel.transpose(0, 1, 3, 2)
    return kernel


def match_filters(kernel: np.ndarray) -> list[FilterMatch]:
    """Finds for each filter of the first layer the classical edge filter that it resembles most.

    Compared is what a filter does to a grey image: the sum over its input channels. A classical
    filter of 3 x 3 is stretched to the size of the kernel, bilinear, where that is larger.

    Args:
        kernel: (h, w, inputs, filters), h and w at least 2.

    Returns:
        A match for each filter, the one with the largest magnitude of the cosine; the first in the
        order of `list_edge_filters` of several. A filter of zeros has the cosine 0.
    """
    names = list(list_edge_filters())
    cosines = _compare(kernel.sum(axis=2).reshape(-1, kernel.shape[-1]), kernel.shape[:2])
    # Rounded, so that equal filters of two names are equal and the first is taken.
    best = np.abs(cosines).round(6).argmax(axis=0)
    chances = _sample_chances(kernel.shape[:2])
    return [
        FilterMatch(
            index,
            names[place],
            cosine := float(cosines[place, index]),
            float((chances >= abs(cosine)).mean()),
        )
        for index, place in enumerate(best)
    ]


def _compare(learned: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Returns the cosines (classical, filters) of filters (h * w, filters)."""
    masks = [_stretch(mask, size).ravel() for mask in list_edge_filters().values()]
    classical = np.stack(masks)
    classical /= np.linalg.norm(classical, axis=1, keepdims=True)
    lengths = np.maximum(np.linalg.norm(learned, axis=0), np.finfo(np.float32).tiny)
    return np.asarray(classical @ (learned.astype(np.float64) / lengths))


def _sample_chances(size: tuple[int, ...]) -> np.ndarray:
    """Returns the largest magnitudes of cosines of random filters, which have normal weights."""
    random = np.random.default_rng(0).normal(size=(size[0] * size[1], _RANDOM_FILTERS))
    return np.asarray(np.abs(_compare(random, size)).max(axis=0))


def _stretch(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Interpolates a mask at the centres of other cells; its sum is made 0 again."""
    height, width = (_interpolate(old, new) for old, new in zip(mask.shape, size, strict=True))
    result = height @ mask @ width.T
    return np.asarray(result - result.mean())


def _interpolate(old: int, new: int) -> np.ndarray:
    """Returns (new, old), the weights of the old cells at the centres of the new ones."""
    places = (np.arange(new) + 0.5) * old / new - 0.5
    return np.stack([np.interp(places, np.arange(old), row) for row in np.eye(old)], axis=1)


def draw_filters(kernel: np.ndarray, matches: Sequence[FilterMatch] = ()) -> Image.Image:
    """Draws filters as a contact sheet; beside each match the classical filter, with the cosine.

    Grey is 0 and the largest magnitude of a filter is white or black. A filter of three inputs has
    their colours; of other numbers of inputs each is in grey, those with the largest weights first.

    Args:
        kernel: (h, w, inputs, filters); the 64 filters of the largest weights are drawn.
        matches: From `match_filters`.
    """
    shown = _choose(np.square(kernel).sum(axis=(0, 1, 2)))
    tiles = []
    for index in shown:
        picture = _draw_kernel(kernel[..., index])
        if not matches:
            tiles.append(Tile(picture, (f"{index}",)))
            continue
        match = matches[index]
        mask = _draw_kernel(list_edge_filters()[match.name][..., np.newaxis])
        caption = (f"{index}: {match.name}", f"cosine {match.cosine:.2f}")
        tiles.append(Tile(_join(picture, mask), caption))
    return draw_sheet(tiles, columns=_COLUMNS // 2 if matches else _COLUMNS)


def _choose(strengths: np.ndarray) -> list[int]:
    """Returns the places of the largest numbers, in their own order."""
    return sorted(np.argsort(-strengths, kind="stable")[:_MOST].tolist())


def _draw_kernel(kernel: np.ndarray) -> Image.Image:
    """Draws one filter (h, w, inputs)."""
    greatest = max(float(np.abs(kernel).max()), float(np.finfo(np.float32).tiny))
    levels = ((kernel / greatest + 1) / 2 * 255).round().astype(np.uint8)
    if kernel.shape[-1] == 3:
        return _scale(Image.fromarray(levels))
    order = np.argsort(-np.linalg.norm(kernel, axis=(0, 1)), kind="stable")
    return _scale(Image.fromarray(levels[..., order[0]]).convert("RGB"))


def _scale(picture: Image.Image) -> Image.Image:
    larger = picture.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
    return ImageOps.expand(larger, 1, "grey")  # else white cells end nowhere


def _join(*pictures: Image.Image) -> Image.Image:
    joined = Image.new(
        "RGB", (sum(entry.width + 4 for entry in pictures) - 4, pictures[0].height), "white"
    )
    left = 0
    for picture in pictures:
        joined.paste(picture, (left, 0))
        left += picture.width + 4
    return joined


def draw_activations(maps: np.ndarray) -> Image.Image:
    """Draws the channels of an activation map as a contact sheet.

    All channels share one scale: black is 0 or below, white the greatest value of all.

    Args:
        maps: float32 (h, w, channels); the 64 channels with the greatest values are drawn.
    """
    greatest = maps.max(axis=(0, 1))
    top = max(float(greatest.max()), float(np.finfo(np.float32).tiny))
    levels = (maps / top * 255).clip(0, 255).round().astype(np.uint8)
    tiles = [
        Tile(
            enlarge(Image.fromarray(levels[..., index]).convert("RGB"), _SIDE),
            (f"{index}: {greatest[index]:.2g}",),
        )
        for index in _choose(greatest)
    ]
    return draw_sheet(tiles, columns=_COLUMNS)


def draw_edges(photo: np.ndarray) -> Image.Image:
    """Draws what each classical edge filter responds to in a photo, beside the photo.

    Responses are those of `EdgeFilter` to the grey image. Where they have a sign, as those of one
    direction and of the Laplacian, grey is 0; else black is.

    Args:
        photo: uint8 (h, w, 3).
    """
    grey = np.asarray(Image.fromarray(photo).convert("L"), np.float32)[np.newaxis, ..., np.newaxis]
    tiles = [Tile(Image.fromarray(photo), ("photo",))]
    for kind in EDGE_KINDS:
        response = np.asarray(EdgeFilter(kind)(grey))[0, ..., 0]
        # A few strong edges must not leave all others black.
        greatest = max(float(np.percentile(np.abs(response), 99.5)), 1e-6)
        levels = response / greatest
        if len(edge_kernels(kind)) == 1:
            levels = (levels + 1) / 2
        picture = Image.fromarray((levels.clip(0, 1) * 255).round().astype(np.uint8))
        tiles.append(Tile(picture.convert("RGB"), (kind,)))
    return draw_sheet(tiles, columns=4)
