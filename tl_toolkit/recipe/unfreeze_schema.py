"""The sections that `unfreeze` of a phase may be, and the parts that they make of it."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from tl_toolkit.recipe.fields import Conflict, Listed, Section, Text, refuse_repeated

__all__ = ["Stage", "UnfreezeFrom", "UnfreezeGradual", "UnfreezeOnly", "suggest_unfreeze"]


def suggest_unfreeze(value: object) -> str:
    """Returns what a word for `unfreeze` probably means: a unit's name.

    Args:
        value: The word; anything else means nothing.
    """
    if not isinstance(value, str) or not value:
        return ""
    if value.lower() in ("none", "head"):
        return "unfreeze: 0"
    if value.lower() in ("all", "everything", "base"):
        return "unfreeze: N, the number of blocks; tltool models show BASE"
    return f"unfreeze: {{from: {value}}}"


class UnfreezeFrom(Section):
    """The unit that training begins at; it and everything after it trains."""

    model_config = ConfigDict(
        validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    unit: Text = Field(
        alias="from",
        description="Name of the first unit that trains; `tltool models show BASE` lists them.",
        examples=["conv_dw_12"],
    )


class UnfreezeOnly(Section):
    """The blocks or units that train; what follows them stays frozen, as what comes before."""

    only: Annotated[
        tuple[Text, ...],
        Field(min_length=1),
        BeforeValidator(
            lambda value: (value,) if isinstance(value, str) else value,
            json_schema_input_type=Text | list[Text],
        ),
        Listed,
    ] = Field(
        description="Names of blocks or units, or one name (surgical fine-tuning: Lee et al., "
        "2023); they and the head train.",
        examples=["block3", ["conv_dw_1", "conv_dw_2"]],
    )

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields a conflict for each repeated name.

        Args:
            values: As in `Section.find_conflicts`.
        """
        yield from refuse_repeated(values.get("only"), "only")


class UnfreezeGradual(Section):
    """One block more after each epoch, counted from the output (Howard and Ruder, 2018)."""

    gradual: int = Field(
        ge=1,
        description="Blocks that train in the end; at first it is one. Each further block begins a "
        "part of the phase, called NAME-1, NAME-2 and so on, with a fresh optimizer and a folder "
        "of its own; a schedule of the rate runs over all of them.",
        examples=[3],
    )
    every: int = Field(
        default=1,
        ge=1,
        le=100_000,
        description="Epochs before the next block; the last has the rest of them.",
    )


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a phase that trains the same units throughout.

    Attributes:
        name: Name of the phase, with a number where it has several parts.
        unfreeze: What trains in it, as in a phase, but at once.
        first_epoch: Epochs of the phase before it.
        epochs: Its own.
    """

    name: str
    unfreeze: int | UnfreezeFrom | UnfreezeOnly | tuple[str, ...]
    first_epoch: int
    epochs: int
