"""The verb `search`: from a recipe to the best recipe of its kind."""

from __future__ import annotations

import contextlib
import statistics
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.base import keep_base, reading_recipe
from tl_toolkit.api.progress import handling, log_warnings, naming_what_is_kept
from tl_toolkit.api.run import Run
from tl_toolkit.api.start import refuse_replaced_runs
from tl_toolkit.cluster.tasks import Cluster, Resources, open_cluster
from tl_toolkit.errors import Problem, RecipeError, SearchError
from tl_toolkit.events import Event, Handler, ignore, message, warning
from tl_toolkit.plan.check import check_recipe, plan_trial
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.preset import replace_reasons
from tl_toolkit.plan.space import count_trials, resolve_space, trial_recipe
from tl_toolkit.recipe.load import (
    LoadedRecipe,
    RecipeSource,
    build_recipe,
    dump_recipe,
    load_recipe,
)
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.recipe.search_schema import Search
from tl_toolkit.runs.files import write_atomically, write_json
from tl_toolkit.runs.folder import InFolder, RunFolder
from tl_toolkit.runs.places import create_run, list_numbered, point_latest, resume_run
from tl_toolkit.runs.states import describe_absent, find_state
from tl_toolkit.runtime import (
    describe_threads,
    importing_without,
    numerics,
    refuse_dtype_policy,
    start_tensorflow,
)
from tl_toolkit.tuning.budget import SearchBudget, TimeIsUp

if TYPE_CHECKING:
    import keras
    import keras_tuner

    from tl_toolkit.images.manifest import Manifest
    from tl_toolkit.images.pipeline import Images
    from tl_toolkit.tasks.base import Task
    from tl_toolkit.tuning.engine import Engine
    from tl_toolkit.tuning.jobs import Executor
    from tl_toolkit.tuning.journal import Trial
    from tl_toolkit.tuning.trainers import FirstModel


_TABLE_SECONDS = 0.5
"""Trials that end within so many seconds of the last are in the table a moment later."""


class SearchRun(InFolder):
    """A search: its folder, its trials and its winner.

    Args:
        folder: The search's folder.
    """

    @cached_property
    def trials(self) -> list[Trial]:
        """All trials in order, failed ones too."""
        from tl_toolkit.tuning.journal import Journal

        return Journal(self.folder).read()

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json holds: the winner, its values, score and repeats, and counts."""
        if not self.folder.summary.is_file():
            raise describe_absent(self.folder, self.folder.summary)
        summary: dict[str, Any] = self.folder.read_json(self.folder.summary)
        return summary

    @property
    def best_recipe(self) -> Path:
        """The winner as a recipe, for `finetune`."""
        return self.folder.best_recipe

    @property
    def soup(self) -> Run:
        """The mean of the best trials' weights, as a run; a RecipeError without `search.soup`."""
        place = RunFolder(self.folder.soup)
        if not place.model.is_file():
            raise describe_absent(self.folder, place.model)
        return Run(place)


