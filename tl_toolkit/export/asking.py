"""Runs a SavedModel in a process that computes as this one does but cannot import this package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.errors import ParityError, Problem
from tl_toolkit.export import serving_process
from tl_toolkit.runtime import describe_numerics
from tl_toolkit.tasks.parity import Outputs

__all__ = ["ask", "find_last_line", "read_numerics"]


def ask(saved_model: Path, batches: Sequence[np.ndarray], encoded: Sequence[bytes]) -> Outputs:
    """Loads a SavedModel in a fresh process and calls both of its signatures.

    The process looks for modules where this one does, so that it finds TensorFlow in the user's
    site, PYTHONPATH or a `--target` folder, but it refuses to import this package.

    Args:
        saved_model: Its folder.
        batches: Images, (n, h, w, channels) each.
        encoded: Image files, sent in one call.

    Raises:
        ParityError: It cannot be loaded, or gives no outputs.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        questions: dict[str, Any] = {
            "bytes": np.frombuffer(b"".join(encoded), np.uint8),
            "lengths": np.array([len(data) for data in encoded]),
            **{f"image/{number}": batch for number, batch in enumerate(batches)},
        }
        np.savez(inputs, **questions)
        settings = json.dumps({"path": sys.path, **read_numerics()})
        # Isolated: else the script's folder, with modules of this package, would come first.
        script = [sys.executable, "-I", serving_process.__file__]
        child = subprocess.run(
            [*script, str(saved_model), str(inputs), str(outputs), settings],
            capture_output=True,
            text=True,
            check=False,
            # The keras.json of another project can end the import of TensorFlow.
            env=os.environ | {"KERAS_HOME": folder, "KERAS_BACKEND": "tensorflow"},
        )
        if child.returncode != 0:
            raise ParityError(
                Problem(
                    where=str(saved_model),
                    what="cannot be loaded and asked by plain TensorFlow: "
                    + find_last_line(child.stderr),
                    expected="Nothing was published.",
                )
            )
        with np.load(outputs, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    return Outputs(
        pixels=_gather(arrays, "pixels", len(batches)),
        encoded=_gather(arrays, "bytes", len(encoded)),
        class_names=tuple(map(str, arrays["class_names"])),
        numerics=json.loads(str(arrays["numerics"])),
    )


def find_last_line(text: str) -> str:
    """Returns the line of a traceback that names the error, else the last that says something.

    TensorFlow's errors end with lines on the place in the graph.

    Args:
        text: What a process wrote, or an error's text.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return (named or lines or ["no message"])[-1]


def read_numerics() -> dict[str, Any]:
    """Returns the arithmetic of this process, for its child.

    oneDNN is not in it: its switch is an environment variable, which a child inherits.
    """
    names = ("tf32", "op_determinism", "intra_op_threads", "inter_op_threads")
    numerics = describe_numerics()
    return {name: numerics[name] for name in names}


def _gather(
    arrays: Mapping[str, np.ndarray], side: str, count: int
) -> tuple[Mapping[str, np.ndarray], ...]:
    """Returns the outputs of one signature, in the order of its inputs."""
    outputs: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
    for key, value in arrays.items():
        kind, *rest = key.split("/")
        if kind == side:
            outputs[int(rest[0])][rest[1]] = value
    return tuple(outputs)
