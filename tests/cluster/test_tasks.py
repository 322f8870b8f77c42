"""Tasks on a local cluster: results, errors, a worker that dies, and what is left behind."""

import os
import sys
from pathlib import Path

import pytest

from tests.cluster import work
from tests.cluster.nodes import find_processes
from tl_toolkit.cluster.local import start_environment
from tl_toolkit.cluster.tasks import Resources, open_cluster
from tl_toolkit.errors import RecipeError, WeightsError


@pytest.mark.slow
def test_a_local_cluster_runs_tasks_again_whose_worker_died_and_leaves_nothing(
    tmp_path, monkeypatch
):
    """One cluster for all claims: it takes seconds to start."""
    monkeypatch.delenv("http_proxy", raising=False)
    before = {name: os.environ.get(name) for name in start_environment()}
    others = set(Path("/tmp").glob("tltool-ray-*"))

    with open_cluster("local", workers=1) as cluster:
        (folder,) = set(Path("/tmp").glob("tltool-ray-*")) - others
        assert find_processes(str(folder))
        shared = cluster.share({"base": 40})
        for number in range(3):
            cluster.submit(number, work.add, shared, number)
        results = dict(cluster.next() for _ in range(3))
        cluster.submit("dies", work.die_once, str(tmp_path))
        survived = cluster.next()
        cluster.submit("refuses", work.refuse)
        with pytest.raises(WeightsError, match="no such file"):
            cluster.next()
        with pytest.raises(RecipeError, match="no node has room for a task, which takes 99 CPU"):
            with open_cluster("local", resources=Resources(cpus=99)):
                pass

    assert results == {0: 40, 1: 41, 2: 42}
    assert survived == ("dies", None)  # run again, in the environment of this process
    assert find_processes(str(folder)) == [] and not folder.exists()
    assert {name: os.environ.get(name) for name in before} == before


def test_ray_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(RecipeError, match=r"pip install 'tl-toolkit\[distributed\]'"):
        with open_cluster("local"):
            pass
