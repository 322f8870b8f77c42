"""KerasTuner's oracles, which choose the values of each trial, behind one adapter.

The oracle is asked directly: its tuners retry, stop and swallow trials by rules of their own, and
what they write about a search can tear. Nothing here is kept on disk. Given the same seed and the
same scores an oracle proposes the same values, and so a search is taken up again by telling it the
scores of the trials that are done.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras_tuner

from tl_toolkit.recipe.search_schema import Dimension, Search
from tl_toolkit.searching.space import Space

_ORACLES = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "grid": keras_tuner.oracles.GridSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
}
_NEVER = 10**9
_SCORE = "score"


@dataclass(frozen=True)
class Proposal:
    """What to try next.

    Attributes:
        number: Counts from 1.
        values: A value for each field of the space.
    """

    number: int
    values: Mapping[str, Any]


class Chooser:
    """Proposes trials one after the other and is told their scores.

    Args:
        search: Algorithm, number of trials, direction and seed.
        space: Fields and values.
    """

    def __init__(self, search: Search, space: Space) -> None:
        self._space = space
        self._oracle = _ORACLES[search.algorithm](
            objective=keras_tuner.Objective(_SCORE, "max" if search.objective.is_max else "min"),
            max_trials=search.count,
            hyperparameters=register_space(space),
            seed=search.seed + 1,  # an oracle takes 0 for "draw one"
            max_retries_per_trial=0,
            max_consecutive_failed_trials=_NEVER,  # else it raises, and its lock stays taken
        )
        self._oracle.verbose = 0
        self._folder = tempfile.TemporaryDirectory(prefix="tltool-oracle-")
        self._oracle._set_project_dir(self._folder.name, "oracle")
        self._trials: list[Any] = []

    def propose(self) -> Proposal | None:
        """Returns the next trial; None when all have been tried."""
        with _quiet():
            trial = self._oracle.create_trial("tl_toolkit")
        if trial.status != "RUNNING":
            return None
        self._trials.append(trial)
        return Proposal(len(self._trials), read_values(trial.hyperparameters, self._space))

    def report(self, proposal: Proposal, score: float | None) -> None:
        """Takes in the score of a proposed trial; None for one that failed."""
        trial = self._trials[proposal.number - 1]
        with _quiet():
            if score is not None:
                self._oracle.update_trial(trial.trial_id, {_SCORE: score})
            trial.status = "INVALID" if score is None else "COMPLETED"
            self._oracle.end_trial(trial)

    def close(self) -> None:
        """Removes the oracle's own files, which nobody reads."""
        self._folder.cleanup()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps warnings back: of old names that KerasTuner calls, of models that did not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def register_space(
    space: Space, parameters: keras_tuner.HyperParameters | None = None
) -> keras_tuner.HyperParameters:
    """Declares a space to KerasTuner, under the names of its fields."""
    if parameters is None:
        parameters = keras_tuner.HyperParameters()
    for field, dimension in space.items():
        _register(parameters, field, dimension)
    return parameters


def _register(parameters: keras_tuner.HyperParameters, field: str, dimension: Dimension) -> None:
    if dimension.choices is not None:
        if _are_numbers(dimension.choices):
            parameters.Choice(field, sorted(dimension.choices), ordered=True)
        else:  # of any kind: KerasTuner knows only their places
            parameters.Choice(field, list(range(len(dimension.choices))), ordered=False)
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
        parameters.Float(field, step=dimension.step, **settings)


def read_values(parameters: keras_tuner.HyperParameters, space: Space) -> dict[str, Any]:
    """Returns KerasTuner's values as a recipe has them."""
    found = {}
    for field, dimension in space.items():
        value = parameters.get(field)
        if dimension.choices is not None and not _are_numbers(dimension.choices):
            value = dimension.choices[value]
        # Steps add up to 0.30000000000000004.
        found[field] = float(f"{value:.12g}") if isinstance(value, float) else value
    return found


def _are_numbers(choices: tuple[Any, ...]) -> bool:
    kinds = {type(choice) for choice in choices}
    return kinds == {int} or kinds == {float}
