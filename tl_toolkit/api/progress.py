"""The handlers that the verbs use for their argument `progress`."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from tl_toolkit.events import Event, Handler, message, warning
from tl_toolkit.printing.printer import Printer
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.states import describe_interrupted

__all__ = ["HandlerFailed", "handling", "log_warnings", "naming_what_is_kept"]

_logger = logging.getLogger("tl_toolkit")


def log_warnings(event: Event) -> None:
    """Sends warnings to the logger `tl_toolkit` of the standard library, and nothing else.

    Args:
        event: Any event.
    """
    if event.kind == "warning":
        _logger.warning(event.text)


class HandlerFailed(BaseException):
    """A handler raised an exception, which ends the run.

    No `Exception`: on its way to the caller nothing may take it for a trial that failed, a store
    that cannot be written or a download that broke off.

    Args:
        error: What the handler raised.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(": ".join(filter(None, (type(error).__name__, str(error)))))
        self.error = error


class _Serialized:
    """A handler that receives one event at a time, whichever threads report them."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        # Reentrant: a handler may call a verb that reports to it.
        self._lock = threading.RLock()
        self._error: Exception | None = None

    def __call__(self, event: Event) -> None:
        with self._lock:  # an interrupt in the block releases it
            if self._error is not None:  # in another thread: it ends the run for all of them
                raise HandlerFailed(self._error)
            try:
                self._handle(event)
            except Exception as error:
                self._error = error
                raise HandlerFailed(error) from error


@contextlib.contextmanager
def handling(progress: Handler | bool) -> Iterator[Handler]:
    """Yields the handler that `progress` stands for.

    The handler receives one event at a time. If it raises an exception, that leaves the block,
    whatever the block catches.

    Args:
        progress: True for one that prints to stderr what the command line prints, in a notebook to
            stdout and without bars; False for `log_warnings`; or the handler itself.

    Raises:
        TypeError: It is something else.
    """
    try:
        with _opening(progress) as handle:
            yield _Serialized(handle)
    except HandlerFailed as failure:
        before = failure.error.__context__
        try:
            raise failure.error
        finally:  # the traceback is of the handler, not of how its error came here
            failure.error.__context__ = before


@contextlib.contextmanager
def naming_what_is_kept(
    folder: RunFolder, progress: Handler | bool, handle: Handler
) -> Iterator[None]:
    """Reports what an interrupt of the block leaves: a notebook shows only a traceback.

    Args:
        folder: The run or search.
        progress: As it was given. A function of the caller's own learns of the interrupt by its
            exception alone, as the command line does.
        handle: The handler of the block.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not callable(progress):
            text = describe_interrupted(folder)
            handle(message(text) if progress else warning(text))
        raise


@contextlib.contextmanager
def _opening(progress: Handler | bool) -> Iterator[Handler]:
    if callable(progress):
        yield progress
    elif progress is True:
        printer = Printer(counts=True)
        try:
            yield printer.handle
        finally:
            printer.stop()
    elif progress is False or progress is None:
        yield log_warnings
    else:
        expected = "expected True, False or a function of an event"
        raise TypeError(f"progress = {progress!r}: {expected}")
