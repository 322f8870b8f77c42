"""The server: binds an address, loads the model, answers until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from tl_toolkit.events import Handler, message, warning
from tl_toolkit.serving.address import name_url, open_socket
from tl_toolkit.serving.app import build_app
from tl_toolkit.serving.connections import limit_connections
from tl_toolkit.serving.guard import is_loopback
from tl_toolkit.serving.handover import Offer, can_hand_over
from tl_toolkit.serving.saved_model import ServedModel
from tl_toolkit.serving.settings import ServeSettings
from tl_toolkit.serving.versions import Versions

__all__ = ["Server"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KEEP_ALIVE = 75
_BACKLOG = 2048
_MOST_CONNECTIONS = 1000  # a process may open 1,024 files where nobody has raised that
_LINGER_SECONDS = 5.0
_CLOSE = (b"connection", b"close")


class Server:
    """A server of one model, in a thread of its own; a `with` block closes it.

    Args:
        folder: The folder of the model's versions.
        name: What the model is called in paths.
        settings: The settings.
        report: Receives what happens, in sentences.
        closing: What is closed when the server is.

    Attributes:
        name: What the model is called in paths.
        url: Where it answers, as http://127.0.0.1:8501.

    Raises:
        DataError: No version can be loaded.
        RecipeError: The address cannot be bound.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        settings: ServeSettings,
        report: Handler,
        *,
        closing: contextlib.ExitStack | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._report = report
        self._closing = closing or contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            stack.callback(self._closing.close)
            self._socket, self._predecessor = open_socket(settings, stack)
            self._versions = Versions(folder, _Loader(settings.max_batch), report)
            self._versions.load_first()
            is_local = is_loopback(self._socket.getsockname()[0])
            app = build_app(self._versions, settings, name, is_local=is_local)
            config = _configure(app, settings.timeout_seconds)
            self._server = _Uvicorn(config, self._close_offer)
            self._closing = stack.pop_all()
        self.url = name_url(self._socket)
        self._offer: Offer | None = None
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="server", daemon=True
        )

    @property
    def version(self) -> int:
        """The version that answers."""
        return self._versions.model.version

    def start(self) -> None:
        """Begins to answer."""
        host = self._socket.getsockname()[0]
        self._thread.start()
        self._server.listening.wait()
        if not self._settings.token and not is_loopback(host):
            self._report(
                warning(f"anybody who reaches {host} may ask this server: it has no --token-file")
            )
        self._report(message(f"{self.name} version {self.version} answers at {self.url}"))
        if self._predecessor is not None:
            self._predecessor.dismiss()
            self._report(message(f"process {self._predecessor.process} has been told to end"))
        self._open_offer()

    def _open_offer(self) -> None:
        """Lets a server that is started with --take-over have this one's socket."""
        if not can_hand_over() or self._server.should_exit:
            return
        try:
            self._offer = Offer(self._socket, self._leave)
        except OSError as error:
            self._report(warning(f"no server can take over from this one: {error}"))

    def _close_offer(self) -> None:
        if self._offer is not None:
            self._offer.close()

    def _leave(self) -> None:
        self._report(message("another server answers now: this one ends"))
        self._server.end(_LINGER_SECONDS)

    def wait(self) -> None:
        """Answers until SIGINT, SIGTERM or SIGHUP, or until another server has taken over.

        Requests in flight are answered first. Clients that keep a connection have five seconds for
        another request, whose answer says that it is the last; SIGINT leaves them none. A second
        signal ends it at once. Only the main thread of a process can call it.
        """
        with _ending_by_signals(self._server):
            self._thread.join()
        self.close()

    def close(self) -> None:
        """Answers the requests in flight, and ends."""
        self._server.should_exit = True
        self._close_offer()
        self._thread.join()
        self._closing.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Loader:
    """Loads versions."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch

    def __call__(self, path: Path, version: int) -> ServedModel:
        loaded = ServedModel(path, version)
        loaded.warm_up(self._max_batch)
        return loaded


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its handlers of signals, which end the process by the signal again."""

    def __init__(self, config: uvicorn.Config, leave: Callable[[], None]) -> None:
        super().__init__(config)
        self.listening = threading.Event()
        self._leave = leave
        self._linger_seconds = 0.0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the caller."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Says that clients may connect.

        Args:
            sockets: The bound sockets.
        """
        try:
            await super().startup(sockets)
        finally:
            self.listening.set()

    def end(self, linger_seconds: float) -> None:
        """Lets it end.

        Args:
            linger_seconds: How long clients may use the connections that they keep.
        """
        self._linger_seconds = linger_seconds
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends: accepts no more, answers what it has, and closes each connection.

        A connection that is closed while its client sends a request is an error to the client, who
        cannot know whether it was heard. So the header of an answer says that it is the last one of
        its connection, and what is idle is closed by and by.

        Args:
            sockets: The bound sockets.
        """
        self._leave()
        for bound in sockets or []:
            asyncio.get_running_loop().remove_reader(bound)
        # What was accepted a moment ago gets its protocol first: asyncio drops it once a server is
        # closed. One turn of the loop makes its transport, the next one counts it.
        for _ in range(2):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for bound in sockets or []:
            bound.close()
        state, end = self.server_state, time.monotonic() + self._linger_seconds
        state.default_headers = [*state.default_headers, _CLOSE]
        for connection in state.connections:
            if isinstance(connection, H11Protocol) and connection.cycle is not None:
                connection.cycle.default_headers = state.default_headers
        while state.connections and not self.force_exit and time.monotonic() < end:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)


def _configure(app: ASGIApp, seconds: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=limit_connections(seconds),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(seconds) + 1,
    )


@contextlib.contextmanager
def _ending_by_signals(server: _Uvicorn) -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        server.force_exit = server.should_exit
        server.end(0.0 if number == signal.SIGINT else _LINGER_SECONDS)  # people wait for Ctrl-C

    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