def search(
    recipe: RecipeSource,
    *,
    overrides: Overrides = (),
    base: keras.Model | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    root: str | Path = "runs",
    threads: int | None = None,
    ray: str | None = None,
    workers: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: Handler | bool = False,
) -> SearchRun:
    """Trains a recipe with other values of some fields, trial after trial, and keeps the best.

    On a cluster several trials run at a time; they are the same trials, and their scores are those
    of one process with as many threads as `search.resources.cpus`.

    Args:
        recipe: As in `finetune`; its `search` section names the fields and values.
        overrides: Fields to replace, as for `finetune`.
        base: As in `finetune`.
        out: Folder of the search; by default the next number under `root`/<recipe name>-search.
        resume: Resume the search that `out` holds, by default the newest one of the recipe that
            has not ended, or the newest one if all have. It runs what `search.trials` asks for
            beyond the trials that are done.
        overwrite: Replace the search that `out` holds.
        root: Folder of all runs.
        threads: Size of TensorFlow's thread pools; if it has started already, a warning says that
            they stay as they are. A trial on a cluster has `search.resources.cpus`.
        ray: Train trials on a cluster of Ray: `local` starts one on this machine for the call,
            `auto` or the address of a head connects to one whose nodes share `out`, the images and
            the feature store.
        workers: How many trials run at a time; by default as many as the cluster has room for.
        callbacks: Refused: trials share phases that are trained once, and are paused and resumed,
            so that hooks would miss epochs. `finetune` and the tuners of `hypermodel` take them.
        progress: As in `finetune`.

    Returns:
        The search; `finetune(run.best_recipe)` gives the winner's score and weights again.

    Raises:
        RecipeError: There are callbacks, or no cluster answers, or it has no room for a trial.
        SearchError: No trial was completed.
        ToolkitError: A child of it for whatever else a user can correct: recipe, data, weights,
            output.
    """
    refuse_callbacks(callbacks, "search")
    with contextlib.ExitStack() as stack:
        loaded = stack.enter_context(
            reading_recipe(recipe, overrides, base=base, replaced=out, threads=threads)
        )
        plan = check_recipe(_with_search(loaded))
        if loaded.recipe.search is None:  # a default search, which only the check needed
            plan = replace(plan_trial(plan, {}), reasons=plan.reasons)
        refuse_replaced_runs(plan, out)
        handle = stack.enter_context(handling(progress))
        cluster = stack.enter_context(open_workers(plan.recipe, ray, workers, handle))
        folder = stack.enter_context(
            open_search(plan.recipe.name, Path(root), out, resume=resume, overwrite=overwrite)
        )
        stack.enter_context(naming_what_is_kept(folder, progress, handle))
        return Searching(keep_base(plan, folder), folder, handle, cluster=cluster).run(threads)


def hypermodel(
    recipe: RecipeSource,
    *,
    overrides: Overrides = (),
    base: keras.Model | None = None,
) -> keras_tuner.HyperModel:
    """Returns a recipe as a KerasTuner hypermodel, for tuners of KerasTuner's own.

    Its `build` declares the recipe's space and builds the model of the chosen values; its `fit`
    trains all phases on the recipe's images and returns the metrics of the epoch that is kept, so
    that a tuner's objective may be `val_accuracy` or `val_loss`. Give `search` no data.

    Args:
        recipe: As in `search`.
        overrides: As in `search`.
        base: As in `search`.

    Raises:
        ToolkitError: As `search` does before its first trial, and for `data.folds` and
            `precision: auto`.
    """
    with contextlib.ExitStack() as stack:
        loaded = stack.enter_context(reading_recipe(recipe, overrides, base=base))
        plan = check_recipe(_with_search(loaded))
        if plan.recipe.data.folds is not None:
            what = f"data.folds = {plan.recipe.data.folds}: a hypermodel has one model for a trial"
            expected = "expected none: tl.search trains a model for each fold."
            raise RecipeError(Problem("tl.hypermodel", what, expected, "~data.folds"))
        if plan.recipe.precision == "auto":
            what = "precision = 'auto': measured once, for all trials of a search"
            expected = "expected float32 or bfloat16: a tuner builds each model alone."
            raise RecipeError(Problem("tl.hypermodel", what, expected, "precision: bfloat16"))
        refuse_dtype_policy()
        start_tensorflow()
        from tl_toolkit.tuning.hypermodel import RecipeHyperModel

        model = RecipeHyperModel(plan, progress=log_warnings)
        weakref.finalize(model, stack.pop_all().close)  # it loads the base for each trial
        return model


def _with_search(loaded: LoadedRecipe) -> LoadedRecipe:
    """Returns the recipe with a search, so that the default space is checked too."""
    if loaded.recipe.search is not None:
        return loaded
    return build_recipe(loaded.recipe, {"search": {}})


def refuse_callbacks(callbacks: Sequence[object], verb: str) -> None:
    """Refuses Keras callbacks, with the verbs that take them.

    Args:
        callbacks: What was given.
        verb: The verb that it was given to.

    Raises:
        RecipeError: There are some.
    """
    if callbacks:
        raise RecipeError(
            Problem(
                f"tl.{verb}",
                "callbacks are given",
                "Trials share phases that are trained once, and are paused and resumed: hooks "
                "would miss epochs.",
                "tl.finetune(run.best_recipe, callbacks=[...]), or tl.hypermodel with a tuner of "
                "KerasTuner's own, which calls them",
            )
        )


