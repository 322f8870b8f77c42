"""Files are read ahead of the model, a batch at a time, and predicted in their order."""

from pathlib import Path

import keras
import numpy as np

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.types import PredictionOptions

COUNT = 70  # two batches, and a part of a third
LOST = (0, 33, 69)


def test_each_file_gets_its_own_prediction_in_order():
    image = keras.Input((2, 2, 3))
    means = keras.layers.GlobalAveragePooling2D()(image)[:, :1] / 255
    model = keras.Model(image, keras.ops.concatenate([means, 1 - means], axis=-1))
    done = []

    def read(path):
        if int(path.name) in LOST:
            raise DataError(Problem(str(path), "is lost"))
        return np.full((2, 2, 3), int(path.name), np.uint8)

    task = Classification(("bright", "dark"))
    options = PredictionOptions((2, 2), read=read, done=done.append)
    paths = [Path(str(number)) for number in range(COUNT)]
    found = list(task.predict(model, paths, options))

    assert [item.path for item in found] == list(map(str, paths))
    assert [place for place, item in enumerate(found) if item.error == "is lost"] == [*LOST]
    for place, item in enumerate(found):
        if item.error is None:
            np.testing.assert_allclose(item.probabilities["bright"], place / 255, atol=1e-6)
    assert done == [32, 64, 70]
    assert list(task.predict(model, [], options)) == []
