"""Results of a finished run carry digests: what was cut off or changed since is named."""

import json

import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.runs.written import write_predictions, write_run
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.runs import results
from tl_toolkit.runs.places import resume_run
from tl_toolkit.runs.results import finish, list_damaged


def write_finished(root):
    """Writes a run with predictions, and the digests that it ends with."""
    folder = write_run(root)
    write_predictions(folder, [("a", "ant", "ant"), ("b", "bee", "ant"), ("c", "bee", "bee")])
    finish(folder)
    return folder


def results_of(folder):
    return [folder.metrics, folder.predictions, folder.history(0, "head")]


def cut(path):
    """Takes the last line of a file, as an editor or a broken copy may."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def test_a_finished_run_has_a_digest_of_each_result(tmp_path):
    folder = write_finished(tmp_path)

    assert list_damaged(folder) == []
    assert sorted(folder.read_status()["files_sha256"]) == [
        "metrics.json", "phases/1-head/history.csv", "predictions.csv",
    ]  # fmt: skip


@pytest.mark.parametrize("place", range(3))
def test_a_result_that_is_cut_at_any_byte_or_changed_is_named(place, tmp_path):
    folder = write_finished(tmp_path)
    file = results_of(folder)[place]
    content = file.read_bytes()
    others = [content[:count] for count in range(len(content))] + [content + b"\n"]

    for other in [*others, content.replace(b"0.", b"1.")]:
        file.write_bytes(other)
        assert list_damaged(folder) == [file]

    file.write_bytes(content)
    assert list_damaged(folder) == []


READERS = {
    "predictions": [
        lambda run, other: tl.compare([other.path, run.path]),
    ],
    "metrics": [
        lambda run, other: tl.load_run(run.path).metrics,
        lambda run, other: tl.compare([other.path, run.path]),
        lambda run, other: tl.card(run.path),
    ],
    "history": [
        lambda run, other: tl.load_run(run.path).history,
        lambda run, other: tl.card(run.path),
    ],
}


@pytest.mark.parametrize("name", READERS)
def test_what_reads_a_damaged_result_names_it_and_what_to_do(name, tmp_path):
    folder, other = write_finished(tmp_path), write_finished(tmp_path)
    file = folder.history(0, "head") if name == "history" else getattr(folder, name)
    for read in READERS[name]:
        read(folder, other)  # nothing is damaged yet
    cut(file)

    for read in READERS[name]:
        with pytest.raises(DataError) as caught:
            read(folder, other)

        (problem,) = caught.value.problems
        assert problem.where == str(file)
        assert problem.what.startswith("is not the file that the run wrote")
        assert "tltool reproduce" in problem.hint


def test_a_comparison_names_what_is_damaged_of_all_runs(tmp_path):
    folders = [write_finished(tmp_path), write_finished(tmp_path)]
    for folder in folders:
        cut(folder.metrics)

    with pytest.raises(DataError) as caught:
        tl.compare([folder.path for folder in folders])

    assert [problem.where for problem in caught.value.problems] == [
        str(folder.metrics) for folder in folders
    ]


def test_only_what_is_read_is_hashed(tmp_path, monkeypatch):
    """The predictions of a million images are a hundred megabytes."""
    folder, hashed = write_finished(tmp_path), []
    hash_file = results.hash_file
    monkeypatch.setattr(results, "hash_file", lambda file: hashed.append(file) or hash_file(file))

    _ = tl.load_run(folder.path).metrics

    assert hashed == [folder.metrics]


def test_runs_show_lists_damaged_results(tmp_path):
    folder = write_finished(tmp_path / "runs")
    cut(folder.predictions)
    history = folder.history(0, "head")
    history.write_text(history.read_text() + "head,3,1e-")  # no number any more

    shown = tltool("runs", "show", "photos/001", cwd=tmp_path)
    found = json.loads(tltool("runs", "show", "photos/001", "--json", cwd=tmp_path).stdout)

    assert "damaged" in shown.stdout and "tltool reproduce photos/001" in shown.stdout
    assert found["damaged"] == ["phases/1-head/history.csv", "predictions.csv"]
    assert tl.describe_run(write_finished(tmp_path / "runs").path).damaged == []


def test_a_run_without_digests_is_read_as_it_is(tmp_path):
    folder = write_finished(tmp_path)
    folder.write_status("done")  # as versions before wrote it
    cut(folder.history(0, "head"))

    assert len(tl.load_run(folder.path).history) == 2
    assert tl.describe_run(folder.path).damaged == []


def test_a_result_that_was_removed_is_missing_and_not_damaged(tmp_path):
    folder = write_finished(tmp_path)
    folder.metrics.unlink()

    assert list_damaged(folder) == []
    with pytest.raises((DataError, RecipeError), match="is missing"):
        _ = tl.load_run(folder.path).metrics


def test_a_finished_run_that_is_resumed_for_nothing_keeps_its_digests(tmp_path):
    folder = write_finished(tmp_path)
    cut(folder.predictions)

    with resume_run(folder):
        pass

    assert list_damaged(folder) == [folder.predictions]


def test_a_run_that_goes_on_and_ends_has_new_digests(tmp_path):
    folder = write_finished(tmp_path)

    with resume_run(folder):
        folder.write_status("running")
        assert list_damaged(folder) == []
        folder.history(0, "head").write_text("phase,epoch\n")

    assert list_damaged(folder) == []
    cut(folder.history(0, "head"))
    assert list_damaged(folder) == [folder.history(0, "head")]
