"""The arithmetic of a run: set for the run, put back in the caller's process."""

import contextlib
import importlib
import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

import tl_toolkit as tl
from tests.conftest import draw_class_folders
from tests.models import build_transfer
from tl_toolkit.errors import RecipeError
from tl_toolkit.keras_private import disable_op_determinism, is_op_determinism_enabled
from tl_toolkit.runtime import (
    describe_arithmetic,
    describe_unfit_settings,
    importing_without,
    initializers_seeded,
    numerics,
    refuse_dtype_policy,
    start_tensorflow,
)


def settings():
    """Returns op determinism, TensorFloat-32 and the dtype policy as they are now."""
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    return is_op_determinism_enabled(), tf32, keras.config.dtype_policy().name


@contextlib.contextmanager
def calling(*, deterministic=False, tf32=True, policy="float32"):
    """Gives a caller's process settings of its own, and takes them back."""
    before = settings()
    try:
        disable_op_determinism()
        if deterministic:
            tf.config.experimental.enable_op_determinism()
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
        keras.config.set_dtype_policy(policy)
        yield
    finally:
        disable_op_determinism()
        if before[0]:
            tf.config.experimental.enable_op_determinism()
        tf.config.experimental.enable_tensor_float_32_execution(before[1])
        keras.config.set_dtype_policy(before[2])


@pytest.mark.parametrize(
    "caller",
    [
        {},
        {"deterministic": True, "tf32": False},
        {"policy": "mixed_float16"},
        {"tf32": False, "policy": "mixed_bfloat16"},
    ],
)
def test_a_deterministic_block_sets_its_arithmetic_and_puts_the_callers_back(caller):
    with calling(**caller):
        before = settings()

        with numerics(deterministic=True):
            inside = settings()
        after = settings()

    assert inside == (True, False, "float32")
    assert after == before


def test_a_block_that_fails_puts_the_callers_arithmetic_back_too():
    with calling(policy="mixed_float16"):
        before = settings()

        with pytest.raises(KeyError), numerics(deterministic=True):
            raise KeyError("lost")

        assert settings() == before


@pytest.mark.parametrize("caller", [(True, False), (False, True)])
def test_a_block_without_determinism_leaves_the_choice_to_the_caller(caller):
    with calling(deterministic=caller[0], tf32=caller[1]):
        with numerics(deterministic=False):
            inside = settings()

    assert inside == (*caller, "float32")


def test_blocks_inside_each_other_end_one_by_one():
    with calling(), numerics(deterministic=True):
        with numerics(deterministic=True):
            pass

        assert settings() == (True, False, "float32")


def test_what_is_described_is_what_is_in_force():
    with calling(), numerics(deterministic=True):
        arithmetic = describe_arithmetic()

    assert arithmetic["op_determinism"] is True
    assert arithmetic["tf32"] is False
    assert arithmetic["precision"] == "float32"


def test_a_dtype_policy_that_no_recipe_asked_for_is_refused():
    with calling(policy="mixed_float16"), pytest.raises(RecipeError) as raised:
        refuse_dtype_policy()

    assert str(raised.value) == (
        "keras.config.dtype_policy()  is 'mixed_float16'\n"
        "  The recipe decides it, by its field precision.\n"
        '  Try: keras.config.set_dtype_policy("float32") before the call'
    )


# ------------------------------------------------------------------------------------------- verbs


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_class_folders(tmp_path_factory.mktemp("photos"), side=32, count=4)


@pytest.fixture(scope="module")
def values(photos):
    return {
        "version": 1,
        "name": "photos",
        "data": {"train": str(photos), "validation": 0.25, "image_size": 32, "batch_size": 8},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
        "export": False,
        "report": False,
        "yardsticks": False,
    }


