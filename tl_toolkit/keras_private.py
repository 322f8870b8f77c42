"""Access to private parts of Keras, TensorFlow and KerasTuner.

No other module uses a private part of theirs. tests/test_keras_private.py tests the assumptions of
each function, and fails by its name when a new version changes them. The libraries are imported
when a function is called, so that importing this module costs nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import keras
    import keras_tuner
    import tensorflow as tf

__all__ = [
    "abort_collectives",
    "Call",
    "calls_by_depth",
    "calls_of",
    "constants_of",
    "counted_name",
    "disable_op_determinism",
    "explain_load",
    "flatten_layers",
    "fold_constants",
    "forget_calls",
    "inner_graph",
    "is_op_determinism_enabled",
    "keep_input_calls",
    "limit_connecting",
    "logits_of",
    "losses_of",
    "producer_of",
    "rand_augment_layers",
    "rebuild_graph",
    "set_keras_home",
    "set_oracle_folder",
    "set_max_collisions",
    "shear_matrix",
    "translation_matrix",
    "zoom_matrix",
]


class Call(Protocol):
    """One call of an operation on tensors of a graph; Keras calls it a node.

    Attributes:
        operation: The called operation. An operation that is called twice has two calls.
        outputs: The tensors that left it.
        input_tensors: The tensors that entered it, in the order of its arguments.
        is_input: Whether it only marks an input of a graph.
        arguments: All arguments of the call; see `constants_of`.
    """

    operation: keras.Operation
    outputs: Sequence[keras.KerasTensor]
    arguments: Any

    @property
    def input_tensors(self) -> Sequence[keras.KerasTensor]:
        """The tensors that entered it."""

    @property
    def is_input(self) -> bool:
        """Whether it only marks an input of a graph."""


# ------------------------------------------------------------------------------------------- graphs


def producer_of(tensor: keras.KerasTensor) -> keras.Operation:
    """Returns the operation whose call made a tensor of a graph.

    Args:
        tensor: Any tensor of a functional graph; its inputs are made by an InputLayer.
    """
    return tensor._keras_history.operation


@contextlib.contextmanager
def keep_input_calls(tensors: Sequence[keras.KerasTensor]) -> Iterator[None]:
    """Restores, after the block, the calls that the inputs of a graph come from.

    A second model that begins at an Input and at tensors of other layers calls the InputLayer
    again, and Keras takes the input of the first model for an output of that call: the first model
    cannot be saved any more.

    Args:
        tensors: Inputs of a graph.
    """
    histories = [tensor._keras_history for tensor in tensors]
    try:
        yield
    finally:
        for tensor, history in zip(tensors, histories, strict=True):
            tensor._keras_history = history


def calls_by_depth(graph: keras.Function) -> Mapping[int, Sequence[Call]]:
    """Returns the calls of a graph by their distance from its end.

    An operation that other graphs share has more calls than these; see `calls_of`.

    Args:
        graph: A functional model, or a `keras.Function`.

    Returns:
        The calls of each depth. A call reads only from calls of greater depths.
    """
    calls: Mapping[int, Sequence[Call]] = graph._nodes_by_depth
    return calls


def calls_of(operation: keras.Operation) -> Sequence[Call]:
    """Returns all calls of an operation, in every graph, the oldest first.

    Args:
        operation: A layer or an operation.
    """
    calls: Sequence[Call] = operation._inbound_nodes
    return calls


def forget_calls(operation: keras.Operation) -> None:
    """Makes an operation forget all its calls, so that `layer.output` is that of the next one.

    Use it only for the operations of a graph that is discarded: Keras cannot walk it any more.

    Args:
        operation: A layer or an operation.
    """
    operation._inbound_nodes.clear()
    operation._outbound_nodes.clear()


def constants_of(call: Call, *, without: Container[str] = ()) -> list[Any]:
    """Returns what a call was passed besides tensors of the graph, as the 2.0 of `x * 2.0`.

    Args:
        call: A call of a graph.
        without: Keyword arguments that are left out.

    Returns:
        The values of the positional arguments, then of the keyword arguments by name.
    """
    import keras
    import tensorflow as tf

    keywords = {name: value for name, value in call.arguments.kwargs.items() if name not in without}
    arguments = tf.nest.flatten([call.arguments.args, keywords])
    return [value for value in arguments if not isinstance(value, keras.KerasTensor)]


def inner_graph(operation: keras.Operation) -> keras.Function | None:
    """Returns the graph of a nested model, None for any operation that has none.

    Args:
        operation: A layer or an operation.
    """
    import keras

    if isinstance(operation, keras.Sequential):
        return operation._functional
    return operation if isinstance(operation, keras.Function) else None


def rebuild_graph(
    model: keras.Model, inputs: keras.KerasTensor, call: Callable[..., Any]
) -> keras.KerasTensor:
    """Repeats every call of a functional model on another input, with the same layers.

    Args:
        model: A functional model with one input and one output.
        inputs: The tensor that takes the place of its input.
        call: Receives each operation and the arguments of its call, and returns the outputs.

    Returns:
        The tensor that takes the place of its output.
    """
    return model._run_through_graph(inputs, operation_fn=lambda operation: operation, call_fn=call)


def flatten_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and all layers inside it, at every depth.

    Args:
        layer: A layer or a model. The public `layers` of a model leaves out what lies inside its
            layers.
    """
    return list(layer._flatten_layers())


