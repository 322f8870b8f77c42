"""A folder has one writer, of all processes and hosts that share its disk."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tl_toolkit.errors import RecipeError
from tl_toolkit.runs import locks
from tl_toolkit.runs.lock_files import inspect
from tl_toolkit.runs.locks import find_holder, hold, is_abandoned
from tl_toolkit.runs.processes import describe_process, find_boot_time

LONG_AGO = 1_000_000_000


@pytest.fixture(params=["flock", "no flock"])
def system(request, monkeypatch):
    """Both kinds of file systems: with flock, and without."""
    if request.param == "no flock":
        monkeypatch.setattr(fcntl, "flock", refuse_lock)
    return request.param


def refuse_lock(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")


HERE = describe_process()
ENDED = {**HERE, "pid": 2**22 + 1}
ELSEWHERE = {**HERE, "host": "elsewhere", "boot": "another", "pid": 77}


def write_lock(folder, holder, *, age=0.0, **facts):
    """A lock file as its holder leaves it, with its last beat so many seconds ago."""
    path = folder / ".writing"
    path.write_text(json.dumps({"since": LONG_AGO, "flock": True, **holder, **facts}))
    beat = time.time() - age
    os.utime(path, (beat, beat))
    return path


def test_a_folder_is_held_once_and_free_again(tmp_path, system):
    with hold(tmp_path):
        with pytest.raises(RecipeError, match=f"is being written by process {os.getpid()} on "):
            with hold(tmp_path):
                pass
        assert not is_abandoned(tmp_path)
        assert find_holder(tmp_path)["pid"] == os.getpid()

    assert find_holder(tmp_path) is None
    with hold(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_free_after_an_error(tmp_path, system):
    with pytest.raises(ZeroDivisionError), hold(tmp_path):
        1 / 0  # noqa: B018

    assert list(tmp_path.iterdir()) == []


def test_the_message_says_who_holds_the_folder_since_when_and_what_to_do(tmp_path):
    with hold(tmp_path):
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(find_holder(tmp_path)["since"]))
        with pytest.raises(RecipeError) as caught, hold(tmp_path):
            pass

    (problem,) = caught.value.problems
    assert problem.where == str(tmp_path)
    assert problem.what.endswith(f"process {os.getpid()} on {HERE['host']} since {since}")
    assert problem.hint.endswith(f"another --out; `kill {os.getpid()}` ends it")


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
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_forgets_its_lock_ends_all_the_same(tmp_path):
    """A process of its own: it ends, though the next beat is a quarter of a minute away."""
    code = (
        "import sys; from pathlib import Path; from tl_toolkit.runs.locks import hold; "
        "hold(Path(sys.argv[1])).__enter__()"
    )

    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=10)


@pytest.mark.parametrize("age", [0, 200])
def test_a_process_of_another_host_that_gave_a_sign_of_life_holds_its_folder(tmp_path, system, age):
    path = write_lock(tmp_path, ELSEWHERE, age=age)  # no flock of theirs reaches this host
    before = path.read_bytes()

    with pytest.raises(RecipeError) as caught, hold(tmp_path):
        pass

    assert "process 77 on elsewhere since 2001-09-09" in str(caught.value)
    assert f"gave a sign of life {age} s ago; after 5 minutes" in str(caught.value)
    assert "`kill 77` on elsewhere ends it" in str(caught.value)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [".writing"]
    assert find_holder(tmp_path)["host"] == "elsewhere" and not is_abandoned(tmp_path)


def test_a_process_of_another_host_without_a_sign_of_life_is_gone(tmp_path, system):
    write_lock(tmp_path, ELSEWHERE, age=400)

    assert is_abandoned(tmp_path) and find_holder(tmp_path) is None
    with hold(tmp_path):
        assert find_holder(tmp_path)["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_a_server_keeps_for_a_dead_host_is_taken_over(tmp_path):
    path = write_lock(tmp_path, ELSEWHERE, age=400)
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        with hold(tmp_path):
            assert find_holder(tmp_path)["pid"] == os.getpid()


def test_a_process_of_an_earlier_version_on_another_host_is_believed(tmp_path):
    path = write_lock(tmp_path, ELSEWHERE, age=400)
    path.write_text(json.dumps(ELSEWHERE))
    os.utime(path, (LONG_AGO, LONG_AGO))

    with pytest.raises(RecipeError, match=r"process 77 on elsewhere\n(.|\n)*if it is gone: rm "):
        with hold(tmp_path):
            pass


@pytest.mark.parametrize(
    ("changes", "is_gone"),
    [
        ({"pid": 1}, True),  # the number is now somebody else's, who began later
        ({"pid": 2**22 + 1}, True),
        ({}, False),
    ],
)
def test_without_flock_a_process_of_this_host_holds_its_folder_as_long_as_it_lives(
    tmp_path, monkeypatch, changes, is_gone
):
    monkeypatch.setattr(fcntl, "flock", refuse_lock)
    write_lock(tmp_path, HERE, age=1000, **changes)

    assert is_abandoned(tmp_path) == is_gone
    if is_gone:
        with hold(tmp_path):
            assert find_holder(tmp_path)["process_started"] == HERE["process_started"]
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(RecipeError, match="is being written by"), hold(tmp_path):
            pass


def test_a_container_beside_this_one_holds_its_folder_by_flock(tmp_path):
    path = write_lock(tmp_path, HERE, host="container", age=1000)
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not is_abandoned(tmp_path)

    assert is_abandoned(tmp_path)


@pytest.mark.parametrize(("age", "is_gone"), [(10, False), (400, True)])
def test_without_flock_a_container_beside_this_one_lives_by_its_beats(
    tmp_path, monkeypatch, age, is_gone
):
    monkeypatch.setattr(fcntl, "flock", refuse_lock)
    write_lock(tmp_path, HERE, host="container", flock=False, age=age)

    assert is_abandoned(tmp_path) == is_gone


def test_a_beat_from_before_this_machine_started_is_of_no_living_process(tmp_path, monkeypatch):
    path = write_lock(tmp_path, HERE, boot="another", age=100)
    started = path.stat().st_mtime + 50
    monkeypatch.setattr("tl_toolkit.runs.lock_files.find_boot_time", lambda: started)
    assert is_abandoned(tmp_path)

    # A later one is that of another machine with the same name.
    os.utime(path)
    assert not is_abandoned(tmp_path)
    assert 0 < find_boot_time() < time.time()


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_BEAT_SECONDS", 0.01)
    with hold(tmp_path):
        os.utime(tmp_path / ".writing", (LONG_AGO, LONG_AGO))
        deadline = time.monotonic() + 10
        while (tmp_path / ".writing").stat().st_mtime == LONG_AGO:
            assert time.monotonic() < deadline
            time.sleep(0.005)

        assert time.time() - (tmp_path / ".writing").stat().st_mtime < 10
        (thread,) = [each for each in threading.enumerate() if each.name == "tl_toolkit heart"]
        assert thread.daemon
    thread.join(10)
    assert not thread.is_alive()


def test_a_holder_that_was_taken_for_dead_leaves_the_lock_of_its_follower(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(locks, "_BEAT_SECONDS", 0.01)
    with hold(tmp_path):
        (tmp_path / ".writing").unlink()
        write_lock(tmp_path, ELSEWHERE, age=100)
        beat = (tmp_path / ".writing").stat().st_mtime
        deadline = time.monotonic() + 10
        while not caplog.records:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    assert "another process took it" in caplog.text
    assert find_holder(tmp_path)["host"] == "elsewhere"
    assert (tmp_path / ".writing").stat().st_mtime == beat


def test_a_lock_whose_holder_comes_back_to_life_is_not_removed(tmp_path):
    path = write_lock(tmp_path, ELSEWHERE, age=400)
    seen = inspect(path)
    os.utime(path)  # after the look, and before the removal

    locks._remove(seen)

    assert os.listdir(tmp_path) == [".writing"]


def test_the_lock_of_a_follower_is_not_removed_for_that_of_a_dead_one(tmp_path, system):
    seen = inspect(write_lock(tmp_path, ENDED, flock=system == "flock"))
    with hold(tmp_path):  # another process was faster
        locks._remove(seen)

        assert find_holder(tmp_path)["pid"] == os.getpid()


@pytest.mark.parametrize("age", [0, 100])
def test_a_process_that_dies_while_it_takes_over_blocks_nobody_for_long(tmp_path, age):
    seen = inspect(write_lock(tmp_path, ENDED))
    token = tmp_path / f".writing.{locks.hashlib.sha256(seen.identity).hexdigest()[:16]}"
    token.touch()
    os.utime(token, (time.time() - age, time.time() - age))

    if age:
        with hold(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []
    else:
        locks._remove(seen)
        assert sorted(os.listdir(tmp_path)) == [".writing", token.name]


@pytest.mark.parametrize("holder", [ENDED, {**ELSEWHERE, "pid": 5}], ids=["here", "elsewhere"])
def test_of_those_who_find_a_dead_holder_at_once_one_gets_the_folder(tmp_path, system, holder):
    counts = []
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_lock(folder, holder, age=400, flock=system == "flock")
        barrier, done, ends = threading.Barrier(8), threading.Barrier(8), []

        def write(folder=folder, barrier=barrier, done=done, ends=ends):
            barrier.wait()
            try:
                with hold(folder):
                    ends.append("held")
                    done.wait()
            except RecipeError:
                ends.append("refused")
                done.wait()

        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts.append(ends.count("held"))
        assert os.listdir(folder) == []

    assert counts == [1] * 5


RACER = """
import sys, time
from pathlib import Path
from tl_toolkit.errors import RecipeError
from tl_toolkit.runs.locks import hold
print("ready", flush=True)
sys.stdin.readline()
try:
    with hold(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
except RecipeError:
    print("refused", flush=True)
"""


def test_of_processes_that_take_over_at_once_one_gets_the_folder(tmp_path):
    """Processes of their own: the kernel sees them as such."""
    write_lock(tmp_path, ENDED)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", RACER, str(tmp_path)]
    racers = [subprocess.Popen(command, **pipes) for _ in range(4)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()

    ends = [racer.stdout.readline().strip() for racer in racers]
    for racer in racers:
        racer.communicate("end\n")

    assert sorted(ends) == ["held", "refused", "refused", "refused"]
    assert os.listdir(tmp_path) == []


def test_a_writer_waits_until_another_one_has_named_itself(tmp_path):
    path = tmp_path / ".writing"
    path.touch()
    threading.Timer(0.1, path.unlink).start()

    with hold(tmp_path):
        assert find_holder(tmp_path)["pid"] == os.getpid()


def test_a_writer_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 0.05)
    (tmp_path / ".writing").touch()

    with pytest.raises(RecipeError, match="is being written by another process"):
        with hold(tmp_path):
            pass


def test_a_lock_file_that_names_no_writer_is_abandoned_only_when_it_is_old(tmp_path):
    (tmp_path / ".writing").touch()  # as between a writer's `open` and its first word
    assert not is_abandoned(tmp_path)

    os.utime(tmp_path / ".writing", (0, 0))  # as after a kill in that moment
    assert is_abandoned(tmp_path)
    with hold(tmp_path):
        pass


@pytest.mark.parametrize(("holder", "is_free"), [(ENDED, True), (ELSEWHERE, False)])
def test_the_claim_of_version_0_3_counts(tmp_path, holder, is_free):
    (tmp_path / ".writing-by").write_text(json.dumps(holder))

    if is_free:
        with hold(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(RecipeError, match=r"if it is gone: rm .*\.writing-by"), hold(tmp_path):
            pass
        assert find_holder(tmp_path)["host"] == "elsewhere"
