"""Every state of a folder has a sentence of its own, which is true, and a next command."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command import tltool
from tl_toolkit.api.run import load_run
from tl_toolkit.api.search import SearchRun
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.locks import hold
from tl_toolkit.runs.processes import describe_process
from tl_toolkit.runs.states import find_state


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run's folder under runs/ of the working directory, with a recipe alone."""
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "runs" / "photos" / "004")
    folder.path.mkdir(parents=True)
    folder.recipe.write_text("version: 1\n")
    return folder


@pytest.fixture(scope="module")
def ended():
    """What identifies a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return {**describe_process(), "pid": process.pid, "process_started": 1}


def refusal(folder):
    with pytest.raises(RecipeError) as caught:
        load_run(folder.path).evaluate()
    return str(caught.value)


def test_a_run_whose_process_lives_is_running(folder):
    with hold(folder.path):
        folder.write_status("running")

        assert find_state(folder) == "running"
        told = refusal(folder)

    assert f"still running (process {os.getpid()} on " in told
    assert f"`kill {os.getpid()}`, which keeps its best weights" in told


def test_a_run_whose_process_has_ended_was_killed(folder, ended):
    folder.status.write_text(json.dumps({"state": "running", **ended}))

    assert find_state(folder) == "killed"
    told = refusal(folder)
    assert f"the run was killed (process {ended['pid']} on " in told
    assert "It left no model" in told and f"Try: tltool finetune {folder.recipe}" in told


@pytest.mark.parametrize(("age", "state"), [(10, "running"), (400, "killed"), (None, "killed")])
def test_a_process_of_another_host_is_running_as_long_as_its_lock_shows_life(folder, age, state):
    holder = {"host": "elsewhere", "boot": "another", "pid": 1, "flock": True}
    folder.status.write_text(json.dumps({"state": "running", **holder}))
    if age is not None:
        lock = folder.path / ".writing"
        lock.write_text(json.dumps(holder))
        os.utime(lock, (time.time() - age, time.time() - age))

    assert find_state(folder) == state


@pytest.mark.parametrize(
    ("state", "facts", "sentence"),
    [
        ("interrupted", {}, "the run was interrupted\n  It left no model: its first evaluation"),
        ("failed", {"error": "x.jpg is broken"}, "the run failed\n  It left no model: x.jpg is br"),
        ("failed", {"error": ""}, "command.log may say why"),
        ("done", {}, "the run is done\n  A finished run holds this file; it was removed"),
    ],
)
def test_a_run_without_a_model_says_how_it_ended(folder, state, facts, sentence):
    folder.write_status(state, **facts)

    told = refusal(folder)

    assert sentence in told and f"Try: tltool finetune {folder.recipe}" in told


def test_a_run_that_ended_before_its_recipe_was_written_names_no_file_that_is_not_there(folder):
    folder.recipe.unlink()
    folder.write_status("interrupted")

    assert "Try: tltool finetune RECIPE" in refusal(folder)


@pytest.mark.parametrize("state", ["interrupted", "failed"])
def test_a_run_with_a_model_and_no_metrics_names_the_command_that_measures_it(folder, state):
    folder.write_status(state)
    folder.model.touch()

    resume = rf"tltool finetune {folder.recipe} --resume --out {folder.path}, which writes it"
    measure = r"run\.evaluate\(\), or tltool evaluate photos/004"
    words = rf"holds its model(.|\n)*Try: {resume}; .*: {measure}"
    with pytest.raises(DataError, match=words):
        _ = load_run(folder.path).metrics


@pytest.mark.parametrize("typed", ["latest", "photos", "photos/004"])
def test_a_report_of_an_interrupted_run_names_the_command_that_resumes_it(folder, typed):
    folder.write_status("interrupted")
    folder.model.touch()

    told = tltool("report", typed, cwd=Path.cwd(), code=3).stderr

    assert f"Try: tltool finetune {folder.recipe} --resume --out {folder.path}" in told
    assert "--any" not in told


def test_a_report_offers_any_where_it_leads_to_metrics(folder):
    folder.write_status("interrupted")  # while it was exported, say
    folder.model.touch()
    folder.metrics.write_text("{}")

    assert "Try: --any" in tltool("report", "latest", cwd=Path.cwd(), code=3).stderr


def test_a_search_names_the_recipe_of_its_winner(folder):
    folder.search.write_text("{}")
    folder.best_recipe.touch()
    folder.write_status("done")

    told = refusal(folder)

    assert "this is a search, which holds no model" in told
    assert f"Try: tltool finetune {folder.best_recipe}" in told


@pytest.mark.parametrize("state", ["interrupted", "failed", "killed"])
def test_a_search_that_ended_early_names_the_command_that_resumes_it(folder, state, ended):
    folder.search.write_text("{}")
    folder.write_status(state)
    if state == "killed":
        folder.status.write_text(json.dumps({"state": "running", **ended}))

    told = refusal(folder)

    assert f"this is a search that {'failed' if state == 'failed' else f'was {state}'}" in told
    assert f"Try: tltool search {folder.recipe} --resume --out {folder.path}" in told
    with pytest.raises(RecipeError, match="--resume --out"):
        _ = SearchRun(folder).summary


@pytest.mark.parametrize("kind", ["search", "sweep"])
def test_a_search_that_was_killed_before_its_first_trial_is_no_run(folder, kind, ended):
    folder.status.write_text(json.dumps({"state": "running", "kind": kind, **ended}))

    told = refusal(folder)

    assert f"this is a {kind} that was killed\n  It ended before its first trial." in told
    assert f"Try: tltool {kind} {folder.recipe}" in told and "--resume" not in told


def test_a_folder_keeps_the_kind_that_it_began_with(folder):
    folder.write_status("running", kind="search")
    folder.write_status("interrupted")

    assert folder.kind == "search"


def test_the_name_of_a_killed_run_says_that_it_was_killed(folder, ended):
    folder.status.write_text(json.dumps({"state": "running", "kind": "run", **ended}))

    for typed in ("photos", "photos/latest", "runs/photos", "runs/photos/"):
        with pytest.raises(DataError) as caught:
            load_run(typed)

        assert "is no finished run; photos/004 was killed before it wrote a model" in str(
            caught.value
        )
        assert "Try: tltool finetune runs/photos/004/recipe.yaml" in str(caught.value)


def test_the_name_of_an_interrupted_run_with_a_model_offers_any(folder):
    folder.status.write_text(json.dumps({"state": "interrupted", "kind": "run"}))
    folder.model.write_bytes(b"")

    with pytest.raises(DataError, match=r"photos/004 was interrupted\n.*\n  Try: unfinished=True"):
        load_run("photos")

    for typed in ("photos", "runs/photos"):  # what Tab completes
        assert load_run(typed, unfinished=True).path == folder.path


def test_the_command_that_resumes_a_sweep_names_its_phase_and_units(folder):
    choices = [0, {"from": "c5"}]
    space = {"phases.tune.unfreeze": {"choices": choices}}
    folder.status.write_text(json.dumps({"state": "interrupted", "kind": "sweep"}))
    folder.search.write_text(json.dumps({"search": {"space": space}}))

    with pytest.raises(RecipeError, match=r"Try: tltool sweep .* --phase tune --units$"):
        _ = SearchRun(folder).summary
