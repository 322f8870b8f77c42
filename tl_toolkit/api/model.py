"""Keras models: that of a recipe before training, and a saved one.

Importing this module costs no TensorFlow; the functions start it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tl_toolkit.api.base import reading_recipe
from tl_toolkit.api.progress import handling
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.events import Handler
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.recipe.load import RecipeSource
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import numerics

if TYPE_CHECKING:
    import keras

__all__ = ["build_model", "digest_weights", "load_model"]


def build_model(
    recipe: RecipeSource,
    *,
    overrides: Overrides = (),
    base: keras.Model | None = None,
    progress: Handler | bool = False,
) -> keras.Model:
    """Builds the model of a recipe as it is before training: weights loaded, head new.

    `finetune` starts from the same weights. All layers are trainable: phases set what trains. A
    model of regression holds mean and deviation of the training targets: its images are inspected.
    In a head of `model.start`, outputs of new classes are random; `finetune` begins them with the
    means of their features.

    Args:
        recipe: As in `tl.finetune`.
        overrides: As in `tl.finetune`.
        base: As in `tl.finetune`.
        progress: As in `tl.finetune`; a weight file may have to be fetched.

    Returns:
        One flat functional model: float32 RGB (batch, h, w, 3) in 0..255, or bands in the numbers
        of their files, to the task's outputs; for a dense task [images, pixels] to outputs (batch,
        n, units), as `Run.model`.

    Raises:
        ToolkitError: A child of it for whatever a user can correct: recipe, data, weights.
    """
    with (
        reading_recipe(recipe, overrides, base=base) as loaded,
        handling(progress) as handle,
        numerics(deterministic=loaded.recipe.deterministic),
    ):
        plan = check_recipe(loaded)
        from tl_toolkit.tasks.registry import build_task
        from tl_toolkit.training.bands import scan_bands
        from tl_toolkit.training.prepare import assemble_model, prepare_model
        from tl_toolkit.training.seeds import phase_seed
        from tl_toolkit.transfer.heads import initialize_head

        task = build_task(plan.recipe, plan.classes)
        plan = scan_bands(plan, task, handle)
        transfer = assemble_model(plan, task, handle)
        prepare_model(plan, task, handle)
        if plan.start is None:
            initialize_head(transfer.parts[-1].layers, phase_seed(plan.recipe.seed, "head", 0))
        return transfer.model


def digest_weights(model: keras.Model) -> str:
    """Returns a SHA-256 of all weights and moving statistics of a model.

    Args:
        model: The model.
    """
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


def load_model(path: str | Path) -> keras.Model:
    """Loads a model that a run saved, with the layers of this package known to Keras.

    Args:
        path: The model.keras of a run, or a copy of it.

    Returns:
        The model, not compiled.

    Raises:
        DataError: The file is missing or damaged, or it is a folder.
        TypeError: `path` is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected the file model.keras of a run, got {path!r}")
    if Path(path).is_dir():
        model = RunFolder(Path(path)).model
        hint = f"tl.load_model({str(model)!r})" if model.is_file() else ""
        raise DataError(
            Problem(str(path), "is a folder", "Expected a file model.keras of a run.", hint)
        )
    if not Path(path).is_file():
        raise DataError(Problem(str(path), "no such file", "Expected a file model.keras of a run."))
    with numerics(deterministic=False):  # a caller's dtype policy would change layers
        from tl_toolkit.transfer.saved import load_saved_model

        return load_saved_model(Path(path))
