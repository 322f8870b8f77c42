"""The head of a task with an output for each pixel: the hypercolumn, and a predictor on it.

After PixelNet (Bansal et al., 2016, 2017): maps of several depths are sampled at some pixels,
concatenated, and go through dense layers that all pixels share. No map is made as large as the
image, so that a training step costs as many pixels as are sampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tl_toolkit.architectures.graph import find_blocks, sorted_calls
from tl_toolkit.architectures.heads import HeadLayers, build_dense
from tl_toolkit.architectures.sampling import PixelSample
from tl_toolkit.architectures.taps import find_maps, find_stride, find_taps
from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.errors import Problem, RecipeError, closest

__all__ = ["build_pixel_head", "find_named_maps"]


def build_pixel_head(
    taps: Sequence[keras.KerasTensor],
    image: keras.KerasTensor,
    pixels: keras.KerasTensor,
    head: HeadLayers,
    *,
    units: int,
    activation: str,
    normalize: bool = False,
) -> keras.KerasTensor:
    """Builds hypercolumn and predictor.

    Args:
        taps: Maps (batch, h, w, channels), each on a whole stride of the image.
        image: The image as the base sees it, padded to whole cells; only its size counts.
        pixels: float32 (batch, n, 2), y and x of the sampled pixels.
        head: Hidden layers and dropout; no hidden layer is a linear predictor.
            Without hidden layers its dropout lies on the hypercolumn.
        units: Outputs for each pixel.
        activation: Activation of the outputs.
        normalize: Normalize each map first, without scale and shift.

    Returns:
        float32 (batch, n, units).
    """
    columns = []
    for number, tap in enumerate(taps, start=1):
        stride = find_stride(image, tap)
        if stride is None:
            raise ValueError(f"{tap.name}: the image has no whole number of pixels for each cell")
        if normalize:
            tap = keras.layers.BatchNormalization(
                momentum=0.9, center=False, scale=False, name=f"head_tap{number}_bn"
            )(tap)
        columns.append(PixelSample(stride, name=f"head_tap{number}")(tap, pixels))
    x = columns[0]
    if len(columns) > 1:
        x = keras.layers.Concatenate(name="head_hypercolumn")(columns)
    return build_dense(x, head, units=units, activation=activation)


def find_named_maps(
    architecture: Architecture,
    names: Sequence[str] | None,
    image: keras.KerasTensor,
    features: keras.KerasTensor,
) -> tuple[keras.KerasTensor, ...]:
    """Returns the maps that a recipe names, by layer or by unit, in the order of the graph.

    Args:
        architecture: The record of the base.
        names: Layers or units; None for the base's own maps.
        image: What enters the base, padded to whole cells.
        features: Its output.

    Raises:
        RecipeError: A name is no map of the base, or the base has none.
    """
    if names is None:
        taps = find_taps(architecture, image, features)
        if not taps:
            height, width = image.shape[1:3]
            what = f"no map of {architecture.name} covers {height} x {width} pixels in whole cells"
            expected = "A base that pads its convolutions does, or pixels.taps names such a map."
            raise RecipeError(Problem("model.base", what, expected, "model.base=mobilenet"))
        return taps
    graph = keras.Function(image, features)
    ends = {
        unit.name: unit.tensor
        for block in find_blocks(architecture, image, features)
        for unit in block.units
    }
    layers = {call.operation.name: call.outputs[0] for call in sorted_calls(graph)}
    known = {**ends, **layers}
    whole = {id(tensor) for tensor in find_maps(image, features)}
    maps = [name for name, tensor in known.items() if id(tensor) in whole]
    problems = [
        Problem(
            where="pixels.taps",
            what=f"{name!r} is no map of {architecture.name} that covers the image in whole cells",
            expected=closest(name, maps) or f"They end with {', '.join(maps[-3:])}.",
            hint=f"tltool models show {architecture.reference} --layers",
        )
        for name in names
        if name not in maps
    ]
    if problems:
        raise RecipeError(problems)
    places = {id(tensor): place for place, tensor in enumerate(layers.values())}
    return tuple(sorted((known[name] for name in names), key=lambda tap: places[id(tap)]))
