"""The entry point: finds the verb, and turns every error into a sentence and an exit code."""

from __future__ import annotations

import atexit
import contextlib
import errno
import faulthandler
import io
import logging
import math
import os
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import click

from tl_toolkit import __version__
from tl_toolkit.cli.command import current
from tl_toolkit.cli.endings import (
    describe_death,
    describe_kept,
    describe_lack,
    first_line,
)
from tl_toolkit.cli.supervise import supervise
from tl_toolkit.errors import Problem, ToolkitError, closest, lacks_memory
from tl_toolkit.runs.files import describe_full
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.processes import find_age
from tl_toolkit.runtime import claim_process
from tl_toolkit.training.interrupts import ONE_PRESS_SECONDS


@dataclass(frozen=True)
class _Verb:
    """A verb: `module` of this folder holds its command, `<name>_command`, `_` for `-`."""

    module: str
    help: str


_VERBS = {
    "finetune": _Verb("training", "Fine-tune, evaluate and export the model of a recipe."),
    "auto": _Verb("automatic", "Make the best model of a folder that a number of minutes allows."),
    "search": _Verb("searching", "Try other values of a recipe's fields and keep the best."),
    "sweep": _Verb("searching", "Train a recipe with each depth of unfreezing."),
    "rank-bases": _Verb("ranking", "Rank bases on the images of a recipe, without training."),
    "curve": _Verb("curving", "Train a recipe on parts of its images, and from scratch."),
    "evaluate": _Verb("using", "Measure a run's model."),
    "predict": _Verb("using", "Run a run's model on images."),
    "explain": _Verb("explaining", "Show what a model sees: heat maps, activations, filters."),
    "export": _Verb("using", "Export a run's model, checked against it."),
    "report": _Verb("reporting", "Write the report of a run or a search, one page of HTML."),
    "benchmark": _Verb("benchmarking", "Time a run's model in each exported format."),
    "serve": _Verb("serving", "Answer requests over HTTP with a run's exported model."),
    "runs": _Verb("runs", "List, show and remove runs."),
    "compare": _Verb("comparing", "Compare runs: scores, recipes, images that differ."),
    "embed": _Verb("features", "Write a vector of features for each image."),
    "similar": _Verb("features", "Find the images that are most like one."),
    "label-next": _Verb("features", "Choose the images to label next."),
    "card": _Verb("carding", "Write a run's model card."),
    "push": _Verb("pushing", "Push a run's model to the Hugging Face Hub, or to a folder."),
    "reproduce": _Verb("reproducing", "Train a finished run again, and compare."),
    "validate": _Verb("recipes", "Check a recipe, its data and its weights; trains nothing."),
    "data": _Verb("data", "Check sets of images, and split them; changes none."),
    "init": _Verb("recipes", "Write a first recipe for a folder or table of images."),
    "recipes": _Verb("recipes", "List, show and copy the shipped recipes."),
    "models": _Verb("models", "List, show, draw and probe architectures."),
    "weights": _Verb("weights", "List, pull, verify and import published weight files."),
    "cache": _Verb("cache", "Show, fill and empty the feature store."),
    "schema": _Verb("recipes", "Print the JSON Schema of recipes."),
    "env": _Verb("env", "Print what a bug report needs."),
}
"""All verbs, in the order of `--help`. A new verb is a file here and a line in this table."""

_TRAINING = ("finetune", "auto", "search", "sweep", "curve", "reproduce")
"""Verbs that train, in a process of their own: memory that runs out ends it without an error."""

