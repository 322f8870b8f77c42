"""A base of the user's own: a functional Keras model that is loaded, checked and built on pixels.

The record of the model (`own_record.describe_own_base`) and every graph of it (`build_own_base`)
come from a fresh copy that is loaded from its file, so a model in the user's hands never changes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_toolkit.architectures.loading import (
    LoadError,
    load_keras_model,
    remember_model,
    try_loading,
)
from tl_toolkit.architectures.own_checks import calls_of, check_own_model, graph_of
from tl_toolkit.catalog.foreign_models import Fault
from tl_toolkit.errors import Problem, RecipeError, WeightsError, nearest
from tl_toolkit.keras_private import (
    counted_name,
    flatten_layers,
    forget_calls,
    rebuild_graph,
)
from tl_toolkit.sources.objects import name_object

__all__ = [
    "build_own_base",
    "connect_own_model",
    "describe_unregistered",
    "digest_own_model",
    "load_own_model",
    "remember_model",
    "try_own_model",
]

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
    source = f"model.base.model: {name_object(str(path))!r}"
    if not path.exists():
        files = path.parent.glob("*.keras") if path.parent.is_dir() else ()
        near = nearest(path.name, [file.name for file in files])
        hint = f"model.base.model={path.with_name(near)}" if near else ""
        raise WeightsError(
            Problem("", f"{source} is not there", "Expected a file of model.save.", hint)
        )
    try:
        model = load_keras_model(path)
    except LoadError as error:
        raise WeightsError(_explain_load(source, error.fault)) from error
    check_own_model(model, name_object(str(path)))
    for layer in flatten_layers(model):
        layer.trainable = True  # the phases decide what trains
    _name_unnamed(graph_of(model))
    _settle_names(graph_of(model))
    return model


def try_own_model(path: Path) -> None:
    """Refuses a file that does not load in a child process with limits; see `loading`.

    Args:
        path: The model's file.

    Raises:
        WeightsError: It does not pass.
    """
    try:
        try_loading(path)
    except LoadError as error:
        source = f"model.base.model: {name_object(str(path))!r}"
        raise WeightsError(_explain_load(source, error.fault)) from error


def _explain_load(source: str, fault: Fault) -> Problem:
    if fault.unknown:
        return describe_unregistered("", f"{source} cannot be loaded", fault.unknown)
    return Problem(
        where="",
        what=f"{source} {fault.reason}",
        expected="Expected a file of model.save, with layers of Keras that compute on tensors, or "
        "such that are registered with keras.saving.register_keras_serializable and imported, and "
        "that take what their get_config returns; no Lambda layers.",
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
        for call in calls_of(graph)
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
