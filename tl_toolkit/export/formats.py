"""The code of each export format: how to write it, how to run it, and how much it may differ.

The table is `tl_toolkit.recipe.export_formats`, which recipes and the command line read without
TensorFlow; here each line of it is joined with its file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from tl_toolkit.images.geometry import Resize
from tl_toolkit.recipe.export_formats import split_formats
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.parity import Limits, Outputs

__all__ = ["FinishedModel", "Format", "find_format"]


@dataclass(frozen=True)
class FinishedModel:
    """A finished model to export.

    Attributes:
        model: The whole model.
        task: The task that it has learned, which names its outputs.
        resize: How images are resized to its size, as in the recipe.
    """

    model: keras.Model
    task: Task
    resize: Resize


Ask = Callable[[Path, Sequence[np.ndarray], Sequence[bytes]], Outputs]


@dataclass(frozen=True)
class Format:
    """One way to write a finished model.

    Attributes:
        write: Writes it to a path that does not exist.
        ask: Runs what was written on images (n, h, w, 3) and encoded files; None for a format that
            cannot be run, which is published without a proof.
        limits: The largest differences that the proof allows.
    """

    write: Callable[[FinishedModel, Path], None]
    ask: Ask | None = None
    limits: Limits = field(default_factory=Limits)


def find_format(name: str) -> Format:
    """Returns a format of the table.

    Args:
        name: Its word in recipes.

    Raises:
        RecipeError: No format has that name.
    """
    (name,) = split_formats([name])
    export_format: Format = importlib.import_module(f"tl_toolkit.export.{name}").FORMAT
    return export_format