def explain_load(error: Exception) -> tuple[str, str]:
    """Returns why Keras cannot load a model.

    Its message nests: that of the model ends in that of the layer, behind the same words.

    Args:
        error: What `keras.saving.load_model` raised.

    Returns:
        The cause, one line, and the layer or function that is not registered in this process, as
        `package>Name`; "" if that is not the cause.
    """
    text = str(error)
    cause = text.rsplit("Exception encountered:", 1)[-1].strip()
    unknown = re.match(r"Could not locate (?:class|function) '([^']+)'", cause)
    name = ""
    if unknown:
        known = re.search(r"'registered_name': '([^']+)'", cause)
        name = known[1] if known else unknown[1]
    lines = [line.strip() for line in cause.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__, name


def logits_of(outputs: tf.Tensor) -> tf.Tensor:
    """Returns what went into the softmax or sigmoid that a model ends with; else its outputs.

    Args:
        outputs: What a call of the model on values returned.
    """
    return getattr(outputs, "_keras_logits", outputs)


def losses_of(layer: keras.layers.Layer) -> list[Any]:
    """Returns the losses that a layer added in its last call, without those of its weights.

    Args:
        layer: A layer that was called on values.
    """
    return list(layer._get_own_losses())


def counted_name(operation: keras.Operation) -> str:
    """Returns the name that Keras gives an unnamed operation, before it adds a number.

    Args:
        operation: A layer or an operation; "conv2d" for a Conv2D.
    """
    from keras.src.utils.naming import to_snake_case

    return str(to_snake_case(type(operation).__name__))


# ------------------------------------------------------------------------------------- augmentation


def rand_augment_layers(layer: keras.layers.RandAugment) -> dict[str, keras.layers.Layer]:
    """Returns the layers that a RandAugment chooses from, in the order of its `layer_idxes`.

    Args:
        layer: The layer. `transforms` holds its samples for each choice, by the same names.
    """
    return {name: getattr(layer, name) for name in layer._AUGMENT_LAYERS}


def zoom_matrix(
    layer: keras.layers.RandomZoom, zooms: tf.Tensor, height: int, width: int
) -> tf.Tensor:
    """Returns where each pixel of a zoomed image comes from.

    Args:
        layer: The layer.
        zooms: float32 (n, 2), the factors of width and height.
        height: Height of the images.
        width: Width of the images.

    Returns:
        float32 (n, 8): a 3 x 3 matrix row by row, without its last number, which is 1.
    """
    return layer._get_zoom_matrix(zooms, height, width)


def translation_matrix(layer: keras.layers.RandomTranslation, translations: tf.Tensor) -> tf.Tensor:
    """Returns where each pixel of a moved image comes from, as `zoom_matrix` does.

    Args:
        layer: The layer.
        translations: float32 (n, 2), in pixels to the right and down.
    """
    return layer._get_translation_matrix(translations)


def shear_matrix(layer: keras.layers.RandomShear, factors: tf.Tensor) -> tf.Tensor:
    """Returns where each pixel of a sheared image comes from, as `zoom_matrix` does.

    Args:
        layer: The layer.
        factors: float32 (n, 2), horizontal and vertical.
    """
    return layer._get_shear_matrix(factors)


# --------------------------------------------------------------------------------------- TensorFlow


def fold_constants(function: Any) -> Any:
    """Returns a traced function in which the values of all variables are constants.

    Args:
        function: A concrete `tf.function`.

    Returns:
        A function of the same flat tensors to the list of its outputs, which later changes of the
        variables do not reach.
    """
    from tensorflow.python.framework import convert_to_constants

    return convert_to_constants.convert_variables_to_constants_v2(function)


def abort_collectives(code: int, text: str) -> None:
    """Ends the collective operations that wait for other processes.

    Args:
        code: Of `tf.errors`, which they fail with.
        text: The message that they fail with.
    """
    from tensorflow.python.eager import context

    context.context().abort_collective_ops(code, text)


def limit_connecting(cluster: Any, seconds: float) -> None:
    """Sets how long the next strategy of several hosts waits for them; it would wait for ever.

    Each host then waits until all of them have registered; one that finds no first host tries twice
    as long.

    Args:
        cluster: The `tf.train.ClusterSpec` of its workers.
        seconds: How long.
    """
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.distribute import multi_worker_util
    from tensorflow.python.eager import context

    spec = multi_worker_util.normalize_cluster_spec(cluster)
    workers = coordination_config_pb2.CoordinatedJob(
        name="worker", num_tasks=spec.num_tasks("worker")
    )
    started = context.context()
    started.configure_coordination_service(
        service_type="standalone",
        service_leader=multi_worker_util.coordination_leader(spec),
        cluster_register_timeout_in_ms=int(seconds * 1000),
        coordinated_jobs=[workers],
    )
    started.coordination_service.cluster_register_with_barrier = True


def is_op_determinism_enabled() -> bool:
    """Returns whether `tf.config.experimental.enable_op_determinism` is in force."""
    from tensorflow.python.framework import config

    return bool(config.is_op_determinism_enabled())


def disable_op_determinism() -> None:
    """Reverts `tf.config.experimental.enable_op_determinism`."""
    from tensorflow.python.framework import config

    config.disable_op_determinism()


def set_keras_home(folder: str) -> None:
    """Sets where an imported Keras keeps what `keras.utils.get_file` downloads.

    Args:
        folder: As KERAS_HOME names it.
    """
    from keras.src.backend import config

    config._KERAS_DIR = folder


# --------------------------------------------------------------------------------------- KerasTuner


def set_max_collisions(oracle: keras_tuner.Oracle, count: int) -> None:
    """Sets how often an oracle may sample values that it has tried before it gives up.

    Args:
        oracle: The oracle.
        count: Samples in a row.
    """
    oracle._max_collisions = count


def set_oracle_folder(oracle: keras_tuner.Oracle, folder: str | Path) -> None:
    """Sets where an oracle writes its own files; by default that is the working directory.

    Args:
        oracle: The oracle.
        folder: The folder; the oracle creates a folder `oracle` in it.
    """
    oracle._set_project_dir(str(folder), "oracle")
