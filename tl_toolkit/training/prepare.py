"""Prepares a training from a plan: the images, and the model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tl_toolkit.architectures.loading import remember_model
from tl_toolkit.catalog.lookup import complete_arguments
from tl_toolkit.events import Handler, ignore, message, report_counts, warning
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.features.source import FeatureSource
from tl_toolkit.images.geometry import Resize, build_resize
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.images.pipeline import MEMORY_BUDGET, DecodedImages, Images
from tl_toolkit.images.scan import Keep, ScanSettings, scan
from tl_toolkit.plan.plan import Plan
from tl_toolkit.runs.files import drafted, write_json
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.sources.objects import name_object
from tl_toolkit.tasks.base import Task
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.leakage import refuse_leakage
from tl_toolkit.training.loop import Trainer
from tl_toolkit.transfer.assemble import BaseSettings, TransferModel, assemble
from tl_toolkit.transfer.carry import carry_head
from tl_toolkit.transfer.fetch import fetch_weight_file
from tl_toolkit.transfer.precision import choose_precision, set_precision, time_precisions
from tl_toolkit.transfer.widening import describe_widened


def survey_images(
    plan: Plan, task: Task, folder: RunFolder, progress: Handler
) -> tuple[Manifest, dict[str, Images]]:
    """Inspects all images, and reports what may mislead: skipped ones, leaks, imbalance.

    Args:
        plan: The plan that lists the images.
        task: Reads their targets.
        folder: Receives converted images.
        progress: Receives the number of images inspected, and warnings.

    Returns:
        The manifest, and its images from `load_images`; decoded images are not decoded again.

    Raises:
        DataError: Images cannot be used.
    """
    data = plan.recipe.data
    decoded = DecodedImages(data.image_size, _resize_of(plan), channels=data.channels)
    manifest = scan_images(plan, task, folder, progress, keep=decoded.add)
    if plan.excluded:
        progress(message(plan.excluded))
    for example in manifest.examples:
        if example.verdict == "broken":
            progress(warning(f"skipped {example.path}: {example.reason}"))
    refuse_leakage(plan, manifest, progress)
    if pairs := manifest.find_contradictions():
        first, second, column = pairs[0]
        known, other = (example.targets[manifest.columns.index(column)] for example in pairs[0][:2])
        count = "1 image is" if len(pairs) == 1 else f"{len(pairs)} images are"
        progress(
            warning(
                f"{count} there again with another {column}, of which one must be wrong: "
                f"{first.path} ({known}) is {second.path} ({other})"
            )
        )
    if text := task.describe_imbalance(manifest):
        progress(warning(text))
    return manifest, load_images(plan, task, manifest, decoded)


def write_manifest(manifest: Manifest, folder: RunFolder) -> None:
    """Writes manifest and classes of a run or search.

    Args:
        manifest: Of its images.
        folder: Its folder.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    manifest.save(folder.manifest)
    write_json(folder.classes, list(manifest.classes))


