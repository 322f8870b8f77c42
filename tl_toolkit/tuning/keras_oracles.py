"""KerasTuner's oracles, called directly.

KerasTuner's tuners retry, stop and swallow trials by rules of their own, and the files that they
write are not atomic: nothing that an oracle writes is read.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import keras_tuner

from tl_toolkit.keras_private import set_max_collisions, set_oracle_folder
from tl_toolkit.plan.space import Space
from tl_toolkit.recipe.search_schema import Search
from tl_toolkit.tuning.hyperparameters import read_values, register_space, write_values
from tl_toolkit.tuning.suggestions import Suggestion

__all__ = ["KerasOracle"]

_ORACLES: dict[str, Any] = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "grid": keras_tuner.oracles.GridSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
    "hyperband": keras_tuner.oracles.HyperbandOracle,
}
_NEVER = 10**9
_COLLISIONS = 10_000  # samples of known values; then a space counts as exhausted
_SCORE = "score"
_BEFORE = "tuner/trial_id"  # KerasTuner's name for the trial that is resumed


class KerasOracle:
    """An oracle of KerasTuner.

    Args:
        search: Algorithm, number of trials, direction and seed.
        space: Fields and values.
        epochs: Epochs of the last phase, for hyperband.
    """

    def __init__(self, search: Search, space: Space, *, epochs: int = 1) -> None:
        self._space = space
        self._halves = search.algorithm == "hyperband"
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
        self._trials: dict[str, Any] = {}

    def ask(self) -> Suggestion | None:
        """Returns values to try; None if there are no more."""
        with _quiet():
            # Under one name the oracle would return the trial that is open.
            trial = self._oracle.create_trial(f"tl_toolkit {len(self._oracle.trials)}")
        if trial.status != "RUNNING":
            return None
        self._trials[trial.trial_id] = trial
        suggestion = Suggestion(trial.trial_id, read_values(trial.hyperparameters, self._space))
        if not self._halves:
            return suggestion
        chosen = trial.hyperparameters.values
        epochs = chosen["tuner/epochs"]
        budget = epochs if epochs < self._oracle.max_epochs else None
        return replace(suggestion, budget=budget, continues=chosen.get(_BEFORE))

    def replace(self, suggestion: Suggestion, values: Mapping[str, Any]) -> Suggestion:
        """Returns a suggestion of other values in the place of one.

        Args:
            suggestion: One that has no score yet.
            values: A value for each field of the space.
        """
        trial = self._trials[str(suggestion.key)]
        trial.hyperparameters.values.update(write_values(values, self._space))
        return replace(suggestion, values=values)

    def tell(self, suggestion: Suggestion, score: float | None) -> None:
        """Ends a suggestion.

        Args:
            suggestion: One that has no score yet.
            score: Its objective; None if it failed or has none.
        """
        trial = self._trials.pop(str(suggestion.key))
        if score is None and self._halves:  # which resumes no trial if scores are missing
            score = self._worst
        with _quiet():
            if score is not None:
                self._oracle.update_trial(trial.trial_id, {_SCORE: score})
            trial.status = "INVALID" if score is None else "COMPLETED"
            self._oracle.end_trial(trial)

    def close(self) -> None:
        """Removes the oracle's own files."""
        self._folder.cleanup()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses warnings of old names in KerasTuner, and of models that did not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
