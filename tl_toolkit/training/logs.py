"""TensorBoard's event files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from tl_toolkit.training.checkpoint import Epoch

# What `tf.summary.scalar` says of a value; that imports all of TensorBoard, and boto3 with it.
_SCALAR = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
)


class TensorBoardLog:
    """Writes each epoch's loss and score where `tensorboard --logdir` finds them.

    Args:
        path: Folder of the run's logs; training and validation get a folder each, so that
            TensorBoard plots them in one chart. Logs of an interrupted training are replaced, as
            they may hold epochs that come again.
        before: The epochs of a training that is resumed.
    """

    def __init__(self, path: Path, before: Sequence[Epoch] = ()) -> None:
        shutil.rmtree(path, ignore_errors=True)
        self._writers = {
            name: tf.summary.create_file_writer(str(path / name))
            for name in ("train", "validation")
        }
        for step, epoch in enumerate(before):
            self.write(step, epoch)

    def write(self, step: int, epoch: Epoch) -> None:
        """Adds an epoch; `step` counts epochs over all phases.

        Args:
            step: Counts epochs over all phases.
            epoch: The epoch to add.
        """
        values: dict[str, dict[str, float | None]] = {
            "train": {
                "loss": epoch.loss,
                epoch.score_name: epoch.score,
                "learning_rate": epoch.learning_rate,
            },
            "validation": {"loss": epoch.val_loss, epoch.score_name: epoch.val_score},
        }
        for split, writer in self._writers.items():
            with writer.as_default(step=step):
                for name, value in values[split].items():
                    if value is not None:
                        number = tf.constant(value, tf.float32)
                        tf.summary.write(f"epoch_{name}", number, metadata=_SCALAR)

    def close(self) -> None:
        """Writes what is still in memory."""
        for writer in self._writers.values():
            writer.close()
