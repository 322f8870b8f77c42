"""A finished run: its model, evaluation, predictions and exports."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.engines import Engine, check_engine, list_keras_needs, predict_by_export
from tl_toolkit.api.inputs import Image, Inputs, list_inputs, read_parity_images, tabulate_top
from tl_toolkit.api.model import digest_weights, load_model
from tl_toolkit.api.progress import handling
from tl_toolkit.errors import DataError, Problem, RecipeError
from tl_toolkit.events import Event, Handler, message, report_counts, warning
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.images.tta import View, find_sizes, list_views
from tl_toolkit.plan.tasks import naming_addresses, plan_task
from tl_toolkit.plan.tta import choose_tta
from tl_toolkit.recipe.export_formats import (
    EXPORT_FORMATS,
    MIN_TENSORFLOWS,
    check_formats,
    check_min_tensorflow,
    split_formats,
)
from tl_toolkit.recipe.load import load_recipe
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.files import check_folder
from tl_toolkit.runs.folder import InFolder, RunFolder
from tl_toolkit.runs.places import find_run
from tl_toolkit.runs.results import list_damaged, refuse_damaged
from tl_toolkit.runs.states import (
    describe_absent,
    describe_early_end,
    describe_resume,
    find_state,
    name_run,
)
from tl_toolkit.runtime import numerics
from tl_toolkit.sources.addresses import find_source
from tl_toolkit.sources.objects import as_path, name_listed
from tl_toolkit.sources.read_ahead import ReadAhead

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from tl_toolkit.images.geometry import Resize
    from tl_toolkit.tasks.base import Task
    from tl_toolkit.tasks.predictions import OutputReader, Prediction, Table


class Run(InFolder):
    """A finished run: its folder, its model, evaluation, predictions and exports.

    Args:
        folder: The run's folder.
        model: Its model, if it is at hand; by default model.keras is read when it is used.
    """

    def __init__(self, folder: RunFolder, model: keras.Model | None = None) -> None:
        super().__init__(folder)
        self._kept: tuple[keras.Model, str] | None = None  # as it was read: `model` may be changed
        if model is not None:
            self.model = model
            self._kept = (model, digest_weights(model))

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        self._require(self.folder.recipe)
        return load_recipe(self.folder.recipe).recipe

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of classes, or of a regression's columns, in the order of the model's outputs."""
        self._require(self.folder.classes)
        return tuple(self.folder.read_json(self.folder.classes))

    @cached_property
    def _task(self) -> Task:
        """The task, which interprets the outputs; needs TensorFlow."""
        from tl_toolkit.tasks.registry import build_task

        task = build_task(self.recipe, self.classes)
        if self.folder.task_state.is_file():
            task.restore(self.folder.read_json(self.folder.task_state))
        return task

    @cached_property
    def output_reader(self) -> OutputReader:
        """What outputs say; needs no TensorFlow."""
        state = self.folder.task_state
        learned = self.folder.read_json(state) if state.is_file() else {}
        task = self.recipe.task
        built: OutputReader = task.open("outputs").build(task, self.classes, learned)
        return built

    @property
    def resize(self) -> Resize:
        """How images are resized to the model's size."""
        from tl_toolkit.images.geometry import build_resize

        data = self.recipe.data
        return build_resize(data.resize, data.pad_color, data.channels)

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds: the kept epoch, metrics by split, the baseline, seconds.

        An interrupted run has none: that is a DataError, and `evaluate` measures its model
        without writing it.
        """
        if not self.folder.metrics.is_file():
            problems = describe_absent(self.folder, self.folder.metrics).problems
            if self.folder.model.is_file():
                hint = f"run.evaluate(), or tltool evaluate {name_run(self.path)}"
                if find_state(self.folder) in ("killed", "interrupted", "failed"):
                    resume = describe_resume(self.folder)
                    hint = f"{resume}, which writes it; to measure the model as it is: {hint}"
                problems = tuple(replace(problem, hint=hint) for problem in problems)
            raise DataError(problems)
        refuse_damaged(self.folder, self.folder.metrics)
        metrics: dict[str, Any] = self.folder.read_json(self.folder.metrics)
        return metrics

    @property
    def history(self) -> list[dict[str, Any]]:
        """The epochs of all phases in order, each a row of its phase's history.csv.

        Epoch 0 of a phase is the state before its first step, without a loss (None). The columns
        are phase, epoch, learning_rate, loss, the task's score, val_loss, the score on validation
        images (val_accuracy, say) and regularization_loss. Rows of mixed weights have no loss, and
        the column mixture: the part of the tuned weights.
        """
        names = self.recipe.phase_names
        tables = [self.folder.history(index, name) for index, name in enumerate(names)]
        refuse_damaged(self.folder, *tables)
        rows: list[dict[str, Any]] = []
        for table in filter(Path.is_file, tables):  # an interrupted run lacks some
            with open(table, encoding="utf-8", newline="") as file:
                rows += [_read_epoch(row) for row in csv.DictReader(file)]
        return rows

    def numerics(self) -> AbstractContextManager[None]:
        """Sets the arithmetic that the run was trained with, for a `with` block.

        `evaluate`, `predict` and `export` use it. Calls of `model` of your own need it to repeat
        their figures to the last digit: a GPU rounds otherwise with TensorFloat-32.
        """
        return numerics(deterministic=self.recipe.deterministic)

    @cached_property
    def model(self) -> keras.Model:
        """The kept model: float32 (batch, h, w, channels), RGB in 0..255, to (batch, outputs).

        Outputs are probabilities, or numbers in the units of the table for a regression.
        For a dense task (an output per pixel): [images, pixels] to outputs (batch, n, units), where
        `pixels` is float32 (batch, n, 2), y and x of the pixels that are predicted.

        `evaluate`, `predict` and `export` use the model as it was kept: after a change of weights
        they read it again, and warn.
        """
        self._require(self.folder.model)
        model = load_model(self.folder.model)
        self._kept = (model, digest_weights(model))
        return model

    def _find_model(self, report: Handler) -> keras.Model:
        """Returns the kept model, read again if somebody has changed `model` since.

        Of a run that did not come to its end, a warning says so.
        """
        if text := describe_early_end(self.folder):
            report(warning(text))
        model = self.model
        kept, digest = self._kept or (None, "")
        if model is kept and digest_weights(model) == digest:
            return model
        report(
            warning(
                f"run.model was changed: {self.folder.model} is read again, as the run stands for "
                "what it trained. A changed model is one of your own: model.save('own.keras')"
            )
        )
        del self.model
        return self.model

    def _require(self, path: Path) -> None:
        """Refuses to use a run that lacks a file, by what became of the run."""
        if not path.is_file():
            raise describe_absent(self.folder, path)

    def evaluate(
        self,
        data: str | Path | None = None,
        *,
        tta: bool | str | Sequence[str] = False,
        progress: Handler | bool = False,
    ) -> dict[str, Any]:
        """Measures the kept model.

        Args:
            data: Images and targets as in the recipe: a folder per class or a table, of some or all
                of the run's classes; or images and masks, as a folder or a file of COCO. By default
                the run's own test images, or its validation images if it has no test images.
            tta: Test-time augmentation: average the outputs over several views of each image.
                True takes the flips that the recipe trains with, else the image and its mirror
                image; or some of flip, flip_vertical and crops. The run's own files stay as they
                are.
            progress: As in `tl.finetune`: receives counts of images, and what is skipped. True
                prints the count, where there is no terminal as a line at the end and one every ten
                seconds.

        Returns:
            The metrics of the task, with the `split` or folder, as `tta` the views that were
            averaged if there are any, and as `skipped` the images that cannot be decoded, with
            their reasons by path.

        Raises:
            DataError: Images are missing, or of a class that the run does not know.
            RecipeError: `tta` with a task or images that have no such views.
        """
        # Before TensorFlow starts, which takes seconds.
        words = choose_tta(self.recipe, tta) if tta else ()
        self._require(self.folder.model)
        with handling(progress) as handle, self.numerics():
            return self._evaluate(data, list_views(words), handle)

    def _read_manifest(self) -> Manifest:
        """Returns the run's images; a table that lost rows since it was written is refused."""
        manifest = Manifest.load(self.folder.manifest, classes=self.classes)
        lock = self.folder.read_json(self.folder.lock) if self.folder.lock.is_file() else {}
        if lock.get("data_sha256", manifest.digest) != manifest.digest:
            what = "is not the table that the run wrote: lock.json has the digest of another one"
            hint = f"tltool evaluate {name_run(self.path)} --data FOLDER, or the file as it was"
            raise DataError(Problem(str(self.folder.manifest), what, "", hint))
        return manifest

    def _evaluate(
        self, data: str | Path | None, views: Sequence[View], progress: Handler
    ) -> dict[str, Any]:
        from tl_toolkit.evaluation.splits import evaluate_images, evaluate_views
        from tl_toolkit.images.pipeline import Images

        task, settings = self._task, self.recipe.data
        if data is None:
            manifest = self._read_manifest()
            name = "test" if manifest.of("test") else "validation"
        else:
            manifest = self._inspect(data, task, progress)
            name = "test"
        examples = manifest.of(name)
        if not examples:
            what = "all images of the run trained its model: none is left to measure it on"
            expected = "metrics.json holds what its folds measured."
            hint = f"tltool evaluate {name_run(self.path)} --data FOLDER, or a run with data.test"
            raise DataError(Problem(str(self.path), what, expected, hint))
        targets = task.load_targets(examples, settings.image_size, self.resize)
        images = {
            size: Images(
                examples,
                image_size=size,
                resize=self.resize,
                channels=settings.channels,
                targets=targets,
            )
            for size in find_sizes(settings.image_size, views)
        }
        _report_views(views, progress)
        try:
            model = self._find_model(progress)
            if views:
                metrics = evaluate_views(model, task, images, views)
            else:
                metrics = evaluate_images(model, task, images[settings.image_size])
        except DataError as error:
            if data is not None:
                raise
            hint = f"tltool evaluate {name_run(self.path)} --data FOLDER, where the images are now"
            raise DataError([replace(problem, hint=hint) for problem in error.problems]) from error
        if data is None:  # else they were counted when they were inspected
            metrics = self._join_yardsticks(name, metrics, progress)
            progress(Event("images_inspected", done=len(examples), total=len(examples)))
        inspected = () if data is None else manifest.examples
        skipped = {example.path: example.reason for example in inspected if not example.usable}
        for path, reason in skipped.items():
            progress(warning(f"skipped {path}: {reason}"))
        averaged = {"tta": [view.name for view in views]} if views else {}
        split = name if data is None else _name_data(data)
        return {"split": split, **metrics, **averaged, "skipped": skipped}

    def _join_yardsticks(
        self, split: str, metrics: Mapping[str, Any], progress: Handler
    ) -> dict[str, Any]:
        """Returns metrics with what the run has measured beside them on a split of its own."""
        measured: Mapping[str, Any] = {}
        if list_damaged(self.folder, self.folder.metrics):
            text = "was changed after the run: what it measured beside the model is left out"
            progress(warning(f"{self.folder.metrics} {text}"))
        elif self.folder.metrics.is_file():
            measured = self.metrics.get(split, {})
        kept = {name: measured[name] for name in self.recipe.task.baselines if name in measured}
        against = {**measured.get("against", {}), **metrics.get("against", {})}
        return {**kept, **metrics, **({"against": against} if against else {})}

    def _inspect(self, data: str | Path, task: Task, progress: Handler) -> Manifest:
        from tl_toolkit.images.manifest import Example
        from tl_toolkit.images.scan import inspect_images

        source = find_source(data, "--data")
        with naming_addresses():
            listing = plan_task(self.recipe).list_for_evaluation(source, self.classes)
        listing = name_listed(listing)
        convert_dir = self.folder.converted if self.recipe.data.convert else None
        inspections = inspect_images(
            [file.path for file in listing.files],
            convert_dir=convert_dir,
            progress=report_counts(progress, "images_inspected"),
            channels=self.recipe.data.channels,
        )
        examples = [
            Example(*inspection[:2], "test", file.targets, *inspection[2:])
            for inspection, file in zip(inspections, listing.files, strict=True)
        ]
        manifest = Manifest(tuple(examples), self.classes, listing.columns)
        manifest = task.inspect_targets(manifest)
        if not manifest.of("test"):
            raise DataError(Problem(_name_data(data), "holds no image that can be decoded"))
        return manifest

    def predict(
        self,
        paths: Image | Iterable[Image],
        *,
        out: str | Path | None = None,
        native: bool = False,
        tta: bool | str | Sequence[str] = False,
        engine: Engine = "auto",
        progress: Handler | bool = False,
    ) -> list[Prediction]:
        """Predicts image files, folders with all images inside, and arrays, with the kept model.

        A model that was trained with `data.convert` reads what it was trained on: TIFF, say.

        Args:
            paths: A file, folder, array or image of Pillow, or several: a list, a generator, a
                column of a DataFrame. A Parquet or TFRecord file stands for the images in it, and
                `shop.parquet#12` for one; predictions have the path that each is written to in the
                cache, which begins with its row. An array is uint8 (h, w, 3), RGB in 0..255, grey
                (h, w) or (h, w, 1), or a batch (n, h, w, 3); of other `data.channels`
                (h, w, channels) in the numbers of the files, or a batch of them. An image of
                Pillow is read as its file is: upright, alpha dropped. Predictions of both have the
                paths `array[0]`, `array[1]`, ...
            out: For dense tasks (an output per pixel): a folder that receives, for each file, the
                prediction as an image and laid over the photo. Images in it are left out unless
                `paths` names them, and only files of an earlier call are replaced. The maps
                themselves are returned only without it, as all of them would be in memory.
            native: For dense tasks: run the base on files at their own size, in windows where they
                are large. Objects should be as large in them, in pixels, as in the images that the
                model was trained on.
            tta: As in `evaluate`.
            engine: keras; litert, the run's LiteRT export, which starts no TensorFlow and is as
                near to Keras as its proof says; auto for litert where the run has one of this
                model, `model` has not been used, and there are 32 images at most. Where an image
                or an argument takes Keras, auto says so and takes it.
            progress: As in `evaluate`: receives counts of files.

        Returns:
            A prediction for each image, with `path`, `error` (of a file that is missing or cannot
            be decoded, else None), `as_record()`, and what the task predicts: `label` and
            `probabilities` by class; `labels` and `probabilities` of several labels; `values` by
            column; `maps` by name of a dense task.

        Raises:
            DataError: No path exists, or holds an image; a path is empty, or there is none; an
                array has another type or shape.
            RecipeError: `out` or `native` with a task that is not dense, `native` with `tta`, or
                `tta` with a task or images that have no such views; or `engine` is litert, which
                cannot predict this.
            OutputError: `out` cannot be written, holds files that would be lost, or holds all
                images below `paths`.
        """
        check_engine(engine)
        folder = None if out is None else Path(out)
        views = list_views(choose_tta(self.recipe, tta))
        self._require(self.folder.model)
        self._check_use(folder, native=native, tta=bool(views))
        with handling(progress) as handle:
            inputs = list_inputs(paths, folder, handle, channels=self.recipe.data.channels)
            _report_views(views, handle)
            needs = list_keras_needs(self, native=native, tta=bool(views))
            predictions = predict_by_export(
                self, inputs, engine, needs=needs, out=folder, report=handle
            )
            if predictions is not None:
                return predictions
            with self.numerics():
                return self.predict_inputs(inputs, folder, views, native=native, report=handle)

    def predict_inputs(
        self,
        inputs: Inputs,
        folder: Path | None,
        views: Sequence[View],
        *,
        native: bool,
        report: Handler,
    ) -> list[Prediction]:
        """Returns predictions, as `predict`, of images that are listed.

        The numerics are the caller's.

        Args:
            inputs: The images.
            folder: Receives pictures of dense tasks; None for none.
            views: The views that outputs are averaged over; none for the images alone.
            native: As in `predict`.
            report: Receives messages and counts.
        """
        from tl_toolkit.images.pipeline import load_file, read_tensor
        from tl_toolkit.tasks.types import PredictionOptions

        def read(path: Path) -> np.ndarray | tf.Tensor:
            if path in inputs.missing:
                raise DataError(inputs.missing[path])
            if path in inputs.arrays:
                return inputs.arrays[path]
            data = self.recipe.data
            return read_tensor(path, convert=data.convert, channels=data.channels, load=ahead.load)

        files = inputs.files
        ahead = ReadAhead([path for path in files if path not in inputs.missing], load_file)
        options = PredictionOptions(
            self.recipe.data.image_size,
            self.resize,
            out=folder,
            native=native,
            report=lambda text: report(message(text)),
            done=lambda count: report(Event("images_inspected", done=count, total=len(files))),
            read=read,
            views=views,
        )
        with closing(ahead):
            return list(self._task.predict(self._find_model(report), files, options))

    def tabulate(
        self, predictions: Sequence[Prediction], *, wide: bool = False, top: int | None = None
    ) -> Table:
        """Returns predictions as columns and rows.

        Args:
            predictions: Predictions from `predict`; the cells of one with an error are blank.
            wide: Include every number, for CSV; else only those that fit a terminal.
            top: The most probable classes to show, and no others, the best first.

        Raises:
            RecipeError: `top` with a task whose predictions give no class a probability.
        """
        records = [item.as_record() for item in predictions]
        if top is None:
            return self.output_reader.tabulate(records, wide=wide)
        self.check_top()
        return tabulate_top(records, min(top, len(self.classes)), wide=wide)

    def check_top(self) -> None:
        """Refuses the best classes of a task whose predictions give no class a probability.

        Raises:
            RecipeError: The task is of that kind.
        """
        task = self.recipe.task
        if not task.ranks_classes:
            what = f"goes with tasks that give each class a probability, not with {task.kind}"
            raise RecipeError(Problem("--top", what, "", "predict without it"))

    def _check_use(self, out: Path | None, *, native: bool, tta: bool) -> None:
        """Refuses options of `predict` before TensorFlow starts, which takes seconds."""
        task = self.recipe.task
        options = [name for name, value in (("--out", out), ("--native", native)) if value]
        if options and not task.is_dense:
            what = f"goes with tasks that have an output for each pixel, not with {task.kind}"
            raise RecipeError([Problem(name, what, "", "predict without it") for name in options])
        if native and tta:
            what = "--native and --tta: windows of an image at its own size are seen once"
            raise RecipeError(Problem("", what, "One of the two is expected."))
        if out is not None:
            check_folder(out)

    def export(
        self,
        formats: Sequence[str] = ("saved_model",),
        *,
        min_tensorflow: str | None = None,
        progress: Handler | bool = False,
    ) -> dict[str, Path]:
        """Exports the kept model; a format is published only if it proves equal.

        It is compared on validation images of the run, in its own runtime and a fresh process.
        Where none of them can be read any more, it is compared on images that the package renders,
        and a warning says so.

        Args:
            formats: Words of `tl_toolkit.recipe.export_formats.EXPORT_FORMATS`.
            min_tensorflow: The oldest TensorFlow that loads the SavedModel, 2.15 or 2.20, which
                reads WebP from bytes; by default what the recipe says, 2.15.
            progress: As in `tl.finetune`: receives the formats, and the warning.

        Returns:
            The path of each format.

        Raises:
            ParityError: The outputs of a format are not those of the Keras model, or the model
                cannot be converted to it.
            RecipeError: A format is unknown, or takes modules that are not installed.
        """
        chosen_formats = split_formats(formats)  # before TensorFlow starts, which takes seconds
        check_formats(chosen_formats)
        export = self.recipe.export
        oldest = min_tensorflow or (export.min_tensorflow if export else MIN_TENSORFLOWS[0])
        check_min_tensorflow(oldest)
        self._require(self.folder.model)
        with handling(progress) as handle, self.numerics():
            return self._export(chosen_formats, handle, webp=oldest == MIN_TENSORFLOWS[-1])

    def _export(
        self, chosen_formats: Sequence[str], report: Handler, *, webp: bool
    ) -> dict[str, Path]:
        from tl_toolkit.export.finished import Sizes, finish_model, leave_webp
        from tl_toolkit.export.publish import publish

        report(message(f"exporting {', '.join(chosen_formats)}"))
        is_proved = any(EXPORT_FORMATS[name].proof for name in chosen_formats)
        manifest = self._read_manifest() if is_proved else Manifest((), self.classes)
        files = {}
        if "saved_model" in chosen_formats:
            files = read_parity_images(manifest, report, self.recipe.data.channels)
            files = leave_webp(files, report) if not webp else files
        data = self.recipe.data
        sizes = Sizes(data.image_size, self.resize, data.channels)
        finished = finish_model(self._find_model(report), self._task, sizes, manifest, webp=webp)
        return publish(finished, self.folder, files=files, formats=chosen_formats, report=report)


