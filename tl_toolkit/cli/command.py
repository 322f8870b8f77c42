"""The command that runs: its terminal, its log, and the printer of its run's events.

C++ libraries write to the process's stderr what no setting silences. As soon as a command knows its
run, it sends file descriptor 2 to the run's command.log, and keeps the terminal for its own text.
What TensorFlow writes before an abort is in that log then, and so is the stack of a crash.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tl_toolkit.cli.supervise import report_run
from tl_toolkit.events import Event, Handler
from tl_toolkit.runs.folder import RunFolder

if TYPE_CHECKING:
    from tl_toolkit.printing.printer import Printer


class Command:
    """The streams that a command's text goes to.

    Attributes:
        log: The log that the process's stderr goes to, or None.
        run: The folder of the run that the command writes, or None.
        clock: Returns the seconds since the process began; None in a process of others.
    """

    def __init__(self) -> None:
        self.log: Path | None = None
        self.run: RunFolder | None = None
        self.clock: Callable[[], float] | None = None
        self._printer: Printer | None = None
        self._terminal: TextIO | None = None
        self._saved: int | None = None

    @property
    def terminal(self) -> TextIO:
        """The stream for people: what stderr was when the command began."""
        return self._terminal or sys.stderr

    def begin(self) -> None:
        """Forgets an earlier command of the same process."""
        self.log = self.run = None

    def print_events(self) -> Handler:
        """Returns a handler that prints the events of the command."""
        from tl_toolkit.printing.printer import Printer  # `--help` must not pay for it

        self._printer = Printer(self.terminal)
        return self._printer.handle

    def print_run(self) -> Handler:
        """Returns a handler that prints the events of a run, and writes all text to its log."""
        from tl_toolkit.printing.printer import Printer

        def handle(event: Event) -> None:
            if event.kind == "run_began":
                self.run = RunFolder(event.facts["folder"])
                report_run(self.run.path)
                self._divert(self.run.log)
                self._printer = Printer(self.terminal, command=_command_line())
            if self._printer is not None:
                with _outliving_terminal():
                    self._printer.handle(event)

        return handle

    def use_run(self, folder: RunFolder) -> None:
        """Sends stderr to the log of a finished run that the command reads.

        Args:
            folder: The run's folder.
        """
        folder.append_log(f"$ {_command_line()}")
        self._divert(folder.log)

    def end(self) -> None:
        """Ends live displays on the terminal, and sends stderr there again."""
        if self._printer is not None:
            with _outliving_terminal():
                self._printer.stop()
            self._printer = None
        if self._saved is not None:
            with _outliving_terminal():
                sys.stderr.flush()
            os.dup2(self._saved, 2)
            os.close(self._saved)
            self._saved = None
        if self._terminal is not None:
            with _outliving_terminal():
                self._terminal.close()
            self._terminal = None

    def _divert(self, log: Path) -> None:
        """Sends file descriptor 2 to a log; if that cannot be written, it stays where it is."""
        is_terminal = _writes_to_stderr(sys.stderr)
        sys.stderr.flush()
        try:
            with open(log, "ab") as file:
                saved = os.dup(2)
                os.dup2(file.fileno(), 2)
        except OSError:
            return
        self.log, self._saved = log, saved
        if is_terminal:
            self._terminal = open(os.dup(saved), "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115  (`end` closes it)


@contextlib.contextmanager
def _outliving_terminal() -> Iterator[None]:
    """Ends the block in silence where the terminal was closed: SIGHUP ends the run, in its way."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def _command_line() -> str:
    return shlex.join(["tltool", *sys.argv[1:]])


def _writes_to_stderr(stream: TextIO) -> bool:
    """Returns whether a stream writes to file descriptor 2; False in a notebook or a test."""
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False


current = Command()
