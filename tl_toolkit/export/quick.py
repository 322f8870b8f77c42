"""Predictions by a run's LiteRT export, in a process without TensorFlow.

An export predicts for a run only if its proof says that it was made of the run's model.keras and
task.json, and that it is the file that was proved.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.errors import DataError
from tl_toolkit.export.apart import find_last_line
from tl_toolkit.export.graph_process import SINGLE, Call, build_call, import_litert
from tl_toolkit.export.quick_files import NotQuick, read_quick
from tl_toolkit.export.quick_lines import FILE, LinesCall, build_lines_call
from tl_toolkit.images.geometry import Resize
from tl_toolkit.images.plain import resize_plain
from tl_toolkit.runs.files import hash_file
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.predictions import OutputReader, Prediction

__all__ = [
    "MOST_FILES",
    "MOST_PIXELS",
    "QuickModel",
    "describe_origin",
    "is_stale",
    "open_quick",
    "open_quick_maps",
]

MOST_FILES = 32
"""The most images that an export predicts unasked. For more, starting TensorFlow is a small part of
the time, and Keras predicts, as it does without an export."""

MOST_PIXELS = 1 << 21
"""Likewise the most pixels of maps. An export runs its base once for every tile of them: for a
photo of 12 million pixels 366 times, where Keras runs it once."""

_MODEL, _PROOF = "model.tflite", "parity.litert.json"
_OF_WEIGHTS = ("config.json", "model.weights.h5")
RUNTIME = "ai_edge_litert"
"""The module that runs it."""


def describe_origin(folder: RunFolder, export: Path) -> dict[str, str]:
    """Returns digests for a proof: of the model, of what its task learned, and of the export.

    Args:
        folder: The run; model.keras and task.json may be missing.
        export: What was written.
    """
    origin = {"model": _digest_model(folder.model)} if folder.model.is_file() else {}
    state = folder.task_state  # an export holds its temperature and thresholds
    origin["task"] = hash_file(state) if state.is_file() else ""
    return origin | ({"sha256": hash_file(export)} if export.is_file() else {})


def _digest_model(path: Path) -> str:
    """Returns a SHA-256 of the checksums of graph and weights, which takes no reading of them."""
    with zipfile.ZipFile(path) as archive:
        entries = [archive.getinfo(name) for name in _OF_WEIGHTS]
    text = "\n".join(f"{entry.filename} {entry.file_size} {entry.CRC}" for entry in entries)
    return hashlib.sha256(text.encode()).hexdigest()


def is_stale(folder: RunFolder, export: Path, proof: Path) -> bool:
    """Returns whether an export's proof names another model, or another file, than there is now.

    Args:
        folder: The run.
        export: What was exported.
        proof: Its report, which need not be there.
    """
    if not proof.is_file():
        return False
    report = folder.read_json(proof)
    origin = describe_origin(folder, export)
    return any(report.get(name, digest) != digest for name, digest in origin.items())


class QuickModel:
    """A run's LiteRT export.

    Args:
        call: Runs it on float32 (1, h, w, 3).
        size: (height, width) that it takes.
        resize: How images are resized to them.
        runtime: The runtime and its version.
    """

    def __init__(self, call: Call, size: tuple[int, int], resize: Resize, runtime: str) -> None:
        self._call = call
        self._size = size
        self._resize = resize
        self.runtime = runtime

    def predict(
        self,
        files: Sequence[Path],
        reader: OutputReader,
        *,
        arrays: Mapping[Path, np.ndarray],
        refused: Mapping[Path, str],
    ) -> Iterator[Prediction]:
        """Yields a prediction for each file.

        Args:
            files: Image files.
            reader: What outputs say.
            arrays: Pixels, uint8 (h, w, 3), of those that are no files.
            refused: Why some hold no image.

        Raises:
            NotQuick: A file takes the decoder, or the runtime cannot run the export.
        """
        for path in files:
            if path in refused:
                yield reader.describe(path, None, refused[path])
                continue
            pixels = arrays[path] if path in arrays else read_quick(path)
            image = resize_plain(pixels, self._size, self._resize)
            yield reader.describe(path, self._read(image, reader.served), None)

    def _read(self, image: np.ndarray, served: str) -> np.ndarray:
        """Returns the output for an image, uint8 (h, w, 3)."""
        try:
            named = self._call(image[np.newaxis].astype(np.float32))
            return np.array(named[SINGLE if SINGLE in named else served][0])
        except Exception as error:  # the runtime raises several kinds, of C++ too
            raise NotQuick(f"{self.runtime} cannot run the export: {_shorten(error)}") from error


def open_quick(
    folder: RunFolder, size: tuple[int, int], resize: Resize, *, threads: int
) -> QuickModel:
    """Opens the LiteRT export of a run.

    Args:
        folder: The run.
        size: (height, width) that its model takes.
        resize: How images are resized to them.
        threads: Threads of a call.

    Raises:
        NotQuick: There is none, it is of another model, or no runtime opens it.
    """
    interpreter, runtime = _open(folder, _MODEL, threads)
    return QuickModel(build_call(interpreter), size, resize, runtime)


def open_quick_maps(folder: RunFolder, *, threads: int) -> tuple[LinesCall, str]:
    """Opens the LiteRT export of a run with an output for each pixel; returns its runtime, too.

    Args:
        folder: The run.
        threads: Threads of a call.

    Raises:
        NotQuick: As `open_quick`; calls raise it if the runtime cannot run the export.
    """
    interpreter, runtime = _open(folder, FILE, threads)
    return build_lines_call(interpreter), runtime


def _open(folder: RunFolder, name: str, threads: int) -> tuple[Any, str]:
    """Opens a file of the export."""
    path, proof = folder.export / _MODEL, folder.export / _PROOF
    if not (path.is_file() and proof.is_file()):
        raise NotQuick(
            "the run has no LiteRT export", is_plain=True, hint="tltool export RUN --to litert"
        )
    if importlib.util.find_spec(RUNTIME) is None:
        hint = "pip install 'tl-toolkit[litert]'"
        raise NotQuick("LiteRT is not installed", is_plain=True, hint=hint)
    hint = "tltool export RUN --to litert"
    if not (folder.export / name).is_file():  # of an earlier version
        raise NotQuick(f"the LiteRT export has no {name}", hint=hint)
    if not _is_proved(folder, path, proof, name):
        raise NotQuick(f"{path} is not proved to be of this run as it is now", hint=hint)
    try:
        interpreter, runtime = import_litert()  # never the one of TensorFlow, which takes seconds
        opened = interpreter(str(folder.export / name), num_threads=threads)
        opened.allocate_tensors()
    except Exception as error:  # the runtime raises several kinds, of C++ too
        raise NotQuick(f"LiteRT cannot open {path}: {_shorten(error)}") from error
    return opened, runtime


def _shorten(error: Exception) -> str:
    return find_last_line(f"{type(error).__name__}: {error}")


def _is_proved(folder: RunFolder, path: Path, proof: Path, name: str) -> bool:
    try:
        report: dict[str, Any] = json.loads(proof.read_text("utf-8"))
        proved = {name: report[name] for name in ("model", "task", "sha256")}
        is_whole = name == _MODEL or report["lines"]["sha256"] == hash_file(folder.export / name)
        return bool(report["holds"]) and is_whole and proved == describe_origin(folder, path)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, DataError):
        return False
