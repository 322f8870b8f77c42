"""`tl.rank_bases`: scores of images that were held out, costs, and one pass that is used again."""

import json

import numpy as np
import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.conftest import draw_class_folders
from tests.models import plan_values
from tests.pixels import draw_balls, make_recipe
from tl_toolkit.api.base_choices import BaseChoice, find_problems, list_changes
from tl_toolkit.api.rank_bases import BaseRanking, RankedBase, order_bases
from tl_toolkit.cli.ranking import split_names
from tl_toolkit.errors import RecipeError
from tl_toolkit.evaluation.ranking import predict_held_out
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.tasks.classification.metrics import find_interval
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.dense.probing import fit_probe
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.dense.task import DenseTask
from tl_toolkit.tasks.segmentation.task import Segmentation

BASES = ["lenet5", "lenet5:width=2", "vgg_tiny"]


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    photos = draw_class_folders(tmp_path_factory.mktemp("ranked") / "photos", count=8, seed=9)
    return {
        "version": 1,
        "name": "photos",
        "data": {"train": str(photos), "validation": 0.25, "test": 0.25, "image_size": 32},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
        "export": False,
    }


@pytest.fixture(scope="module")
def ranking(values):
    return tl.rank_bases(values, bases=BASES, most_parameters=200_000)


def test_bases_are_ranked_by_what_their_probes_predict_of_images_held_out(ranking):
    assert {base.name for base in ranking.bases} == set(BASES)
    assert ranking.images == 18  # of 24, as 6 measure the finished model
    scores = [base.probe for base in ranking.bases if base.probe is not None]
    assert scores == sorted(scores, reverse=True) and len(scores) == 2
    for base in ranking.bases[:2]:
        hits = round(base.probe * 18)
        assert base.probe_interval == pytest.approx(find_interval(hits, 18))
        assert 0 <= base.neighbors <= 1 and base.seconds > 0
    assert ranking.nominated is ranking.bases[0]


def test_a_base_that_takes_more_than_allowed_is_listed_and_not_judged(ranking):
    last = ranking.bases[-1]

    assert (last.name, last.fits, last.probe) == ("lenet5:width=2", False, None)
    assert last.parameters > 200_000
    small = next(base for base in ranking.bases if base.name == "lenet5")
    assert (small.parameters, small.operations) == (60_856, 415_680)


@pytest.mark.slow
def test_the_pass_of_a_base_is_used_again_by_the_fine_tune_after_it(values, ranking, tmp_path):
    events = []
    head = {"taps": "all", "pooling": "statistics", "normalize": True, "solver": "ridge"}

    run = tl.finetune(
        values | {"phases": [{"name": "head", "epochs": 1}]},
        overrides={"model.base": "vgg_tiny", "model.head": head},
        root=tmp_path,
        progress=events.append,
    )

    texts = [event.text for event in events if event.kind == "message"]
    assert "features: read from the store before head" in texts
    assert not [event for event in events if event.kind == "features_computed"]
    assert run.metrics["test"]["images"] == 6


def test_a_held_out_image_is_predicted_by_others_alone():
    random = np.random.default_rng(0)
    vectors, targets = random.normal(size=(60, 40)), np.arange(60) % 2
    task = Classification(["a", "b"])
    task.prepare(targets)

    for name in ("neighbors", "probe"):
        seen = task.fit_yardsticks(vectors, targets, names=(name,))[name](vectors).argmax(axis=1)
        outputs = predict_held_out(task, name, vectors, targets)
        assert outputs.shape == (60, 2)
        held_out = (outputs.argmax(axis=1) == targets).mean()
        assert held_out < 0.75  # noise: whoever has seen an image knows it
        if name == "probe":
            assert (seen == targets).mean() > held_out


def test_an_image_is_never_predicted_by_one_of_its_group():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 5)
    own = random.normal(size=(12, 40))  # of a group, which tells nothing of the class
    vectors, targets = own[groups] + 0.01 * random.normal(size=(60, 40)), groups % 2
    task = Classification(["a", "b"])
    task.prepare(targets)

    for name in ("neighbors", "probe"):
        apart = predict_held_out(task, name, vectors, targets, groups=groups).argmax(axis=1)
        mixed = predict_held_out(task, name, vectors, targets).argmax(axis=1)
        assert (mixed == targets).all()  # each is known by the others of its group
        assert (apart == targets).mean() < 0.75


@pytest.mark.slow
def test_bases_are_ranked_by_groups_where_the_recipe_has_them(values, tmp_path):
    photos = draw_class_folders(tmp_path / "photos", count=8, seed=5)
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name},{int(path.stem) // 4}"
            for path in sorted(photos.rglob("*.jpg"))]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(["path,label,site", *rows]))
    data = {"csv": str(tmp_path / "t.csv"), "group": "site", "validation": 0.5, "image_size": 32}
    seen = []

    def note(task, name, vectors, targets, *, groups=None, **further):
        seen.append(groups)
        return predict_held_out(task, name, vectors, targets, groups=groups)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tl_toolkit.evaluation.ranking.predict_held_out", note)
        ranking = tl.rank_bases(values | {"data": data}, bases=["lenet5"])

    assert ranking.images == 24
    assert [sorted(np.bincount(groups)) for groups in seen] == [[12, 12]] * 2


