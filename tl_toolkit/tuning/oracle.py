"""KerasTuner's oracles, which choose the values of each trial, behind one adapter.

The oracle is called directly: KerasTuner's tuners retry, stop and swallow trials by rules of their
own, and the files that they write are not atomic. Nothing here is kept on disk. With the same seed
and the same scores an oracle proposes the same values, and so a search resumes by reporting the
scores of the finished trials to a new oracle.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import random
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras_tuner

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.keras_private import set_max_collisions, set_oracle_folder
from tl_toolkit.plan.space import Space, count_points, plan_brackets
from tl_toolkit.plan.values import describe_value
from tl_toolkit.recipe.search_schema import Dimension, Search

_ORACLES: dict[str, Any] = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "grid": keras_tuner.oracles.GridSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
    "hyperband": keras_tuner.oracles.HyperbandOracle,
}
_NEVER = 10**9
_COLLISIONS = 10_000  # samples of known values; then a space counts as exhausted
_MOST_UNTRIED = 10_000
_SCORE = "score"
_BEFORE = "tuner/trial_id"  # KerasTuner's name for the trial that is resumed


@dataclass(frozen=True)
class Proposal:
    """The next trial.

    Attributes:
        number: Counts from 1.
        values: A value for each field of the space.
        budget: Number of epochs after which its last phase pauses; None if it never does.
        continues: Number of the proposal that it resumes, which has the same values.
    """

    number: int
    values: Mapping[str, Any]
    budget: int | None = None
    continues: int | None = None


class Chooser:
    """Proposes trials one after the other and receives their scores.

    What it proposes does not depend on how many trials run at a time. An oracle that reads no
    scores proposes as many as are asked for. One that does proposes groups: of `search.batch`
    trials, or a rung of hyperband. It learns the scores of a group when all of them are there, and
    proposes nothing more until then.

    Args:
        search: Algorithm, number of trials, direction and seed.
        space: Fields and values.
        epochs: Epochs of the last phase, for hyperband.
    """

    def __init__(self, search: Search, space: Space, *, epochs: int = 1) -> None:
        self._space = space
        self._halves = search.algorithm == "hyperband"
        self._reads_scores = search.algorithm in ("bayesian", "hyperband")
        self._groups = _list_groups(search, epochs)
        self._left = next(self._groups)
        self._open = 0  # trials of the group that were proposed, and are not reported
        self._scores: dict[int, float | None] = {}
        self._is_over = False
        self._limit = search.trials if self._halves else None
        self._worst = -math.inf if search.objective.is_max else math.inf
        settings: dict[str, Any] = {"max_trials": search.count}
        if self._halves:
            rounds = 1 if search.trials is None else 0  # 0: for ever
            settings = {
                "max_epochs": epochs, "factor": search.factor, "hyperband_iterations": rounds
            }  # fmt: skip
        self._oracle = _ORACLES[search.algorithm](
            objective=keras_tuner.Objective(_SCORE, "max" if search.objective.is_max else "min"),
            hyperparameters=register_space(space),
            seed=search.seed + 1,  # an oracle takes 0 for "sample a seed"
            max_retries_per_trial=0,
            max_consecutive_failed_trials=_NEVER,  # else it raises, and its lock stays taken
            **settings,
        )
        # It stops, without resuming paused trials, if it finds no new values.
        set_max_collisions(self._oracle, _COLLISIONS)
        self._oracle.verbose = 0
        self._folder = tempfile.TemporaryDirectory(prefix="tltool-oracle-")
        set_oracle_folder(self._oracle, self._folder.name)
        self._trials: list[Any] = []
        self._failed: set[str] = set()
        self._points = count_points(space)
        self._tried: set[str] = set()
        self._random = random.Random(search.seed)  # noqa: S311  (chooses values, no secrets)

    def propose(self) -> Proposal | None:
        """Returns the next trial; None when all have been tried, each combination once.

        None too while scores are missing that decide the next one.
        """
        if self._is_over or (self._limit is not None and len(self._trials) >= self._limit):
            return None
        if self.is_exhausted:
            return None
        trial = self._create()
        while trial is not None and trial.hyperparameters.values.get(_BEFORE) in self._failed:
            self._end(trial, None)  # so few are left that a failed trial would be resumed
            trial = self._create()
        if trial is None:
            return None
        if not self._halves:
            self._replace_known(trial)
        self._trials.append(trial)
        if self._reads_scores:
            self._open += 1
        else:
            self._end(trial, None)  # whatever becomes of it: the oracle may go on
        return self._as_proposal(trial)

    @property
    def is_exhausted(self) -> bool:
        """Whether every combination of a finite space was proposed; hyperband resumes some."""
        return not self._halves and len(self._tried) == self._points

    def _replace_known(self, trial: Any) -> None:
        """Gives a trial other values if those were tried, as a bayesian oracle proposes again."""
        values = read_values(trial.hyperparameters, self._space)
        known = self._points is not None and _as_key(values) in self._tried
        if known and (untried := self._list_untried()):
            values = untried[self._random.randrange(len(untried))]
            trial.hyperparameters.values.update(write_values(values, self._space))
        self._tried.add(_as_key(values))

    def _list_untried(self) -> list[dict[str, Any]]:
        fields = {field: dimension.values or () for field, dimension in self._space.items()}
        combinations = itertools.product(*fields.values())
        some = (dict(zip(fields, values, strict=True)) for values in combinations)
        left = (values for values in some if _as_key(values) not in self._tried)
        return list(itertools.islice(left, _MOST_UNTRIED))

    def _create(self) -> Any:
        """Returns a trial of the oracle's; None at the end, and where it has to wait."""
        if not self._left and not self._begin_group():
            return None
        self._left -= 1
        with _quiet():
            # Under one name the oracle would return the trial that is open.
            trial = self._oracle.create_trial(f"tl_toolkit {len(self._oracle.trials)}")
        self._is_over = trial.status != "RUNNING"
        return None if self._is_over else trial

    def _as_proposal(self, trial: Any) -> Proposal:
        number, values = len(self._trials), read_values(trial.hyperparameters, self._space)
        if not self._halves:
            return Proposal(number, values)
        chosen = trial.hyperparameters.values
        budget = chosen["tuner/epochs"]
        numbers = {entry.trial_id: place for place, entry in enumerate(self._trials, start=1)}
        return Proposal(
            number,
            values,
            budget if budget < self._oracle.max_epochs else None,
            numbers[chosen[_BEFORE]] if _BEFORE in chosen else None,
        )

    def report(self, proposal: Proposal, score: float | None) -> None:
        """Reports the score of a proposed trial to the oracle.

        Args:
            proposal: Proposal from `propose`.
            score: Its objective; None for a failed trial.
        """
        if self._reads_scores:
            self._scores[proposal.number] = score

    def _begin_group(self) -> bool:
        """Reports the scores of a group to the oracle; returns False while some are missing."""
        if len(self._scores) < self._open:
            return False
        for number in sorted(self._scores):
            self._end(self._trials[number - 1], self._scores[number])
        self._scores.clear()
        self._open, self._left = 0, next(self._groups)
        return True

    def _end(self, trial: Any, score: float | None) -> None:
        if score is None:
            self._failed.add(trial.trial_id)
            if self._halves:  # which resumes no trial if scores are missing
                score = self._worst
        with _quiet():
            if score is not None:
                self._oracle.update_trial(trial.trial_id, {_SCORE: score})
            trial.status = "INVALID" if score is None else "COMPLETED"
            self._oracle.end_trial(trial)

    def close(self) -> None:
        """Removes the oracle's own files, which are never read."""
        self._folder.cleanup()