_SYNONYMS = {
    **dict.fromkeys(("train", "fit", "fine-tune", "run"), "finetune"),
    **dict.fromkeys(("tune", "hyperparameters"), "search"),
    **dict.fromkeys(("automl", "best"), "auto"),
    **dict.fromkeys(("eval", "test", "score"), "evaluate"),
    **dict.fromkeys(("infer", "inference", "classify"), "predict"),
    **dict.fromkeys(("check", "lint"), "validate"),
    **dict.fromkeys(("gradcam", "heatmap", "saliency", "visualize"), "explain"),
    **dict.fromkeys(("new", "create"), "init"),
    "save": "export",
    **dict.fromkeys(("server", "http", "rest", "host"), "serve"),
    **dict.fromkeys(("info", "doctor"), "env"),
    **dict.fromkeys(("repeat", "rerun", "repro"), "reproduce"),
    **dict.fromkeys(("ls", "list", "history", "remove", "prune"), "runs"),
    **dict.fromkeys(("features", "vectors"), "embed"),
    **dict.fromkeys(("nearest", "neighbors", "neighbours"), "similar"),
    **dict.fromkeys(("bases", "rank"), "rank-bases"),
    **dict.fromkeys(("active", "annotate"), "label-next"),
    **dict.fromkeys(("diff", "versus"), "compare"),
    **dict.fromkeys(("pull", "download", "fetch"), "weights"),
    **dict.fromkeys(("publish", "upload"), "push"),
}
"""Words of other tools for our verbs, which no letters have in common."""

_interrupted = -math.inf
_STDOUT = "stdout"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


class _ReaderEndedError(Exception):
    """A pipe that nobody reads; Click and Rich would end the process with 1, a failure."""


@contextlib.contextmanager
def _noting_ended_readers() -> Iterator[None]:
    try:
        yield
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        raise _ReaderEndedError from error


class _LazyGroup(click.Group):
    """Imports a verb's module when the verb is called: `--help` must not pay for all verbs."""

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        with _noting_ended_readers():  # `--help` prints here
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _noting_ended_readers():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            word = _SYNONYMS.get(cmd_name.lower())
            guess = f"did you mean {word!r}?" if word else closest(cmd_name, _VERBS)
            ctx.fail(f"There is no command {cmd_name!r}; {guess}".rstrip("; "))
        module = import_module(f"tl_toolkit.cli.{_VERBS[cmd_name].module}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in _VERBS.items()])


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True
)
@click.version_option(__version__, prog_name="tltool")
def tltool() -> None:
    """Transfer learning for Keras 3: a recipe and a folder of images become a served model.

    Start with: tltool recipes list, or tltool init FOLDER_OF_IMAGES
    """


def main() -> None:
    """Runs the command line and exits with its code."""
    codes: list[int] = []
    atexit.register(_end, codes)  # the first is called last
    open_missing_streams()
    faulthandler.enable()  # a crash's stack goes where stderr goes: the terminal, or a run's log
    name_stdout()
    handle_signals()
    claim_process()
    arguments = sys.argv[1:]
    began = time.monotonic() - find_age()
    current.clock = lambda: time.monotonic() - began
    if arguments and arguments[0] in _TRAINING:
        codes.append(supervise(lambda: run(arguments), partial(_report_death, arguments)))
    else:
        codes.append(run(arguments))
    sys.exit(codes[-1])


def _end(codes: list[int]) -> None:
    """Ends the process, without the 0.6 s in which TensorFlow frees what ends with it."""
    if not codes:  # it ends by an exception, which Python has still to say
        return
    logging.shutdown()
    with contextlib.suppress(OSError, ValueError):  # nobody reads them: Python's end says so
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[-1])


def open_missing_streams() -> None:
    """Opens the null device where stdin, stdout or stderr is closed, as by `>&-`.

    The next file that is opened would get the descriptor else, and receive what is printed.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115


class _Stdout(io.FileIO):
    """File descriptor 1, whose errors name stdout as those of files name their path."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, _STDOUT) from None


def name_stdout() -> None:
    """Lets errors of stdout name it: a full disk may be that of stdout, or of a run."""
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Stdout(stream.fileno(), "w", closefd=False)),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )


