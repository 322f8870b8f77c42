"""A store in memory, with a folder of images."""

import fsspec
import pytest

from tests.conftest import draw_class_folders
from tl_toolkit.sources import objects, stores


@pytest.fixture
def quick_and_forgetful(monkeypatch):
    """Tries again at once, and begins without what other tests were told of objects."""
    monkeypatch.setattr(stores, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(objects, "_facts", {})


@pytest.fixture
def bucket(tmp_path, monkeypatch, quick_and_forgetful):
    """A folder of images in memory, and its address; the cache is a folder of this test."""
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    draw_class_folders(tmp_path / "photos", classes=("ants", "bees"), count=5)
    system = fsspec.filesystem("memory")
    address = f"memory://{tmp_path.name}/photos"
    system.put(str(tmp_path / "photos"), f"/{tmp_path.name}/photos", recursive=True)
    yield system, f"/{tmp_path.name}/photos", address
    monkeypatch.undo()  # what a test has put in place of the store's functions
    system.rm(f"/{tmp_path.name}", recursive=True)
