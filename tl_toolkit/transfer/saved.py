"""Loads a whole model that a run saved, with the layers of this package known to Keras."""

from __future__ import annotations

from pathlib import Path

import keras

from tl_toolkit.architectures.loading import LoadError, load_keras_model, try_loading
from tl_toolkit.architectures.own import describe_unregistered
from tl_toolkit.errors import DataError, Problem

__all__ = ["load_saved_model"]


def load_saved_model(path: Path) -> keras.Model:
    """Returns a model that a run saved, not compiled.

    Args:
        path: Its file.

    Raises:
        DataError: The file is missing or damaged, or holds what is not loaded.
    """
    try:
        try_loading(path)
        return load_keras_model(path)
    except LoadError as error:
        if error.fault.unknown:
            problem = describe_unregistered(str(path), "cannot be loaded", error.fault.unknown)
            raise DataError(problem) from error
        raise DataError(
            Problem(
                where=str(path),
                what=error.fault.reason,
                expected="The file is damaged, was written by another Keras, or is no model of a "
                "run.",
                hint="tltool finetune with the recipe.yaml beside it",
            )
        ) from error
