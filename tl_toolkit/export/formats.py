"""The code of each export format: how to write it, how to run it, and how much it may differ.

The table is `tl_toolkit.recipe.export_formats`, which recipes and the command line read without
TensorFlow; here each line of it is joined with its file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_toolkit.images.geometry import Resize
from tl_toolkit.images.pipeline import Images
from tl_toolkit.recipe.export_formats import split_formats
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.parity import Limits
from tl_toolkit.tasks.types import Ask

__all__ = ["Answer", "FinishedModel", "Format", "find_format"]


@dataclass(frozen=True)
class FinishedModel:
    """A finished model to export.

    Attributes:
        model: The whole model.
        task: The task that it has learned, which names its outputs.
        resize: How images are resized to its size, as in the recipe.
        webp: Whether a SavedModel reads WebP, which takes TensorFlow 2.20.
        load_images: Loads validation images, by which formats that take pixels
            of the model's size are compared; None to compare them by noise.
        load_samples: Loads training images, float32 (n, h, w, channels), that the ranges of whole
            numbers are found by; None to find them by noise.
    """

    model: keras.Model
    task: Task
    resize: Resize
    webp: bool = False
    load_images: Callable[[], Images | None] | None = None
    load_samples: Callable[[], np.ndarray] | None = None


@dataclass(frozen=True)
class Answer:
    """What a model in another format returned, in a runtime of its own.

    Attributes:
        outputs: (n, ...) by name, as the Keras model returns them; of one output by SINGLE.
        runtime: The runtime and its version.
        milliseconds: How long one image took, of several calls.
        threads: Threads of these calls.
    """

    outputs: Mapping[str, np.ndarray]
    runtime: str
    milliseconds: np.ndarray
    threads: int


@dataclass(frozen=True)
class Format:
    """One way to write a finished model.

    It proves equal by `asking`, where it takes images as they are, else by its runtime, where it
    takes what the Keras model takes; without both it is published without a proof.

    Attributes:
        write: Writes it to a path that does not exist.
        asking: Starts a process while it is written, which then runs it on images (n, h, w, 3) and
            encoded files.
        runtime: A name of `graph_process.OPENERS`, which runs it on float32 (n, h, w, channels) of
            the model's size; "" for none.
        limits: The largest differences that the proof allows. Where these are small, answers (the
            most probable class, say) differ only where two of them were as good as equal.
        agreement: For a format without such a limit: the least share of equal answers.
        mean: Likewise: the largest mean difference, of tasks whose outputs are no answers.
        beside: Writes a second file into a folder, which it compares by a limit and names in what
            it returns; None where the task needs none.
        document: Writes beside it, into the export folder, how to use it.
    """

    write: Callable[[FinishedModel, Path], None]
    asking: Callable[[Path], AbstractContextManager[Ask]] | None = None
    runtime: str = ""
    limits: Limits = field(default_factory=Limits)
    agreement: float = 0.0
    mean: float = float("inf")
    beside: Callable[[FinishedModel, Path, float], dict[str, Any] | None] | None = None
    document: Callable[[FinishedModel, Path], None] | None = None


def find_format(name: str) -> Format:
    """Returns a format of the table.

    Args:
        name: Its word in recipes.

    Raises:
        RecipeError: No format has that name.
    """
    (name,) = split_formats([name])
    module = importlib.import_module(f"tl_toolkit.export.{name.replace('-', '_')}")
    export_format: Format = module.FORMAT
    return export_format
