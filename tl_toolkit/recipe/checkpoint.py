"""The section that says how often the exact state of a training is written."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tl_toolkit.recipe.fields import Section, expects, in_words

__all__ = ["Checkpoint", "CheckpointField"]

_EXPECTED = "expected a number of epochs, steps or minutes, as 1 epoch, 500 steps or 10 minutes"


class Checkpoint(Section):
    """How often a run writes the state that `--resume` goes on from."""

    every: Annotated[
        str, Field(pattern=r"^[1-9][0-9]{0,8} (epoch|step|minute)s?$"), expects(_EXPECTED)
    ] = Field(
        default="1 minute",
        examples=["1 epoch", "500 steps"],
        description="After so many epochs, steps or minutes, and at the end of the last phase. The "
        "last two states are kept; what was done since is done again, with the same result.",
    )


def _as_checkpoint(value: object) -> Any:
    # Validated here: a union would name its members in the place of every problem.
    if isinstance(value, Mapping):
        return Checkpoint.model_validate(value)
    if value is False or isinstance(value, Checkpoint):
        return value
    raise in_words("expected false, or a section as `every: 1 epoch`")


CheckpointField = Annotated[
    Checkpoint | Literal[False],
    BeforeValidator(_as_checkpoint, json_schema_input_type=Checkpoint | Literal[False]),
]
"""What the field takes: false for no states, or the section."""
