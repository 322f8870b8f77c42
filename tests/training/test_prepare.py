"""What is prepared beside the survey of the images."""

import threading

import keras
import pytest

from tl_toolkit.errors import DataError
from tl_toolkit.training.prepare import start_aside


def test_work_aside_draws_with_the_dtype_policy_of_the_caller():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        wait = start_aside(lambda: keras.layers.Dense(1))
    finally:
        keras.config.set_dtype_policy(before)

    assert wait().dtype_policy.name == "mixed_bfloat16"


def test_an_error_of_work_aside_is_raised_where_it_is_waited_for():
    def fail():
        raise DataError("no image")

    wait = start_aside(fail)

    with pytest.raises(DataError, match="no image"):
        wait()


def test_work_that_goes_on_too_long_is_not_waited_for():
    release = threading.Event()
    wait = start_aside(lambda: release.wait(30))

    with pytest.raises(TimeoutError):
        wait(0.01)
    release.set()

    assert wait() is True
