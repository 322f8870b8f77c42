"""The code of layers that a user brings, as a part of what their outputs depend on.

The version of Keras, TensorFlow and the toolkit stands for their own layers. A layer of the user's
own has no version: its code decides.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import keras

from tl_toolkit.keras_private import flatten_layers

__all__ = ["describe_own_code"]

_LIBRARIES = ("keras", "tensorflow", "tl_toolkit", "builtins")


def describe_own_code(operation: Any) -> str:
    """Returns a digest of the code that a user brings to an operation; "" if it has none.

    Counted are the classes of the operation and of the layers in it, functions that these hold, as
    an activation of the user's own, and all else that is in the modules of either. What these
    modules import from others is not followed.

    Args:
        operation: A layer, a model or an operation of a graph.

    Raises:
        OSError: The source of such a class or function cannot be read, as in an interactive
            session; says which.
    """
    parts = {part: None for layer in _flatten(operation) for part in _find_own(layer)}
    if not parts:
        return ""
    lines = [line for part in parts for line in (_read_source(part), *_describe_functions(part))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _flatten(operation: Any) -> list[Any]:
    is_layer = isinstance(operation, keras.layers.Layer)
    return flatten_layers(operation) if is_layer else [operation]


def _find_own(layer: Any) -> Iterator[type | FunctionType]:
    """Yields the classes and functions of a layer that are the user's."""
    parts: list[type | FunctionType] = list(type(layer).__mro__)
    parts += [value for value in vars(layer).values() if isinstance(value, FunctionType)]
    for part in parts:
        if part.__module__.partition(".")[0] not in _LIBRARIES:
            yield part


def _read_source(part: type | FunctionType) -> str:
    """Returns the text of the module of a class or function, which must be in there."""
    try:
        inspect.getsource(part)
        return inspect.getsource(inspect.getmodule(part) or part)
    except (OSError, TypeError) as error:
        raise OSError(f"the source of {part.__qualname__} cannot be read") from error


def _describe_functions(part: type | FunctionType) -> list[str]:
    """Describes what is loaded: a file may have been edited since then."""
    values = vars(part).items() if isinstance(part, type) else [(part.__name__, part)]
    codes = ((name, getattr(value, "__code__", None)) for name, value in values)
    return [f"{name} {_describe_code(code)}" for name, code in codes if code is not None]


def _describe_code(code: CodeType) -> str:
    constants = [
        _describe_code(value) if isinstance(value, CodeType)
        else repr(sorted(value, key=repr)) if isinstance(value, frozenset)  # of no certain order
        else repr(value)
        for value in code.co_consts
    ]  # fmt: skip
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"
