"""Asks an exported model in a process of its own, and refuses one that differs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.errors import ParityError, Problem
from tl_toolkit.export import serving_process
from tl_toolkit.tasks.parity import BYTES_LIMIT, PIXEL_LIMIT, Answers


def check_report(report: Mapping[str, Any], *, where: str) -> None:
    """Refuses an export that does not answer as the Keras model.

    Raises:
        ParityError: A difference is above its limit, or a label or class name differs.
    """
    if report["holds"]:
        return
    worst = max(report["images"], key=lambda row: max(row["pixels"], row["bytes"]))
    raise ParityError(
        Problem(
            where=where,
            what=f"the exported model differs from the Keras model, most on {worst['name']}: "
            f"{worst['pixels']:.2g} from pixels, {worst['bytes']:.2g} from bytes",
            expected=f"At most {PIXEL_LIMIT:g} and {BYTES_LIMIT:g}, and equal labels. Nothing was "
            "published; the report has every image.",
            hint="tltool export RUN again; if it fails again, report it with that file",
        )
    )


def ask(saved_model: Path, batches: Sequence[np.ndarray], encoded: Sequence[bytes]) -> Answers:
    """Loads and asks a SavedModel in a process that has never seen this package.

    Args:
        saved_model: Its folder.
        batches: Images, uint8 (n, h, w, 3) each.
        encoded: Image files, asked for together.

    Raises:
        ParityError: It cannot be loaded, or gives no answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        np.savez(
            inputs,
            bytes=np.frombuffer(b"".join(encoded), np.uint8),
            lengths=np.array([len(data) for data in encoded]),
            **{f"image/{number}": batch for number, batch in enumerate(batches)},
        )
        script = [sys.executable, "-I", serving_process.__file__]
        child = subprocess.run(
            [*script, str(saved_model), str(inputs), str(outputs)],
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode != 0:
            raise ParityError(
                Problem(
                    where=str(saved_model),
                    what="cannot be loaded and asked by plain TensorFlow: "
                    + (child.stderr.strip().splitlines() or ["no message"])[-1],
                    expected="Nothing was published.",
                )
            )
        with np.load(outputs, allow_pickle=False) as found:
            names = tuple(map(str, found["class_names"]))
            read = {key: found[key] for key in found.files}
    return Answers(
        _gather(read, "pixels", len(batches)), _gather(read, "bytes", len(encoded)), names
    )


def _gather(
    read: Mapping[str, np.ndarray], side: str, count: int
) -> tuple[Mapping[str, np.ndarray], ...]:
    """Returns the answers of one side, in the order of what was asked."""
    found: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
    for key, value in read.items():
        kind, *rest = key.split("/")
        if kind == side:
            found[int(rest[0])][rest[1]] = value
    return tuple(found)
