"""The process that asks an export: without the toolkit, with its caller's arithmetic."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tl_toolkit
from tests.export.unequal import ask
from tl_toolkit.export import serving_process
from tl_toolkit.export.apart import find_last_line
from tl_toolkit.export.asking import read_numerics

PIXELS = np.full((1, 2, 2, 3), 7, np.uint8)


class Served(tf.Module):
    """The signatures of an export, in a few operations."""

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")])
    def serve_images(self, image):
        return {"mean": tf.reduce_mean(tf.cast(image, tf.float32), axis=[1, 2, 3])}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="bytes")])
    def serve_bytes(self, encoded):
        return {"length": tf.strings.length(encoded)}

    @tf.function(input_signature=[])
    def class_names(self):
        return {"class_names": tf.constant(["a", "b"])}


def save(module, path):
    signatures = {
        "serving_default": module.serve_images,
        "serve_bytes": module.serve_bytes,
        "class_names": module.class_names,
    }
    tf.saved_model.save(module, path, signatures=signatures)
    return path


@pytest.fixture(scope="module")
def numerics():
    return {"tf32": False, "op_determinism": True, "intra_op_threads": 1, "inter_op_threads": 1}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, numerics):
    """What the interpreter below the environment returns: its own site has no TensorFlow."""
    base = getattr(sys, "_base_executable", sys.executable)
    bare = subprocess.run([base, "-I", "-c", "import tensorflow"], capture_output=True, check=False)
    assert bare.returncode, "this test needs an environment above an interpreter without TensorFlow"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", base)
        patch.setattr("tl_toolkit.export.asking.read_numerics", lambda: numerics)
        home = tmp_path_factory.mktemp("keras")
        (home / "keras.json").write_text('{"floatx": "bfloat16"}')
        patch.setenv("KERAS_HOME", str(home))
        model = save(Served(), tmp_path_factory.mktemp("served") / "model")
        return ask(model, [PIXELS], [b"four", b"x"])


@pytest.mark.slow
def test_the_process_runs_beside_a_keras_json_that_ends_the_import_of_keras(outputs):
    assert outputs.pixels[0]["mean"] == [7.0]


@pytest.mark.slow
def test_the_process_finds_tensorflow_where_its_caller_does(outputs):
    assert outputs.pixels[0]["mean"] == [7.0]
    assert [int(output["length"]) for output in outputs.encoded] == [4, 1]
    assert outputs.class_names == ("a", "b")


@pytest.mark.slow
def test_the_process_computes_as_it_is_told(outputs, numerics):
    assert outputs.numerics == numerics


def test_it_is_told_what_its_caller_computes_with():
    set_tf32 = tf.config.experimental.enable_tensor_float_32_execution
    before = read_numerics()
    set_tf32(not before["tf32"])
    try:
        assert read_numerics() == before | {"tf32": not before["tf32"]}
    finally:
        set_tf32(before["tf32"])


@pytest.mark.parametrize("name", ["tl_toolkit", "keras"])
def test_the_toolkit_and_keras_cannot_be_imported_there_although_the_path_holds_them(name):
    """A process of its own, as the script is run; without TensorFlow."""
    code = f"""
import runpy, sys
script = runpy.run_path({serving_process.__file__!r})
sys.path[:] = {[str(Path(tl_toolkit.__file__).parents[1]), *sys.path]!r}
script["hide_packages"]()
import {name}
"""

    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
    )

    assert f"ModuleNotFoundError: import of {name} halted" in done.stderr


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "no message"),
        ("one\ntwo\n\n", "two"),
        ("Traceback:\n  x\nValueError: no\n", "ValueError: no"),
        ("a.b.XError: no image\n\t [[{{node Assert}}]] [Op:x]", "a.b.XError: no image"),
    ],
)  # fmt: skip
def test_the_line_that_names_the_error_is_told(text, line):
    assert find_last_line(text) == line
