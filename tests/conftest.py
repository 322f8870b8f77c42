"""Fixtures of all tests: where the assets are, a cache of their own, images drawn in code."""

import gc
import json
import os
import sys
import zlib
from pathlib import Path

# Two workers share two cores. A pool of threads for each library, in each of them and in the
# processes that they start, waits more than it works; it is read when numpy is imported.
POOLS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
os.environ.update(dict.fromkeys(POOLS, "1") | os.environ)

# Without bytecode each session rewrites all assertions, and each process that a test starts
# compiles the package: where it is switched off, tests switch it on again for themselves.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Modules and tests that are imported leave no garbage; it is collected again once all are there.
gc.disable()

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_collection_modifyitems(config, items):
    """Keeps one part of the slow tests: TL_TOOLKIT_TURN=3/8 the fourth of eight.

    Tests of single architectures take turns by the architecture's name, all other slow tests by
    their file, which come twice as often and share what a file builds.
    """
    turn = os.environ.get("TL_TOOLKIT_TURN")
    if not turn:
        return
    part, parts = map(int, turn.split("/"))

    def rests(item):
        if item.get_closest_marker("turns"):
            return _place(item.callspec.params["name"], parts) != part
        files = max(1, parts // 2)
        return (
            bool(item.get_closest_marker("slow")) and _place(item.path.name, files) != part % files
        )

    resting = [item for item in items if rests(item)]
    config.hook.pytest_deselected(items=resting)
    items[:] = [item for item in items if item not in resting]


def _place(name, parts):
    return zlib.crc32(name.encode()) % parts


def pytest_collection_finish():
    """Spares the collector of garbage what lives as long as the session: TensorFlow's modules."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Keeps tests out of the user's cache, and each session's verdicts to itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_TOOLKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def unsynced():
    """Leaves to the system when to write to the disk: no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: os.fstat(file) and None)  # needs an open file, too
        yield


@pytest.fixture(scope="session")
def assets():
    """The folder of real weights and images; without it the test is skipped, or fails in CI."""
    folder = Path(os.environ.get("TL_TOOLKIT_ASSETS", ROOT.parent / "shared" / "assets"))
    if not folder.is_dir():
        reason = f"no assets at {folder}: set TL_TOOLKIT_ASSETS"
        if os.environ.get("TL_TOOLKIT_REQUIRE_ASSETS"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


def draw_class_folders(folder, *, classes=("ants", "bees", "wasps"), count=8, side=40, seed=0):
    """Draws a folder per class: coloured noise, a colour of its own for each class."""
    random = np.random.default_rng(seed)
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 120, (side, side + 8, 3), dtype=np.uint8)
            pixels[..., index % 3] += 100
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg", quality=90)
    return folder


@pytest.fixture
def keras_models(tmp_path, monkeypatch):
    """An empty folder of Keras's weight files, which a server on this machine may fill."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("TL_TOOLKIT_OFFLINE", raising=False)
    return tmp_path / "keras" / "models"


@pytest.fixture
def draw_photos():
    """The function that draws a folder per class."""
    return draw_class_folders


@pytest.fixture
def write_recipe():
    """Writes a small recipe as YAML: LeNet-5 on a folder of photos, changed by dotted overrides."""

    def write(path, train, **sections):
        values = {
            "version": 1,
            "name": "photos",
            "data": {"train": str(train), "validation": 0.25, "image_size": 32, "batch_size": 8},
            "model": {"base": "lenet5", "weights": "random"},
            "phases": [{"name": "head", "epochs": 1}],
            "export": False,
            "report": False,
        } | sections
        path.write_text(json.dumps(values))  # JSON is YAML
        return path

    return write
