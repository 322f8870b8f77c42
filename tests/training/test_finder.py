"""The rate that a learning rate test chooses, and the curve that it leaves."""

import json

import numpy as np
import pytest

import tl_toolkit as tl
from tests.models import plan_values
from tests.training.test_loop import digits_recipe
from tl_toolkit.errors import RecipeError
from tl_toolkit.training.finder import choose_rate

RATES = np.geomspace(1e-6, 10, 141)
DECADES = np.log10(RATES)


def test_the_chosen_rate_is_where_a_smooth_loss_falls_fastest():
    falling = 2 - 1.5 / (1 + np.exp(-6 * (DECADES + 2)))  # steepest at 1e-2
    rising = np.maximum(0, DECADES + 0.5) ** 2 * 20

    found = choose_rate(RATES.tolist(), (falling + rising).tolist())

    assert found.learning_rate == pytest.approx(1e-2, rel=0.13)  # one rate is 12 % above another
    assert found.rule == "where the smoothed loss falls fastest"


def test_noise_between_batches_moves_the_choice_by_less_than_a_third_of_a_decade():
    falling = 2 - 1.5 / (1 + np.exp(-6 * (DECADES + 2)))
    chosen = [
        choose_rate(RATES.tolist(), (falling + noise).tolist()).learning_rate
        for noise in np.random.default_rng(0).normal(0, 0.1, (20, len(RATES)))
    ]

    assert np.abs(np.log10(chosen) + 2).max() < 1 / 3


def test_a_loss_that_hardly_falls_gives_a_tenth_of_where_it_begins_to_rise():
    flat = 0.5 + np.maximum(0, DECADES + 1) * 3  # a tenth more at 1e-1, nearly

    found = choose_rate(RATES.tolist(), flat.tolist())

    assert 5e-3 < found.learning_rate < 1.2e-2  # smoothing begins to rise a fifth before
    assert found.rule.startswith("a tenth of where the loss begins to rise")
    assert choose_rate([1e-6], [2.0]).learning_rate == 1e-7


@pytest.mark.slow
def test_a_run_keeps_the_curve_and_says_what_it_chose(tmp_path):
    events = []
    phase = {"name": "head", "epochs": 1, "learning_rate": {"kind": "cosine", "initial": "auto"}}

    recipe = digits_recipe(phases=[phase], yardsticks=False)
    run = tl.finetune(recipe, out=tmp_path / "run", progress=events.append)

    folder = run.path / "phases" / "1-head"
    curve = json.loads((folder / "learning_rate.json").read_text())
    receipt = json.loads((folder / "receipt.json").read_text())
    assert receipt["learning_rate"] == curve["learning_rate"]
    assert run.history[0]["learning_rate"] == pytest.approx(curve["learning_rate"])
    chosen = choose_rate(curve["rates"], curve["losses"])
    assert chosen.learning_rate == curve["learning_rate"]
    np.testing.assert_allclose(chosen.smoothed, curve["smoothed"])
    assert b"<svg" in (folder / "learning_rate.svg").read_bytes()[:600]
    texts = [event.text for event in events if event.kind == "message"]
    assert any(f"head: learning_rate {chosen.learning_rate:g} of" in text for text in texts)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (
            {"unfreeze": {"gradual": 2}, "learning_rate": {"kind": "one_cycle", "peak": "auto"}},
            r"each block would find another one(.|\n)*learning_rate\.peak=1e-3",
        ),
        ({"learning_rate": "atuo"}, r"got 'atuo'\.\n  Try: learning_rate: auto"),
        ({"learning_rate": {"kind": "cosine", "initial": "low"}}, "a number above 0, or auto"),
    ],
    ids=["gradual", "typo", "schedule"],
)
def test_a_rate_that_cannot_be_found_is_refused(phase, message):
    phases = [{"name": "all", "epochs": 2, "unfreeze": 2, "learning_rate": "auto", **phase}]

    with pytest.raises(RecipeError, match=message):
        plan_values(digits_recipe(phases=phases))
