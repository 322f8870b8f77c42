"""From a recipe to what is trained on and what is trained: images and a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import keras

from tl_toolkit.catalog.lookup import complete_arguments
from tl_toolkit.events import Progress
from tl_toolkit.features.source import FeatureSource
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.images.pipeline import MEMORY_BUDGET, DecodedImages, Images
from tl_toolkit.images.scan import scan
from tl_toolkit.images.targets import Targets
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.files import write_json
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.registry import build_reader, build_task
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.loop import Trainer
from tl_toolkit.transfer.assemble import TransferModel, assemble

_T = TypeVar("_T")


def start_aside(work: Callable[[], _T]) -> Callable[[], _T]:
    """Begins work in a thread of its own, which an interrupt does not wait for.

    The caller's dtype policy counts there too: Keras keeps one for each thread.

    Args:
        work: Called there.

    Returns:
        What waits for it, and returns or raises what it did.
    """
    found: list[_T] = []
    errors: list[BaseException] = []
    policy = keras.config.dtype_policy()

    def run() -> None:
        try:
            keras.config.set_dtype_policy(policy)
            found.append(work())
        except BaseException as error:  # raised again where it is waited for
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait() -> _T:
        thread.join()
        if errors:
            raise errors[0]
        return found[0]

    return wait


def survey_images(
    recipe: Recipe, folder: RunFolder, progress: Progress
) -> tuple[Manifest, dict[str, Images]]:
    """Looks at all images and notes manifest and classes in the folder.

    Args:
        recipe: The recipe.
        folder: Receives manifest, classes and converted images.
        progress: Is told of each image, and of what is worth knowing of them.

    Returns:
        The manifest, and `load_images` of it; what was decoded for it is not decoded again.

    Raises:
        DataError: Images cannot be used.
    """
    decoded = DecodedImages(recipe.data.image_size, recipe.data.resize)
    manifest = scan(
        recipe.data,
        reader=build_reader(recipe),
        convert_dir=folder.converted,
        progress=progress.scanned,
        keep=decoded.add,
    )
    manifest.save(folder.manifest)
    write_json(folder.classes, list(manifest.classes))
    for example in manifest.examples:
        if example.verdict == "broken":
            progress.said(f"skipped {example.path}: {example.reason}")
    if leaks := manifest.find_leaks():
        one, other = leaks[0]
        progress.said(
            f"{len(leaks)} images are in two splits, and flatter what is measured there: "
            f"{one.path} is {other.path}"
        )
    return manifest, load_images(recipe, manifest, decoded)


def load_images(
    recipe: Recipe, manifest: Manifest, decoded: DecodedImages | None = None
) -> dict[str, Images]:
    """Returns the images of each split that has any; what is not decoded yet will be when used.

    Args:
        recipe: The recipe.
        manifest: Its images.
        decoded: Images that are decoded already.
    """
    size: Any = {"image_size": recipe.data.image_size, "resize": recipe.data.resize}
    reader = build_reader(recipe)
    return {
        split: Images(
            examples,
            manifest.classes,
            **size,
            memory_budget=MEMORY_BUDGET // 3,
            decoded=decoded,
            targets=Targets(examples, reader, **size) if reader else None,
        )
        for split in ("train", "validation", "test")
        if (examples := manifest.of(split))
    }


def build_trainer(
    compiled: CompiledPhases,
    recipe: Recipe,
    images: Mapping[str, Images],
    *,
    progress: Progress | None = None,
    ahead: Sequence[Sequence[str]] = (),
) -> Trainer:
    """Returns what trains a recipe, and all others that share its model, features and images.

    Args:
        compiled: The recipe's model, and its steps.
        recipe: Says how images are augmented, and which features are kept.
        images: By split.
        progress: As of `Trainer`.
        ahead: Likewise.
    """
    progress = progress or Progress()
    source = FeatureSource(compiled.transfer, recipe, images, progress)
    return Trainer(compiled, source, images, progress=progress, ahead=ahead)


def assemble_model(recipe: Recipe, classes: Sequence[str], progress: Progress) -> TransferModel:
    """Draws a recipe's model and loads its base.

    Args:
        recipe: The recipe.
        classes: Class names in the order of the outputs.
        progress: Is told of a file that is fetched, and of what is worth knowing of it.

    Raises:
        WeightsError: The weight file is missing, damaged, or of another network.
    """
    transfer = assemble(
        recipe.model,
        image_size=recipe.data.image_size,
        num_classes=len(classes),
        seed=recipe.seed,
        task=build_task(recipe, classes),
        pixels=recipe.pixels,
        progress=progress.fetched,
    )
    loaded = transfer.weights
    if loaded is not None and loaded.by == "order":
        progress.said(
            f"{loaded.path}: no layer has a known name, so weights were matched by their order"
        )
    arguments = complete_arguments(transfer.architecture, recipe.model.arguments)
    if loaded is not None and recipe.model.weights != "imagenet":
        if arguments.get("imagenet_rescaling"):
            progress.said(
                f"{loaded.path}: taken for weights that began with Keras's own file; for those of "
                "a model drawn with weights=None set model.arguments.imagenet_rescaling=false"
            )
    return transfer
