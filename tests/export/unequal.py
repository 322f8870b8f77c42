"""Exports that differ from their models: none of them may be published."""

import json

import keras
import pytest

from tl_toolkit.errors import ParityError


class Noise(keras.layers.Layer):
    """Answers differently on every call: what no export can be equal to."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.generator)


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
