"""`tl.embed`, `tl.similar`, `tl.label_next`: what features are, and that they are computed once."""

import csv
import itertools
import json
import sys
from pathlib import Path

import fsspec
import keras
import numpy as np
import pytest
from PIL import Image

import tl_toolkit as tl
from tests.command import tltool
from tests.runs.written import write_run
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.evaluation.choosing import choose_images, find_nearest
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.multilabel.task import Multilabel

SEEDS = itertools.count()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from tests.conftest import draw_class_folders

    return draw_class_folders(tmp_path_factory.mktemp("embedding") / "photos", count=4)


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    recipe = {
        "version": 1,
        "name": "photos",
        "data": {"train": str(photos), "validation": 0.25, "image_size": 32, "batch_size": 8},
        "model": {"base": "lenet5", "weights": "random", "head": {"taps": "all"}},
        "phases": [{"name": "all", "epochs": 1, "unfreeze": 2, "learning_rate": 0.01}],
        "export": False,
    }
    return tl.finetune(recipe, root=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def folder(tmp_path):
    """Ten images that the run has not seen, of the size of its own."""
    random = np.random.default_rng(next(SEEDS))  # new images: the store knows none of them
    for place in range(10):
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{place}.png")
    return tmp_path


def listen():
    """A list, and what adds the number of computed images to it."""
    computed = []
    return computed, lambda event: event.kind == "features_computed" and computed.append(event.done)


def read_pixels(folder):
    files = sorted(folder.glob("*.png"))
    return np.stack([np.asarray(Image.open(file), np.float32) for file in files])


def test_features_of_a_run_are_the_last_map_of_its_kept_model(run, folder):
    features = tl.embed(run, folder)

    last = keras.Model(run.model.input, run.model.get_layer("f6_dense").output)
    np.testing.assert_allclose(features.vectors, last.predict(read_pixels(folder), verbose=0), 1e-5)
    assert [path.rpartition("/")[2] for path in features.paths] == [f"{n}.png" for n in range(10)]


@pytest.mark.parametrize(
    ("pooling", "reduce"), [(None, np.mean), pytest.param("max", np.max, marks=pytest.mark.slow)]
)
def test_a_block_is_read_at_its_end_and_pooled(run, folder, pooling, reduce):
    features = tl.embed(run, folder, block="c3", pooling=pooling)

    middle = keras.Model(run.model.input, run.model.get_layer("s4_pool").output)
    maps = middle.predict(read_pixels(folder), verbose=0)
    np.testing.assert_allclose(features.vectors, reduce(maps, axis=(1, 2)), 1e-4, 1e-5)


@pytest.mark.parametrize("block", [None, "block2"])
def test_a_pyramid_has_its_cells_whether_or_not_a_block_is_named(folder, block):
    features = tl.embed(
        "vgg_tiny", folder, block=block, pooling="pyramid", weights="random", image_size=64
    )

    channels = 24 if block else 96
    assert features.vectors.shape[1] == 11 * channels


@pytest.mark.parametrize("source", ["run", pytest.param("lenet5", marks=pytest.mark.slow)])
def test_a_second_call_computes_nothing_and_gives_the_same(run, folder, source):
    chosen = run if source == "run" else source
    options = {} if source == "run" else {"weights": "random", "block": "c1"}
    first, note = listen()
    features = tl.embed(chosen, folder, progress=note, **options)
    second, note = listen()

    again = tl.embed(chosen, folder, progress=note, **options)

    assert first and second == []
    np.testing.assert_array_equal(again.vectors, features.vectors)


@pytest.mark.slow
def test_features_of_a_base_depend_on_its_weights_and_size(folder):
    small = tl.embed("lenet5", folder, weights="random", image_size=32)
    large = tl.embed("lenet5", folder, weights="random", image_size=40)

    assert small.vectors.shape == large.vectors.shape == (10, 84)
    assert not np.allclose(small.vectors, large.vectors)


def test_features_are_saved_as_arrays_and_read_back(run, folder):
    (folder / "broken.png").write_bytes(b"no image")

    done = tltool("embed", run.path, ".", "-o", "f.npz", "--json", cwd=folder, code=3)

    assert "broken.png" in done.stderr and "1 of 11 files could not be read" in done.stderr
    assert json.loads(done.stdout)["images"] == 10
    with np.load(folder / "f.npz") as saved:
        assert saved["features"].dtype == np.float32 and saved["features"].shape == (10, 84)
        assert saved["path"][3] == str(folder / "3.png") and len(saved["sha256"][0]) == 64


@pytest.mark.slow
def test_features_are_saved_as_parquet(run, folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    features = tl.embed(run, folder)

    features.save(folder / "f.parquet")

    table = parquet.read_table(folder / "f.parquet")
    assert table.column_names == ["path", "sha256", "features"]
    np.testing.assert_array_equal(np.array(table["features"].to_pylist()), features.vectors)


def test_what_no_file_of_features_is_and_a_missing_package_are_said_first(run, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    no_form = tltool("embed", run.path, ".", "-o", "f.txt", cwd=folder, code=2).stderr
    no_package = tltool("embed", run.path, ".", "-o", "f.parquet", cwd=folder, code=2).stderr

    assert "f.txt  is no file of features" in no_form
    assert "pip install 'tl-toolkit[parquet]', or -o f.npz" in no_package


def test_a_source_or_block_that_is_none_is_named(run, folder):
    with pytest.raises(DataError, match="did you mean 'lenet5'"):
        tl.embed("lenet6", folder)
    with pytest.raises(RecipeError, match="block = 'c9'"):
        tl.embed(run, folder, block="c9")
    with pytest.raises(RecipeError, match="go with a base"):
        tl.embed(run, folder, image_size=64)
    with pytest.raises(RecipeError, match="--image-size 32"):
        tl.embed("lenet5", folder, weights="random", image_size=16)


def test_the_copy_of_an_image_is_the_most_similar_one(run, folder):
    (folder / "copy.png").write_bytes((folder / "3.png").read_bytes())

    found = tl.similar(run, folder / "3.png", folder, n=4)

    assert found[0].path == str(folder / "copy.png")
    assert found[0].similarity == pytest.approx(1.0)
    assert len(found) == 4 and str(folder / "3.png") not in [each.path for each in found]
    assert [each.similarity for each in found] == sorted(
        (each.similarity for each in found), reverse=True
    )


@pytest.mark.slow
def test_an_image_is_not_like_itself_by_another_path(run, folder):
    (folder / "link.png").symlink_to(folder / "3.png")
    (folder / "sub").mkdir()

    found = tl.similar(run, folder / "sub" / ".." / "3.png", folder, n=10)

    assert {Path(each.path).name for each in found} == {f"{n}.png" for n in range(10) if n != 3}


def test_similar_writes_a_sheet_and_computes_once(run, folder):
    tltool("similar", run.path, "3.png", ".", "-n", "2", cwd=folder)
    done = tltool(
        "similar", run.path, "3.png", ".", "-n", "2", "--sheet", "s.html", "--json", cwd=folder
    )

    assert "read from the store" in done.stderr and "ran once" not in done.stderr
    assert len(json.loads(done.stdout)) == 2
    assert (folder / "s.html").read_text().count('<img src="data:image/jpeg') == 3
    refused = tltool("similar", run.path, "gone.png", ".", cwd=folder, code=3).stderr
    assert "gone.png" in refused
    two = tltool("similar", run.path, "3.png", ".", "--sheet", "-", "--json", cwd=folder, code=2)
    assert "--json and --sheet -: stdout takes one of them" in two.stderr and not two.stdout


def test_the_nearest_are_those_of_the_smallest_angle():
    vectors = np.array([[1.0, 0.0], [0.0, 5.0], [3.0, 3.0]])

    places, similarity = find_nearest(vectors, np.array([2.0, 0.0]), 2)

    assert places.tolist() == [0, 2]
    np.testing.assert_allclose(similarity, [1.0, 0.5**0.5])


def test_images_to_label_are_uncertain_and_differ_from_each_other():
    near_x = [[1.0, 0.02 * place] for place in range(-7, 8)]  # the middle one is their centre
    near_y = [[0.02 * place, 1.0] for place in range(-2, 3)]
    vectors = np.array(near_x + near_y + [[-1.0, 0.0]] * 40)
    uncertainty = np.array([0.9] * 15 + [0.8] * 5 + [0.1] * 40)

    chosen = choose_images(vectors, uncertainty, 2)

    # The two most uncertain ones are neighbours; those that are certain are farthest from all.
    assert chosen.tolist() == [7, 17]
    assert choose_images(vectors[:3], uncertainty[:3], 5).tolist() == [0, 1, 2]
    assert len(set(choose_images(np.ones((9, 2)), np.ones(9), 4).tolist())) == 4


def test_uncertainty_is_the_entropy_of_what_it_could_be():
    three = Classification(["a", "b", "c"])
    single = Classification(["a", "b"], activation="sigmoid")
    labels = Multilabel(["a", "b"])

    rows = np.array([[1, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3], np.float32)
    np.testing.assert_allclose(three.measure_uncertainty(rows), [0, np.log(2) / np.log(3), 1], 1e-6)
    np.testing.assert_allclose(single.measure_uncertainty(np.array([[0.0], [0.5]])), [0, 1])
    np.testing.assert_allclose(labels.measure_uncertainty(np.array([[0.5, 1.0]])), [0.5])


def test_the_table_of_images_to_label_is_read_back_once_it_is_filled_in(run, photos, folder):
    known = photos / "ants" / "0.jpg"
    (folder / "known.jpg").write_bytes(known.read_bytes())

    done = tltool("label-next", run.path, ".", "-n", "6", "-o", "next.csv", cwd=folder)

    assert "left out: 1 images that the run knows" in done.stderr
    assert "data.csv=next.csv" in done.stderr
    with open(folder / "next.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and "known.jpg" not in [row["path"] for row in rows]
    values = [float(row["uncertainty"]) for row in rows]
    assert values == sorted(values, reverse=True) and {row["label"] for row in rows} == {""}
    for place, row in enumerate(rows):
        row["label"] = "ants" if place % 2 else "bees"
    with open(folder / "next.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    overrides = {"~data.train": None, "data.csv": str(folder / "next.csv")}
    plan = tl.validate(run.recipe, overrides)
    assert plan.classes == ("ants", "bees") and len(plan.listing.files) == 6


@pytest.fixture
def address(folder):
    """The address of a store in memory that holds the ten images."""
    system = fsspec.filesystem("memory")
    system.put(str(folder), f"/{folder.name}", recursive=True)
    yield f"memory://{folder.name}"
    system.rm(f"/{folder.name}", recursive=True)


@pytest.mark.slow
def test_images_of_a_store_are_found_and_named_by_their_addresses(run, address, tmp_path):
    (nearest,) = tl.similar(run, f"{address}/3.png", address, n=1)
    tl.label_next(run, address, n=10).save(tmp_path / "next.csv")

    assert nearest.path in {f"{address}/{place}.png" for place in range(10) if place != 3}
    with open(tmp_path / "next.csv") as file:
        paths = {row["path"] for row in csv.DictReader(file)}
    assert paths == {f"{address}/{place}.png" for place in range(10)}


def test_label_next_predicts_what_the_run_does_and_computes_once(run, folder):
    first, note = listen()
    chosen = tl.label_next(run, folder, n=10, progress=note)
    second, note = listen()
    tl.label_next(run, folder, n=3, progress=note)

    predictions = {each.path: each for each in run.predict([folder])}
    assert first and second == [] and chosen.looked_at == 10
    for image in chosen.images:
        assert image.predicted == predictions[image.path].label
        rows = np.array([[*predictions[image.path].probabilities.values()]])
        expected = Classification(["a", "b", "c"]).measure_uncertainty(rows)[0]
        assert image.uncertainty == pytest.approx(expected, abs=1e-4)


def test_a_task_without_probabilities_has_no_uncertain_images(tmp_path):
    changes = {"task": "regression", "data.csv": "t.csv", "~data.train": None}
    folder = write_run(tmp_path, changes=changes)
    folder.classes.write_text('["age"]')

    with pytest.raises(RecipeError, match="which gives no class a probability"):
        tl.label_next(folder.path, tmp_path)
