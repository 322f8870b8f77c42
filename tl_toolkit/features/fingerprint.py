"""Keys of what a prefix computes: equal for equal graphs and weights, in every process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tl_toolkit.architectures.batches import as_list
from tl_toolkit.architectures.graph import sorted_calls
from tl_toolkit.features.own_code import describe_own_code
from tl_toolkit.keras_private import constants_of
from tl_toolkit.transfer.assemble import TransferModel

# Settings of a layer that do not change its outputs in inference mode.
_IRRELEVANT = {"trainable", "seed", "name", "momentum"}
_IRRELEVANT_ENDINGS = ("_initializer", "_regularizer", "_constraint")

Digests = Mapping[tuple[str, str], str]
"""SHA-256 of every weight and moving statistic; `freezing.digest_variables` makes it."""


class PrefixKeys:
    """Computes keys of the tensors of one model: a key depends on all inputs of its tensor.

    Args:
        transfer: The model; its graph is read once, and digests stand for the values of its
            weights.
        context: Everything else that the outputs depend on: image size, decoder, versions, device.
    """

    def __init__(self, transfer: TransferModel, context: Mapping[str, Any]) -> None:
        self._context = json.dumps(context, sort_keys=True)
        graph = keras.Function(transfer.model.input, transfer.model.output)
        self._calls: list[tuple[Any, str]] = []
        self._unreadable: dict[int, str] = {}
        for node in sorted_calls(graph):
            code, reason = _read_code(node.operation)
            self._calls.append((node, _describe_call(node, code)))
            reasons = [reason, *(self._unreadable.get(id(t), "") for t in node.input_tensors)]
            reason = next(filter(None, reasons), "")
            self._unreadable |= {id(tensor): reason for tensor in node.outputs}

    def find_unreadable(self, tensors: keras.KerasTensor | Sequence[keras.KerasTensor]) -> str:
        """Returns why tensors have no key: they are computed by code that cannot be read; else "".

        Args:
            tensors: The tensors of a cut.
        """
        reasons = (self._unreadable.get(id(tensor), "") for tensor in as_list(tensors))
        return next(filter(None, reasons), "")

    def key(
        self,
        tensors: keras.KerasTensor | Sequence[keras.KerasTensor],
        digests: Digests,
        **more: Any,
    ) -> str:
        """Returns the key of the tensors that cross a cut, 32 hexadecimal digits.

        Args:
            tensors: The tensors of the cut.
            digests: Digests of the weights as they are now.
            more: Everything else that these outputs depend on, as the augmentation of the images.
        """
        weights: dict[str, list[str]] = {}
        for (_, name), sha256 in digests.items():
            weights.setdefault(name.rpartition("/")[0], []).append(f"{name} {sha256}")
        wanted = [id(tensor) for tensor in as_list(tensors)]
        known: dict[int, str] = {}
        for node, description in self._calls:
            sources = [known.get(id(tensor), "") for tensor in node.input_tensors]
            digest = _hash(description, *sources, *weights.get(node.operation.name, ()))
            known |= {id(tensor): f"{digest}:{i}" for i, tensor in enumerate(node.outputs)}
            if all(tensor in known for tensor in wanted):
                break
        facts = json.dumps(more, sort_keys=True)
        return _hash(self._context, facts, *(known[tensor] for tensor in wanted))[:32]


def _hash(*lines: str) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read_code(operation: Any) -> tuple[str | None, str]:
    """Returns the code that a user brings to an operation, and why it cannot be read."""
    try:
        return describe_own_code(operation), ""
    except OSError as error:
        return None, f"layer {operation.name}: {error}"


def _describe_call(node: Any, code: str | None) -> str:
    """Describes what a call computes, apart from its weights and the tensors that enter it."""
    operation = node.operation
    kind = f"{type(operation).__module__}.{type(operation).__qualname__}"
    config = {} if isinstance(operation, keras.layers.InputLayer) else operation.get_config()
    settings = {
        # Of a layer of the user's own, nobody knows what matters but for the flag that phases set.
        "config": _clean(config) if code == "" else _without(config, "trainable"),
        "arguments": [_clean(value) for value in constants_of(node)],
        **({"code": code} if code else {}),
    }
    return f"{kind} {json.dumps(settings, sort_keys=True, default=_as_text)}"


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            str(key): _clean(item)
            for key, item in value.items()
            if key not in _IRRELEVANT and not str(key).endswith(_IRRELEVANT_ENDINGS)
        }
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


def _without(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _without(item, key) for name, item in value.items() if name != key}
    return [_without(item, key) for item in value] if isinstance(value, list | tuple) else value


def _as_text(value: Any) -> str:
    if hasattr(value, "numpy") or isinstance(value, np.ndarray):
        value = np.asarray(value)
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    return repr(value)
