"""A run that was interrupted anywhere and resumed is the run without a pause, bit for bit."""

import errno
import json
import shutil

import numpy as np
import pytest

import tl_toolkit as tl
from tests.training.test_loop import digits_recipe
from tl_toolkit.errors import DataError, OutputError, RecipeError
from tl_toolkit.training.resume import Checkpoints, load_paused

DIGITS = digits_recipe(
    phases=[
        {"name": "head", "epochs": 2, "learning_rate": 1e-2},
        {
            "name": "tune",
            "epochs": 3,
            "unfreeze": 2,
            "learning_rate": 3e-3,
            "optimizer": {"kind": "adam", "ema": 0.9},
        },
    ],
    augment={"rotation": 0.05},
    early_stopping={"patience": 4},
    yardsticks=False,
    checkpoint={"every": "2 steps"},
)
RECIPE = DIGITS | {"data": DIGITS["data"] | {"examples_per_class": 8, "test": 0.05}}


class Killed(BaseException):
    """Ends a run at once, as a kill does: nobody writes anything for it."""


def stop_at(step, error):
    """Returns a handler that raises an error at the so many-th step."""
    steps = 0

    def handle(event):
        nonlocal steps
        steps += event.kind == "step_ended"
        if event.kind == "step_ended" and steps == step:
            raise error

    return handle


def train(out, **changes):
    return tl.finetune(RECIPE, out=out, **changes)


def outcome(run):
    """Returns all that must not depend on a pause."""
    files = [run.path / "predictions.csv"]
    for phase in sorted((run.path / "phases").iterdir()):
        files += [phase / "history.csv", phase / "receipt.json"]
    return run.metrics["weights_sha256"], run.metrics["best"], [f.read_bytes() for f in files]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run without a pause."""
    return train(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed in the middle of its second phase."""
    out = tmp_path_factory.mktemp("killed") / "run"
    with pytest.raises(Killed):
        train(out, progress=stop_at(11, Killed))
    return out


@pytest.fixture
def copied(killed, tmp_path):
    """A copy of the killed run, for a test to resume."""
    return shutil.copytree(killed, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])
def test_a_run_that_is_stopped_twice_is_the_run_without_a_pause(
    whole, tmp_path, error, monkeypatch
):
    out, save = tmp_path / "run", np.savez

    def fill_disk(file, **arrays):
        name = getattr(file, "name", "")
        if "states" in str(name) and any((out / "checkpoints/states").glob("00*")):
            raise OSError(errno.ENOSPC, "No space left on device", name)
        save(file, **arrays)

    monkeypatch.setattr("numpy.savez", fill_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        train(out)
    monkeypatch.undo()
    assert [path.name for path in (out / "checkpoints/states").iterdir()] == ["000001.npz"]
    with pytest.raises(error):
        train(out, progress=stop_at(5, error), resume=True)

    run = train(out, resume=True)

    assert outcome(run) == outcome(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"unfreeze": {"gradual": 2}, "optimizer": "adam"},
        {"learning_rates": "auto_rgn", "optimizer": "adam"},
        {"learning_rate": {"kind": "one_cycle", "peak": 1e-2}, "feature_noise": 0.1},
    ],
    ids=["gradual", "auto_rgn", "one_cycle"],
)
@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])
def test_phases_of_other_kinds_go_on_too(tmp_path, changes, error):
    head, tune = RECIPE["phases"]
    recipe = RECIPE | {"phases": [head, {**tune, **changes}]}
    whole = tl.finetune(recipe, out=tmp_path / "whole")
    for step in (8, 2, 3):
        with pytest.raises(error):
            tl.finetune(
                recipe, out=tmp_path / "run", resume=step != 8, progress=stop_at(step, error)
            )

    run = tl.finetune(recipe, out=tmp_path / "run", resume=True)

    assert outcome(run) == outcome(whole)
    rates = [sorted((path / "phases").glob("*/rates.json")) for path in (run.path, whole.path)]
    assert [path.read_bytes() for path in rates[0]] == [path.read_bytes() for path in rates[1]]


