"""OpenVINO: a folder with model.xml, the graph, and model.bin, its float32 weights."""

from __future__ import annotations

import sys
from pathlib import Path

from tl_toolkit.export.formats import FinishedModel, Format
from tl_toolkit.export.graphs import write_companions, write_graph
from tl_toolkit.tasks.parity import Limits

__all__ = ["FORMAT", "write_openvino"]


def write_openvino(finished: FinishedModel, path: Path) -> None:
    """Writes a model for OpenVINO: float32 (n, h, w, channels) to what the model returns.

    Args:
        finished: The model.
        path: Folder to write; must not exist.
    """
    # OpenVINO counts its uses by a request to its maker; without that package it cannot.
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    path.mkdir()
    write_graph(finished, path / "model.xml", "openvino")


FORMAT = Format(
    write_openvino, runtime="openvino", limits=Limits(pixels=1e-4), document=write_companions
)
