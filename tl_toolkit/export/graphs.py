"""Formats that hold the model itself: what Keras exports, run in a runtime of its own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_toolkit.errors import ParityError, Problem
from tl_toolkit.export import graph_process, reference
from tl_toolkit.export.apart import find_last_line, run_apart
from tl_toolkit.export.formats import Answer, FinishedModel
from tl_toolkit.images.geometry import Padding
from tl_toolkit.runs.files import write_atomically, write_json

__all__ = ["TIMED_CALLS", "run_graph", "write_companions", "write_graph"]

TIMED_CALLS = 20
"""Calls of one image that a proof times."""

_THREADS = 2


def run_graph(
    runtime: str,
    path: Path,
    images: np.ndarray,
    *,
    threads: int = _THREADS,
    calls: int = TIMED_CALLS,
    batch: int = 1,
    consequence: str = "",
) -> Answer:
    """Runs a model in a fresh process, which cannot import this package.

    Keras alone can: a .keras file may hold layers of it, as that of a regression's units.

    Args:
        runtime: A name of `graph_process.OPENERS`.
        path: The model.
        images: float32 (n, h, w, channels), n >= 1, as the Keras model takes them.
        threads: Threads of a call.
        calls: Calls that are timed.
        batch: Images of a timed call; all others have one.
        consequence: What comes of it if the model cannot be run.

    Raises:
        ParityError: The runtime cannot load the model, or run it.
    """
    settings = {"threads": threads, "calls": calls, "batch": batch}
    arrays = run_apart(
        graph_process.__file__, [runtime, str(path)], {"images": images},
        {**settings, "toolkit": runtime.startswith("keras")},
        failure=f"cannot be run by {runtime}", consequence=consequence,
    )  # fmt: skip
    named = {key.removeprefix("outputs/"): arrays[key] for key in arrays if "/" in key}
    return Answer(named, str(arrays["runtime"]), arrays["milliseconds"], threads)


def write_graph(finished: FinishedModel, path: Path, form: str, **options: Any) -> None:
    """Writes a model by `keras.Model.export`.

    Args:
        finished: The model.
        path: File to write.
        form: Keras's word for the format.
        options: What that format takes.

    Raises:
        ParityError: Keras or its converter cannot write this model.
    """
    model = finished.task.build_graph(finished.model)
    shape = (None, *model.input.shape[1:])
    signature = [keras.InputSpec(shape=shape, dtype="float32", name="image")]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of converters, about releases of numpy and protobuf
            model.export(
                str(path), format=form, verbose=False, input_signature=signature, **options
            )
    except OSError:
        raise
    except Exception as error:  # converters raise whatever their parser meets
        raise ParityError(
            Problem(
                where=form,
                what=f"this model cannot be converted: {find_last_line(str(error))}",
                expected="Nothing was published; other formats are as before.",
                hint="tltool export RUN --to saved_model, which takes every model",
            )
        ) from error


def write_companions(finished: FinishedModel, folder: Path) -> None:
    """Writes what a program needs beside the model: preprocess.json, and a script that uses it.

    Args:
        finished: The model.
        folder: The export folder.
    """
    resize, model = finished.resize, finished.task.build_graph(finished.model)
    height, width, channels = model.input.shape[1:]
    is_padding = isinstance(resize, Padding)
    settings = {
        "image_size": [height, width],
        "channels": channels,
        "resize": "pad" if is_padding else resize,
        "pad_color": list(resize.color) if isinstance(resize, Padding) else None,
        "input": "float32 (n, height, width, channels): RGB in 0..255, turned upright by EXIF, "
        "resized bilinearly with antialiasing; preprocessing is inside the model",
        **_describe_outputs(model),
        "task": type(finished.task).__name__.lower(),
        "classes": list(finished.task.classes),
        "learned": _select_numbers(finished.task.state()),
    }
    write_json(folder / "preprocess.json", settings)
    write_atomically(folder / "predict.py", Path(reference.__file__).read_bytes())


def _describe_outputs(model: keras.Model) -> dict[str, Any]:
    """Returns type and shape of the output, or of each by its name."""
    if not isinstance(model.output, dict):
        return {"output": _describe(model.output)}
    return {"outputs": {name: _describe(output) for name, output in model.output.items()}}


def _describe(output: keras.KerasTensor) -> str:
    return f"{output.dtype} ({', '.join(['n', *map(str, output.shape[1:])])})"


def _select_numbers(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a task learned, as temperatures and thresholds, without arrays."""
    kept = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            value = _select_numbers(value)
        if not isinstance(value, list):
            kept[name] = value
    return kept
