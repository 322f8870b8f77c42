"""`finetune`: from a recipe to a fine-tuned, evaluated and exported model."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tl_toolkit.api.base import keep_base, reading_recipe
from tl_toolkit.api.progress import handling, naming_what_is_kept
from tl_toolkit.api.resume import Resumed, check_lock, find_resumed, read_state, resume_plan
from tl_toolkit.api.run import Run
from tl_toolkit.api.start import add_override, add_start, refuse_replaced_runs
from tl_toolkit.api.together import Together, joining
from tl_toolkit.errors import OutputError, Problem, RecipeError, ToolkitError
from tl_toolkit.events import Event, Handler, message, warning
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.devices import DeviceChoice, DeviceNames, parse_devices
from tl_toolkit.plan.hosts import parse_hosts
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import feature_values, training_settings
from tl_toolkit.recipe.load import RecipeSource, dump_recipe
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.runs.files import write_atomically, write_json
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.places import create_run, point_latest, resume_run
from tl_toolkit.runs.states import name_run
from tl_toolkit.runtime import (
    describe_threads,
    numerics,
    refuse_dtype_policy,
    start_tensorflow,
)

if TYPE_CHECKING:
    import keras

    from tl_toolkit.evaluation.folds import CrossValidation
    from tl_toolkit.evaluation.splits import Measured
    from tl_toolkit.images.pipeline import Images
    from tl_toolkit.tasks.base import Task
    from tl_toolkit.training.compiled import CompiledPhases
    from tl_toolkit.training.devices import Devices
    from tl_toolkit.training.loop import Paused, Trainer, Training
    from tl_toolkit.transfer.assemble import TransferModel

_SECONDS_OF_PICTURES = 180.0  # of a run: in a shorter one heat maps would take more than a tenth


def finetune(
    recipe: RecipeSource,
    *,
    overrides: Overrides = (),
    base: keras.Model | None = None,
    start: str | Path | Run | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    versus: Literal["scratch"] | None = None,
    root: str | Path = "runs",
    threads: int | None = None,
    devices: DeviceNames | None = None,
    hosts: str | Sequence[str] | None = None,
    host_index: int | None = None,
    host_wait: float | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: Handler | bool = False,
) -> Run:
    """Turns a recipe into a fine-tuned, evaluated and exported model.

    Args:
        recipe: Path of a recipe, its contents, a recipe, or what `tl.load_recipe` returns. Training
            leaves the global seeds alone. Op determinism, TensorFloat-32 and Keras's dtype policy
            are afterwards what they were before.
        overrides: Fields to replace: `["phases.head.epochs=3"]` or `{"phases.head.epochs": 3}`.
        base: A functional Keras model in place of the recipe's base, weights and arguments. It is
            used whole and is not changed; the run keeps a copy.
        start: A finished run, or its folder, name or address on an object store, whose weights
            training starts from: of its head, outputs are kept by the names of their classes, and
            those of new classes begin with the means of their features. It becomes the recipe's
            `model.start`.
        out: Folder of the run; by default the next number under `root`/<recipe name>.
        overwrite: Replace the run that `out` holds.
        resume: Resume the run that `out` holds, by default the newest one of the recipe, from
            its last state: the result is that of a run without a pause, bit for bit. Without such a
            run a new one begins; a finished one is returned as it is. `overrides` may change
            `data.batch_size` of an interrupted run, whose phase begins again, lengthen the last
            phase of a finished one, and change what the training does not depend on.
        versus: With "scratch" the same network is trained from random weights beside the run, in
            place of the recipe's baseline, as by the override `baseline=scratch`.
        root: Folder of all runs.
        threads: Size of TensorFlow's thread pools; if it has started already, a warning says that
            they stay as they are.
        devices: All GPUs by `"all"`, a number of them, or the places of some, as `[0, 1]`: each
            step's batch is split over them, and the result is that of one device but for the last
            digits. Where TensorFlow sees no GPU, its logical CPUs are meant. By default one device
            is used.
        hosts: Addresses, `HOST:PORT`, of the processes that train it, the same list in each; by
            default those of TF_CONFIG, if it names several. They share each batch on all of their
            GPUs, or on `devices` of each. The first one writes the run.
        host_index: The place of this process in `hosts`.
        host_wait: Seconds that each of `hosts` waits for the others before they train: until they
            come, and again until TensorFlow has connected them; 300 by default.
        callbacks: Keras callbacks; each phase calls their hooks as a `fit` of its own on the whole
            model would: `on_train_begin` and epoch 0 come again in each phase.
        progress: True prints to stderr what the command line prints, and in a notebook to stdout, a
            line for each epoch; a function receives each `Event`. By default warnings alone go to
            the logger `tl_toolkit`.

    Returns:
        The finished run, with its metrics, history and model; it predicts, evaluates and exports.
        On another host than the first it has the path of that host's folder, and can do so if that
        is shared.

    Raises:
        ToolkitError: A child of it for whatever a user can correct: recipe, data, weights, output.
        HostError: Another host did not come, is gone, or trains something else.
        TypeError: A callback is no instance of `keras.callbacks.Callback`; before anything is done.
    """
    _check_callbacks(callbacks)
    choice = parse_devices(devices)
    group = parse_hosts(hosts, host_index, os.environ, wait_seconds=host_wait)
    if start is not None:
        overrides = add_start(overrides, start, root=Path(root))
    if versus is not None:
        overrides = add_override(overrides, "baseline", versus)
    with contextlib.ExitStack() as stack:
        loaded = stack.enter_context(
            reading_recipe(recipe, overrides, base=base, replaced=out, threads=threads)
        )
        if overwrite and (resume or out is None):
            hint = "--out DIR --overwrite"
            raise RecipeError(Problem("--overwrite", "goes with --out", "", hint))
        plan = check_recipe(loaded)
        refuse_replaced_runs(plan, out)
        refuse_dtype_policy()
        handle = stack.enter_context(handling(progress))
        place, joined, first = Path(out) if out else None, None, None
        if group is not None:
            joined = stack.enter_context(joining(group, choice, plan, threads=threads))
            if not joined.is_first:
                first, place = joined.receive()
                resume, overwrite, root = first.is_resumed, False, joined.scratch
                if first.is_done:
                    return Run(RunFolder(Path(first.path)))
        sharing = joined.devices if joined else _find_devices(choice, plan, threads)
        name, resumed = loaded.recipe.name, None
        if resume and (before := find_resumed(name, Path(root), place)) is not None:
            plan, resumed = resume_plan(plan, before)
            if resumed.is_done and resumed.longer is None:
                handle(Event("run_began", facts={"folder": before.path, "task": plan.recipe.task}))
                handle(message(f"{before.path} is finished: there is nothing to train"))
                if joined is not None:
                    joined.send(before, is_resumed=True, is_done=True)
                return Run(before)
            folder = stack.enter_context(resume_run(before))
        else:
            folder = stack.enter_context(
                create_run(name, root=Path(root), out=place, overwrite=overwrite)
            )
        if joined is not None:
            if joined.is_first:
                joined.send(folder, is_resumed=resumed is not None)
            stack.enter_context(joined.naming_lost_hosts())
            handle = joined.noticing(handle)
        stack.enter_context(naming_what_is_kept(folder, progress, handle))
        handle(Event("run_began", facts={"folder": folder.path, "task": plan.recipe.task}))
        plan = keep_base(plan, folder)
        with numerics(deterministic=loaded.recipe.deterministic, threads=threads):
            _announce(plan, threads, handle)
            run = _Finetuning(plan, folder, handle, callbacks, resumed, sharing, joined).run()
        if joined is not None:
            joined.meeting.finish()
        if first is not None:
            return Run(RunFolder(Path(first.path)))
        if reason := point_latest(folder, root=Path(root), name=name):
            handle(warning(reason))
    folder.remove_side_states()  # now that it is done, nothing goes on from them
    return run


def _announce(plan: Plan, threads: int | None, handle: Handler) -> None:
    """Says what is known of a run before it begins."""
    if text := describe_threads(threads):
        handle(warning(text))
    if plan.ignored:
        handle(message(plan.ignored))
    if plan.start:
        handle(message(f"start: {plan.start.describe()}"))
    for text in plan.warnings:
        handle(warning(text))


def _find_devices(choice: DeviceChoice | None, plan: Plan, threads: int | None) -> Devices | None:
    """Returns the devices of a run, before it has a folder; None for the one of TensorFlow."""
    if choice is None:
        return None
    start_tensorflow(threads=threads)
    from tl_toolkit.training.devices import find_devices, refuse_small_batch

    devices = find_devices(choice)
    refuse_small_batch(devices, training_settings(plan).batch_size)
    return devices


def _check_callbacks(callbacks: object) -> None:
    keras = sys.modules.get("keras")  # not imported here: `start_tensorflow` settles it first
    kinds = (keras.callbacks.Callback,) if keras else ()
    for callback in callbacks if isinstance(callbacks, list | tuple) else [callbacks]:
        if callback is callbacks or not isinstance(callback, kinds):
            raise TypeError(
                "callbacks: expected a list of instances of keras.callbacks.Callback, as "
                f"[keras.callbacks.TerminateOnNaN()], got {callback!r}"
            )


class _Finetuning:
    """The steps of `finetune` after the folder is made, in order."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        progress: Handler,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        resumed: Resumed | None = None,
        devices: Devices | None = None,
        joined: Together | None = None,
    ) -> None:
        self.plan = plan
        self.recipe = plan.recipe
        self._resumed = resumed
        self._devices = devices
        self._joined = joined
        self._writes = joined is None or joined.is_first
        self._settings = training_settings(plan)
        self._callbacks = callbacks
        self.folder = folder
        self._handle = progress
        self._doubts: dict[str, Any] | None = None
        self.seconds: dict[str, float] = {}
        self.measured: dict[str, float] = {}  # seconds of an image by precision
        self._clock = time.perf_counter()

    def progress(self, event: Event) -> None:
        """Passes an event on, and keeps the run's status up to date."""
        if event.kind == "epoch_ended":
            phase, epoch = event.facts["phase"], event.facts["epoch"]
            self.folder.write_status("running", phase=phase, epoch=epoch)
        self._handle(event)

    def run(self) -> Run:
        from tl_toolkit.evaluation.costs import measure_cost
        from tl_toolkit.features.settings import FeatureSettings
        from tl_toolkit.tasks.registry import build_task
        from tl_toolkit.training.prepare import build_trainer

        if self.plan.reasons:
            self._handle(message("head and phases are chosen by a preset: recipe.yaml says why"))
        if self._resumed is None:
            self._write_recipe()
        task = build_task(self.recipe, self.plan.classes)
        manifest, images, compiled = self._prepare(task)
        transfer = compiled.transfer
        paused = self._note(transfer, manifest)
        self._lap("prepare")
        features = FeatureSettings.from_values(feature_values(self.recipe))
        if self._joined is not None:
            features = replace(features, shares=len(self._joined.meeting.hosts.addresses))
        trainer = build_trainer(compiled, features, images, progress=self.progress)
        folds = self._cross_validate(trainer, task, images)
        training = self._train(trainer, transfer, folds, paused)
        self._lap("train")
        if not self._writes:
            return Run(self.folder, transfer.model)
        measured = self._evaluate(trainer, task, images, training, folds)
        metrics: dict[str, Any] = {
            "best": training.best.as_row(),
            "weights_sha256": training.weights_sha256,
            **measured.metrics,
        }
        metrics["leaks"] = manifest.describe_leaks()
        if self._doubts is not None:
            metrics["training_labels"] = self._doubts
        metrics["cost"] = measure_cost(transfer.model)
        if self.measured:
            metrics["seconds_by_precision"] = self.measured
        self._lap("evaluate", metrics)
        run = Run(self.folder, transfer.model)  # saves reading it back from model.keras
        exported = {}
        if self.recipe.export:
            exported = run.export(self.recipe.export.formats, progress=self.progress)
            self._lap("export", metrics)
        if self.recipe.baseline:  # last: whatever becomes of it, the run itself is done
            if (baseline := self._train_baseline(images, measured)) is not None:
                metrics["baseline"] = baseline
            self._lap("baseline", metrics)
        facts: dict[str, Any] = {"metrics": metrics, "exported": exported}
        if self.recipe.report:
            facts["report"] = self._write_report(run)
            self._lap("report", metrics)
        self.progress(Event("run_ended", facts=facts))
        return run

    def _write_report(self, run: Run) -> Path | None:
        """Writes the report; None, and a warning, if it fails: the run itself is done."""
        from tl_toolkit.api.report import build_report
        from tl_toolkit.reports.page import write_report

        is_long = sum(self.seconds.values()) >= _SECONDS_OF_PICTURES
        try:
            report = build_report(run, predicts=is_long)
            page = write_report(self.folder.report, report)
        except Exception as error:  # of a section too: a trained model outweighs its report
            self.folder.append_log(traceback.format_exc())
            text = f"the report failed, the run itself is done: {type(error).__name__}: {error}"
            self.progress(warning(f"{text}; tltool report {name_run(self.folder.path)}"))
            return None
        if report.warning:
            self.progress(warning(report.warning))
        return page

    def _prepare(self, task: Task) -> tuple[Manifest, dict[str, Images], CompiledPhases]:
        """Inspects the images and builds the model, side by side where it can be.

        Building and tracing keep Python busy, decoding does not. Only a model of bands waits for
        their statistics.
        """
        from tl_toolkit.training.aside import Aside
        from tl_toolkit.training.bands import settle_bands
        from tl_toolkit.training.prepare import survey_images, write_manifest

        started: list[Aside[CompiledPhases]] = []

        def start() -> None:
            started.append(Aside(lambda report: self._compile(task, report), self.progress))

        if not self.plan.needs_bands:
            start()
        try:
            manifest, images = survey_images(self.plan, task, self.folder, self.progress)
            self._check_resumed({"data_sha256": manifest.digest})
            write_manifest(manifest, self.folder)
            if not started:
                examples = manifest.of("train")
                self.plan = settle_bands(self.plan, examples, self.progress, self.folder)
                start()
            return manifest, images, self._settle_precision(started[0].wait())
        except BaseException:  # interrupts too
            for model in started:
                model.abandon()
            raise

    def _lap(self, name: str, metrics: Mapping[str, Any] | None = None) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._clock, 3)
        self._clock = now
        if metrics is not None:
            write_json(self.folder.metrics, {**metrics, "seconds": self.seconds})

    def _compile(self, task: Task, report: Handler) -> CompiledPhases:
        from tl_toolkit.training.compiled import CompiledPhases
        from tl_toolkit.training.prepare import assemble_model

        transfer = assemble_model(self.plan, task, report)
        if self.recipe.precision == "auto":  # measured when the images no longer keep it busy
            return CompiledPhases(transfer, devices=self._devices)
        compiled = CompiledPhases(transfer, self.recipe.precision, devices=self._devices)
        compiled.trace(self._settings)
        return compiled

    def _settle_precision(self, compiled: CompiledPhases) -> CompiledPhases:
        """Returns the steps in the precision that is chosen, if that is left to be measured."""
        if self.recipe.precision != "auto":
            return compiled
        from tl_toolkit.training.compiled import CompiledPhases
        from tl_toolkit.training.prepare import measure_precision

        precision, reason, self.measured = measure_precision(self.plan, compiled.transfer)
        self._handle(message(reason))
        self.recipe = self.recipe.model_copy(update={"precision": precision})
        self.plan = replace(
            self.plan, recipe=self.recipe, reasons=(*self.plan.reasons, f"auto: {reason}")
        )
        self._write_recipe()
        return CompiledPhases(compiled.transfer, precision, devices=self._devices)

    def _write_recipe(self) -> None:
        write_atomically(self.folder.recipe, dump_recipe(self.recipe, self.plan.reasons))

    def _note(self, transfer: TransferModel, manifest: Manifest) -> Paused | None:
        """Writes the lock, and reports what each phase will train.

        Returns the state that a resumed run goes on from; a run that may not go on stays as it was.
        """
        from tl_toolkit.training.lock import describe_lock
        from tl_toolkit.training.loop import plan_phases

        count = self._devices.count if self._devices else 1
        lock = describe_lock(self.plan, transfer, manifest, devices=count)
        self._check_resumed(lock)
        if self._joined is not None:
            self._joined.check_equal(self.plan, lock)
        paused = self._read_state(len(manifest.of("train")))
        self.folder.write_status("running")
        if self._resumed is not None:
            lock |= self._resumed.describe_batches()
            self._write_recipe()
        write_json(self.folder.lock, lock)
        phases = plan_phases(transfer, self._settings.phases)
        self.progress(Event("planned", facts={"phases": phases}))
        return paused

    def _check_resumed(self, lock: Mapping[str, Any]) -> None:
        """Refuses to resume a run whose lock says something else."""
        if self._resumed is not None and self.folder.lock.is_file():
            before = self.folder.read_json(self.folder.lock)
            if text := check_lock(before, before | lock, self.folder):
                self._handle(warning(text))

    def _read_state(self, images: int) -> Paused | None:
        """Returns the state that a resumed run goes on from, and says what it is."""
        if self._resumed is None:
            return None
        paused, texts = read_state(self.plan, self._resumed, images)
        for text in texts:
            self._handle(message(text))
        return paused

    def _cross_validate(
        self, trainer: Trainer, task: Task, images: Mapping[str, Images]
    ) -> CrossValidation | None:
        """Trains and measures the folds, if there are any; they choose the epoch of the run."""
        if self.recipe.data.folds is None:
            return None
        from tl_toolkit.evaluation.folds import cross_validate

        kept, settings = None, self._settings
        if self.recipe.checkpoint:
            from tl_toolkit.training.resume import StateSettings

            kept = StateSettings(self.recipe.checkpoint.every, settings.batch_size)
        folds = cross_validate(
            self.plan, trainer, task, images["train"], settings, self.folder, kept
        )
        self._lap("folds")
        self._handle(message("training on all images, its epochs chosen by the mean of the folds"))
        return folds

    def _train(
        self,
        trainer: Trainer,
        transfer: TransferModel,
        folds: CrossValidation | None,
        paused: Paused | None,
    ) -> Training:
        judged = folds.trainings.judge(self._settings) if folds else None
        checkpoints = None
        if self.recipe.checkpoint and self._writes:
            from tl_toolkit.training.resume import Checkpoints

            checkpoints = Checkpoints(
                self.folder.states,
                every=self.recipe.checkpoint.every,
                batch_size=self._settings.batch_size,
            )
        try:
            training = trainer.train(
                self._settings, self.folder, callbacks=self._callbacks, paused=paused,
                checkpoints=checkpoints, judged=judged,
            )  # fmt: skip
        except BaseException:  # of a callback or handler too
            if self.folder.checkpoint.is_file():  # there was a best state, and it is restored
                with contextlib.suppress(OSError, OutputError):  # else a full disk hides the reason
                    self._save(transfer)
            raise
        self._save(transfer)
        return training

    def _save(self, transfer: TransferModel) -> None:
        from tl_toolkit.training.prepare import save_model

        save_model(transfer, self.folder)

    def _evaluate(
        self,
        trainer: Trainer,
        task: Task,
        images: Mapping[str, Images],
        training: Training,
        folds: CrossValidation | None,
    ) -> Measured:
        from tl_toolkit.evaluation.splits import evaluate_trained, write_predictions

        measured = evaluate_trained(trainer, task, images)
        if folds:
            from tl_toolkit.evaluation.folds import join_measured

            measured = join_measured(folds, measured)
        write_predictions(self.folder.predictions, measured.predictions)
        if state := task.state():
            write_json(self.folder.task_state, state)
        epochs = sum(epoch.epoch > 0 for epoch in training.history)
        self._add_yardsticks(measured, trainer, task, images, epochs)
        return measured

    def _add_yardsticks(
        self, measured: Measured, trainer: Trainer, task: Task, images: Mapping[str, Images],
        epochs: int,
    ) -> None:  # fmt: skip
        """Adds simple predictors on the untrained base's features, where these cost little."""
        from tl_toolkit.evaluation.yardsticks import MOST_IMAGES, SHARE, add_yardsticks

        is_asked = self.recipe.yardsticks and task.has_yardsticks and "validation" in images
        if not is_asked or not 1 < len(images["train"]) <= MOST_IMAGES:
            return
        read = epochs * (len(images["train"]) + len(images["validation"]))
        vectors = trainer.read_untrained(most_images=int(SHARE * read))
        if vectors is not None:
            from tl_toolkit.evaluation.doubts import find_training_doubts

            add_yardsticks(measured, vectors, task, images)
            self._doubts = find_training_doubts(vectors["train"], images["train"], task.classes)

    def _train_baseline(
        self, images: Mapping[str, Images], measured: Measured
    ) -> dict[str, Any] | None:
        """Trains the baseline; None, and a warning, if it fails: the run itself is done."""
        from tl_toolkit.evaluation.baselines import train_baseline

        self.progress(message("training the baseline beside it"))
        try:
            return train_baseline(
                self.plan,
                images,
                self.folder,
                run=measured,
                progress=self.progress,
                devices=None if self._joined else self._devices,  # the others do not train it
            )
        except ToolkitError as error:
            self.progress(warning(f"the baseline failed, the run itself is done: {error}"))
            return None
