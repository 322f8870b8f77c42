"""Hands the listening socket of a server to another that takes its place, on Linux.

Both servers have one socket with one queue: what connects meanwhile waits in it for whichever of
them accepts, and nothing is reset when the old one closes its end. A second socket on the same port
(SO_REUSEPORT) has a queue of its own, which is lost with it.

They meet at an abstract Unix socket that is named after the address. Each sees which user the other
belongs to, and deals with its own user alone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable

__all__ = ["Offer", "Predecessor", "can_hand_over", "find_predecessor"]

_WAIT_SECONDS = 10.0
_CREDENTIALS = struct.Struct("3i")  # process, user, group


def can_hand_over() -> bool:
    """Returns whether sockets can be handed over on this system."""
    return sys.platform == "linux"


class Offer:
    """Gives a listening socket to whichever server of this user asks for it.

    Args:
        listening: The socket.
        leave: Is called when the other server answers.

    Raises:
        OSError: Another socket has the name of this address.
    """

    def __init__(self, listening: socket.socket, leave: Callable[[], None]) -> None:
        self._listening = listening
        self._leave = leave
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._door.bind(_name(listening.getsockname()))
            self._door.listen()
        except OSError:
            self._door.close()
            raise
        threading.Thread(target=self._work, name="handover", daemon=True).start()

    def close(self) -> None:
        """Ends the offer."""
        with contextlib.suppress(OSError):  # it is closed
            self._door.shutdown(socket.SHUT_RDWR)  # ends the call that waits in `accept`
        self._door.close()

    def _work(self) -> None:
        while True:
            try:
                peer, _ = self._door.accept()
            except OSError:
                return
            with peer, contextlib.suppress(OSError, ValueError):  # it has gone, or this one ends
                if _read_peer(peer)[1] != os.geteuid():
                    continue
                socket.send_fds(peer, [b"\0"], [self._listening.fileno()])
                if peer.recv(1):  # it has loaded its model, and answers
                    self.close()  # before the peer is closed: then the name is free
                    self._leave()


class Predecessor:
    """A server whose listening socket was taken.

    Args:
        peer: The connection to it.
        listening: The socket, which both have.

    Attributes:
        process: The number of its process.
        listening: The socket.
    """

    def __init__(self, peer: socket.socket, listening: socket.socket) -> None:
        self._peer = peer
        self.process = _read_peer(peer)[0]
        self.listening = listening

    def dismiss(self) -> None:
        """Tells it that this server answers now: it ends when it has answered what it has."""
        with self._peer, contextlib.suppress(OSError):  # it has ended by itself
            self._peer.sendall(b"\0")
            self._peer.recv(1)  # nothing: it closes the connection when its name is free

    def close(self) -> None:
        """Leaves it alone."""
        self._peer.close()


def find_predecessor(address: tuple[object, ...]) -> Predecessor | None:
    """Returns the server of this user that listens on an address; None where there is none.

    Args:
        address: As `getsockname` has it.

    Raises:
        OSError: There is one, which gives nothing.
    """
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(_WAIT_SECONDS)
    try:
        peer.connect(_name(address))
        if _read_peer(peer)[1] == os.geteuid():
            _, files, _, _ = socket.recv_fds(peer, 1, 1)
            if files:
                return Predecessor(peer, socket.socket(fileno=files[0]))
    except ConnectionRefusedError:  # nobody has that name
        pass
    except BaseException:
        peer.close()
        raise
    peer.close()
    return None


def _name(address: tuple[object, ...]) -> str:
    host, port = address[:2]
    return f"\0tl_toolkit.serve.{host}:{port}"


def _read_peer(peer: socket.socket) -> tuple[int, int]:
    """Returns process and user of the other end."""
    data = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(data)
    return process, user
