"""Runs a command in a child process, so that somebody is left to say what became of it.

Memory that runs out ends a process without an exception: the kernel kills it, or TensorFlow's
allocation fails inside C++.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["report_run", "supervise"]

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>
_report: int | None = None


def supervise(work: Callable[[], int], explain: Callable[[int, Path | None], None]) -> int:
    """Returns the exit code of the work, done in a child process where Linux can fork one.

    Signals of a terminal are sent to both processes; others this one passes on, so that the child
    may get one twice: its handlers take two at once for one. The child ends with this process.

    Args:
        work: What the child does; returns its exit code. No thread may run yet.
        explain: Receives the number of the signal that ended the child, and the folder of its run,
            if it had one.
    """
    global _report
    if sys.platform != "linux":
        return work()
    waiting = {*_FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waiting)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would not say that the child ended
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _report = write
        return work()
    os.close(write)
    place = ""
    status = _wait(child, waiting)
    os.set_blocking(read, False)  # a process that the child began may hold the other end
    with contextlib.suppress(BlockingIOError), open(read, "rb", buffering=0) as pipe:
        place = os.fsdecode(pipe.read() or b"")
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    explain(os.WTERMSIG(status), Path(place) if place else None)
    return 128 + os.WTERMSIG(status)


def report_run(folder: Path) -> None:
    """Tells the process that supervises this one, if any, where the run is.

    Args:
        folder: Folder of the run.
    """
    global _report
    if _report is not None:
        with contextlib.suppress(OSError):
            os.write(_report, os.fsencode(folder))
            os.close(_report)
        _report = None


def _wait(child: int, waiting: set[signal.Signals]) -> int:
    """Returns the status of the child when it has ended, and passes signals on until then."""
    while True:
        info = signal.sigwaitinfo(waiting)
        if info.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
        elif info.si_code <= 0:  # of a process; the terminal's go to the child as well
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, info.si_signo)
