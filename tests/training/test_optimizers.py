"""Optimizers and schedules: what a recipe says is what each step is taken with."""

import csv
import json

import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tests.training.test_loop import digits_recipe, train
from tl_toolkit.recipe.load import build_recipe, dump_recipe, load_recipe
from tl_toolkit.recipe.optimizers import SGD, AdamW
from tl_toolkit.recipe.schedules import SCHEDULES
from tl_toolkit.recipe.schema import Phase
from tl_toolkit.training.optimizers import RateTable, build_optimizer


def rates(epochs, steps_per_epoch, **schedule):
    section = SCHEDULES[schedule["kind"]].model_validate(schedule)
    return section.rates(epochs=epochs, steps_per_epoch=steps_per_epoch)


def test_a_cosine_is_keras_s_own():
    tabulated = rates(5, 4, kind="cosine", initial=0.5, final_fraction=0.1)

    keras_s = keras.optimizers.schedules.CosineDecay(0.5, 20, alpha=0.1)
    np.testing.assert_allclose(tabulated, [float(keras_s(step)) for step in range(21)], rtol=1e-6)


def test_a_warm_up_rises_in_equal_steps_and_comes_before_the_schedule():
    tabulated = rates(3, 4, kind="cosine", initial=1.0, warmup_epochs=1)

    np.testing.assert_allclose(tabulated[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    np.testing.assert_allclose(tabulated[4:], rates(2, 4, kind="cosine", initial=1.0), rtol=1e-6)


def test_exponential_step_and_constant():
    exponential = rates(2, 2, kind="exponential", initial=1.0, factor=0.25)
    step = rates(4, 2, kind="step", initial=1.0, every=2, factor=0.1)

    np.testing.assert_allclose(exponential, [1, 0.5, 0.25, 0.125, 0.0625], rtol=1e-6)
    np.testing.assert_allclose(step, [1] * 4 + [0.1] * 4 + [0.01], rtol=1e-5)
    np.testing.assert_allclose(
        rates(2, 2, kind="constant", initial=0.3, warmup_epochs=0.5), [0.15] + [0.3] * 4, rtol=1e-6
    )


@pytest.mark.parametrize("kind", sorted(SCHEDULES))
def test_every_schedule_gives_a_rate_to_each_step_and_to_a_phase_without_any(kind):
    more = {"step": {"every": 1, "initial": 0.1}, "one_cycle": {"peak": 0.1}}
    own = more.get(kind, {"initial": 0.1, "warmup_epochs": 9})

    assert rates(3, 5, kind=kind, **own).shape == (16,)
    assert rates(0, 5, kind=kind, **own).shape == (1,)
    assert rates(1, 1, kind=kind, **own).shape == (2,)
    assert SCHEDULES[kind].model_validate({"kind": kind, **own}).own_rate == 0.1


def test_one_cycle_rises_to_its_peak_and_anneals_to_its_end():
    tabulated = rates(
        5, 4, kind="one_cycle", peak=0.5, rise=0.4, initial_fraction=0.1, final_fraction=0.01
    )

    rising = 0.05 + 0.45 * np.arange(9) / 8
    falling = 0.5 * (0.01 + 0.99 * (1 + np.cos(np.pi * np.arange(13) / 12)) / 2)
    np.testing.assert_allclose(tabulated, [*rising, *falling[1:]], rtol=1e-5)
    assert tabulated.argmax() == 8  # 0.4 of 20 steps


def test_a_plateau_falls_where_keras_s_own_callback_lowers_the_rate():
    section = SCHEDULES["plateau"](
        initial=0.5, factor=0.2, patience=2, min_delta=0.05, minimum=0.003
    )
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5))
    callback = keras.callbacks.ReduceLROnPlateau(
        "val_score", factor=0.2, patience=2, min_delta=0.05, min_lr=0.003, mode="max"
    )
    callback.set_model(model)
    callback.on_train_begin()
    results = [0.1, 0.3, 0.34, 0.2, 0.5, 0.5, 0.5, 0.52, 0.4, 0.9, 0.1, 0.1, 0.1, 0.1]

    for epoch in range(len(results)):
        callback.on_epoch_end(epoch, {"val_score": results[epoch]})
        mine = 0.5 * section.scale(results[: epoch + 1])
        assert mine == pytest.approx(float(model.optimizer.learning_rate))
    assert mine == pytest.approx(0.003)


def test_a_minimum_above_a_rate_that_was_found_does_not_raise_it():
    section = SCHEDULES["plateau"](initial="auto", factor=0.1, patience=1, minimum=0.01)

    assert section.with_rate(1e-4).scale([0.5, 0.5, 0.5]) == 1
    assert section.with_rate(0.05).scale([0.5, 0.5, 0.5]) == pytest.approx(0.2)


