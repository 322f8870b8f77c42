"""Says that a command waits for an object store, which libraries do without a word."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator

__all__ = ["saying_that_it_waits"]

_SECONDS = 5.0  # that people wait before they ask what is going on
_LOOK_SECONDS = 0.5
_logger = logging.getLogger("tl_toolkit")

_lock = threading.Lock()
_waits: dict[int, tuple[str, str, str, float]] = {}  # by the number of the request
_told: set[str] = set()  # stores whose wait was logged, and which have not answered since
_watchers: dict[int, threading.Thread] = {}  # by process: a fork has no threads


def _forget() -> None:
    """Forgets, in a process that was forked, requests of threads that it does not have."""
    global _lock
    _lock = threading.Lock()  # one of these threads may have held it
    _waits.clear()
    _told.clear()
    _watchers.clear()


os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def saying_that_it_waits(where: str, store: str, until: str) -> Iterator[None]:
    """Logs a warning if the block takes 5 seconds; one for all requests to a store that wait.

    Args:
        where: Name of the address in messages, with the address.
        store: The store, as `s3://photos`.
        until: What ends the wait, in words.
    """
    with _lock:
        request = max(_waits, default=0) + 1
        _waits[request] = (where, store, until, time.monotonic())
        watcher = _watchers.get(os.getpid())
        if watcher is None or not watcher.is_alive():
            watcher = threading.Thread(target=_watch, name="store-watcher", daemon=True)
            _watchers[os.getpid()] = watcher
            watcher.start()
    try:
        yield
        _told.discard(store)  # it answers: another wait is news
    finally:
        with _lock:
            _waits.pop(request, None)  # a process that was forked in the block has none


def _watch() -> None:
    """Looks at the requests that wait, until there are none."""
    while True:
        time.sleep(_LOOK_SECONDS)
        with _lock:
            if not _waits:
                del _watchers[os.getpid()]
                return
            waits = list(_waits.values())
        for where, store, until, began in waits:
            waited = time.monotonic() - began
            if waited >= _SECONDS and store not in _told:
                _told.add(store)
                _logger.warning(
                    "%s: waiting for the store, %.0f s so far; %s", where, waited, until
                )