def _list_groups(search: Search, epochs: int) -> Iterator[int]:
    """Yields how many trials are chosen together, from one group to the next, without end."""
    if search.algorithm == "hyperband":
        brackets = plan_brackets(epochs, search.factor)
        yield from itertools.cycle(count for rungs in brackets for count, _ in rungs)
    yield from itertools.repeat(search.batch)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses warnings of old names in KerasTuner, and of models that did not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def register_space(
    space: Space, parameters: keras_tuner.HyperParameters | None = None
) -> keras_tuner.HyperParameters:
    """Declares a space to KerasTuner, under the names of its fields.

    Args:
        space: Fields and values.
        parameters: The object to declare them in; a new one by default.
    """
    if parameters is None:
        parameters = keras_tuner.HyperParameters()
    for field, dimension in space.items():
        _register(parameters, field, dimension)
    return parameters


def _register(parameters: keras_tuner.HyperParameters, field: str, dimension: Dimension) -> None:
    if dimension.choices is not None:
        choices = _as_choices(dimension.choices)
        if set(choices) == {False, True} and isinstance(choices[0], bool):
            parameters.Boolean(field, default=choices[0])  # a Choice would make numbers of them
        elif _are_numbers(dimension.choices):
            parameters.Choice(field, sorted(choices), ordered=True)
        else:
            parameters.Choice(field, choices, ordered=False)
        return
    settings = {
        "min_value": dimension.min,
        "max_value": dimension.max,
        "sampling": dimension.sampling,
    }
    if dimension.is_whole:
        step = dimension.step or (None if dimension.sampling == "log" else 1)
        parameters.Int(field, step=step, **settings)
    else:
        if dimension.step is not None and dimension.sampling == "linear":
            # KerasTuner counts (0.3 - 0.1) // 0.1 = 1 steps, and would leave the end out.
            settings["max_value"] = float(dimension.max or 0) + dimension.step * 1e-6
        parameters.Float(field, step=dimension.step, **settings)


