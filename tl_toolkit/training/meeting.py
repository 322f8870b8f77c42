"""How the hosts of a training find one another, agree on what they train, and notice an end."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tl_toolkit import __version__
from tl_toolkit.errors import HostError, Problem
from tl_toolkit.plan.hosts import Hosts

__all__ = ["Meeting", "describe_loss", "meet"]

_ANSWER_SECONDS = 10.0  # for a host's first words; who is slower is a stranger
_POLL_SECONDS = 0.2
_MOST_BYTES = 2**34  # no state is longer; what says so is no host of ours
_MOST_FACTS = 2**20
_MOST_WORDS = 2**10


class Meeting:
    """A connection from each host to the first one, open while the run is trained.

    What it carries is JSON, numbers, and the state that a resumed run goes on from. It is neither
    secret nor signed: a network that others can reach is not for it, nor for TensorFlow's own
    messages. Nothing of it is unpickled or run.

    Args:
        hosts: The hosts.
        connections: By place: on the first host those to all others, on the others that to it.
    """

    def __init__(self, hosts: Hosts, connections: dict[int, socket.socket]) -> None:
        self.hosts = hosts
        self._connections = connections
        self._is_over = threading.Event()
        self._lost = ""
        self._watcher: threading.Thread | None = None

    def share(self, value: bytes = b"") -> bytes:
        """Returns the value of the first host, on all hosts.

        Args:
            value: Of the first host; those of others are not used.
        """
        if not self.hosts.is_first:
            return self._receive(0)
        for index in self._connections:
            self._send(index, value)
        return value

    def check_equal(self, facts: dict[str, Any], *, seconds: float | None = None) -> None:
        """Refuses to train what is not the same on all hosts.

        Args:
            facts: Values that JSON can hold, by the words for them.
            seconds: How long to wait for all hosts; None for as long as their processes live.

        Raises:
            HostError: A host has another value; raised on all hosts.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        if not self.hosts.is_first:
            self._send(0, json.dumps(facts).encode())
            if text := self._receive(0, _MOST_FACTS, deadline).decode(errors="replace"):
                raise HostError(text)
            return
        own = json.loads(json.dumps(facts))
        texts = []
        for index in self._connections:
            values = _read_facts(self._receive(index, _MOST_FACTS, deadline))
            names = [name for name in own if values.get(name) != own[name]]
            if names:
                texts.append(f"{self.hosts.describe(index)} has another {', '.join(names)}")
        text = "; ".join(texts)
        self.share(text.encode())
        if text:
            raise HostError(Problem("", text, "All hosts train the same recipe on the same data."))

    def gather(self, seconds: float) -> None:
        """Waits until every host has come to the same call.

        Args:
            seconds: How long to wait.

        Raises:
            HostError: A host is gone, or does not come; it is named on all hosts that wait.
        """
        deadline = time.monotonic() + seconds
        if not self.hosts.is_first:
            self._send(0, b"here")
            # The first host waits as long for others, and then says which one is missing.
            try:
                absent = self._receive(0, _MOST_FACTS, deadline + _ANSWER_SECONDS)
            except HostError as error:
                if not isinstance(error.__cause__, TimeoutError):
                    raise
                absent = self.hosts.describe(0).encode()  # its connection stands
            self._lift_limits()
            if absent:
                raise HostError(_describe_missing(absent.decode(errors="replace"), seconds))
            return
        missing = []
        for index in self._connections:
            try:  # what has come is read, even if another host took all of the time
                last = max(deadline, time.monotonic() + _POLL_SECONDS)
                self._receive(index, _MOST_WORDS, last)
            except HostError:
                missing.append(self.hosts.describe(index))
        self._lift_limits()
        text = ", ".join(missing)
        for index in self._connections:
            with contextlib.suppress(HostError):  # those that are missing may be gone
                self._send(index, text.encode())
        if missing:
            raise HostError(_describe_missing(text, seconds))

    def _lift_limits(self) -> None:
        """Lets later messages take any time: a connection keeps the limit of its last one."""
        for connection in self._connections.values():
            connection.settimeout(None)

    def watch(self, end: Callable[[str], None]) -> None:
        """Watches until `finish` or `close` whether a host is gone.

        Args:
            end: Receives a sentence, in a thread of its own, once a connection has ended.
        """
        self._watcher = threading.Thread(target=self._watch, args=(end,), daemon=True)
        self._watcher.start()

    def _watch(self, end: Callable[[str], None]) -> None:
        places = {connection: index for index, connection in self._connections.items()}
        while not self._is_over.wait(_POLL_SECONDS):
            for connection, index in places.items():
                if _has_ended(connection) and not self._is_over.is_set():
                    self._lost = _name_lost(self.hosts, index)
                    end(self._lost)
                    return

    def refuse_loss(self) -> None:
        """Raises the error that a host is gone, if that was seen.

        Raises:
            HostError: One is.
        """
        if self._lost:
            raise HostError(describe_loss(self._lost))

    def find_lost(self, seconds: float) -> str:
        """Returns a sentence on the host that is gone, "" if none is.

        Args:
            seconds: How long to wait for it.
        """
        deadline = time.monotonic() + seconds
        while not self._lost and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return self._lost

    def finish(self) -> None:
        """Waits until the first host is done.

        Raises:
            HostError: The first host ended before.
        """
        self._end_watch()
        self.share(b"done")

    def _end_watch(self) -> None:
        self._is_over.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None

    def close(self) -> None:
        """Ends the connections; the others notice."""
        self._end_watch()
        for connection in self._connections.values():
            with contextlib.suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)  # a forked child may hold it too
            connection.close()

    def _send(self, index: int, value: bytes) -> None:
        try:
            self._connections[index].sendall(struct.pack(">Q", len(value)) + value)
        except OSError as error:
            raise HostError(describe_loss(_name_lost(self.hosts, index))) from error

    def _receive(self, index: int, most: int = _MOST_BYTES, deadline: float | None = None) -> bytes:
        try:
            return _receive(self._connections[index], most, deadline)
        except (OSError, EOFError) as error:
            raise HostError(describe_loss(_name_lost(self.hosts, index))) from error


