"""A folder has one writer: by a lock that ends with its process, or by a claim."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from tl_toolkit.errors import RecipeError
from tl_toolkit.runs import locks
from tl_toolkit.runs.locks import describe_process, hold, is_abandoned


@pytest.fixture(params=["flock", "no flock"])
def system(request, monkeypatch):
    """Both kinds of file systems: with flock, and without."""
    if request.param == "no flock":
        monkeypatch.setattr(fcntl, "flock", refuse_lock)
    return request.param


def refuse_lock(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_folder_is_held_once_and_free_again(tmp_path, system):
    with hold(tmp_path):
        with pytest.raises(RecipeError, match=f"is being written by process {os.getpid()} on "):
            with hold(tmp_path):
                pass
        assert not is_abandoned(tmp_path)

    with hold(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_free_after_an_error(tmp_path, system):
    with pytest.raises(ZeroDivisionError), hold(tmp_path):
        1 / 0  # noqa: B018

    assert list(tmp_path.iterdir()) == []


HOLDER = """
import sys, time
from pathlib import Path
from tl_toolkit.runs.locks import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_the_process_that_is_killed(tmp_path):
    """A process of its own: it is killed."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RecipeError, match=f"process {process.pid} on "), hold(tmp_path):
            pass
        assert not is_abandoned(tmp_path)
        process.send_signal(signal.SIGKILL)

    assert is_abandoned(tmp_path)
    with hold(tmp_path):
        pass


def test_a_lock_that_was_removed_while_it_was_waited_for_is_no_lock(tmp_path, monkeypatch):
    flock, opened = fcntl.flock, []

    def replace_once(descriptor, operation):
        if not opened:  # the holder removes its file between our `open` and our `flock`
            opened.append(descriptor)
            (tmp_path / ".writing").unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replace_once)
    with hold(tmp_path):
        assert (tmp_path / ".writing").exists()


HERE = describe_process()
DEAD = {**HERE, "pid": 2**22 + 1}


@pytest.mark.parametrize("text", ["", json.dumps(DEAD)], ids=["a new file", "a dead writer's"])
def test_a_writer_waits_while_another_process_asks_who_holds_the_folder(tmp_path, text):
    (tmp_path / ".writing").write_text(text)
    with open(tmp_path / ".writing") as question:
        fcntl.flock(question, fcntl.LOCK_EX)  # as `is_abandoned` does
        threading.Timer(0.1, fcntl.flock, (question, fcntl.LOCK_UN)).start()

        with hold(tmp_path):
            assert json.loads((tmp_path / ".writing").read_text()) == HERE


def test_a_writer_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 0.05)
    with open(tmp_path / ".writing", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(RecipeError, match="is being written by another process"):
            with hold(tmp_path):
                pass


@pytest.mark.parametrize("name", [".writing", ".writing-by"])
def test_a_lock_file_that_names_no_writer_is_abandoned_only_when_it_is_old(tmp_path, name):
    (tmp_path / name).touch()  # as between a writer's `open` and its `flock`
    assert not is_abandoned(tmp_path)

    os.utime(tmp_path / name, (0, 0))  # as after a kill in that moment
    assert is_abandoned(tmp_path)


@pytest.mark.parametrize(
    ("changes", "is_gone"),
    [
        ({"pid": 1}, True),  # the number is now somebody else's, who began later
        ({"pid": 2**22 + 1}, True),
        ({"boot": "an earlier one"}, True),
        ({"host": "another", "pid": 2**22 + 1}, False),  # nobody here can know
        ({}, False),
    ],
)
def test_without_flock_a_claim_counts_unless_its_process_has_surely_ended(
    tmp_path, monkeypatch, changes, is_gone
):
    monkeypatch.setattr(fcntl, "flock", refuse_lock)
    (tmp_path / ".writing-by").write_text(json.dumps(HERE | changes))

    assert is_abandoned(tmp_path) == is_gone
    if is_gone:
        with hold(tmp_path):
            assert json.loads((tmp_path / ".writing-by").read_text()) == HERE
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(RecipeError, match=r"if it is gone: rm .*\.writing-by"), hold(tmp_path):
            pass
