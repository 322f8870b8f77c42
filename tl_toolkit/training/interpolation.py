"""Mixtures of the weights from before and after tuning, compared on validation images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.events import Event, Handler, message
from tl_toolkit.plan.training import INTERPOLATE, PhaseSettings, StoppingRule
from tl_toolkit.runs.files import write_json
from tl_toolkit.training.checkpoint import (
    BestState,
    Epoch,
    assign_weights,
    read_weights,
    write_history,
)
from tl_toolkit.training.outcome import FinishedPhase
from tl_toolkit.training.steps import Steps
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.freezing import Split
from tl_toolkit.transfer.receipt import check_receipt, write_receipt

__all__ = [
    "Ends",
    "find_ends",
    "mix",
    "sweep_mixtures",
    "widest_phase",
    "write_mixture_receipt",
]

_Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Ends:
    """The weights that are mixed, by canonical name; those that did not move are equal.

    Attributes:
        start: As tuning began.
        tuned: As it left them.
        about: The tuned ones in words.
    """

    start: _Arrays
    tuned: _Arrays
    about: str


def find_ends(
    transfer: TransferModel,
    phases: Sequence[PhaseSettings],
    done: Sequence[FinishedPhase],
    best: BestState,
    initial: _Arrays,
    *,
    is_trained: bool = False,
) -> Ends | None:
    """Returns the weights to mix; None if there are none, as from before the head was trained.

    The tuned ones are those of the best epoch. If that is from before tuning, they are the weights
    as the last phase left them.

    Args:
        transfer: The model, as the last phase left it.
        phases: All phases.
        done: What became of them.
        best: The best state.
        initial: All weights that phases may have changed, as they were before the first one.
        is_trained: Whether they are those of a trained head.
    """
    tuning = next((place for place, phase in enumerate(phases) if phase.units), None)
    if tuning is None or best.epoch is None or not (tuning or is_trained):
        return None
    about = f"those at the end of {phases[-1].name}"
    tuned: _Arrays = read_weights(transfer, best.names)
    names = {phase.name for phase in phases[tuning:]}
    if best.epoch.epoch and best.epoch.phase in names:
        tuned, about = best.arrays, f"those of epoch {best.epoch.epoch} of {best.epoch.phase}"
    if not all(np.isfinite(array).all() for array in tuned.values()):
        return None
    start = {**initial, **(done[tuning - 1].best.arrays if tuning else {})}
    return Ends(start, tuned, about)


def widest_phase(transfer: TransferModel, phases: Sequence[PhaseSettings]) -> PhaseSettings:
    """Returns a phase that trains whatever any phase trains, one of the phases where it can.

    Args:
        transfer: The model.
        phases: All phases. Where none trains the base, it is the last one.
    """
    tuning = [phase for phase in phases if phase.units]
    if not tuning:
        return phases[-1]
    units = {unit for phase in tuning for unit in phase.units}
    train = any(phase.train_batch_norm for phase in tuning)
    for phase in tuning:
        if set(phase.units) == units and phase.train_batch_norm == train:
            return phase
    ordered = tuple(part.name for part in transfer.parts if part.name in units)
    return replace(tuning[-1], units=ordered, batch_norm="train" if train else "frozen")


def mix(start: _Arrays, tuned: _Arrays, part: float, names: Set[str]) -> dict[str, np.ndarray]:
    """Returns start + part * (tuned - start); weights that are equal keep every bit.

    Args:
        start: Weights by canonical name.
        tuned: Others.
        part: 0 for the start, 1 for the tuned ones.
        names: The weights to mix.
    """
    mixed = {}
    for name in names:
        # In float64, where the difference of two float32 numbers loses nothing that matters.
        before, after = (np.asarray(arrays[name], np.float64) for arrays in (start, tuned))
        mixed[name] = (before + part * (after - before)).astype(tuned[name].dtype)
    return mixed


def sweep_mixtures(
    transfer: TransferModel,
    steps: Steps,
    ends: Ends,
    best: BestState,
    evaluate: Callable[[], tuple[float, float]],
    *,
    count: int,
    stopping: StoppingRule | None,
    path: Path | None,
    progress: Handler,
) -> list[Epoch]:
    """Evaluates mixtures from the start to the tuned weights, and keeps one that is the best.

    Args:
        transfer: The model, which is left with the last mixture.
        steps: Its compiled steps, for the regularization loss.
        ends: The weights to mix.
        best: The best state, which a better mixture replaces.
        evaluate: Returns loss and score on validation images, of the model as it is.
        count: Number of mixtures; the last one consists of the tuned weights.
        stopping: The rule with the monitor that they are compared by.
        path: Folder that receives history.csv.
        progress: Receives an event for each mixture.

    Returns:
        A row for the start, and one for each mixture.
    """
    facts = {"phase": INTERPOLATE, "epochs": count, "steps": 0}
    progress(Event("phase_began", facts=facts))
    rows: list[Epoch] = []
    kept = None
    for number in range(count + 1):
        part = number / count
        weights = ends.tuned if number == count else mix(ends.start, ends.tuned, part, best.names)
        assign_weights(transfer, weights)
        loss, score = evaluate()
        epoch = Epoch(
            INTERPOLATE, number, 0.0, None, None, loss, score, steps.regularization_loss(),
            score_name=steps.task.score, mixture=part,
        )  # fmt: skip
        # The ends are known already, from epochs of phases.
        is_better = 0 < number < count and math.isfinite(loss)
        is_better = is_better and best.is_beaten_by(epoch, stopping)
        if is_better:
            best.keep(transfer, epoch)
            kept = epoch
        rows.append(epoch)
        progress(Event("epoch_ended", facts=epoch.as_row(), is_best=is_better))
    if path is not None:
        write_history(path / "history.csv", rows)
    progress(message(_describe_outcome(kept, ends)))
    return rows


def _describe_outcome(kept: Epoch | None, ends: Ends) -> str:
    between = f"the weights from before tuning with {ends.about}"
    if kept is None:
        return f"{INTERPOLATE}: no mixture of {between} is better than the best epoch, which stays"
    return f"{INTERPOLATE}: kept is a mixture of {between}, {kept.mixture:g} of the latter"


def write_mixture_receipt(
    transfer: TransferModel,
    split: Split,
    before: Mapping[tuple[str, str], str],
    path: Path | None,
    *,
    phase: str,
    mixture: float | None,
) -> dict[str, Any]:
    """Returns the receipt of mixed weights: what moved from those before to what is kept.

    Args:
        transfer: The model, with the weights that are kept.
        split: The split of `widest_phase`, whose flags the model has.
        before: Digests of all weights before the mixing.
        path: Folder that receives receipt.json.
        phase: What the mixing is called.
        mixture: Part of the tuned weights in the mixture that is kept, if there is one.

    Raises:
        ReceiptError: The receipt does not hold; it is written first.
    """
    receipt = write_receipt(transfer, split, before, phase=phase, steps=0, learning_rate=0.0)
    receipt["mixture"] = mixture
    where = f"phase {phase!r}"
    if path is not None:
        where = str(path / "receipt.json")
        write_json(path / "receipt.json", receipt)
    check_receipt(receipt, where=where)
    return receipt