def test_a_table_gives_each_step_its_rate_and_later_ones_the_last():
    table = RateTable()
    optimizer = keras.optimizers.SGD(table)
    weight = keras.Variable([0.0])
    optimizer.build([weight])
    table.set(np.array([0.5, 0.25], np.float32))

    moves = []
    for _ in range(3):
        before = weight.numpy()
        optimizer.apply([keras.ops.ones((1,))], [weight])
        moves.append(float((before - weight.numpy())[0]))

    assert moves == [0.5, 0.25, 0.25]


def test_the_optimizer_has_the_section_s_settings():
    phase = {"name": "a", "epochs": 1}

    sgd = build_optimizer(Phase(**phase, optimizer={"kind": "sgd", "momentum": 0.9}))
    adamw = build_optimizer(Phase(**phase, optimizer=AdamW(weight_decay=0.5)))

    assert isinstance(sgd, keras.optimizers.SGD) and sgd.momentum == 0.9
    assert isinstance(adamw, keras.optimizers.AdamW) and adamw.weight_decay == 0.5


def with_phase(**fields):
    return digits_recipe(phases=[{"name": "a", "epochs": 1, **fields}])


def test_settings_beside_a_word_are_those_of_its_section(tmp_path):
    recipe = build_recipe(with_phase(optimizer="sgd", momentum=0.9)).recipe

    assert recipe.phases[0].optimizer == SGD(momentum=0.9)
    text = dump_recipe(recipe)
    assert "    kind: sgd\n    accumulate: 1\n    momentum: 0.9\n" in text
    (tmp_path / "r.yaml").write_text(text)
    assert load_recipe(tmp_path / "r.yaml").recipe == recipe


def test_an_override_of_the_short_form_reaches_the_section():
    values = with_phase(optimizer={"kind": "sgd", "momentum": 0.9})

    recipe = build_recipe(values, {"phases.a.momentum": 0.5}).recipe

    assert recipe.phases[0].optimizer.momentum == 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": {"kind": "rmspro"}}, "expected a kind: 'adam', 'adamw' or 'sgd'"),
        (
            {"optimizer": {"kind": "sgd", "moment": 0.9}},
            "expected one of kind, clip_norm, accumulate, ema, momentum",
        ),
        ({"optimizer": {"kind": "adamw", "weight_decay": -1}}, "optimizer.weight_decay = -1"),
        ({"learning_rate": {"kind": "cosin"}}, "Try: learning_rate: {kind: cosine}"),
        ({"learning_rate": {"kind": "cosine"}}, "learning_rate.initial is missing"),
        ({"learning_rate": {"kind": "step", "initial": 1, "evry": 3}}, "did you mean 'every'"),
        ({"learning_rate": {"kind": "one_cycle"}}, "learning_rate.peak is missing"),
        (
            {"learning_rate": {"kind": "plateau", "initial": 0.1, "minimum": 0.2}},
            "expected at most initial, which is 0.1, got 0.2",
        ),
    ],
)
def test_what_is_wrong_in_a_section_is_told_at_its_field(fields, message):
    with pytest.raises(tl.errors.RecipeError) as error:
        build_recipe(with_phase(**fields))

    assert message in str(error.value)


@pytest.mark.slow
def test_a_run_with_a_schedule_shows_the_rate_of_each_epoch(tmp_path):
    schedule = {"kind": "cosine", "initial": 1e-2}
    phases = [
        {"name": "head", "epochs": 2, "learning_rate": schedule},
        {"name": "all", "epochs": 1, "unfreeze": 4, "learning_rate": 1e-3, "optimizer": "adamw"},
    ]

    run = train(tmp_path, phases=phases)

    with open(run.path / "phases" / "1-head" / "history.csv") as file:
        used = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(used, [1e-2, 5e-3, 0], atol=1e-9)
    receipt = json.loads((run.path / "phases" / "1-head" / "receipt.json").read_text())
    assert receipt["learning_rate"] == 1e-2


@pytest.mark.slow
def test_a_schedule_that_stays_trains_as_the_number_does(tmp_path):
    phase = {"name": "all", "epochs": 2, "unfreeze": 4}
    schedule = {"kind": "constant", "initial": 3e-3}

    plain = train(tmp_path, "plain", phases=[phase | {"learning_rate": 3e-3}])
    scheduled = train(tmp_path, "scheduled", phases=[phase | {"learning_rate": schedule}])

    assert plain.metrics["weights_sha256"] == scheduled.metrics["weights_sha256"]
