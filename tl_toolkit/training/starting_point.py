"""A regularization loss that grows with the distance from the start (Li et al., 2018, L2-SP)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tl_toolkit.transfer.assemble import HEAD, TransferModel
from tl_toolkit.transfer.freezing import Split

__all__ = ["StartingPoint"]


class StartingPoint:
    """alpha / 2 * |w - start|^2 of the base's weights, and beta / 2 * |w|^2 of the head's.

    All weights that train count, biases too. Factors and starts are variables, so that compiled
    steps serve every phase that has such a loss.

    Args:
        transfer: The model.
        split: Says what trains.
    """

    def __init__(self, transfer: TransferModel, split: Split) -> None:
        trained = {id(variable) for variable in split.trainable}
        terms = [
            (part.name == HEAD, name, variable)
            for part, name, variable in transfer.variables()
            if id(variable) in trained
        ]
        self._head = [variable for is_head, _, variable in terms if is_head]
        self._base = {name: variable for is_head, name, variable in terms if not is_head}
        self._start = {
            name: tf.Variable(variable.value, trainable=False)
            for name, variable in self._base.items()
        }
        self._factors = {name: tf.Variable(0.0, trainable=False) for name in ("base", "head")}

    def set(self, start: Mapping[str, np.ndarray], *, base: float, head: float) -> None:
        """Sets what the coming steps are held by.

        Args:
            start: The base's weights as the run began, by canonical name.
            base: alpha.
            head: beta.
        """
        for name, variable in self._start.items():
            variable.assign(start[name])
        self._factors["base"].assign(base)
        self._factors["head"].assign(head)

    def loss(self) -> tf.Tensor:
        """Returns the loss of the weights as they are."""
        moved = [self._base[name].value - start for name, start in self._start.items()]
        base = tf.add_n([tf.constant(0.0), *map(_sum_squares, moved)])
        head = tf.add_n([tf.constant(0.0), *(_sum_squares(weight.value) for weight in self._head)])
        return (self._factors["base"] * base + self._factors["head"] * head) / 2


def _sum_squares(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(values))
