"""The server: its limits, its token, slow clients, new versions, and how it ends."""

import asyncio
import contextlib
import gzip
import json
import os
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.serving.models import draw_image
from tl_toolkit.serving import messages, versions
from tl_toolkit.serving.compression import Unpacking
from tl_toolkit.serving.saved_model import ServedModel
from tl_toolkit.serving.tensors import Refusal

PREDICT = "/v1/models/photos:predict"
PIXEL = {"instances": [[[[255, 0, 0]]]]}
LONG = 60  # seconds: what hangs shall fail


def wait_until(holds):
    end = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def serve(small_model):
    """Starts a server, which ends with the test."""
    servers = []

    def serve(folder=small_model, **settings):
        servers.append(tl.serve(folder, port=0, progress=False, **settings))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


@pytest.fixture
def held(monkeypatch):
    """A gate before each call of the model, and whether one has come there."""
    gate, begun, call = threading.Event(), threading.Event(), ServedModel.call

    def wait(model, signature, inputs):
        begun.set()
        gate.wait(60)
        return call(model, signature, inputs)

    def hold():
        monkeypatch.setattr(ServedModel, "call", wait)
        return gate, begun

    yield hold
    gate.set()


def post(server, body=None, **settings):
    return httpx.post(
        f"{server.url}{PREDICT}", timeout=LONG, **({"json": body or PIXEL} | settings)
    )


def read_all(connection):
    """Returns what a server sends until it closes the connection."""
    chunks = []
    while chunk := connection.recv(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def connect(server):
    host, port = server.url.removeprefix("http://").rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=LONG)


# ------------------------------------------------------------------ limits of a request


def test_a_large_body_is_refused(serve):
    server = serve(max_body_mib=0.001)
    large = b" " * 2000

    told = post(server, content=large, json=None)
    streamed = post(server, content=iter([large]), json=None)  # without a Content-Length

    for response in (told, streamed):
        assert response.status_code == 413
        assert response.json() == {"error": "a request takes at most 1,048 bytes"}
    assert post(server).status_code == 200


@pytest.mark.slow
def test_bodies_in_memory_are_bounded(serve, monkeypatch):
    monkeypatch.setattr(messages, "_HELD", 0.5)
    server = serve(max_body_mib=0.001)

    refused = post(server, content=b" " * 600, json=None)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert post(server).status_code == 200  # nothing is held any more


def test_json_that_takes_long_is_given_up():
    gate = threading.Event()

    async def convert():
        bodies = messages.Bodies(largest=10, seconds=0.05)
        try:
            await bodies.convert(1 << 20, gate.wait, 60)
        finally:
            bodies.close()

    try:
        with pytest.raises(Refusal, match="was not read or written within 0.05 s") as caught:
            asyncio.run(convert())
    finally:
        gate.set()
    assert caught.value.status == 504


def post_gzip(server, body, encoding="gzip"):
    return post(server, content=body, json=None, headers={"Content-Encoding": encoding})


def test_a_body_of_gzip_is_unpacked(server):
    packed = gzip.compress(json.dumps(PIXEL).encode())
    halves = [gzip.compress(b'{"instances"'), gzip.compress(b":[[[[255,0,0]]]]}")]

    whole = post_gzip(server, packed)
    in_bytes = post_gzip(server, iter([packed[i : i + 1] for i in range(len(packed))]), "GZIP")
    in_members = post_gzip(server, b"".join(halves))

    for response in (whole, in_bytes, in_members):
        assert response.status_code == 200, response.text
        assert response.json() == post(server).json()


def test_what_is_no_gzip_is_refused(server):
    packed = gzip.compress(json.dumps(PIXEL).encode())
    spoilt = bytearray(packed)
    spoilt[-5] ^= 1  # of its checksum

    for body in (b"{}", packed[:-1], packed[: len(packed) // 2], bytes(spoilt), packed + b"x"):
        response = post_gzip(server, body)

        assert response.status_code == 400 and "the body is no gzip" in response.json()["error"]
    assert post_gzip(server, b"").json()["error"] == "JSON Parse error: The document is empty"


@pytest.mark.slow
def test_gzip_is_refused_that_unpacks_to_too_much(serve):
    server = serve(max_body_mib=0.1)
    bomb = gzip.compress(bytes(5 << 20))  # 5 KB
    members = gzip.compress(b"") * 6_000  # 120 KB that unpack to nothing

    for body in (bomb, members, iter([members])):
        response = post_gzip(server, body)

        assert response.status_code == 413, response.text
    assert post(server).status_code == 200


def test_a_bomb_is_unpacked_no_further_than_its_limit():
    bomb, most = gzip.compress(bytes(50 << 20)), 0
    for piece in Unpacking().unpack(bomb):
        most = max(most, len(piece))

    assert 0 < most <= 1 << 18


@pytest.mark.parametrize("encoding", ["deflate", "br", "gzip, gzip"])
def test_another_compression_is_refused(server, encoding):
    response = post_gzip(server, b"{}", encoding)

    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("gzip", "gzip"), ("br, gzip;q=0.5", "gzip"), ("identity", None), ("gzip;q=0, br", None)],
)
def test_a_large_answer_is_gzip_for_those_who_accept_it(server, accepted, encoding):
    headers, many = {"Accept-Encoding": accepted}, {"instances": PIXEL["instances"] * 30}

    large, small = post(server, many, headers=headers), post(server, headers=headers)

    assert large.headers.get("content-encoding") == encoding
    assert "content-encoding" not in small.headers
    assert len(large.json()["predictions"]) == 30


