"""Loads a Keras model from a file that somebody else may have written.

`catalog.foreign_models` scans it by lists of what may be in it. What passes is loaded once in a
child process with limits, and then in this one; the cache remembers the contents that passed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import keras

# Keras must know these layers to load a model that a run has saved.
import tl_toolkit.architectures.affine
import tl_toolkit.architectures.layers
import tl_toolkit.architectures.sampling  # noqa: F401
from tl_toolkit.architectures import loading_process
from tl_toolkit.catalog.foreign_models import Fault, ScannedModel, scan_model
from tl_toolkit.errors import OutputError
from tl_toolkit.keras_private import explain_load
from tl_toolkit.runs.files import default_cache_dir, write_atomically

__all__ = ["LoadError", "load_keras_model", "remember_model", "try_loading"]

_CPU_SECONDS, _WALL_SECONDS = 120, 600
_OWN_PACKAGE = "tl_toolkit>"


class LoadError(Exception):
    """A model that is not loaded.

    Attributes:
        fault: The reason.

    Args:
        fault: The reason.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


def load_keras_model(path: Path) -> keras.Model:
    """Returns the model in a file that passes the scan, not compiled.

    Args:
        path: The file.

    Raises:
        LoadError: It does not pass, or Keras cannot load it.
    """
    _scan(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # the first part that fails may raise any error
        cause, unknown = explain_load(error)
        raise LoadError(Fault(f"cannot be loaded: {cause}", unknown)) from error


def try_loading(path: Path) -> None:
    """Loads a model in a child process with limits, unless its contents are known to load.

    A model with layers that the user's own code has registered is scanned alone: a child process
    does not know them.

    Args:
        path: The file.

    Raises:
        LoadError: It does not pass the scan, or cannot be loaded within the limits.
    """
    scanned = _scan(path)
    if any(not name.startswith(_OWN_PACKAGE) for name in scanned.registered):
        return
    note = _note_of(scanned)
    if note.exists():
        return
    if fault := _load_in_child(path):
        raise LoadError(fault)
    _write(note)


def remember_model(path: Path) -> None:
    """Notes that this process wrote a model, so that no child process has to load it.

    Args:
        path: The file.
    """
    scanned = scan_model(path, frozenset(keras.saving.get_custom_objects()))
    if isinstance(scanned, ScannedModel):
        _write(_note_of(scanned))


def _scan(path: Path) -> ScannedModel:
    scanned = scan_model(path, frozenset(keras.saving.get_custom_objects()))
    if isinstance(scanned, Fault):
        raise LoadError(scanned)
    return scanned


def _note_of(scanned: ScannedModel) -> Path:
    key = hashlib.sha256(f"{keras.__version__} {scanned.digest}".encode()).hexdigest()
    return default_cache_dir() / "models" / key


def _write(note: Path) -> None:
    with contextlib.suppress(OutputError):  # a cache may be lost
        write_atomically(note, "")


def _load_in_child(path: Path) -> Fault | None:
    settings = json.dumps({"path": sys.path, "seconds": _CPU_SECONDS})
    with tempfile.TemporaryDirectory(prefix="tltool-") as home:
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "-1",  # this process may hold the GPU's memory
            "KERAS_BACKEND": "tensorflow",
            "KERAS_HOME": home,
            "MALLOC_ARENA_MAX": "2",  # each arena reserves address space, which is what is limited
        }
        # Isolated: else the script's folder, with modules of this package, would come first.
        script = [sys.executable, "-I", loading_process.__file__, os.path.abspath(path), settings]
        try:
            child = subprocess.run(
                script,
                capture_output=True,
                cwd=home,
                env=environment,
                check=False,
                timeout=_WALL_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return Fault(f"takes more than {_WALL_SECONDS} seconds to load")
    return _read_answer(child)


def _read_answer(child: subprocess.CompletedProcess[bytes]) -> Fault | None:
    if child.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return Fault(f"takes more than {_CPU_SECONDS} seconds of processor time to load")
    try:
        answer = json.loads(child.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        answer = {"memory": True} if child.returncode < 0 else {"cause": _last_line(child.stderr)}
    if answer.get("memory"):
        return Fault("asks for far more memory than its weights take")
    if "cause" in answer:
        return Fault(f"cannot be loaded: {answer['cause']}", answer.get("unknown", ""))
    return None


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "its process ended without a message"
