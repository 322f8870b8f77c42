"""LiteRT, once TensorFlow Lite: one .tflite file, float32."""

from __future__ import annotations

from pathlib import Path

from tl_toolkit.export.formats import FinishedModel, Format
from tl_toolkit.export.graphs import write_companions, write_graph
from tl_toolkit.export.lines import write_lines
from tl_toolkit.tasks.parity import Limits

__all__ = ["FORMAT", "write_litert"]


def write_litert(finished: FinishedModel, path: Path) -> None:
    """Writes a model for LiteRT: float32 (n, h, w, channels) to what the Keras model returns.

    Args:
        finished: The model.
        path: File to write; ends in .tflite.
    """
    write_graph(finished, path, "litert")


FORMAT = Format(
    write_litert,
    runtime="litert",
    limits=Limits(pixels=1e-4),
    beside=write_lines,
    document=write_companions,
)
