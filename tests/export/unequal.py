"""Exports against their models: none that differs may be published."""

import json

import keras
import pytest

from tl_toolkit.errors import ParityError
from tl_toolkit.export.asking import asking
from tl_toolkit.tasks.parity import Limits


class Noise(keras.layers.Layer):
    """Answers differently on every call: what no export can be equal to."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.generator)


def ask(saved_model, batches, encoded):
    """The outputs of a SavedModel in a process of its own."""
    with asking(saved_model) as begin:
        return begin(batches, encoded)()


def compare_exported(finished, saved_model, files):
    """Asks a SavedModel in a process of its own, and reports how it differs from the model."""
    with asking(saved_model) as ask:
        return finished.task.compare_served(
            finished.model, files, finished.resize, ask=ask, limits=Limits()
        )


def assert_the_old_one_stays(publish, folder):
    """Publishes over another export, and sees it refused and the other one kept."""
    published = folder / "export" / "saved_model" / "1" / "saved_model.pb"
    published.parent.mkdir(parents=True)
    published.write_bytes(b"the one from before")

    with pytest.raises(ParityError, match="differs from the Keras model, most on") as caught:
        publish()

    assert caught.value.exit_code == 4
    assert published.read_bytes() == b"the one from before"
    assert not json.loads((folder / "export" / "parity.failed.json").read_text())["holds"]
    assert sorted(path.name for path in (folder / "export").iterdir()) == [
        "parity.failed.json",
        "saved_model",
    ]
