"""What the base of a recipe says of images: labels that are likely wrong, and outliers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.catalog.lookup import find_architecture
from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import ToolkitError
from tl_toolkit.events import Handler, ignore
from tl_toolkit.plan.check import plan_base
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.sets import ImageSet
from tl_toolkit.plan.tasks import Survey
from tl_toolkit.plan.training import feature_values
from tl_toolkit.recipe.load import read_recipe
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.files import default_cache_dir, hash_file
from tl_toolkit.runtime import numerics

if TYPE_CHECKING:
    from tl_toolkit.audit.findings import Finding
    from tl_toolkit.audit.inspect import InspectedFile

__all__ = ["Doubts", "doubt_images", "write_recipe_of"]

_LIBRARIES = ("tensorflow", "keras", "scikit-learn", "numpy")
_NOT_CHECKED = "labels and outliers are not checked"


@dataclass(frozen=True)
class Doubts:
    """What was found by features.

    Attributes:
        findings: The findings.
        note: Why nothing was sought, or by what it was; "" for nothing to say.
    """

    findings: Sequence[Finding] = ()
    note: str = ""


def write_recipe_of(
    folder: Path, base: str, weights: str, channels: int, overrides: Overrides
) -> Recipe:
    """Returns a recipe for the features of a folder that has none.

    Args:
        folder: The folder.
        base: Name of an architecture.
        weights: As in `model.weights`.
        channels: As in `data.channels`.
        overrides: Fields to replace, as `model.arguments`.

    Raises:
        RecipeError: There is no such architecture, or an override is wrong.
    """
    values: dict[str, Any] = {
        "version": 1,
        "name": "check",
        "data": {
            "train": str(folder),
            "image_size": find_architecture(base).default_size,
            "channels": channels,
        },
        "model": {"base": base, "weights": weights},
        "phases": [{"name": "head", "epochs": 0}],
    }
    return read_recipe(values, overrides).recipe


def doubt_images(
    recipe: Recipe,
    images: ImageSet,
    files: Sequence[InspectedFile],
    progress: Handler,
    *,
    may_fetch: bool,
) -> Doubts:
    """Finds doubtful labels and outliers by the base of a recipe, or says why it does not.

    Doubts that are known of the same images and base need no TensorFlow.

    Args:
        recipe: Names the base, its weights and the size of images.
        images: The set.
        files: Its images, inspected.
        progress: Receives the progress of the base.
        may_fetch: Whether a weight file that is not on this machine is fetched.
    """
    usable = [file for file in files if file.content.fault == ""]
    classes = images.listing.classes if len(images.listing.classes) > 1 else ("this", "other")
    survey = Survey(tuple(classes), {}, (), lambda: images.listing)
    try:
        plan = plan_base(recipe, survey)
        own = plan.recipe.model.own_file
        if plan.weights_file is None and own is None:
            return Doubts(note=f"{_NOT_CHECKED}: model.weights is random")
        if not (plan.is_fetched or may_fetch):
            return Doubts(note=f"{_NOT_CHECKED}: the weights are not here ({plan.weights_file})")
        return _find(plan, usable, progress)
    except ToolkitError as error:
        return Doubts(note=f"{_NOT_CHECKED}: {error.problems[0]}")


def _find(plan: Plan, files: Sequence[InspectedFile], progress: Handler) -> Doubts:
    from tl_toolkit.audit.doubts import find_doubts, recall_doubts

    def find() -> list[Finding]:
        with numerics(deterministic=plan.recipe.deterministic):
            from tl_toolkit.images.manifest import Example
            from tl_toolkit.images.scan import inspect_images
            from tl_toolkit.training.bands import settle_bands
            from tl_toolkit.training.embedding import embed_images

            channels = plan.recipe.data.channels
            verdicts = inspect_images([file.file for file in files], channels=channels)
            good = [file for file, it in zip(files, verdicts, strict=True) if it.verdict == "good"]
            examples = [Example(file.file, file.sha256, "train") for file in good]
            measured = settle_bands(plan, examples, ignore)
            return find_doubts(good, embed_images(measured, examples, progress).vectors)

    key = _digest(plan, files)
    found = recall_doubts(key, files, find, cache_dir=default_cache_dir())
    return Doubts(found, f"labels and outliers by {plan.architecture.reference}")


def _digest(plan: Plan, files: Sequence[InspectedFile]) -> str:
    """Returns the digest of all that doubts follow from."""
    from tl_toolkit.audit.doubts import DOUBTS_VERSION

    model, values = plan.recipe.model, feature_values(plan.recipe)
    weights = plan.weights_file or model.own_file
    names = ["image_size", "resize", "pad_color", "dtype"]
    if values["channels"] != RGB:
        names.append("channels")
    facts = {
        "version": DOUBTS_VERSION,
        "libraries": {name: version(name) for name in _LIBRARIES},
        "base": plan.architecture.reference,
        "model": model.model_dump(mode="json", exclude={"base", "weights", "start"}),
        "weights": hash_file(weights) if weights and weights.is_file() else str(weights),
        "features": [values[name] for name in names],
        "images": sorted((file.sha256, file.label) for file in files),
    }
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()
