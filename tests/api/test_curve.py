"""The score by the number of training images."""

import collections
import csv
import shutil

import numpy as np
import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.training.test_loop import digits_recipe
from tl_toolkit.errors import RecipeError
from tl_toolkit.evaluation.curve import lengthen
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.splits import keep_fraction
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.training import training_settings
from tl_toolkit.recipe.load import read_recipe
from tl_toolkit.runs.files import write_json
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.training import prepare
from tl_toolkit.training.optimizers import tabulate_rate
from tl_toolkit.transfer.precision import precision_of

PHASES = [{"name": "head", "epochs": 1, "learning_rate": 1e-2}]


@pytest.fixture(scope="module")
def run_and_events(tmp_path_factory):
    values = digits_recipe(phases=PHASES, features={"store": "always"})
    events = []
    folder = tmp_path_factory.mktemp("curve") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_TOOLKIT_CACHE", str(folder.parent / "cache"))
        return tl.curve(values, out=folder, fractions=[1, 0.3], progress=events.append), events


@pytest.mark.slow
def test_every_method_learns_from_every_part(run_and_events):
    run, _ = run_and_events

    numbers = [(point["images"], point["method"]) for point in run.points]

    assert numbers == [
        (images, method) for images in (6, 21) for method in ("transfer", "probe", "scratch")
    ]
    assert all(point["interval"][0] < point["score"] for point in run.points)
    with open(run.folder.curve_table) as file:
        assert len(list(csv.reader(file))) == 7
    assert run.folder.curve_plot.read_text().count("<path") > 6
    assert run.folder.kind == "curve"


@pytest.mark.slow
def test_of_all_images_each_method_is_what_finetune_makes_of_them(run_and_events, tmp_path):
    run, _ = run_and_events
    values = digits_recipe(phases=PHASES, features={"store": "always"})

    alone = tl.finetune(values, out=tmp_path / "run", versus="scratch").metrics

    scores = {point["method"]: point["score"] for point in run.points if point["fraction"] == 1}
    assert scores == {
        "transfer": alone["validation"]["accuracy"],
        "probe": alone["validation"]["probe"]["accuracy"],
        "scratch": alone["baseline"]["validation"]["accuracy"],
    }


@pytest.mark.slow
def test_a_part_learns_the_same_whatever_was_learned_before(run_and_events, tmp_path):
    run, _ = run_and_events
    values = digits_recipe(phases=PHASES, features={"store": "always"})

    alone = tl.curve(values, out=tmp_path / "run", fractions=[0.3])

    def scores(points):
        return {point["method"]: point["score"] for point in points if point["fraction"] == 0.3}

    assert scores(alone.points) == scores(run.points)


@pytest.mark.slow
def test_features_are_computed_once_for_all_parts(run_and_events):
    run, events = run_and_events

    totals = [event.total for event in events if event.kind == "features_computed"]

    images = len(run.folder.manifest.read_text().splitlines()) - 1
    assert set(totals) == {images}
    assert [event.done for event in events if event.kind == "features_computed"].count(images) == 1


