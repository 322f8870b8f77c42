"""Signs of life: a call that a thread repeats until it is stopped, or its process ends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

__all__ = ["Heart"]


class Heart:
    """Begins to repeat a call, in a thread that ends with its process.

    Args:
        beat: Gives a sign of life; returns whether there is something left to give one for.
        seconds: Time between two calls.
    """

    def __init__(self, beat: Callable[[], bool], seconds: float) -> None:
        self._beat = beat
        self._seconds = seconds
        self._is_ended = threading.Event()
        self._beating = threading.Lock()
        with contextlib.suppress(RuntimeError):  # no more threads: this host needs no signs
            threading.Thread(target=self._repeat, daemon=True, name="tl_toolkit heart").start()

    def stop(self, timeout_seconds: float = 1.0) -> bool:
        """Ends the calls; returns whether the last one has ended by now.

        Args:
            timeout_seconds: How long to wait for a call in progress.
        """
        self._is_ended.set()
        return self._beating.acquire(timeout=timeout_seconds)

    def _repeat(self) -> None:
        while not self._is_ended.wait(self._seconds):
            with self._beating:
                if self._is_ended.is_set() or not self._beat():
                    return
