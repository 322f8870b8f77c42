"""Tensors in JSON: from nested lists to arrays of a signature's types, and back."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

__all__ = [
    "CLOSE",
    "DATATYPES",
    "Refusal",
    "TensorSpec",
    "count_bytes",
    "flatten",
    "read_array",
    "read_leaves",
    "shape_array",
    "to_json",
]

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
}
"""Types of tensors, and the words of the Open Inference Protocol for them."""

CLOSE = {"Connection": "close"}
"""The header of an answer to a request whose body was not read."""

_BINARY = "_bytes"
_SHORT = 4096
_SHOWN_SIDES = 16
_KINDS = {str: "String", dict: "Object", list: "Array", bool: "Boolean", type(None): "Null"}


@dataclass(eq=False)  # two errors are not one
class Refusal(Exception):
    """A request that is refused.

    Attributes:
        status: The status of HTTP.
        text: Why, in a sentence.
        headers: Headers of the response.
    """

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.status, self.text)

    def __str__(self) -> str:
        """Returns why."""
        return self.text


@dataclass(frozen=True)
class TensorSpec:
    """What a signature says of an input or an output.

    Attributes:
        name: Its name.
        dtype: A key of DATATYPES.
        shape: Its sides, -1 for any size; None for any rank.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None

    @property
    def is_batched(self) -> bool:
        """Whether its first side is the number of images."""
        return bool(self.shape) and self.shape is not None and self.shape[0] == -1


def flatten(value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Returns the shape of nested lists, and what is in them, in order.

    Args:
        value: As JSON has it; a value that is no list has the shape ().

    Raises:
        Refusal: Lists beside each other have different lengths or depths.
    """
    shape: list[int] = []
    leaves: list[Any] = [value]
    while leaves and list in (kinds := set(map(type, leaves))):
        if len(kinds) > 1:
            raise Refusal(400, f"Encountered list at unexpected level: {len(shape)}")
        sizes = set(map(len, leaves))
        if len(sizes) > 1:
            raise Refusal(
                400,
                f"Encountered list at unexpected size: {max(sizes)} at level: {len(shape)} "
                f"expected size: {min(sizes)}",
            )
        shape.append(sizes.pop())
        leaves = list(chain.from_iterable(leaves))
    return tuple(shape), leaves


def read_array(value: Any, spec: TensorSpec) -> np.ndarray:
    """Returns nested lists as an array of a signature's type and shape.

    Args:
        value: As JSON has it; bytes are objects with the one key b64.
        spec: What the signature says.

    Raises:
        Refusal: A value has another type, or the lists another shape.
    """
    shape, leaves = flatten(value)
    return shape_array(read_leaves(leaves, spec.dtype), shape, spec)


def shape_array(values: np.ndarray, shape: Sequence[int], spec: TensorSpec) -> np.ndarray:
    """Returns flat values in a shape that fits their input.

    Args:
        values: The values.
        shape: Their shape, as the client states it.
        spec: What the signature says.

    Raises:
        Refusal: The shape has another rank, or another size where that is fixed; or no array has
            it, as one of more than 64 sides.
    """
    sides = spec.shape
    if sides is not None and (
        len(sides) != len(shape)
        or any(side not in (-1, size) for side, size in zip(sides, shape, strict=True))
    ):
        shown = list(shape) if len(shape) <= _SHOWN_SIDES else f"{len(shape)} sides"
        raise Refusal(400, f"input {spec.name}: expected shape {list(sides)}, got {shown}")
    try:
        return values.reshape(shape)
    except ValueError as error:
        raise Refusal(400, f"input {spec.name}: {error}") from error


def read_leaves(leaves: Sequence[Any], dtype: str) -> np.ndarray:
    """Returns values as a flat array.

    Args:
        leaves: As JSON has them.
        dtype: A key of DATATYPES.

    Raises:
        Refusal: A value has another type, or is out of the type's range.
    """
    kinds = set(map(type, leaves))
    if dtype == "string":
        array = np.empty(len(leaves), object)
        array[:] = [_read_string(leaf) for leaf in leaves]
        return array
    numbers = {bool} if dtype == "bool" else {int, float} if "float" in dtype else {int}
    if not kinds <= numbers:
        raise _describe_type(next(leaf for leaf in leaves if type(leaf) not in numbers), dtype)
    if dtype == "bool":
        return np.array(leaves, bool)
    wide = "float64" if "float" in dtype else "uint64" if dtype == "uint64" else "int64"
    try:
        values = np.array(leaves, wide)
    except OverflowError as error:
        raise Refusal(400, f"A number is out of the range of {dtype}") from error
    limits = np.finfo(dtype) if "float" in dtype else np.iinfo(dtype)
    finite = values[np.isfinite(values)]
    if finite.size and (finite.min() < limits.min or finite.max() > limits.max):
        raise Refusal(400, f"A number is out of the range of {dtype}")
    return values.astype(dtype)


def _read_string(leaf: Any) -> bytes:
    if isinstance(leaf, str):
        return leaf.encode("utf-8", "surrogatepass")
    if isinstance(leaf, dict) and list(leaf) == ["b64"] and isinstance(leaf["b64"], str):
        return decode_base64(leaf["b64"])
    raise _describe_type(leaf, "string")


def decode_base64(text: str) -> bytes:
    """Returns what base64 stands for; line breaks in it count for nothing.

    Args:
        text: In either alphabet, with padding or without, as TensorFlow Serving takes it.

    Raises:
        Refusal: It is no base64.
    """
    try:
        plain = text.encode("ascii").translate(_URL_SAFE, b"\r\n")
        plain = plain.rstrip(b"=")
        return binascii.a2b_base64(plain + b"=" * (-len(plain) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise Refusal(400, f"Unable to base64 decode: {error}") from error


_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def _describe_type(leaf: Any, dtype: str) -> Refusal:
    kind = _KINDS.get(type(leaf), "Number")
    shown = repr(leaf)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    return Refusal(400, f"JSON Value: {shown} Type: {kind} is not of expected type: {dtype}")


def to_json(name: str, values: np.ndarray) -> Any:
    """Returns an array as nested lists of what JSON can hold.

    Strings of an output whose name ends in `_bytes` are bytes: objects with the key b64. Floats of
    32 bits have as few digits as give them back, in arrays of at most 4,096 values; beyond, where
    that would take long, all digits of their value.

    Args:
        name: The output.
        values: Its values.
    """
    if values.dtype == object:
        encode = _encode_bytes if name.endswith(_BINARY) else _decode_text
        flat = [encode(value) for value in values.reshape(-1)]
        return _nest(flat, values.shape)
    if values.dtype == np.float32 and values.size <= _SHORT:
        return values.astype("U32").astype(np.float64).tolist()
    return values.tolist()


def count_bytes(values: np.ndarray) -> int:
    """Returns the bytes of an array; of strings, those that they hold.

    Args:
        values: The array.
    """
    return sum(map(len, values.flat)) if values.dtype == object else values.nbytes


def _encode_bytes(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _decode_text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _nest(flat: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return flat
    step = math.prod(shape[1:])
    return [_nest(flat[index * step : (index + 1) * step], shape[1:]) for index in range(shape[0])]