class Watch(keras.callbacks.Callback):
    """Notes the settings at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.settings = set()

    def on_epoch_end(self, epoch, logs=None):
        self.settings.add(settings())


@pytest.fixture(scope="module")
def trained(values, tmp_path_factory):
    """A run, and the settings before, during and after its training."""
    watch = Watch()
    with calling():
        before = settings()
        run = tl.finetune(values, root=tmp_path_factory.mktemp("runs"), callbacks=[watch])
        after = settings()
    return run, before, watch.settings, after


@pytest.mark.slow
def test_training_sets_the_arithmetic_of_the_recipe_and_puts_the_callers_back(trained):
    run, before, during, after = trained

    assert during == {(True, False, "float32")}
    assert after == before == (False, True, "float32")
    lock = json.loads((run.path / "lock.json").read_text())["numerics"]
    assert (lock["op_determinism"], lock["tf32"]) == (True, False)


@pytest.mark.parametrize("verb", ["finetune", "search", "sweep", "hypermodel"])
def test_verbs_that_train_refuse_a_dtype_policy_before_anything_is_written(values, tmp_path, verb):
    places = {} if verb == "hypermodel" else {"root": tmp_path}

    with calling(policy="mixed_float16"), pytest.raises(RecipeError, match="is 'mixed_float16'"):
        getattr(tl, verb)(values, **places)

    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_reopened_run_works_with_its_own_arithmetic(trained, photos):
    run = tl.load_run(trained[0].path)
    during = set()

    with calling(policy="mixed_float16"):
        run.evaluate(photos, progress=lambda event: during.add(settings()))
        run.predict(photos, progress=lambda event: during.add(settings()))
        after = settings()

    assert during == {(True, False, "float32")}
    assert after == (False, True, "mixed_float16")


@pytest.mark.slow
def test_a_reopened_run_predicts_the_same_under_any_policy(trained, photos):
    def predict():
        predictions = tl.load_run(trained[0].path).predict(photos)
        return [prediction.probabilities for prediction in predictions]

    expected = predict()
    with calling(policy="mixed_float16"):
        under_policy = predict()

    np.testing.assert_array_equal(under_policy, expected)


@pytest.mark.slow
def test_the_model_of_a_run_repeats_its_figures_in_the_arithmetic_of_the_run(trained):
    run = tl.load_run(trained[0].path)

    with calling(policy="mixed_float16"):
        with run.numerics():
            inside = settings()
        kinds = {layer.compute_dtype for layer in run.model.layers}

    assert inside == (True, False, "float32")
    assert kinds == {"float32"}


def test_seeded_initializers_repeat_their_values():
    def build(seed):
        with initializers_seeded(seed):
            layer = keras.layers.Dense(3)
        layer.build((None, 2))
        return layer.kernel.numpy()

    first = build(1)

    np.testing.assert_array_equal(build(1), first)
    assert not np.array_equal(build(2), first)


def test_initializers_of_several_threads_are_seeded_one_after_the_other():
    def draw(seed):
        values = []
        with initializers_seeded(seed):
            for _ in range(20):
                values.append(random.random())
                time.sleep(0.001)
        return values

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(draw, [1, 2, 1, 2]))

    assert found == [draw(1), draw(2)] * 2


def test_building_a_model_leaves_the_callers_random_numbers_alone():
    def draw():
        return random.random(), np.random.random(), float(tf.random.uniform(()))

    keras.utils.set_random_seed(7)
    expected = draw()
    keras.utils.set_random_seed(7)
    build_transfer("lenet5", size=(32, 32))

    assert draw() == expected


@pytest.mark.slow
def test_the_keras_json_of_another_project_changes_nothing(tmp_path):
    """A process of its own: Keras reads its settings when it is imported."""
    settings = {"backend": "jax", "image_data_format": "channels_first", "floatx": "float16"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    code = """
import os
from tl_toolkit.runtime import start_tensorflow

start_tensorflow()
import keras

config = keras.config
print(config.backend(), config.image_data_format(), config.floatx(), config.dtype_policy().name)
print(os.environ["KERAS_BACKEND"])
"""

    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["tensorflow", "channels_last", "float32", "float32", "jax"]


@pytest.mark.slow
def test_a_keras_json_that_ends_the_imports_is_left_aside_with_a_line_that_says_so(tmp_path):
    """A process of its own: Keras reads its settings when it is imported."""
    settings = '{"floatx": "bfloat16", "epsilon": 1}'
    (tmp_path / "keras.json").write_text(settings)
    code = """
