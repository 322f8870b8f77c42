"""The formats of exported models: their words in recipes and for `tltool export --to`.

The light half of each format, without TensorFlow. A new one is its line here and its file
`tl_toolkit/export/<name>.py`, whose FORMAT says how to write it and how to ask it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tl_toolkit.errors import Problem, RecipeError, closest

__all__ = [
    "EXPORT_FORMATS",
    "ExportFormat",
    "FormatName",
    "MIN_TENSORFLOWS",
    "MinTensorflow",
    "check_formats",
    "check_min_tensorflow",
    "describe_formats",
    "find_missing",
    "split_formats",
]


@dataclass(frozen=True)
class ExportFormat:
    """A format that a finished model can be written in.

    Attributes:
        name: Its word, and the name of its module in `tl_toolkit.export`.
        path: Where it lies below the run's export folder.
        about: What it is for, in a few words.
        proof: The report that it equals the Keras model, beside it; "" where it cannot be asked.
        needs: Modules that write and run it, and do not come with the package.
        extra: The extra of the package that brings them.
    """

    name: str
    path: str
    about: str
    proof: str = ""
    needs: tuple[str, ...] = ()
    extra: str = ""


EXPORT_FORMATS = {
    export_format.name: export_format
    for export_format in (
        ExportFormat(
            "saved_model", "saved_model/1",
            "for TensorFlow Serving; published only if its outputs equal the model's",
            proof="parity.json",
        ),
        ExportFormat(
            "keras", "model.keras", "the whole model, for `keras.saving.load_model`",
            proof="parity.keras.json",
        ),
        ExportFormat(
            "litert", "model.tflite", "for phones and small machines (LiteRT, once TFLite)",
            proof="parity.litert.json",
        ),
        ExportFormat(
            "litert-int8", "model.int8.tflite",
            "the same in whole numbers of 8 bits, calibrated on training images",
            proof="parity.litert-int8.json",
        ),
        ExportFormat(
            "onnx", "model.onnx", "for ONNX Runtime",
            proof="parity.onnx.json", needs=("onnx", "tf2onnx", "onnxruntime"), extra="onnx",
        ),
        ExportFormat(
            "openvino", "openvino", "for OpenVINO: a folder with model.xml and model.bin",
            proof="parity.openvino.json", needs=("openvino",), extra="openvino",
        ),
        ExportFormat(
            "weights", "base.weights.h5", "the base, for `model.weights` and Keras's `load_weights`"
        ),
    )
}  # fmt: skip
"""The formats by name, in the order of help and documentation."""

MIN_TENSORFLOWS = ("2.15", "2.20")
"""The oldest TensorFlow that a SavedModel may be made for. 2.20 brought the operation of WebP."""

if TYPE_CHECKING:
    FormatName = str
    MinTensorflow = str
else:
    MinTensorflow = Literal[MIN_TENSORFLOWS]
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


def find_missing(names: Sequence[str]) -> Iterator[Problem]:
    """Yields a problem for each format whose modules are not installed; imports none of them.

    Args:
        names: Formats.
    """
    for form in (EXPORT_FORMATS[name] for name in names):
        missing = [name for name in form.needs if importlib.util.find_spec(name) is None]
        if missing:
            yield Problem(
                where=form.name,
                what=f"this format takes {', '.join(form.needs)}; not installed: "
                f"{', '.join(missing)}",
                hint=f"pip install 'tl-toolkit[{form.extra}]'",
            )


def check_formats(names: Sequence[str]) -> None:
    """Refuses formats whose modules are not installed.

    Args:
        names: Formats.

    Raises:
        RecipeError: Of one of them.
    """
    problems = list(find_missing(names))
    if problems:
        raise RecipeError(problems)


def check_min_tensorflow(release: str) -> None:
    """Refuses a release of TensorFlow that SavedModels are not made for.

    Args:
        release: As 2.15.

    Raises:
        RecipeError: It is none of MIN_TENSORFLOWS.
    """
    if release not in MIN_TENSORFLOWS:
        expected = f"Expected {' or '.join(MIN_TENSORFLOWS)}."
        what = f"{release!r} is no release that a SavedModel is made for"
        raise RecipeError(Problem("min_tensorflow", what, expected))
