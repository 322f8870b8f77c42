"""Tasks on a local cluster: results, errors, a worker that dies, and what is left behind."""

import os
import sys
from pathlib import Path

import pytest

from tests.cluster import work
from tests.cluster.nodes import find_processes
from tests.cluster.stand_in import OneNode
from tl_toolkit.cluster.local import start_environment
from tl_toolkit.cluster.tasks import Cluster, Resources, open_cluster
from tl_toolkit.errors import RecipeError, WeightsError


@pytest.mark.slow
def test_a_local_cluster_runs_tasks_again_whose_worker_died_and_leaves_nothing(
    tmp_path, monkeypatch
):
    """One cluster for all claims: it takes seconds to start."""
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    before = {name: os.environ.get(name) for name in start_environment()}
    others = set(Path("/tmp").glob("tltool-ray-*"))

    with open_cluster("local", workers=1) as cluster:
        (folder,) = set(Path("/tmp").glob("tltool-ray-*")) - others
        assert find_processes(str(folder))
        shared = cluster.share({"base": 40})
        for number in range(3):
            cluster.submit(number, work.add, shared, number)
        results = dict(cluster.next() for _ in range(3))
        cluster.submit("GPUs", work.read_variable, "CUDA_VISIBLE_DEVICES")
        gpus = cluster.next()
        cluster.submit("dies", work.die_once, str(tmp_path))
        survived = cluster.next()
        cluster.submit("refuses", work.refuse)
        with pytest.raises(WeightsError, match="no such file"):
            cluster.next()
        with pytest.raises(RecipeError, match="no node has room for a task, which takes 99 CPU"):
            with open_cluster("local", resources=Resources(cpus=99)):
                pass

    assert results == {0: 40, 1: 41, 2: 42}
    assert gpus == ("GPUs", "")  # none, as the task asks for none
    assert survived == ("dies", None)  # run again, in the environment of this process
    assert find_processes(str(folder)) == [] and not folder.exists()
    assert {name: os.environ.get(name) for name in before} == before


def test_a_cluster_without_nodes_is_reported_once():
    ray, events = OneNode(), []
    cluster = Cluster(ray, 1, Resources(), {}, events.append)
    for number in range(3):
        ray.is_alive = number == 0
        cluster.submit(number, int, number)
        assert cluster.next() == (number, number)

    (event,) = events
    assert event.kind == "warning" and "no node of the cluster is left" in event.text


def test_no_more_tasks_run_at_a_time_than_workers():
    ray = OneNode()
    cluster = Cluster(ray, 2, Resources(), {})

    assert dict(cluster.run_all(int, ((n, (n,)) for n in range(7)))) == {n: n for n in range(7)}
    assert ray.most == 2


def test_ray_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(RecipeError, match=r"pip install 'tl-toolkit\[distributed\]'"):
        with open_cluster("local"):
            pass
