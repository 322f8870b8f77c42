import errno
import fcntl
import multiprocessing
import os
import socket
import threading
import time
import urllib.error
from pathlib import Path
from urllib.request import Request

import h5py
import numpy as np
import pytest

from tests.server import FileServer, answer, cut, stall
from tl_toolkit.api.progress import handling
from tl_toolkit.catalog.lookup import ARCHITECTURES, WeightFile, find_weight_file
from tl_toolkit.catalog.published import going_offline
from tl_toolkit.errors import OutputError, WeightsError
from tl_toolkit.events import report_counts
from tl_toolkit.runs.files import hash_file
from tl_toolkit.transfer import download
from tl_toolkit.transfer.fetch import fetch_weight_file, find_weights

MOBILENET = ARCHITECTURES["mobilenet"]


def write_weights(path, value=0.0):
    """A small file in the layout of the published ones."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        group = file.create_group("dense")
        group.attrs["weight_names"] = [b"dense/kernel:0"]
        group["dense/kernel:0"] = np.full((64, 64), value, np.float32)
    return path


@pytest.fixture
def content(tmp_path):
    """The bytes of a true weight file."""
    return write_weights(tmp_path / "source.h5").read_bytes()


@pytest.fixture
def serve(content, keras_models):
    """Starts servers of the true file with faults, or of other bytes."""
    servers = []

    def start(*faults, content=content, **options):
        servers.append(FileServer(content, faults=faults, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def weight_file(server, **facts):
    return WeightFile("x.h5", getattr(server, "url", server), {}, 224, **facts)


def names_in(folder):
    return sorted(os.listdir(folder))


# ----------------------------------------------------------------------------------- finding a file


def test_random_weights_need_no_file():
    assert find_weights(MOBILENET, {}, (224, 224), "random") is None


def test_a_path_is_taken_as_it_is():
    assert find_weights(MOBILENET, {}, (224, 224), "/some/x.h5") == Path("/some/x.h5")


def test_imagenet_is_the_file_in_the_cache_of_keras(keras_models):
    file = find_weight_file(MOBILENET, {"alpha": 0.5}, (128, 128))
    keras_models.mkdir(parents=True)
    (keras_models / file.name).write_bytes(b"present")

    path = find_weights(MOBILENET, {"alpha": 0.5}, (128, 128), "imagenet")

    assert path == keras_models / "mobilenet_5_0_128_tf_no_top.h5"
    assert os.listdir(keras_models) == [file.name]


def test_imagenet_for_a_width_that_was_never_published_names_those_that_were(keras_models):
    with pytest.raises(
        WeightsError,
        match=r"weights of mobilenet were published for alpha 0\.25, 0(.|\n)*"
        r"Try: model\.arguments\.alpha=0\.25, or",
    ):
        find_weights(MOBILENET, {"alpha": 0.3}, (224, 224), "imagenet")


def test_imagenet_for_a_base_without_any_says_so(keras_models):
    with pytest.raises(WeightsError, match="no ImageNet weights of lenet5 were ever published"):
        find_weights(ARCHITECTURES["lenet5"], {}, (32, 32), "imagenet")


def test_a_file_in_the_cache_that_is_not_the_published_one_is_refused_and_kept(keras_models):
    [file] = [file for file in MOBILENET.weight_files if file.sha256 is not None]
    keras_models.mkdir(parents=True)
    (keras_models / file.name).write_bytes(b"other")

    with pytest.raises(WeightsError, match="is not the published file, "):
        fetch_weight_file(file)

    assert (keras_models / file.name).read_bytes() == b"other"


# -------------------------------------------------------------------------------------- downloading


def test_an_absent_file_is_fetched_and_then_kept(keras_models, serve, content):
    server = serve()
    counts = []

    path = fetch_weight_file(weight_file(server), progress=lambda *count: counts.append(count))
    again = fetch_weight_file(weight_file(server))

    assert path == again == keras_models / "x.h5"
    assert path.read_bytes() == content
    assert server.requests == [""]
    assert counts[-1] == (len(content), len(content))
    assert names_in(keras_models) == ["x.h5", "x.h5.lock", "x.h5.sha256"]


def test_a_file_is_fetched_into_a_chosen_folder(keras_models, serve, content, tmp_path):
    path = fetch_weight_file(weight_file(serve()), folder=tmp_path / "chosen")

    assert path == tmp_path / "chosen" / "x.h5" and path.read_bytes() == content
    assert not keras_models.exists()


@pytest.mark.parametrize("kind", [OSError, ValueError])
def test_an_error_of_the_handler_is_no_fault_of_the_server(keras_models, serve, kind):
    def handle(event):
        raise kind("mine")

    with pytest.raises(kind, match="^mine$"), handling(handle) as report:
        fetch_weight_file(weight_file(serve()), progress=report_counts(report, "weights_fetched"))

    assert not (keras_models / "x.h5").exists()


def test_a_file_whose_digest_is_known_is_fetched_and_verified(
    keras_models, serve, content, tmp_path
):
    path = fetch_weight_file(weight_file(serve(), sha256=hash_file(tmp_path / "source.h5")))

    assert path.read_bytes() == content
    assert names_in(keras_models) == ["x.h5", "x.h5.lock"]


def test_a_file_of_which_keras_gives_the_md5_is_verified_by_it(
    keras_models, serve, content, tmp_path
):
    server = serve()
    digest = hash_file(tmp_path / "source.h5", "md5")

    path = fetch_weight_file(weight_file(server, md5=digest))

    assert path.read_bytes() == content
    with pytest.raises(WeightsError, match="Expected a file with MD5 0000"):
        fetch_weight_file(weight_file(server, md5="0" * 32))


def test_a_file_is_fetched_where_no_file_can_be_locked(keras_models, serve, content, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    server = serve()

    assert fetch_weight_file(weight_file(server)).read_bytes() == content
    assert server.requests == [""] and not list(keras_models.glob("*.part*"))


def test_threads_that_fetch_at_once_get_the_whole_file(keras_models, serve, content):
    server = serve(cut(5000))
    sizes = []
    threads = [
        threading.Thread(
            target=lambda: sizes.append(fetch_weight_file(weight_file(server)).stat().st_size)
        )
        for _ in range(8)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sizes == [len(content)] * 8
    assert server.requests == ["", "bytes=5000-"]


# ------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (answer(status=404), r"could not be fetched \(Not Found\)"),
        (answer(status=503), r"could not be fetched \(Service Unavailable\)"),
        (answer(b"<html><title>Sign in</title></html>"), "what was fetched is an error page"),
        (answer(b"", length=10), "the connection broke off after 0 of 10 bytes"),
        (answer(b"", length=None), "what was fetched is empty"),
    ],
)
def test_a_response_that_is_not_the_file_is_refused_and_not_kept(
    fault, expected, keras_models, serve
):
    with pytest.raises(WeightsError, match=expected):
        fetch_weight_file(weight_file(serve(fault)))

    assert not (keras_models / "x.h5").exists()


def test_redirects_in_a_circle_end(keras_models, serve):
    server = serve(*[answer(status=302, headers={"Location": "/again"})] * 20)

    with pytest.raises(WeightsError, match="would lead to an infinite loop"):
        fetch_weight_file(weight_file(server))

    assert len(server.requests) < 20 and names_in(keras_models) == ["x.h5.lock"]


def test_a_redirect_is_followed(keras_models, serve, content):
    server = serve(answer(status=302, headers={"Location": "/again"}))

    assert fetch_weight_file(weight_file(server)).read_bytes() == content


def test_a_redirect_that_leaves_https_is_refused():
    redirects = download._SafeRedirects()
    request = Request("https://host/x.h5")

    with pytest.raises(urllib.error.HTTPError, match="without https: http://host/x.h5"):
        redirects.redirect_request(request, None, 302, "", {}, "http://host/x.h5")
    assert redirects.redirect_request(request, None, 302, "", {}, "https://b/x").host == "b"


def test_a_cut_off_file_is_told_even_when_the_server_gives_no_length(keras_models, serve, content):
    server = serve(answer(content[:-200], length=None))

    with pytest.raises(WeightsError, match="what was fetched is cut off"):
        fetch_weight_file(weight_file(server))

    assert names_in(keras_models) == ["x.h5.lock"]


def test_another_file_than_the_published_one_is_refused_and_not_kept(keras_models, serve):
    server = serve()

    with pytest.raises(WeightsError, match=rf"{server.url}  gave another file"):
        fetch_weight_file(weight_file(server, sha256="0" * 64))

    assert names_in(keras_models) == ["x.h5.lock"]


# ----------------------------------------------------------------------------------------- resuming


def test_a_connection_that_breaks_off_is_resumed_where_it_broke(keras_models, serve, content):
    size = len(content)
    rest = {"Content-Range": f"bytes 3000-{size - 1}/{size}"}
    server = serve(cut(3000), answer(content[3000:7000], 206, rest, length=size - 3000))

    path = fetch_weight_file(weight_file(server))

    assert path.read_bytes() == content
    assert server.requests == ["", "bytes=3000-", "bytes=7000-"]


def test_a_connection_that_stalls_is_resumed(keras_models, serve, content, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.2)
    server = serve(stall(3000))
    began = time.monotonic()

    path = fetch_weight_file(weight_file(server))

    assert time.monotonic() - began < 5  # the server would end the connection after 10
    assert path.read_bytes() == content
    assert server.requests == ["", "bytes=3000-"]


def test_a_part_that_was_left_is_resumed_by_the_next_command(keras_models, serve, content):
    server = serve(cut(3000), answer(status=503))
    with pytest.raises(WeightsError, match="Service Unavailable"):
        fetch_weight_file(weight_file(server))
    assert (keras_models / "x.h5.part").read_bytes() == content[:3000]

    path = fetch_weight_file(weight_file(server))

    assert path.read_bytes() == content
    assert server.requests[-1] == "bytes=3000-"
    assert names_in(keras_models) == ["x.h5", "x.h5.lock", "x.h5.sha256"]


def test_a_server_that_always_breaks_off_is_left_after_a_few_attempts(keras_models, serve):
    server = serve(*[cut(count) for count in range(1000, 30000, 1000)], tag="")

    with pytest.raises(WeightsError, match=r"broke off after 5,000 of [\d,]+ bytes"):
        fetch_weight_file(weight_file(server))

    assert server.requests == [""] * 5  # without a tag nothing says that the rest fits


def test_a_part_without_a_tag_is_resumed_where_the_digest_is_known(
    keras_models, serve, content, tmp_path
):
    server = serve(cut(3000), tag="")

    path = fetch_weight_file(weight_file(server, sha256=hash_file(tmp_path / "source.h5")))

    assert path.read_bytes() == content and server.requests == ["", "bytes=3000-"]


def test_a_part_of_another_version_of_the_file_is_thrown_away(keras_models, serve):
    server = serve(cut(10_000), answer(status=503))
    with pytest.raises(WeightsError):
        fetch_weight_file(weight_file(server))
    server.tag = '"two"'  # its tensor differs, and so do the first bytes of that
    server.content = write_weights(keras_models.parent / "other.h5", value=1.0).read_bytes()

    path = fetch_weight_file(weight_file(server))

    assert path.read_bytes() == server.content


def test_a_damaged_part_costs_one_more_download(keras_models, serve, content, tmp_path):
    keras_models.mkdir(parents=True)
    (keras_models / "x.h5.part").write_bytes(b"?" * 3000)
    server = serve()

    path = fetch_weight_file(weight_file(server, sha256=hash_file(tmp_path / "source.h5")))

    assert path.read_bytes() == content
    assert server.requests == ["bytes=3000-", ""]


@pytest.mark.parametrize(("extra", "requests"), [(0, 1), (50, 2)])
def test_a_range_that_the_server_cannot_satisfy(
    extra, requests, keras_models, serve, content, tmp_path
):
    """416: the part is whole, as after a kill before the rename; or longer than the file."""
    keras_models.mkdir(parents=True)
    (keras_models / "x.h5.part").write_bytes(content + b"?" * extra)
    server = serve()

    path = fetch_weight_file(weight_file(server, sha256=hash_file(tmp_path / "source.h5")))

    assert path.read_bytes() == content
    assert len(server.requests) == requests


def test_a_server_that_ignores_ranges_sends_the_whole_file(keras_models, serve, content):
    server = serve(cut(3000), lambda handler: handler.answer(content))

    assert fetch_weight_file(weight_file(server)).read_bytes() == content


@pytest.mark.slow
def test_processes_that_fetch_at_once_fetch_once(serve, content, keras_models):
    """Processes of their own: what holds between threads need not hold between processes."""
    server = serve()
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=fetch_weight_file, args=(weight_file(server),)) for _ in range(8)
    ]

    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0] * 8
    assert server.requests == [""]
    assert (keras_models / "x.h5").read_bytes() == content


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_a_part_that_is_resumed(serve, content, keras_models):
    """A process of its own: it is killed."""
    server = serve(stall(12_000))
    process = multiprocessing.get_context("spawn").Process(
        target=fetch_weight_file, args=(weight_file(server),)
    )
    process.start()
    part, deadline = keras_models / "x.h5.part", time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)

    process.kill()
    process.join()
    left = part.stat().st_size
    path = fetch_weight_file(weight_file(server))

    assert path.read_bytes() == content
    assert server.requests == ["", f"bytes={left}-"] and left


# ------------------------------------------------------------------------------------------- places


def test_without_a_network_the_error_names_file_address_and_place(keras_models):
    # Port 1 is closed on every machine: connecting fails at once.
    url = "http://127.0.0.1:1/x.h5"

    with pytest.raises(WeightsError) as caught:
        fetch_weight_file(weight_file(url))

    text = str(caught.value)
    assert text.startswith(f"{keras_models / 'x.h5'}  is not there, and it could not be fetched (")
    assert f"The file is published at {url}" in text
    assert "put it at the path above (KERAS_HOME moves that folder)" in text


def test_a_cache_that_cannot_be_written_is_an_error_and_not_passed_by(tmp_path, monkeypatch):
    (tmp_path / "keras").write_text("a file where a folder should be")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    with pytest.raises(WeightsError, match="its folder cannot be written"):
        fetch_weight_file(weight_file("http://127.0.0.1:1/x.h5"))


def test_a_full_disk_is_told_and_the_part_does_not_stay_on_it(keras_models, serve, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download.os, "fsync", fail)

    with pytest.raises(OutputError, match="x.h5  cannot be written: No space left on device"):
        fetch_weight_file(weight_file(serve()))

    assert names_in(keras_models) == ["x.h5.lock"]


def test_a_file_that_is_here_is_used_without_a_lock(keras_models, content, monkeypatch):
    """A read-only cache has no place for one."""
    keras_models.mkdir(parents=True)
    (keras_models / "x.h5").write_bytes(content)
    monkeypatch.setattr(fcntl, "flock", None)
    file = weight_file("http://127.0.0.1:1/x.h5", sha256=hash_file(keras_models / "x.h5"))

    assert fetch_weight_file(file) == keras_models / "x.h5"
    assert names_in(keras_models) == ["x.h5"]


# ------------------------------------------------------------------------------------------ offline


@pytest.fixture
def sockets(monkeypatch):
    """Sockets that are opened and hosts that are looked up, all of which fail."""
    opened = []

    def refuse(*arguments, **options):
        opened.append(arguments)
        raise OSError("refused by the test")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    return opened


def test_offline_no_socket_is_opened(keras_models, sockets):
    file = find_weight_file(MOBILENET, {"alpha": 0.5}, (128, 128))

    with going_offline(), pytest.raises(WeightsError) as caught:
        fetch_weight_file(file)

    assert str(caught.value).splitlines() == [
        f"{keras_models / file.name}  is not there, and offline nothing is fetched (--offline, or "
        "TL_TOOLKIT_OFFLINE)",
        f"  The file is published at {file.url}",
        "  Try: tltool weights pull mobilenet alpha=0.5 --input-size 128 --out DIR on a machine "
        f"with a network, then here tltool weights import DIR/{file.name} --as mobilenet "
        "alpha=0.5 --input-size 128; or model.weights=PATH",
    ]
    assert sockets == [] and not keras_models.exists()
    with pytest.raises(WeightsError, match="refused by the test"):
        fetch_weight_file(file)
    assert sockets  # what is watched is what a download uses


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("TRUE", True), ("0", False)])
def test_the_variable_has_the_values_of_hf_hub_offline(
    value, offline, keras_models, serve, monkeypatch
):
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", value)
    server = serve()

    if offline:
        with pytest.raises(WeightsError, match="offline nothing is fetched"):
            fetch_weight_file(weight_file(server))
    else:
        fetch_weight_file(weight_file(server))

    assert len(server.requests) == (not offline)


# --------------------------------------------------------------------------------------------- pins


def test_a_file_without_a_published_digest_is_pinned_on_first_use(keras_models, content, tmp_path):
    keras_models.mkdir(parents=True)
    (keras_models / "x.h5").write_bytes(content)
    file = weight_file("http://127.0.0.1:1/x.h5")

    fetch_weight_file(file)
    write_weights(keras_models / "x.h5", value=1.0)

    digits = hash_file(tmp_path / "source.h5")
    assert (keras_models / "x.h5.sha256").read_text() == f"{digits}  x.h5\n"
    with pytest.raises(
        WeightsError, match=r"is not the file that it was on its first use(.|\n)*rm"
    ):
        fetch_weight_file(file)


def test_what_is_fetched_again_must_be_what_was_pinned(keras_models, serve, tmp_path):
    server = serve()
    fetch_weight_file(weight_file(server)).unlink()
    server.content = write_weights(tmp_path / "other.h5", value=1.0).read_bytes()

    with pytest.raises(WeightsError, match=r"gave another file(.|\n)*x\.h5\.sha256"):
        fetch_weight_file(weight_file(server))
    (keras_models / "x.h5.sha256").unlink()

    assert fetch_weight_file(weight_file(server)).read_bytes() == server.content


def test_a_damaged_file_is_not_pinned(keras_models):
    keras_models.mkdir(parents=True)
    (keras_models / "x.h5").write_bytes(b"damaged")

    fetch_weight_file(weight_file("http://127.0.0.1:1/x.h5"))

    assert names_in(keras_models) == ["x.h5"]


@pytest.mark.parametrize("reason", ["mode", "name"])
def test_the_pin_of_a_folder_that_is_not_written_lies_in_the_toolkits_cache(
    keras_models, content, monkeypatch, reason
):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(keras_models.parent / "own"))
    keras_models.mkdir(parents=True)
    (keras_models / "x.h5").write_bytes(content)
    if reason == "mode":
        keras_models.chmod(0o555)  # which binds root too
    else:
        (keras_models / "x.h5.sha256").mkdir()
    file = weight_file("http://127.0.0.1:1/x.h5")

    fetch_weight_file(file)
    left = names_in(keras_models)
    keras_models.chmod(0o755)
    write_weights(keras_models / "x.h5", value=1.0)

    assert left == ["x.h5", "x.h5.sha256"][: 1 + (reason == "name")]
    assert len(list((keras_models.parent / "own" / "pins").rglob("x.h5.sha256"))) == 1
    with pytest.raises(WeightsError, match="on its first use"):
        fetch_weight_file(file)
