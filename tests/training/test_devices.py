"""Several devices share each batch, and train what one device trains."""

import json
import math
import subprocess
import sys

import pytest
import tensorflow as tf

import tl_toolkit as tl
from tests.training.test_loop import digits_recipe
from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.devices import DeviceChoice, parse_devices
from tl_toolkit.training.devices import OneDevice, choose_gpus, find_devices, refuse_small_batch

CLOSE = 1e-5  # sums are added up in another order
CLOSE_IN_FLOAT16 = 2e-3  # 11 bits of digits, rounded in every layer


def measure(*arguments):
    """What tests/training/replicas.py prints, which has a process of its own."""
    command = [sys.executable, "-m", "tests.training.replicas", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_cases(found):
    for name, row in found["cases"].items():
        assert row["losses"] == 8, name
        assert row["spread"] > 1e-2, name  # the steps do something
        close = CLOSE_IN_FLOAT16 if name == "float16" else CLOSE
        assert row["loss"] < close, name
        assert row["weights"] < close, name
        assert row["score"], name
        if name == "float16":
            check_overflow(row["overflow"])


def check_overflow(found):
    """A step that overflows on one device is taken on none, and all halve the scale."""
    step, overflown = found["moved"]
    assert step > 0 and overflown == 0
    assert found["scale"] == 13
    assert found["is_finite"]


@pytest.mark.slow
def test_replicas_in_a_process_that_splits_its_cpu_train_what_one_device_trains():
    found = measure("2", "batch norm that trains")

    check_cases(found)
    together, alone = found["masks"]  # of equal examples, one on each replica
    assert abs(together[0] - alone[0]) > 1e-3, "all replicas sampled the same mask"


@pytest.mark.slow
def test_everything_that_a_phase_may_ask_for_is_the_same_on_replicas():
    found = measure("3")

    check_cases(found)
    assert len(found["cases"]) == 13
    one, every, resumed = (found["runs"][name] for name in ("one", "all", "resumed"))
    assert (one["devices"], every["devices"], resumed["devices"]) == (1, 3, 1)
    for run in (every, resumed):
        for row, expected in zip(run["history"], one["history"], strict=True):
            for name in ("loss", "val_loss"):
                assert expected[name] is None or math.isclose(
                    row[name], expected[name], abs_tol=CLOSE
                )


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("all", DeviceChoice("all")),
        (2, DeviceChoice("2", count=2)),
        ("2", DeviceChoice("2", count=2)),
        ("0,2", DeviceChoice("0,2", places=(0, 2))),
        ([1], DeviceChoice("1", places=(1,))),
        ("1,", DeviceChoice("1,", places=(1,))),
    ],
)
def test_devices_are_all_or_a_number_or_their_places(typed, expected):
    assert parse_devices(typed) == expected


@pytest.mark.parametrize("typed", ["0", "-1", "gpu", "1,1", "", "0-2", [], [-1], True])
def test_other_words_are_refused_before_anything_is_done(typed, tmp_path):
    with pytest.raises(RecipeError, match=r"(?s)^devices  .*expected all, a number of devices"):
        tl.finetune(digits_recipe(), out=tmp_path / "run", devices=typed)
    assert not (tmp_path / "run").exists()


def test_more_devices_than_there_are_leave_no_run(tmp_path):
    with pytest.raises(RecipeError, match=r"2: TensorFlow sees no GPU here, and 1 logical CPU"):
        tl.finetune(digits_recipe(), out=tmp_path / "run", devices=2)
    assert not (tmp_path / "run").exists()


def test_places_are_counted_from_0():
    with pytest.raises(RecipeError, match=r"(?s)1,4: this machine has 4 GPUs.*places from 0 to 3"):
        parse_devices("1,4").select(4, "GPU")
    assert parse_devices("1,3").select(4, "GPU") == [1, 3]
    assert parse_devices("all").select(4, "GPU") == [0, 1, 2, 3]


@pytest.fixture
def four_gpus(monkeypatch):
    """A TensorFlow with four GPUs; returns what starts it with some of them."""
    gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{place}", "GPU") for place in range(4)]
    state = {"visible": gpus, "started": False}

    def set_visible(devices, kind):
        if state["started"] and devices != state["visible"]:
            raise RuntimeError("Visible devices cannot be modified after being initialized")
        state["visible"] = devices

    def start(*places):
        state.update(visible=[gpus[place] for place in places], started=True)

    for name, function in (
        ("list_physical_devices", lambda kind: gpus),
        ("get_visible_devices", lambda kind: state["visible"]),
        ("set_visible_devices", set_visible),
        ("list_logical_devices", lambda kind: state["visible"]),
    ):
        monkeypatch.setattr(tf.config, name, function)
    return start


@pytest.mark.parametrize("typed", [1, [3], [0, 2], 4])
def test_gpus_are_chosen_before_tensorflow_starts(four_gpus, typed):
    meant = parse_devices(typed).select(4, "GPU")

    assert choose_gpus(parse_devices(typed)) is None
    assert [int(gpu.name[-1]) for gpu in tf.config.get_visible_devices("GPU")] == meant


@pytest.mark.parametrize(
    ("used", "typed", "expected"),
    [
        ((0, 1, 2, 3), 1, [0]),
        ((0, 1, 2, 3), [1, 3], [1, 3]),
        ((2, 3), [2], [0]),
        ((2, 3), [3, 2], [1, 0]),
        ((1,), [1], None),
        ((1,), "all", None),
    ],
)
def test_a_tensorflow_that_has_started_trains_on_the_gpus_it_has(four_gpus, used, typed, expected):
    four_gpus(*used)

    assert choose_gpus(parse_devices(typed)) == expected
    if len(used if expected is None else expected) == 1:
        assert isinstance(find_devices(parse_devices(typed)), OneDevice)


@pytest.mark.parametrize(("used", "typed"), [((0, 1, 2, 3), [1]), ((0,), 2), ((1,), 1)])
def test_other_gpus_than_tensorflow_has_started_with_are_refused(four_gpus, used, typed):
    four_gpus(*used)
    listed = ",".join(map(str, used))

    with pytest.raises(RecipeError, match=rf"(?s)has started .*, with {listed}\n.*the kernel"):
        find_devices(parse_devices(typed))


def test_a_batch_has_an_example_for_each_device():
    class Eight(OneDevice):
        count = 8

    refuse_small_batch(Eight(), 8)
    with pytest.raises(RecipeError, match=r"data\.batch_size  4 images on 8 devices"):
        refuse_small_batch(Eight(), 4)
