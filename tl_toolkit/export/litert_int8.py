"""LiteRT in whole numbers of 8 bits, whose ranges are found by training images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from tl_toolkit.export.formats import FinishedModel, Format
from tl_toolkit.export.graphs import write_companions, write_graph
from tl_toolkit.tasks.parity import Limits

__all__ = ["FORMAT", "write_int8"]

_NOISE = 8


def write_int8(finished: FinishedModel, path: Path) -> None:
    """Writes a model whose weights and activations are int8; inputs and outputs stay float32.

    Operations that LiteRT has in float32 only stay so.

    Args:
        finished: The model.
        path: File to write; ends in .tflite.
    """
    samples = load_samples(finished)

    def list_samples() -> Iterator[list[np.ndarray]]:
        for index in range(len(samples)):
            yield [samples[index : index + 1]]

    write_graph(
        finished,
        path,
        "litert",
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=list_samples,
        target_spec={
            "supported_ops": [
                tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
                tf.lite.OpsSet.TFLITE_BUILTINS,
            ]
        },
    )


def load_samples(finished: FinishedModel) -> np.ndarray:
    """Returns training images, float32 (n, h, w, channels); noise where there are none.

    Args:
        finished: The model.
    """
    if finished.load_samples is not None:
        samples = finished.load_samples()
        if len(samples):
            return samples
    shape = (_NOISE, *finished.task.build_graph(finished.model).input.shape[1:])
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


FORMAT = Format(
    write_int8,
    runtime="litert",
    limits=Limits(pixels=float("inf")),
    agreement=0.8,  # what is lost is printed; less than this is another model
    mean=0.1,  # of probabilities, components of normals, or deviations of a column
    document=write_companions,
)
