"""Run folders: numbered, found by name, never mixed, never torn."""

import json
import os
import threading

import pytest

from tl_toolkit.errors import DataError, OutputError, RecipeError
from tl_toolkit.runs.files import drafted, write_atomically, write_json
from tl_toolkit.runs.places import create_run, find_run, point_latest


def finished_run(root, name="flowers", **options):
    folder = create_run(name, root=root, **options)
    folder.write_status("done")
    point_latest(folder, root=root, name=name)
    return folder


def test_runs_of_one_name_are_numbered_from_001(tmp_path):
    paths = [create_run("flowers", root=tmp_path).path for _ in range(3)]

    assert [path.name for path in paths] == ["001", "002", "003"]


def test_racing_runs_get_numbers_of_their_own(tmp_path):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(create_run("flowers", root=tmp_path).path))
        for _ in range(16)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 16


@pytest.mark.parametrize("word", ["flowers/002", "flowers/latest", "latest"])
def test_a_run_is_found_by_number_and_by_latest(tmp_path, word):
    finished_run(tmp_path)
    newest = finished_run(tmp_path)

    assert find_run(word, root=tmp_path).path == newest.path


def test_latest_is_not_moved_by_a_run_that_did_not_end(tmp_path):
    good = finished_run(tmp_path)
    create_run("flowers", root=tmp_path).write_status("failed")

    assert find_run("latest", root=tmp_path).path == good.path


def test_names_that_are_not_utf_8_are_written_as_they_are(tmp_path):
    write_atomically(tmp_path / "a.csv", "N\udce9.jpg")

    assert (tmp_path / "a.csv").read_bytes() == b"N\xe9.jpg"


def test_a_run_is_found_by_its_folder(tmp_path):
    folder = finished_run(tmp_path)

    assert find_run(folder.path, root=tmp_path / "elsewhere").path == folder.path


def test_an_unknown_run_names_those_that_there_are(tmp_path):
    finished_run(tmp_path)

    with pytest.raises(DataError, match=r"trees  is no run(.|\n)*Here: flowers/001"):
        find_run("trees", root=tmp_path)


def test_out_that_holds_a_run_is_refused_and_untouched(tmp_path):
    out = tmp_path / "here"
    finished_run(tmp_path, out=out)
    (out / "model.keras").write_bytes(b"precious")

    with pytest.raises(RecipeError, match="holds a run already(.|\n)*--overwrite"):
        create_run("flowers", out=out)

    assert (out / "model.keras").read_bytes() == b"precious"


def test_overwrite_replaces_a_run(tmp_path):
    out = tmp_path / "here"
    finished_run(tmp_path, out=out)
    (out / "model.keras").write_bytes(b"old")

    create_run("flowers", out=out, overwrite=True)

    assert list(out.iterdir()) == []


def test_overwrite_never_deletes_what_is_no_run(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"precious")

    with pytest.raises(RecipeError, match="is not empty and holds no run"):
        create_run("flowers", out=tmp_path / "photos", overwrite=True)

    assert (tmp_path / "photos" / "a.jpg").exists()


def test_a_run_in_progress_is_not_overwritten(tmp_path):
    folder = create_run("flowers", out=tmp_path / "here")
    write_json(folder.status, {"state": "running", "pid": os.getppid(), "started": 0})

    with pytest.raises(RecipeError, match=f"is being written by process {os.getppid()}"):
        create_run("flowers", out=tmp_path / "here", overwrite=True)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "metrics.json"
    write_atomically(path, "old")

    with pytest.raises(RuntimeError), drafted(path) as draft:
        draft.write_text("half of the n")
        raise RuntimeError("killed")

    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for version in ("one", "two"):
        with drafted(tmp_path / "model") as draft:
            draft.mkdir()
            (draft / version).touch()

    assert [entry.name for entry in (tmp_path / "model").iterdir()] == ["two"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "metrics.json", "text")


def test_out_below_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="cannot be written"):
        create_run("flowers", out=tmp_path / "file" / "run")


def test_status_keeps_the_time_of_the_start(tmp_path):
    folder = create_run("flowers", root=tmp_path)
    folder.write_status("running")
    started = json.loads(folder.status.read_text())["started"]

    folder.write_status("done", note=1)

    assert json.loads(folder.status.read_text())["started"] == started
    assert json.loads(folder.status.read_text())["note"] == 1


def test_numbers_that_are_not_finite_become_null(tmp_path):
    write_json(tmp_path / "a.json", {"loss": [float("nan"), float("inf"), 0.5]})

    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": [None, None, 0.5]}