def handle_signals() -> None:
    """Lets SIGTERM, and SIGHUP of a terminal that is closed, end a run as Ctrl-C does.

    Two of them at once are one: a service that stops sends it to parent and child. What `nohup`
    ignores stays ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def run(arguments: list[str]) -> int:
    """Runs one command.

    Args:
        arguments: As typed after `tltool`.

    Returns:
        Its exit code: 0 done, 1 unexpected failure, 2 usage or recipe, 3 data or weights, 4 a check
        failed, 5 a search without a completed trial, 6 not finite, 7 output unwritable, 130
        interrupted, 141 the reader of a pipe ended.
    """
    current.begin()
    try:
        result = tltool.main(arguments, prog_name="tltool", standalone_mode=False)
        sys.stdout.flush()  # what fails here would fail when Python ends, without a sentence
    except (Exception, KeyboardInterrupt) as error:  # never a traceback on the terminal
        current.end()
        return _report(error, arguments)
    finally:
        current.end()
    return result if isinstance(result, int) else 0


def _report(error: BaseException, arguments: list[str]) -> int:
    """Prints an error for people, and returns its exit code."""
    causes = list(_causes(error))
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, ToolkitError):
        return _warn(error.as_typed(), error.exit_code)
    if isinstance(error, BrokenPipeError | _ReaderEndedError):
        # The reader of our output has ended, as `head` does; nobody reads the rest.
        _drop_stdout()
        return 128 + signal.SIGPIPE
    # Libraries wrap an interrupt while they are imported.
    if any(isinstance(cause, KeyboardInterrupt | click.Abort) for cause in causes):
        return _warn(f"Interrupted.{describe_kept(current.run, arguments)}", 130)
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno == errno.ENAMETOOLONG:
            return _warn(str(_describe_long_name(cause)), 2)
    if any(_is_full(cause) for cause in causes):
        full = next(cause for cause in causes if _is_full(cause))
        if getattr(full, "filename", None) == _STDOUT:
            _drop_stdout()
            return _warn(str(_describe_full_stdout(full)), 7)
        return _warn(str(describe_full(full, current.run.path if current.run else Path.cwd())), 7)
    lacking = next((cause for cause in causes if lacks_memory(cause)), None)
    if lacking is not None:
        log = _write_traceback(error, arguments)
        return _warn(describe_lack(lacking, log, current.run, arguments), 1)
    return _report_unexpected(error, arguments)


def _report_death(arguments: list[str], number: int, place: Path | None) -> None:
    """Says what a signal that ended the process of a run may mean, and how to go on."""
    if sys.stderr.isatty():
        sys.stderr.write("\n\x1b[?25h")  # below its bar, with the cursor that it had hidden
    _warn(describe_death(number, place, arguments), 128 + number)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_full(error: BaseException) -> bool:
    # TensorFlow's own writers report it in words only.
    is_reported = "No space left on device" in str(error)
    return is_reported or (isinstance(error, OSError) and error.errno in _FULL)


def _describe_long_name(error: OSError) -> Problem:
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    shown = name if len(name) <= 80 else f"{name[:60]}...{name[-17:]}"
    what = f"{shown!r}: the name is too long for this file system"
    return Problem("", what, "Most take 255 bytes for a name.", "a shorter name")


def _drop_stdout() -> None:
    """Throws away what is printed from here on, and what could not be printed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _describe_full_stdout(error: BaseException) -> Problem:
    reason = getattr(error, "strerror", None) or "the disk is full"
    return Problem(_STDOUT, f"cannot be written: {reason}", "", "make room, or another place")


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted
    before, _interrupted = _interrupted, time.monotonic()
    if _interrupted - before > ONE_PRESS_SECONDS:
        raise KeyboardInterrupt


def _warn(message: str, code: int) -> int:
    from tl_toolkit.cli.console import warn

    with contextlib.suppress(OSError):  # the terminal may be closed
        warn(message)
    return code


def _report_unexpected(error: BaseException, arguments: list[str]) -> int:
    """Writes the traceback to a log and prints where it is."""
    log = _write_traceback(error, arguments)
    message = f"{type(error).__name__}: {first_line(error)}"
    return _warn(f"Unexpected failure: {message}\n  The traceback is in {log}", 1)


def _write_traceback(error: BaseException, arguments: list[str]) -> Path:
    """Writes the traceback to the log of the run, or to one of its own; returns where it is."""
    log = current.log or Path(RunFolder.log.relative)
    text = "".join(traceback.format_exception(error))
    try:
        log = current.log or Path(tempfile.mkdtemp(prefix="tltool-"), log)
        with open(log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"$ {shlex.join(['tltool', *arguments])}\n{text}")
    except OSError:
        log = Path("(nowhere: the log cannot be written)")
    return log
