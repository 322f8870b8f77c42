"""Which Keras models can be a base: what is refused, before a run begins, and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_toolkit.architectures.graph import sorted_calls
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.keras_private import Call, flatten_layers, inner_graph, losses_of

__all__ = ["calls_of", "check_calls", "check_own_model", "graph_of", "list_regularized"]

_NO_LOSSES = (
    "expected none: the loss of a phase is the task's, with that of regularized kernels alone."
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
    if len(shape) != 4 or shape[-1] is None:
        expected = "expected images (batch, height, width, channels)."
        yield f"takes inputs of shape {shape}", expected, ""
    if (shape[1] is None) != (shape[2] is None):
        yield f"takes inputs of shape {shape}", "expected height and width both, or neither.", ""
    if len(result) not in (2, 4):
        expected = "expected a map (batch, h, w, channels) or a vector (batch, n)."
        hint = "a pooling layer as the last one"
        yield f"gives outputs of shape {result}", expected, hint
    if not list(calls_of(graph)):
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


def graph_of(model: keras.Model) -> keras.Function:
    """Returns the graph of a functional or Sequential model.

    Args:
        model: A model that `check_own_model` has passed.
    """
    graph = inner_graph(model)
    if graph is None:
        raise ValueError(f"{model.name}: expected a model that was checked")
    return graph


def calls_of(graph: keras.Function) -> Iterator[Call]:
    """Returns the calls of a graph in topological order, without its input.

    Args:
        graph: The graph of a model.
    """
    return (call for call in sorted_calls(graph) if not call.is_input)
