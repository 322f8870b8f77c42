"""Problems of a recipe and their places: collected by every check, raised together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tl_toolkit.errors import DataError, Problem, RecipeError, ToolkitError, WeightsError
from tl_toolkit.recipe.messages import in_order
from tl_toolkit.recipe.tree import FieldPath

__all__ = ["Finding", "Findings", "as_error"]


@dataclass(frozen=True)
class Finding:
    """A problem of a recipe.

    Attributes:
        path: Its field.
        problem: The problem, in words.
        kind: The kind of error that it raises.
    """

    path: FieldPath
    problem: Problem
    kind: type[ToolkitError] = RecipeError


Findings = Iterator[Finding]


def as_error(findings: list[Finding], locate: Callable[[FieldPath], str]) -> ToolkitError:
    """Returns all findings as one error.

    Args:
        findings: At least one.
        locate: Returns the place of a field.
    """
    kinds = {finding.kind for finding in findings}
    kind = next(kind for kind in (RecipeError, DataError, WeightsError) if kind in kinds)
    problems = [replace(finding.problem, where=locate(finding.path)) for finding in findings]
    return kind(in_order(problems))
