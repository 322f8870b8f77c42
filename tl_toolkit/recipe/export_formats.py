"""The formats of exported models: their words in recipes and for `tltool export --to`.

The light half of each format, without TensorFlow. A new one is its line here and its file
`tl_toolkit/export/<name>.py`, whose FORMAT says how to write it and how to ask it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tl_toolkit.errors import Problem, RecipeError, closest

__all__ = ["EXPORT_FORMATS", "ExportFormat", "FormatName", "describe_formats", "split_formats"]


@dataclass(frozen=True)
class ExportFormat:
    """A format that a finished model can be written in.

    Attributes:
        name: Its word, and the name of its module in `tl_toolkit.export`.
        path: Where it lies below the run's export folder.
        about: What it is for, in a few words.
        proof: The report that it equals the Keras model, beside it; "" where it cannot be asked.
    """

    name: str
    path: str
    about: str
    proof: str = ""


EXPORT_FORMATS = {
    export_format.name: export_format
    for export_format in (
        ExportFormat(
            "saved_model", "saved_model/1",
            "for TensorFlow Serving; published only if its outputs equal the model's",
            proof="parity.json",
        ),
        ExportFormat(
            "weights", "base.weights.h5", "the base, for `model.weights` and Keras's `load_weights`"
        ),
    )
}  # fmt: skip
"""The formats by name, in the order of help and documentation."""

if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal[tuple(EXPORT_FORMATS)]


def describe_formats() -> str:
    """Returns all formats as a phrase: `a (for x) and b (y)`."""
    words = [f"{form.name} ({form.about})" for form in EXPORT_FORMATS.values()]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if words[1:] else words[0]


def split_formats(values: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the formats that are named, each once: `["a,b", "c"]` becomes `("a", "b", "c")`.

    Args:
        values: Names, or several with commas between.

    Raises:
        RecipeError: One is unknown, or none is named.
    """
    several = [values] if isinstance(values, str) else values
    names = [name.strip() for value in several for name in value.split(",")]
    unknown = [name for name in names if name not in EXPORT_FORMATS]
    if unknown or not names:
        near = closest(unknown[0], EXPORT_FORMATS) if unknown else ""
        raise RecipeError(
            Problem(
                where="--to",
                what=(f"{unknown[0]!r} is no format" if unknown else "names no format")
                + (f"; {near}" if near else ""),
                expected=f"Formats: {', '.join(EXPORT_FORMATS)}.",
                hint=f"--to {','.join(EXPORT_FORMATS)}",
            )
        )
    return tuple(dict.fromkeys(names))
