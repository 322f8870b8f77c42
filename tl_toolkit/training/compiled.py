"""Splits of one model and their compiled steps, shared by all phases that train the same units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.plan.training import PhaseSettings, TrainingSettings
from tl_toolkit.tasks.solvers import import_solvers
from tl_toolkit.training.devices import Devices, OneDevice
from tl_toolkit.training.optimizers import (
    RateTable,
    build_optimizer,
    describe_rate,
    has_schedule,
)
from tl_toolkit.training.rates import find_rate_factors
from tl_toolkit.training.starting_point import StartingPoint
from tl_toolkit.training.steps import Steps
from tl_toolkit.training.teaching import Distillation
from tl_toolkit.transfer.assemble import HEAD, Part, TransferModel
from tl_toolkit.transfer.freezing import (
    Split,
    batch_norms,
    check_whole,
    set_trainable,
    split_at,
)
from tl_toolkit.transfer.precision import set_precision


class CompiledPhases:
    """Builds the split and the steps of each phase, once for equal phases.

    Args:
        transfer: The model.
        precision: float32, bfloat16 or float16: what the layers of the base compute in from now on.
            With float16 the losses of steps are scaled.
        devices: Where the gradients of steps are computed; None for one device.
    """

    def __init__(
        self,
        transfer: TransferModel,
        precision: str = "float32",
        *,
        devices: Devices | None = None,
    ) -> None:
        self.transfer = transfer
        self.devices = devices or OneDevice()
        self.precision = precision
        set_precision(transfer, precision)
        self._compiled: dict[Any, tuple[Split, Steps]] = {}
        self._checked: set[str] = set()
        self._momenta = [
            (layer, layer.momentum)
            for part in transfer.parts
            if part.name != HEAD
            for member in part.layers
            for layer in batch_norms(member)
        ]

    def get(self, phase: PhaseSettings, batch_size: int) -> tuple[Split, Steps]:
        """Returns the split of a phase and its steps, with every flag set as the phase has it.

        Args:
            phase: The phase.
            batch_size: Images in a step.

        Raises:
            CheckFailedError: Prefix and suffix are not the whole model.
        """
        check_units(self.transfer, phase)
        units, train_batch_norm = phase.units, phase.train_batch_norm
        self._set_momenta(phase.batch_norm_momentum if train_batch_norm else None)
        update = (phase.optimizer.key, has_schedule(phase.learning_rate))
        scaled = phase.has_own_rates
        is_held, is_taught = phase.l2_sp is not None, phase.teaching is not None
        key = (units, train_batch_norm, phase.batch_norm_momentum, update, batch_size, scaled,
               is_held, is_taught)  # fmt: skip
        if key in self._compiled:
            set_trainable(self.transfer, units, train_batch_norm=train_batch_norm)
            split, steps = self._compiled[key]
            steps.set_factors(find_rate_factors(self.transfer, phase))
            return split, steps
        split = split_at(self.transfer, units, train_batch_norm=train_batch_norm)
        schedule = RateTable() if has_schedule(phase.learning_rate) else None
        optimizer = build_optimizer(phase, schedule)
        if self.precision == "float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        steps = Steps(
            split, optimizer, task=self.transfer.task,
            batch_size=batch_size, schedule=schedule, has_factors=scaled, ema=phase.optimizer.ema,
            starting_point=StartingPoint(self.transfer, split) if is_held else None,
            distillation=Distillation() if is_taught else None, devices=self.devices,
        )  # fmt: skip
        steps.set_factors(find_rate_factors(self.transfer, phase))
        if split.cut.name not in self._checked:
            check_whole(self.transfer, split)
            self._checked.add(split.cut.name)
        self._compiled[key] = split, steps
        return split, steps

    def _set_momenta(self, momentum: float | None) -> None:
        """Sets the momentum of the base's moving statistics; None restores each layer's own.

        Compiled steps keep the momentum that they were traced with.
        """
        for layer, own in self._momenta:
            layer.momentum = own if momentum is None else momentum

    def trace(self, settings: TrainingSettings) -> None:
        """Compiles the steps of all phases now, and imports their solvers, while other work runs.

        Args:
            settings: The phases and their batch size.
        """
        for phase in settings.phases:
            _, steps = self.get(phase, settings.batch_size)
            is_mixed = settings.mixes_images or bool(phase.feature_mixup)
            steps.trace(training=phase.solver is None, mixed=is_mixed)
        if any(phase.solver for phase in settings.phases):
            import_solvers()


def check_units(transfer: TransferModel, phase: PhaseSettings) -> None:
    """Refuses a phase of whose units the model has none: it would train the head alone.

    A plan refuses it earlier, with its place in the recipe; but a search checks its fields one by
    one, and two of them together may come to this.

    Args:
        transfer: The model.
        phase: The phase.

    Raises:
        RecipeError: They all lie behind what the head reads.
    """
    units = phase.units
    built = [part.name for part in transfer.parts if part.name != HEAD]
    if units and not set(units) & set(built):
        last = built[-1]
        raise RecipeError(
            Problem(
                where=f"{phase.field}.unfreeze",
                what=f"{', '.join(units)} would train",
                expected=f"expected {last} or a unit before it: the head reads none behind it.",
                hint=f"unfreeze: {{from: {last}}}",
            )
        )


def plan_phases(transfer: TransferModel, phases: Sequence[PhaseSettings]) -> list[dict[str, Any]]:
    """Describes what each phase trains, before anything is trained.

    Args:
        transfer: The model.
        phases: The phases.

    Returns:
        Rows with name, section (the recipe's phase), epochs, trains, parameters (trainable),
        total_parameters, solver (None for steps), optimizer and learning_rate (a number, or a
        schedule in a few words).
    """
    total = sum(math.prod(variable.shape) for _, _, variable in transfer.variables())
    rows = []
    for phase in phases:
        check_units(transfer, phase)
        trained = set_trainable(transfer, phase.units, train_batch_norm=phase.train_batch_norm)
        weights = [weight for part in trained for layer in part.layers for weight in layer.weights]
        rows.append(
            {
                "name": phase.name,
                "section": phase.section or phase.name,
                "epochs": phase.epochs,
                "trains": _name_trained(transfer, trained),
                "parameters": sum(math.prod(w.shape) for w in weights if w.trainable),
                "total_parameters": total,
                "solver": phase.solver,
                "optimizer": phase.solver or phase.optimizer.kind,
                "learning_rate": "" if phase.solver else describe_rate(phase.learning_rate),
            }
        )
    return rows


def _name_trained(transfer: TransferModel, trained: Sequence[Part]) -> str:
    """Returns what trains: the first part, or where others in between are frozen, all blocks."""
    first = trained[0]
    if first.name == HEAD:
        return HEAD
    if list(trained) == list(transfer.parts[-len(trained) :]):
        return f"{first.name} to head"
    return ", ".join(dict.fromkeys(part.block for part in trained))
