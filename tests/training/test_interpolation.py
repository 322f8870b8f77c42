"""Weights between those from before tuning and the tuned ones: what is kept, and what it costs."""

import csv
import json
from collections import Counter

import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tests.models import build_trainer, build_transfer, plan_values
from tests.training.test_loop import digits_recipe
from tests.training.test_solving import solved_recipe
from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.training import PhaseSettings, training_settings
from tl_toolkit.recipe.optimizers import SGD
from tl_toolkit.training.checkpoint import BestState, Epoch
from tl_toolkit.training.interpolation import find_ends, mix, widest_phase
from tl_toolkit.training.outcome import FinishedPhase

# At this rate the tuned weights are worse than the probe, and those between better than both.
HARSH = {"name": "tune", "epochs": 1, "learning_rate": 1e-2, "unfreeze": {"from": "block4"}}


def mixed_recipe(phases=(HARSH,), **sections):
    return solved_recipe(phases=phases, **{"interpolate": True} | sections)


class Recorder(keras.callbacks.Callback):
    """Remembers the weights as each phase begins and ends."""

    def __init__(self):
        super().__init__()
        self.begun, self.ended = [], []

    def on_train_begin(self, logs=None):
        self.begun.append(self.model.get_weights())

    def on_train_end(self, logs=None):
        self.ended.append(self.model.get_weights())


@pytest.fixture(scope="module")
def recorder():
    return Recorder()


@pytest.fixture(scope="module")
def run(tmp_path_factory, recorder):
    """A run that keeps a mixture, and its events."""
    events = []
    out = tmp_path_factory.mktemp("mixed") / "run"
    run = tl.finetune(mixed_recipe(), out=out, callbacks=[recorder], progress=events.append)
    return run, events


@pytest.mark.slow
def test_the_kept_weights_lie_between_the_ends_as_worked_out_by_hand(run, recorder):
    kept = run[0].model.get_weights()

    assert run[0].metrics["best"]["mixture"] == 0.5
    for start, tuned, between in zip(recorder.begun[1], recorder.ended[1], kept, strict=True):
        np.testing.assert_allclose(between, start + 0.5 * (tuned - start), rtol=1e-6, atol=1e-7)
        assert not np.array_equal(start, tuned) or np.array_equal(between, start)


@pytest.mark.slow
def test_the_ends_are_the_epochs_that_are_known_and_the_best_between_them_is_kept(run):
    rows = [row for row in run[0].history if row["phase"] == "interpolate"]
    before, after = (row for row in run[0].history if row["phase"] == "tune")
    best = run[0].metrics["best"]

    assert [row["mixture"] for row in rows] == [number / 10 for number in range(11)]
    assert (rows[0]["val_loss"], rows[-1]["val_loss"]) == (before["val_loss"], after["val_loss"])
    assert best["val_loss"] == min(row["val_loss"] for row in rows) < before["val_loss"] / 2
    assert run[0].evaluate()["loss"] == pytest.approx(best["val_loss"], rel=1e-6)


@pytest.mark.slow
def test_the_receipt_names_the_mixture_and_proves_the_rest_unmoved(run):
    receipt = json.loads((run[0].path / "phases" / "3-interpolate" / "receipt.json").read_text())

    moved = {row["part"]: row["moved"] for row in receipt["parts"]}
    assert receipt["holds"] and receipt["mixture"] == run[0].metrics["best"]["mixture"] == 0.5
    assert moved == {"block1": 0, "block2": 0, "block3": 0, "block4": 1, "head": 2}


@pytest.mark.slow
def test_mixtures_are_compared_on_stored_features(run):
    kinds = [(event.kind, event.facts.get("phase")) for event in run[1]]
    after = kinds[kinds.index(("phase_began", "interpolate")) :]

    assert not any("in every epoch" in event.text for event in run[1])  # they are stored
    assert len(after) > 11 and "features_computed" not in dict(after)


@pytest.mark.slow
def test_of_images_that_are_mixed_only_those_of_validation_are_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    events = []
    values = mixed_recipe(augment={"mixup": 0.2}, yardsticks=False)
    values["data"]["examples_per_class"] = 4

    tl.finetune(values, out=tmp_path / "run", progress=events.append)

    text = (tmp_path / "run" / "manifest.csv").read_text()
    splits = Counter(row["split"] for row in csv.DictReader(text.splitlines()))
    totals = {event.total for event in events if event.kind == "features_computed"}
    # The probe is solved on images as they are; the mixtures read those of validation.
    assert totals == {splits["train"] + splits["validation"], splits["validation"]}


@pytest.mark.slow
def test_the_store_changes_no_bit_of_a_mixture(run, tmp_path):
    live = tl.finetune(mixed_recipe(features={"store": "never"}), out=tmp_path / "run")

    assert live.metrics["weights_sha256"] == run[0].metrics["weights_sha256"]


