"""Interrupts that wait until what they would tear apart is done."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["ONE_PRESS_SECONDS", "holding_interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ONE_PRESS_SECONDS = 1.0
"""Signals that come within this time are one: a process may get it directly and from its parent."""


@contextlib.contextmanager
def holding_interrupts() -> Iterator[None]:
    """Lets an interrupt that comes during the block come at its end; a second one comes at once.

    Signals that have no handler of Python's do what they did before. Outside of the main thread,
    to which Python delivers them, the block holds nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[signal.Signals] = []
    began: list[float] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        if not came:
            came.append(signal.Signals(number))
            began.append(time.monotonic())
        elif time.monotonic() - began[0] > ONE_PRESS_SECONDS:
            before[signal.Signals(number)](number, frame)

    try:
        with _blocking_signals():
            for number in _SIGNALS:
                if callable(handler := signal.getsignal(number)):
                    before[number] = handler
                    signal.signal(number, note)
        yield
    finally:
        with _blocking_signals():
            for number, handler in before.items():
                signal.signal(number, handler)
    if came:
        before[came[0]](came[0], None)


@contextlib.contextmanager
def _blocking_signals() -> Iterator[None]:
    """Keeps signals waiting while their handlers are exchanged."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
