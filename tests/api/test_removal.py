"""`tl.remove_runs` and `tl.prune_runs`: nothing is removed that was not named or listed."""

import json
import os

import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.runs.written import write_run
from tl_toolkit.errors import RecipeError
from tl_toolkit.runs.files import write_json
from tl_toolkit.runs.locks import hold
from tl_toolkit.runs.places import find_run


def names(root):
    return [info.name for info in tl.list_runs(root)]


def test_a_run_is_removed_with_its_folder_and_that_of_its_name(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, "trees")

    (removed,) = tl.remove_runs("photos/001", root=tmp_path)

    assert removed.path == tmp_path / "photos" / "001" and removed.kept == ()
    assert sorted(os.listdir(tmp_path)) == ["latest", "trees"]


def test_several_runs_are_removed_by_name_folder_and_object(tmp_path):
    folders = [write_run(tmp_path) for _ in range(4)]

    tl.remove_runs(["photos/001", folders[1].path, tl.load_run(folders[2].path)], root=tmp_path)

    assert names(tmp_path) == ["photos/004"]


def test_files_of_the_user_stay(tmp_path):
    folder = write_run(tmp_path)
    (folder.path / "notes.md").write_text("mine")

    (removed,) = tl.remove_runs("photos/001", root=tmp_path)

    assert removed.kept == ("notes.md",) == tuple(os.listdir(folder.path))


def test_a_link_in_a_run_is_removed_and_not_what_it_stands_for(tmp_path):
    folder = write_run(tmp_path / "runs")
    (tmp_path / "elsewhere" / "kept").mkdir(parents=True)
    folder.tensorboard.symlink_to(tmp_path / "elsewhere")
    (folder.phases / "out").symlink_to(tmp_path / "elsewhere")

    tl.remove_runs("photos/001", root=tmp_path / "runs")

    assert not folder.path.exists() and (tmp_path / "elsewhere" / "kept").is_dir()


def test_latest_means_the_newest_run_that_is_left(tmp_path):
    for number in range(3):
        os.utime(write_run(tmp_path).model, (number, number))
    other = write_run(tmp_path, "trees")
    os.utime(other.model, (9, 9))

    tl.remove_runs(["photos/003", "trees/001"], root=tmp_path)

    assert tl.load_run("photos", root=tmp_path).path == tmp_path / "photos" / "002"
    assert tl.load_run("latest", root=tmp_path).path == tmp_path / "photos" / "002"


def test_the_latest_search_is_the_newest_that_is_left(tmp_path):
    run = write_run(tmp_path)
    for _ in range(2):
        search = write_run(tmp_path, "photos-search", kind="search")
        search.summary.write_text("{}")
        search.best_recipe.write_text("")

    tl.remove_runs("photos-search/002", root=tmp_path)

    assert find_run("photos-search/latest", root=tmp_path).path.name == "001"
    assert find_run("latest", root=tmp_path).path == run.path


def test_a_latest_that_means_another_run_stays(tmp_path):
    write_run(tmp_path)
    newest = write_run(tmp_path)

    tl.remove_runs("photos/001", root=tmp_path)

    assert tl.load_run("latest", root=tmp_path).path == newest.path


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("latest", r"latest  is behind a link, .*latest"),
        ("photos/latest", r"is behind a link, .*latest(.|\n)*Try: .*photos/002"),
        ("photos", r"photos  names 2 runs(.|\n)*Try: photos/001 photos/002"),
        ("photos/009", r"photos/009  is no run"),
        ("pictures", r"pictures  is no run"),
        (".", r"is no run"),
        ("linked/001", r"is behind a link, .*linked"),
        ("photos/003", r"is behind a link, .*photos/003"),
    ],
)
def test_what_names_no_run_of_its_own_is_refused_and_nothing_removed(
    tmp_path, monkeypatch, typed, words
):
    root = tmp_path / "runs"
    outside = write_run(tmp_path / "elsewhere")
    write_run(root)
    write_run(root)
    (root / "linked").symlink_to(tmp_path / "elsewhere" / "photos")
    (root / "photos" / "003").symlink_to(outside.path)
    (root / "pictures").mkdir()
    (root / "pictures" / "a.jpg").touch()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(RecipeError, match=words):
        tl.remove_runs([typed, "photos/001"])

    assert outside.model.is_file() and names(root) == ["photos/001", "photos/002"]
    assert (root / "pictures" / "a.jpg").is_file()


def test_a_run_in_progress_is_refused(tmp_path):
    folder = write_run(tmp_path)
    with hold(folder.path):
        folder.write_status("running")
        with pytest.raises(RecipeError, match=rf"is running \(process {os.getpid()} on "):
            tl.remove_runs("photos/001", root=tmp_path)
        folder.write_status("done")  # as while it is exported
        with pytest.raises(RecipeError, match="is being written by process"):
            tl.remove_runs("photos/001", root=tmp_path)

    assert folder.model.is_file()


