"""Loads a whole model that a run saved, with the layers of this package known to Keras."""

from __future__ import annotations

from pathlib import Path

import keras

# Keras must know these layers to load them.
import tl_toolkit.architectures.affine
import tl_toolkit.architectures.layers
import tl_toolkit.architectures.sampling  # noqa: F401
from tl_toolkit.architectures.own import describe_unregistered
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.keras_private import explain_load

__all__ = ["load_saved_model"]


def load_saved_model(path: Path) -> keras.Model:
    """Returns a model that a run saved, not compiled.

    Args:
        path: Its file.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the first damaged part makes it
        cause, unknown = explain_load(error)
        if unknown:
            problem = describe_unregistered(str(path), "cannot be loaded", unknown)
            raise DataError(problem) from error
        raise DataError(
            Problem(
                where=str(path),
                what=f"cannot be loaded: {cause}",
                expected="The file is damaged, or was written by another Keras.",
                hint="tltool finetune with the recipe.yaml beside it",
            )
        ) from error
