"""Run folders: numbered, found by name, never mixed, written by one process."""

import contextlib
import errno
import json
import os
import threading
import time
from pathlib import Path

import pytest

from tl_toolkit.api.search import open_search
from tl_toolkit.errors import DataError, OutputError, RecipeError
from tl_toolkit.recipe.load import load_recipe
from tl_toolkit.runs.files import write_json
from tl_toolkit.runs.folder import ARTIFACTS, RunFolder
from tl_toolkit.runs.places import create_run, find_run, point_latest, resume_run
from tl_toolkit.runs.processes import describe_process

ROOT = Path(__file__).resolve().parents[2]


def finished_run(root, name="flowers", **options):
    with create_run(name, root=root, **options) as folder:
        pass
    point_latest(folder, root=root, name=name)
    return folder


def state_of(folder):
    return json.loads(folder.status.read_text())["state"]


def test_runs_of_one_name_are_numbered_from_001(tmp_path):
    paths = [finished_run(tmp_path).path for _ in range(3)]

    assert [path.name for path in paths] == ["001", "002", "003"]


def test_racing_runs_get_numbers_of_their_own(tmp_path):
    paths = []

    def write():
        with create_run("flowers", root=tmp_path) as folder:
            paths.append(folder.path)

    threads = [threading.Thread(target=write) for _ in range(16)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(paths)) == 16


@pytest.mark.parametrize("word", ["flowers/002", "flowers/latest", "latest"])
def test_a_run_is_found_by_number_and_by_latest(tmp_path, word):
    finished_run(tmp_path)
    newest = finished_run(tmp_path)

    assert find_run(word, root=tmp_path).path == newest.path


def test_a_name_alone_means_its_latest_run(tmp_path):
    run = finished_run(tmp_path)
    finished_run(tmp_path, name="trees")

    assert find_run("flowers", root=tmp_path).path == run.path


def test_the_folder_of_a_name_means_its_latest_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = finished_run(tmp_path / "runs", name="two")

    assert find_run("runs/two").path == find_run("runs/two/").path == run.path


def test_latest_means_an_interrupted_run_only_where_that_is_asked_for(tmp_path):
    with contextlib.suppress(KeyboardInterrupt), create_run("flowers", root=tmp_path) as broken:
        touch(broken.model)
        raise KeyboardInterrupt

    with pytest.raises(DataError, match=r"latest  is no finished run(.|\n)*Try: unfinished=True"):
        find_run("latest", root=tmp_path)
    for word in ("latest", "flowers/latest", "flowers"):
        assert find_run(word, root=tmp_path, unfinished=True).path == broken.path
    with pytest.raises(DataError):
        find_run("trees/latest", root=tmp_path, unfinished=True)


def test_a_search_or_a_run_without_a_model_is_never_the_latest(tmp_path):
    good = finished_run(tmp_path)
    touch(good.model)
    with create_run("flowers-search", root=tmp_path):
        pass

    assert find_run("latest", root=tmp_path, unfinished=True).path == good.path


@pytest.mark.parametrize("kind", ["search", "sweep", "curve", "auto"])
def test_a_search_is_found_by_latest_beside_the_latest_run(tmp_path, kind):
    run = finished_run(tmp_path)
    options = {"resume": False, "overwrite": False, "kind": kind}
    for error in (None, None, KeyboardInterrupt):
        with contextlib.suppress(KeyboardInterrupt):
            with open_search("flowers", tmp_path, None, **options) as folder:
                touch(folder.auto if kind == "auto" else folder.search)
                if error:
                    raise error

    for word in (f"flowers-{kind}/latest", f"flowers-{kind}"):
        assert find_run(word, root=tmp_path).path == tmp_path / f"flowers-{kind}" / "002"
    assert find_run("latest", root=tmp_path).path == run.path


