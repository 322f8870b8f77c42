"""Connections of slow clients, which uvicorn leaves open."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["limit_connections"]


def limit_connections(seconds: float) -> type[H11Protocol]:
    """Returns uvicorn's protocol with limits of time.

    A connection is closed whose client does not end the head of a request in time, does not read
    its answer, or still sends the body of a request that is answered. (The application refuses a
    body that takes too long.)

    Args:
        seconds: The limit of each.
    """

    class Limited(H11Protocol):
        _head: asyncio.TimerHandle | None = None
        _answer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_head()

        def connection_lost(self, exc: Exception | None) -> None:
            _cancel(self._head)
            _cancel(self._answer)
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._answer = self.loop.call_later(seconds, self.transport.abort)

        def resume_writing(self) -> None:
            _cancel(self._answer)
            super().resume_writing()

        def _watch_head(self) -> None:
            is_answering = self.cycle is not None and not self.cycle.response_complete
            if is_answering or self.timeout_keep_alive_task:
                _cancel(self._head)
                self._head = None
            elif self._head is None:
                self._head = self.loop.call_later(seconds, self.transport.abort)

    return Limited


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
