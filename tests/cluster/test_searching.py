"""Searches on clusters: workers, nodes and drivers die, and the trials are those of one process."""

import csv
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

import tl_toolkit as tl
from tests.cluster.nodes import find_processes, ray_nodes
from tests.command import TLTOOL
from tests.conftest import draw_class_folders
from tests.tuning.test_search import recipe_of
from tl_toolkit.runtime import count_threads

pytestmark = pytest.mark.slow


def rows_of(path):
    """The rows of trials.csv without the two columns that hold times."""
    with open(path / "trials.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: row[name] for name in row if name not in ("seconds", "elapsed")} for row in rows]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return recipe_of(draw_class_folders(tmp_path_factory.mktemp("photos"), count=9))


@pytest.fixture(scope="module")
def alone(recipe, tmp_path_factory):
    return rows_of(tl.search(recipe, out=tmp_path_factory.mktemp("alone") / "search").path)


def test_two_local_workers_make_the_table_of_one_process(tmp_path, recipe, alone):
    warnings = []

    def handle(event):
        if event.kind == "warning" and "threads" in event.text:
            warnings.append(event.text)

    search = tl.search(recipe, out=tmp_path / "s", ray="local", workers=2, progress=handle)

    assert rows_of(search.path) == alone
    assert len(warnings) == (count_threads() != 1)  # once for both workers


def test_a_node_that_is_killed_loses_no_trial(tmp_path, recipe, alone):
    ended = threading.Event()
    with ray_nodes(2) as cluster:
        (worker,) = cluster.worker_nodes

        def kill():
            ended.wait()
            cluster.remove_node(worker, allow_graceful=False)

        killer = threading.Thread(target=kill)
        killer.start()

        def handle(event):
            if event.kind == "trial_ended":
                ended.set()

        try:
            search = tl.search(recipe, out=tmp_path / "s", ray=cluster.address, progress=handle)
        finally:
            ended.set()
            killer.join()
        nodes = len(cluster.list_all_nodes())

    assert nodes == 1
    assert rows_of(search.path) == alone
    assert all(trial.state == "completed" for trial in search.trials)


def test_a_search_whose_driver_is_killed_goes_on(tmp_path, recipe, alone):
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    command = [TLTOOL, "search", "recipe.yaml", "--out", "search", "--ray", "local"]
    command += ["--workers", "2"]
    others = set(Path("/tmp").glob("tltool-ray-*"))
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    try:
        while not list((tmp_path / "search").glob("trials/*.json")):
            assert process.poll() is None
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    folders = set(Path("/tmp").glob("tltool-ray-*")) - others
    first = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("search/trials/*.json")}

    subprocess.run([*command, "--resume"], cwd=tmp_path, check=True)

    later = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("search/trials/*.json")}
    assert rows_of(tmp_path / "search") == alone
    assert first and first.items() <= later.items()
    deadline = time.monotonic() + 120
    while any(find_processes(str(folder)) for folder in folders) and time.monotonic() < deadline:
        time.sleep(1)
    assert folders and not any(find_processes(str(folder)) for folder in folders)
    assert not any(folder.exists() for folder in folders)  # the next one removed it
