"""The SavedModel: images or encoded bytes in, named outputs out, class names inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tl_toolkit.export.asking import asking
from tl_toolkit.export.formats import FinishedModel, Format
from tl_toolkit.images.bands import dtype_of
from tl_toolkit.keras_private import flatten_layers
from tl_toolkit.runs.files import write_json

__all__ = ["FORMAT", "write_saved_model"]

_COLLECTIONS = ("variables", "trainable_variables", "non_trainable_variables")
"""What `keras.layers.TFSMLayer` looks for in a SavedModel."""


def write_saved_model(finished: FinishedModel, path: Path) -> None:
    """Writes a model for TensorFlow Serving or plain TensorFlow.

    Three signatures: `serving_default(image)` takes uint8 RGB (batch, h, w, 3) of any size, or
    float32 bands (batch, h, w, channels) in the numbers of the files,
    `serve_bytes(bytes)` encoded images (batch,), and both return what the task's endpoints return;
    `class_names()` returns what the outputs stand for. Decoding, turning, resizing and
    preprocessing are inside.

    Args:
        finished: The model.
        path: Folder to write; must not exist.
    """
    endpoints = finished.task.build_endpoints(finished.model, finished.resize, webp=finished.webp)
    channels = finished.model.inputs[0].shape[-1]
    dtype = tf.as_dtype(dtype_of(channels))
    names = tf.constant(list(finished.task.classes), tf.string)
    # Not by Keras's ExportArchive, which traces each endpoint, and the model in it, twice.
    signatures = {
        "serving_default": _sign(
            endpoints.serve_images, tf.TensorSpec((None, None, None, channels), dtype, name="image")
        ),
        "serve_bytes": _sign(
            endpoints.serve_bytes, tf.TensorSpec((None,), tf.string, name="bytes")
        ),
        "class_names": _sign(lambda: {"class_names": names}),
    }
    root = tf.train.Checkpoint(**signatures)
    for name in _COLLECTIONS:
        setattr(root, name, [variable.value for variable in getattr(finished.model, name)])
    root.own_state = _find_own_state(finished.model)
    tf.saved_model.save(root, str(path), signatures=signatures)


def _sign(function: Callable[..., Any], *signature: tf.TensorSpec) -> Any:
    return tf.function(function, input_signature=signature, autograph=False)


def _find_own_state(model: keras.Model) -> list[Any]:
    """Returns what layers of the user's own hold of TensorFlow itself, as variables and tables."""
    kinds = (tf.Variable, tf.Module, tf.saved_model.experimental.TrackableResource)
    held = [value for layer in flatten_layers(model) for value in vars(layer).values()]
    held += [item for value in held if isinstance(value, list | tuple) for item in value]
    held += [item for value in held if isinstance(value, dict) for item in value.values()]
    return [value for value in held if isinstance(value, kinds)]


def write_signatures(finished: FinishedModel, folder: Path) -> None:
    """Writes signature.json: what the SavedModel takes and gives, and lines that call it.

    Args:
        finished: The model.
        folder: The export folder, with saved_model/1 in it.
    """
    text = (folder / "saved_model" / "1" / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(text).meta_graphs
    signatures = {
        name: {"inputs": _describe(found.inputs), "outputs": _describe(found.outputs)}
        for name, found in sorted(graph.signature_def.items())
        if not name.startswith("__")
    }
    write_json(
        folder / "signature.json",
        {
            "signatures": signatures,
            "classes": list(finished.task.classes),
            "reads_webp": finished.webp,
            "python": _PYTHON,
            "curl": _CURL,
        },
    )


_PYTHON = (
    "import pathlib, tensorflow as tf; model = tf.saved_model.load('saved_model/1'); "
    "print(model.signatures['serve_bytes'](bytes=tf.constant([pathlib.Path('photo.jpg').read_bytes()])))"
)
_CURL = (
    """echo '{"signature_name": "serve_bytes", "instances": [{"bytes": {"b64": """
    """"'$(base64 < photo.jpg | tr -d "\\n")'"}}]}' | """
    """curl --data @- http://localhost:8501/v1/models/NAME:predict"""
)


def _describe(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns dtype and shape of tensors by their names; -1 stands for any size."""
    return {
        name: {
            "dtype": tf.as_dtype(tensor.dtype).name,
            "shape": None
            if tensor.tensor_shape.unknown_rank
            else [side.size for side in tensor.tensor_shape.dim],
        }
        for name, tensor in sorted(tensors.items())
    }


FORMAT = Format(write_saved_model, asking=asking, runtime="saved_model", document=write_signatures)
