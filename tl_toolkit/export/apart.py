"""Runs a script of an export in a fresh process, which imports a runtime but not this package."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.errors import ParityError, Problem

__all__ = ["Run", "find_last_line", "run_apart", "started"]

Run = Callable[[Mapping[str, np.ndarray]], Callable[[], dict[str, np.ndarray]]]
"""Takes inputs and returns at once. What it returns waits for the outputs, and raises a ParityError
if the process fails."""


@contextlib.contextmanager
def started(
    script: str,
    words: Sequence[str],
    settings: Mapping[str, Any],
    *,
    failure: str,
    consequence: str = "",
) -> Iterator[Run]:
    """Starts a script, WORDS INPUTS.npz OUTPUTS.npz SETTINGS, and yields what has it run.

    It imports its runtime meanwhile, which takes seconds, and reads model and inputs after a line
    of its standard input. It looks for modules where this process does, so that it finds a runtime
    in the user's site, PYTHONPATH or a `--target` folder. In the end it is killed if it still runs.

    Args:
        script: Its file.
        words: Its first arguments; the last is the model, which may be written meanwhile.
        settings: What it reads beside the path of modules, as JSON can hold it.
        failure: What it means if it fails, before the error's own words.
        consequence: What comes of that.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        # Isolated: else the script's folder, with modules of this package, would come first.
        child = subprocess.Popen(
            [sys.executable, "-I", script, *words, str(source), str(target),
             json.dumps({"path": sys.path, **settings})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace",
            # The keras.json of another project can end the import of TensorFlow.
            env=os.environ | {"KERAS_HOME": folder, "KERAS_BACKEND": "tensorflow"},
        )  # fmt: skip

        def run(inputs: Mapping[str, np.ndarray]) -> Callable[[], dict[str, np.ndarray]]:
            arrays: dict[str, Any] = dict(inputs)
            np.savez(source, **arrays)
            with contextlib.suppress(BrokenPipeError):  # it failed, and says so in the end
                # Not the end of it alone: a process that was forked meanwhile holds it open.
                child.stdin.write("\n")  # type: ignore[union-attr]
                child.stdin.flush()  # type: ignore[union-attr]
            return wait

        def wait() -> dict[str, np.ndarray]:
            _, errors = child.communicate()
            if child.returncode != 0:
                what = f"{failure}: {_describe_end(child.returncode, errors)}"
                raise ParityError(Problem(words[-1], what, consequence))
            with np.load(target, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}

        try:
            yield run
        finally:
            child.kill()
            child.communicate()


def run_apart(
    script: str,
    words: Sequence[str],
    inputs: Mapping[str, np.ndarray],
    settings: Mapping[str, Any],
    *,
    failure: str,
    consequence: str = "",
) -> dict[str, np.ndarray]:
    """Starts a script and runs it.

    Args:
        script: As in `started`.
        words: As in `started`.
        inputs: What it reads.
        settings: As in `started`.
        failure: As in `started`.
        consequence: As in `started`.

    Returns:
        What it writes.

    Raises:
        ParityError: It fails.
    """
    with started(script, words, settings, failure=failure, consequence=consequence) as run:
        return run(inputs)()


def _describe_end(code: int, errors: str) -> str:
    """Returns why a process failed; one that is killed, as for its memory, says nothing itself."""
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return find_last_line(errors)


def find_last_line(text: str) -> str:
    """Returns the line of a traceback that names the error, else the last that says something.

    TensorFlow's errors end with lines on the place in the graph.

    Args:
        text: What a process wrote, or an error's text.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return (named or lines or ["no message"])[-1]
