"""A store that does not answer: said early, and not waited for without an end."""

import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tl_toolkit.errors import DataError
from tl_toolkit.sources import stores, waiting
from tl_toolkit.sources.stores import copy_object, find_object, list_objects


@pytest.fixture
def silent(bucket, monkeypatch, caplog):
    """The address of a store that fails late, and the names of its calls."""
    calls = []

    def wait(self, path, *arguments, **options):
        calls.append(path)
        time.sleep(0.3)
        raise OSError("timed out")

    monkeypatch.setattr(waiting, "_SECONDS", 0.1)
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(waiting, "_told", set())
    for name in ("info", "find", "get_file"):
        monkeypatch.setattr(type(bucket[0]), name, wait)
    caplog.set_level(logging.WARNING)
    return bucket[2], calls


def test_a_wait_for_a_store_is_said_once_with_its_address_and_end(silent, caplog):
    address, _ = silent
    before = time.time()

    def ask(name):
        with pytest.raises(DataError, match="timed out"):
            find_object(f"{address}/{name}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, map(str, range(8))))

    (text,) = caplog.messages
    end = time.strftime("%H:%M", time.localtime(before + stores._PATIENCE_SECONDS))
    assert text.startswith(f"{address}/")
    assert "waiting for the store" in text and f"not again after {end}" in text


def test_a_forked_process_waits_for_requests_of_its_own_alone(tmp_path):
    """A process of its own, as pytest's has threads."""
    code = """
import os, time
from tl_toolkit.sources import waiting

waiting._LOOK_SECONDS = 0.01
with waiting.saying_that_it_waits("parent", "s3://photos", "the end"):
    child = os.fork()
    if child == 0:
        with waiting.saying_that_it_waits("child", "s3://photos", "the end"):
            names = [where for where, *_ in waiting._waits.values()]
        time.sleep(0.5)
        print(names, waiting._watchers, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.stdout, done.stderr) == ("['child'] {}\n", "")


def test_a_wait_after_an_answer_is_said_again(silent, bucket, monkeypatch, caplog):
    address, _ = silent
    for _ in range(2):
        with pytest.raises(DataError):
            list_objects(f"data.train: {address}", address)
        with monkeypatch.context() as patch:
            patch.setattr(type(bucket[0]), "find", lambda *arguments, **options: {})
            list_objects(f"data.train: {address}", address)

    assert [text.partition(": waiting")[0] for text in caplog.messages] == [
        f"data.train: {address}"
    ] * 2


def test_no_try_begins_after_the_last_moment_but_of_a_transfer(silent, monkeypatch, tmp_path):
    address, calls = silent
    monkeypatch.setattr(stores, "_PATIENCE_SECONDS", 0.25)

    with pytest.raises(DataError, match="timed out"):
        find_object(f"{address}/a")
    assert len(calls) == 1
    with pytest.raises(DataError, match="timed out"):
        copy_object(f"{address}/a", tmp_path / "a")
    assert len(calls) == 1 + 3


def test_who_is_answered_hears_nothing(bucket, caplog):
    list_objects("data.train", bucket[2])

    assert not caplog.records
