"""Events of a run: the work reports them, and one function handles them.

def handle(event: Event) -> None:
    if event.kind == "epoch_ended":
        print(event.facts["val_loss"])

tl.finetune("recipe.yaml", progress=handle)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Event", "Handler", "Kind", "ignore", "message", "report_counts", "warning"]

Kind = Literal[
    "run_began",
    "weights_fetched",
    "images_inspected",
    "targets_inspected",
    "planned",
    "phase_began",
    "features_computed",
    "fold_ended",
    "step_ended",
    "epoch_ended",
    "trial_began",
    "trial_ended",
    "search_ended",
    "message",
    "warning",
    "run_ended",
]


@dataclass(frozen=True)
class Event:
    """Something that happened in a run, a search, an evaluation or a prediction.

    Each kind has these facts and counts:

    * run_began: folder (a path), task (the section of the recipe).
    * weights_fetched: `done` of `total` bytes; `total` is None where the server does not say.
    * images_inspected: `done` of `total` images.
    * targets_inspected: `done` of `total` maps of targets, of tasks with an output for each pixel.
    * planned: phases, a list of mappings with name, epochs, trains, parameters, total_parameters,
      optimizer and learning_rate.
    * phase_began: phase (its name), epochs, steps (of one epoch), rates (of blocks or units that
      train, mappings with name, rate and tensors; none where all have the phase's rate).
    * features_computed: the frozen part ran for `done` of `total` images, for the store.
    * fold_ended: `done` of `total` folds of a predictor that a base is judged by.
    * step_ended: loss; `done` steps of the epoch.
    * epoch_ended: a row of history.csv; `is_best` if its weights are kept.
    * trial_began: number (from 1), values; at most `total` trials.
    * trial_ended: the columns of `tl_toolkit.tuning.journal.Trial`; `is_best` so far.
    * search_ended: the content of summary.json.
    * message, warning: a sentence in `text`. A warning is about something that its reader may want
      to mend: a skipped file, an image in two splits.
    * run_ended: metrics (the content of metrics.json), exported (the path of each format), report
      (the page, where one is written).

    Attributes:
        kind: What happened.
        text: The sentence of a message or warning.
        done: A count.
        total: The last count.
        is_best: Whether an epoch or a trial is the best so far.
        facts: The rest, by name.
    """

    kind: Kind
    text: str = ""
    done: int = 0
    total: int | None = None
    is_best: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


Handler = Callable[[Event], None]
"""Receives the events of a run, one at a time.

Several threads report them: the caller's, and one that builds the model meanwhile. An exception
that the handler raises ends the run, and the caller receives it."""


def ignore(event: Event) -> None:
    """Handles an event by doing nothing.

    Args:
        event: Any event.
    """


def message(text: str) -> Event:
    """Returns the event of a plain sentence.

    Args:
        text: The sentence.
    """
    return Event("message", text)


def warning(text: str) -> Event:
    """Returns the event of a sentence about something that its reader may want to mend.

    Args:
        text: The sentence.
    """
    return Event("warning", text)


def report_counts(handle: Handler, kind: Kind) -> Callable[[int, int | None], None]:
    """Returns a function of (done, total) that reports counts as events.

    Args:
        handle: Receives the events.
        kind: What is counted, as "images_inspected".
    """

    def report(done: int, total: int | None) -> None:
        handle(Event(kind, done=done, total=total))

    return report
