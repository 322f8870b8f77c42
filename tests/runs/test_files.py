"""Files and folders that are swapped into place: a reader sees the old one or the new one."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from tl_toolkit.errors import OutputError
from tl_toolkit.runs import files as files_module
from tl_toolkit.runs.files import check_place, drafted, is_draft, write_atomically, write_json


def test_names_that_are_not_utf_8_are_written_as_they_are(tmp_path):
    write_atomically(tmp_path / "a.csv", "N\udce9.jpg")

    assert (tmp_path / "a.csv").read_bytes() == b"N\xe9.jpg"


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "metrics.json"
    write_atomically(path, "old")

    with pytest.raises(RuntimeError), drafted(path) as draft:
        draft.write_text("half of the n")
        raise RuntimeError("killed")

    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for version in ("old", "new"):
        with drafted(tmp_path / "model") as draft:
            draft.mkdir()
            (draft / version).touch()

    assert [entry.name for entry in (tmp_path / "model").iterdir()] == ["new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "metrics.json", "text")


def test_numbers_that_are_not_finite_become_null(tmp_path):
    write_json(tmp_path / "a.json", {"loss": [float("nan"), float("inf"), 0.5]})

    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": [None, None, 0.5]}


@pytest.fixture(params=["exchange", "two renames"])
def swap(request, monkeypatch):
    """Both ways to replace a folder: as Linux can, and as other systems can."""
    if request.param == "two renames":
        monkeypatch.setattr(files_module, "_find_renameat2", lambda: None)
    return request.param


def write_folder(path, content):
    with drafted(path) as draft:
        (draft / "variables").mkdir(parents=True)
        (draft / "variables" / "content").write_text(content)


def read_folder(path):
    return (path / "variables" / "content").read_text()


def test_a_reader_never_sees_a_folder_missing_while_it_is_replaced(tmp_path):
    path, stop, checks, misses = tmp_path / "model", threading.Event(), [], []
    write_folder(path, "0")

    def read():
        while not stop.is_set():
            checks.append(path)
            if not os.path.isdir(path):
                misses.append(len(checks))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 100):
        write_folder(path, str(number))
    stop.set()
    reader.join()

    assert not misses
    assert len(checks) > 100
    assert read_folder(path) == "99"


def test_between_any_two_steps_of_a_replacement_the_folder_is_there(tmp_path):
    path, checks = tmp_path / "model", []
    write_folder(path, "old")

    def check(frame, event, argument):
        if frame.f_code.co_filename == files_module.__file__:
            checks.append(path.is_dir())
        return check

    sys.settrace(check)
    try:
        write_folder(path, "new")
    finally:
        sys.settrace(None)

    assert len(checks) > 20
    assert all(checks)


def test_a_folder_is_replaced_in_both_ways_and_nothing_is_left_beside_it(tmp_path, swap):
    write_folder(tmp_path / "model", "old")
    write_folder(tmp_path / "model", "new")

    assert read_folder(tmp_path / "model") == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_file_never_takes_the_place_of_a_folder_nor_a_folder_that_of_a_file(tmp_path, swap):
    write_folder(tmp_path / "figures", "kept")
    (tmp_path / "link").symlink_to("figures")
    write_atomically(tmp_path / "notes", "kept too")

    for name in ("figures", "link"):
        with pytest.raises(OutputError, match=rf"{name}  is a folder\n.*\n  Try: .*{name}/NAME"):
            write_atomically(tmp_path / name, "file")
    with pytest.raises(OutputError, match="notes  is a file"):
        write_folder(tmp_path / "notes", "folder")

    assert read_folder(tmp_path / "figures") == read_folder(tmp_path / "link") == "kept"
    assert (tmp_path / "notes").read_text() == "kept too"
    assert sorted(os.listdir(tmp_path)) == ["figures", "link", "notes"]


def test_without_an_exchange_an_error_puts_the_old_folder_back(tmp_path, monkeypatch):
    write_folder(tmp_path / "model", "old")
    monkeypatch.setattr(files_module, "_find_renameat2", lambda: None)
    rename = os.rename

    def refuse_second(source, target):
        if target == tmp_path / "model" and "content" in os.listdir(source / "variables"):
            if (source / "variables" / "content").read_text() == "new":
                raise OSError(errno.EIO, "the disk is gone")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_second)
    with pytest.raises(OutputError, match="the disk is gone"):
        write_folder(tmp_path / "model", "new")

    assert read_folder(tmp_path / "model") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_file_system_that_cannot_exchange_gets_two_renames(tmp_path, monkeypatch):
    write_folder(tmp_path / "model", "old")

    def refuse(*arguments):
        files_module.ctypes.set_errno(errno.EINVAL)  # as NFS and some of FUSE do
        return -1

    monkeypatch.setattr(files_module, "_find_renameat2", lambda: refuse)
    write_folder(tmp_path / "model", "new")

    assert read_folder(tmp_path / "model") == "new"


WRITER = """
import os, signal, sys
from pathlib import Path
from tl_toolkit.runs import files

def killed(path):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(files.shutil if sys.argv[2] == "rmtree" else files, sys.argv[2], killed)
with files.drafted(Path(sys.argv[1])) as draft:
    (draft / "variables").mkdir(parents=True)
    (draft / "variables" / "content").write_text("new")
"""


@pytest.mark.parametrize(("step", "content"), [("_sync", "old"), ("rmtree", "new")])
def test_a_writer_that_is_killed_leaves_the_old_or_the_new_folder(tmp_path, step, content):
    """A process of its own: it is killed before, and right after, the swap."""
    write_folder(tmp_path / "model", "old")

    command = [sys.executable, "-c", WRITER, str(tmp_path / "model"), step]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL

    assert read_folder(tmp_path / "model") == content
    (left,) = (name for name in os.listdir(tmp_path) if name != "model")
    assert is_draft(left)


def test_what_is_in_a_folder_and_its_name_are_forced_to_the_disk(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def record(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write_folder(tmp_path / "model", "new")

    draft = next(path for path in synced if is_draft(os.path.basename(path)))
    assert synced[-1] == str(tmp_path)  # the name, after the rename
    assert {f"{draft}/variables/content", f"{draft}/variables", draft} <= set(synced[:-1])


def test_a_link_keeps_its_place_and_its_target_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "link").symlink_to("old.csv")
    (tmp_path / "dangling").symlink_to("there/new.csv")

    for name in ("link", "dangling"):
        write_atomically(tmp_path / name, "new")

    assert (tmp_path / "link").is_symlink() and (tmp_path / "dangling").is_symlink()
    assert (tmp_path / "old.csv").read_text() == "new"
    assert (tmp_path / "there" / "new.csv").read_text() == "new"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_place(pipe)

    write_atomically(pipe, "new")

    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert pipe.is_fifo() and os.listdir(tmp_path) == ["pipe"]
