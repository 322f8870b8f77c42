"""Work in a thread of its own, beside what the caller does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import keras

from tl_toolkit.events import Event, Handler, ignore

_PATIENCE_SECONDS = 60.0  # tracing takes a few; only a stalled connection takes longer

_T = TypeVar("_T")


class Aside(Generic[_T]):
    """Work that begins now in a thread of its own.

    The thread gets the caller's dtype policy: Keras keeps one policy for each thread.

    Args:
        work: Called with the handler of its events, which raises RuntimeError once the work is
            abandoned; so a download, which reports each piece, ends early.
        progress: Receives the events, in that thread.
    """

    def __init__(self, work: Callable[[Handler], _T], progress: Handler = ignore) -> None:
        self._progress = progress
        self._results: list[_T] = []
        self._errors: list[BaseException] = []
        self._is_done = threading.Event()
        self._is_abandoned = threading.Event()
        policy = keras.config.dtype_policy()

        def run() -> None:
            try:
                keras.config.set_dtype_policy(policy)
                self._results.append(work(self._report))
            except BaseException as error:  # raised again where it is waited for
                self._errors.append(error)
            finally:
                self._is_done.set()

        threading.Thread(target=run, daemon=True).start()

    def _report(self, event: Event) -> None:
        if self._is_abandoned.is_set():
            raise RuntimeError("its result is not needed any more")
        self._progress(event)

    def wait(self, timeout_seconds: float | None = None) -> _T:
        """Waits for the work, and returns its result or raises its error.

        Args:
            timeout_seconds: The longest wait; None waits for as long as it takes.

        Raises:
            TimeoutError: The work has not ended by then.
        """
        # Not by `join`: once interrupted, Python 3.11 takes the thread for one that has ended.
        if not self._is_done.wait(timeout_seconds):
            raise TimeoutError
        if self._errors:
            raise self._errors[0]
        return self._results[0]

    def abandon(self) -> None:
        """Ends the work if it reports, and else waits for its end, whatever becomes of it.

        TensorFlow aborts a process that ends while one of its threads traces. Tracing cannot be
        stopped; a second interrupt ends the wait.
        """
        self._is_abandoned.set()
        self._is_done.wait(_PATIENCE_SECONDS)
