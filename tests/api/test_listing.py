"""`tl.list_runs` and `tl.describe_run`: what lies under runs/, read from files alone."""

import json
import subprocess
import sys

import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.runs.written import HISTORY, write_run
from tl_toolkit.errors import DataError
from tl_toolkit.runs.files import write_json
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.places import create_run
from tl_toolkit.runs.processes import describe_process


@pytest.fixture(scope="module")
def dead():
    """What identifies a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return {**describe_process(), "pid": process.pid, "process_started": 1}


def states(root):
    return {info.name: info.state for info in tl.list_runs(root)}


def test_each_state_is_told(tmp_path, dead):
    write_run(tmp_path)
    write_run(tmp_path, error=KeyboardInterrupt())
    write_run(tmp_path, error=RuntimeError("no memory"))
    write_json(tmp_path / "photos" / "004" / "status.json", {"state": "running", **dead})
    write_run(tmp_path).model.unlink()
    write_run(tmp_path).status.write_text('{"state": "do')
    (tmp_path / "photos" / "007").mkdir()

    with create_run("photos", root=tmp_path):
        told = states(tmp_path)

    assert told == {
        "photos/001": "done",
        "photos/002": "interrupted",
        "photos/003": "failed",
        "photos/004": "killed",
        "photos/005": "damaged",
        "photos/006": "damaged",
        "photos/007": "damaged",
        "photos/008": "running",
    }


def test_what_is_no_run_is_not_listed_and_no_link_is_followed(tmp_path):
    root = tmp_path / "runs"
    write_run(tmp_path / "elsewhere")
    (root / "notes").mkdir(parents=True)
    (root / "notes" / "a.txt").touch()
    (root / "photos" / "1234").mkdir(parents=True)
    (root / "photos" / "1234" / "a.jpg").touch()
    (root / "photos" / "002").symlink_to(tmp_path / "elsewhere" / "photos" / "001")
    (root / "linked").symlink_to(tmp_path / "elsewhere" / "photos")
    mine = write_run(root, out=root / "mine")
    write_run(root, out=root / "photos" / "best")

    assert list(states(root)) == ["mine", "photos/best"]
    assert tl.list_runs(root)[0].path == mine.path
    assert tl.list_runs(tmp_path / "nowhere") == []


def test_runs_are_in_the_order_of_their_numbers(tmp_path):
    for number in (1000, 2, 999):
        write_run(tmp_path, out=tmp_path / "photos" / str(number))

    assert list(states(tmp_path)) == ["photos/2", "photos/999", "photos/1000"]


def test_a_run_is_listed_with_its_base_scores_and_size(tmp_path):
    folder = write_run(tmp_path)
    before = sum(path.stat().st_size for path in folder.path.rglob("*") if path.is_file())
    (tmp_path / "large").write_bytes(b"x" * 10_000)
    folder.tensorboard.symlink_to(tmp_path / "large")

    (info,) = tl.list_runs(tmp_path)

    assert (info.recipe, info.task, info.base) == ("photos", "classification", "lenet5")
    assert (info.metric, info.scores) == ("accuracy", {"validation": 0.75})
    assert info.bytes == before and info.holds_model
    assert info.started <= info.updated


def test_a_search_is_listed_with_the_score_of_its_winner(tmp_path):
    folder = write_run(tmp_path, "photos-search", kind="search")
    write_json(folder.summary, {"objective": "val_accuracy", "best": {"score": 0.875}})
    folder.best_recipe.touch()

    (info,) = tl.list_runs(tmp_path)
    shown = tltool("runs", "show", "photos-search/001", "--root", ".", cwd=tmp_path).stdout

    assert (info.kind, info.state) == ("search", "done")
    assert (info.metric, info.scores) == ("val_accuracy", {"validation": 0.875})
    assert "val_accuracy 0.8750" in shown


def test_a_run_of_a_recipe_that_this_version_refuses_is_listed_all_the_same(tmp_path):
    recipe = write_run(tmp_path).recipe
    recipe.write_text(recipe.read_text() + "future: yes\n")

    (info,) = tl.list_runs(tmp_path)

    assert (info.state, info.recipe, info.base) == ("done", "photos", "lenet5")
    assert info.scores == {"validation": 0.75}
    assert tl.describe_run("photos/001", root=tmp_path).phases == []


def test_a_run_is_described_by_its_phases_scores_files_and_versions(tmp_path):
    folder = write_run(tmp_path)

    described = tl.describe_run("photos", root=tmp_path)

    (phase,) = described.phases
    assert (phase.name, phase.planned, phase.epochs) == ("head", 3, 2)
    assert (phase.learning_rate, phase.best) == (0.0005, 0.75)
    assert described.splits["validation"]["intervals"] == {"accuracy": [0.3, 0.95]}
    assert described.artifacts["model.keras"] == 1000
    assert described.artifacts["phases"] == len(HISTORY)
    assert described.lock["numerics"]["versions"] == {"keras": "3.15.1"}
    assert described.as_json()["info"]["path"] == str(folder.path)


def test_a_failed_run_is_described_with_its_error(tmp_path):
    write_run(tmp_path, error=RuntimeError("no memory"))

    described = tl.describe_run("photos/001", root=tmp_path)

    assert described.error == "RuntimeError: no memory"
    assert not described.splits and described.phases[0].epochs == 2


def test_an_unknown_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="is no run"):
        tl.describe_run("photos/001", root=tmp_path)


def test_the_command_prints_a_table_and_json(tmp_path):
    write_run(tmp_path / "runs")
    write_run(tmp_path / "runs", error=KeyboardInterrupt())

    printed = tltool("runs", "list", cwd=tmp_path)
    listed = json.loads(tltool("runs", "list", "--json", cwd=tmp_path).stdout)

    rows = [line.split() for line in printed.stdout.splitlines()]
    assert rows[1][:6] == ["photos/001", "done", "classification", "lenet5", "accuracy", "0.7500"]
    assert rows[2][:2] == ["photos/002", "interrupted"]
    assert printed.stderr.startswith("2 runs in runs, ")
    assert [entry["name"] for entry in listed] == ["photos/001", "photos/002"]


def test_the_command_shows_a_run(tmp_path):
    write_run(tmp_path / "runs")

    shown = tltool("runs", "show", "latest", cwd=tmp_path).stdout
    as_json = json.loads(tltool("runs", "show", "photos/001", "--json", cwd=tmp_path).stdout)

    assert "best epoch: 1 of phase head" in shown and "seed 7" in shown
    assert "keras 3.15.1" in shown and "95 % from" in shown
    assert as_json["splits"]["validation"]["accuracy"] == 0.75
    assert RunFolder.model.relative in as_json["artifacts"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    printed = tltool("runs", "list", "--root", "nowhere", cwd=tmp_path)

    assert "nowhere: no such folder" in printed.stderr
    assert tltool("runs", "list", "--root", "nowhere", "--json", cwd=tmp_path).stdout == "[]\n"