def test_a_body_that_does_not_come_is_refused_in_time(serve):
    with connect(serve(timeout_seconds=0.2)) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
        connection.sendall(head.encode() + b'{"instances"')

        answer = read_all(connection)

    assert answer.startswith(b"HTTP/1.1 408 ") and b"took more than 0.2 s" in answer


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: "])
def test_a_head_that_does_not_come_ends_the_connection(serve, sent):
    with connect(serve(timeout_seconds=0.2)) as connection:
        connection.sendall(sent)

        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""  # the end of the connection


def test_a_body_that_comes_behind_its_answer_ends_the_connection(serve):
    with connect(serve(timeout_seconds=0.2)) as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
        )
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"x")

        with contextlib.suppress(ConnectionResetError):
            read_all(connection)  # the end of the connection


@pytest.mark.slow
def test_an_answer_that_nobody_reads_ends_the_connection(serve):
    server = serve(timeout_seconds=0.2)
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:  # until its buffers are full, and it has waited
                connection.sendall(request * 100)

    assert httpx.get(server.url, timeout=LONG).status_code == 200


def test_an_answer_that_takes_long_is_given_up(serve, held):
    server = serve(timeout_seconds=0.3)
    gate, _ = held()

    response = post(server)

    assert response.status_code == 504
    assert response.json() == {"error": "the model did not answer within 0.3 seconds"}
    gate.set()
    assert post(server).status_code == 200


def test_more_images_than_may_wait_are_told_to_come_back(serve, held):
    server = serve(queue=2, max_batch=1)
    gate, begun = held()
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(post, server)]
        begun.wait(LONG)
        waiting += [pool.submit(post, server) for _ in range(2)]
        with httpx.Client(base_url=server.url, timeout=LONG) as client:
            wait_until(lambda: "tltool_waiting_images 2.0" in client.get("/metrics").text)
            refused = client.post(PREDICT, json=PIXEL)
        gate.set()

        assert [answer.result().status_code for answer in waiting] == [200, 200, 200]
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"


def test_an_error_of_the_server_is_no_text_of_its_own(server, monkeypatch, caplog):
    def fail(model, signature, inputs):
        raise ValueError("secret")

    monkeypatch.setattr(ServedModel, "call", fail)

    response = post(server)

    assert response.status_code == 500
    assert response.json() == {"error": "the server failed; its log says why"}
    assert "secret" in caplog.text


# ------------------------------------------------------------------ who may ask


@pytest.fixture(scope="module")
def guarded(small_model):
    with tl.serve(small_model, port=0, token="s3cret", progress=False) as server:
        yield server


def test_a_token_is_asked_for(guarded):
    given = {
        "none": {},
        "another": {"Authorization": "Bearer other"},
        "no bearer": {"Authorization": b"Basic s3cret"},
        "right": {"Authorization": b"Bearer s3cret"},
        "right, in small letters": {"Authorization": b"bearer s3cret"},
    }

    answers = {name: post(guarded, headers=headers) for name, headers in given.items()}

    assert {name: answer.status_code for name, answer in answers.items()} == {
        "none": 401,
        "another": 401,
        "no bearer": 401,
        "right": 200,
        "right, in small letters": 200,
    }
    assert answers["none"].headers["www-authenticate"] == "Bearer"
    assert answers["none"].json() == {"error": "a bearer token is needed"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "pages.example"}, 403),
        ({"Host": "pages.example:80"}, 403),
        ({"Host": "127.0.0.1.pages.example"}, 403),
        ({"Host": "["}, 403),
        ({"Origin": "https://pages.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:9", "Origin": "http://localhost:9"}, 200),
        ({"Host": "[::1]:9"}, 200),
        ({"Host": "127.0.0.2"}, 200),
    ],
)
def test_a_web_page_of_another_host_cannot_ask_a_local_server(server, headers, status):
    assert post(server, headers=headers).status_code == status