@contextlib.contextmanager
def open_search(
    name: str,
    root: Path,
    out: str | Path | None,
    *,
    resume: bool,
    overwrite: bool,
    kind: str = "search",
) -> Iterator[RunFolder]:
    """Creates the folder of a search and its like, or opens the folder of an interrupted one.

    When it is done, `latest` of its name means it; a file system without links has none.

    Args:
        name: The recipe's: with the kind it is that of the folder.
        root: As in `search`.
        out: As in `search`.
        resume: As in `search`.
        overwrite: As in `search`.
        kind: search, sweep, curve or auto.

    Yields:
        The folder.

    Raises:
        RecipeError: Options do not go together, or there is nothing to resume.
        OutputError: The folder is used, or cannot be written.
    """
    refuse_dtype_policy()
    name = f"{name}-{kind}"
    with _open(name, root, out, resume=resume, overwrite=overwrite, kind=kind) as folder:
        yield folder
    point_latest(folder, root=root, name=name)


def _open(
    name: str, root: Path, out: str | Path | None, *, resume: bool, overwrite: bool, kind: str
) -> AbstractContextManager[RunFolder]:
    if overwrite and (resume or out is None):
        raise RecipeError(Problem("--overwrite", "goes with --out", "", "--out DIR --overwrite"))
    if not resume:
        place = Path(out) if out else None
        return create_run(name, root=root, out=place, overwrite=overwrite, kind=kind)
    path = Path(out) if out else _choose_resumed(root / name, kind)
    folder = RunFolder(path.resolve())
    if not _has_begun(folder, kind):
        raise RecipeError(
            Problem(
                where="--resume",
                what=f"{path} holds no {kind}",
                expected=f"A {kind} resumes in the folder where it began.",
                hint="--resume --out DIR, or the same command without --resume",
            )
        )
    return resume_run(folder)


def _choose_resumed(family: Path, kind: str) -> Path:
    """Returns the newest folder of one name that was interrupted or killed, or else the newest."""
    numbered = list_numbered(family)
    for path in reversed(numbered):
        folder = RunFolder(path)
        if _has_begun(folder, kind) and find_state(folder) not in ("done", "running"):
            return path
    return numbered[-1] if numbered else family


def _has_begun(folder: RunFolder, kind: str) -> bool:
    return {"curve": folder.curve, "auto": folder.auto}.get(kind, folder.search).is_file()


def open_workers(
    recipe: Recipe, ray: str | None, workers: int | None, progress: Handler
) -> AbstractContextManager[Cluster | None]:
    """Opens the cluster that a search asks for.

    Args:
        recipe: Says what a trial takes.
        ray: As in `search`.
        workers: As in `search`.
        progress: Receives a warning when no node is left.

    Raises:
        RecipeError: No cluster answers, it has no room for a trial, or there are workers without
            one.
    """
    if ray is None:
        if workers is not None:
            what = "goes with a cluster"
            raise RecipeError(Problem("--workers", what, "", "--ray local --workers 2"))
        return contextlib.nullcontext()
    section = (recipe.search or Search()).resources
    resources = Resources(section.cpus, section.gpus, section.memory_gb)
    return open_cluster(ray, workers=workers, resources=resources, progress=progress)


