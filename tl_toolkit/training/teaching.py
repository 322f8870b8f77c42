"""A teacher that is learned from (Hinton et al., 2015): what it says, and what steps make of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tl_toolkit.features.source import FeatureSource
from tl_toolkit.images.geometry import build_resize
from tl_toolkit.plan.training import Teaching
from tl_toolkit.tasks.base import Task

__all__ = ["Distillation", "TeacherOutputs"]

_LEAST = 1e-30
"""Probabilities are not taken below: log(0) has no gradient; from here one step leads back."""


class Distillation:
    """(1 - w) * objective + w * T^2 * KL(teacher at T, model at T), for each example.

    Temperature T and weight w are variables, so that compiled steps serve every pair of them.
    """

    def __init__(self) -> None:
        self._temperature = tf.Variable(1.0, trainable=False)
        self._weight = tf.Variable(0.0, trainable=False)

    def set(self, *, temperature: float, weight: float) -> None:
        """Sets what the coming steps learn by.

        Args:
            temperature: T.
            weight: w.
        """
        self._temperature.assign(temperature)
        self._weight.assign(weight)

    def join(self, objective: tf.Tensor, shares: tf.Tensor, taught: tf.Tensor) -> tf.Tensor:
        """Returns what is minimized for each example.

        Args:
            objective: What is minimized without a teacher, float32 (batch,).
            shares: Probabilities of the classes, float32 (batch, classes).
            taught: The teacher's, likewise.
        """
        expected, found = (self._soften(values) for values in (taught, shares))
        divergence = tf.reduce_sum(tf.exp(expected) * (expected - found), axis=-1)
        scale = self._weight * tf.square(self._temperature)
        return (1 - self._weight) * objective + scale * divergence

    def _soften(self, shares: tf.Tensor) -> tf.Tensor:
        """Returns logarithms of the shares that their logits, divided by T, give."""
        # Logarithms of shares are logits but for a constant, which a softmax ignores.
        logits = tf.math.log(tf.maximum(shares, _LEAST)) / self._temperature
        return tf.nn.log_softmax(logits, axis=-1)


class TeacherOutputs:
    """Probabilities of teachers for training images, each computed or read once.

    Args:
        source: Of the features of these images.
        task: Turns outputs into probabilities.
    """

    def __init__(self, source: FeatureSource, task: Task) -> None:
        self._source = source
        self._task = task
        self._shares: dict[Any, np.ndarray] = {}

    def find(self, teaching: Teaching) -> np.ndarray:
        """Returns probabilities in the order of the classes, float32 (images, classes).

        Training images are shown to the teacher as they are, without augmentation.

        Args:
            teaching: The teacher.
        """
        key = teaching.model, teaching.places
        if key not in self._shares:
            channels = self._source.channels
            resize = build_resize(teaching.resize, teaching.pad_color, channels)
            outputs = self._source.find_outputs(
                teaching.model, image_size=teaching.image_size, resize=resize
            )
            shares = np.asarray(self._task.find_shares(outputs))
            self._shares[key] = shares[:, list(teaching.places)]
        return self._shares[key]