def test_who_has_the_token_may_use_another_name(guarded):
    headers = {"Authorization": "Bearer s3cret", "Host": "pages.example"}

    assert post(guarded, headers=headers).status_code == 200


def test_health_and_the_page_need_no_token_and_all_else_does(guarded):
    paths = [
        "/",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2",
        "/metrics",
        "/v1/models/photos",
        "/x",
    ]

    codes = {path: httpx.get(guarded.url + path, timeout=LONG).status_code for path in paths}

    assert codes == dict.fromkeys(paths[:3], 200) | dict.fromkeys(paths[3:], 401)


@pytest.mark.slow
def test_an_address_that_others_reach_is_warned_of_without_a_token(small_model):
    def told(**settings):
        texts = []
        with tl.serve(small_model, port=0, progress=lambda event: texts.append(event), **settings):
            pass
        return [event.text for event in texts if event.kind == "warning"]

    assert told(host="0.0.0.0") == [
        "anybody who reaches 0.0.0.0 may ask this server: it has no --token-file"
    ]
    assert told(host="0.0.0.0", token="x") == told(host="localhost") == []


# ------------------------------------------------------------------ what it says of itself


def test_metrics_count_requests_and_batches(serve, encode):
    server = serve()
    images = [encode(draw_image(255))] * 3
    post(server, {"signature_name": "serve_bytes", "instances": images})
    post(server, {"instances": []})
    httpx.get(f"{server.url}/nothing")

    response = httpx.get(f"{server.url}/metrics")

    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = response.text.splitlines()
    expected = {
        'tltool_requests_total{code="200",endpoint="predict"} 1.0',
        'tltool_requests_total{code="400",endpoint="predict"} 1.0',
        'tltool_requests_total{code="404",endpoint="unknown"} 1.0',
        'tltool_request_seconds_count{endpoint="predict"} 2.0',
        "tltool_batch_images_sum 3.0",
        "tltool_batch_images_count 1.0",
        "tltool_waiting_images 0.0",
        "tltool_model_version 1.0",
    }
    assert expected - set(lines) == set()
    assert "process_resident_memory_bytes" in response.text


# ------------------------------------------------------------------ how it ends


def test_a_signal_ends_it_when_requests_in_flight_are_answered(serve, held):
    server = serve()
    gate, begun = held()

    def is_closed():
        with socket.socket() as asked:
            return asked.connect_ex(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) != 0

    with ThreadPoolExecutor() as pool:
        answer = pool.submit(post, server)

        def end():
            begun.wait(LONG)
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until(is_closed)  # it listens no more, and the request still waits
            was_done = answer.done()
            gate.set()
            return was_done

        ended = pool.submit(end)
        before = signal.getsignal(signal.SIGTERM)
        server.wait()

        assert not ended.result()
        assert answer.result().status_code == 200
        assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(httpx.ConnectError):
        post(server)


def test_a_second_signal_ends_it_at_once(serve, monkeypatch):
    server = serve()
    gate, begun, ended = (threading.Event() for _ in range(3))

    def call(model, signature, inputs):
        begun.set()
        gate.wait(60)
        ended.set()
        return {}

    def end():
        begun.wait(LONG)
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: server._server.should_exit)
        os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor() as pool:
        monkeypatch.setattr(ServedModel, "call", call)
        answer = pool.submit(post, server)
        pool.submit(end)
        try:
            server.wait()
            assert not ended.is_set()
        finally:
            gate.set()
        try:
            assert answer.result().status_code == 500
        except httpx.TransportError:
            pass


def test_no_thread_is_left(small_model):
    before = set(threading.enumerate())

    with tl.serve(small_model, port=0, watch=True, progress=False) as server:
        assert post(server).status_code == 200
        assert set(threading.enumerate()) - before  # others of before may end meanwhile

    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), thread.name


# ------------------------------------------------------------------ new versions


def find_version(client):
    response = client.post(PREDICT, json=PIXEL)
    assert response.status_code == 200, response.text
    return response.json()["predictions"][0]["version"]


def test_a_new_version_takes_over_and_no_answer_fails(serve, folder, second, monkeypatch):
    monkeypatch.setattr(versions, "POLL_SECONDS", 0.02)
    server = serve(folder, watch=True)
    stop, seen = threading.Event(), set()

    def ask():
        with httpx.Client(base_url=server.url, timeout=LONG) as client:
            while not stop.is_set():
                seen.add(find_version(client))

    with ThreadPoolExecutor() as pool, httpx.Client(base_url=server.url, timeout=LONG) as client:
        askers = [pool.submit(ask) for _ in range(4)]
        try:
            wait_until(lambda: 1 in seen or any(asker.done() for asker in askers))
            shutil.copytree(second, folder / "draft")
            os.rename(folder / "draft", folder / "2")
            wait_until(lambda: 2 in seen or any(asker.done() for asker in askers))
        finally:
            stop.set()
        for asker in askers:
            asker.result()
        states = client.get("/v1/models/photos").json()["model_version_status"]

        assert [(each["version"], each["state"]) for each in states] == [("2", "AVAILABLE")]
        assert client.post("/v1/models/photos/versions/1:predict", json=PIXEL).status_code == 404
        shutil.rmtree(folder / "2")  # the one before is served again
        wait_until(lambda: find_version(client) == 1)


