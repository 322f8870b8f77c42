"""Interrupts that wait until what they would tear apart is done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["holding_interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            before[signal.Signals(number)](number, frame)
        came.append(signal.Signals(number))

    try:
        for number in _SIGNALS:
            if callable(handler := signal.getsignal(number)):
                before[number] = handler
                signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        before[came[0]](came[0], None)
