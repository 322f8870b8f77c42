"""The trials of a search on disk: one file each, written as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.plan.values import find_differences
from tl_toolkit.runs.files import write_json
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.states import describe_resume

_SPACE = "search.space"
_MOST_NAMED = 3


@dataclass(frozen=True)
class Trial:
    """One trial that is over.

    Attributes:
        number: Counts from 1.
        values: The searched fields and their values.
        state: completed, paused (hyperband's, if epochs are left) or failed.
        score: The objective of the weights kept; None if it failed.
        best: The epoch whose weights are kept, as a row of the history; None if it failed.
        weights_sha256: SHA-256 of these weights; None if it failed.
        seconds: Seconds that it took.
        elapsed: Seconds of the search until it was over, in all its processes.
        trains: The parts that trained in the phase that trained most, as "conv_dw_12 to head".
        parameters: The number of their weights.
        error: Why it failed; "" if it did not.
        budget: Number of epochs after which its last phase had to pause; None if never.
        continues: Number of the trial that it resumed; None if it began anew.
        seed: Its own seed; None if it has that of the searched recipe.
    """

    number: int
    values: Mapping[str, Any]
    state: str
    score: float | None
    best: Mapping[str, Any] | None
    weights_sha256: str | None
    seconds: float
    elapsed: float
    trains: str = ""
    parameters: int = 0
    error: str = ""
    budget: int | None = None
    continues: int | None = None
    seed: int | None = None


class Journal:
    """Keeps the trials of one search, and everything that they depend on.

    Args:
        folder: The search's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._identity = folder.search
        self._trials = folder.trials

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Writes what the search depends on; a resumed search must depend on the same.

        Args:
            identity: Everything that its scores depend on.

        Raises:
            RecipeError: The resumed search depends on something else; names what differs.
        """
        # As it will be read again: tuples become lists.
        now = json.loads(json.dumps(identity))
        if not self._identity.is_file():
            write_json(self._identity, now)
            return
        before = self._folder.read_json(self._identity)
        names = sorted(find_differences([before, now]))
        if names:
            hint = "without --resume for a new search, or undo the changes"
            is_of_recipe = all(name.startswith(("recipe", "search")) for name in names)
            if is_of_recipe and self._folder.recipe.is_file():  # with its overrides
                hint = f"{describe_resume(self._folder)}, which repeats the first call; or {hint}"
            raise RecipeError(
                Problem(
                    where=f"--resume {self._folder.path}",
                    what=f"the search was begun with another {_name_fields(names)}",
                    expected="Scores of a search can be compared only if all else stays the same.",
                    hint=hint,
                )
            )

    def add(self, trial: Trial) -> None:
        """Writes a trial that is over.

        Args:
            trial: The trial.
        """
        write_json(self._file(trial.number), asdict(trial))

    def read(self) -> list[Trial]:
        """Returns the trials in order, up to the first that is missing.

        Raises:
            DataError: A file is damaged.
        """
        trials: list[Trial] = []
        while (trial := self.find(len(trials) + 1)) is not None:
            trials.append(trial)
        return trials

    def find(self, number: int) -> Trial | None:
        """Returns a trial, None if it was not recorded; one may be before others that were begun.

        Args:
            number: Of the trial.

        Raises:
            DataError: Its file is damaged.
        """
        path = self._file(number)
        return Trial(**self._folder.read_json(path)) if path.is_file() else None

    def _file(self, number: int) -> Path:
        return self._trials / f"{number:05d}.json"


def _name_fields(leaves: Sequence[str]) -> str:
    """Returns the fields that differ as a recipe names them; of many, their sections."""
    names = [name.removeprefix("recipe.") for name in leaves]
    fields = list(dict.fromkeys(_SPACE if it.startswith(_SPACE) else it for it in names))
    if len(fields) <= _MOST_NAMED:
        return ", ".join(fields)
    sections = list(dict.fromkeys(name.partition(".")[0] for name in fields))
    more = f" and {len(sections) - _MOST_NAMED} more" if len(sections) > _MOST_NAMED else ""
    return f"{', '.join(sections[:_MOST_NAMED])}{more} ({len(fields)} fields)"
