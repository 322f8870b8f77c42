"""Stores in memory and behind a server of S3 on loopback, with a folder of images."""

import fsspec
import pytest

from tests.conftest import draw_class_folders
from tl_toolkit.sources import objects, stores

ID, SECRET, TOKEN = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI-K7MDENG-EXAMPLEKEY", "TOKEN-of-a-session"


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


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A bucket of images on a server of this process, known by the environment alone."""
    import s3fs  # only a few tests take these
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "TL_TOOLKIT_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stores, "_systems", {})
    monkeypatch.setattr(objects, "_facts", {})
    draw_class_folders(tmp_path / "photos", classes=("ants", "bees"), count=5)
    s3fs.S3FileSystem.clear_instance_cache()  # with the endpoint of an earlier test
    system = s3fs.S3FileSystem(skip_instance_cache=True)
    if system.exists("flowers"):  # the servers of a process share what they hold
        system.rm("flowers", recursive=True)
    system.mkdir("flowers")
    system.put(str(tmp_path / "photos"), "flowers/photos", recursive=True)
    yield system
    server.stop()
