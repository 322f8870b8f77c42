"""What holds the base near its start: 0 there, and a gradient of alpha times the distance."""

import numpy as np
import pytest

from tests.models import build_trainer, build_transfer, plan_values
from tests.training.test_loop import digits_recipe
from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.training import PhaseSettings, training_settings
from tl_toolkit.recipe.anchors import L2SP
from tl_toolkit.recipe.optimizers import SGD
from tl_toolkit.training.checkpoint import assign_weights
from tl_toolkit.training.compiled import CompiledPhases

ALPHA, BETA, RATE = 0.5, 0.25, 0.1
PHASE = {"name": "all", "epochs": 1, "unfreeze": 2, "learning_rate": 3e-3}


def test_the_gradient_is_alpha_times_the_distance_and_beta_times_the_head():
    transfer = build_transfer("lenet5", seed=1)
    phase = PhaseSettings("tune", 1, SGD(), RATE, ("f6",), l2_sp=L2SP())
    _, steps = CompiledPhases(transfer).get(phase, 6)
    random = np.random.default_rng(0)
    features = random.uniform(size=(6, *steps.model.input.shape[1:])).astype(np.float32)
    start = {name: variable.numpy() for _, name, variable in transfer.variables()}
    before = {name: value + random.normal(0, 0.1, value.shape) for name, value in start.items()}

    def take_a_step(base, head):
        assign_weights(transfer, before)
        steps.starting_point.set(start, base=base, head=head)
        loss = steps.regularization_loss()
        steps.train(features, np.arange(6, dtype=np.int32) % 3)
        return loss, {name: variable.numpy() for _, name, variable in transfer.variables()}

    nothing, plain = take_a_step(0, 0)
    loss, held = take_a_step(ALPHA, BETA)

    expected = 0.0
    for part, name, _ in transfer.variables():
        pull, squares = np.zeros_like(plain[name]), 0
        if part.name == "f6":
            pull = ALPHA * (before[name] - start[name])
            squares = ALPHA * np.square(before[name] - start[name]).sum()
        elif part.name == "head":
            pull, squares = BETA * before[name], BETA * np.square(before[name]).sum()
        np.testing.assert_allclose(plain[name] - held[name], RATE * pull, atol=1e-6)
        expected += squares / 2
    assert (nothing, loss) == (0, pytest.approx(expected, rel=1e-5))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Two phases with alpha alone, free and held: the outcomes, and the distance at the end."""
    two = [PHASE, {**PHASE, "name": "more"}]
    plan, task = plan_values(held(0.1, phases=two))
    trainer, _ = build_trainer(plan, task, tmp_path_factory.mktemp("images"))
    start = trainer.model.get_layer("f6_dense").kernel.numpy()
    results = []
    for alpha in (1e-6, 10.0, 1e-6):
        outcome = trainer.train(training_settings(plan_values(held(alpha, phases=two))[0]))
        distance = np.abs(trainer.model.get_layer("f6_dense").kernel.numpy() - start).max()
        results.append((outcome, distance))
    return results


def held(alpha, phases=(PHASE,), **l2_sp):
    return digits_recipe(phases=[{**phase, "l2_sp": {"base": alpha, **l2_sp}} for phase in phases])


@pytest.mark.slow
def test_the_loss_is_0_at_the_start_of_the_run_and_not_of_each_phase(outcomes):
    rows = [(row.phase, row.epoch, row.regularization_loss) for row in outcomes[1][0].history]

    assert [(phase, epoch) for phase, epoch, _ in rows] == [
        ("all", 0), ("all", 1), ("more", 0), ("more", 1)
    ]  # fmt: skip
    assert rows[0][2] == 0 < rows[1][2]
    assert rows[2][2] == pytest.approx(rows[1][2], rel=1e-6)  # from the best state, epoch 1


@pytest.mark.slow
def test_a_base_that_is_held_stays_nearer(outcomes):
    (_, free), (_, near), _ = outcomes

    assert 0 < near < free / 2


@pytest.mark.slow
def test_phases_of_other_factors_share_their_steps_and_not_their_outcome(outcomes):
    first, other, again = (outcome.weights_sha256 for outcome, _ in outcomes)

    assert first == again != other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"l2_sp": {}}, "above 0, of base or of head"),
        ({"l2_sp": {"base": 0.1}, "unfreeze": 0}, "does not train stays"),
        ({"l2_sp": {"base": -1}}, "0 or more"),
        ({"l2_sp": 0.1}, "l2_sp = 0.1"),
    ],
)
def test_factors_without_effect_are_refused_in_words(changes, message):
    with pytest.raises(RecipeError, match=message):
        plan_values(digits_recipe(phases=[PHASE | changes]))


def test_an_override_and_a_search_reach_a_factor():
    space = {"phases.all.l2_sp.base": {"choices": [0.01, 0.1]}}

    plan, _ = plan_values(digits_recipe(search={"space": space}), ["phases.all.l2_sp.head=0.5"])

    assert training_settings(plan).phases[1].l2_sp == L2SP(head=0.5)
