"""What TensorBoard finds of a training."""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.plugins.scalar.summary_v2 import scalar

from tl_toolkit.training.checkpoint import Epoch
from tl_toolkit.training.logs import TensorBoardLog


def read_events(folder):
    """Returns (step, tag, value, metadata) of each scalar of a folder."""
    (path,) = folder.glob("events*")
    return [
        (event.step, value.tag, float(tf.make_ndarray(value.tensor)), value.metadata)
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]


@pytest.fixture
def epoch():
    return Epoch(
        phase="head",
        epoch=1,
        loss=0.5,
        val_loss=0.25,
        score=0.75,
        val_score=0.875,
        score_name="accuracy",
        learning_rate=1e-3,
    )


def test_scalars_are_those_that_tensorboard_itself_would_write(tmp_path, epoch):
    log = TensorBoardLog(tmp_path / "logs")
    log.write(3, epoch)
    log.close()
    writer = tf.summary.create_file_writer(str(tmp_path / "theirs"))
    with writer.as_default(step=3):
        scalar("epoch_loss", 0.25)
        scalar("epoch_accuracy", 0.875)
    writer.close()

    assert read_events(tmp_path / "logs" / "validation") == read_events(tmp_path / "theirs")
    train = {tag: value for _, tag, value, _ in read_events(tmp_path / "logs" / "train")}
    assert train == {
        "epoch_loss": 0.5,
        "epoch_accuracy": 0.75,
        "epoch_learning_rate": float(np.float32(1e-3)),
    }
