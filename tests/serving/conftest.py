"""A model that several tests serve."""

import base64
import shutil

import httpx
import pytest

import tl_toolkit as tl
from tests.serving.models import write_model


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """The folder of the small model's versions, of which there is one."""
    return write_model(tmp_path_factory.mktemp("served") / "photos")


@pytest.fixture
def folder(small_model, tmp_path):
    """A copy of that folder, whose versions a test may change."""
    return shutil.copytree(small_model, tmp_path / "photos")


@pytest.fixture(scope="session")
def second(tmp_path_factory):
    """A second version of the model."""
    return write_model(tmp_path_factory.mktemp("second"), 2) / "2"


@pytest.fixture(scope="module")
def server(small_model):
    with tl.serve(small_model, port=0, progress=False) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


def encode(data):
    """Bytes, as JSON holds them for TensorFlow Serving."""
    return {"b64": base64.b64encode(data).decode()}


@pytest.fixture(name="encode", scope="session")
def encode_fixture():
    return encode