@pytest.mark.slow
def test_a_version_that_cannot_be_loaded_is_left_aside_until_it_changes(
    serve, folder, second, monkeypatch
):
    monkeypatch.setattr(versions, "POLL_SECONDS", 0.02)
    server = serve(folder, watch=True)
    (folder / "2").mkdir()
    (folder / "2" / "saved_model.pb").write_bytes(b"torn")
    with httpx.Client(base_url=server.url, timeout=LONG) as client:

        def read_states():
            return client.get("/v1/models/photos").json()["model_version_status"]

        wait_until(lambda: len(read_states()) == 2)
        states = read_states()
        assert [(each["version"], each["state"]) for each in states] in (
            [("2", "END"), ("1", "AVAILABLE")],
            [("2", "LOADING"), ("1", "AVAILABLE")],
        )
        assert find_version(client) == 1

        shutil.copytree(second, folder / "2", dirs_exist_ok=True)
        wait_until(lambda: find_version(client) == 2)


@pytest.mark.slow
def test_files_of_the_same_number_that_were_replaced_are_loaded(serve, folder, second, monkeypatch):
    monkeypatch.setattr(versions, "POLL_SECONDS", 0.02)
    server = serve(folder, watch=True)
    shutil.rmtree(folder / "1")
    os.rename(shutil.copytree(second, folder / "draft"), folder / "1")

    with httpx.Client(base_url=server.url, timeout=LONG) as client:
        wait_until(lambda: find_version(client) == 2)  # so says the model; its folder is still 1
        assert server.version == 1


# ------------------------------------------------------------------ the command


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["nowhere"], 3, "is no run"),
        (["{model}/1"], 3, "Try: tltool serve {model}"),
        (["{model}", "--name", "a/b"], 2, "is no name for a path"),
        (["{model}", "--host", "999.1.1.1"], 2, "is no address"),
        (["{model}", "--token", "a", "--token-file", "b"], 2, "one of them is enough"),
        (["{model}", "--token-file", "nowhere"], 3, "cannot be read"),
        (["{model}", "--queue", "4"], 2, "at least max_batch, 32, got 4. Try: --queue 256"),
        (["{model}", "--timeout", "inf"], 2, "timeout_seconds: expected a number above 0"),
        (["{model}", "--max-pixels", "inf"], 2, "max_megapixels: expected a number above 0"),
        (["{model}", "--token", ""], 2, "token  is empty"),
        (["{model}", "--token", "é"], 2, "token  has letters that browsers cannot send"),
        (["{model}", "--port", "{port}"], 2, "cannot be bound: Address already in use"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path, small_model, words, code, text):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        values = {"model": small_model, "port": taken.getsockname()[1]}
        done = tltool("serve", *[word.format(**values) for word in words], cwd=tmp_path, code=code)

    assert text.format(**values) in done.stderr


def test_a_missing_extra_is_named(tmp_path, small_model, monkeypatch):
    from tl_toolkit.api import serve

    monkeypatch.setattr(serve, "_NEEDS", ("starlette", "no_such_module"))

    done = tltool("serve", small_model, cwd=tmp_path, code=2)

    assert "not installed: no_such_module" in done.stderr
    assert "pip install 'tl-toolkit[serve]'" in done.stderr


def test_the_command_says_where_it_answers_and_ends_by_a_signal(tmp_path, small_model):
    (tmp_path / "token").write_text("s3cret\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    codes = []

    def end():
        header = {"Authorization": "Bearer s3cret"}
        url = f"http://127.0.0.1:{port}/v1/models/mine"

        def is_answered():
            with contextlib.suppress(httpx.TransportError):
                codes.append(httpx.get(url, headers=header, timeout=LONG).status_code)
            return bool(codes)

        def is_waiting():  # for signals: it answers a moment before
            return signal.getsignal(signal.SIGINT).__module__ == "tl_toolkit.serving.server"

        try:
            wait_until(is_answered)
            wait_until(is_waiting)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=end)
    thread.start()
    words = ["--port", port, "--name", "mine", "--token-file", "token"]
    done = tltool("serve", small_model, *words, cwd=tmp_path)
    thread.join()

    assert codes == [200]
    assert f"mine version 1 answers at http://127.0.0.1:{port}" in done.stderr
