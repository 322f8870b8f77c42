"""Features and predictions on clusters of which a node is killed: each value once, and no other."""

import contextlib
import threading

import pytest
from pyarrow import parquet

import tl_toolkit as tl
from tests.cluster.nodes import ray_nodes
from tests.conftest import draw_class_folders
from tests.features.test_features import recipe_of
from tests.features.test_parts import values_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_class_folders(tmp_path_factory.mktemp("photos") / "all", count=20)


@contextlib.contextmanager
def losing_a_node(kind):
    """Yields the address of two nodes, and a handler whose first event of a kind kills one."""
    began = threading.Event()
    with ray_nodes(2) as cluster:
        (worker,) = cluster.worker_nodes

        def kill():
            began.wait()
            cluster.remove_node(worker, allow_graceful=False)

        def handle(event):
            if event.kind == kind:
                began.set()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield cluster.address, handle
        finally:
            began.set()
            killer.join()
        assert len(cluster.list_all_nodes()) == 1


def test_a_killed_node_leaves_the_features_of_one_process(tmp_path, photos):
    def fill(name, **options):
        features = {"location": str(tmp_path / name), "store": "always", "part": 2}
        tl.fill_features(recipe_of(photos, features=features), **options)
        return values_of(tmp_path / name)

    with losing_a_node("features_computed") as (address, handle):
        on_nodes = fill("nodes", ray=address, progress=handle)

    assert on_nodes == fill("alone")


def test_a_killed_node_leaves_each_row_once(tmp_path, photos):
    recipe = recipe_of(photos, phases=[{"name": "head", "epochs": 1}])
    run = tl.finetune(recipe, out=tmp_path / "run")
    files = sorted(map(str, photos.rglob("*.jpg"))) * 5

    def predict(name, **options):
        done = tl.predict_list(run.path, files, out=tmp_path / name, part=10, **options)
        rows = parquet.read_table(tmp_path / name).sort_by("row").to_pylist()
        assert (done.rows, len(rows)) == (300, 300)
        return rows

    with losing_a_node("images_inspected") as (address, handle):
        on_nodes = predict("nodes", ray=address, progress=handle)

    assert on_nodes == predict("alone")
