"""Errors that a user can cause: problems in words, and the errors that carry them.

Every error of the toolkit knows the exit code of the command that ends with it. An error holds one
or more problems; a problem says where it is, what was found, what was expected, and what to type.
"""

import difflib
import errno
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "CheckFailedError",
    "DataError",
    "HostError",
    "NonFiniteError",
    "OutputError",
    "ParityError",
    "Problem",
    "ReceiptError",
    "RecipeError",
    "ReproductionError",
    "SearchError",
    "ThresholdError",
    "ToolkitError",
    "WeightsError",
    "closest",
    "lacks_memory",
    "nearest",
]


@dataclass(frozen=True)
class Problem:
    """A problem that the user can solve.

    Attributes:
        where: The place, as `recipes/x.yaml:14:9`, a path or a command; may be empty.
        what: What was found there, as `phases[1].unfreeze = 7`.
        expected: What would be right, a sentence; may be empty.
        hint: What to type, printed after `Try:`; may be empty.
    """

    where: str
    what: str
    expected: str = ""
    hint: str = ""

    def __str__(self) -> str:
        """Returns up to three lines: place and finding, what was expected, what to try."""
        head = "  ".join(part for part in (self.where, self.what) if part)
        hint = f"Try: {self.hint}" if self.hint else ""
        if self.expected:
            return "\n  ".join(line for line in (head, self.expected, hint) if line)
        if not hint:
            return head
        return f"{head} {hint}" if head.endswith((".", "?", "!", ":")) else f"{head}. {hint}"


class ToolkitError(Exception):
    """An error that a user can cause and mend; its text is meant to be read without a traceback.

    Args:
        message: One sentence, one problem, or all problems of one pass (at least one).
    """

    exit_code = 1

    def __init__(self, message: str | Problem | Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = _as_problems(message)
        # The problems alone are the arguments, so that the error can be pickled between processes.
        super().__init__(self.problems)

    def __str__(self) -> str:
        """Returns all problems, one below the other, in the words of Python."""
        return "\n".join(str(_in_python(problem)) for problem in self.problems)

    def as_typed(self) -> str:
        """Returns all problems, with options as they are typed in a command."""
        return "\n".join(str(problem) for problem in self.problems)


class RecipeError(ToolkitError):
    """The recipe, an override or the use of a command is wrong."""

    exit_code = 2


class DataError(ToolkitError):
    """The images, their folders or their table are missing or cannot be used."""

    exit_code = 3


class WeightsError(ToolkitError):
    """A weight file is missing, damaged, or belongs to another network."""

    exit_code = 3


class CheckFailedError(ToolkitError):
    """A requested check failed."""

    exit_code = 4


class ParityError(CheckFailedError):
    """The outputs of an exported model differ from those of the Keras model."""


class ReceiptError(CheckFailedError):
    """A frozen tensor changed, or no tensor of a trainable block did."""


class ReproductionError(CheckFailedError):
    """A run that was trained again has other weights, metrics or predictions than the first."""


class ThresholdError(CheckFailedError):
    """A metric is worse than the limit given with `--fail-under`."""


class SearchError(ToolkitError):
    """A search ended without one completed trial."""

    exit_code = 5


class NonFiniteError(ToolkitError):
    """The loss or a weight became infinite or not a number."""

    exit_code = 6


class OutputError(ToolkitError):
    """The output cannot be written: disk full, no permission, or a folder already used."""

    exit_code = 7


class HostError(ToolkitError):
    """A host of several that train one model is gone, or trains something else."""

    exit_code = 8


def nearest(name: str, choices: Iterable[str], *, likeness: float = 0.6) -> str:
    """Returns the choice that the user probably meant by `name`, or "" if none is near.

    Args:
        name: As the user typed it.
        choices: Known names.
        likeness: The least ratio of equal letters, from 0 to 1.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=likeness)
    return by_lower[near[0]] if near else ""


def closest(name: str, choices: Iterable[str]) -> str:
    """Returns "did you mean 'resnet50'?" for the choice nearest to `name`, or "" if none is.

    Args:
        name: As the user typed it.
        choices: Known names.
    """
    choice = nearest(name, choices)
    return f"did you mean {choice!r}?" if choice else ""


_PARAMETERS = {
    "activations": "block",
    "any": "unfinished=True",
    "block": "block",
    "class": "target",
    "data": "data",
    "devices": "devices",
    "filters": "layer",
    "host-index": "host_index",
    "host-wait": "host_wait",
    "hosts": "hosts",
    "keep": "keep",
    "method": "method",
    "native": "native=True",
    "out": "out",
    "overwrite": "overwrite=True",
    "phase": "phase",
    "resume": "resume=True",
    "to": "formats",
    "top": "top",
    "tta": "tta",
    "tta-views": "tta",
}
_OPTION = re.compile(rf"(?<![\w-])--({'|'.join(_PARAMETERS)})(?![\w-])(?: ([^\s,=]+))?")


def _in_python(problem: Problem) -> Problem:
    """Returns the problem with parameters of Python for options; commands stay as they are."""
    parts = {name: getattr(problem, name) for name in ("where", "what", "expected", "hint")}
    return Problem(
        **{
            name: text if "tltool " in text else _OPTION.sub(_name_parameter, text)
            for name, text in parts.items()
        }
    )


def _name_parameter(option: re.Match[str]) -> str:
    name, value = _PARAMETERS[option[1]], option[2]
    if value is None:
        return name
    takes_value = option[1] in ("devices", "keep", "method", "out", "phase", "to", "tta-views")
    return f"{name}={value}" if takes_value else f"{name} {value}"


def _as_problems(message: str | Problem | Sequence[Problem]) -> tuple[Problem, ...]:
    if isinstance(message, str):
        return (Problem(where="", what=message),)
    if isinstance(message, Problem):
        return (message,)
    if not message:
        raise ValueError("An error needs at least one problem.")
    return tuple(message)


def lacks_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory ran out: of Python, numpy, TensorFlow, the system.

    Args:
        error: The error.
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return type(error).__name__ == "ResourceExhaustedError" and "alloc" in str(error)
