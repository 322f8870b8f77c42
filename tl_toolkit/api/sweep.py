"""The verb `sweep`: a search over the depths of unfreezing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.base import keep_base, reading_recipe
from tl_toolkit.api.progress import handling, naming_what_is_kept
from tl_toolkit.api.search import Searching, SearchRun, open_search, refuse_callbacks
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.events import Handler
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.check_search import add_phase
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.space import find_depths
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import RecipeSource, build_recipe
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.recipe.schema import Recipe

if TYPE_CHECKING:
    import keras


def sweep(
    recipe: RecipeSource,
    *,
    overrides: Overrides = (),
    base: keras.Model | None = None,
    phase: str | None = None,
    units: bool = False,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    root: str | Path = "runs",
    threads: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: Handler | bool = False,
) -> SearchRun:
    """Trains a recipe with each depth of unfreezing, from the head alone to the whole base.

    Writes sweep.csv and sweep.svg beside what a search writes: accuracy and cost of each depth.

    Args:
        recipe: As in `search`; only objective and refit of its `search` section are used.
        overrides: As in `search`.
        base: As in `search`.
        phase: Name of the phase whose `unfreeze` is swept; by default the last phase.
        units: Go through units instead of blocks.
        out: As in `search`; by default under `root`/<recipe name>-sweep.
        resume: As in `search`.
        overwrite: As in `search`.
        root: As in `search`.
        threads: As in `search`.
        callbacks: Refused, as in `search`.
        progress: As in `search`.

    Returns:
        The sweep, whose trials are the depths.

    Raises:
        RecipeError: There is no such phase, there are callbacks, and as for `search`.
    """
    refuse_callbacks(callbacks, "sweep")
    with contextlib.ExitStack() as stack:
        loaded = stack.enter_context(
            reading_recipe(recipe, overrides, base=base, replaced=out, threads=threads)
        )
        plan = check_recipe(loaded)
        swept = _as_sweep(plan, phase, units=units)
        handle = stack.enter_context(handling(progress))
        folder = stack.enter_context(
            open_search(
                swept.name, Path(root), out, resume=resume, overwrite=overwrite, kind="sweep"
            )
        )
        stack.enter_context(naming_what_is_kept(folder, progress, handle))
        plan = keep_base(replace(plan, recipe=swept), folder)
        run = Searching(plan, folder, handle).run(threads)
        _write_sweep(plan.recipe, run)
    return run


def _as_sweep(plan: Plan, phase: str | None, *, units: bool) -> Recipe:
    """Returns the recipe with a grid search over the depths of a phase."""
    recipe = plan.recipe
    names = [phase.name for phase in recipe.phases]
    if not names:
        what = "the recipe has no phase to sweep"
        hint = add_phase(recipe, phase or "tune")
        raise RecipeError(Problem("phases", what, "expected at least one.", hint))
    if phase is not None and phase not in names:
        raise RecipeError(
            Problem(
                where="--phase",
                what=f"{phase!r} is no phase of the recipe",
                expected=f"expected one of {', '.join(names)}.",
                hint=f"--phase {names[-1]}",
            )
        )
    depths: list[Any] = list(find_depths(recipe))
    if units:
        architecture = plan.architecture
        units_that_may_train = plan_task(recipe).readable_units(architecture) or tuple(
            unit.name for unit in architecture.units
        )
        depths = [0, *({"from": unit} for unit in reversed(units_that_may_train))]
    search = recipe.search.model_dump(mode="json") if recipe.search else {}
    shared_settings = {name: search[name] for name in ("objective", "refit") if name in search}
    space = {f"phases.{phase or names[-1]}.unfreeze": {"choices": depths}}
    return build_recipe(
        recipe, {"search": {"algorithm": "grid", "space": space, **shared_settings}}
    ).recipe


def _write_sweep(recipe: Recipe, run: SearchRun) -> None:
    from tl_toolkit.plan.space import resolve_space
    from tl_toolkit.tuning.report import SweepRow, write_sweep

    (field,) = resolve_space(recipe)
    rows = [
        SweepRow(trial.values[field], trial.trains, trial.parameters, trial.score, trial.seconds)
        for trial in run.trials
    ]
    write_sweep(run.folder, rows, recipe.search.objective.name if recipe.search else "")
