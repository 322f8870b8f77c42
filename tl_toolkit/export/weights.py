"""The base as a weight file, from which another run can start."""

from __future__ import annotations

from pathlib import Path

from tl_toolkit.export.formats import FinishedModel, Format
from tl_toolkit.transfer.heads import is_head
from tl_toolkit.transfer.weights import save_weights

__all__ = ["FORMAT", "write_base"]


def write_base(finished: FinishedModel, path: Path) -> None:
    """Writes the weights of all layers but the head's.

    Args:
        finished: The model.
        path: File to write; ends in .h5.
    """
    save_weights([layer for layer in finished.model.layers if not is_head(layer)], path)


FORMAT = Format(write_base)