def make(name, probe, interval, operations):
    return RankedBase(name, name, {}, 10, operations, True, probe, interval, 0.5, (0.4, 0.6), 1.0)


def test_what_overlaps_the_best_interval_is_not_to_be_told_apart():
    bases = [
        make("best", 0.9, (0.85, 0.95), 300),
        make("near", 0.86, (0.8, 0.91), 200),
        make("small", 0.8, (0.7, 0.85), 100),
        make("worse", 0.7, (0.6, 0.8), 50),
        RankedBase("large", "large", {}, 10, 900, False),
    ]
    ranking = BaseRanking("accuracy", 100, bases, {})

    assert ranking.nominated.name == "best"
    assert [base.name for base in ranking.tied] == ["small", "near"]
    assert ranking.as_json()["nominated"] == "best"
    assert BaseRanking("accuracy", 0, bases[-1:], {}).nominated is None


def test_of_equal_probes_the_base_that_was_named_first_is_nominated(values):
    recipe = build_recipe(values).recipe
    judged = [make(name, 0.8, (0.7, 0.9), 100) for name in ("first", "second")]

    assert order_bases(recipe, judged, {}).nominated is judged[0]


def test_bases_that_cannot_be_used_are_named_with_the_reason(values, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    pretrained = values | {"model": {"base": "mobilenet", "weights": "imagenet"}}

    with pytest.raises(RecipeError) as caught:
        tl.rank_bases(pretrained, bases=["mobilenet:alpha=0.25", "inception_v3"])

    assert "tltool weights pull mobilenet alpha=0.25" in str(caught.value)
    assert "inception_v3 needs images of at least 75 x 75" in str(caught.value)


def test_what_cannot_be_ranked_is_refused(values):
    with pytest.raises(RecipeError, match="did you mean 'lenet5'"):
        tl.rank_bases(values, bases=["lenet6"])
    with pytest.raises(RecipeError, match="'alpha' is no argument"):
        tl.rank_bases(values, bases=["mobilenet:alpha"])


def test_the_images_of_a_recipe_that_are_wrong_are_named_once(values, tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(tl.ToolkitError, match="empty") as caught:
        tl.rank_bases(values, {"data.train": str(tmp_path / "empty")}, bases=BASES)

    assert len(caught.value.problems) == 1


@pytest.mark.slow
def test_the_command_nominates_and_says_what_to_type(values, ranking, tmp_path):
    (tmp_path / "r.yaml").write_text(json.dumps(values))
    known = next(base for base in ranking.bases if base.name == "lenet5")

    done = tltool("rank-bases", "r.yaml", "seed=0", "--bases", "lenet5", cwd=tmp_path)
    command = ("rank-bases", "r.yaml", "--bases", "lenet5", "--most-operations", "400k")
    as_json = json.loads(tltool(*command, "--json", cwd=tmp_path).stdout)

    assert f"nominated: lenet5, accuracy {known.probe:.3f}" in done.stdout
    assert "next: tltool finetune r.yaml seed=0 model.base=lenet5" in done.stderr
    assert as_json["nominated"] is None and as_json["bases"][0]["operations"] == 415_680
    wrong = tltool("rank-bases", "r.yaml", "--most-operations", "few", cwd=tmp_path, code=2).stderr
    assert "expected a number, as 600M or 4.2G" in wrong


def test_the_changes_leave_nothing_of_the_old_base_that_the_new_one_refuses(values):
    head, block = {"taps": ["c3", "f6"]}, {"unfreeze": {"only": "c3"}}
    model = {"base": "lenet5", "weights": "lenet.weights.h5", "head": head}
    phases = [{"name": "tune", "epochs": 1, **block}]
    recipe = build_recipe({**values, "model": model, "phases": phases}).recipe
    choice = BaseChoice("vgg_tiny", "vgg_tiny", {}, "random")

    changes = list_changes(recipe, choice)
    (problem,) = find_problems(recipe, changes)

    assert changes == [
        "model.base=vgg_tiny", "model.arguments={}", "model.weights=random", "~model.head.taps",
    ]  # fmt: skip
    assert "phases[0].unfreeze" in problem and "c3" in problem
    mended = [*changes, "phases.tune.unfreeze=1"]
    assert find_problems(recipe, mended) == []


def test_names_with_several_arguments_are_told_apart_from_each_other():
    texts = ("lenet5,mobilenet:alpha=0.25,dropout=0.1", "vgg16")

    assert split_names(texts) == ["lenet5", "mobilenet:alpha=0.25,dropout=0.1", "vgg16"]


@pytest.mark.slow
def test_numbers_are_ranked_by_their_own_score(tmp_path):
    photos = draw_class_folders(tmp_path / "photos", count=4)
    rows = [f"{path.relative_to(tmp_path)},{place}" for place, path in
            enumerate(sorted(photos.rglob("*.jpg")))]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(["path,age", *rows]))
    values = {
        "version": 1, "name": "ages", "task": "regression",
        "data": {"csv": str(tmp_path / "t.csv"), "validation": 0.25, "image_size": 32},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
    }  # fmt: skip
    assert plan_values(values)[0].classes == ("age",)

    ranking = tl.rank_bases(values)

    (base,) = ranking.bases
    assert ranking.metric == "r2" and base.probe <= 1 and base.probe_interval[0] < base.probe


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return draw_balls(tmp_path_factory.mktemp("balls"), train=6, validation=3, test=2)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "metric", "least"), [
    ("segmentation", "mean_iou", 0.7), ("edges", "f_score", 0.3), ("normals", "within_22_5", 0.5),
])  # fmt: skip
def test_bases_of_tasks_with_maps_are_ranked_by_pixels_that_are_held_out(
    balls, task, metric, least, tmp_path
):
    recipe = make_recipe(task, balls)
    recipe["data"]["test"] = str(balls / task / "test")
    recipe["model"] = {"base": "vgg_tiny", "weights": "random"}
    recipe["pixels"] = {"taps": ["block1"], "per_image": 10}  # names of its own base's layers

    ranking = tl.rank_bases(recipe, bases=["lenet5", "vgg_tiny"])

    assert (ranking.metric, ranking.images) == (metric, 9)
    (base,) = ranking.bases
    assert base.name == "vgg_tiny" and base.neighbors is None
    assert least < base.probe < 1  # a ball on a plane: random maps tell much
    assert base.probe_interval[0] <= base.probe <= base.probe_interval[1]
    assert "whole cells" in ranking.skipped["lenet5"]
    assert "~pixels.taps" not in ranking.changes