@pytest.mark.slow
def test_an_interrupt_loses_no_step(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tl.finetune(
            RECIPE | {"checkpoint": {"every": "1 epoch"}},
            out=tmp_path / "run",
            progress=stop_at(5, KeyboardInterrupt),
        )

    states = sorted((tmp_path / "run/checkpoints/states").iterdir())
    paused, _ = load_paused(states[-1])

    assert paused.phase.progress.epoch == 2 and paused.phase.progress.steps == 2
    assert paused.phase.steps_taken == 5


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda content: len(content) // 2, id="an array"),
        pytest.param(
            lambda content: content.rindex(b"PK\x01\x02") + 8,
            id="the directory",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_state_before_stands_in_for_a_damaged_one(whole, copied, place):
    *_, state = sorted((copied / "checkpoints/states").iterdir())
    content = bytearray(state.read_bytes())
    content[place(content)] ^= 1
    state.write_bytes(content)
    texts = []

    run = train(copied, resume=True, progress=lambda event: texts.append(event.text))

    assert any(text.startswith(f"passed over: {state}") for text in texts)
    assert outcome(run) == outcome(whole)


def test_a_finished_run_is_returned(whole, tmp_path):
    out = shutil.copytree(whole.path, tmp_path / "run")
    before = (out / "metrics.json").read_bytes()

    again = train(out, resume=True, overrides={"report": not whole.recipe.report})

    assert (out / "metrics.json").read_bytes() == before and again.path == out


@pytest.mark.slow
def test_a_longer_phase_goes_on_from_a_finished_run(whole, tmp_path):
    out = shutil.copytree(whole.path, tmp_path / "run")

    longer = train(out, resume=True, overrides={"phases.tune.epochs": 4})

    asked = train(tmp_path / "asked", overrides={"phases.tune.epochs": 4})
    assert outcome(longer) == outcome(asked)
    assert len(longer.history) == len(whole.history) + 1


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"phases.tune.learning_rate": 1e-3}, r"phases\.tune\.learning_rate \(0\.003 before, 0"),
        ({"phases.head.epochs": 3}, r"phases\.head\.epochs"),
        ({"phases.tune.epochs": 2}, r"phases\.tune\.epochs"),
        ({"seed": 1}, "seed"),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(copied, overrides, named):
    status = (copied / "status.json").read_bytes()

    with pytest.raises(RecipeError, match=f"was begun with another {named}"):
        train(copied, resume=True, overrides=overrides)

    assert (copied / "status.json").read_bytes() == status


@pytest.mark.slow
def test_a_schedule_over_all_epochs_cannot_be_lengthened(tmp_path):
    recipe = RECIPE | {
        "phases": [
            {"name": "head", "epochs": 1, "learning_rate": {"kind": "cosine", "initial": 1e-2}}
        ]
    }
    run = tl.finetune(recipe, out=tmp_path / "run")
    before = run.folder.status.read_bytes()

    with pytest.raises(RecipeError, match="spreads over all epochs"):
        tl.finetune(recipe, overrides={"phases.head.epochs": 2}, out=tmp_path / "run", resume=True)
    assert run.folder.status.read_bytes() == before
    shutil.rmtree(run.folder.states)
    constant = {"phases.head.learning_rate": 1e-2}
    other = tl.finetune(recipe, overrides=constant, out=tmp_path / "other")
    shutil.rmtree(other.folder.states)
    with pytest.raises(RecipeError, match="which this one does not hold"):
        longer = constant | {"phases.head.epochs": 2}
        tl.finetune(recipe, overrides=longer, out=tmp_path / "other", resume=True)


@pytest.mark.slow
def test_another_batch_size_begins_the_phase_again_whenever_it_is_killed(copied):
    texts, other = [], {"overrides": {"data.batch_size": 4}, "resume": True}
    with pytest.raises(Killed):  # before it writes a state of its own
        train(copied, progress=stop_at(1, Killed), **other)

    run = train(copied, progress=lambda event: texts.append(event.text), **other)

    assert "resuming at the beginning of phase tune" in texts
    assert json.loads(run.folder.lock.read_text())["batch_sizes"] == [8, 4]
    assert run.recipe.data.batch_size == 4
    receipts = sorted((copied / "phases").glob("*/receipt.json"))
    assert [json.loads(path.read_text())["steps"] for path in receipts] == [2 * 3, 3 * 6]


