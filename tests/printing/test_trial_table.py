"""The live table of a search."""

import io

import pytest
from rich.console import Console

from tl_toolkit.events import Event
from tl_toolkit.printing import trials
from tl_toolkit.printing.printer import Printer
from tl_toolkit.printing.trials import TrialTable


@pytest.fixture
def console():
    return Console(file=io.StringIO(), force_terminal=True, width=80)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets."""
    now = [0.0]
    monkeypatch.setattr(trials.time, "monotonic", lambda: now[0])
    return now


def row_of(number):
    values = {"phases.head.epochs": number}
    return {"number": number, "continues": None, "score": 0.5, "state": "completed",
            "seconds": 1.0, "values": values, "budget": None}  # fmt: skip


def test_the_rest_is_that_of_trials_after_the_first_and_never_grows(console, clock):
    table = TrialTable(console)
    said = []
    for number, ended in ((1, 30.0), (2, 32.0), (3, 34.0), (4, 36.0)):
        table.begin(number, 4, {})
        said.append(table._describe_rest(number, 4))
        clock[0] = ended
        table.end(row_of(number), best=number == 1)
    clock[0] = 37.0
    said.append(table._describe_rest(4, 4))
    table.stop()

    rests = [text.partition("about ")[2] for text in said]
    assert rests == ["", "", "4 s left", "2 s left", ""]


def test_the_table_is_shown_again_after_a_bar(console, monkeypatch):
    printer = Printer(console.file)
    printer._opened = console
    printer._is_live = True
    shown = []
    monkeypatch.setattr(TrialTable, "_show", lambda self: shown.append(self._running))

    facts = {"number": 1, "values": {"phases.head.epochs": 1}}
    printer.handle(Event("trial_began", total=2, facts=facts))
    for done in (1, 2):
        printer.handle(Event("features_computed", text="the frozen part", done=done, total=2))
    printer.stop()

    assert [running and running[0] for running in shown] == [1, 1]
