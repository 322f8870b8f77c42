"""Requests and responses as TensorFlow Serving's REST interface has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_toolkit.serving.saved_model import Signature
from tl_toolkit.serving.tensors import Refusal, TensorSpec, read_array, to_json

__all__ = ["Call", "read_body", "read_predict", "write_predict"]


@dataclass(frozen=True)
class Call:
    """What a request asks of a model.

    Attributes:
        signature: The signature.
        inputs: An array for each of its inputs.
        form: How the response is written: "rows" or "columns"; "" for the other protocol.
        outputs: The outputs that are asked for; empty for all.
        id: What the client calls its request; None where it says nothing.
    """

    signature: Signature
    inputs: Mapping[str, np.ndarray]
    form: str = ""
    outputs: Sequence[str] = ()
    id: str | None = None


def read_body(body: bytes | bytearray) -> dict[str, Any]:
    """Returns the object that a request holds.

    Args:
        body: JSON, in which NaN and Infinity are numbers, too.

    Raises:
        Refusal: It is no JSON, or no object.
    """
    if not body:
        raise Refusal(400, "JSON Parse error: The document is empty")
    try:
        value = json.loads(body)
    except RecursionError as error:
        raise Refusal(400, "JSON Parse error: lists are nested too deep") from error
    except ValueError as error:  # numbers of thousands of digits, too
        raise Refusal(400, f"JSON Parse error: {error}") from error
    if not isinstance(value, dict):
        raise Refusal(400, "JSON Value: Is not object")
    return value


def read_predict(values: Mapping[str, Any], find: Callable[[str], Signature]) -> Call:
    """Reads a request, in rows (`instances`) or in columns (`inputs`).

    Args:
        values: The object in it.
        find: Returns a signature by its name, "" for the default.

    Raises:
        Refusal: It is malformed, or does not fit the signature.
    """
    name = values.get("signature_name", "")
    if not isinstance(name, str):
        raise Refusal(400, "'signature_name' key must be a string value.")
    signature = find(name)
    if "instances" in values and "inputs" in values:
        raise Refusal(
            400,
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist",
        )
    if "instances" in values:
        rows = values["instances"]
        return Call(signature, _read_columns(_turn(rows, signature), signature), "rows")
    if "inputs" in values:
        return Call(
            signature, _read_columns(_name(values["inputs"], signature), signature), "columns"
        )
    raise Refusal(400, "Missing 'inputs' or 'instances' key")


def _is_object(value: Any) -> bool:
    """Returns whether a value is an object of JSON, and not one that stands for bytes."""
    return isinstance(value, dict) and not (
        list(value) == ["b64"] and isinstance(value["b64"], str)
    )


def _turn(rows: Any, signature: Signature) -> dict[str, Any]:
    """Returns the columns of a list of instances."""
    if not isinstance(rows, list):
        raise Refusal(400, "Excepting 'instances' to be an list/array")
    if not rows:
        raise Refusal(400, "No values in 'instances' array")
    names = list(signature.inputs)
    if not names:
        raise Refusal(400, f"Failed to get input map for signature: {signature.name}")
    if not _is_object(rows[0]):
        if len(names) > 1:
            raise Refusal(
                400, "instances is a plain list, but expecting list of objects as multiple input "
                "tensors required as per tensorinfo_map",
            )  # fmt: skip
        if any(map(_is_object, rows)):
            raise Refusal(400, "Expecting value/list but got object in 'instances' list")
        return {names[0]: rows}
    for number, row in enumerate(rows):
        if not _is_object(row):
            raise Refusal(400, f"Expecting object but got list at item {number} of input list")
        if sorted(row) != names:
            raise Refusal(
                400, f"Failed to process element: {number} of 'instances' list. JSON object: keys "
                f"must be equal to: {','.join(names)}",
            )  # fmt: skip
    return {name: [row[name] for row in rows] for name in names}


def _name(columns: Any, signature: Signature) -> dict[str, Any]:
    """Returns columns by the names of inputs."""
    names = list(signature.inputs)
    if not _is_object(columns):
        if len(names) != 1:
            raise Refusal(
                400, "inputs is a plain value/list, but expecting an object as multiple input "
                "tensors required as per tensorinfo_map",
            )  # fmt: skip
        return {names[0]: columns}
    for name in names:
        if name not in columns:
            raise Refusal(400, f"Missing named input: {name} in 'inputs' object.")
    return {name: columns[name] for name in names}


def _read_columns(columns: Mapping[str, Any], signature: Signature) -> dict[str, np.ndarray]:
    return {name: _read(columns[name], spec) for name, spec in signature.inputs.items()}


def _read(value: Any, spec: TensorSpec) -> np.ndarray:
    try:
        return read_array(value, spec)
    except Refusal as refusal:
        raise Refusal(400, f"Failed to process input: {spec.name}. Error: {refusal.text}") from None


def _check_rows(outputs: Mapping[str, np.ndarray]) -> None:
    sizes = {}
    for name, values in outputs.items():
        if values.ndim == 0:
            raise Refusal(400, f"Tensor name: {name} has no shape information")
        sizes[name] = len(values)
    expected = next(iter(sizes.values()), 0)
    for name, size in sizes.items():
        if size != expected:
            raise Refusal(
                400, f"Tensor name: {name} has inconsistent batch size: {size} expecting batch "
                f"size: {expected}; ask in columns, by 'inputs'",
            )  # fmt: skip


def write_predict(outputs: Mapping[str, np.ndarray], form: str) -> dict[str, Any]:
    """Returns the object of a response.

    Args:
        outputs: What the model returned; of a single output the name is left out.
        form: "rows" or "columns".

    Raises:
        Refusal: Outputs are no rows: one has no side, or they have different numbers of images.
    """
    if form == "rows":
        _check_rows(outputs)
    columns = {name: to_json(name, values) for name, values in outputs.items()}
    if form == "columns":
        return {"outputs": next(iter(columns.values())) if len(columns) == 1 else columns}
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    rows = zip(*columns.values(), strict=True)
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}
