"""A server is replaced while clients ask: no request is refused, reset or lost."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import tl_toolkit as tl
from tests.command import tltool
from tl_toolkit.errors import RecipeError
from tl_toolkit.serving import handover, server

PREDICT = "/v1/models/photos:predict"
PIXEL = {"instances": [[[[255, 0, 0]]]]}
LONG = 120  # seconds: what hangs shall fail

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sockets are handed over on Linux")


def wait_until(holds):
    end = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def find_version(client):
    response = client.post(PREDICT, json=PIXEL)
    assert response.status_code == 200, response.text
    return response.json()["predictions"][0]["version"]


class Askers:
    """Clients that ask again as soon as they are answered; each keeps its connection."""

    def __init__(self, url, count):
        self.url, self.seen, self.stop = url, [], threading.Event()
        self.pool = ThreadPoolExecutor(count)
        self.futures = [self.pool.submit(self.ask) for _ in range(count)]

    def ask(self):
        with httpx.Client(base_url=self.url, timeout=LONG) as client:
            while not self.stop.is_set():
                self.seen.append(find_version(client))

    def wait_for(self, version):
        def is_seen():
            return version in self.seen[-20:] or any(future.done() for future in self.futures)

        wait_until(is_seen)

    def finish(self):
        self.stop.set()
        self.pool.shutdown()
        return [error for future in self.futures if (error := future.exception())]


def test_a_server_takes_over_and_the_one_before_ends(folder, second, monkeypatch):
    monkeypatch.setattr(server, "_LINGER_SECONDS", 1.0)
    first = tl.serve(folder, port=0, progress=False)
    port = int(first.url.rsplit(":", 1)[1])
    askers = Askers(first.url, 4)
    askers.wait_for(1)
    shutil.copytree(second, folder / "2")

    with tl.serve(folder, port=port, take_over=True, progress=False) as last:
        first._thread.join(LONG)
        has_ended = not first._thread.is_alive()
        askers.wait_for(2)
        errors = askers.finish()

        assert has_ended and last.url == first.url
    first.close()
    assert errors == []
    assert set(askers.seen) == {1, 2}


def test_without_a_server_there_the_address_is_bound(small_model):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    with (
        tl.serve(small_model, port=port, take_over=True, progress=False) as only,
        httpx.Client(base_url=only.url, timeout=LONG) as client,
    ):
        assert find_version(client) == 1


def test_one_that_cannot_load_its_model_leaves_the_one_before_alone(small_model, tmp_path):
    (tmp_path / "photos" / "1").mkdir(parents=True)
    (tmp_path / "photos" / "1" / "saved_model.pb").write_bytes(b"damaged")

    with tl.serve(small_model, port=0, progress=False) as first:
        port = first.url.rsplit(":", 1)[1]
        words = ["--port", port, "--take-over"]
        done = tltool("serve", tmp_path / "photos", *words, cwd=tmp_path, code=3)

        assert "cannot be loaded" in done.stderr
        with httpx.Client(base_url=first.url, timeout=LONG) as client:
            assert find_version(client) == 1


def test_a_server_of_another_user_is_not_taken_over(small_model, monkeypatch):
    with tl.serve(small_model, port=0, progress=False) as first:
        read = handover._read_peer
        monkeypatch.setattr(handover, "_read_peer", lambda peer: (read(peer)[0], -2))
        port = int(first.url.rsplit(":", 1)[1])

        with pytest.raises(RecipeError, match="cannot be bound: Address already in use"):
            tl.serve(small_model, port=port, take_over=True, progress=False)


def test_two_do_not_take_over_at_once(small_model, monkeypatch):
    monkeypatch.setattr(handover, "_WAIT_SECONDS", 0.1)
    with tl.serve(small_model, port=0, progress=False) as first:
        port = int(first.url.rsplit(":", 1)[1])
        loading = handover.find_predecessor(("127.0.0.1", port))

        with pytest.raises(RecipeError, match="One server at a time takes over"):
            tl.serve(small_model, port=port, take_over=True, progress=False)

        loading.close()
        loading.listening.close()


def test_the_last_answers_of_a_server_close_their_connections(small_model, monkeypatch):
    monkeypatch.setattr(server, "_LINGER_SECONDS", LONG)
    ending = tl.serve(small_model, port=0, progress=False)
    waiting = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM))
    answers = []

    def ask():
        with httpx.Client(base_url=ending.url, timeout=LONG) as client:
            answers.append(client.post(PREDICT, json=PIXEL))
            waiting.start()
            wait_until(lambda: not ending._socket.fileno() >= 0)  # it listens no more
            answers.append(client.post(PREDICT, json=PIXEL))  # on the connection that it kept

    asking = threading.Thread(target=ask)
    asking.start()
    ending.wait()
    asking.join()

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.headers.get("connection") for answer in answers] == [None, "close"]


def test_while_a_server_ends_its_address_is_free_for_the_next_offer(small_model, monkeypatch):
    monkeypatch.setattr(server, "_LINGER_SECONDS", LONG)
    ending, said = tl.serve(small_model, port=0, progress=False), []
    port = int(ending.url.rsplit(":", 1)[1])

    with httpx.Client(base_url=ending.url, timeout=LONG) as client:
        find_version(client)  # it keeps its connection: the server waits for it
        ending._leave()
        wait_until(lambda: ending._socket.fileno() < 0)
        with tl.serve(small_model, port=port, progress=said.append):
            is_ending = ending._thread.is_alive()
    ending.close()

    assert is_ending
    assert [event.text for event in said if event.kind == "warning"] == []


def test_a_connection_that_was_accepted_as_a_server_ends_is_answered():
    """Of the loop's turns: one accepts, the server ends in the next one, before a protocol is."""

    async def answer(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def ask():
        config = server._configure(answer, LONG)
        config.lifespan = "off"
        ending, bound = (
            server._Uvicorn(config, lambda: None),
            socket.create_server(("127.0.0.1", 0)),
        )
        config.load()
        ending.lifespan = config.lifespan_class(config)
        await ending.startup([bound])
        ending.end(LONG)
        with socket.create_connection(bound.getsockname(), LONG) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await ending.shutdown([bound])
            return client.recv(1 << 10)

    assert asyncio.run(ask()).startswith(b"HTTP/1.1 204")


class Process:
    """`tltool serve` in a process of its own."""

    def __init__(self, folder, port, *options):
        words = ["-m", "tl_toolkit", "serve", str(folder), "--port", str(port), *options]
        self.process = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
        self.lines = []
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"answers at http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return
        raise AssertionError("".join(self.lines))

    def wait(self):
        """Returns its exit code, when it has ended."""
        with self.process:
            self.lines += self.process.stderr.readlines()
            return self.process.wait(LONG)


@pytest.mark.slow  # three processes start TensorFlow
def test_processes_replace_each_other_while_clients_ask(folder, second):
    servers = [Process(folder, 0)]
    askers = Askers(f"http://127.0.0.1:{servers[0].port}", 8)
    try:
        askers.wait_for(1)
        shutil.copytree(second, folder / "2")
        servers.append(Process(folder, servers[0].port, "--take-over"))
        codes = [servers[0].wait()]
        askers.wait_for(2)
        (folder / "2").rename(folder / "3")
        servers.append(Process(folder, servers[0].port, "--take-over"))
        codes.append(servers[1].wait())
        count = len(askers.seen)
        wait_until(lambda: len(askers.seen) > count + 100)
    finally:
        errors = askers.finish()
        for each in servers:
            each.process.send_signal(signal.SIGTERM)
    codes.append(servers[2].wait())

    assert errors == []
    assert codes == [0, 0, 0]
    assert set(askers.seen) == {1, 2}
    assert "another server answers now" in "".join(servers[0].lines)
