"""The score by the number of training images."""

import collections
import csv

import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.training.test_loop import digits_recipe
from tests.training.test_solving import MODEL
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.splits import keep_fraction

PHASES = [{"name": "head", "epochs": 2, "learning_rate": 1e-2}]


@pytest.fixture(scope="module")
def run_and_events(tmp_path_factory):
    values = digits_recipe(model=MODEL, phases=PHASES, features={"store": "always"})
    events = []
    folder = tmp_path_factory.mktemp("curve") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_TOOLKIT_CACHE", str(folder.parent / "cache"))
        return tl.curve(values, out=folder, fractions=[1, 0.3], progress=events.append), events


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
    values = digits_recipe(model=MODEL, phases=PHASES, features={"store": "always"})

    alone = tl.finetune(values, out=tmp_path / "run", versus="scratch").metrics

    scores = {point["method"]: point["score"] for point in run.points if point["fraction"] == 1}
    assert scores == {
        "transfer": alone["validation"]["accuracy"],
        "probe": alone["validation"]["probe"]["accuracy"],
        "scratch": alone["baseline"]["validation"]["accuracy"],
    }


def test_features_are_computed_once_for_all_parts(run_and_events):
    run, events = run_and_events

    totals = [event.total for event in events if event.kind == "features_computed"]

    images = len(run.folder.manifest.read_text().splitlines()) - 1
    assert set(totals) == {images}
    assert [event.done for event in events if event.kind == "features_computed"].count(images) == 1


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
