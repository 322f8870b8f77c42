"""Requests and responses as the Open Inference Protocol, version 2, has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tl_toolkit.serving.rest import Call
from tl_toolkit.serving.saved_model import ServedModel, Signature
from tl_toolkit.serving.tensors import (
    DATATYPES,
    Refusal,
    TensorSpec,
    flatten,
    read_leaves,
    shape_array,
    to_json,
)

__all__ = ["describe_model", "read_infer", "write_infer"]

_BASE64 = "base64"
_SIGNATURE = "signature_name"
_MOST_SIDES = 16


def describe_model(model: ServedModel, name: str) -> dict[str, Any]:
    """Returns the metadata of a model: inputs and outputs of its default signature.

    Args:
        model: The model.
        name: What it is called.
    """
    signature = model.find()
    return {
        "name": name,
        "versions": [str(model.version)],
        "platform": "tensorflow_savedmodel",
        "inputs": [_describe(spec) for spec in signature.inputs.values()],
        "outputs": [_describe(spec) for spec in signature.outputs.values()],
    }


def _describe(spec: TensorSpec) -> dict[str, Any]:
    shape = list(spec.shape) if spec.shape is not None else [-1]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}


def read_infer(values: Mapping[str, Any], model: ServedModel) -> Call:
    """Reads a request.

    The signature is the one that its parameter `signature_name` names, else the one that takes
    inputs of these names: `image` pixels, `bytes` encoded images.

    Args:
        values: The object in it.
        model: The model.

    Raises:
        Refusal: It is malformed, or does not fit the model.
    """
    tensors = _read_objects(values, "inputs")
    inputs = {_read_name(tensor): tensor for tensor in tensors}
    if len(inputs) < len(tensors):
        raise Refusal(400, "inputs: two have the same name")
    signature = _find_signature(values, inputs, model)
    if sorted(inputs) != list(signature.inputs):
        expected = ", ".join(signature.inputs) or "none"
        raise Refusal(400, f"inputs: expected {expected}, got {', '.join(sorted(inputs))}")
    wanted = [_read_name(tensor) for tensor in _read_objects(values, "outputs", optional=True)]
    unknown = sorted(set(wanted) - set(signature.outputs))
    if unknown:
        raise Refusal(400, f"outputs: {unknown[0]!r} is none of {', '.join(signature.outputs)}")
    identity = values.get("id")
    if identity is not None and not isinstance(identity, str):
        raise Refusal(400, "id: expected a string")
    arrays = {name: _read_tensor(inputs[name], spec) for name, spec in signature.inputs.items()}
    return Call(signature, arrays, outputs=wanted, id=identity)


def _find_signature(
    values: Mapping[str, Any], inputs: Mapping[str, Any], model: ServedModel
) -> Signature:
    name = _read_parameters(values).get(_SIGNATURE, "")
    if not isinstance(name, str):
        raise Refusal(400, f"parameters: {_SIGNATURE}: expected a string")
    if name:
        return model.find(name)
    for signature in (model.find(), *model.signatures.values()):
        if list(signature.inputs) == sorted(inputs):
            return signature
    return model.find()


def _read_objects(
    values: Mapping[str, Any], key: str, *, optional: bool = False
) -> list[dict[str, Any]]:
    objects = values.get(key, [] if optional else None)
    if not isinstance(objects, list) or not all(isinstance(value, dict) for value in objects):
        raise Refusal(400, f"{key}: expected a list of objects")
    return objects


def _read_name(tensor: Mapping[str, Any]) -> str:
    name = tensor.get("name")
    if not isinstance(name, str):
        raise Refusal(400, "each tensor needs a name, a string")
    return name


def _read_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    parameters = values.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refusal(400, "parameters: expected an object")
    return parameters


def _read_tensor(tensor: Mapping[str, Any], spec: TensorSpec) -> np.ndarray:
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    if datatype != DATATYPES[spec.dtype]:
        raise Refusal(
            400, f"input {spec.name}: expected datatype {DATATYPES[spec.dtype]}, got {datatype!r}"
        )
    if not isinstance(shape, list) or not all(map(_is_side, shape)) or len(shape) > _MOST_SIDES:
        raise Refusal(400, f"input {spec.name}: shape: expected at most {_MOST_SIDES} numbers")
    if "data" not in tensor:
        raise Refusal(400, f"input {spec.name}: it has no data")
    _, leaves = flatten(tensor["data"])
    count = math.prod(shape)
    if len(leaves) != count:
        raise Refusal(
            400, f"input {spec.name}: its shape has {count} values, data has {len(leaves)}"
        )
    if _read_parameters(tensor).get("content_type") == _BASE64:
        leaves = [{"b64": leaf} for leaf in leaves]
    try:
        array = read_leaves(leaves, spec.dtype)
    except Refusal as refusal:
        raise Refusal(400, f"input {spec.name}: {refusal.text}") from None
    return shape_array(array, shape, spec)


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def write_infer(
    outputs: Mapping[str, np.ndarray], call: Call, *, name: str, version: int
) -> dict[str, Any]:
    """Returns the object of a response; tensors are flat.

    Bytes are base64, and their tensors have the parameter `content_type: base64`.

    Args:
        outputs: What the model returned.
        call: What was asked.
        name: What the model is called.
        version: Its version.
    """
    chosen = call.outputs or list(outputs)
    response: dict[str, Any] = {"model_name": name, "model_version": str(version)}
    if call.id is not None:
        response["id"] = call.id
    response["outputs"] = [
        _write_tensor(call.signature.outputs[key], outputs[key]) for key in chosen
    ]
    return response


def _write_tensor(spec: TensorSpec, values: np.ndarray) -> dict[str, Any]:
    data = to_json(spec.name, values.reshape(-1))
    tensor: dict[str, Any] = {
        "name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": list(values.shape),
    }  # fmt: skip
    if data and isinstance(data[0], dict):
        tensor["parameters"] = {"content_type": _BASE64}
        data = [value["b64"] for value in data]
    return {**tensor, "data": data}
