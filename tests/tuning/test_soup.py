"""A soup of trials: what is in the mean, what it scores, and the run that it becomes."""

import json

import numpy as np
import pytest

import tl_toolkit as tl
from tests.models import build_transfer, plan_values
from tests.training.test_solving import TUNE, solved_recipe
from tl_toolkit.errors import RecipeError
from tl_toolkit.training.checkpoint import Epoch
from tl_toolkit.training.soup import average_greedily
from tl_toolkit.tuning.journal import Trial
from tl_toolkit.tuning.soup import Candidates

RATES = [3e-3, 6e-3, 3e-2]
"""With the last one no epoch is better than the probe, which is kept."""


def soup_recipe(changes=(), phases=({**TUNE, "learning_rate": 3e-3},), **sections):
    search = {"algorithm": "grid", "objective": "val_loss", "soup": True,
              "space": {"phases.tune.learning_rate": RATES}} | dict(changes)  # fmt: skip
    return solved_recipe(phases=phases, search=search, **sections)


@pytest.fixture(autouse=True, scope="module")
def own_features(tmp_path_factory):
    """A store of their own: other tests count the passes over the same images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_TOOLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A search whose soup has two of three trials, and its events."""
    events = []
    out = tmp_path_factory.mktemp("soup") / "search"
    return tl.search(soup_recipe(), out=out, progress=events.append), events


