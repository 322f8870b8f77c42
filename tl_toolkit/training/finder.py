"""A learning rate test: the rate of a phase is found on its first batches (Smith, 2017)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from tl_toolkit.architectures.batches import Batch, in_batches
from tl_toolkit.events import Handler, message
from tl_toolkit.plan.training import PhaseSettings
from tl_toolkit.runs.files import drafted, write_json
from tl_toolkit.tasks.types import ExampleSource
from tl_toolkit.training.checkpoint import BestState
from tl_toolkit.training.optimizers import tabulate_rate
from tl_toolkit.training.rates import find_rate_factors
from tl_toolkit.training.steps import Steps
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.freezing import Split

__all__ = [
    "FoundRate",
    "choose_rate",
    "find_phase_rate",
    "find_rate",
    "stream_batches",
    "write_curve",
]

_USUAL = 1e-3
_LOWEST, _HIGHEST = 1e-6, 10.0
_PER_DECADE = 20
_SIGMA = 4.0
"""Of the Gaussian that smooths the losses, in rates: a fifth of a decade. It is centred, so that
the curve does not lag behind the rates as a moving average of past losses does."""

_DIVERGED = 4.0
"""The test ends where the loss is this many times the least so far, as in fastai."""

_FALL = 0.1
"""Part of its first value that the loss must lose for its steepest fall to mean something."""

_FASTEST = "where the smoothed loss falls fastest"
_BEFORE_RISE = "a tenth of where the loss begins to rise: at no rate does it fall by a tenth"


@dataclass(frozen=True)
class FoundRate:
    """The rate that a test has chosen, and its curve.

    Attributes:
        learning_rate: The rate, to two digits.
        rule: Why this one, in words.
        rates: The rates that were tried.
        losses: The loss of the batches at each, before the step at it.
        smoothed: The curve that decided.
    """

    learning_rate: float
    rule: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]


def find_rate(
    transfer: TransferModel,
    split: Split,
    steps: Steps,
    batches: Iterator[tuple[Batch, np.ndarray]],
    *,
    accumulate: int = 1,
) -> FoundRate:
    """Raises the rate from step to step, and chooses one by the losses; restores all weights.

    The state of the optimizer and of random streams is for the caller to reset.

    Args:
        transfer: The model.
        split: The split of the phase.
        steps: Its compiled steps, restarted.
        batches: Batches to take steps on, as many as are asked for.
        accumulate: Batches of one step.
    """
    before = BestState()
    before.watch(transfer, split)
    count = round(math.log10(_HIGHEST / _LOWEST) * _PER_DECADE) + 1
    rates: list[float] = []
    losses: list[float] = []
    try:
        for rate in np.geomspace(_LOWEST, _HIGHEST, count).tolist():
            steps.set_rate(rate)
            taken = [steps.train(*batch)[0] for batch in itertools.islice(batches, accumulate)]
            loss = float(np.mean(np.concatenate(taken)))
            if not math.isfinite(loss):
                break
            rates.append(rate)
            losses.append(loss)
            if _smooth(losses)[-1] > _DIVERGED * min(_smooth(losses)):
                break
    finally:
        before.restore(transfer)
    if not rates:  # the first epoch ends with an error that says so
        return FoundRate(_USUAL, "the loss is not finite before the first step", (), (), ())
    return choose_rate(rates, losses)


def find_phase_rate(
    transfer: TransferModel,
    phase: PhaseSettings,
    split: Split,
    steps: Steps,
    batches: Iterator[tuple[Batch, np.ndarray]],
    *,
    path: Path | None,
    progress: Handler,
) -> float:
    """Finds the rate of a phase, for all that trains together; leaves the weights as they are.

    Rates of single parts count afterwards: the test raises one rate.

    Args:
        transfer: The model.
        phase: The phase.
        split: Its split.
        steps: Its compiled steps.
        batches: As in `find_rate`.
        path: Folder that receives the curve; None for no files.
        progress: Receives a message.
    """
    steps.restart(tabulate_rate(phase, 1))
    steps.set_factors(find_rate_factors(transfer, replace(phase, learning_rates=None)))
    found = find_rate(transfer, split, steps, batches, accumulate=phase.optimizer.accumulate)
    if path is not None:
        write_curve(found, path)
    text = f"{phase.name}: learning_rate {found.learning_rate:g} of {len(found.rates)} tried"
    progress(message(f"{text}, {found.rule}"))
    return found.learning_rate


def choose_rate(rates: Sequence[float], losses: Sequence[float]) -> FoundRate:
    """Chooses the rate at which the smoothed loss falls fastest over the logarithm of the rate.

    Where the loss falls by less than a tenth, as of a model that fits its images already, it is a
    tenth of the last rate at which the loss is at most a tenth above its first value.

    Args:
        rates: Rising rates, at least one.
        losses: The loss at each.
    """
    smoothed = _smooth(losses)
    least = int(smoothed.argmin())
    rule = _FASTEST
    if least and smoothed[least] <= (1 - _FALL) * smoothed[0]:
        slopes = np.gradient(smoothed, np.log(rates))
        rate = rates[int(slopes[: least + 1].argmin())]
    else:
        rule = _BEFORE_RISE
        level = np.flatnonzero(smoothed <= (1 + _FALL) * smoothed[0])
        rate = rates[int(level[-1])] / 10
    return FoundRate(
        float(f"{rate:.2g}"), rule, tuple(rates), tuple(losses), tuple(smoothed.tolist())
    )


def _smooth(losses: Sequence[float]) -> np.ndarray:
    """Returns centred weighted means; at the ends, of the losses that are there."""
    places = np.arange(len(losses))
    weights = np.exp(-0.5 * ((places[:, np.newaxis] - places) / _SIGMA) ** 2)
    return np.asarray(weights @ np.asarray(losses) / weights.sum(axis=1))


def stream_batches(
    source: ExampleSource,
    sample: Callable[[np.random.Generator], np.ndarray],
    batch_size: int,
    *,
    seed: int,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields batches without end, in the order that epochs have them; none is a short rest.

    Args:
        source: The training images.
        sample: Returns an order of them.
        batch_size: Images in a batch.
        seed: Decides the order, as in the epochs.
    """
    for epoch in itertools.count(1):
        order = sample(np.random.default_rng((seed, epoch)))
        for batch in in_batches(source.chunks(order, batch_size, epoch=epoch), batch_size):
            if len(batch[1]) == min(batch_size, len(order)):
                yield batch


def write_curve(found: FoundRate, folder: Path) -> None:
    """Writes learning_rate.json and learning_rate.svg.

    Args:
        found: The outcome of a test.
        folder: The phase's folder.
    """
    from matplotlib.figure import Figure

    write_json(folder / "learning_rate.json", asdict(found))
    if not found.rates:
        return
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axis = figure.subplots()
    axis.plot(found.rates, found.losses, ".", color="0.7", label="loss of a batch")
    axis.plot(found.rates, found.smoothed, color="#4c72b0", label="smoothed")
    axis.axvline(found.learning_rate, color="#c44e52", label=f"chosen: {found.learning_rate:g}")
    axis.set_xscale("log")
    axis.set_ylim(top=1.5 * max(found.smoothed[0], min(found.losses)))
    axis.set_xlabel("learning rate")
    axis.set_ylabel("training loss")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend()
    with drafted(folder / "learning_rate.svg") as draft:
        figure.savefig(draft)
