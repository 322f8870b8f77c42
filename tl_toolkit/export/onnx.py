"""ONNX: one .onnx file, float32."""

from __future__ import annotations

from pathlib import Path

from tl_toolkit.export.formats import FinishedModel, Format
from tl_toolkit.export.graphs import write_companions, write_graph
from tl_toolkit.tasks.parity import Limits

__all__ = ["FORMAT", "write_onnx"]


def write_onnx(finished: FinishedModel, path: Path) -> None:
    """Writes a model for ONNX Runtime: float32 (n, h, w, channels) to what the model returns.

    Args:
        finished: The model.
        path: File to write; ends in .onnx.
    """
    write_graph(finished, path, "onnx")


FORMAT = Format(write_onnx, runtime="onnx", limits=Limits(pixels=1e-4), document=write_companions)