def save_model(transfer: TransferModel, folder: RunFolder) -> None:
    """Saves a model with the weights that it has, and what its task learned from data.

    Args:
        transfer: The model, whose layers compute in float32 from now on.
        folder: The run.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    set_precision(transfer, "float32")
    if state := transfer.task.state():  # also of an interrupted run, which is never evaluated
        write_json(folder.task_state, state)
    with drafted(folder.model) as draft:
        transfer.model.save(draft)
    remember_model(folder.model)


def scan_images(
    plan: Plan,
    task: Task,
    folder: RunFolder,
    progress: Handler = ignore,
    *,
    keep: Keep | None = None,
) -> Manifest:
    """Inspects all images of a plan.

    Args:
        plan: The plan that lists the images.
        task: Inspects files of targets.
        folder: Receives converted images.
        progress: Receives the number of images inspected.
        keep: As in `tl_toolkit.images.scan.scan`.

    Raises:
        DataError: Images cannot be used.
    """
    data = plan.recipe.data
    settings = ScanSettings(
        data.broken,
        data.convert,
        data.split_seed,
        data.examples_per_class,
        data.folds,
        data.channels,
    )
    return scan(
        plan.listing,
        settings,
        inspect_targets=partial(
            task.inspect_targets,
            size=data.image_size,
            resize=_resize_of(plan),
            progress=report_counts(progress, "targets_inspected"),
        ),  # fmt: skip
        convert_dir=folder.converted,
        progress=report_counts(progress, "images_inspected"),
        keep=keep,
    )


def measure_precision(plan: Plan, transfer: TransferModel) -> tuple[str, str, dict[str, float]]:
    """Measures a few batches on this machine, and chooses the precision that a base trains in.

    Args:
        plan: The plan, whose phases say what trains.
        transfer: Its model.

    Returns:
        float32 or bfloat16, a sentence on what was measured, and seconds of an image by precision.
    """
    seconds = time_precisions(
        transfer,
        trains_base=any(plan.units.values()),
        batch_size=plan.recipe.data.batch_size,
    )
    chosen = choose_precision(seconds)
    ratio = seconds["float32"] / seconds["bfloat16"]
    measured = ", ".join(f"{name} {value * 1000:.3g} ms" for name, value in seconds.items())
    reason = f"precision: {chosen}, as bfloat16 is {ratio:.2f} times as fast here ({measured})"
    return chosen, f"{reason} for an image", seconds


def prepare_model(plan: Plan, task: Task, progress: Handler) -> None:
    """Gives a model what it holds of the training targets before its first step.

    Few models hold any: for them alone the images are inspected, which decides those that train.

    Args:
        plan: Says which images there are.
        task: Of the model, which is built.
        progress: Receives the number of images inspected.

    Raises:
        DataError: Images cannot be used.
    """
    if not task.prepare_changes_model:
        return
    data = plan.recipe.data
    with tempfile.TemporaryDirectory(prefix="tltool-") as folder:
        manifest = scan_images(plan, task, RunFolder(Path(folder)), progress)
        examples = manifest.of("train")
        task.prepare(task.load_targets(examples, data.image_size, _resize_of(plan)))


def load_images(
    plan: Plan, task: Task, manifest: Manifest, decoded: DecodedImages | None = None
) -> dict[str, Images]:
    """Returns the images of each split that has any; images are decoded when they are used.

    Args:
        plan: The plan, with their size.
        task: Loads their targets.
        manifest: The images.
        decoded: Images that are decoded already.
    """
    size, resize = plan.recipe.data.image_size, _resize_of(plan)
    return {
        split: Images(
            examples,
            image_size=size,
            resize=resize,
            channels=plan.recipe.data.channels,
            memory_budget=MEMORY_BUDGET // 3,
            decoded=decoded,
            targets=task.load_targets(examples, size, resize),
        )
        for split in ("train", "validation", "test")
        if (examples := manifest.of(split))
    }


def _resize_of(plan: Plan) -> Resize:
    data = plan.recipe.data
    return build_resize(data.resize, data.pad_color, data.channels)


def split_folds(plan: Plan, task: Task, images: Images) -> list[dict[str, Images]]:
    """Returns the images of each fold's training: the fold itself validates.

    Args:
        plan: The plan, with the number of folds and the size of the images.
        task: Loads their targets.
        images: All images that train, with their folds.
    """
    data, resize = plan.recipe.data, _resize_of(plan)

    def select(indices: Sequence[int]) -> Images:
        examples = [images.examples[index] for index in indices]
        return images.select(indices, task.load_targets(examples, data.image_size, resize))

    folds = [example.fold for example in images.examples]
    return [
        {
            "train": select([index for index, fold in enumerate(folds) if fold != number]),
            "validation": select([index for index, fold in enumerate(folds) if fold == number]),
        }
        for number in range(1, (data.folds or 0) + 1)
    ]


def build_trainer(
    compiled: CompiledPhases,
    settings: FeatureSettings,
    images: Mapping[str, Images],
    *,
    progress: Handler = ignore,
    ahead: Sequence[Sequence[str]] = (),
) -> Trainer:
    """Builds the trainer of all recipes that share a model, its features and its images.

    Args:
        compiled: The model, and its steps.
        settings: How images are augmented, and which features are stored.
        images: Images by split.
        progress: As in `Trainer`.
        ahead: As in `Trainer`.
    """
    source = FeatureSource(compiled.transfer, settings, images, progress)
    return Trainer(compiled, source, images, progress=progress, ahead=ahead)


def assemble_model(plan: Plan, task: Task, progress: Handler) -> TransferModel:
    """Builds a plan's model and loads its base, and the head of a run that it starts from.

    Args:
        plan: The plan.
        task: Builds the head.
        progress: Receives the bytes of a file that is downloaded, and messages about the file.

    Raises:
        WeightsError: The weight file is missing, damaged, or of another network.
    """
    recipe, model = plan.recipe, plan.recipe.model
    path = plan.weights_file
    if plan.published is not None:
        report = report_counts(progress, "weights_fetched")
        path = fetch_weight_file(plan.published, progress=report)
    transfer = assemble(
        BaseSettings(
            plan.architecture.name,
            path,
            model.arguments,
            model.l1,
            model.l2,
            model.edge_filter,
            plan.architecture,
            recipe.data.channels,
            plan.pixels,
        ),
        task,
        image_size=recipe.data.image_size,
        seed=recipe.seed,
    )
    loaded = transfer.weights
    if loaded is not None and loaded.widened:
        progress(
            message(describe_widened(loaded.widened, loaded.widened_from, recipe.data.channels))
        )
    if plan.start is not None and path is not None:
        head = transfer.parts[-1].layers
        carry_head(head, path, before=plan.start.classes, classes=plan.classes)
    name = name_object(str(loaded.path)) if loaded is not None else ""
    if loaded is not None and loaded.by == "order":
        progress(
            warning(f"{name}: no layer has a known name, so weights were matched by their order")
        )
    arguments = complete_arguments(transfer.architecture, model.arguments)
    if loaded is not None and plan.start is None and model.weights != "imagenet":
        if arguments.get("imagenet_rescaling"):
            progress(
                message(
                    f"{name}: taken for weights that began with Keras's own file; for those "
                    "of a model built with weights=None set "
                    "model.arguments.imagenet_rescaling=false"
                )
            )
    return transfer