def test_a_resumed_run_is_the_latest_where_the_folder_of_all_runs_is_a_link(tmp_path):
    root = tmp_path / "runs"
    (tmp_path / "disk").mkdir()
    root.symlink_to(tmp_path / "disk")
    with create_run("flowers", root=root) as folder:
        pass

    point_latest(RunFolder(folder.path.resolve()), root=root, name="flowers")

    assert (root / "flowers" / "latest").readlink() == Path("001")
    assert (root / "latest").readlink() == Path("flowers/001")


def test_many_runs_are_listed_in_part(tmp_path):
    for _ in range(10):
        finished_run(tmp_path)

    with pytest.raises(DataError, match=r"Here: flowers/003, (.|\n)*flowers/010 and 2 more\."):
        find_run("trees", root=tmp_path)


def test_latest_is_not_moved_by_a_run_that_did_not_end(tmp_path):
    good = finished_run(tmp_path)
    with pytest.raises(RuntimeError), create_run("flowers", root=tmp_path):
        raise RuntimeError("no memory")

    assert find_run("latest", root=tmp_path).path == good.path


def test_a_run_is_found_by_its_folder(tmp_path):
    folder = finished_run(tmp_path)

    assert find_run(folder.path, root=tmp_path / "elsewhere").path == folder.path


@pytest.mark.parametrize("system", ["no links", "a folder is there"])
def test_a_latest_that_cannot_be_made_ends_no_run(tmp_path, monkeypatch, system):
    def refuse(*arguments):
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as on FAT and some of SMB

    with create_run("flowers", root=tmp_path) as folder:
        pass
    if system == "no links":
        monkeypatch.setattr(os, "symlink", refuse)
    else:
        (tmp_path / "flowers" / "latest").mkdir()

    reason = point_latest(folder, root=tmp_path, name="flowers")

    assert reason.startswith("`latest` does not mean this run: ")
    assert {path.name for path in (tmp_path / "flowers").iterdir()} <= {"001", "latest"}


def test_an_unknown_run_names_those_that_there_are(tmp_path):
    finished_run(tmp_path)

    with pytest.raises(DataError, match=r"trees  is no run(.|\n)*Here: flowers/001"):
        find_run("trees", root=tmp_path)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("flower/001", "flowers/001"),
        ("flowers/2", "flowers/002"),
        ("flowers/009", "flowers/002"),
        ("flwers", "flowers/002"),
        ("flowers-search", "flowers/002"),
        ("zebra", ""),
    ],
)
def test_a_mistyped_run_is_answered_by_one_that_is_there_and_holds_a_model(tmp_path, typed, meant):
    finished_run(tmp_path)
    touch(finished_run(tmp_path).model)
    with contextlib.suppress(RuntimeError), create_run("flowers", root=tmp_path) as failed:
        touch(failed.lock)
        raise RuntimeError("no memory")
    with create_run("flowers-search", root=tmp_path, kind="search"):
        pass

    with pytest.raises(DataError, match=r"Here: flowers/001, flowers/002\.") as caught:
        find_run(typed, root=tmp_path)

    assert caught.value.problems[0].hint == meant


def test_where_there_is_no_run_yet_the_hint_makes_one(tmp_path):
    with pytest.raises(DataError, match=r"holds none yet\.\n  Try: tltool finetune quickstart$"):
        find_run("flowers", root=tmp_path)


def test_runs_and_searches_are_ordered_by_number_also_after_999(tmp_path):
    for name in ("flowers", "flowers-search"):
        for number in (998, 999, 1000):
            write_json(tmp_path / name / str(number) / "status.json", {"state": "done"})
            if name == "flowers-search":
                write_json(tmp_path / name / str(number) / "search.json", {})
    recipe = load_recipe(ROOT / "recipes" / "quickstart.yaml").recipe.model_copy(
        update={"name": "flowers"}
    )

    with pytest.raises(DataError, match=r"Here: flowers/998, flowers/999, flowers/1000\."):
        find_run("trees", root=tmp_path)
    with open_search(recipe.name, tmp_path, None, resume=True, overwrite=False) as search:
        assert search.path.name == "1000"
    assert finished_run(tmp_path).path.name == "1001"


