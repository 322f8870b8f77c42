"""Optuna's sampler as an oracle: the tree-structured Parzen estimator (Bergstra et al., 2011).

Its study lies in memory. Trials of a group that have no score yet keep later ones of the group
away from their values (Optuna's constant liar).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from tl_toolkit.plan.space import Space
from tl_toolkit.recipe.search_schema import Dimension, Search
from tl_toolkit.tuning.hyperparameters import as_choices, as_key
from tl_toolkit.tuning.suggestions import Suggestion

__all__ = ["OptunaOracle"]


class OptunaOracle:
    """Optuna's TPE sampler with its own defaults; the first ten trials are random.

    A failed trial counts as worse than every other: it had values with which training fails.

    Args:
        search: Direction and seed.
        space: Fields and values.
    """

    def __init__(self, search: Search, space: Space) -> None:
        self._axes = {field: _Axis(dimension) for field, dimension in space.items()}
        self._distributions: dict[str, BaseDistribution] = {
            field: axis.distribution for field, axis in self._axes.items()
        }
        self._trials: dict[Hashable, optuna.Trial] = {}
        with _quiet():
            sampler = optuna.samplers.TPESampler(
                seed=search.seed, multivariate=True, constant_liar=True
            )
            self._study = optuna.create_study(
                sampler=sampler, direction="maximize" if search.objective.is_max else "minimize"
            )

    def ask(self) -> Suggestion:
        """Returns values to try, without end."""
        with _quiet():
            trial = self._study.ask(self._distributions)
        values = {field: axis.read(trial.params[field]) for field, axis in self._axes.items()}
        self._trials[trial.number] = trial
        return Suggestion(trial.number, values)

    def replace(self, suggestion: Suggestion, values: Mapping[str, Any]) -> Suggestion:
        """Returns a suggestion of other values in the place of one.

        Args:
            suggestion: One that has no score yet.
            values: A value for each field of the space.
        """
        wanted = {field: axis.write(values[field]) for field, axis in self._axes.items()}
        with _quiet():
            # The sampler does not count what failed.
            self._study.tell(self._trials.pop(suggestion.key), state=TrialState.FAIL)
            self._study.enqueue_trial(wanted)
        return self.ask()

    def tell(self, suggestion: Suggestion, score: float | None) -> None:
        """Ends a suggestion.

        Args:
            suggestion: One that has no score yet.
            score: Its objective; None if it failed.
        """
        trial = self._trials.pop(suggestion.key)
        with _quiet():
            if score is None:  # the sampler ranks what was pruned behind all that has a score
                self._study.tell(trial, state=TrialState.PRUNED)
            else:
                self._study.tell(trial, score)

    def close(self) -> None:
        """Does nothing: the study lies in memory."""


class _Axis:
    """One field as a distribution of Optuna's, and back.

    What has an order and is finite, as numbers among choices and ranges with steps, is a range of
    places, so that values are exactly those of the recipe; other choices have no order.
    """

    def __init__(self, dimension: Dimension) -> None:
        self._values: tuple[Any, ...] | None = None
        self._names: list[Any] = []
        self.distribution: BaseDistribution
        if dimension.choices is not None and not {*map(type, dimension.choices)} <= {int, float}:
            self._values = dimension.choices
            self._names = as_choices(dimension.choices)
            self.distribution = CategoricalDistribution(self._names)
        elif dimension.choices is not None or dimension.step is not None:
            self._values = tuple(sorted(dimension.values or ()))
            self._names = list(range(len(self._values)))
            self.distribution = IntDistribution(0, len(self._values) - 1)
        else:
            low, high = dimension.min or 0, dimension.max or 0
            log = dimension.sampling == "log"
            if dimension.is_whole:
                self.distribution = IntDistribution(int(low), int(high), log=log)
            else:
                self.distribution = FloatDistribution(low, high, log=log)

    def read(self, value: Any) -> Any:
        """Returns the recipe's value for one of Optuna's.

        Args:
            value: A value of the distribution.
        """
        if self._values is not None:
            return self._values[self._names.index(value)]
        return float(f"{value:.12g}") if isinstance(value, float) else value

    def write(self, value: Any) -> Any:
        """Returns Optuna's value for one of a recipe's.

        Args:
            value: A value of the field.
        """
        if self._values is None:
            return value
        return self._names[[as_key(entry) for entry in self._values].index(as_key(value))]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses warnings of experimental settings, and lines about each study and trial."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
