"""The section of recipes for regression."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tl_toolkit.recipe.fields import Conflict, Listed, Text, refuse_repeated
from tl_toolkit.recipe.tasks import TaskSection, field_of, refuse_head, require_table

__all__ = ["RESERVED", "RegressionSection"]

RESERVED = ("path", "split", "sha256", "verdict", "reason")
"""Columns of a manifest, whose names no target can have."""


class RegressionSection(TaskSection):
    """One or several numbers for each image, from columns of a table."""

    kind: Literal["regression"] = Field(default="regression", description="The task.")
    columns: Annotated[tuple[Text, ...], Field(min_length=1), Listed] | None = Field(
        default=None,
        description="Columns of the table that are predicted; by default all but path, split and "
        "that of data.group.",
        examples=[["age"]],
    )
    loss: Literal["mse", "mae", "huber"] = Field(
        default="mse",
        description="Squared error, absolute error, or Huber's, which is squared up to huber_delta "
        "and absolute beyond; of targets divided by their standard deviation in training.",
    )
    huber_delta: float = Field(
        default=1.0, gt=0, description="Of huber, in standard deviations, above 0."
    )
    coverage: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        examples=[0.9],
        description="Give each number an interval that holds the true one with this probability "
        "(split-conformal, by the validation images); none by default.",
    )

    score: ClassVar[str] = "r2"
    absent: ClassVar[Mapping[str, str]] = {
        "balance": "numbers have no classes of unequal size",
        "calibrate": "numbers are no probabilities; coverage gives each an interval",
        "ood": "distances are from the means of classes",
    }
    has_classes: ClassVar[bool] = False
    why_not_mirrored: ClassVar[str] = (
        "a number may be a place or a direction, which the mirror image changes"
    )
    grouped_by: ClassVar[str] = "column"
    titles: ClassVar[Mapping[str, str]] = {
        "mae": "MAE",
        "rmse": "RMSE",
        "r2": "R2",
        "half_width": "half width",
    }
    baselines: ClassVar[Mapping[str, str]] = {
        "mean": "mean of training",
        "neighbors": "nearest neighbours",
        "probe": "linear probe",
    }
    lower_is_better: ClassVar[frozenset[str]] = frozenset({"loss", "mae", "rmse"})
    ungraded: ClassVar[frozenset[str]] = frozenset({"half_width"})
    tunable: ClassVar[tuple[str, ...]] = ("loss", "huber_delta", "coverage")

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields conflicts for repeated and reserved columns, and for a delta without huber.

        Args:
            values: The fields of the section, before validation.
        """
        yield from super().find_conflicts(values)
        yield from refuse_repeated(values.get("columns"), "columns")
        columns = values.get("columns")
        for index, name in enumerate(columns if isinstance(columns, list | tuple) else ()):
            if name in RESERVED:
                words = ", ".join(RESERVED)
                yield Conflict(("columns", index), f"expected another name than {words}")
        if values.get("huber_delta") not in (None, 1.0) and values.get("loss") != "huber":
            expected = f"expected 1.0 or loss: huber, got {values['huber_delta']!r}"
            yield Conflict(("huber_delta",), expected, "loss: huber")

    @classmethod
    def find_recipe_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields conflicts for sources without numbers, classes, and heads for classes.

        Args:
            values: The recipe's sections, before validation.
        """
        yield from super().find_recipe_conflicts(values)
        yield from require_table("regression", values.get("data"))
        yield from refuse_head("regression", field_of(values.get("model"), "head"))
        if field_of(values.get("data"), "classes") is not None:
            expected = "expected none for regression: its outputs are numbers"
            yield Conflict(("data", "classes"), expected, "~data.classes")


SPEC = RegressionSection