@pytest.mark.parametrize(
    ("states", "resumed"),
    [
        (["interrupted", "interrupted", "done"], "002"),
        (["failed", "done", "done"], "001"),
        (["done", "done"], "002"),
        (["interrupted", "begun"], "001"),  # interrupted before its first trial
    ],
)
def test_a_search_that_has_not_ended_is_resumed_before_a_newer_one_that_has(
    tmp_path, states, resumed
):
    for number, state in enumerate(states, start=1):
        folder = RunFolder(tmp_path / "flowers-search" / f"{number:03d}")
        write_json(folder.status, {"state": state.replace("begun", "interrupted")})
        if state != "begun":
            write_json(folder.search, {})

    with open_search("flowers", tmp_path, None, resume=True, overwrite=False) as folder:
        assert folder.path.name == resumed


def test_out_that_holds_a_run_is_refused_and_untouched(tmp_path):
    out = tmp_path / "here"
    finished_run(tmp_path, out=out)
    (out / "model.keras").write_bytes(b"precious")

    with pytest.raises(RecipeError, match="holds a run already(.|\n)*overwrite=True"):
        finished_run(tmp_path, out=out)

    assert (out / "model.keras").read_bytes() == b"precious"


def test_overwrite_removes_all_artifacts_and_drafts_and_nothing_else(tmp_path):
    folder = finished_run(tmp_path, out=tmp_path / "here")
    for artifact in ARTIFACTS:
        path = folder.path / artifact.relative
        path.mkdir(parents=True, exist_ok=True) if not path.suffix else touch(path)
    touch(folder.path / ".metrics.123.0a1b2c3d.json")
    touch(folder.path / "notes.md")
    (tmp_path / "elsewhere" / "kept").mkdir(parents=True)
    folder.tensorboard.rmdir()
    folder.tensorboard.symlink_to(tmp_path / "elsewhere")

    # What holds search.json, among all, is a search.
    with create_run("flowers", out=folder.path, overwrite=True, kind="search"):
        left = sorted(entry.name for entry in folder.path.iterdir())

    assert left == [".writing", "notes.md", "status.json"]
    assert (tmp_path / "elsewhere" / "kept").is_dir()


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize("kinds", [("search", "run"), ("run", "search"), ("sweep", "search")])
def test_overwrite_never_replaces_a_folder_of_another_kind(tmp_path, kinds):
    old, new = kinds
    with create_run("flowers", out=tmp_path / "sr", kind=old) as folder:
        (folder.model if old == "run" else folder.search).write_text("{}")

    with pytest.raises(RecipeError, match=f"sr  holds a {old}\\n.*A {new} never takes the place"):
        with create_run("flowers", out=tmp_path / "sr", kind=new, overwrite=True):
            pass

    assert (folder.model if old == "run" else folder.search).is_file()
    assert folder.read_status()["kind"] == old


def test_overwrite_never_deletes_what_is_no_run(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"precious")

    with pytest.raises(RecipeError, match="is not empty and holds no run"):
        finished_run(tmp_path, out=tmp_path / "photos", overwrite=True)

    assert [entry.name for entry in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_out_below_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="cannot be written"):
        finished_run(tmp_path, out=tmp_path / "file" / "run")


def test_status_keeps_the_time_of_the_start(tmp_path):
    folder = finished_run(tmp_path)
    started = json.loads(folder.status.read_text())["started"]

    folder.write_status("done", note=1)

    assert json.loads(folder.status.read_text())["started"] == started
    assert json.loads(folder.status.read_text())["note"] == 1


@pytest.mark.parametrize(
    ("error", "state"),
    [(None, "done"), (KeyboardInterrupt, "interrupted"), (SystemExit, "failed")],
)
def test_the_status_says_how_a_run_ended(tmp_path, error, state):
    with contextlib.suppress(KeyboardInterrupt, SystemExit), create_run("a", root=tmp_path) as run:
        during = state_of(run)
        if error:
            raise error

    assert (during, state_of(run)) == ("running", state)


