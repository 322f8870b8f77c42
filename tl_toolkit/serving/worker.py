"""A thread that calls functions one after the other, and that no exit of the process waits for."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["Worker"]

_T = TypeVar("_T")


class Worker:
    """Calls functions in a thread of its own.

    An executor of the standard library is joined when the process exits: a long call would outlive
    the signal that ends the server.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Returns what a function returns; a call that is cancelled while it waits is not made.

        Args:
            function: The function.
            arguments: What it takes.
        """
        future: Future[_T] = Future()
        self._calls.put((future, functools.partial(function, *arguments)))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Ends the thread behind the calls that wait, without waiting for it."""
        self._calls.put(None)

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:  # of its own, so that nothing of a call lives until the next
        call = self._calls.get()
        if call is None:
            return False
        future, function = call
        if future.set_running_or_notify_cancel():
            try:
                result = function()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
        return True
