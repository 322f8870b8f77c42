"""Preprocessing, base and head as ONE flat functional graph, with its units in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_toolkit.architectures.batches import as_list
from tl_toolkit.architectures.graph import BlockGraph, build_base, find_blocks, layer_variables
from tl_toolkit.architectures.heads import POOLED_LAYERS, build_regularizer
from tl_toolkit.architectures.layers import EdgeFilter
from tl_toolkit.architectures.pixels import apply_pixel_rule
from tl_toolkit.catalog.lookup import PIXEL_RULES, Architecture, PixelRule, find_architecture
from tl_toolkit.catalog.records import RGB
from tl_toolkit.runtime import derive_seed, initializers_seeded
from tl_toolkit.tasks.base import Task
from tl_toolkit.transfer.heads import initialize_head, is_head, pools_by_weights
from tl_toolkit.transfer.weights import LoadedWeights, fits_layers, load_weights
from tl_toolkit.transfer.widening import copy_widened

HEAD = "head"

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
        inputs: The tensors that enter it, which the part before it ends at.
    """

    block: str
    name: str
    layers: tuple[keras.layers.Layer, ...]
    inputs: tuple[keras.KerasTensor, ...]


@dataclass(frozen=True)
class TransferModel:
    """A whole model and where its parts begin.

    Attributes:
        model: float32 RGB (batch, h, w, 3) in 0..255, or bands (batch, h, w, channels) in the
            numbers of their files, to the task's outputs. Some tasks have further inputs: [images,
            pixels], float32 (batch, n, 2), y and x of the sampled pixels.
        architecture: The catalog's record of the base.
        parts: Units of the base in order, then the head.
        task: The task, which compares the outputs with targets.
        weights: The file that the base was loaded from, and how; None for random weights.
        pixels: The pixel rule of its images.
    """

    model: keras.Model
    architecture: Architecture
    parts: tuple[Part, ...]
    task: Task
    weights: LoadedWeights | None = None
    pixels: PixelRule = PIXEL_RULES["raw"]

    def sample_images(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Samples images of noise, in the range of its own.

        Args:
            random: The generator of the samples.
            count: How many.

        Returns:
            float32 (count, h, w, channels): in 0..255; bands within two deviations of their mean.
        """
        shape = (count, *self.image.shape[1:])
        if shape[-1] == RGB:
            return random.uniform(0, 255, shape).astype(np.float32)
        scale, offset = np.array(self.pixels.scale), np.array(self.pixels.offset)
        return np.asarray((random.uniform(-2, 2, shape) - offset) / scale, np.float32)

    @property
    def image(self) -> keras.KerasTensor:
        """The tensor that images enter by."""
        return self.model.inputs[0]

    @property
    def inner_maps(self) -> tuple[int, ...]:
        """Places of those maps that lie inside of units, among all that the head reads."""
        ends = {id(tensor) for part in self.parts[1:-1] for tensor in part.inputs}
        maps = self.parts[-1].inputs[:-1]  # the last one ends the base
        return tuple(place for place, tensor in enumerate(maps) if id(tensor) not in ends)

    @property
    def batch_size(self) -> int:
        """Images per call of a compiled prefix."""
        return self.task.prefix_batch_size

    def join_inputs(self, batch: Any, further_inputs: Sequence[Any] | None = None) -> Any:
        """Returns the inputs of the model, or of a suffix, from images or the tensors of a cut.

        Args:
            batch: A tensor, or the list of tensors that cross together.
            further_inputs: Values of the further inputs; by default their tensors in the graph.
        """
        further_inputs = self.model.inputs[1:] if further_inputs is None else further_inputs
        return [*as_list(batch), *further_inputs] if further_inputs else batch

    def variables(self) -> Iterator[tuple[Part, str, keras.Variable]]:
        """Yields every weight and moving statistic with its part and its canonical name."""
        for part in self.parts:
            for layer in part.layers:
                for entry in layer_variables(layer):
                    yield part, f"{entry.layer}/{entry.index}", entry.variable


@dataclass(frozen=True)
class BaseSettings:
    """The base of a model.

    Attributes:
        name: Name of the architecture.
        weights_file: The file of its weights; None for random weights, or its own.
        arguments: Arguments of the architecture.
        l1: L1 regularization factor of each kernel that trains, 0 or more.
        l2: L2 regularization factor of each kernel that trains, 0 or more.
        edge_filter: Kind of the `EdgeFilter` between the pixels and the base; None for none.
        record: Record of a model of the user's own; by default the catalog's record of the name.
        channels: Channels of the images.
        pixels: Rule of the pixels; by default the record's, which is for RGB.
    """

    name: str
    weights_file: Path | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    l1: float = 0.0
    l2: float = 0.0
    edge_filter: str | None = None
    record: Architecture | None = None
    channels: int = RGB
    pixels: PixelRule | None = None


def assemble(
    base: BaseSettings,
    task: Task,
    *,
    image_size: tuple[int, int],
    seed: int = 0,
) -> TransferModel:
    """Builds a model and loads its base's weights.

    Args:
        base: The base.
        task: Builds the head.
        image_size: (height, width) of the images.
        seed: Random weights and dropout follow from it.

    Raises:
        RecipeError: The head cannot be built onto the base.
        WeightsError: The weight file is missing, damaged, or of another network.
    """
    architecture = base.record or find_architecture(base.name)
    pixels = base.pixels or PIXEL_RULES[architecture.pixels]
    with initializers_seeded(derive_seed(seed, "base")):
        image = keras.Input((*image_size, base.channels), dtype="float32", name="image")
        entering, maps, blocks = _build(base, architecture, pixels, task, image)
        _regularize(blocks, build_regularizer(base.l1, base.l2))
        loaded = None
        if base.weights_file is not None:
            loaded = _load(base, architecture, task, _list_layers(blocks), image_size)
        further_inputs, outputs = task.build_outputs(maps, entering)
        model = keras.Model(
            [image, *further_inputs] if further_inputs else image, outputs, name=architecture.name
        )
    parts = _parts(model, blocks, maps)
    if pooled := _find_pooled(parts[-1]):
        parts = _cross_pooled(parts, find_blocks(architecture, entering, maps[-1]), pooled)
    initialize_head(parts[-1].layers, derive_seed(seed, "head"))
    return TransferModel(model, architecture, parts, task, loaded, pixels)


def _build(
    base: BaseSettings,
    architecture: Architecture,
    pixels: PixelRule,
    task: Task,
    image: keras.KerasTensor,
) -> tuple[keras.KerasTensor, tuple[keras.KerasTensor, ...], tuple[BlockGraph, ...]]:
    """Returns the tensor that enters a base, the maps that the head reads, and its blocks."""
    entering = apply_pixel_rule(image, pixels)
    if base.edge_filter is not None:
        entering = EdgeFilter(base.edge_filter, name="pixels_edges")(entering)
    entering = task.prepare_input(entering)
    features = build_base(architecture, entering, dict(base.arguments))
    maps = task.find_maps(architecture, entering, features)
    return entering, maps, find_blocks(architecture, entering, list(maps))


def _list_layers(blocks: Sequence[BlockGraph]) -> list[keras.layers.Layer]:
    return [layer for block in blocks for layer in block.layers]


def _load(
    base: BaseSettings,
    architecture: Architecture,
    task: Task,
    layers: Sequence[keras.layers.Layer],
    image_size: tuple[int, int],
) -> LoadedWeights:
    """Loads weights, through a base of RGB where they are not those of the channels."""
    path = base.weights_file
    if path is None:
        raise ValueError("expected a weight file")
    if base.channels == RGB or fits_layers(layers, path):
        return load_weights(layers, path)
    image = keras.Input((*image_size, RGB), dtype="float32", name="image")
    pixels = PIXEL_RULES[architecture.pixels]
    source = _list_layers(_build(base, architecture, pixels, task, image)[2])
    loaded = load_weights(source, path)
    layer, before = copy_widened(source, layers)
    return dataclasses.replace(loaded, widened=layer, widened_from=before)


def _cross_pooled(
    parts: tuple[Part, ...],
    blocks: tuple[BlockGraph, ...],
    pooled: Mapping[int, keras.KerasTensor],
) -> tuple[Part, ...]:
    """Lets maps that only the head reads cross later cuts as the vectors that they are pooled to.

    Args:
        parts: The parts, with all tensors that cross.
        blocks: The base without the head's taps, whose inputs are those that it needs itself.
        pooled: The vectors, by the identity of their maps.
    """
    needed = {unit.name: set(map(id, unit.inputs)) for block in blocks for unit in block.units}
    crossing = []
    for part in parts[:-1]:
        own = needed.get(part.name, set())
        tensors = tuple(
            tensor if id(tensor) in own else pooled.get(id(tensor), tensor)
            for tensor in part.inputs
        )
        crossing.append(dataclasses.replace(part, inputs=tensors))
    return (*crossing, parts[-1])


def _find_pooled(head: Part) -> dict[int, keras.KerasTensor]:
    """Returns the vector that each map is pooled to, by the map's identity.

    There are none where the head reads one map alone, or pools with weights, which train.
    """
    joined = [layer for layer in head.layers if layer.name == POOLED_LAYERS[0]]
    if not joined or pools_by_weights(head.layers):
        return {}
    vectors = joined[0].input
    return {id(tensor): vector for tensor, vector in zip(head.inputs, vectors, strict=True)}


def _regularize(
    blocks: tuple[BlockGraph, ...], regularizer: keras.regularizers.Regularizer | None
) -> None:
    """Regularizes each kernel of a base; Keras adds the loss only while the kernel trains.

    A layer with such an argument gets the regularizer too, so that the saved model holds it.
    """
    for layer in (layer for block in blocks for layer in block.layers):
        for variable in layer.trainable_weights:
            if variable.name.endswith("kernel"):  # depthwise and pointwise ones too; no biases
                variable.regularizer = regularizer
                argument = _REGULARIZERS.get(variable.name, "")
                if hasattr(layer, argument):
                    setattr(layer, argument, regularizer)


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
