"""The whole model as Keras saves it, to be loaded by Keras alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tl_toolkit.export.formats import Answer, FinishedModel, Format
from tl_toolkit.export.graphs import run_graph
from tl_toolkit.tasks.parity import Limits

__all__ = ["FORMAT", "write_keras"]


def write_keras(finished: FinishedModel, path: Path) -> None:
    """Writes a .keras file: what `Run.model` is.

    Args:
        finished: The model.
        path: File to write; ends in .keras.
    """
    finished.task.build_graph(finished.model).save(path)


def _run(path: Path, images: np.ndarray) -> Answer:
    # Networks with layers of the package (regression's units, say) need it when they are loaded.
    return run_graph("keras", path, images, toolkit=True)


FORMAT = Format(write_keras, run=_run, limits=Limits(pixels=1e-5))
