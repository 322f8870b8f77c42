"""A base of the user's own: a functional Keras model that is loaded, checked and built on pixels.

The record of the model (`own_record.describe_own_base`) and every graph of it (`build_own_base`)
come from a fresh copy that is loaded from its file, so a model in the user's hands never changes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

# Keras must know these layers to load a model that a run has saved.
import tl_toolkit.architectures.affine
import tl_toolkit.architectures.layers
import tl_toolkit.architectures.sampling  # noqa: F401
from tl_toolkit.architectures.graph import sorted_calls
from tl_toolkit.errors import Problem, RecipeError, WeightsError, nearest
from tl_toolkit.keras_private import (
    Call,
    counted_name,
    explain_load,
    flatten_layers,
    forget_calls,
    inner_graph,
    losses_of,
    rebuild_graph,
)

__all__ = [
    "build_own_base",
    "check_calls",
    "check_own_model",
    "connect_own_model",
    "describe_unregistered",
    "digest_own_model",
    "graph_of",
    "list_regularized",
    "load_own_model",
]

_NO_LOSSES = (
    "expected none: the loss of a phase is the task's, with that of regularized kernels alone."
)
_RESERVED = ("head", "image", "pixels", "predictions")
_RESERVED_BEGINNINGS = ("head_", "pixels_")
_PREFIX = "base_"


# ------------------------------------------------------------------------------------------- models


def load_own_model(path: Path) -> keras.Model:
    """Loads a model of the user's own and checks that it can be a base.

    Args:
        path: A file that `model.save` wrote.

    Raises:
        WeightsError: The file is missing, or Keras cannot load it.
        RecipeError: The model cannot be a base.
    """
    source = f"model.base.model: {str(path)!r}"
    if not path.is_file():
        files = path.parent.glob("*.keras") if path.parent.is_dir() else ()
        near = nearest(path.name, [file.name for file in files])
        hint = f"model.base.model={path.with_name(near)}" if near else ""
        raise WeightsError(
            Problem("", f"{source} is not there", "Expected a file of model.save.", hint)
        )
    if not zipfile.is_zipfile(path):  # Keras would report such a file as missing
        what = f"{source} is damaged, or no .keras file"
        raise WeightsError(Problem("", what, "Expected a file of model.save."))
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # the first part that fails may raise any error
        raise WeightsError(_explain_load(source, error)) from error
    check_own_model(model, str(path))
    for layer in flatten_layers(model):
        layer.trainable = True  # the phases decide what trains
    _name_unnamed(graph_of(model))
    _settle_names(graph_of(model))
    return model


def _explain_load(source: str, error: Exception) -> Problem:
    cause, unknown = explain_load(error)
    if unknown:
        return describe_unregistered("", f"{source} cannot be loaded", unknown)
    return Problem(
        where="",
        what=f"{source} cannot be loaded: {cause}",
        expected="Expected layers of Keras, or such that are registered with "
        "keras.saving.register_keras_serializable and imported, and that take what their "
        "get_config returns; no Lambda layers.",
    )


def describe_unregistered(where: str, what: str, name: str) -> Problem:
    """Returns the problem that a layer of the user's own is not known in this process.

    Args:
        where: The place.
        what: What cannot be done.
        name: The layer, `package>Name` if it was registered when it was saved.
    """
    if ">" in name:
        return Problem(
            where,
            f"{what}: layer {name} is not registered here",
            "Keras finds a layer of your own in a process that has registered it.",
            "import the module, or run the cell, that registers it",
        )
    return Problem(
        where,
        f"{what}: layer {name} is not registered",
        "It was saved by a name that Keras cannot find again.",
        f"decorate class {name} with @keras.saving.register_keras_serializable(), and make the "
        "model again",
    )


def check_own_model(model: Any, source: str) -> None:
    """Refuses a model that cannot be a base.

    Args:
        model: The model, or an object of any other type.
        source: Its name in messages.

    Raises:
        RecipeError: It has no graph, several inputs or outputs, or another dtype than float32.
    """
    fault = next(_find_faults(model), None)
    if fault is not None:
        what, expected, hint = fault
        raise RecipeError(Problem("", f"model.base: {source} {what}", expected, hint))


def _find_faults(model: Any) -> Iterator[tuple[str, str, str]]:
    """Yields each reason as (what was found, what was expected, what to do)."""
    functional = "keras.Model(inputs, outputs)"
    if not isinstance(model, keras.Model):
        path = isinstance(model, str | Path)
        hint = f"model.base.model={model}, or base=keras.saving.load_model(...)" if path else ""
        yield f"is no model but a {type(model).__name__}", "expected a keras.Model.", hint
        return
    graph = inner_graph(model)
    if graph is None and isinstance(model, keras.Sequential):
        expected = "expected a Sequential model that knows the shape of its input."
        yield "was not built", expected, "keras.Input(shape) as its first layer"
        return
    if graph is None:
        expected = "expected a functional model: a subclassed one has no graph to cut."
        yield f"is a subclassed model, {type(model).__name__}", expected, functional
        return
    for side, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        if len(tensors) != 1:
            expected = "expected one: an image goes in, a map or a vector comes out."
            yield f"has {len(tensors)} {side}", expected, functional
            return
    yield from _find_wrong_shapes(graph)
    yield from _find_wrong_types(graph)
    yield from _find_activity_losses(graph)


def _find_wrong_shapes(graph: keras.Function) -> Iterator[tuple[str, str, str]]:
    shape, result = graph.inputs[0].shape, graph.outputs[0].shape
    if len(shape) != 4 or shape[-1] not in (1, 3):
        expected = "expected images (batch, height, width, 3), or 1 channel."
        yield f"takes inputs of shape {shape}", expected, ""
    if (shape[1] is None) != (shape[2] is None):
        yield f"takes inputs of shape {shape}", "expected height and width both, or neither.", ""
    if len(result) not in (2, 4):
        expected = "expected a map (batch, h, w, channels) or a vector (batch, n)."
        hint = "a pooling layer as the last one"
        yield f"gives outputs of shape {result}", expected, hint
    if not list(_own_calls(graph)):
        yield "has no layers", "expected at least one.", ""


def _find_wrong_types(graph: keras.Function) -> Iterator[tuple[str, str, str]]:
    for operation in graph.operations:
        if isinstance(operation, keras.layers.Layer):
            for layer in flatten_layers(operation):
                policy = layer.dtype_policy
                if policy.compute_dtype in ("float16", "bfloat16", "float64") or (
                    policy.quantization_mode is not None
                ):
                    what = f"computes with {policy.name} in {layer.name!r}"
                    expected = "expected float32, which training and the feature store are in."
                    yield what, expected, "build it under the policy float32, and set_weights"
                    return


def _find_activity_losses(graph: keras.Function) -> Iterator[tuple[str, str, str]]:
    for layer in _all_layers(graph):
        if getattr(layer, "activity_regularizer", None) is not None:
            what = f"has an activity_regularizer in {layer.name!r}"
            hint = (
                f"model.get_layer({layer.name!r}).activity_regularizer = None, before it is saved"
            )
            yield what, _NO_LOSSES, hint
            return


def _all_layers(graph: keras.Function) -> list[keras.layers.Layer]:
    """Returns the layers of a graph, and all layers inside them."""
    return [
        layer
        for operation in graph.operations
        if isinstance(operation, keras.layers.Layer)
        for layer in flatten_layers(operation)
    ]


def check_calls(model: keras.Model, size: tuple[int, int]) -> None:
    """Calls a model on one image, and refuses layers of the user's own that a phase cannot train.

    A model of layers of Keras alone is not called: those are known.

    Args:
        model: A model from `load_own_model`, which the calls may change.
        size: (height, width) of an image that it takes.

    Raises:
        RecipeError: A layer changes its weights in inference mode, or adds a loss.
    """
    graph = graph_of(model)
    own = [layer for layer in _all_layers(graph) if _is_own(layer)]
    if not own:
        return
    image = np.full((1, *size, graph.inputs[0].shape[-1]), 0.5, np.float32)
    before = {layer: [weight.numpy() for weight in layer.weights] for layer in own}
    _try(model, image, training=False)
    for layer in own:
        values = zip(before[layer], layer.weights, strict=True)
        if not all(np.array_equal(old, new.numpy(), equal_nan=True) for old, new in values):
            raise RecipeError(
                Problem(
                    "",
                    f"model.base: the layer {layer.name!r} changes its weights in inference mode",
                    "expected none: a layer that changes its own state cannot be frozen.",
                    "a call that assigns only where training is True",
                )
            )
    _try(model, image, training=True)
    for layer in own:
        if losses_of(layer):
            what = f"model.base: the layer {layer.name!r} adds a loss"
            raise RecipeError(Problem("", what, _NO_LOSSES, "build it without add_loss"))


def _is_own(layer: keras.layers.Layer) -> bool:
    return type(layer).__module__.split(".")[0] not in ("keras", "tl_toolkit")


def _try(model: keras.Model, image: np.ndarray, *, training: bool) -> None:
    try:
        model(image, training=training)
    except Exception as error:  # a layer of the user's own may raise any error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        what = f"model.base: {model.name} cannot be called on an image of {image.shape[1:]}"
        raise RecipeError(Problem("", what, lines[0])) from error


def list_regularized(model: keras.Model) -> tuple[str, ...]:
    """Returns the layers whose kernels have a regularizer of the model's own.

    Args:
        model: A model that `check_own_model` has passed.
    """
    return tuple(
        layer.name
        for layer in _all_layers(graph_of(model))
        if any(
            getattr(variable, "regularizer", None) is not None
            for variable in layer.trainable_weights
            if variable.name.endswith("kernel")
        )
        and len(flatten_layers(layer)) == 1
    )


def digest_own_model(path: Path) -> str:
    """Returns a SHA-256 of a model's graph and weights: two files of one model have the same.

    Args:
        path: The model's file, which holds a date.

    Raises:
        WeightsError: As in `load_own_model`.
        RecipeError: As in `load_own_model`.
    """
    model = load_own_model(path)
    config = json.dumps(model.get_config(), sort_keys=True, default=repr)
    digest = hashlib.sha256(config.encode())
    for variable in model.weights:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------- names


def _name_unnamed(graph: keras.Function) -> None:
    """Names layers whose config holds no name by their place: Keras counts them in a process."""
    unnamed = [
        call.operation
        for call in _own_calls(graph)
        if isinstance(call.operation, keras.layers.Layer)
        and "name" not in call.operation.get_config()
    ]
    unnamed = list(dict.fromkeys(unnamed))
    names = {operation.name for operation in graph.operations if operation not in unnamed}
    for operation in unnamed:
        kind = counted_name(operation)
        numbers = itertools.count(1)
        name = kind
        while name in names:
            name = f"{kind}_{next(numbers)}"
        names.add(name)
        operation.name = name


def _settle_names(graph: keras.Function) -> None:
    """Renames layers whose names the toolkit needs: `predictions` to `base_predictions`."""
    names = {operation.name for operation in graph.operations}
    for operation in graph.operations:
        if isinstance(operation, keras.layers.InputLayer) or not _is_reserved(operation.name):
            continue
        name = _PREFIX + operation.name
        while name in names:
            name = _PREFIX + name
        names.add(name)
        operation.name = name


def original_name(name: str) -> str:
    """Returns the name that a layer had in its file, before it was renamed.

    Args:
        name: Name of a layer of a model from `load_own_model`.
    """
    rest = name
    while rest.startswith(_PREFIX):
        rest = rest.removeprefix(_PREFIX)
    return rest if _is_reserved(rest) else name


def _is_reserved(name: str) -> bool:
    return name in _RESERVED or name.startswith(_RESERVED_BEGINNINGS)


# ------------------------------------------------------------------------------------------- graphs


def build_own_base(inputs: keras.KerasTensor, *, path: str) -> keras.KerasTensor:
    """Builds a base of the user's own onto a tensor, with the weights of its file.

    Args:
        inputs: (batch, h, w, c), preprocessed.
        path: The model's file.

    Returns:
        The model's output: (batch, h', w', c') or (batch, n).

    Raises:
        WeightsError: The file is missing or damaged.
        RecipeError: The model cannot be a base, or not for images of this size.
    """
    return connect_own_model(load_own_model(Path(path)), inputs)


def graph_of(model: keras.Model) -> keras.Function:
    """Returns the graph of a functional or Sequential model.

    Args:
        model: A model that `check_own_model` has passed.
    """
    graph = inner_graph(model)
    if graph is None:
        raise ValueError(f"{model.name}: expected a model that was checked")
    return graph


def _own_calls(graph: keras.Function) -> Iterator[Call]:
    return (call for call in sorted_calls(graph) if not call.is_input)


def connect_own_model(model: keras.Model, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Repeats the calls of a model on another input, with the model's own layers.

    A layer without weights that is called several times gets a copy for each call: no two units may
    share a layer.

    Args:
        model: Model from `load_own_model`.
        inputs: (batch, h, w, c), preprocessed.

    Raises:
        RecipeError: It cannot be built for images of this size.
    """
    graph = graph_of(model)
    names = {operation.name for operation in graph.operations}
    for operation in graph.operations:
        forget_calls(operation)  # else `layer.output` would belong to the old graph
    called: set[int] = set()

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        # Keras ignores the mode that a layer was called in while the model was built.
        kwargs.pop("training", None)
        if id(operation) in called and not operation.weights:
            operation = _copy_layer(operation, names)
        called.add(id(operation))
        return operation(*args, **kwargs)

    height, width = inputs.shape[1:3]
    try:
        outputs = rebuild_graph(graph, inputs, call)
    except Exception as error:  # a layer that does not fit may raise any error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RecipeError(
            Problem(
                where="",
                what=f"model.base: {model.name} cannot be built for {height} x {width} pixels",
                expected=lines[0],
                hint="another data.image_size",
            )
        ) from error
    tensor: keras.KerasTensor = keras.tree.flatten(outputs)[0]
    return tensor


def _copy_layer(layer: keras.layers.Layer, names: set[str]) -> keras.layers.Layer:
    """Copies a layer without weights that is called again: no two units may share it."""
    number = 2
    while f"{layer.name}_{number}" in names:
        number += 1
    name = f"{layer.name}_{number}"
    names.add(name)
    return type(layer).from_config({**layer.get_config(), "name": name})
