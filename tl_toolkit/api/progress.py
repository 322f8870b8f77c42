"""The handlers that the verbs use for their argument `progress`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from tl_toolkit.events import Event, Handler
from tl_toolkit.printing.printer import Printer

__all__ = ["handling", "log_warnings"]

_logger = logging.getLogger("tl_toolkit")


def log_warnings(event: Event) -> None:
    """Sends warnings to the logger `tl_toolkit` of the standard library, and nothing else.

    Args:
        event: Any event.
    """
    if event.kind == "warning":
        _logger.warning(event.text)


@contextlib.contextmanager
def handling(progress: Handler | bool) -> Iterator[Handler]:
    """Yields the handler that `progress` stands for.

    Args:
        progress: True for one that prints to stderr what the command line prints; False for
            `log_warnings`; or the handler itself.

    Raises:
        TypeError: It is something else.
    """
    if callable(progress):
        yield progress
    elif progress is True:
        printer = Printer()
        try:
            yield printer.handle
        finally:
            printer.stop()
    elif progress is False or progress is None:
        yield log_warnings
    else:
        expected = "expected True, False or a function of an event"
        raise TypeError(f"progress = {progress!r}: {expected}")