def _name_data(data: str | Path) -> str:
    """Returns a folder or a table as it was typed: the path of an address has lost a slash."""
    return data if isinstance(data, str) else str(as_path(data))


def _report_views(views: Sequence[View], report: Handler) -> None:
    """Reports what outputs are averaged over, if they are."""
    if views:
        names = "; ".join(view.name for view in views)
        report(message(f"averaged over {len(views)} views of each image: {names}"))


def _read_epoch(row: Mapping[str, str]) -> dict[str, Any]:
    """Returns a row of history.csv with numbers; an empty cell is None."""
    values: dict[str, Any] = {name: float(text) if text else None for name, text in row.items()
                              if name != "phase"}  # fmt: skip
    return {"phase": row["phase"], **values, "epoch": int(row["epoch"])}


def load_run(run: str | Path, *, root: str | Path = Path("runs"), unfinished: bool = False) -> Run:
    """Opens a run.

    Args:
        run: Its folder, `<name>/<NNN>`, `<name>/latest`, `<name>` for the same, or `latest`.
        root: Folder of all runs.
        unfinished: Let `latest` mean the newest run that holds a model, an interrupted one too.

    Raises:
        DataError: There is no such run.
        TypeError: `run` is no path.
    """
    if not isinstance(run, str | os.PathLike):
        expected = "expected a folder, NAME/NNN, NAME or 'latest'"
        raise TypeError(f"run: {expected}, got {run!r}")
    return Run(find_run(run, root=Path(root), unfinished=unfinished))
