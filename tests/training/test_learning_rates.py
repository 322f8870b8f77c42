"""Blocks and units at rates of their own: what moves, what is printed, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

import tl_toolkit as tl
from tests.models import build_transfer, plan_values
from tests.training.test_loop import digits_recipe
from tl_toolkit.errors import CheckFailedError, RecipeError
from tl_toolkit.plan.training import PhaseSettings, training_settings
from tl_toolkit.recipe.optimizers import SGD
from tl_toolkit.recipe.schedules import CosineSchedule
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.rates import find_rate_factors, tabulate_rates

UNITS = ("c3", "c5", "f6")
RATES = {"c5": 2e-3, "head": 5e-2}
PLAIN = PhaseSettings("tune", 1, SGD(), 1e-2, UNITS)


@pytest.fixture(scope="module")
def compiled():
    return CompiledPhases(build_transfer("lenet5", seed=1))


def step_of(compiled, phase):
    """How far each tensor moves in one step, by its part; the weights are restored."""
    _, steps = compiled.get(phase, 6)
    steps.restart(
        phase.learning_rate
        if isinstance(phase.learning_rate, float)
        else np.array([1e-2], np.float32)
    )
    variables = [(part.name, variable) for part, _, variable in compiled.transfer.variables()]
    before = [variable.numpy() for _, variable in variables]
    random = np.random.default_rng(0)
    features = random.uniform(size=(6, *compiled.get(PLAIN, 6)[1].model.input.shape[1:]))
    compiled.get(phase, 6)
    steps.train(features.astype(np.float32), np.arange(6, dtype=np.int32) % 3)
    moves = [
        (part, variable.numpy() - start)
        for (part, variable), start in zip(variables, before, strict=True)
    ]
    for (_, variable), start in zip(variables, before, strict=True):
        variable.assign(start)
    return moves


@pytest.mark.parametrize("rate", [1e-2, CosineSchedule(initial=1e-2)], ids=["number", "schedule"])
def test_a_step_of_sgd_is_the_plain_step_at_the_rate_of_its_part(compiled, rate):
    plain = step_of(compiled, PLAIN)

    own = step_of(compiled, replace(PLAIN, learning_rate=rate, learning_rates=RATES))

    ratios = {"c1": 0, "c3": 1, "c5": 0.2, "f6": 1, "head": 5}
    for (part, move), (_, scaled) in zip(plain, own, strict=True):
        np.testing.assert_allclose(scaled, move * ratios[part], rtol=1e-3, atol=1e-7)
    assert all(np.abs(move).max() > 0 for part, move in plain if part != "c1")


def test_a_rate_equal_to_the_phase_s_changes_no_bit(compiled):
    plain = step_of(compiled, PLAIN)

    same = step_of(compiled, replace(PLAIN, learning_rates={"c5": 1e-2}))

    for (_, move), (_, other) in zip(plain, same, strict=True):
        np.testing.assert_array_equal(other, move)


def test_own_rates_of_a_unit_go_before_its_block_and_both_before_layer_decay():
    transfer = build_transfer("vgg_tiny")
    units = tuple(part.name for part in transfer.parts[:-1])[-2:]
    blocks = {part.name: part.block for part in transfer.parts}
    rates = {blocks[units[0]]: 1e-3, blocks[units[1]]: 1e-3, units[1]: 2e-3}
    phase = PhaseSettings("a", 1, SGD(), 1e-2, units, layer_decay=0.5, learning_rates=rates)

    factors = find_rate_factors(transfer, phase)

    assert factors == pytest.approx({units[0]: 0.1, units[1]: 0.2, "head": 1.0})


def test_the_table_counts_the_tensors_of_each_part_and_checks_their_rates(compiled):
    phase = replace(PLAIN, learning_rates=RATES)
    factors = find_rate_factors(compiled.transfer, phase)
    _, steps = compiled.get(phase, 6)

    rows = tabulate_rates(compiled.transfer, phase, steps, factors)

    assert [(row["name"], row["rate"], row["tensors"]) for row in rows] == [
        ("c3", 1e-2, 2), ("c5", 2e-3, 2), ("f6", 1e-2, 2), ("head", 5e-2, 2)
    ]  # fmt: skip
    steps.set_factors({**factors, "c3": 0.5})
    with pytest.raises(CheckFailedError, match="phase 'tune', c3"):
        tabulate_rates(compiled.transfer, phase, steps, factors)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a phase with rates by name and of one that weighs gradients, and its events."""
    events = []
    phases = [
        {"name": "named", "epochs": 1, "unfreeze": 2, "learning_rates": {"c5": 1e-5}},
        {"name": "weighed", "epochs": 2, "unfreeze": 2, "learning_rates": "auto_rgn"},
    ]
    run = tl.finetune(
        digits_recipe(phases=phases, yardsticks=False),
        overrides=["phases.named.learning_rates.head=1e-4"],
        out=tmp_path_factory.mktemp("rates") / "run",
        progress=events.append,
    )
    return run, events


