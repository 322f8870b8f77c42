"""Runs a SavedModel in a process that computes as this one does but cannot import this package."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.export import serving_process
from tl_toolkit.export.apart import Run, started
from tl_toolkit.runtime import describe_numerics
from tl_toolkit.tasks.parity import Outputs
from tl_toolkit.tasks.types import Ask

__all__ = ["asking", "read_numerics"]


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
        yield functools.partial(_begin, run)


def _begin(
    run: Run, batches: Sequence[np.ndarray], encoded: Sequence[bytes]
) -> Callable[[], Outputs]:
    inputs = {
        "bytes": np.frombuffer(b"".join(encoded), np.uint8),
        "lengths": np.array([len(data) for data in encoded]),
        **{f"image/{number}": batch for number, batch in enumerate(batches)},
    }
    wait = run(inputs)

    def read() -> Outputs:
        arrays = wait()
        return Outputs(
            pixels=_gather(arrays, "pixels", len(batches)),
            encoded=_gather(arrays, "bytes", len(encoded)),
            class_names=tuple(map(str, arrays["class_names"])),
            numerics=json.loads(str(arrays["numerics"])),
        )

    return read


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
