"""What a model and the process that trained it cost."""

from __future__ import annotations

import resource
import sys

import keras
import tensorflow as tf

from tl_toolkit.architectures.costs import count_graph

__all__ = ["measure_cost"]

_KIBIBYTE = 1024


def measure_cost(model: keras.Model) -> dict[str, int]:
    """Returns what a model and this process take.

    Args:
        model: A functional model.

    Returns:
        parameters; multiply_accumulates for one image; memory_bytes, the most that the process
        had in memory until now; gpu_memory_bytes, the same on the first GPU, if there is one.
    """
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cost = {
        "parameters": int(model.count_params()),
        "multiply_accumulates": count_graph(model.inputs, model.outputs),
        "memory_bytes": most if sys.platform == "darwin" else most * _KIBIBYTE,
    }
    if tf.config.list_logical_devices("GPU"):
        cost["gpu_memory_bytes"] = int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    return cost
