"""The server: binds an address, loads the model, answers until it is told to end."""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

import uvicorn
from starlette.types import ASGIApp

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.events import Handler, message, warning
from tl_toolkit.serving.app import build_app
from tl_toolkit.serving.connections import limit_connections
from tl_toolkit.serving.guard import is_loopback
from tl_toolkit.serving.saved_model import ServedModel
from tl_toolkit.serving.settings import ServeSettings
from tl_toolkit.serving.versions import Versions

__all__ = ["Server"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KEEP_ALIVE = 75
_BACKLOG = 2048
_MOST_CONNECTIONS = 1000  # a process may open 1,024 files where nobody has raised that


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
            self._socket = stack.enter_context(_bind(settings.host, settings.port))
            self._versions = Versions(folder, _Loader(settings.max_batch), report)
            self._versions.load_first()
            is_local = is_loopback(self._socket.getsockname()[0])
            app = build_app(self._versions, settings, name, is_local=is_local)
            self._server = _Uvicorn(_configure(app, settings.timeout_seconds))
            self._closing = stack.pop_all()
        self.url = _name_url(self._socket)
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

    def wait(self) -> None:
        """Answers until SIGINT, SIGTERM or SIGHUP; requests in flight are answered first.

        A second signal ends it at once. Only the main thread of a process can call it.
        """
        with _ending_by_signals(self._server):
            self._thread.join()
        self.close()

    def close(self) -> None:
        """Answers the requests in flight, and ends."""
        self._server.should_exit = True
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

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

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
def _ending_by_signals(server: uvicorn.Server) -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bind(host: str, port: int) -> socket.socket:
    """Returns a bound socket, before a model is loaded for nothing."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise RecipeError(Problem(f"--host {host}", f"is no address: {error}")) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise RecipeError(
            Problem(
                f"--host {host} --port {port}",
                f"cannot be bound: {error.strerror or error}",
                hint="--port 0, which takes a free one",
            )
        ) from error
    return bound


def _name_url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