class Searching:
    """The steps of a search once its folder exists, in order.

    Args:
        plan: Plan of a recipe with a `search` section.
        folder: The folder, new or of the search that is resumed.
        progress: Receives the events.
        budget: Decides which trials still fit; by default all do.
        cluster: Trains the trials; None for this process.
    """

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        progress: Handler,
        *,
        budget: SearchBudget | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self._budget = budget
        self.plan = plan
        self._cluster = cluster
        self.recipe = plan.recipe
        self.folder = folder
        self.progress = progress
        self._leaks: list[dict[str, str]] = []
        self._images: tuple[Manifest, Mapping[str, Images]] | None = None
        self._first: FirstModel | None = None

    def run(self, threads: int | None) -> SearchRun:
        """Runs the remaining trials, and writes the winner.

        Args:
            threads: As in `search`.

        Raises:
            SearchError: No trial was completed.
        """
        self.progress(
            Event("run_began", facts={"folder": self.folder.path, "task": self.recipe.task})
        )
        for text in self.plan.warnings:
            self.progress(warning(text))
        with numerics(deterministic=self.recipe.deterministic, threads=threads):
            if text := describe_threads(threads):
                self.progress(warning(text))
            try:
                self._search()
            finally:  # no trial may have needed it, or an interrupt ended the wait for it
                if self._first is not None:
                    self._first.abandon()
        return SearchRun(self.folder)

    def _begin(self) -> tuple[Engine, list[Trial]]:
        """Returns the engine, and the trials that are done; a refused resume changes nothing."""
        from tl_toolkit.tasks.registry import build_task
        from tl_toolkit.training.bands import settle_bands
        from tl_toolkit.training.prepare import survey_images, write_manifest

        _import_tuner(self.recipe)
        from tl_toolkit.tuning.engine import Engine
        from tl_toolkit.tuning.trainers import FirstModel

        task = build_task(self.recipe, self.plan.classes)
        is_open = self.recipe.precision == "auto"
        if is_open and not self.plan.needs_bands:
            self._choose_precision(task)
        # Building keeps Python busy, decoding does not.
        if self._cluster is None:
            self._first = FirstModel.of(self.plan, self.progress)
        with _undoing_additions(self.folder.converted):
            manifest, images = survey_images(self.plan, task, self.folder, self.progress)
            self.plan = settle_bands(self.plan, manifest.of("train"), self.progress)
            if is_open and self.plan.needs_bands:
                self._choose_precision(task)
            watch = self._budget.watch if self._budget else ignore
            engine = Engine(
                self.plan, manifest, self.folder, self.progress, images=images, watch=watch,
                executor=self._build_executor(manifest), first=self._first,
            )  # fmt: skip
            trials = engine.begin()
        self._leaks = manifest.describe_leaks()
        self._images = manifest, images
        self.folder.write_status("running")
        write_manifest(manifest, self.folder)
        write_atomically(self.folder.recipe, dump_recipe(self.recipe, self.plan.reasons))
        return engine, trials

    def _build_executor(self, manifest: Manifest) -> Executor | None:
        """Returns what trains trials on the cluster; None without one."""
        if self._cluster is None:
            return None
        from tl_toolkit.tuning.cluster_executor import ClusterExecutor, SearchContext

        search = self.recipe.search or Search()
        space = resolve_space(self.recipe)
        context = SearchContext.of(self.plan, search, space, self.folder, manifest)
        return ClusterExecutor(self._cluster, context)

    def _choose_precision(self, task: Task) -> None:
        """Chooses the precision of all trials; a resumed search keeps its own."""
        from tl_toolkit.training.prepare import assemble_model, measure_precision

        if self.folder.recipe.is_file():
            precision: str = load_recipe(self.folder.recipe).recipe.precision
        else:
            transfer = assemble_model(self.plan, task, self.progress)
            precision, reason, _ = measure_precision(self.plan, transfer)
            self.progress(message(reason))
        self.recipe = self.recipe.model_copy(update={"precision": precision})
        self.plan = replace(self.plan, recipe=self.recipe)

    def _search(self) -> None:
        engine, trials = self._begin()
        best: Trial | None = None
        for trial in trials:
            best = trial if engine.is_better(trial, best) else best
        if trials:
            self.progress(message(self._describe_resumed(len(trials))))
            self._write_table(engine, trials)  # its last row may be missing
            if self._is_open(len(trials)):
                self.folder.remove_report()  # of the trials before
        written = 0.0
        try:
            for trial in self._list_fitting(engine, trials):
                trials.append(trial)
                is_best = engine.is_better(trial, best)
                best = trial if is_best else best
                # Of many short trials, the whole table for each would take longer than they do.
                if time.monotonic() - written > _TABLE_SECONDS:
                    self._write_table(engine, trials)
                    self.folder.write_status("running", trial=trial.number)
                    written = time.monotonic()
                self.progress(Event("trial_ended", facts=asdict(trial), is_best=is_best))
        finally:
            if trials:
                self._write_table(engine, trials)
        if best is None:
            raise SearchError(
                Problem(
                    where=str(self.folder.trials_table),
                    what=f"none of {len(trials)} trials was completed",
                    expected=next((trial.error for trial in reversed(trials) if trial.error), "")
                    or "The space holds no value.",
                    hint="tltool finetune with the values of a trial, to see it alone",
                )
            )
        self._write_best(engine, trials, best)

    def _is_open(self, done: int) -> bool:
        """Returns whether trials are left to run, as far as their number is known."""
        total = count_trials(self.recipe)
        return total is None or done < total

    def _describe_resumed(self, done: int) -> str:
        """Returns how many trials are done, and how many there will be."""
        total = count_trials(self.recipe)
        are_done = "1 trial that is done" if done == 1 else f"{done} trials that are done"
        if total is None:
            return f"resuming after {are_done}"
        if not self._is_open(done):
            return f"resuming after {are_done}: none is left to run"
        most = "at most " if self._budget else ""
        return f"resuming after {are_done}, of {most}{total}"

    def _list_fitting(self, engine: Engine, trials: Sequence[Trial]) -> Iterator[Trial]:
        """Yields the new trials, for as long as the next one fits the budget."""
        if self._budget is None:
            yield from engine.run(list(trials))
            return
        new = engine.run(list(trials))
        with contextlib.closing(engine), contextlib.suppress(TimeIsUp):
            while self._budget.fits(trials) and (trial := next(new, None)) is not None:
                yield trial

    def _write_table(self, engine: Engine, trials: Sequence[Trial]) -> None:
        from tl_toolkit.tuning.report import write_trials

        write_trials(self.folder.trials_table, trials, list(engine.space))

    def _write_best(self, engine: Engine, trials: Sequence[Trial], best: Trial) -> None:
        from tl_toolkit.tuning.report import plot_fields, plot_time, write_hparams

        winner = trial_recipe(self.recipe, best.values, seed=best.seed)
        objective = engine.search.objective
        why = f"of trial {best.number}, the best of {len(trials)} by {objective.name}"
        reasons = replace_reasons(self.plan.reasons, best.values, word="search", why=why)
        write_atomically(self.folder.best_recipe, dump_recipe(winner, reasons))
        scores = [repeat.score for repeat in engine.refit(best)]
        summary = {
            "best": asdict(best),
            "trials": len(trials),
            "failed": sum(trial.score is None for trial in trials),
            "paused": sum(trial.state == "paused" for trial in trials),
            "objective": objective.name,
            "refit": _summarize_refit(scores, engine.recipe.seed) if scores else None,
            **self._make_soup(engine, trials),
            "seconds": max(trial.elapsed for trial in trials),
            "leaks": self._leaks,
            "best_recipe": str(self.folder.best_recipe),
        }
        write_json(self.folder.summary, summary)
        fields = list(engine.space)
        plot_fields(self.folder.fields_plot, trials, engine.space, objective.name, best)
        plot_time(
            self.folder.time_plot, trials, objective.name, is_max=objective.is_max
        )  # fmt: skip
        write_hparams(self.folder.tensorboard, trials, fields, objective.name)
        self.progress(Event("search_ended", facts=summary))

    def _make_soup(self, engine: Engine, trials: Sequence[Trial]) -> dict[str, Any]:
        """Returns what is said of the soup in the summary; nothing without `search.soup`."""
        if not engine.search.soup or self._images is None:
            return {}
        from tl_toolkit.api.soup import make_soup

        manifest, images = self._images
        return {"soup": make_soup(engine, trials, self.folder, manifest=manifest, images=images)}


def _import_tuner(recipe: Recipe) -> None:
    """Imports KerasTuner; only its Gaussian process needs what takes most of the time."""
    algorithm = (recipe.search or Search()).algorithm
    with importing_without(*() if algorithm == "bayesian" else ("sklearn", "scipy", "pandas")):
        import keras_tuner  # noqa: F401


@contextlib.contextmanager
def _undoing_additions(folder: Path) -> Iterator[None]:
    """Deletes the files that a block adds to a folder if it fails."""
    is_new = not folder.is_dir()
    before = set() if is_new else set(folder.iterdir())
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for path in set(folder.iterdir()) - before:
                path.unlink()
            if is_new:
                folder.rmdir()
        raise


def _summarize_refit(scores: Sequence[float | None], seed: int) -> dict[str, Any]:
    done = [score for score in scores if score is not None]
    return {
        "seeds": [seed + count for count in range(1, len(scores) + 1)],
        "scores": list(scores),
        "mean": statistics.fmean(done) if done else None,
        "min": min(done, default=None),
        "max": max(done, default=None),
    }
