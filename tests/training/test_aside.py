"""Work in a thread of its own."""

import threading
import time

import keras
import pytest

from tl_toolkit.errors import DataError
from tl_toolkit.events import message
from tl_toolkit.training.aside import Aside


def test_work_aside_draws_with_the_dtype_policy_of_the_caller():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        aside = Aside(lambda report: keras.layers.Dense(1))
    finally:
        keras.config.set_dtype_policy(before)

    assert aside.wait().dtype_policy.name == "mixed_bfloat16"


def test_an_error_of_work_aside_is_raised_where_it_is_waited_for():
    def fail(report):
        raise DataError("no image")

    aside = Aside(fail)

    with pytest.raises(DataError, match="no image"):
        aside.wait()


def test_work_that_goes_on_too_long_is_not_waited_for():
    release = threading.Event()
    aside = Aside(lambda report: release.wait(30))

    with pytest.raises(TimeoutError):
        aside.wait(0.01)
    release.set()

    assert aside.wait() is True


def test_abandoned_work_ends_with_its_next_event_and_nobody_hears_of_it():
    events = []

    def download(report):
        while True:
            report(message("a piece"))
            time.sleep(0.01)

    aside = Aside(download, events.append)
    while not events:
        time.sleep(0.01)
    aside.abandon()
    heard = len(events)

    with pytest.raises(RuntimeError, match="not needed"):
        aside.wait(0)
    assert len(events) == heard
