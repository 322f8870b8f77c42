"""Two hosts that share a disk never write one folder at a time.

Processes of their own: each has the name of another host, and another kernel's identity.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.command import TLTOOL
from tests.conftest import draw_class_folders
from tests.runs.hosts import Host, mounted, require_hosts
from tests.runs.test_locks import HOLDER, RACER
from tl_toolkit.errors import RecipeError
from tl_toolkit.runs.lock_files import STALE_SECONDS, inspect
from tl_toolkit.runs.locks import find_holder, hold

PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


@contextlib.contextmanager
def started(host, code, folder):
    """Runs code on a host; the process is ended when the block ends."""
    with subprocess.Popen(host.command(sys.executable, "-c", code, folder), **PIPES) as process:
        try:
            yield process
        finally:
            process.kill()


def age(lock):
    """Sets the last sign of life to before the time that a dead host is given."""
    beat = time.time() - STALE_SECONDS - 60
    os.utime(lock, (beat, beat))


@pytest.fixture(params=["container", "host"])
def other(request, tmp_path):
    """A container of this machine, and another machine."""
    require_hosts(tmp_path)
    return Host("other", tmp_path, own_kernel=request.param == "host")


def test_a_folder_that_another_host_holds_is_refused_until_it_is_dead(other, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with started(other, HOLDER, folder) as process:
        assert process.stdout.readline() == "held\n"
        assert find_holder(folder)["host"] == "other"
        with pytest.raises(RecipeError, match=f"process {process.pid} on other since"):
            with hold(folder):
                pass
        process.kill()
        process.wait()

    if json.loads((folder / ".writing").read_text())["boot"] != find_own_boot():
        with pytest.raises(RecipeError, match="gave a sign of life .* s ago; after 5 minutes"):
            with hold(folder):
                pass
        age(folder / ".writing")
    with hold(folder):
        assert find_holder(folder)["pid"] == os.getpid()
    assert list(folder.iterdir()) == []


def find_own_boot():
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


@pytest.fixture
def disk(tmp_path):
    """Two machines and the folder that both have mounted: each with the path where it sees it.

    A mount keeps for seconds what it has seen of a file, its size too: what became of files is read
    from the folder itself, `share`.
    """
    require_hosts(tmp_path)
    (tmp_path / "share").mkdir()
    places = tmp_path / "on-first", tmp_path / "on-second"
    with mounted(tmp_path / "share", *places):
        yield [(Host(place.name[3:], tmp_path), place) for place in places]


@pytest.mark.slow
def test_a_folder_on_a_shared_disk_is_refused_until_its_host_is_dead(disk, tmp_path):
    (first, there), (second, here) = disk
    for number in range(3):  # inodes are numbered as a mount sees files
        (there / f"other{number}").touch()
    (there / "run").mkdir()
    with started(first, HOLDER, there / "run") as process:
        assert process.stdout.readline() == "held\n"
        with started(second, RACER, here / "run") as racer:
            assert racer.communicate("go\n")[0].split() == ["ready", "refused"]
        seen = [inspect(place / "run" / ".writing").identity for _, place in disk]
        assert seen[0] == seen[1]  # by which one of both removes the lock of a dead holder
        process.kill()
        process.wait()
    age(here / "run" / ".writing")  # each mount keeps what it has seen for seconds

    with started(second, RACER, here / "run") as racer:
        assert racer.communicate("go\nend\n")[0].split() == ["ready", "held"]
    assert os.listdir(tmp_path / "share/run") == []


@pytest.mark.slow
def test_a_host_that_was_taken_for_dead_leaves_the_lock_of_its_follower(disk, tmp_path):
    (first, there), (second, here) = disk
    (there / "run").mkdir()
    with (
        started(first, RACER, there / "run") as suspended,
        started(second, RACER, here / "run") as follower,
    ):
        take(suspended)
        age(here / "run" / ".writing")  # as of a host that sleeps
        take(follower)

        suspended.communicate("end\n")

        assert find_holder(tmp_path / "share/run")["host"] == "second"
        assert os.listdir(tmp_path / "share/run") == [".writing"]
        follower.communicate("end\n")
    assert os.listdir(tmp_path / "share/run") == []


def take(racer):
    racer.stdin.write("go\n")
    racer.stdin.flush()
    assert [racer.stdout.readline() for _ in range(2)] == ["ready\n", "held\n"]


@pytest.mark.slow
@pytest.mark.parametrize("is_dead", [False, True])
def test_of_processes_on_both_hosts_that_want_one_folder_at_once_one_gets_it(disk, is_dead):
    ends = []
    for number in range(10):
        folders = [(host, place / f"run{number}") for host, place in disk]
        folders[0][1].mkdir()
        if is_dead:
            leave_dead_holder(disk, *folders[0])
        with contextlib.ExitStack() as stack:
            racers = [
                stack.enter_context(started(host, RACER, folder)) for host, folder in folders * 2
            ]
            for racer in racers:
                assert racer.stdout.readline() == "ready\n"
            for racer in racers:
                racer.stdin.write("go\n")
                racer.stdin.flush()
            ends.append(sorted(racer.stdout.readline().strip() for racer in racers))
            for racer in racers:
                racer.communicate("end\n")

    assert ends == [["held", "refused", "refused", "refused"]] * 10


def leave_dead_holder(disk, host, folder):
    """Leaves the lock of a process that was killed long ago."""
    with started(host, HOLDER, folder) as process:
        assert process.stdout.readline() == "held\n"
    for _, place in disk:  # each mount keeps what it has seen for seconds
        age(place / folder.name / ".writing")


@pytest.mark.slow
def test_two_fine_tunes_on_two_hosts_and_one_run_folder(disk, tmp_path, write_recipe):
    (first, there), (second, here) = disk
    draw_class_folders(tmp_path / "photos")
    phases = [{"name": "all", "epochs": 400, "learning_rate": 1e-3, "unfreeze": 2}]
    recipe = write_recipe(tmp_path / "r.yaml", tmp_path / "photos", phases=phases)
    arguments = [TLTOOL, "finetune", recipe, "report=false", "export=false", "--out"]
    log = tmp_path / "first.log"
    with open(log, "w") as file:
        process = subprocess.Popen(
            first.command(*arguments, there / "run"), stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(there / "run" / "status.json", process, log)
        refused = subprocess.run(
            second.command(*arguments, here / "run", "--resume"), capture_output=True, text=True
        )
        assert process.poll() is None, log.read_text()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    age(here / "run" / ".writing")  # each mount keeps what it has seen for seconds

    done = subprocess.run(
        second.command(*arguments, here / "run", "--resume"), capture_output=True, text=True
    )

    assert refused.returncode == 2 and "on first since" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "share/run/status.json").read_text())["state"] == "done"
    assert not (tmp_path / "share/run/.writing").exists()


def wait_for(path, process, log):
    while not path.is_file():
        assert process.poll() is None, log.read_text()
        time.sleep(0.5)