import os
from tl_toolkit.runtime import start_tensorflow

start_tensorflow()
import keras

print(keras.config.floatx(), keras.config.dtype_policy().name, os.environ["KERAS_HOME"])
print("at", keras.utils.get_file("a.txt", "file://" + __file__))
"""
    (tmp_path / "start.py").write_text(code)

    done = subprocess.run(
        [sys.executable, tmp_path / "start.py"],
        env=os.environ | {"KERAS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[0] == f"float32 float32 {tmp_path}"
    assert f"at {tmp_path}/datasets/a.txt" in done.stdout
    assert f"{tmp_path}/keras.json is not used" in done.stderr
    assert "(floatx = 'bfloat16', epsilon = 1)" in done.stderr
    assert (tmp_path / "keras.json").read_text() == settings


@pytest.mark.parametrize(
    ("content", "unfit"),
    [
        ('{"floatx": "float16", "backend": "jax"}', ""),
        ('{"floatx": "bfloat16"}', "floatx = 'bfloat16'"),
        ('{"image_data_format": "first"}', "image_data_format = 'first'"),
        ("[]", "no section of settings"),
        ("{", ""),
    ],
)
def test_settings_that_keras_cannot_start_with_are_found(tmp_path, content, unfit):
    (tmp_path / "keras.json").write_text(content)

    assert describe_unfit_settings(tmp_path / "keras.json") == unfit


def test_a_keras_on_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")

    with pytest.raises(RecipeError, match=r"is 'jax'(.|\n)*KERAS_BACKEND=tensorflow"):
        start_tensorflow()


def test_float_type_and_order_of_axes_are_those_of_a_run_in_the_block_alone():
    keras.config.set_floatx("float16")
    keras.config.set_image_data_format("channels_first")
    try:
        with numerics(deterministic=False):
            inside = keras.config.floatx(), keras.config.image_data_format()
        after = keras.config.floatx(), keras.config.image_data_format()
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_image_data_format("channels_last")

    assert inside == ("float32", "channels_last")
    assert after == ("float16", "channels_first")


def test_the_scope_of_a_strategy_is_refused():
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        with pytest.raises(RecipeError, match=r"the call is in the scope of a MirroredStrategy"):
            refuse_dtype_policy()

    refuse_dtype_policy()


def test_an_operation_without_a_deterministic_kernel_names_the_field():
    text = (
        "Graph execution error:\n\nA deterministic GPU implementation of Fold is not available.\n"
    )

    with pytest.raises(RecipeError, match=r"deterministic  .*\n  A deterministic GPU .* of Fold"):
        with numerics(deterministic=True):
            raise tf.errors.UnimplementedError(None, None, text)


def test_other_operations_that_are_missing_are_no_matter_of_determinism():
    with pytest.raises(tf.errors.UnimplementedError):
        with numerics(deterministic=True):
            raise tf.errors.UnimplementedError(None, None, "no such kernel")


OWN_PROCESS = """
import gc, sys
from tl_toolkit import runtime
runtime.claim_process()
with runtime.importing_without("json.tool"):
    try:
        import json.tool
    except ImportError:
        print("spared")
import json.tool
print("found")
runtime.start_tensorflow()
print(gc.isenabled(), gc.get_freeze_count() > 100_000, "sklearn" in sys.modules)
"""


def test_a_process_of_the_command_line_spares_its_imports_what_they_do_not_need():
    done = subprocess.run(
        [sys.executable, "-c", OWN_PROCESS], capture_output=True, text=True, check=True
    )

    assert done.stdout.split("\n")[:3] == ["spared", "found", "True True False"]


def test_a_process_of_somebody_else_is_spared_nothing():
    with importing_without("json.tool"):
        assert importlib.import_module("json.tool")
