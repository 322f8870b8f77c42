"""Scaled losses (Micikevicius et al., 2018): small gradients would be zero in float16."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tl_toolkit.transfer.freezing import batch_norms

__all__ = ["LossScaler"]


class LossScaler:
    """Scales what a step differentiates; Keras's `LossScaleOptimizer` unscales the gradients.

    That optimizer takes no step where a gradient is not finite, and halves the scale; after 2,000
    steps without such a one it doubles it. The scale is one of its variables, and so of the state
    of a phase.

    Args:
        optimizer: That optimizer; None for losses as they are.
        model: Whose moving statistics a step without effect must leave alone.
    """

    def __init__(
        self, optimizer: keras.optimizers.LossScaleOptimizer | None, model: keras.Model
    ) -> None:
        self._optimizer = optimizer
        layers = [] if optimizer is None else batch_norms(model)
        self._statistics = [
            each for layer in layers for each in (layer.moving_mean, layer.moving_variance)
        ]

    @classmethod
    def of(cls, optimizer: keras.optimizers.Optimizer, model: keras.Model) -> LossScaler:
        """Returns the scaler of an optimizer, whichever it is.

        Args:
            optimizer: The optimizer.
            model: As above.
        """
        is_scaling = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        return cls(optimizer if is_scaling else None, model)

    def scale(self, objective: tf.Tensor) -> tf.Tensor:
        """Returns what is differentiated in place of an objective.

        Args:
            objective: float32 ().
        """
        return objective if self._optimizer is None else self._optimizer.scale_loss(objective)

    def read_statistics(self) -> list[tf.Tensor]:
        """Returns the moving statistics as they are before a step; none where nothing is scaled."""
        return [tf.identity(variable.value) for variable in self._statistics]

    def restore_statistics(
        self, before: Sequence[tf.Tensor], gradients: Sequence[tf.Tensor | None]
    ) -> None:
        """Gives the moving statistics back what they were, if no step will be taken.

        Args:
            before: As of `read_statistics`.
            gradients: Those of the step, scaled.
        """
        if self._optimizer is None or not self._statistics:
            return
        is_finite = self._optimizer.check_finite(gradients)
        for variable, value in zip(self._statistics, before, strict=True):
            variable.assign(tf.where(is_finite, variable.value, value))