@pytest.mark.slow
def test_the_soup_is_the_mean_of_its_members_as_worked_out_by_hand(found):
    soup = found[0].soup
    kept = [np.load(found[0].folder.candidates / f"0000{number}.npz") for number in (2, 1)]

    assert found[0].summary["soup"]["members"] == [2, 1]
    assert any(not np.array_equal(kept[0][name], kept[1][name]) for name in kept[0].files)
    for name in kept[0].files:
        layer, index = name.rsplit("/", 1)
        mean = np.mean([np.float64(arrays[name]) for arrays in kept], axis=0)
        weights = soup.model.get_layer(layer).weights[int(index)]
        np.testing.assert_allclose(weights, mean, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_a_trial_that_makes_the_mean_worse_is_left_out(found):
    summary = found[0].summary["soup"]
    one, two, harmful = summary["candidates"]

    assert harmful["trial"] == 3 and not harmful["is_member"]
    assert summary["score"] == two["mean_with_it"] < one["mean_with_it"] == one["score"]
    assert harmful["mean_with_it"] > summary["score"]
    assert summary["best_trial"] == {"number": 2, "score": found[0].summary["best"]["score"]}


@pytest.mark.slow
def test_the_score_is_that_of_the_saved_model(found):
    soup, score = found[0].soup, found[0].summary["soup"]["score"]

    assert soup.evaluate()["loss"] == pytest.approx(score, rel=1e-6)
    assert soup.metrics["best"]["val_loss"] == score
    assert soup.metrics["validation"]["loss"] == pytest.approx(score, rel=1e-6)
    assert soup.metrics["weights_sha256"] not in {trial.weights_sha256 for trial in found[0].trials}


@pytest.mark.slow
def test_the_receipt_proves_what_no_trial_trained_unmoved(found):
    receipt = json.loads((found[0].soup.path / "phases" / "1-soup" / "receipt.json").read_text())

    moved = {row["part"]: row["moved"] > 0 for row in receipt["parts"]}
    assert receipt["holds"]
    assert moved == {"block1": False, "block2": False, "block3": False, "block4": True,
                     "head": True}  # fmt: skip


@pytest.mark.slow
def test_a_soup_costs_no_pass_through_the_frozen_part(found):
    kinds = [event.kind for event in found[1]]
    last = max(place for place, kind in enumerate(kinds) if kind == "trial_ended")

    assert "features_computed" in kinds[:last]
    assert "features_computed" not in kinds[last:]


@pytest.fixture
def stir():
    """The function that averages values of one bias, which score as it says, beside a frozen one.

    It returns the members, the last values of the model, and the best epoch.
    """
    transfer = build_transfer("lenet5", seed=1)
    (_, other, still), *_, (_, name, bias) = list(transfer.variables())
    before = still.numpy() + 1

    def stir(kept, losses):
        losses = iter(losses)
        soup = average_greedily(
            transfer, {name: np.zeros(3, np.float32), other: before},
            [{name: np.float32([value] * 3)} for value in kept],
            lambda: Epoch("soup", 1, 0.0, None, None, next(losses), 1 - bias.numpy()[0]),
            lambda epoch, best: epoch.val_loss > best.val_loss,
        )  # fmt: skip
        np.testing.assert_array_equal(still.numpy(), before)
        return list(soup.members), bias.numpy()[0], soup.best.val_loss

    return stir


def test_a_member_is_kept_only_where_the_mean_does_not_fall(stir):
    members, mean, loss = stir([1, 3, 100, 5], [4, 4, 5, 2])

    assert members == [True, True, False, True]
    assert (mean, loss) == (pytest.approx((1 + 3 + 5) / 3, rel=1e-6), 2)


def test_a_mean_with_an_infinite_loss_is_left_out(stir):
    assert stir([1, 3], [4, -np.inf]) == ([True, False], 1, 4)


@pytest.fixture
def candidates(tmp_path):
    """At most two candidates, and a function that adds one of a score to them."""
    kept = Candidates(tmp_path / "candidates", most=2, is_max=True)
    trials = []

    def add(score, digest=None):
        number = len(trials) + 1
        trial = Trial(number, {}, "completed", score, None, digest or str(number), 0.0, 0.0)
        kept.keep(trial, {"a/0": np.float32([number])}, trials)
        trials.append(trial)
        return [candidate.number for candidate in kept.rank(trials)]

    return kept, add, trials


def test_weights_of_no_more_than_the_best_trials_are_kept(candidates, tmp_path):
    kept, add, trials = candidates

    assert [add(score) for score in (0.5, 0.4, 0.3, 0.6, 0.5)] == [
        [1], [1, 2], [1, 2], [4, 1], [4, 1],
    ]  # fmt: skip
    assert len(list((tmp_path / "candidates").iterdir())) == 2
    assert kept.read(trials[3])["a/0"] == 4


def test_weights_that_are_kept_already_are_no_other_candidate(candidates):
    _, add, _ = candidates

    assert add(0.5, "same") == add(0.5, "same") == [1]


@pytest.mark.slow
def test_a_resumed_search_has_the_same_soup(found, tmp_path):
    def stop(event):
        if event.kind == "trial_ended" and event.facts["number"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tl.search(soup_recipe(), out=tmp_path / "search", progress=stop)
    resumed = tl.search(soup_recipe(), out=tmp_path / "search", resume=True)
    again = tl.search(soup_recipe(), out=tmp_path / "search", resume=True)

    digest = found[0].soup.metrics["weights_sha256"]
    assert resumed.soup.metrics["weights_sha256"] == digest
    assert again.soup.metrics["weights_sha256"] == digest


@pytest.mark.slow
def test_trials_of_several_depths_and_their_test_images_make_an_export_that_is_equal(tmp_path):
    space = {"model.head.dropout": [0, 0.5], "phases.tune.unfreeze": [1, 2]}
    data = {"builtin": "digits", "classes": ["3", "5", "8"], "examples_per_class": 7,
            "validation": 0.1, "test": 0.1, "image_size": 32, "batch_size": 8}  # fmt: skip
    recipe = soup_recipe({"space": space, "soup": {"candidates": 3}}, data=data)

    found = tl.search(recipe, out=tmp_path / "search")
    exported = found.soup.export()

    assert len(found.summary["soup"]["candidates"]) == 3
    assert exported["saved_model"].is_dir()
    assert json.loads(found.soup.folder.parity.read_text())["holds"]
    assert found.soup.evaluate()["loss"] == pytest.approx(found.soup.metrics["test"]["loss"])


HEAD = {"name": "head", "epochs": 1}


@pytest.mark.parametrize(
    ("space", "sections", "message"),
    [
        ({"model.head.hidden": [[], [{"units": 8}]]}, {"head": {}}, "share their first phase"),
        ({"model.base": ["vgg_tiny", "lenet5"]}, {}, "share their first phase"),
        ({"data.image_size": [32, 64]}, {}, "other features"),
        ({"model.head.dropout": [0, 0.5]}, {"head": {}}, "solver: ridge"),
        ({"phases.head.learning_rate": [1e-3, 1e-2]}, {"head": {}}, "share their first phase"),
        ({"model.head.dropout": [0, 0.5]}, {"head": {}, "phases": [HEAD]}, "has one phase"),
        ({"model.head.dropout": [0, 0.5]}, {"folds": 2}, "data.folds"),
    ],
)
def test_trials_that_have_no_mean_are_refused_at_validate(space, sections, message):
    phases = sections.get("phases", [HEAD, TUNE] if "head" in sections else [TUNE])
    recipe = soup_recipe({"space": space}, phases)
    recipe["model"] = recipe["model"] | ({"head": sections["head"]} if "head" in sections else {})
    if "folds" in sections:
        recipe["data"] = {key: value for key, value in recipe["data"].items()
                          if key != "validation"} | {"folds": sections["folds"]}  # fmt: skip

    with pytest.raises(RecipeError, match=message):
        plan_values(recipe)


def test_heads_of_their_own_are_refused():
    with pytest.raises(RecipeError, match="vary_seed: trials would begin"):
        plan_values(soup_recipe({"vary_seed": True}))


@pytest.mark.parametrize(
    "space",
    [
        {"model.head.dropout": [0, 0.5]},
        {"phases.tune.unfreeze": [0, 1, 2], "phases.tune.epochs": [1, 2]},
        {"interpolate": [True, False], "early_stopping": [None, {"patience": 1}]},
    ],
)
def test_trials_that_share_the_probe_have_a_mean(space):
    assert plan_values(soup_recipe({"space": space}))[0].recipe.search.soup.candidates == 8


def test_overrides_ask_for_a_soup_and_its_candidates():
    def soup_of(*changes):
        return plan_values(soup_recipe({"soup": False}), changes)[0].recipe.search.soup

    assert soup_of() is False
    assert soup_of("search.soup=true").candidates == 8
    assert soup_of("search.soup.candidates=3").candidates == 3
