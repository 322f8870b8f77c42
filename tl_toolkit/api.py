"""The verbs, for the command line and for scripts: each is a whole job from recipe to product."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.check import Summary, check_recipe
from tl_toolkit.data.manifest import Manifest
from tl_toolkit.errors import DataError, NonFiniteError, OutputError, Problem, RecipeError
from tl_toolkit.progress import Progress, Relay
from tl_toolkit.recipe.load import dump_recipe, load_recipe, read_recipe
from tl_toolkit.recipe.pixel_schema import PIXEL_TASKS
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs import (
    InFolder,
    RunFolder,
    create_run,
    drafted,
    find_run,
    point_latest,
    write_atomically,
    write_json,
)
from tl_toolkit.runtime import describe_numerics, start_tensorflow

if TYPE_CHECKING:
    import keras

    from tl_toolkit.data.pipeline import Images
    from tl_toolkit.evaluation.masks import MaskPrediction
    from tl_toolkit.evaluation.predict import Prediction
    from tl_toolkit.tasks.base import Task
    from tl_toolkit.training.compiled import CompiledPhases
    from tl_toolkit.training.loop import Trainer, Training
    from tl_toolkit.transfer.assemble import TransferModel


PARITY_IMAGES = 16
"""Validation images at most that an export is compared on, spread over the classes."""


class Run(InFolder):
    """A finished run: its folder, its model, and what can be done with it.

    Args:
        folder: The run's folder.
    """

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return load_recipe(self.folder.recipe).recipe

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        return tuple(self.folder.read_json(self.folder.classes))

    @property
    def _task(self) -> Task:
        """The task, which says what its outputs mean; needs TensorFlow."""
        from tl_toolkit.tasks.registry import build_task

        return build_task(self.recipe, self.classes)

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds: the kept epoch, metrics by split, the baseline, seconds."""
        return self.folder.read_json(self.folder.metrics)

    @cached_property
    def model(self) -> keras.Model:
        """The kept model: float32 RGB (batch, h, w, 3) in 0..255 to probabilities.

        Where each pixel has an answer: [images, pixels] to outputs (batch, n, units), pixels being
        float32 (batch, n, 2), y and x of those that are asked for.
        """
        start_tensorflow()
        import keras

        # Keras must know them to load them.
        import tl_toolkit.architectures.layers
        import tl_toolkit.architectures.sampling  # noqa: F401

        if not self.folder.model.is_file():
            state = self.folder.read_json(self.folder.status).get("state")
            raise RecipeError(
                Problem(
                    where=str(self.folder.model),
                    what=f"is missing: the run is {state}",
                    expected="A run that got through its first evaluation holds a model.",
                    hint=f"tltool finetune {self.folder.recipe}",
                )
            )
        try:
            return keras.saving.load_model(self.folder.model, compile=False)
        except Exception as error:  # Keras raises whatever the first damaged part makes it
            raise DataError(
                Problem(
                    where=str(self.folder.model),
                    what=f"cannot be loaded: {str(error).splitlines()[0]}",
                    expected="The file is damaged, or was written by another Keras.",
                    hint=f"tltool finetune {self.folder.recipe}",
                )
            ) from error

    def evaluate(
        self, data: str | Path | None = None, *, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Measures the kept model.

        Args:
            data: A folder per class, of some or all of the run's classes; where each pixel has an
                answer, a folder of images and masks as in the recipe. By default the run's own test
                images, or its validation images if it has no test images.
            progress: Is told of the images looked at.

        Returns:
            The metrics of the task (of `tl_toolkit.evaluation.metrics.measure` for a
            classification), with the `split` or folder, and as `skipped` the images that cannot be
            decoded, with their reasons by path.

        Raises:
            DataError: Images are missing, or of a class that the run does not know.
        """
        start_tensorflow()
        from tl_toolkit.evaluation.splits import measure_kept
        from tl_toolkit.training.prepare import load_images

        if data is None:
            manifest = Manifest.load(self.folder.manifest, classes=self.classes)
            name = "test" if manifest.of("test") else "validation"
        else:
            manifest = self._look_at(data, progress or Progress())
            name = "test"
        images = load_images(self.recipe, manifest)[name]
        found = measure_kept(self.model, self._task, images, self.classes)
        skipped = {one.path: one.reason for one in manifest.examples if not one.usable}
        skipped = {} if data is None else skipped
        return {"split": name if data is None else str(data), **found, "skipped": skipped}

    def _look_at(self, data: str | Path, progress: Progress) -> Manifest:
        from tl_toolkit.data.manifest import Example
        from tl_toolkit.data.scan import look_at
        from tl_toolkit.data.sources import list_folder, list_folder_with_masks
        from tl_toolkit.data.targets import look_at_targets
        from tl_toolkit.tasks.registry import build_reader

        masks, reader = self.recipe.data.masks, build_reader(self.recipe)
        if masks is None:
            files = list_folder(data, classes=self.classes).files
        else:
            files = list_folder_with_masks(Path(data), masks).files
        convert_dir = self.folder.converted if self.recipe.data.convert else None
        looks = look_at(
            [file.path for file in files], convert_dir=convert_dir, progress=progress.scanned
        )
        examples = [
            Example(look.path, look.sha256, file.label, "test", look.verdict, look.reason)
            for look, file in zip(looks, files, strict=True)
        ]
        if reader is not None:
            examples = look_at_targets(examples, [file.mask for file in files], reader)
        manifest = Manifest(tuple(examples), self.classes)
        if not manifest.of("test"):
            raise DataError(Problem(str(data), "holds no image that can be decoded"))
        return manifest

    def predict(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        out: str | Path | None = None,
        native: bool = False,
        progress: Progress | None = None,
    ) -> list[Prediction] | list[MaskPrediction]:
        """Asks the kept model about image files, and about folders with all images inside.

        Args:
            paths: A file or folder, or several.
            out: Where each pixel has an answer: a folder that receives, for each file, the answer
                as an image and laid over the photo. Images in it are not asked about unless they
                are named, and only what an earlier call wrote is replaced. The answers themselves
                are returned only without it, as all of them would be in memory.
            native: Likewise: run the base on files as they are, in windows where they are large,
                instead of resizing them. Things should be as large in them, in pixels, as in what
                the model was trained on.
            progress: Is told of the files answered, and of images in `out`.

        Returns:
            An answer for each file; a file that cannot be decoded carries its `error`.

        Raises:
            DataError: A path does not exist, or a folder holds no image.
            RecipeError: `out` or `native` was given where each image has one answer.
            OutputError: `out` cannot be written, holds files that would be lost, or holds all
                images below `paths`.
        """
        teller = progress or Progress()
        folder = None if out is None else Path(out)
        self._check_use(folder, native=native)
        several = [paths] if isinstance(paths, str | Path) else paths
        files = _list_files(several, folder, teller)
        start_tensorflow()
        from tl_toolkit.evaluation.masks import predict_masks
        from tl_toolkit.evaluation.predict import predict_files
        from tl_toolkit.tasks.base import answers_pixels

        def done(count: int) -> None:
            teller.scanned(count, len(files))

        task = self._task
        if answers_pixels(task):
            return list(
                predict_masks(
                    self.model, files, task, self.recipe, self.classes, folder=folder,
                    native=native, said=teller.said, done=done,
                )
            )  # fmt: skip
        resize = self.recipe.data.resize
        return list(
            predict_files(self.model, files, classes=self.classes, resize=resize, done=done)
        )

    def _check_use(self, out: Path | None, *, native: bool) -> None:
        """Refuses options of `predict` before TensorFlow starts, which takes seconds."""
        task = self.recipe.task
        given = [name for name, one in (("--out", out), ("--native", native)) if one]
        if given and task not in PIXEL_TASKS:
            what = f"goes with tasks that answer each pixel, not with {task}"
            raise RecipeError([Problem(one, what, "", "predict without it") for one in given])
        if out is not None:
            from tl_toolkit.evaluation.pictures import check_folder

            check_folder(out)

    def export(self, formats: Sequence[str] = ("saved_model",)) -> dict[str, Path]:
        """Exports the kept model; a SavedModel is published only if it proves equal.

        Args:
            formats: `saved_model`, and `weights` for the base alone as a weight file.

        Returns:
            The path of each format.

        Raises:
            ParityError: The SavedModel does not answer as the Keras model does.
        """
        start_tensorflow()
        from tl_toolkit.data.pipeline import read_encoded
        from tl_toolkit.export.publish import publish

        manifest = Manifest.load(self.folder.manifest, classes=self.classes)
        examples = manifest.of("validation")
        count = min(PARITY_IMAGES, len(examples))
        # The manifest is ordered by class, so that equal steps go through all of them.
        chosen = [examples[index * len(examples) // count] for index in range(count)]
        return publish(
            self.model,
            self.folder,
            self.recipe,
            classes=self.classes,
            task=self._task,
            files={example.path: read_encoded(example) for example in chosen},
            formats=formats,
        )


def _list_files(paths: Sequence[str | Path], out: Path | None, teller: Progress) -> list[Path]:
    """Lists what is asked about: no image in `out`, where answers are, unless it is named."""
    from tl_toolkit.data.sources import list_images

    files, left_out = [], 0
    for path in paths:
        found = list_images(path)
        if out is not None and Path(path).is_dir():
            outside = [file for file in found if not _is_same(file.parent, out)]
            left_out += len(found) - len(outside)
            found = outside
        files += found
    if left_out and not files:
        what = f"receives the answers, so that the {left_out} images in it are not asked about"
        raise OutputError(Problem(f"--out {out}", what, "", "--out DIR with another folder"))
    if left_out:
        teller.said(f"left out: {left_out} images in {out}, which receives the answers")
    return files


def _is_same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def load_run(run: str | Path, *, root: Path = Path("runs")) -> Run:
    """Opens a finished run.

    Args:
        run: Its folder, `<name>/<NNN>`, `<name>/latest` or `latest`.
        root: Folder of all runs.

    Raises:
        DataError: There is no such run.
    """
    return Run(find_run(run, root=root))


def finetune(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
    root: str | Path = "runs",
    threads: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: Progress | None = None,
) -> Run:
    """Turns a recipe into a fine-tuned, evaluated and exported model.

    Args:
        recipe: Path of a recipe, its contents, or a recipe. Training sets the global seeds of
            Python, NumPy and TensorFlow.
        overrides: Fields to replace: `["phases.head.epochs=3"]` or `{"phases.head.epochs": 3}`.
        out: Folder of the run; by default the next number under `root`/<recipe name>.
        overwrite: Replace the run that `out` holds.
        root: Folder of all runs.
        threads: Size of TensorFlow's thread pools, if it has not started yet.
        callbacks: Keras callbacks; each phase looks to them like a call of `fit` on its suffix.
        progress: Is told what happens; nothing is printed by default.

    Raises:
        ToolkitError: A child of it for whatever can be mended: recipe, data, weights, output.
    """
    loaded = read_recipe(recipe, overrides)
    if overwrite and out is None:
        raise RecipeError(Problem("--overwrite", "goes with --out", "", "--out DIR --overwrite"))
    summary = check_recipe(loaded)
    folder = create_run(
        loaded.recipe.name, root=Path(root), out=Path(out) if out else None, overwrite=overwrite
    )
    folder.write_status("running", phase=None, epoch=None)
    progress = progress or Progress()
    try:
        progress.began(folder.path)
        start_tensorflow(threads=threads, deterministic=loaded.recipe.deterministic)
        if summary.ignored:
            progress.said(summary.ignored)
        run = _Finetuning(summary, folder, progress, callbacks).run()
    except KeyboardInterrupt:
        folder.write_status("interrupted")
        raise
    except BaseException as error:
        folder.write_status("failed", error=str(error) or type(error).__name__)
        raise
    folder.write_status("done")
    point_latest(folder, root=Path(root), name=loaded.recipe.name)
    return run


class _Finetuning:
    """The steps of `finetune` after the folder is made, in order."""

    def __init__(
        self,
        summary: Summary,
        folder: RunFolder,
        progress: Progress,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        self.recipe = summary.recipe
        self._classes = summary.classes
        self._callbacks = callbacks
        self.folder = folder
        self.progress = _Recorded(progress, folder)
        self.seconds: dict[str, float] = {}
        self._clock = time.perf_counter()

    def run(self) -> Run:
        from tl_toolkit.training.loop import Trainer
        from tl_toolkit.training.prepare import start_aside, survey_images

        write_atomically(self.folder.recipe, dump_recipe(self.recipe))
        # Drawing and tracing are Python's work, decoding is not: they go on side by side.
        wait_for_model = start_aside(self._compile)
        try:
            manifest, images = survey_images(self.recipe, self.folder, self.progress)
        except Exception:
            # TensorFlow aborts a process that ends while a thread of it still traces.
            with contextlib.suppress(Exception):
                wait_for_model()
            raise
        compiled = wait_for_model()
        transfer = compiled.transfer
        self._note(transfer, manifest)
        self._lap("prepare")
        trainer = Trainer(compiled, self.recipe, images, progress=self.progress)
        training = self._train(trainer, transfer)
        self._lap("train")
        metrics = self._evaluate(trainer, transfer.task, images, manifest.classes, training)
        self._lap("evaluate", metrics)
        run = Run(self.folder)
        run.model = transfer.model  # saves reading it back from model.keras
        exported = {}
        if self.recipe.export:
            self.progress.said(f"exporting {', '.join(self.recipe.export.formats)}")
            exported = run.export(self.recipe.export.formats)
            self._lap("export", metrics)
        if self.recipe.baseline:  # last: whatever becomes of it, the run itself is done
            metrics["baseline"] = self._train_baseline(images, manifest.classes)
            self._lap("baseline", metrics)
        self.progress.finished(metrics, exported)
        return run

    def _lap(self, name: str, metrics: Mapping[str, Any] | None = None) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._clock, 3)
        self._clock = now
        if metrics is not None:
            write_json(self.folder.metrics, {**metrics, "seconds": self.seconds})

    def _compile(self) -> CompiledPhases:
        from tl_toolkit.training.compiled import CompiledPhases
        from tl_toolkit.training.prepare import assemble_model

        compiled = CompiledPhases(assemble_model(self.recipe, self._classes, self.progress))
        compiled.trace(self.recipe)
        return compiled

    def _note(self, transfer: TransferModel, manifest: Manifest) -> None:
        """Writes the lock, and tells what each phase will train."""
        from tl_toolkit.training.loop import plan_phases
        from tl_toolkit.transfer.weights import hash_file

        recipe = self.recipe
        loaded = transfer.weights
        write_json(
            self.folder.lock,
            {
                "seed": recipe.seed,
                "split_seed": recipe.data.split_seed,
                "data_sha256": manifest.digest,
                "weights": str(loaded.path) if loaded else recipe.model.weights,
                "weights_sha256": hash_file(loaded.path) if loaded else None,
                "weights_matched_by": loaded.by if loaded else None,
                "weights_left_out": list(loaded.left_out) if loaded else [],
                "numerics": describe_numerics(),
            },
        )
        self.progress.planned(plan_phases(transfer, recipe.phases))

    def _train(self, trainer: Trainer, transfer: TransferModel) -> Training:
        try:
            training = trainer.train(self.recipe, self.folder, callbacks=self._callbacks)
        except (NonFiniteError, KeyboardInterrupt):
            if self.folder.checkpoint.is_file():  # there was a best state, and it is restored
                self._save(transfer)
            raise
        self._save(transfer)
        return training

    def _save(self, transfer: TransferModel) -> None:
        with drafted(self.folder.model) as draft:
            transfer.model.save(draft)

    def _evaluate(
        self,
        trainer: Trainer,
        task: Task,
        images: Mapping[str, Images],
        classes: Sequence[str],
        training: Training,
    ) -> dict[str, Any]:
        from tl_toolkit.evaluation.splits import measure_trained, write_predictions

        found, predictions = measure_trained(trainer, task, images, classes)
        write_predictions(self.folder.predictions, predictions)
        return {
            "best": training.best.as_row(),
            "weights_sha256": training.weights_sha256,
            **found,
        }

    def _train_baseline(
        self, images: Mapping[str, Images], classes: tuple[str, ...]
    ) -> dict[str, Any]:
        from tl_toolkit.evaluation.baselines import train_baseline

        self.progress.said("training the baseline beside it")
        return train_baseline(self.recipe, images, classes, self.folder, progress=self.progress)


class _Recorded(Relay):
    """Passes events on, and keeps the run's status up to date."""

    def __init__(self, progress: Progress, folder: RunFolder) -> None:
        super().__init__(progress)
        self._folder = folder

    def epoch_ended(self, row: Mapping[str, Any], *, best: bool) -> None:
        self._folder.write_status("running", phase=row["phase"], epoch=row["epoch"])
        super().epoch_ended(row, best=best)
