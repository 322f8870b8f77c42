"""A SavedModel that is served: its signatures, and calls of them on arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2

from tl_toolkit.images.decoder import explain
from tl_toolkit.serving.tensors import DATATYPES, Refusal, TensorSpec

__all__ = ["DEFAULT_SIGNATURE", "ServedModel", "Signature"]

DEFAULT_SIGNATURE = "serving_default"

_EXPORTED = {DEFAULT_SIGNATURE: ["image"], "serve_bytes": ["bytes"], "class_names": []}


@dataclass(frozen=True)
class Signature:
    """A signature of a SavedModel.

    Attributes:
        name: Its name.
        inputs: Its inputs by name.
        outputs: Its outputs by name, in the order of their names.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    @property
    def takes_batches(self) -> bool:
        """Whether the first side of each input is the number of images."""
        return bool(self.inputs) and all(spec.is_batched for spec in self.inputs.values())

    @property
    def is_batched(self) -> bool:
        """Whether the first side of each input and output is the number of images."""
        return self.takes_batches and all(spec.is_batched for spec in self.outputs.values())


class ServedModel:
    """One version of a model.

    Args:
        path: The folder of the SavedModel.
        version: Its number.

    Attributes:
        version: Its number.
        signatures: Its signatures by name, but for those with tensors that JSON cannot hold.
        metadata: The signatures as TensorFlow Serving's metadata have them.
        is_export: Whether it has the signatures of an export, each of whose images is computed by
            itself. Of any other model, what one image gives may depend on those beside it.
    """

    def __init__(self, path: Path, version: int) -> None:
        self.version = version
        self._model = tf.saved_model.load(str(path))
        self.metadata = _read_signatures(path)
        self.signatures: dict[str, Signature] = {}
        self._unserved: dict[str, Refusal] = {}
        for name, function in sorted(self._model.signatures.items()):
            try:
                self.signatures[name] = _describe(name, function)
            except Refusal as refusal:
                self._unserved[name] = refusal
        if self._unserved and not self.signatures:
            raise next(iter(self._unserved.values()))
        inputs = {name: list(signature.inputs) for name, signature in self.signatures.items()}
        self.is_export = inputs == _EXPORTED

    def find(self, name: str = "") -> Signature:
        """Returns a signature.

        Args:
            name: Its name; "" for the default.

        Raises:
            Refusal: There is none of that name.
        """
        name = name or DEFAULT_SIGNATURE
        if name in self._unserved:
            raise Refusal(400, f'Serving signature name: "{name}": {self._unserved[name]}')
        if name not in self.signatures:
            raise Refusal(400, f'Serving signature name: "{name}" not found in signature def')
        return self.signatures[name]

    def call(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the model.

        Args:
            signature: A name of `signatures`.
            inputs: An array of its type for each input.

        Raises:
            Refusal: The model refuses the inputs, as a damaged image.
        """
        specs = self.signatures[signature].inputs
        tensors = {name: tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()}
        try:
            outputs = self._model.signatures[signature](**tensors)
            return {name: np.asarray(outputs[name].numpy()) for name in sorted(outputs)}
        except tf.errors.InvalidArgumentError as error:
            raise Refusal(400, _explain(error)) from error
        except tf.errors.ResourceExhaustedError as error:
            raise Refusal(413, "The model needs more memory for it than there is") from error

    def warm_up(self, max_batch: int) -> None:
        """Calls each signature that takes images, so that no client waits for a first call.

        Args:
            max_batch: The size of a second call.
        """
        for name, signature in self.signatures.items():
            for count in sorted({1, max_batch} if signature.is_batched else ()):
                inputs = {key: _sample(spec, count) for key, spec in signature.inputs.items()}
                # A model of other images than these refuses them, and is served all the same.
                with contextlib.suppress(Refusal, tf.errors.OpError):
                    if all(array is not None for array in inputs.values()):
                        self.call(name, {key: a for key, a in inputs.items() if a is not None})


def _describe(name: str, function: Any) -> Signature:
    _, inputs = function.structured_input_signature
    return Signature(
        name,
        {key: _read_spec(key, spec) for key, spec in sorted(inputs.items())},
        {key: _read_spec(key, spec) for key, spec in sorted(function.structured_outputs.items())},
    )


def _read_spec(name: str, spec: Any) -> TensorSpec:
    if spec.dtype.name not in DATATYPES:
        raise Refusal(400, f"{name}: tensors of {spec.dtype.name} cannot be served")
    if spec.shape.rank is None:
        return TensorSpec(name, spec.dtype.name, None)
    sides = tuple(-1 if side is None else int(side) for side in spec.shape)
    return TensorSpec(name, spec.dtype.name, sides)


def _read_signatures(path: Path) -> dict[str, Any]:
    """Returns the signatures as protobuf's own JSON has them."""
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0]
    return {
        name: json_format.MessageToDict(
            definition,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        for name, definition in sorted(graph.signature_def.items())
    }


def _sample(spec: TensorSpec, count: int) -> np.ndarray | None:
    """Returns small images for an input; None for one that takes none."""
    if spec.dtype == "string" and spec.shape == (-1,):
        pixel = tf.io.encode_png(tf.zeros((1, 1, 3), tf.uint8)).numpy()
        return np.array([pixel] * count, object)
    if spec.shape is None or len(spec.shape) != 4 or spec.dtype == "string":
        return None
    _, height, width, channels = spec.shape
    sides = [side if side > 0 else 32 for side in (height, width)]
    return np.zeros((count, *sides, channels if channels > 0 else 3), spec.dtype)


def _explain(error: Exception) -> str:
    text = str(error)
    if "Decode" in text or "decode" in text:
        return f"The model refuses an image: {explain(error)}"
    return f"The model refuses the inputs: {_find_reason(text)}"


_HEADS = ("Graph execution error", "Detected at node", "<stack traces")


def _find_reason(text: str) -> str:
    """Returns the line of TensorFlow's text that says what is wrong."""
    lines = [line.strip() for line in text.splitlines()]
    reasons = [line for line in lines if line and not line.startswith((*_HEADS, "[["))]
    return reasons[0][:300] if reasons else "they do not fit it"
