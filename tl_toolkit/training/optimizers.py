"""The optimizer of a phase, always a fresh one."""

from __future__ import annotations

import keras

from tl_toolkit.recipe.schema import Phase


def build_optimizer(phase: Phase) -> keras.optimizers.Optimizer:
    """Builds a phase's optimizer; its state starts from nothing, as its learning rate does."""
    if phase.optimizer == "sgd":
        return keras.optimizers.SGD(phase.learning_rate, momentum=phase.momentum)
    if phase.optimizer == "adamw":
        decay = {} if phase.weight_decay is None else {"weight_decay": phase.weight_decay}
        return keras.optimizers.AdamW(phase.learning_rate, **decay)
    return keras.optimizers.Adam(phase.learning_rate)
