"""Seeds follow from the recipe's seed, the role and the place of the phase, and nothing else."""

import inspect
import typing

import numpy as np
import pytest

import tl_toolkit as tl
from tests.models import build_trainer, plan_values
from tests.training.test_loop import digits_recipe, history, train
from tl_toolkit.plan.training import describe_phases, training_settings
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.training.seeds import Role, phase_seed

PHASE = {"name": "head", "epochs": 2, "unfreeze": 1, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of one phase, which others are compared with."""
    return train(tmp_path_factory.mktemp("plain"), phases=[PHASE])


def test_a_seed_depends_on_three_things_only():
    seeds = {
        (seed, role, index): phase_seed(seed, role, index)
        for seed in (0, 1)
        for role in typing.get_args(Role)
        for index in (0, 1)
    }

    assert len(set(seeds.values())) == len(seeds)
    assert list(inspect.signature(phase_seed).parameters) == ["seed", "role", "index"]
    # Published figures depend on it: it may not change.
    assert seeds[0, "head", 0] == 336438445


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "sections"),
    [
        ({"epochs": 3}, {}),
        ({"name": "other"}, {}),
        ({}, {"early_stopping": {"patience": 7}}),
        ({}, {"name": "another"}),
        ({}, {"features": {"store": "never"}}),
        ({"optimizer": {"kind": "adamw", "weight_decay": 0}}, {}),
    ],
)
def test_what_does_not_change_a_step_changes_no_epoch(tmp_path, plain, phase, sections):
    """Head, order and dropout's masks are the same, and so is every figure."""
    changed = PHASE | phase

    run = train(tmp_path, phases=[changed], **sections)

    rows = [dict(row, phase="") for row in history(run, f"1-{changed['name']}")]
    assert rows[:3] == [dict(row, phase="") for row in history(plain, "1-head")]


@pytest.mark.slow
def test_another_optimizer_starts_from_the_same_head(tmp_path, plain):
    run = train(tmp_path, phases=[PHASE | {"optimizer": "sgd", "learning_rate": 0.1}])

    first, second = (history(trained, "1-head") for trained in (plain, run))
    assert first[0]["val_loss"] == second[0]["val_loss"]
    assert first[1] != second[1]


@pytest.mark.slow
@pytest.mark.parametrize("views", [None, 1])
def test_a_phase_sees_images_of_its_own_unless_views_are_kept(tmp_path, views):
    still = {"epochs": 1, "unfreeze": 4, "optimizer": "sgd", "learning_rate": 1e-30}
    recipe = digits_recipe(
        model={"base": "lenet5", "weights": "random"},
        phases=[still | {"name": name} for name in ("first", "second")],
        augment={"rotation": 0.2},
        features={"views": views},
    )
    plan, task = plan_values(recipe)
    trainer, _ = build_trainer(plan, task, tmp_path)

    training = trainer.train(training_settings(plan))

    # Of weights that stand still, whatever the order: only images can change the mean loss.
    first, second = (epoch.loss for epoch in training.history if epoch.epoch == 1)
    assert (first == pytest.approx(second, rel=1e-6)) == (views == 1)


def test_a_description_tells_phases_apart_that_are_not_equal():
    recipes = [
        build_recipe(digits_recipe(phases=[PHASE | more])).recipe
        for more in ({}, {"epochs": 3}, {"optimizer": "sgd"}, {"batch_norm": "train"})
    ]

    assert len({describe_phases(recipe, 0) for recipe in recipes}) == 4


@pytest.mark.slow
def test_trials_start_from_the_same_head_unless_seeds_vary(tmp_path):
    space = {"phases.head.learning_rate": {"choices": [1e-30, 1e-29]}}
    search = {"algorithm": "grid", "space": space}
    phases = [{"name": "head", "epochs": 1, "optimizer": "sgd"}]

    scores = {}
    for vary in (False, True):
        recipe = digits_recipe(phases=phases, search={**search, "vary_seed": vary})
        search_run = tl.search(recipe, out=tmp_path / str(vary))
        scores[vary] = [trial.best["val_loss"] for trial in search_run.trials]

    assert scores[False][0] == scores[False][1]
    assert scores[True][0] != scores[True][1]


@pytest.mark.slow
def test_the_best_of_trials_with_seeds_of_their_own_can_be_repeated(tmp_path):
    space = {"phases.head.learning_rate": {"choices": [1e-2, 1e-3]}}
    recipe = digits_recipe(search={"algorithm": "grid", "space": space, "vary_seed": True})

    search_run = tl.search(recipe, out=tmp_path / "search")
    run = tl.finetune(search_run.best_recipe, out=tmp_path / "run")

    best = search_run.summary["best"]
    assert len({trial.seed for trial in search_run.trials}) == 2
    assert run.metrics["weights_sha256"] == best["weights_sha256"]
    assert np.isclose(run.metrics["best"]["val_loss"], best["best"]["val_loss"], rtol=0, atol=0)
    with open(search_run.path / "trials.csv") as file:
        assert "seed" in file.readline().split(",")
