"""What only a GPU can show: `make gpu`, a few minutes where TensorFlow sees one, skipped elsewhere.

TL_TOOLKIT_GPU_TESTS=CPU runs the same tests on the CPU, which shows that they run at all.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import tl_toolkit as tl
from tests.models import build_transfer
from tests.training.test_devices import check_cases
from tests.training.test_loop import digits_recipe
from tl_toolkit.catalog.lookup import find_architecture, resolve_unfreeze
from tl_toolkit.plan.training import PhaseSettings
from tl_toolkit.recipe.optimizers import SGD
from tl_toolkit.runtime import numerics
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.devices import OneDevice
from tl_toolkit.transfer.freezing import split_at

KIND = os.environ.get("TL_TOOLKIT_GPU_TESTS", "GPU")
BASES = ("resnet18", "mobilenet", "efficientnet_b0", "convnext_tiny", "densenet121", "vgg_tiny")
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
TARGETS = np.arange(8, dtype=np.int32) % 3

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        KIND == "GPU" and not tf.config.list_physical_devices("GPU"), reason="no GPU here"
    ),
]


def take_steps(base, precision="float32", blocks=1):
    """Losses of three steps on the last blocks, and the weights after them."""
    with numerics(deterministic=True):
        transfer = build_transfer(base, size=(64, 64), seed=1)
        units = resolve_unfreeze(find_architecture(base), blocks)
        compiled = CompiledPhases(transfer, precision)
        split, steps = compiled.get(PhaseSettings("tune", 1, SGD(), 1e-2, units), 4)
        features = split.prefix(IMAGES)
        losses = [steps.train(features, TARGETS)[0] for _ in range(2)]
        return np.concatenate(losses), transfer.model.get_weights()


def test_tensorflow_computes_where_it_should():
    with numerics(deterministic=True):
        product = tf.matmul(tf.ones((2, 2)), tf.ones((2, 2)))
        assert KIND in product.device
        assert not tf.config.experimental.tensor_float_32_execution_enabled()
        if KIND == "GPU":
            gpus = tf.config.list_physical_devices("GPU")
            assert all(tf.config.experimental.get_memory_growth(gpu) for gpu in gpus)


@pytest.mark.parametrize("base", BASES)
def test_two_trainings_are_equal_bit_for_bit(base):
    losses, weights = take_steps(base)
    again, others = take_steps(base)

    assert np.isfinite(losses).all()
    np.testing.assert_array_equal(losses, again)
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("base", BASES)
def test_a_gpu_computes_what_the_cpu_computes(base):
    with numerics(deterministic=True):
        transfer = build_transfer(base, size=(64, 64), seed=1)
        split = split_at(transfer, ())
        here = np.asarray(split.suffix(split.prefix(IMAGES)))
        with tf.device("CPU:0"):
            there = transfer.model(IMAGES, training=False).numpy()

    np.testing.assert_allclose(here, there, atol=1e-4)


def test_an_image_has_the_same_features_in_any_batch():
    with numerics(deterministic=True):
        prefix = split_at(build_transfer("resnet18", size=(64, 64), seed=1), ()).prefix
        whole = tf.nest.flatten(prefix(IMAGES))
        single = tf.nest.flatten(prefix(IMAGES[3:4]))

    for one, other in zip(whole, single, strict=True):
        np.testing.assert_array_equal(one[3:4], other)


def test_bfloat16_trains_and_is_near_float32():
    losses, _ = take_steps("resnet18", "bfloat16")
    exact, _ = take_steps("resnet18")

    np.testing.assert_allclose(losses, exact, atol=0.1)


def test_a_run_with_the_store_is_a_run_without(tmp_path):
    digests = set()
    for store in ("always", "never"):
        run = tl.finetune(digits_recipe(features={"store": store}), out=tmp_path / store)
        digests.add(run.metrics["weights_sha256"])

    assert len(digests) == 1


def test_replicas_in_a_process_that_splits_its_device_train_what_one_device_trains():
    command = [sys.executable, "-m", "tests.training.replicas", "2", "batch norm that trains"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False,
        env={**os.environ, "TL_TOOLKIT_REPLICAS": KIND},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    check_cases(json.loads(done.stdout))


def test_all_devices_are_found():
    from tl_toolkit.plan.devices import parse_devices
    from tl_toolkit.training.devices import find_devices

    count = len(tf.config.list_logical_devices(KIND))
    devices = find_devices(parse_devices("all"))
    assert devices.count == count
    assert isinstance(devices, OneDevice) == (count == 1)