def describe_loss(what: str) -> Problem:
    """Returns what becomes of a run whose host is gone.

    Args:
        what: Which one is.
    """
    return Problem(
        where="",
        what=what,
        expected="Training stops on all hosts; the first one has kept its last state.",
        hint="the same command with --resume on all hosts, these or others",
    )


def _describe_missing(names: str, seconds: float) -> Problem:
    return Problem(
        where="",
        what=f"{names} came to the meeting, and ended or stood still before the training began",
        expected=f"Each host waits {seconds:g} seconds for the others.",
        hint="the same command again on all hosts, with a greater --host-wait for slow ones",
    )


def _name_lost(hosts: Hosts, index: int) -> str:
    return f"{hosts.describe(index)} is gone: its process has ended, or its network"


def _has_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _receive(connection: socket.socket, most: int, deadline: float | None) -> bytes:
    """Returns a message of at most so many bytes, which is complete by a deadline."""
    (size,) = struct.unpack(">Q", _read(connection, 8, deadline))
    if size > most:
        raise EOFError("no message of a host")
    return _read(connection, size, deadline)


def _read(connection: socket.socket, size: int, deadline: float | None) -> bytes:
    parts = []
    while size:
        if deadline is not None:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            if time.monotonic() > deadline:  # else one byte at a time would last for ever
                raise TimeoutError("the message is not complete")
        part = connection.recv(min(size, 2**20))
        if not part:
            raise EOFError("the connection has ended")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _read_facts(text: bytes) -> dict[str, Any]:
    """Returns the facts of a message; none for what is no JSON object."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


@contextlib.contextmanager
def meet(hosts: Hosts) -> Iterator[Meeting]:
    """Waits for all hosts, and keeps them connected in the block.

    Args:
        hosts: The hosts, and how long to wait for them.

    Yields:
        The meeting.

    Raises:
        HostError: A host did not come, or is no host of the same list and version.
    """
    deadline = time.monotonic() + hosts.wait_seconds
    own = {"version": __version__, "hosts": list(hosts.addresses)}
    connections = _listen(hosts, deadline) if hosts.is_first else {0: _call(hosts, deadline)}
    meeting = Meeting(hosts, connections)
    try:
        # The first host may have begun to wait just before the last one came.
        meeting.check_equal(own, seconds=hosts.wait_seconds + _ANSWER_SECONDS)
        for connection in connections.values():
            connection.settimeout(None)
            _keep_alive(connection)
        yield meeting
    finally:
        meeting.close()


def _listen(hosts: Hosts, deadline: float) -> dict[int, socket.socket]:
    """Returns the connections of all other hosts, each of which says its place first."""
    _, port = hosts.split(0)
    connections: dict[int, socket.socket] = {}
    is_6 = hosts.addresses[0].startswith("[")
    try:
        server = socket.create_server(
            ("", port), family=socket.AF_INET6 if is_6 else socket.AF_INET
        )
    except OSError as error:
        raise HostError(f"{hosts.describe(0)} cannot listen: {error.strerror}") from error
    with server, contextlib.ExitStack() as kept:
        while len(connections) < len(hosts.addresses) - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                if time.monotonic() > deadline:  # though strangers may still come
                    raise TimeoutError
                connection, _ = server.accept()
            except TimeoutError as error:
                absent = sorted(set(range(1, len(hosts.addresses))) - set(connections))
                raise _describe_absent(hosts, absent) from error
            index = _ask_place(connection)
            if index is not None and 0 < index < len(hosts.addresses) and index not in connections:
                connections[index] = kept.enter_context(connection)
            else:
                connection.close()
        kept.pop_all()
    return dict(sorted(connections.items()))


def _ask_place(connection: socket.socket) -> int | None:
    """Returns the place that a host says it has; None of somebody else."""
    try:
        words = _receive(connection, _MOST_WORDS, time.monotonic() + _ANSWER_SECONDS)
    except (OSError, EOFError):
        return None
    place = _read_facts(words).get("index")
    return place if isinstance(place, int) else None


def _call(hosts: Hosts, deadline: float) -> socket.socket:
    """Returns a connection to the first host, once it listens."""
    while True:
        connection = None
        try:
            connection = socket.create_connection(hosts.split(0), timeout=_ANSWER_SECONDS)
            value = json.dumps({"index": hosts.index}).encode()
            connection.sendall(struct.pack(">Q", len(value)) + value)
            return connection
        except OSError as error:
            if connection is not None:
                connection.close()
            if time.monotonic() > deadline:
                raise _describe_absent(hosts, [0]) from error
            time.sleep(_POLL_SECONDS)


def _describe_absent(hosts: Hosts, absent: list[int]) -> HostError:
    names = ", ".join(hosts.describe(index) for index in absent)
    return HostError(
        Problem(
            where="--hosts",
            what=f"{names} did not come",
            expected="Each host runs the same command, with a --host-index of its own.",
            hint="the same version and the same --hosts on each, and ports that are open between",
        )
    )


def _keep_alive(connection: socket.socket) -> None:
    """Lets the connection to a host without power or network end within a minute."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": 15,
        "TCP_KEEPINTVL": 10,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 60_000,
    }
    for name, value in options.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
