"""What an export format is to the code: how to write it, how to ask it, and what it may differ by.

The table is `tl_toolkit.recipe.export_formats`, which recipes and the command line read without
TensorFlow; here each line of it is joined with its file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from tl_toolkit.recipe.export_formats import split_formats
from tl_toolkit.tasks.base import Task

__all__ = ["FinishedModel", "Format", "Limits", "Outputs", "find_format"]


@dataclass(frozen=True)
class FinishedModel:
    """What is exported.

    Attributes:
        model: float32 RGB (batch, h, w, 3) in 0..255 to outputs.
        task: What it was trained for.
        classes: Class names in the order of its outputs.
        resize: How images come to its size, as in the recipe.
    """

    model: keras.Model
    task: Task
    classes: Sequence[str]
    resize: Literal["stretch", "crop"]


@dataclass(frozen=True)
class Outputs:
    """What an exported model returned, by the names of its outputs.

    Attributes:
        pixels: Outputs for batches of pixels, (n, ...) as the signature gives them.
        encoded: Outputs for files, without the batch's axis; those encoded as PNG are decoded.
        class_names: Names in the order of the outputs.
        numerics: The arithmetic that the process worked with.
    """

    pixels: tuple[Mapping[str, np.ndarray], ...]
    encoded: tuple[Mapping[str, np.ndarray], ...]
    class_names: tuple[str, ...]
    numerics: Mapping[str, Any]


@dataclass(frozen=True)
class Limits:
    """Largest differences from the Keras model that are published.

    Attributes:
        pixels: From the same pixels on both sides.
        encoded: From encoded images, which the Keras side has decoded by Pillow.
    """

    pixels: float
    encoded: float


Ask = Callable[[Path, Sequence[np.ndarray], Sequence[bytes]], Outputs]


@dataclass(frozen=True)
class Format:
    """One way to write a finished model.

    Attributes:
        write: Writes it to a path that does not exist.
        ask: Asks what was written, by images (n, h, w, 3) and encoded files; None where nothing
            can be asked, which is then published without a proof.
        limits: What the proof allows.
    """

    write: Callable[[FinishedModel, Path], None]
    ask: Ask | None = None
    limits: Limits = Limits(pixels=0.0, encoded=0.0)


def find_format(name: str) -> Format:
    """Returns a format of the table.

    Args:
        name: Its word in recipes.

    Raises:
        RecipeError: There is none of that name.
    """
    (name,) = split_formats([name])
    export_format: Format = importlib.import_module(f"tl_toolkit.export.{name}").FORMAT
    return export_format
