"""Bases that `keras.applications` builds: into the caller's graph, under names of their own.

Keras numbers the layers that it does not name by counters of the process, so that their names
differ from build to build. Here each gets the name of its unit and its kind: `mixed3_conv2`.
"""

import inspect
import math
import re
from collections.abc import Sequence
from typing import Any

import keras

from tl_toolkit.architectures.graph import sorted_calls
from tl_toolkit.catalog.imagenet import UNIT_NAMES
from tl_toolkit.catalog.records import RGB, rename
from tl_toolkit.keras_private import counted_name, rebuild_graph

__all__ = ["build_application"]

_WORDS = {
    "Activation": "act",
    "AveragePooling2D": "pool",
    "BatchNormalization": "bn",
    "Concatenate": "concat",
    "Conv2D": "conv",
    "Cropping2D": "crop",
    "CustomScaleLayer": "scale",
    "LayerNormalization": "norm",
    "MaxPooling2D": "pool",
    "ReLU": "relu",
    "ZeroPadding2D": "pad",
}
"""Words, by class, for the names of layers that have none; other classes give their own name."""

_STEM_ENDS = {"InceptionV3": 2, "InceptionResNetV2": 2}
"""Bases whose first layers have no names: the stem ends at the max pooling of this number."""

_PREPROCESSING = "include_preprocessing"
_OF_RGB = (keras.layers.Rescaling, keras.layers.Normalization)
_EFFICIENTNET_DEVIATION = (0.229, 0.224, 0.225)


def build_application(
    inputs: keras.KerasTensor, *, application: str, **arguments: bool | int | float | str
) -> keras.KerasTensor:
    """Builds a base of keras.applications without its classifier, with random weights.

    EfficientNet B0 to B7 is built as Keras builds it for its ImageNet files: with a second
    rescaling behind the normalization, which `weights=None` leaves out. `imagenet_rescaling=False`
    leaves it out too. For other channels than RGB the base has none of the layers that preprocess
    RGB: what enters them is preprocessed as a whole.

    Args:
        inputs: float32 (batch, h, w, c), preprocessed as the base's record says.
        application: Name of the function in keras.applications, as "Xception".
        **arguments: Further arguments of that function, as alpha.

    Returns:
        The feature map (batch, h', w', c).
    """
    build = getattr(keras.applications, application)
    is_rescaled = arguments.pop("imagenet_rescaling", None)
    is_rgb = inputs.shape[-1] == RGB
    if is_rescaled or (is_rescaled is not None and not is_rgb):
        outputs = _build_efficientnet(build, inputs, arguments)
    else:
        if not is_rgb and _PREPROCESSING in inspect.signature(build).parameters:
            arguments[_PREPROCESSING] = False
        model = build(input_tensor=inputs, include_top=False, weights=None, **arguments)
        outputs = model.output
    _name_layers(application, keras.Function(inputs, outputs))
    return outputs


def _build_efficientnet(build: Any, inputs: keras.KerasTensor, arguments: Any) -> keras.KerasTensor:
    """Builds EfficientNet with the rescaling that its files need (tensorflow issue 49930).

    Other channels than RGB enter behind the layers that preprocess RGB.
    """
    is_rgb = inputs.shape[-1] == RGB
    scratch = keras.Input(inputs.shape[1:])
    model = build(input_tensor=scratch, include_top=False, weights=None, **arguments)
    scale = [1 / math.sqrt(deviation) for deviation in _EFFICIENTNET_DEVIATION]
    rescale = keras.layers.Rescaling(scale, name="stem_rescaling2")

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_rgb and isinstance(layer, _OF_RGB):
            return args[0]
        outputs = layer(*args, **kwargs)
        return rescale(outputs) if isinstance(layer, keras.layers.Normalization) else outputs

    # The very same layers, called once more on the caller's tensor.
    return rebuild_graph(model, inputs, call)


def _name_layers(application: str, graph: keras.Function) -> None:
    """Names layers that Keras numbered by a counter after their unit and their kind."""
    units = _find_units(application, graph)
    counts: dict[tuple[str, str], int] = {}
    for operation in graph.operations:
        if isinstance(operation, keras.layers.InputLayer) or not _is_counted(operation):
            continue
        unit = units[id(operation)]
        word = _WORDS.get(type(operation).__name__, counted_name(operation))
        number = counts[unit, word] = counts.get((unit, word), 0) + 1
        operation.name = f"{unit}_{word}{number}"


def _find_units(application: str, graph: keras.Function) -> dict[int, str]:
    """Returns the unit of each operation by its id.

    A name that Keras chose decides it. An operation without a name belongs to the unit that it
    closes, else to the unit of the first operation that reads it, else to the unit that it reads.
    """
    calls = sorted_calls(graph)
    makers = {id(tensor): call.operation for call in calls for tensor in call.outputs}
    sources = {
        id(call.operation): [
            makers[id(tensor)] for tensor in call.input_tensors if id(tensor) in makers
        ]
        for call in calls
    }
    readers: dict[int, list[keras.Operation]] = {id(call.operation): [] for call in calls}
    for call in calls:
        for source in sources[id(call.operation)]:
            readers[id(source)].append(call.operation)
    units = _find_named(application, calls)

    def adopt(operation: keras.Operation, neighbours: Sequence[keras.Operation]) -> None:
        known = [units[id(near)] for near in neighbours if id(near) in units]
        if known and id(operation) not in units:
            units[id(operation)] = known[0]

    operations = [call.operation for call in calls if not call.is_input]
    places = {id(call.operation): place for place, call in enumerate(calls)}
    for operation in operations:
        if _closes(operation, sources[id(operation)]):
            latest = sorted(
                sources[id(operation)], key=lambda source: places[id(source)], reverse=True
            )
            adopt(operation, latest)
    for operation in reversed(operations):
        adopt(operation, readers[id(operation)])
    for operation in operations:
        adopt(operation, sources[id(operation)])
    return units


def _find_named(application: str, calls: Sequence[Any]) -> dict[int, str]:
    units = {}
    pools = 0
    for operation in (call.operation for call in calls):
        unit = None
        if not _is_counted(operation):
            unit = rename(operation.name, UNIT_NAMES[application])
        elif isinstance(operation, keras.layers.MaxPooling2D):
            pools += 1
            unit = "stem" if pools == _STEM_ENDS.get(application) else None
        if unit is not None:
            units[id(operation)] = unit
    return units


def _closes(operation: keras.Operation, sources: Sequence[keras.Operation]) -> bool:
    """Returns whether an operation without a name ends the unit that it reads."""
    if type(operation).__name__ in ("Add", "CustomScaleLayer"):
        return True
    norms = [source for source in sources if isinstance(source, keras.layers.BatchNormalization)]
    return isinstance(operation, keras.layers.Activation) and any(
        not _is_counted(norm) for norm in norms
    )


def _is_counted(operation: keras.Operation) -> bool:
    return re.fullmatch(rf"{counted_name(operation)}(_\d+)?", operation.name) is not None
