"""What people read of a command that did not reach its end: why, what it left, how to go on."""

from __future__ import annotations

import errno
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.states import describe_found, find_state

__all__ = ["describe_death", "describe_kept", "describe_lack", "first_line", "lacks_memory"]

_STOPPED = ("interrupted", "killed")
_SMALLER = "add a smaller data.batch_size=N to what follows."


def describe_kept(
    run: RunFolder | None, arguments: list[str], states: Sequence[str] = _STOPPED
) -> str:
    """Returns a sentence on what a command that ended leaves to continue from, "" for nothing.

    Args:
        run: Its run, if it had one.
        arguments: As typed after `tltool`.
        states: What may have become of the run.
    """
    if run is None:
        return ""
    kept = "Trials that are done are kept"
    if run.kind == "run":
        if not run.has_begun() or find_state(run) not in states:
            return ""
        kept = "What was done is kept"
        if run.checkpoint.is_file():
            kept = "The best weights so far are kept"
    elif run.kind == "auto":
        if not run.auto.is_file():
            return ""
        found = describe_found(run)
        kept = f"{found[0].upper()}{found[1:]}"
    elif not run.search.is_file():
        return ""
    resumed = [argument for argument in arguments if argument not in ("--overwrite", "--resume")]
    if not any(argument.partition("=")[0] == "--out" for argument in arguments):
        resumed += ["--out", str(run.path)]
    command = shlex.join(["tltool", *resumed, "--resume"])
    place = "" if run.kind == "auto" else f" in {run.path}"
    return f" {kept}{place}\n  Try: {command}"


def describe_death(number: int, place: Path | None, arguments: list[str]) -> str:
    """Returns what a signal that ended the process of a run may mean, and how to go on.

    Args:
        number: Of the signal.
        place: Folder of its run, if it had one.
        arguments: As typed after `tltool`.
    """
    name = signal.Signals(number).name
    cause = {
        signal.SIGKILL: "as the system does when memory runs out",
        signal.SIGSEGV: "as TensorFlow does when it gets no memory",
        signal.SIGABRT: "as TensorFlow does at an error of its own",
    }.get(signal.Signals(number), "")
    run = None if place is None else RunFolder(place)
    kept = describe_kept(run, arguments)
    if kept and run is not None and run.kind == "run" and number != signal.SIGABRT:
        kept = f" If memory ran out, {_SMALLER}{kept}"
    log = f" command.log in {place} may say more." if place and number != signal.SIGKILL else ""
    return f"The process that trains was ended by {name}{cause and f', {cause}'}.{log}{kept}"


def lacks_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory ran out: of Python, numpy, TensorFlow, the system.

    Args:
        error: The error.
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return type(error).__name__ == "ResourceExhaustedError" and "alloc" in str(error)


def describe_lack(
    error: BaseException, log: Path, run: RunFolder | None, arguments: list[str]
) -> str:
    """Returns that memory ran out, and how to go on with less.

    Args:
        error: What said so.
        log: Where the traceback is.
        run: The run of the command, if it had one.
        arguments: As typed after `tltool`.
    """
    kept = describe_kept(run, arguments, (*_STOPPED, "failed"))
    if kept and run is not None and run.kind == "run":
        kept = f"\n  {_SMALLER[0].upper()}{_SMALLER[1:]}{kept}"
    return f"Memory ran out: {first_line(error)}\n  The traceback is in {log}{kept}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text.

    Args:
        error: The error.
    """
    return (str(error).splitlines() or ["no message"])[0] or "no message"
