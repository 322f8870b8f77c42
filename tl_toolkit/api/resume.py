"""Goes on with a run that was interrupted or killed, or trains the last phase of one for longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.errors import DataError, Problem, RecipeError
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import PhaseSettings, describe_training, training_settings
from tl_toolkit.plan.values import describe_value, find_differences
from tl_toolkit.recipe.load import load_recipe
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.places import list_numbered
from tl_toolkit.runs.states import describe_resume, find_state

if TYPE_CHECKING:
    from tl_toolkit.training.outcome import Paused

__all__ = ["Resumed", "check_lock", "find_resumed", "resume_plan"]

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
        changes: Fields that have other values now, with both.
        longer: Epochs that its last phase had, where it has more now; None where it has as many.
    """

    folder: RunFolder
    is_done: bool
    changes: Mapping[str, tuple[Any, ...]]
    longer: int | None

    @property
    def has_other_batches(self) -> bool:
        """Whether the phase that was interrupted begins again, with another batch size."""
        return _BATCH_SIZE in self.changes

    def describe_batches(self) -> dict[str, Any]:
        """Returns the batch sizes of the phases so far for the lock, if they changed on the way."""
        folder = self.folder
        before = folder.read_json(folder.lock) if folder.lock.is_file() else {}
        sizes = list(before.get("batch_sizes", []))
        if self.has_other_batches:
            sizes = [*(sizes or [self.changes[_BATCH_SIZE][0]]), self.changes[_BATCH_SIZE][1]]
        return {"batch_sizes": sizes} if sizes else {}


def find_resumed(name: str, root: Path, out: Path | None) -> RunFolder | None:
    """Returns the run to resume, None if none has begun.

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
        return plan, Resumed(folder, is_done=False, changes={}, longer=None)
    before = load_recipe(folder.recipe).recipe
    recipe = plan.recipe
    if recipe.precision == "auto":  # measured once
        recipe = recipe.model_copy(update={"precision": before.precision})
    changes = find_differences([describe_training(before), describe_training(recipe)])
    is_done = find_state(folder) == "done"
    allowed = {f"phases.{before.phases[-1].name}.epochs"} if before.phases else set()
    if not is_done:
        allowed.add(_BATCH_SIZE)
    refused = [name for name in changes if name not in allowed]
    if refused or _is_shorter(before, recipe) or (before.data.folds and set(changes) & allowed):
        raise _refuse(folder, {name: changes[name] for name in refused or changes})
    epochs = _last_epochs(before)
    longer = None if _last_epochs(recipe) == epochs else epochs
    return replace(plan, recipe=recipe), Resumed(folder, is_done, changes, longer)


def check_lock(before: Mapping[str, Any], now: Mapping[str, Any], folder: RunFolder) -> str:
    """Refuses to resume with other images or weights than a run was begun with.

    Returns a sentence if versions, threads or the device are others, "" otherwise.

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
                expected="A run resumes with the same images and weights, or not at all.",
                hint="without --resume for a new run",
            )
        )
    differences = find_differences([before.get("numerics") or {}, now.get("numerics") or {}])
    if not differences:
        return ""
    return (
        f"the run was begun with another {', '.join(differences)}: what comes now may differ from "
        "a run without a pause in its last digits, and so in all that follows"
    )


def _last_epochs(recipe: Recipe) -> int:
    return recipe.phases[-1].epochs if recipe.phases else 0


def _is_shorter(before: Recipe, now: Recipe) -> bool:
    return _last_epochs(now) < _last_epochs(before)


def _refuse(folder: RunFolder, changes: Mapping[str, tuple[Any, ...]]) -> RecipeError:
    named = [
        f"{name} ({describe_value(old)} before, {describe_value(new)} now)"
        for name, (old, new) in changes.items()
    ]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return RecipeError(
        Problem(
            where=f"--resume {folder.path}",
            what=f"the run was begun with another {', '.join(named[:_MOST_NAMED])}{more}",
            expected="A run goes on as it began; data.batch_size may change where it was "
            "interrupted, and the last phase may be longer.",
            hint=f"{describe_resume(folder)}, which repeats the first call; or without --resume "
            "for a new run",
        )
    )


def _refuse_other_rates(before: int, phases: Sequence[PhaseSettings], steps: int) -> None:
    """Refuses a longer last phase whose schedule would have had other rates from the beginning.

    Args:
        before: The epochs that it had.
        phases: All phases, as they are to be trained.
        steps: Steps of one epoch.
    """
    import numpy as np

    from tl_toolkit.training.optimizers import tabulate_rate

    now = phases[-1]
    if now.schedule_epochs is None:
        tables = [
            tabulate_rate(replace(now, epochs=count), steps) for count in (before, now.epochs)
        ]
        old, new = (np.atleast_1d(table)[: max(1, before * steps)] for table in tables)
        if np.array_equal(old, new):
            return
    raise RecipeError(
        Problem(
            where=f"{now.field}.epochs",
            what=f"the run was trained for {before}",
            expected="Its schedule, or its unfreezing, spreads over all epochs of the phase, so "
            "that a longer one would have been another from the beginning.",
            hint="without --resume for a new run",
        )
    )


def read_state(plan: Plan, resumed: Resumed, images: int) -> tuple[Paused | None, list[str]]:
    """Returns the state to go on from, None if there is none; and what to tell.

    Args:
        plan: The plan of the run.
        resumed: The run.
        images: Training images.

    Raises:
        RecipeError: The last phase is longer than it was, and would have trained otherwise; or the
            run is finished and holds no state.
    """
    from tl_toolkit.training.resume import Checkpoints, find_paused

    settings = training_settings(plan)
    if resumed.longer is not None:
        steps = -(-images // settings.batch_size)
        _refuse_other_rates(resumed.longer, settings.phases, steps)
    checkpoints = Checkpoints(
        resumed.folder.states, every="1 epoch", batch_size=settings.batch_size
    )
    paused, texts = find_paused(checkpoints, settings.phases)
    if paused is not None:
        return paused, texts
    if resumed.is_done:
        expected = "A finished run goes on from the state at its end, which this one does not hold."
        hint = "without --resume for a new run"
        raise RecipeError(Problem(f"--resume {resumed.folder.path}", "is finished", expected, hint))
    text = "the first phase begins again, with the other batch size"
    if not resumed.has_other_batches:
        text = "no state of training is there yet: it begins anew"
    return None, [*texts, text]
