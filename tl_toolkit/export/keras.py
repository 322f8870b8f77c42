"""The whole model as Keras saves it, to be loaded by Keras alone."""

from __future__ import annotations

from pathlib import Path

from tl_toolkit.export.formats import FinishedModel, Format
from tl_toolkit.tasks.parity import Limits

__all__ = ["FORMAT", "write_keras"]


def write_keras(finished: FinishedModel, path: Path) -> None:
    """Writes a .keras file: what `Run.model` is, with the limits that its task has learned.

    Args:
        finished: The model.
        path: File to write; ends in .keras.
    """
    finished.task.build_graph(finished.model).save(path)


FORMAT = Format(write_keras, runtime="keras", limits=Limits(pixels=1e-5))
