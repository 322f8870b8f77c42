"""The entry point: finds the verb, and turns every error into a sentence and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FrameType

import click

from tl_toolkit.errors import ToolkitError, closest
from tl_toolkit.runtime import skip_optional_imports

_VERBS = {
    "finetune": "Fine-tune, evaluate and export what a recipe says.",
    "search": "Try other values of a recipe's fields and keep the best.",
    "sweep": "Train a recipe with each depth of unfreezing.",
    "evaluate": "Measure a run's model.",
    "predict": "Ask a run's model about images.",
    "export": "Export a run's model, checked against it.",
    "validate": "Check a recipe, its data and its weights; trains nothing.",
    "init": "Write a first recipe for a folder or table of images.",
    "recipes": "List, show and copy the shipped recipes.",
    "models": "List, show, draw and probe architectures.",
    "cache": "Show and empty the feature store.",
    "schema": "Print the JSON Schema of recipes.",
    "env": "Print versions and devices.",
}
_HOMES = {
    "finetune": "training",
    "search": "searching",
    "sweep": "searching",
    "evaluate": "using",
    "predict": "using",
    "export": "using",
    "validate": "recipes",
    "init": "recipes",
    "recipes": "recipes",
    "models": "models",
    "cache": "cache",
    "schema": "recipes",
    "env": "models",
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


class _LazyGroup(click.Group):
    """Imports a verb's module when the verb is called: `--help` must not pay for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            ctx.fail(f"There is no command {cmd_name!r}; {closest(cmd_name, _VERBS)}".rstrip("; "))
        module = import_module(f"tl_toolkit.cli.{_HOMES[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True
)
@click.version_option(package_name="tl-toolkit", prog_name="tltool")
def tltool() -> None:
    """Transfer learning for Keras 3: a recipe and a folder of images become a served model.

    Start with: tltool recipes list, or tltool init FOLDER_OF_IMAGES
    """


def main() -> None:
    """Runs the command line and exits with its code."""
    signal.signal(signal.SIGTERM, _interrupt)
    skip_optional_imports()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command.

    Returns:
        Its exit code: 0 done, 1 unexpected failure, 2 usage or recipe, 3 data or weights, 4 a check
        failed, 5 a search without a completed trial, 6 not finite, 7 output unwritable, 130
        interrupted.
    """
    try:
        result = tltool.main(arguments, prog_name="tltool", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ToolkitError as error:
        return _report(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _report_interrupt()
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the last line of defence: never a traceback on the terminal
        causes = list(_causes(error))
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            return _report_interrupt()  # libraries wrap it while they are imported
        if any(_is_full(cause) for cause in causes):
            return _report("The disk is full or read-only. Try: make room, or --out elsewhere.", 7)
        return _report_unexpected(error, arguments)
    return result if isinstance(result, int) else 0


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_full(error: BaseException) -> bool:
    # TensorFlow's own writers tell it in words only.
    is_told = "No space left on device" in str(error)
    return is_told or (isinstance(error, OSError) and error.errno in _FULL)


def _report_interrupt() -> int:
    from tl_toolkit.cli.console import current_log

    log = current_log()
    kept = f" The best weights so far are kept in {log.parent}" if log else ""
    return _report(f"Interrupted.{kept}", 130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _report(message: str, code: int) -> int:
    from tl_toolkit.cli.console import restore_noise, stop_live, warn

    restore_noise()
    stop_live()
    warn(message)
    return code


def _report_unexpected(error: Exception, arguments: list[str]) -> int:
    """Keeps the traceback in a log and tells where."""
    from tl_toolkit.cli.console import current_log, restore_noise

    noise = restore_noise()
    log = current_log() or Path(tempfile.mkdtemp(prefix="tltool-"), "command.log")
    text = "".join(traceback.format_exception(error))
    try:
        with open(log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"$ tltool {' '.join(arguments)}\n{noise}{text}")
    except OSError:
        log = Path("(nowhere: the log cannot be written)")
    message = (
        f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    )
    return _report(f"Unexpected failure: {message}\n  The traceback is in {log}", 1)
