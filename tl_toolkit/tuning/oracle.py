"""Chooses the values of each trial, by an oracle of KerasTuner's or a sampler of Optuna's.

Nothing here is kept on disk. With the same seed and the same scores an oracle suggests the same
values, and so a search resumes by reporting the scores of the finished trials to a new oracle.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tl_toolkit.plan.space import Space, count_points, plan_brackets
from tl_toolkit.recipe.search_schema import Search
from tl_toolkit.tuning.hyperparameters import as_key
from tl_toolkit.tuning.keras_oracles import KerasOracle
from tl_toolkit.tuning.suggestions import Oracle, Suggestion

__all__ = ["Chooser", "Proposal"]

_MOST_UNTRIED = 10_000


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
        self._reads_scores = search.reads_scores
        self._groups = _list_groups(search, epochs)
        self._left = next(self._groups)
        self._open = 0  # trials of the group that were proposed, and are not reported
        self._scores: dict[int, float | None] = {}
        self._is_over = False
        self._limit = search.trials if self._halves else search.count
        self._oracle = _open_oracle(search, space, epochs)
        self._suggestions: list[Suggestion] = []
        self._failed: set[Hashable] = set()
        self._points = count_points(space)
        self._tried: set[str] = set()
        self._random = random.Random(search.seed)  # noqa: S311  (chooses values, no secrets)

    def propose(self) -> Proposal | None:
        """Returns the next trial; None when all have been tried, each combination once.

        None too while scores are missing that decide the next one.
        """
        if self._is_over or (self._limit is not None and len(self._suggestions) >= self._limit):
            return None
        if self.is_exhausted:
            return None
        suggestion = self._ask()
        while suggestion is not None and suggestion.continues in self._failed:
            self._end(suggestion, None)  # so few are left that a failed trial would be resumed
            suggestion = self._ask()
        if suggestion is None:
            return None
        if not self._halves:
            suggestion = self._replace_known(suggestion)
        self._suggestions.append(suggestion)
        if self._reads_scores:
            self._open += 1
        else:
            self._end(suggestion, None)  # whatever becomes of it: the oracle may go on
        return self._as_proposal(suggestion)

    @property
    def is_exhausted(self) -> bool:
        """Whether every combination of a finite space was proposed; hyperband resumes some."""
        return not self._halves and len(self._tried) == self._points

    def _replace_known(self, suggestion: Suggestion) -> Suggestion:
        """Returns other values if these were tried, as a model of scores suggests some again."""
        known = self._points is not None and as_key(suggestion.values) in self._tried
        if known and (untried := self._list_untried()):
            values = untried[self._random.randrange(len(untried))]
            suggestion = self._oracle.replace(suggestion, values)
        self._tried.add(as_key(suggestion.values))
        return suggestion

    def _list_untried(self) -> list[dict[str, Any]]:
        fields = {field: dimension.values or () for field, dimension in self._space.items()}
        combinations = itertools.product(*fields.values())
        some = (dict(zip(fields, values, strict=True)) for values in combinations)
        left = (values for values in some if as_key(values) not in self._tried)
        return list(itertools.islice(left, _MOST_UNTRIED))

    def _ask(self) -> Suggestion | None:
        """Returns a suggestion of the oracle's; None at the end, and where it has to wait."""
        if not self._left and not self._begin_group():
            return None
        self._left -= 1
        suggestion = self._oracle.ask()
        self._is_over = suggestion is None
        return suggestion

    def _as_proposal(self, suggestion: Suggestion) -> Proposal:
        numbers = {entry.key: place for place, entry in enumerate(self._suggestions, start=1)}
        before = suggestion.continues
        return Proposal(
            len(self._suggestions),
            suggestion.values,
            suggestion.budget,
            None if before is None else numbers[before],
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
            self._end(self._suggestions[number - 1], self._scores[number])
        self._scores.clear()
        self._open, self._left = 0, next(self._groups)
        return True

    def _end(self, suggestion: Suggestion, score: float | None) -> None:
        if score is None:
            self._failed.add(suggestion.key)
        self._oracle.tell(suggestion, score)

    def close(self) -> None:
        """Removes the oracle's own files, which are never read."""
        self._oracle.close()


def _open_oracle(search: Search, space: Space, epochs: int) -> Oracle:
    if search.algorithm == "tpe":
        from tl_toolkit.tuning.optuna_oracle import OptunaOracle  # an extra brings Optuna

        return OptunaOracle(search, space)
    return KerasOracle(search, space, epochs=epochs)


def _list_groups(search: Search, epochs: int) -> Iterator[int]:
    """Yields how many trials are chosen together, from one group to the next, without end."""
    if search.algorithm == "hyperband":
        brackets = plan_brackets(epochs, search.factor)
        yield from itertools.cycle(count for rungs in brackets for count, _ in rungs)
    yield from itertools.repeat(search.batch)