@pytest.mark.slow
def test_a_pause_changes_no_mixture(tmp_path):
    plan, task = plan_values(mixed_recipe([{**HARSH, "epochs": 2, "learning_rate": 6e-3}]))
    settings = training_settings(plan)
    trainer, _ = build_trainer(plan, task, tmp_path)
    whole = trainer.train(settings)

    paused = trainer.train(settings, pause_after=1)
    resumed = trainer.train(settings, paused=paused.paused)

    assert paused.best.mixture is None and whole.best.mixture is not None
    assert (resumed.history, resumed.weights_sha256) == (whole.history, whole.weights_sha256)


@pytest.fixture
def ends():
    """The function that returns the ends where an epoch of a phase is the best; (head, tune)."""
    transfer = build_transfer("lenet5", seed=1)
    phases = [PhaseSettings("head", 1, SGD()), PhaseSettings("tune", 3, SGD(), units=("f6",))]
    _, name, bias = list(transfer.variables())[-1]
    initial = {name: np.float32([1, 1, 1]), "other": np.float32([5])}

    def find(phase, left):
        states = []
        for number, epoch in enumerate([Epoch("head", 1, 0, None, None, 1, 1), phase], start=2):
            bias.assign(np.float32([number] * 3))
            states.append(BestState())
            states[-1].watch_named(transfer, {name})
            states[-1].keep(transfer, epoch)
        bias.assign(left)
        done = [FinishedPhase((), {}, state) for state in states]
        found = find_ends(transfer, phases, done, states[-1], initial)
        return found and (found.start[name][0], found.start["other"][0], found.tuned[name][0])

    return find


def test_the_best_tuned_epoch_is_mixed_or_the_last_where_none_is_best(ends):
    tuned, probe = (Epoch(name, 2, 0, None, None, 1, 1) for name in ("tune", "head"))

    assert ends(tuned, np.float32([9, 9, 9])) == (2, 5, 3)
    assert ends(probe, np.float32([9, 9, 9])) == (2, 5, 9)
    assert ends(probe, np.float32([9, 9, np.nan])) is None


@pytest.mark.slow
def test_a_search_may_try_it(tmp_path):
    search = {"algorithm": "grid", "objective": "val_loss",
              "space": {"interpolate": {"choices": [False, True]}}}  # fmt: skip

    found = tl.search(mixed_recipe(search=search), out=tmp_path / "search")

    plain, mixed = (trial.best for trial in found.trials)
    assert mixed["mixture"] == 0.5 and "mixture" not in plain
    assert mixed["val_loss"] < plain["val_loss"] / 2


def test_weights_that_did_not_move_keep_every_bit():
    random = np.random.default_rng(0)
    start = {"still": random.normal(size=99).astype(np.float32), "moved": np.float32([1.0, 2.0])}
    tuned = {"still": start["still"].copy(), "moved": np.float32([2.0, 0.0])}

    mixed = mix(start, tuned, 0.3, {"still", "moved"})

    np.testing.assert_array_equal(mixed["still"], start["still"])
    np.testing.assert_allclose(mixed["moved"], [1.3, 1.4], rtol=1e-6)


def test_what_any_phase_trains_may_move():
    transfer = build_transfer("lenet5", seed=1)
    phases = [
        PhaseSettings("head", 1, SGD()),
        PhaseSettings("deep", 1, SGD(), units=("c5",), batch_norm="train"),
        PhaseSettings("late", 1, SGD(), units=("f6",)),
    ]

    phase = widest_phase(transfer, phases)

    assert phase.units == ("c5", "f6") and phase.train_batch_norm
    assert widest_phase(transfer, phases[:2]) is phases[1]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"phases": []}, "no phase tunes the base"),
        ({"phases": [{"name": "head", "epochs": 1}]}, "no phase tunes the base"),
        ({"head": {}}, "trained before"),
        ({"phases": [], "preset": "fast"}, "nothing to mix"),
        ({"phases": [{**HARSH, "name": "interpolate"}]}, "another name"),
        ({"interpolate": {"steps": 1}}, "from 2 to 100"),
        ({"interpolate": "yes"}, "true, false or a section"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_words(sections, message):
    with pytest.raises(RecipeError, match=message):
        plan_values(mixed_recipe(**sections))


def test_the_plan_names_the_mixtures():
    assert "interpolate (10 mixtures)" in plan_values(mixed_recipe())[0].describe()


def test_an_override_asks_for_it():
    assert training_settings(plan_values(solved_recipe(), ["interpolate=true"])[0]).mixtures == 10
    assert training_settings(plan_values(solved_recipe(), ["interpolate.steps=4"])[0]).mixtures == 4


def test_a_preset_without_two_steps_has_nothing_to_mix():
    values = digits_recipe(interpolate=True)
    del values["phases"]

    plan, _ = plan_values(values)

    assert plan.recipe.interpolate is False
    assert any("interpolate=false" in reason for reason in plan.reasons)