@pytest.mark.slow
def test_other_images_are_refused_before_anything_is_written(copied):
    lock = copied / "lock.json"
    values = json.loads(lock.read_text())
    lock.write_text(json.dumps(values | {"data_sha256": "0" * 64}))
    status = (copied / "status.json").read_bytes()

    with pytest.raises(DataError, match="another state of: images or their labels"):
        train(copied, resume=True)

    assert (copied / "status.json").read_bytes() == status


@pytest.mark.slow
def test_nothing_to_resume_is_a_new_run(tmp_path):
    recipe = RECIPE | {"phases": [{"name": "head", "epochs": 0}]}

    run = tl.finetune(recipe, root=tmp_path, resume=True)

    assert run.path == tmp_path / "digits/001"
    with pytest.raises(RecipeError, match="overwrite=True  goes with out"):
        tl.finetune(recipe, root=tmp_path, resume=True, overwrite=True)


def kill_at_state(monkeypatch, place, number):
    """Ends a run as a kill would, after so many states were written below a place of it."""
    write, seen = Checkpoints.write, []

    def count(checkpoints, *arguments):
        write(checkpoints, *arguments)
        seen.extend([1] if place in str(checkpoints._folder) else [])
        if len(seen) == number:
            raise Killed

    monkeypatch.setattr(Checkpoints, "write", count)


def find_times(run, but):
    """Returns when each history was written, of all trainings but one."""
    paths = {str(path.relative_to(run)): path for path in run.rglob("history.csv")}
    finished = {name: path for name, path in paths.items() if not name.startswith(but)}
    return {name: path.stat().st_mtime_ns for name, path in finished.items()}


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """A recipe with folds and a baseline, and its run without a pause."""
    head, tune = RECIPE["phases"]
    recipe = RECIPE | {
        "data": RECIPE["data"] | {"folds": 2},
        "phases": [head | {"epochs": 1}, tune | {"epochs": 2}],
        "baseline": {"model.head.dropout": 0.1},
    }
    return recipe, tl.finetune(recipe, out=tmp_path_factory.mktemp("folded") / "run")


@pytest.mark.slow
def test_folds_and_baseline_go_on_where_they_were_killed(folded, tmp_path, monkeypatch):
    recipe, whole = folded
    out, before, texts = tmp_path / "run", {}, []
    for place, training in [("run/folds/2", "folds/2"), ("run/checkpoints", "phases/"),
                            ("baseline/folds/1", "baseline/"),
                            ("baseline/checkpoints", "baseline/phases")]:  # fmt: skip
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at_state(patch, place, 2)
            tl.finetune(recipe, out=out, resume=True)
        finished = find_times(out, but=training)
        assert before.items() <= finished.items()
        before = finished

    run = tl.finetune(recipe, out=out, resume=True, progress=lambda event: texts.append(event.text))

    assert before.items() <= find_times(out, but="baseline/phases").items()
    assert outcome(run) == outcome(whole)
    names = ("folds", "baseline", "validation", "test")
    assert [run.metrics[name] for name in names] == [whole.metrics[name] for name in names]
    assert "fold 1: phase tune is over: nothing is trained again" in texts
    assert not list(out.glob("**/folds/*/checkpoints/states"))


def test_states_are_due_by_epochs_steps_and_minutes(tmp_path):
    now = 0.0
    epochs = Checkpoints(tmp_path, every="2 epochs", batch_size=8)
    steps = Checkpoints(tmp_path, every="3 steps", batch_size=8)
    minutes = Checkpoints(tmp_path, every="1 minute", batch_size=8, clock=lambda: now)

    assert [epochs.is_due(epochs=1, steps=9) for _ in range(2)] == [False, True]
    assert [steps.is_due(steps=2) for _ in range(2)] == [False, True]
    assert steps.most_steps == 3 and epochs.most_steps is None
    assert not minutes.is_due(steps=1)
    now = 60.0
    assert minutes.is_due()
