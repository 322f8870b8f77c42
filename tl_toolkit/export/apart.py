"""Runs a script of an export in a fresh process, which imports a runtime but not this package."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.errors import ParityError, Problem

__all__ = ["find_last_line", "run_apart"]


def run_apart(
    script: str,
    words: Sequence[str],
    inputs: Mapping[str, np.ndarray],
    settings: Mapping[str, Any],
    *,
    failure: str,
    consequence: str = "",
) -> dict[str, np.ndarray]:
    """Runs a script: WORDS INPUTS.npz OUTPUTS.npz SETTINGS.

    The process looks for modules where this one does, so that it finds a runtime in the user's
    site, PYTHONPATH or a `--target` folder.

    Args:
        script: Its file.
        words: Its first arguments; the last is the model.
        inputs: What it reads.
        settings: What it reads beside the path of modules, as JSON can hold it.
        failure: What it means if it fails, before the error's own words.
        consequence: What comes of that.

    Returns:
        What it writes.

    Raises:
        ParityError: It fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        arrays: dict[str, Any] = dict(inputs)
        np.savez(source, **arrays)
        # Isolated: else the script's folder, with modules of this package, would come first.
        child = subprocess.run(
            [sys.executable, "-I", script, *words, str(source), str(target),
             json.dumps({"path": sys.path, **settings})],
            capture_output=True, text=True, check=False, errors="replace",
            # The keras.json of another project can end the import of TensorFlow.
            env=os.environ | {"KERAS_HOME": folder, "KERAS_BACKEND": "tensorflow"},
        )  # fmt: skip
        if child.returncode != 0:
            what = f"{failure}: {_describe_end(child)}"
            raise ParityError(Problem(words[-1], what, consequence))
        with np.load(target, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}


def _describe_end(child: subprocess.CompletedProcess[str]) -> str:
    """Returns why a process failed; one that is killed, as for its memory, says nothing itself."""
    if child.returncode < 0:
        return f"its process was ended by {signal.Signals(-child.returncode).name}"
    return find_last_line(child.stderr)


def find_last_line(text: str) -> str:
    """Returns the line of a traceback that names the error, else the last that says something.

    TensorFlow's errors end with lines on the place in the graph.

    Args:
        text: What a process wrote, or an error's text.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return (named or lines or ["no message"])[-1]
