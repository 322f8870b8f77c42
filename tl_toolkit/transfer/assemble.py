"""Preprocessing, base and head as ONE flat functional graph, with its units in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tl_toolkit.architectures.batches import PREFIX_BATCH
from tl_toolkit.architectures.graph import (
    BlockGraph,
    apply_pixel_rule,
    build_base,
    find_blocks,
    layer_variables,
    sorted_calls,
)
from tl_toolkit.architectures.layers import EdgeFilter
from tl_toolkit.architectures.taps import find_maps, find_taps, pad_to_cells
from tl_toolkit.catalog.lookup import Architecture, find_architecture
from tl_toolkit.errors import Problem, RecipeError, closest
from tl_toolkit.recipe.schema import Model, Pixels
from tl_toolkit.runtime import derive_seed
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.dense.heads import build_pixel_head
from tl_toolkit.transfer.heads import (
    build_head,
    build_regularizer,
    initialize_head,
    is_head,
)
from tl_toolkit.transfer.weights import LoadedWeights, find_weights, load_weights

HEAD = "head"
PIXEL_PREFIX_BATCH = 4
"""Images per call of a prefix whose outputs are whole maps: some 10 MB for each image."""

_REGULARIZERS = {
    "kernel": "kernel_regularizer",
    "depthwise_kernel": "depthwise_regularizer",
    "pointwise_kernel": "pointwise_regularizer",
}


@dataclass(frozen=True)
class Part:
    """A run of layers that is frozen or trained as one: a unit of the base, or the head.

    Attributes:
        block: Name of the block that it belongs to; `head` for the head.
        name: Name of the unit; `head` for the head.
        layers: Its layers, input to output.
        inputs: The tensors that enter it; what the part before it ends at.
    """

    block: str
    name: str
    layers: tuple[keras.layers.Layer, ...]
    inputs: tuple[keras.KerasTensor, ...]


@dataclass(frozen=True)
class TransferModel:
    """A whole model and where its parts begin.

    Attributes:
        model: float32 RGB (batch, h, w, 3) in 0..255 to probabilities. Where each pixel has an
            answer it takes [images, pixels], float32 (batch, n, 2), y and x of those asked for.
        architecture: The catalog's record of the base.
        parts: Units of the base in order, then the head.
        task: What the outputs are compared with, and how.
        weights: The file that the base was loaded from, and how; None for random weights.
    """

    model: keras.Model
    architecture: Architecture
    parts: tuple[Part, ...]
    task: Task
    weights: LoadedWeights | None = None

    @property
    def image(self) -> keras.KerasTensor:
        """The tensor that images enter by."""
        return self.model.inputs[0]

    @property
    def batch_size(self) -> int:
        """Images per call of a compiled prefix; fewer where whole maps come out of it."""
        return PIXEL_PREFIX_BATCH if self.task.answers_pixels else PREFIX_BATCH

    def join_pixels(self, rows: Any, pixels: Any = None) -> Any:
        """Returns what enters the model, or a suffix, given images or what crosses a cut.

        Args:
            rows: A tensor, or the list of those that cross together.
            pixels: The pixels asked for; by default the tensor of the graph. Without a meaning
                where an image has one answer.
        """
        if not self.task.answers_pixels:
            return rows
        several = list(rows) if isinstance(rows, list | tuple) else [rows]
        return [*several, self.model.inputs[1] if pixels is None else pixels]

    def variables(self) -> Iterator[tuple[Part, str, keras.Variable]]:
        """Every weight and moving statistic with its part and its canonical name."""
        for part in self.parts:
            for layer in part.layers:
                for found in layer_variables(layer):
                    yield part, f"{found.layer}/{found.index}", found.variable


def assemble(
    settings: Model,
    *,
    image_size: tuple[int, int],
    num_classes: int,
    seed: int = 0,
    task: Task | None = None,
    pixels: Pixels | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TransferModel:
    """Draws the model of a recipe and loads its base's weights.

    Args:
        settings: The recipe's `model` section.
        image_size: (height, width) of the images.
        num_classes: Number of classes, at least 2.
        seed: Random weights and dropout follow from it. Sets Keras's global seed, which is the only
            one that keras.applications listens to.
        task: What is learned; by default one class for each image.
        pixels: The recipe's section of that name, for a task that answers pixels.
        progress: Is told bytes done and in all while a published weight file is fetched.

    Raises:
        RecipeError: A tap is no map of the base.
        WeightsError: The weight file is missing, damaged, or of another network.
    """
    architecture = find_architecture(settings.base)
    task = task or Classification(num_classes, settings.head.activation)
    keras.utils.set_random_seed(derive_seed(seed, "base"))
    image = keras.Input((*image_size, 3), dtype="float32", name="image")
    entering = apply_pixel_rule(image, architecture.pixels)
    if settings.edge_filter is not None:
        entering = EdgeFilter(settings.edge_filter, name="pixels_edges")(entering)
    if task.answers_pixels:
        entering = pad_to_cells(entering)
    features = build_base(architecture, entering, dict(settings.arguments))
    read = [features]
    if task.answers_pixels:
        taps = pixels.taps if pixels is not None else None
        read = list(_find_taps(architecture, taps, entering, features))
    blocks = find_blocks(architecture, entering, read)
    path = find_weights(
        architecture, dict(settings.arguments), image_size, settings.weights, progress=progress
    )
    _penalize(blocks, build_regularizer(settings.l1, settings.l2))
    loaded = None
    if path is not None:
        loaded = load_weights([layer for block in blocks for layer in block.layers], path)
    inputs = image
    if task.answers_pixels:
        asked = keras.Input((None, 2), dtype="float32", name="pixels")
        inputs = [image, asked]
        outputs = build_pixel_head(
            read, entering, asked, settings.head, units=task.units, activation=task.activation,
            normalize=pixels is not None and pixels.normalize,
        )  # fmt: skip
    else:
        outputs = build_head(features, settings.head, num_classes=num_classes)
    model = keras.Model(inputs, outputs, name=architecture.name)
    parts = _parts(model, blocks, read)
    initialize_head(parts[-1].layers, derive_seed(seed, "head"))
    return TransferModel(model, architecture, parts, task, loaded)


def _find_taps(
    architecture: Architecture,
    names: Sequence[str] | None,
    image: keras.KerasTensor,
    features: keras.KerasTensor,
) -> tuple[keras.KerasTensor, ...]:
    """Finds the maps that a recipe names, by layer or else by unit, in the order of the graph."""
    if names is None:
        found = find_taps(architecture, image, features)
        if not found:
            height, width = image.shape[1:3]
            what = f"no map of {architecture.name} covers {height} x {width} pixels in whole cells"
            expected = "A base that pads its convolutions does, or pixels.taps names such a map."
            raise RecipeError(Problem("model.base", what, expected, "model.base=mobilenet"))
        return found
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
            hint=f"tltool models show {architecture.name} --layers",
        )
        for name in names
        if name not in maps
    ]
    if problems:
        raise RecipeError(problems)
    places = {id(tensor): place for place, tensor in enumerate(layers.values())}
    return tuple(sorted((known[name] for name in names), key=lambda one: places[id(one)]))


def _penalize(
    blocks: tuple[BlockGraph, ...], penalty: keras.regularizers.Regularizer | None
) -> None:
    """Puts a penalty on each kernel of a base; Keras counts it only while the kernel trains.

    On the layer too where it has such an argument, so that the saved model holds it.
    """
    for layer in (layer for block in blocks for layer in block.layers):
        for variable in layer.trainable_weights:
            if variable.name.endswith("kernel"):  # depthwise and pointwise ones too; no biases
                variable.regularizer = penalty
                argument = _REGULARIZERS.get(variable.name, "")
                if hasattr(layer, argument):
                    setattr(layer, argument, penalty)


def _parts(
    model: keras.Model, blocks: tuple[BlockGraph, ...], read: Sequence[keras.KerasTensor]
) -> tuple[Part, ...]:
    units = [
        Part(block.name, unit.name, unit.layers, unit.inputs)
        for block in blocks
        for unit in block.units
    ]
    head = tuple(layer for layer in model.layers if is_head(layer))
    return (*units, Part(HEAD, HEAD, head, tuple(read)))
