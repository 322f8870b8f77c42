"""The address of a server: it is bound, or taken from a server that has it."""

from __future__ import annotations

import contextlib
import socket

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.serving.handover import Predecessor, can_hand_over, find_predecessor
from tl_toolkit.serving.settings import ServeSettings

__all__ = ["name_url", "open_socket"]


def open_socket(
    settings: ServeSettings, stack: contextlib.ExitStack
) -> tuple[socket.socket, Predecessor | None]:
    """Returns a bound socket, and the server that it was taken from.

    Args:
        settings: The host, the port, and whether the place of another server is taken.
        stack: Closes both.

    Raises:
        RecipeError: The address cannot be bound, or the other server gives its socket to nobody.
    """
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if settings.take_over and (predecessor := _find_predecessor(address)) is not None:
            stack.callback(predecessor.close)
            return stack.enter_context(predecessor.listening), predecessor
        bound = stack.enter_context(socket.socket(family, kind, protocol))
    except (OSError, UnicodeError) as error:
        raise RecipeError(Problem(f"--host {host}", f"is no address: {error}")) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise RecipeError(
            Problem(
                f"--host {host} --port {port}",
                f"cannot be bound: {error.strerror or error}",
                hint="--port 0, which takes a free one; "
                "--take-over, which takes that of a server of yours",
            )
        ) from error
    return bound, None


def _find_predecessor(address: tuple[object, ...]) -> Predecessor | None:
    if not can_hand_over():
        raise RecipeError(Problem("--take-over", "goes with Linux alone"))
    try:
        return find_predecessor(address)
    except OSError as error:
        what = f"the server at {address[0]}:{address[1]} gives its socket to nobody: {error}"
        expected = "One server at a time takes over."
        raise RecipeError(Problem("--take-over", what, expected)) from error


def name_url(bound: socket.socket) -> str:
    """Returns where a bound socket is reached, as http://127.0.0.1:8501.

    Args:
        bound: The socket.
    """
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