def test_a_probe_of_pixels_learns_nothing_of_the_images_that_it_predicts(monkeypatch):
    monkeypatch.setattr("tl_toolkit.tasks.dense.probing._PENALTIES", [1e-5])  # it overfits
    random = np.random.default_rng(0)
    images = random.normal(size=(20, 1, 30)) + 0.01 * random.normal(size=(20, 5, 30))
    targets = np.repeat(np.arange(20) % 2, 5).reshape(20, 5)  # of the image, not of what it shows
    task = Segmentation(["a", "b"])

    seen = task.fit_yardsticks(images, targets)["probe"](images).argmax(axis=-1)
    held_out = predict_held_out(task, "probe", images, targets).argmax(axis=-1)

    assert (seen == targets).all()
    assert (held_out == targets).mean() < 0.75


def test_the_penalty_of_a_probe_is_chosen_by_images_that_were_left_out():
    random = np.random.default_rng(0)
    images = np.repeat(np.arange(40), 10)
    own = np.repeat(random.normal(size=(40, 30)), 10, axis=0)  # the same in all pixels of an image
    vectors = own + 0.01 * random.normal(size=own.shape)
    numbers = np.repeat(random.normal(size=(40, 1)), 10, axis=0)

    by_images = fit_probe(vectors, numbers, images)
    by_pixels = fit_probe(vectors, numbers, random.permutation(images))
    known = fit_probe(vectors, own[:, :1], images)

    # Single pixels that are left out choose a small penalty: the others of their image know them.
    assert by_images(vectors).std() < 0.2 * numbers.std() < 0.8 * by_pixels(vectors).std()
    assert np.abs(known(vectors) - own[:, :1]).max() < 0.1


def test_pixels_without_a_target_count_nowhere():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(8, 50, 4))
    targets = (vectors[..., 0] > 0).astype(np.int32)
    damaged = np.where(vectors[..., 1] > 1, IGNORE, targets).astype(np.int32)
    task = Segmentation(["a", "b"])

    outputs = task.fit_yardsticks(vectors, damaged)["probe"](vectors)
    metrics, sample = task.measure(outputs, damaged)

    agree = (outputs.argmax(axis=-1) == targets)[damaged != IGNORE]
    assert agree.mean() > 0.9 and metrics["mean_iou"] > 0.8
    every = sample.measure(np.ones((1, 8)))["mean_iou"][0]
    assert every == pytest.approx(metrics["mean_iou"])


@pytest.mark.slow
def test_pixels_of_many_images_are_fewer_of_each(balls, monkeypatch):
    counts = []

    def read(task, *arguments, order, count, **further):
        counts.append((len(order), count))
        return DenseTask.read_pixels(task, *arguments, order=order, count=count, **further)

    monkeypatch.setattr(Segmentation, "read_pixels", read)
    monkeypatch.setattr("tl_toolkit.evaluation.ranking._PIXELS", 60)
    monkeypatch.setattr("tl_toolkit.evaluation.ranking._MOST_IMAGES", 6)
    recipe = make_recipe("segmentation", balls)
    recipe["features"] = {"store": "never"}
    events = []

    ranking = tl.rank_bases(recipe, bases=["vgg_tiny"], progress=events.append)

    assert counts == [(4, 10), (2, 10)] and ranking.images == 6
    done = [(event.done, event.total) for event in events if event.kind == "features_computed"]
    assert done[-1] == (6, 6)  # so that the budget of auto may end a pass that is not stored
