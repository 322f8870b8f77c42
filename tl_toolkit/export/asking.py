"""Runs a SavedModel in a process that computes as this one does but cannot import this package."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.export import serving_process
from tl_toolkit.export.apart import Run, started
from tl_toolkit.runtime import describe_numerics
from tl_toolkit.tasks.parity import Outputs
from tl_toolkit.tasks.types import Ask

__all__ = ["ask", "asking", "read_numerics"]


@contextlib.contextmanager
def asking(saved_model: Path) -> Iterator[Ask]:
    """Starts a process for a SavedModel, which may not be written yet, and yields what asks it.

    Args:
        saved_model: Its folder.
    """
    with started(
        serving_process.__file__, [str(saved_model)], read_numerics(),
        failure="cannot be loaded and asked by plain TensorFlow",
        consequence="Nothing was published.",
    ) as run:  # fmt: skip
        yield functools.partial(_ask, run)


def ask(saved_model: Path, batches: Sequence[np.ndarray], encoded: Sequence[bytes]) -> Outputs:
    """Loads a SavedModel in a fresh process and calls both of its signatures.

    Args:
        saved_model: Its folder.
        batches: Images, (n, h, w, channels) each.
        encoded: Image files, sent in one call.

    Raises:
        ParityError: It cannot be loaded, or gives no outputs.
    """
    with asking(saved_model) as ask_it:
        return ask_it(batches, encoded)


def _ask(run: Run, batches: Sequence[np.ndarray], encoded: Sequence[bytes]) -> Outputs:
    inputs = {
        "bytes": np.frombuffer(b"".join(encoded), np.uint8),
        "lengths": np.array([len(data) for data in encoded]),
        **{f"image/{number}": batch for number, batch in enumerate(batches)},
    }
    arrays = run(inputs)
    return Outputs(
        pixels=_gather(arrays, "pixels", len(batches)),
        encoded=_gather(arrays, "bytes", len(encoded)),
        class_names=tuple(map(str, arrays["class_names"])),
        numerics=json.loads(str(arrays["numerics"])),
    )


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
