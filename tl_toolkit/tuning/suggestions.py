"""What an oracle does, whichever library chooses: it suggests values, and learns their scores."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Oracle", "Suggestion"]


@dataclass(frozen=True)
class Suggestion:
    """Values that an oracle suggests.

    Attributes:
        key: Names the suggestion to its oracle.
        values: A value for each field of the space, as a recipe has it.
        budget: Number of epochs after which its last phase pauses; None if it never does.
        continues: Key of the suggestion that it resumes; None if it begins anew.
    """

    key: Hashable
    values: Mapping[str, Any]
    budget: int | None = None
    continues: Hashable | None = None


class Oracle(Protocol):
    """Suggests values one after the other; with the same seed and the same scores, the same."""

    def ask(self) -> Suggestion | None:
        """Returns values to try; None if there are no more."""

    def replace(self, suggestion: Suggestion, values: Mapping[str, Any]) -> Suggestion:
        """Returns a suggestion of other values in the place of one.

        Args:
            suggestion: One that has no score yet.
            values: A value for each field of the space.
        """

    def tell(self, suggestion: Suggestion, score: float | None) -> None:
        """Ends a suggestion.

        Args:
            suggestion: One that has no score yet.
            score: Its objective; None if it failed or has none.
        """

    def close(self) -> None:
        """Removes what the oracle has on disk."""