def read_rates(run, phase):
    return json.loads((run.path / "phases" / phase / "rates.json").read_text())


@pytest.mark.slow
def test_a_run_keeps_and_reports_the_rates_of_a_phase(run):
    run, events = run

    kept = read_rates(run, "1-named")["rates"]

    assert {row["name"]: row["rate"] for row in kept} == {"c5": 1e-5, "f6": 1e-3, "head": 1e-4}
    began = next(event for event in events if event.kind == "phase_began")
    assert began.facts["rates"] == kept


@pytest.mark.slow
def test_auto_rgn_sets_the_rates_of_each_epoch_in_proportion(run):
    kept = read_rates(run[0], "2-weighed")

    assert [epoch["epoch"] for epoch in kept["epochs"]] == [1, 2]
    assert kept["rates"] == kept["epochs"][0]["rates"] != kept["epochs"][1]["rates"]
    for epoch in kept["epochs"]:
        norms = epoch["relative_gradient_norms"]
        expected = {name: 1e-3 * norm / max(norms.values()) for name, norm in norms.items()}
        assert {row["name"]: row["rate"] for row in epoch["rates"]} == pytest.approx(expected)


def test_relative_gradient_norms_are_those_of_the_loss_by_hand(compiled):
    random = np.random.default_rng(0)
    targets = np.arange(6, dtype=np.int32) % 3
    norms = []
    for units in ((), UNITS):
        _, steps = compiled.get(replace(PLAIN, units=units, learning_rates="auto_rgn"), 6)
        features = random.uniform(size=(6, *steps.model.input.shape[1:])).astype(np.float32)
        before = [variable.numpy() for _, _, variable in compiled.transfer.variables()]
        norms.append(steps.weigh_gradients(features, targets))
        after = [variable.numpy() for _, _, variable in compiled.transfer.variables()]
        assert all(np.array_equal(new, old) for new, old in zip(after, before, strict=True))
        if not units:  # a softmax with cross-entropy on the features themselves
            errors = (np.asarray(steps.model(features)) - np.eye(3)[targets]) / 6
            gradient = np.sqrt(((features.T @ errors) ** 2).sum() + (errors.sum(axis=0) ** 2).sum())
            head = [
                v.numpy() for part, _, v in compiled.transfer.variables() if part.name == "head"
            ]
            weights = np.sqrt(sum((weight**2).sum() for weight in head))

    assert norms[0] == {"head": pytest.approx(gradient / weights, rel=1e-4)}
    assert list(norms[1]) == ["c3", "c5", "f6", "head"] and min(norms[1].values()) > 0


def settings_of(**phase):
    phases = [{"name": "all", "epochs": 1, "unfreeze": 2, **phase}]
    return training_settings(plan_values(digits_recipe(phases=phases))[0]).phases[0]


def test_a_recipe_s_rates_reach_the_phase_and_a_baseline_or_trial_may_change_one():
    phase = settings_of(learning_rates={"c5": 1e-5})

    assert phase.learning_rates == {"c5": 1e-5} and phase.has_own_rates
    values = digits_recipe(
        phases=[{"name": "all", "epochs": 1, "unfreeze": 2}],
        search={"space": {"phases.all.learning_rates.c5": [1e-5, 1e-4]}},
    )
    plan_values(values)  # every value makes a valid recipe


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"c6": 1e-3}, r"'c6' is no block or unit\n.*expected one of c5, f6, head\."),
        ({"c3": 1e-3}, r"'c3' does not train in phase 'all'\n(.|\n)*unfreeze=\{from: c3\}"),
        ({"c5": 0.0}, r"learning_rates\.c5 = 0"),
        ("auto_rng", r"auto_rgn, got 'auto_rng'\.\n  Try: learning_rates: auto_rgn"),
        (1e-3, r"expected rates by name, or auto_rgn, got 0\.001"),
    ],
)
def test_a_rate_without_effect_is_refused(rates, message):
    with pytest.raises(RecipeError, match=message):
        settings_of(learning_rates=rates)


def test_auto_rgn_leaves_no_room_for_layer_decay():
    with pytest.raises(RecipeError, match=r"layer_decay = 0\.5(.|\n)*~phases\.all\.layer_decay"):
        settings_of(learning_rates="auto_rgn", layer_decay=0.5)


def test_a_phase_that_ends_before_its_first_change_is_refused():
    with pytest.raises(RecipeError, match=r"accumulate = 9(.|\n)*at most 3(.|\n)*accumulate=1"):
        settings_of(optimizer={"kind": "adam", "accumulate": 9})

    assert settings_of(optimizer={"kind": "adam", "accumulate": 3}).optimizer.accumulate == 3
