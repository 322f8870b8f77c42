"""What a run prints of its epochs, and at its end."""

import builtins
import io
import os
import sys
import types

import pytest

from tl_toolkit.events import Event, message
from tl_toolkit.printing.printer import Printer
from tl_toolkit.recipe.tasks import find_task

PLAN = {"solver": None,
    "trains": "head", "parameters": 1, "total_parameters": 2, "optimizer": "adam",
    "learning_rate": 0.001,
}  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self):
        return True


def epoch_of(number, score=0.5, phase="head"):
    losses = {"loss": 0.25 if number else None, "val_loss": 0.5}
    scores = {"accuracy": 0.75 if number else None, "val_accuracy": score}
    return {"phase": phase, "epoch": number, **losses, **scores}


@pytest.fixture
def print_run(tmp_path):
    """Prints a run of one phase, and returns its lines."""

    def run(epochs, *, best, stopped_after=None, exported=(), file=None, baseline=0):
        file = file or io.StringIO()
        printer = Printer(file)
        handle = printer.handle
        section = find_task("classification")()
        handle(Event("run_began", facts={"folder": tmp_path / "run", "task": section}))
        for name, count in (("head", epochs), ("baseline head", baseline)):
            if count:
                handle(
                    Event("planned", facts={"phases": [{"name": name, "epochs": count, **PLAN}]})
                )
                handle(Event("phase_began", facts={"phase": name, "epochs": count, "steps": 1}))
                for number in range((stopped_after or count) + 1):
                    handle(Event("epoch_ended", facts=epoch_of(number, phase=name)))
        metrics = {"best": epoch_of(best), "validation": {"images": 9, "accuracy": 0.5}}
        paths = {name: f"export/{name}" for name in exported}
        handle(Event("run_ended", facts={"metrics": metrics, "exported": paths}))
        return file.getvalue().splitlines()

    return run


def test_a_run_goes_on_where_nobody_reads_what_it_prints():
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as file:
        printer = Printer(file)
        for _ in range(2):
            printer.handle(message("one line"))
        print("by somebody else", file=file, flush=True)


def test_epochs_have_a_heading_and_stay_within_80_columns(print_run):
    lines = print_run(100, best=50)

    (heading,) = [line for line in lines if line.startswith("epoch ")]
    assert heading.endswith("loss  accuracy  val loss  val accuracy  seconds")
    (last,) = [line for line in lines if line.startswith("head 100/100")]
    assert last.split()[2:6] == ["0.2500", "0.750", "0.5000", "0.500"]
    assert len(last.rstrip(" *")) == len(heading) <= 78


@pytest.mark.parametrize("epochs", [40, 41, 300, 5000])
def test_a_long_run_prints_about_forty_lines_of_epochs_where_it_is_no_terminal(print_run, epochs):
    lines = print_run(epochs, best=1, baseline=epochs)

    own = [line for line in lines if line.startswith("head ")]
    assert 20 <= len(own) - 2 <= 42  # beside the line of the plan
    assert own[-1].startswith(f"head {epochs}/{epochs} ")
    assert ("history.csv holds all" in " ".join(lines)) == (epochs >= 40)
    assert len([line for line in lines if line.startswith("baseline head")]) <= 15


def test_a_terminal_shows_every_epoch(print_run):
    lines = print_run(90, best=1, file=Terminal())

    assert all(any(f"head {number}/90 " in line for line in lines) for number in range(91))


@pytest.mark.parametrize(
    ("best", "stopped_after", "is_said"), [(9, None, True), (8, None, False), (5, 7, False)]
)
def test_a_run_that_was_still_improving_says_so(print_run, best, stopped_after, is_said):
    lines = print_run(9, best=best, stopped_after=stopped_after, baseline=4)

    said = [line for line in lines if line.startswith("still improving")]
    assert (
        said == ["still improving when it stopped: more epochs, as phases.head.epochs=18"] * is_said
    )


def test_the_end_names_the_best_epoch_and_the_time(print_run):
    lines = print_run(9, best=5)

    assert "best epoch: 5 of phase head" in lines
    (line,) = [line for line in lines if line.startswith("time: ")]
    assert line == "time: 0.0 s in all, 0.0 s an epoch of head"


def test_the_next_steps_are_without_an_export_that_was_made(print_run):
    before, after = print_run(2, best=1), print_run(2, best=1, exported=["saved_model"])

    assert [line.split()[1] for line in before if line.startswith("  tltool")] == [
        "evaluate", "predict", "export",
    ]  # fmt: skip
    assert [line.split()[1] for line in after if line.startswith("  tltool")] == [
        "evaluate", "predict",
    ]  # fmt: skip


def test_the_winner_of_a_search_has_a_line_for_each_field(tmp_path):
    file = io.StringIO()
    values = {"phases.tune.unfreeze": {"from": "conv_dw_12"}, "model.head.dropout": 0.30000000001}
    best = {"number": 2, "score": 0.5, "values": values}
    facts = {
        "best": best, "trials": 3, "failed": 0, "paused": 0, "objective": "val_accuracy",
        "refit": None, "best_recipe": str(tmp_path / "best.yaml"),
    }  # fmt: skip

    Printer(file).handle(Event("search_ended", facts=facts))

    assert file.getvalue().splitlines()[1:4] == [
        "best: trial 2 of 3, val_accuracy 0.5000",
        "  phases.tune.unfreeze = from conv_dw_12",
        "  model.head.dropout = 0.3",
    ]


def print_a_run(printer):
    events = [Event("phase_began", facts={"phase": "head", "epochs": 3, "steps": 2})]
    for epoch in (1, 2, 3):
        events += [Event("step_ended", facts={"loss": 1.0})] * 2
        events += [Event("epoch_ended", facts=epoch_of(epoch))]
    for event in events:
        printer.handle(event)
    printer.stop()


@pytest.fixture
def in_notebook(monkeypatch):
    """Lets IPython and rich take this process for a kernel's."""
    shell = type(
        "ZMQInteractiveShell", (), {"kernel": object(), "__module__": "ipykernel.zmqshell"}
    )
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = shell
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(builtins, "get_ipython", shell, raising=False)


def test_a_notebook_shows_a_line_for_each_epoch_and_no_bar(in_notebook):
    screen = Terminal()

    print_a_run(Printer(screen))

    heading, *lines = screen.getvalue().splitlines()
    assert heading.split()[:2] == ["epoch", "loss"]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert "\x1b" not in screen.getvalue() and "\r" not in screen.getvalue()


def test_a_terminal_shows_a_bar():
    screen = Terminal()

    print_a_run(Printer(screen))

    assert "\x1b" in screen.getvalue()


def test_a_notebook_is_printed_to_where_it_is_not_red(in_notebook, capsys):
    print_a_run(Printer())

    out, err = capsys.readouterr()
    assert "head 3/3" in out and err == ""


def test_counts_of_images_outside_of_a_run_are_few_lines(monkeypatch):
    seconds = iter(range(0, 1000, 3))
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    file = io.StringIO()
    handle = Printer(file, counts=True).handle

    for done in range(1, 11):
        handle(Event("images_inspected", done=done, total=10))

    lines = file.getvalue().splitlines()
    assert lines[-1] == "images: 10 of 10"
    assert 2 <= len(lines) <= 4


def test_counts_of_images_are_no_lines_of_a_run(tmp_path):
    file = io.StringIO()
    handle = Printer(file, counts=True).handle

    handle(Event("run_began", facts={"folder": tmp_path}))
    handle(Event("images_inspected", done=10, total=10))

    assert file.getvalue().splitlines() == [f"run {tmp_path}"]