@pytest.mark.slow
def test_a_curve_goes_on_where_it_was_interrupted(run_and_events, tmp_path, monkeypatch):
    whole, _ = run_and_events
    values = digits_recipe(phases=PHASES, features={"store": "always"})
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(whole.path.parent / "cache"))
    shutil.copytree(whole.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    summary = folder.read_json(folder.curve)
    # The last part was interrupted between its second and third method.
    kept = [it for it in summary["points"] if (it["images"], it["method"]) != (6, "scratch")]
    write_json(folder.curve, summary | {"points": [it | {"seconds": 99.0} for it in kept]})

    resumed = tl.curve(values, out=folder.path, fractions=[1, 0.3], resume=True)

    def of(points):
        return [{**point, "seconds": None} for point in points]

    assert of(resumed.points) == of(whole.points)
    assert [it["images"] for it in resumed.points if it["seconds"] == 99] == [21, 21, 21]
    with pytest.raises(RecipeError, match="begun with another recipe.seed"):
        tl.curve(values | {"seed": 5}, out=folder.path, fractions=[1, 0.3], resume=True)
    with pytest.raises(RecipeError, match="holds no curve"):
        tl.curve(values, out=tmp_path / "none", resume=True)


@pytest.mark.slow
def test_a_curve_says_that_it_holds_no_model(run_and_events):
    run, _ = run_and_events

    with pytest.raises(tl.ToolkitError, match=r"this is a curve, which holds no model"):
        tl.load_run(run.path).model  # noqa: B018


def test_parts_are_stratified_and_nested():
    examples = [
        Example(f"{label}{number}", f"{label}{number:060}", split, (label,), "good", "")
        for label, count in (("a", 40), ("b", 7))
        for number in range(count)
        for split in ["test" if number == 0 else "train"]
    ]

    parts = [keep_fraction(examples, share, seed=0, stratify=0) for share in (0.05, 0.2, 0.5, 1)]

    counts = [
        collections.Counter(one.targets[0] for one in part if one.split == "train")
        for part in parts
    ]
    assert counts == [{"a": 2, "b": 1}, {"a": 8, "b": 1}, {"a": 20, "b": 3}, {"a": 39, "b": 6}]
    paths = [{example.path for example in part} for part in parts]
    assert paths[0] < paths[1] < paths[2] < paths[3]
    assert {"a0", "b0"} <= paths[0]
    other = {one.path for one in keep_fraction(examples, 0.2, seed=1, stratify=0)}
    assert other != paths[1]


@pytest.mark.parametrize("fractions", ["0", "1.5", "0.1,-1"])
def test_shares_out_of_range_are_refused(tmp_path, fractions):
    done = tltool("curve", "quickstart", "--fractions", fractions, cwd=tmp_path, code=2)

    assert "shares of the training images, above 0 to 1" in done.stderr


RATES = [
    {"kind": "cosine", "warmup_epochs": 1.5},
    {"kind": "exponential", "factor": 0.5},
    {"kind": "step", "every": 2},
    {"kind": "constant", "warmup_epochs": 3},
    {"kind": "one_cycle"},
]


@pytest.mark.parametrize("rate", RATES, ids=lambda rate: rate["kind"])
@pytest.mark.parametrize("unfreeze", [2, {"gradual": 3}], ids=["whole", "gradual"])
def test_a_part_takes_the_steps_of_all_images_at_the_same_rates(rate, unfreeze):
    """A quarter of the images: 2 steps an epoch in place of 8, and four times the epochs."""
    own = {"peak" if rate["kind"] == "one_cycle" else "initial": 1e-3}
    phases = [{"name": "tune", "epochs": 5, "unfreeze": unfreeze, "learning_rate": rate | own}]
    settings = training_settings(check_recipe(read_recipe(digits_recipe(phases=phases))))

    part = lengthen(settings, 0.25)

    for phase, longer in zip(settings.phases, part.phases, strict=True):
        assert longer.epochs == 4 * phase.epochs and longer.units == phase.units
        rates = tabulate_rate(phase, 8)
        np.testing.assert_allclose(tabulate_rate(longer, 2), rates, rtol=1e-5)
        assert rates[0] > 0


def test_stages_of_a_part_follow_each_other_without_a_gap():
    phases = [{"name": "tune", "epochs": 5, "unfreeze": {"gradual": 3}, "learning_rate": 1e-3}]
    settings = training_settings(check_recipe(read_recipe(digits_recipe(phases=phases))))

    stages = lengthen(settings, 0.4).phases

    places = [(stage.first_epoch, stage.first_epoch + stage.epochs) for stage in stages]
    assert places == [(0, 2), (2, 5), (5, 12)]


def test_a_part_is_as_patient_as_all_images_are():
    rate = {"kind": "plateau", "initial": 1e-3, "patience": 2}
    recipe = digits_recipe(
        phases=[{"name": "head", "epochs": 5, "learning_rate": rate}],
        early_stopping={"patience": 3},
    )
    settings = training_settings(check_recipe(read_recipe(recipe)))

    part = lengthen(settings, 0.25)

    assert part.stopping.patience == 12
    falls = [part.phases[0].learning_rate.scale([0.5] * count) for count in (8, 9)]
    assert falls == pytest.approx([1, 0.1])


def test_what_a_curve_cannot_share_is_refused(tmp_path):
    recipe = digits_recipe(phases=PHASES, precision="auto")
    recipe["data"]["folds"] = 3

    with pytest.raises(RecipeError, match=r"(?s)~data.folds.*precision=bfloat16"):
        tl.curve(recipe, root=tmp_path)

    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_part_trains_in_the_precision_of_the_recipe(tmp_path, monkeypatch):
    recipe = digits_recipe(phases=[PHASES[0] | {"epochs": 1}], precision="bfloat16")
    trained = []
    build = prepare.build_trainer

    def spy(compiled, *arguments, **settings):
        trained.append((compiled.precision, precision_of(compiled.transfer)))
        return build(compiled, *arguments, **settings)

    monkeypatch.setattr("tl_toolkit.evaluation.curve.build_trainer", spy)

    tl.curve(recipe, out=tmp_path / "run", fractions=[0.5, 1])

    assert trained == [("bfloat16", "bfloat16")] * 4  # transfer and scratch, on two parts


@pytest.mark.slow
def test_a_curve_has_a_report(run_and_events):
    run, _ = run_and_events

    text = tl.report(run).read_text()

    points = [
        point for point in run.points if point["images"] == max(p["images"] for p in run.points)
    ]
    best = max(points, key=lambda point: point["score"])
    assert f"With all {best['images']:,} images: {best['method']}" in text
    assert (run.folder.report / "curve.svg").is_file()