def test_a_run_that_is_refused_before_it_began_leaves_no_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    for options in ({}, {"out": tmp_path / "new"}, {"out": tmp_path / "empty"}):
        with pytest.raises(DataError), create_run("a", root=tmp_path / "runs", **options) as run:
            touch(run.recipe)
            touch(run.log)
            raise DataError("no network")

    assert [path.name for path in tmp_path.rglob("*")] == ["empty", "runs"]


@pytest.mark.parametrize("begun", ["lock", "search"])
def test_a_run_that_failed_after_it_began_stays(tmp_path, begun):
    with pytest.raises(DataError), create_run("a", root=tmp_path) as run:
        touch(getattr(run, begun))
        raise DataError("a file is gone")

    assert state_of(run) == "failed"


def test_a_run_in_progress_is_neither_overwritten_nor_resumed(tmp_path):
    out = tmp_path / "here"
    claim = "is being written by process"

    with create_run("flowers", out=out) as folder:
        touch(folder.model)
        with pytest.raises(RecipeError, match=claim):
            finished_run(tmp_path, out=out, overwrite=True)
        with pytest.raises(RecipeError, match=claim), resume_run(folder):
            pass
        assert folder.model.exists() and state_of(folder) == "running"

    with resume_run(folder):
        assert folder.model.exists()
    finished_run(tmp_path, out=out, overwrite=True)
    assert not folder.model.exists()


def test_of_runs_that_begin_at_once_in_one_folder_one_may_have_it(tmp_path):
    barrier = threading.Barrier(4)
    ends = []

    def write():
        barrier.wait()
        try:
            finished_run(tmp_path, out=tmp_path / "same")
            ends.append("done")
        except RecipeError:
            ends.append("refused")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(ends) == ["done", "refused", "refused", "refused"]


@pytest.mark.parametrize(("age", "is_replaced"), [(100, False), (400, True)])
def test_a_run_of_another_host_is_replaced_only_without_a_sign_of_life(tmp_path, age, is_replaced):
    folder = finished_run(tmp_path, out=tmp_path / "here")
    touch(folder.model)
    lock = folder.path / ".writing"
    lock.write_text(json.dumps({"host": "elsewhere", "boot": "b", "pid": 1, "flock": True}))
    os.utime(lock, (time.time() - age, time.time() - age))

    if is_replaced:
        finished_run(tmp_path, out=folder.path, overwrite=True)
    else:
        with pytest.raises(RecipeError, match="is being written by process 1 on elsewhere"):
            finished_run(tmp_path, out=folder.path, overwrite=True)

    assert folder.model.exists() != is_replaced


def test_a_run_whose_folder_was_taken_over_ends_and_leaves_the_status_of_its_follower(tmp_path):
    follower = {**describe_process(), "host": "elsewhere", "boot": "b", "flock": True}

    with pytest.raises(OutputError, match=r"by process \d+ on elsewhere by now\n.*5 minutes"):
        with create_run("flowers", root=tmp_path) as folder:
            (folder.path / ".writing").unlink()  # this process was suspended meanwhile
            (folder.path / ".writing").write_text(json.dumps(follower))
            write_json(folder.status, {"state": "running", **follower})
            folder.write_status("running", epoch=3)

    assert folder.read_status() == {"state": "running", **follower}
    assert (folder.path / ".writing").is_file()


@pytest.mark.parametrize("pid", [1, os.getppid()])
def test_a_killed_run_is_replaced_although_its_number_is_now_somebody_elses(tmp_path, pid):
    folder = RunFolder(tmp_path / "here")
    write_json(folder.status, {"state": "running", "pid": pid, "started": 0})
    (folder.path / ".writing").write_text(json.dumps({**describe_process(), "pid": pid}))

    finished_run(tmp_path, out=folder.path, overwrite=True)

    assert state_of(folder) == "done"


@pytest.mark.parametrize(
    "run", ["s3://me:hunter2@photos/runs/001", Path("memory://photos/runs/001")]
)
def test_a_run_with_an_address_is_copied_first(run):
    with pytest.raises(DataError, match=r"the run  has the address(?s:.*)aws s3 cp") as caught:
        find_run(run)

    assert "hunter2" not in str(caught.value)