def test_pruning_lists_runs_that_did_not_end_and_removes_nothing(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, error=KeyboardInterrupt())
    write_run(tmp_path, "trees", error=RuntimeError("no memory"))
    write_run(tmp_path, "trees").model.unlink()

    listed = tl.prune_runs(root=tmp_path)
    of_trees = tl.prune_runs(["trees"], root=tmp_path)

    assert [(each.info.name, each.reason) for each in listed] == [
        ("photos/002", "interrupted"),
        ("trees/001", "failed"),
    ]
    assert [each.info.name for each in of_trees] == ["trees/001"]
    assert len(names(tmp_path)) == 4

    tl.prune_runs(root=tmp_path, remove=True)

    assert names(tmp_path) == ["photos/001", "trees/002"]


def test_the_best_of_each_name_are_kept(tmp_path):
    for accuracy in (0.5, 0.9, 0.7, 0.7):
        write_run(tmp_path, accuracy=accuracy)
    write_run(tmp_path, "trees", accuracy=0.1)
    unmeasured = write_run(tmp_path)
    write_json(unmeasured.metrics, {})

    pruned = tl.prune_runs(root=tmp_path, keep=2, remove=True)

    assert [(each.info.name, each.reason) for each in pruned] == [
        ("photos/001", "place 4 of 4 of photos, by accuracy 0.5000"),
        ("photos/003", "place 3 of 4 of photos, by accuracy 0.7000"),
    ]
    assert names(tmp_path) == ["photos/002", "photos/004", "photos/005", "trees/001"]


def test_a_run_that_another_one_started_from_stays_as_long_as_that_one(tmp_path):
    first = write_run(tmp_path, accuracy=0.1)
    second = write_run(tmp_path, accuracy=0.2, start=first)
    write_run(tmp_path, "trees", start=second)
    write_run(tmp_path, accuracy=0.9)

    assert tl.prune_runs(root=tmp_path, keep=1) == []
    tl.remove_runs("trees/001", root=tmp_path)

    assert [each.info.name for each in tl.prune_runs(root=tmp_path, keep=1)] == [
        "photos/001",
        "photos/002",
    ]


def test_a_name_without_runs_and_a_keep_of_none_are_refused(tmp_path):
    write_run(tmp_path)

    with pytest.raises(RecipeError, match=r"tres  has no runs(.|\n)*Here: photos\."):
        tl.prune_runs(["tres"], root=tmp_path)
    with pytest.raises(RecipeError, match="keep"):
        tl.prune_runs(root=tmp_path, keep=0)


@pytest.mark.parametrize(("answer", "left"), [("y\n", []), ("\n", ["photos/001"])])
def test_the_command_asks_at_a_terminal(tmp_path, answer, left):
    write_run(tmp_path / "runs")

    done = tltool("runs", "remove", "photos/001", cwd=tmp_path, answer=answer)

    assert names(tmp_path / "runs") == left
    assert "photos/001" in done.stdout and "Remove 1 run? [y/N]" in done.stderr


def test_the_command_refuses_where_nobody_can_be_asked(tmp_path):
    write_run(tmp_path / "runs")

    refused = tltool("runs", "remove", "photos/001", cwd=tmp_path, code=2)
    assert "no terminal to ask at" in refused.stderr and "Try: --yes" in refused.stderr
    assert names(tmp_path / "runs") == ["photos/001"]

    done = tltool("runs", "remove", "photos/001", "--yes", cwd=tmp_path)
    assert f"removed {tmp_path / 'runs' / 'photos' / '001'}" in done.stderr
    assert names(tmp_path / "runs") == []


def test_the_command_names_the_runs_that_need_one(tmp_path):
    first = write_run(tmp_path / "runs")
    write_run(tmp_path / "runs", "trees", start=first)

    done = tltool("runs", "remove", "photos/001", "--yes", cwd=tmp_path)

    assert "trees/001 began with photos/001" in done.stderr


def test_the_command_prunes_only_with_yes(tmp_path):
    root = tmp_path / "runs"
    write_run(root, error=KeyboardInterrupt())

    listed = tltool("runs", "prune", cwd=tmp_path)
    as_json = json.loads(tltool("runs", "prune", "--json", cwd=tmp_path).stdout)
    assert "photos/001  interrupted" in listed.stdout
    assert "nothing is removed yet; --yes removes 1 run" in listed.stderr
    assert as_json[0]["reason"] == "interrupted" and names(root) == ["photos/001"]

    done = tltool("runs", "prune", "--yes", cwd=tmp_path)
    assert "removed " in done.stderr and names(root) == []
    assert "nothing to remove" in tltool("runs", "prune", cwd=tmp_path).stderr