def read_values(parameters: keras_tuner.HyperParameters, space: Space) -> dict[str, Any]:
    """Returns KerasTuner's values as a recipe has them.

    Args:
        parameters: With the values of a trial.
        space: The fields that are read.

    Raises:
        RecipeError: A value is none of the space, as where a tuner resumed another search.
    """
    values = {}
    for field, dimension in space.items():
        value = parameters.get(field)
        if dimension.choices is not None:
            value = _find_choice(field, value, dimension.choices)
        # Steps add up to 0.30000000000000004.
        values[field] = float(f"{value:.12g}") if isinstance(value, float) else value
    return values


def _find_choice(field: str, value: Any, choices: tuple[Any, ...]) -> Any:
    known = _as_choices(choices)
    if value not in known:
        what = f"{field} = {value!r}: no choice of the space, which has {known}"
        expected = "Values of a tuner are those of the recipe that it searches."
        raise RecipeError(Problem("", what, expected, "another project_name, or overwrite=True"))
    return choices[known.index(value)]


def write_values(values: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Returns a recipe's values as KerasTuner has them: of values that it cannot hold, texts.

    Args:
        values: A value for each field.
        space: The fields.
    """
    written = {}
    for field, dimension in space.items():
        value = values[field]
        if dimension.choices is not None and not _are_numbers(dimension.choices):
            place = [_as_key(choice) for choice in dimension.choices].index(_as_key(value))
            value = _as_choices(dimension.choices)[place]
        written[field] = value
    return written


def _as_choices(choices: tuple[Any, ...]) -> list[Any]:
    """Returns choices as KerasTuner can hold them: of one kind, and no sections or lists.

    They are the values themselves where it can, else texts that people read: `from block3`.
    """
    kinds = {type(choice) for choice in choices}
    if kinds in ({int}, {float}, {str}) or (kinds == {bool} and len(choices) == 2):
        return list(choices)
    if kinds == {int, float}:
        return [float(choice) for choice in choices]
    for describe in (_describe_choice, _as_key):
        texts = [describe(choice) for choice in choices]
        if len(set(texts)) == len(texts):
            return texts
    return [f"{text} ({number})" for number, text in enumerate(texts, start=1)]


def _describe_choice(value: Any) -> str:
    if isinstance(value, bool | float | list | tuple) or value is None:
        return json.dumps(value, default=str)  # all digits, and lists as a recipe has them
    return describe_value(value)


def _as_key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _are_numbers(choices: tuple[Any, ...]) -> bool:
    kinds = {type(choice) for choice in choices}
    return kinds == {int} or kinds == {float}
