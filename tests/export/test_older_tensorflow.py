"""A SavedModel answers alike in older releases of TensorFlow, each in an environment of its own."""

import json
import subprocess
import sys
import venv

import numpy as np
import pytest

from tests.export.test_export import build_model, draw_photos, finish
from tl_toolkit.export.saved_model import write_saved_model

RELEASES = {"2.15.1": (3, 12), "2.19.1": (3, 13)}
"""Releases, and the first Python that they do not run on."""
CODE = """
import json, sys
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
files = [open(path, "rb").read() for path in sys.argv[2:]]
outputs = model.signatures["serve_bytes"](bytes=tf.constant(files))
print(tf.__version__, json.dumps(outputs["probabilities"].numpy().tolist()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_an_older_release_answers_alike(tmp_path, release):
    if sys.version_info >= RELEASES[release]:
        pytest.skip(f"TensorFlow {release} does not run on this Python")
    photos = [tmp_path / name for name in draw_photos()]
    for photo, content in zip(photos, draw_photos().values(), strict=True):
        photo.write_bytes(content)
    model = build_model()
    write_saved_model(finish(model), tmp_path / "model")
    venv.create(tmp_path / "older", with_pip=True)
    python = tmp_path / "older/bin/python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"tensorflow-cpu=={release}"], check=True)

    shown = subprocess.run(
        [python, "-I", "-c", CODE, tmp_path / "model", *photos],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    version, _, answer = shown.strip().splitlines()[-1].partition(" ")
    endpoints = finish(model).task.build_endpoints(model, "stretch", webp=False)
    expected = endpoints.serve_bytes(np.array([photo.read_bytes() for photo in photos]))
    assert version == release
    np.testing.assert_allclose(json.loads(answer), expected["probabilities"], atol=1e-6)
