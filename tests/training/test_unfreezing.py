"""What trains besides blocks counted from the output: single ones, and one more at a time."""

import json

import numpy as np
import pytest

import tl_toolkit as tl
from tests.models import plan_values
from tests.training.test_loop import digits_recipe
from tl_toolkit.catalog.lookup import find_architecture, resolve_unfreeze
from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.space import find_unfrozen
from tl_toolkit.plan.training import training_settings
from tl_toolkit.recipe.schema import Dimension, UnfreezeGradual, UnfreezeOnly
from tl_toolkit.training.optimizers import tabulate_rate

COSINE = {"kind": "cosine", "initial": 1e-2}
GRADUAL = {"name": "tune", "epochs": 3, "unfreeze": {"gradual": 2}, "learning_rate": COSINE}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One block alone, then two from the output, one after the other."""
    phases = [{"name": "surgical", "epochs": 1, "unfreeze": {"only": "c5"}}, GRADUAL]
    out = tmp_path_factory.mktemp("unfreezing") / "run"
    return tl.finetune(digits_recipe(phases=phases, yardsticks=False), out=out)


def receipt(run, phase):
    return json.loads((run.path / "phases" / phase / "receipt.json").read_text())


def moved(run, phase):
    parts = receipt(run, phase)["parts"]
    return {part["part"] for part in parts if part["moved"]}


@pytest.mark.slow
def test_one_block_trains_and_those_above_it_keep_every_bit(run):
    assert moved(run, "1-surgical") == {"c5", "head"}
    assert receipt(run, "1-surgical")["cut"] == "c5"


@pytest.mark.slow
def test_each_part_of_a_gradual_phase_trains_one_block_more(run):
    assert moved(run, "2-tune-1") == {"f6", "head"}
    assert moved(run, "3-tune-2") == {"c5", "f6", "head"}
    names = [(row["phase"], row["epoch"]) for row in run.history if row["epoch"]]
    assert names == [("surgical", 1), ("tune-1", 1), ("tune-2", 1), ("tune-2", 2)]


@pytest.mark.slow
def test_one_schedule_runs_over_all_parts(run):
    rates = [row["learning_rate"] for row in run.history if row["phase"].startswith("tune")]
    thirds = 1e-2 * (1 + np.cos(np.pi * np.arange(4) / 3)) / 2

    np.testing.assert_allclose(rates, [*thirds[:2], *thirds[1:]], rtol=1e-4, atol=1e-9)


def settings_of(*phases, **sections):
    return training_settings(plan_values(digits_recipe(phases=list(phases), **sections))[0]).phases


def test_parts_divide_the_epochs_and_the_rates_of_the_whole():
    (whole,) = settings_of({**GRADUAL, "epochs": 7, "unfreeze": 3})
    parts = settings_of({**GRADUAL, "epochs": 7, "unfreeze": {"gradual": 3, "every": 2}})

    assert [part.epochs for part in parts] == [2, 2, 3]
    assert parts[-1].units == whole.units and len(parts[0].units) < len(parts[1].units)
    joined = np.concatenate([tabulate_rate(part, 5)[:-1] for part in parts])
    np.testing.assert_array_equal(joined, tabulate_rate(whole, 5)[:-1])


def test_blocks_and_units_may_be_named_in_any_order():
    vgg = find_architecture("vgg16")
    second = tuple(unit.name for unit in vgg.blocks[1].units)
    last = vgg.blocks[-1].units[0].name

    units = resolve_unfreeze(vgg, UnfreezeOnly(only=(last, vgg.blocks[1].name)))

    assert units == (*second, last)
    assert UnfreezeOnly(only="block2").only == ("block2",)
    with pytest.raises(RecipeError, match=r"unfreeze\.only = 'block9'\n.*did you mean 'block"):
        resolve_unfreeze(vgg, UnfreezeOnly(only=("block9",)))


def test_a_search_computes_the_features_of_each_part():
    lenet = find_architecture("lenet5")
    space = {"phases.tune.unfreeze": Dimension(choices=({"gradual": 2}, 0))}

    units = find_unfrozen(space, lenet)

    assert units == [("f6",), ("c5", "f6"), ()]
    assert units[1] == resolve_unfreeze(lenet, UnfreezeGradual(gradual=2))


@pytest.mark.parametrize(
    ("phases", "sections", "message"),
    [
        ([{**GRADUAL, "epochs": 1}], {}, r"expected at least 2 epochs(.|\n)*tune\.epochs=2"),
        ([{**GRADUAL, "unfreeze": {"gradual": 9}}], {}, r"unfreeze\.gradual = 9"),
        (
            [{**GRADUAL, "learning_rate": {"kind": "plateau", "initial": 0.1}}],
            {},
            "plateau would begin anew with each block",
        ),
        ([GRADUAL, {"name": "tune-1", "epochs": 1}], {}, "expected no phase called 'tune-1'"),
        (
            [{**GRADUAL, "epochs": 9}],
            {"search": {"algorithm": "hyperband", "space": {"model.head.dropout": [0.1, 0.2]}}},
            "expected a last phase that unfreezes at once",
        ),
    ],
    ids=["epochs", "blocks", "plateau", "name", "hyperband"],
)
def test_a_gradual_phase_that_cannot_be_is_refused(phases, sections, message):
    with pytest.raises(RecipeError, match=message):
        settings_of(*phases, **sections)
