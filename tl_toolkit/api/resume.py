"""Goes on with a run that was interrupted or killed, or trains the last phase of one for longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.errors import DataError, Problem, RecipeError
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import PhaseSettings, training_settings
from tl_toolkit.recipe.load import load_recipe
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.differences import find_differences
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.places import list_numbered
from tl_toolkit.runs.states import find_state, name_run

if TYPE_CHECKING:
    from tl_toolkit.training.outcome import Paused

__all__ = ["Resumed", "check_lock", "find_resumed", "resume_plan"]

_FREE = ("checkpoint", "export", "baseline", "search", "yardsticks", "features.store",
         "features.max_gb")  # fmt: skip
"""Fields that change nothing of what is trained."""

_BATCH_SIZE = "data.batch_size"
_MOST_NAMED = 4
_LOCKED = {
    "data_sha256": "images or their labels",
    "weights_sha256": "weights of the base",
    "start": "run that training starts from",
    "teacher": "teacher",
}


@dataclass(frozen=True)
class Resumed:
    """A run that goes on.

    Attributes:
        folder: Its folder.
        is_done: Whether it was finished.
        changes: Fields that have other values now, with both as text.
        epochs: Of the last phase, as the run was begun with.
    """

    folder: RunFolder
    is_done: bool
    changes: Mapping[str, tuple[str | None, str | None]]
    epochs: int

    @property
    def has_other_batches(self) -> bool:
        """Whether the phase that was interrupted begins again, with another batch size."""
        return _BATCH_SIZE in self.changes

    def settle(self, paused: Paused, last: PhaseSettings, steps: int) -> Paused:
        """Returns the state to go on from.

        Args:
            paused: The last state.
            last: The last phase, as it is to be trained.
            steps: Steps of one of its epochs.

        Raises:
            RecipeError: The last phase is longer than it was, and would have trained otherwise.
        """
        if last.epochs != self.epochs:
            _refuse_other_rates(replace(last, epochs=self.epochs), last, steps)
        if not self.has_other_batches:
            return paused
        best = paused.done[-1].best if paused.done else paused.best
        return replace(paused, best=best, phase=None)


def find_resumed(name: str, root: Path, out: Path | None) -> RunFolder | None:
    """Returns the run to go on with, None if none has begun.

    Args:
        name: The recipe's name.
        root: Folder of all runs.
        out: Folder of the run; by default the newest of the name.

    Raises:
        RecipeError: The folder holds something else.
    """
    numbered = list_numbered(root / name)
    path = out or (numbered[-1] if numbered else None)
    if path is None or not RunFolder(path).status.is_file():
        return None
    folder = RunFolder(path.resolve())
    if folder.kind != "run":
        expected = f"A {folder.kind} is resumed by the command that began it."
        hint = f"tltool {folder.kind} RECIPE --resume --out {path}"
        raise RecipeError(Problem(f"--resume {path}", f"is a {folder.kind}", expected, hint))
    return folder


def resume_plan(plan: Plan, folder: RunFolder) -> tuple[Plan, Resumed]:
    """Returns the plan of a run that goes on, and what of it is another one.

    Args:
        plan: The plan of the recipe as it is now.
        folder: The run.

    Raises:
        RecipeError: A field differs that decides the result; all of them are named.
    """
    if not folder.recipe.is_file():  # killed before it wrote anything
        return plan, Resumed(folder, is_done=False, changes={}, epochs=_last_epochs(plan.recipe))
    before = load_recipe(folder.recipe).recipe
    recipe = plan.recipe
    if recipe.precision == "auto":  # measured once
        recipe = recipe.model_copy(update={"precision": before.precision})
    changes = find_differences(_describe(before), _describe(recipe))
    is_done = find_state(folder) == "done"
    allowed = {f"phases.{before.phases[-1].name}.epochs"} if before.phases else set()
    if not is_done:
        allowed.add(_BATCH_SIZE)
    refused = [name for name in changes if name not in allowed and not _is_free(name)]
    if refused or _is_shorter(before, recipe) or (before.data.folds and set(changes) & allowed):
        raise _refuse(folder, {name: changes[name] for name in refused or changes})
    resumed = Resumed(folder, is_done, changes, _last_epochs(before))
    return replace(plan, recipe=recipe), resumed


def check_lock(before: Mapping[str, Any], now: Mapping[str, Any], folder: RunFolder) -> None:
    """Refuses to go on with other images or weights than a run was begun with.

    Args:
        before: Its lock.
        now: The lock that would be written.
        folder: The run.

    Raises:
        DataError: A digest differs.
    """
    others = [text for name, text in _LOCKED.items() if before.get(name) != now.get(name)]
    if others:
        raise DataError(
            Problem(
                where=f"--resume {folder.path}",
                what=f"the run was begun with another state of: {', '.join(others)}",
                expected="A run goes on with the same images and weights, or not at all.",
                hint="without --resume for a new run",
            )
        )


def _last_epochs(recipe: Recipe) -> int:
    return recipe.phases[-1].epochs if recipe.phases else 0


def _is_shorter(before: Recipe, now: Recipe) -> bool:
    return _last_epochs(now) < _last_epochs(before)


def _is_free(name: str) -> bool:
    return any(f"{name}.".startswith(f"{field}.") for field in _FREE)


def _describe(recipe: Recipe) -> dict[str, Any]:
    """Returns the fields of a recipe, phases by their names; a copied base has another place."""
    values = recipe.model_dump(mode="json")
    values["phases"] = {phase["name"]: phase for phase in values["phases"]}
    if recipe.model.own_file is not None:
        values["model"]["base"].pop("model")
    return values


def _refuse(folder: RunFolder, changes: Mapping[str, tuple[str | None, str | None]]) -> RecipeError:
    named = [f"{name} ({old} before, {new} now)" for name, (old, new) in changes.items()]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return RecipeError(
        Problem(
            where=f"--resume {folder.path}",
            what=f"the run was begun with another {', '.join(named[:_MOST_NAMED])}{more}",
            expected="A run goes on as it began; data.batch_size may change where it was "
            "interrupted, and the last phase may be longer.",
            hint=f"tltool finetune {name_run(folder.recipe)} --resume --out "
            f"{name_run(folder.path)}, which repeats the first call; or without --resume for a "
            "new run",
        )
    )


def _refuse_other_rates(before: PhaseSettings, now: PhaseSettings, steps: int) -> None:
    """Refuses a longer phase whose schedule would have had other rates from the beginning."""
    import numpy as np

    from tl_toolkit.training.optimizers import tabulate_rate

    old, new = np.atleast_1d(tabulate_rate(before, steps)), np.atleast_1d(tabulate_rate(now, steps))
    count = min(len(old), max(1, before.epochs * steps))
    if before.schedule_epochs is None and np.array_equal(old[:count], new[:count]):
        return
    raise RecipeError(
        Problem(
            where=f"{now.field}.epochs",
            what=f"= {now.epochs}: the run was trained for {before.epochs}",
            expected="Its schedule spreads over all epochs of the phase, so that a longer one "
            "would have had other rates from the beginning.",
            hint="without --resume for a new run",
        )
    )


def describe_state(paused: Paused, phases: Sequence[PhaseSettings]) -> str:
    """Returns where a run goes on, as a sentence.

    Args:
        paused: The state.
        phases: All phases.
    """
    name = phases[min(len(paused.done), len(phases) - 1)].name
    if paused.phase is None:
        return f"resuming at the beginning of phase {name}"
    text = f"resuming after epoch {paused.phase.epochs[-1].epoch if paused.phase.epochs else 0}"
    if paused.phase.progress is not None:
        text += f" and {paused.phase.progress.steps} steps of the next"
    return f"{text} of phase {name}"


def read_state(plan: Plan, resumed: Resumed, images: int) -> tuple[Paused | None, list[str]]:
    """Returns the state to go on from, None if there is none; and what to tell.

    Args:
        plan: The plan of the run.
        resumed: The run.
        images: Training images.

    Raises:
        RecipeError: As `Resumed.settle` does.
    """
    from tl_toolkit.training.resume import Checkpoints

    settings = training_settings(plan)
    paused, faults = Checkpoints(resumed.folder.states, every="1 epoch").read()
    texts = [f"passed over: {fault}" for fault in faults]
    if paused is None:
        return None, [*texts, "no state of training was written yet: it begins anew"]
    steps = -(-images // settings.batch_size)
    paused = resumed.settle(paused, settings.phases[-1], steps)
    if resumed.has_other_batches and not paused.done:
        return None, [*texts, "the first phase begins again, with the other batch size"]
    return paused, [*texts, describe_state(paused, settings.phases)]
