"""`tltool explain` and `tl.explain`: pictures, records, and what is refused."""

import hashlib
import json
import re

import numpy as np
import pytest
from PIL import Image

import tl_toolkit as tl
from tests.command import tltool
from tests.models import build_transfer, layers_of
from tl_toolkit.api.report import _explain
from tl_toolkit.architectures.loading import remember_model
from tl_toolkit.catalog.lookup import ARCHITECTURES
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.recipe.load import build_recipe, dump_recipe
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.normals.task import Normals
from tl_toolkit.tasks.regression.task import Regression
from tl_toolkit.tasks.segmentation.task import Segmentation

CLASSES = ["ants", "bees", "wasps"]


def make_run(folder, network, classes=CLASSES, **sections):
    """A run's folder, with a model of random weights."""
    folder.mkdir(parents=True)
    values = {
        "version": 1,
        "name": "photos",
        "data": {"train": str(folder), "validation": 0.25, "image_size": 32},
        "model": {"base": "vgg_tiny", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
    } | sections
    (folder / "recipe.yaml").write_text(dump_recipe(build_recipe(values).recipe))
    (folder / "classes.json").write_text(json.dumps(classes))
    (folder / "status.json").write_text("{}")
    network.save(folder / "model.keras")
    remember_model(folder / "model.keras")  # else a process of its own would load it first
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_photos):
    folder = tmp_path_factory.mktemp("explained")
    make_run(folder / "run", build_transfer("vgg_tiny").model)
    return folder


@pytest.fixture(scope="module")
def make_photos(tmp_path_factory):
    from tests.conftest import draw_class_folders

    return draw_class_folders(tmp_path_factory.mktemp("photos") / "all", count=2, side=64)


@pytest.fixture(scope="module")
def photos(make_photos):
    return make_photos


def test_each_image_gets_a_picture_and_the_page_shows_all(place, photos):
    done = tltool("explain", "run", photos, "--method", "layercam", "-o", "heat", cwd=place)

    names = ["0", "0_2", "0_3", "1", "1_2", "1_3"]
    pictures = {path.name: path for path in (place / "heat").glob("*.png")}
    assert sorted(pictures) == sorted(f"{name}_layercam.png" for name in names)
    with Image.open(pictures["0_layercam.png"]) as picture:
        assert picture.size == (224, 224)
    assert "layercam of block4 (block4_conv1_relu)" in done.stdout
    page = (place / "heat" / "index.html").read_text()
    assert page.count("<img ") == 12 == page.count('src="data:image/')
    assert len(re.findall('alt="[^"]+"', page)) == 12
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)


@pytest.mark.slow
def test_json_says_what_was_explained(place, photos):
    photo = photos / "ants" / "0.jpg"
    done = tltool(
        "explain", "run", photo, "--class", "bees", "--block", "block2", "-o", "json", "--json",
        cwd=place,
    )  # fmt: skip

    printed = json.loads(done.stdout)
    (record,) = printed["images"]
    (prediction,) = tl.load_run(place / "run").predict(photo)
    assert printed["index"] == "json/index.html"
    assert record["value"] == pytest.approx(prediction.probabilities["bees"], abs=1e-5)
    assert (record["label"], record["block"], record["layer"]) == ("bees", "block2", "block2_pool")
    assert (record["file"], record["error"]) == ("json/0_gradcam.png", None)
    assert "heat" not in record


@pytest.mark.slow
def test_python_gives_the_heat_of_the_predicted_class(place, photos):
    run = tl.load_run(place / "run")

    explanations = tl.explain(run, photos / "ants")

    labels = [prediction.label for prediction in run.predict(photos / "ants")]
    assert [item.label for item in explanations] == labels
    assert all(item.heat.shape == (32, 32) and item.file is None for item in explanations)


@pytest.mark.slow
def test_a_changed_model_is_explained_as_it_is(place, photos):
    run = tl.load_run(place / "run")
    options = {"target": "ants", "method": "layercam", "block": "block2"}
    before = tl.explain(run, photos / "ants", **options)

    for variable in run.model.get_layer("block1_conv1").weights:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    after = tl.explain(run, photos / "ants", **options)

    assert all(
        np.abs(first.heat - second.heat).max() > 0.1
        for first, second in zip(before, after, strict=True)
    )


@pytest.mark.slow
def test_pixels_are_explained_with_their_share(tmp_path, photos):
    task = Segmentation(CLASSES, PixelSettings(taps=("block2",)))
    make_run(
        tmp_path / "run",
        build_transfer("vgg_tiny", task=task).model,
        task="segmentation",
        data={"train": str(tmp_path), "validation": 0.25, "image_size": 32, "classes": CLASSES},
        pixels={"taps": ["block2"]},
    )

    explanations = [
        *(
            tl.explain(tmp_path / "run", photos / "ants" / "0.jpg", target=name)[0]
            for name in CLASSES
        )
    ]

    assert sum(item.share for item in explanations) == pytest.approx(1)
    for item in explanations:
        assert item.heat.any() == (item.share > 0)


@pytest.mark.slow
def test_either_class_of_a_single_output_is_explained(tmp_path, photos):
    names = CLASSES[:2]
    task = Classification(names, layers_of(), activation="sigmoid")
    model = {"base": "vgg_tiny", "weights": "random", "head": {"activation": "sigmoid"}}
    network = build_transfer("vgg_tiny", task=task).model
    make_run(tmp_path / "run", network, names, model=model)
    photo, run = photos / "ants" / "0.jpg", tl.load_run(tmp_path / "run")

    best, *both = (tl.explain(run, photo, target=name)[0] for name in (None, *names))

    (prediction,) = run.predict(photo)
    shares = prediction.probabilities
    assert (best.label, best.value) == pytest.approx((prediction.label, max(shares.values())))
    assert [item.label for item in both] == names
    assert [item.value for item in both] == pytest.approx([shares[name] for name in names])
    assert not (both[0].heat == both[1].heat).all()
    digest = hashlib.sha256(photo.read_bytes()).hexdigest()
    manifest = Manifest((Example(str(photo), digest, "test", ("ants",)),), tuple(names))
    first, second = (_explain(run, manifest, [str(photo)], [output])[0] for output in (0, 1))
    assert first and second and first != second  # heat maps of a report


@pytest.mark.slow
def test_a_column_of_a_regression_is_explained_by_its_number(tmp_path, photos):
    task = Regression(CLASSES, layers_of())
    make_run(
        tmp_path / "run",
        build_transfer("vgg_tiny", task=task).model,
        task={"kind": "regression", "columns": CLASSES},
        data={"csv": "numbers.csv", "validation": 0.25, "image_size": 32},
    )
    photo, run = photos / "ants" / "0.jpg", tl.load_run(tmp_path / "run")

    explanations = [tl.explain(run, photo, target=name)[0] for name in (None, "bees")]

    (prediction,) = run.predict(photo)
    assert [item.label for item in explanations] == ["ants", "bees"]
    assert [item.value for item in explanations] == pytest.approx(
        [prediction.values["ants"], prediction.values["bees"]], abs=1e-5
    )


@pytest.mark.slow
def test_all_pixels_of_normals_count(tmp_path, photos):
    task = Normals(PixelSettings(taps=("block2",)))
    make_run(
        tmp_path / "run",
        build_transfer("vgg_tiny", task=task).model,
        [],
        task="normals",
        pixels={"taps": ["block2"]},
    )

    (explanation,) = tl.explain(tmp_path / "run", photos / "ants" / "0.jpg", target="normals[1]")

    assert (explanation.label, explanation.share) == ("normals[1]", 1)


def test_a_base_is_explained_without_a_run(place, photos):
    photo = photos / "ants" / "0.jpg"
    tltool(
        "explain", "--base", "lenet5", photo, "--method", "layercam", "--seed", "3", "-o", "base",
        cwd=place,
    )  # fmt: skip

    assert (place / "base" / "0_layercam.png").is_file()
    assert "lenet5, random weights" in (place / "base" / "index.html").read_text()


HEAVY = ["mobilenet", "resnet50", "densenet121", "pixelnet", "unet"]


@pytest.mark.slow  # large networks
@pytest.mark.parametrize("name", HEAVY)
def test_large_bases_are_explained_without_a_run(tmp_path, photos, name):
    photo = photos / "ants" / "0.jpg"
    subject = ["explain", "--base", name, "--input-size", "64"]

    done = tltool(*subject, photo, "--method", "layercam", "--json", cwd=tmp_path)
    tltool(*subject, photo, "--activations", ARCHITECTURES[name].blocks[0].name, cwd=tmp_path)
    tltool(*subject, "--filters", "first", cwd=tmp_path)

    assert json.loads(done.stdout)["images"][0]["error"] is None
    assert len(list((tmp_path / "explanations").glob("*.png"))) == 3


def test_filters_and_activations_are_drawn(place, photos):
    photo = photos / "ants" / "0.jpg"

    filters = tltool("explain", "run", "--filters", "first", "-o", "f", "--json", cwd=place)
    maps = tltool(
        "explain", "run", photo, "--activations", "block1", "-o", "f", "--json", cwd=place
    )
    edges = tltool("explain", "--edge-filters", photo, "-o", "f", "--json", cwd=place)

    matches = json.loads(filters.stdout)["matches"]
    kernel = tl.load_run(place / "run").model.get_layer("block1_conv1").get_weights()[0]
    assert [match["index"] for match in matches] == list(range(kernel.shape[-1]))
    assert json.loads(maps.stdout)["images"][0]["layer"] == "block1_pool"
    assert json.loads(edges.stdout)["images"][0]["file"] == "f/0_edge_filters.png"
    assert sorted(path.name for path in (place / "f").iterdir()) == [
        "0_block1_activations.png",
        "0_edge_filters.png",
        "first_filters.png",
    ]


def test_a_later_layer_has_filters_without_matches(place):
    done = tltool("explain", "run", "--filters", "block2_conv1", "-o", "g", "--json", cwd=place)

    assert json.loads(done.stdout)["matches"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "gradcan"], "'gradcan' is no method of heat maps"),
        (["--class", "ant"], "did you mean 'ants'?"),
        (["--block", "blck2"], "did you mean 'block2'?"),
        (["--method", "occlusion", "--block", "block2"], "occlusion changes the image itself"),
        (["--activations", "blck2"], "--activations  'blck2' is no block"),
        (["--activations", "block2", "--method", "gradcam"], "--method goes with heat maps"),
        (["--activations", "block2", "--edge-filters"], "expected one of them"),
        (["--weights", "imagenet"], "--weights goes with --base NAME"),
    ],
)
def test_words_that_do_not_fit_are_refused_with_a_hint(place, photos, words, message):
    done = tltool("explain", "run", photos / "ants", *words, "-o", "no", cwd=place, code=2)

    assert message in done.stderr
    assert not (place / "no").exists()


def test_filters_of_no_layer_are_refused(place):
    done = tltool("explain", "run", "--filters", "block1_con1", cwd=place, code=2)

    assert "--filters  'block1_con1' is no layer of this model" in done.stderr
    assert "did you mean 'block1_conv1'?" in done.stderr


@pytest.mark.slow
def test_files_of_others_are_not_replaced(place, photos):
    (place / "mine").mkdir()
    (place / "mine" / "index.html").write_text("my own page")
    photo = photos / "ants" / "0.jpg"

    done = tltool("explain", "run", photo, "-o", "mine", cwd=place, code=7)

    assert "index.html would be lost" in done.stderr
    for _ in range(2):  # its own are
        tltool("explain", "run", photo, "-o", "own", cwd=place)


def test_a_broken_image_is_named_and_the_others_are_explained(place, photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")

    done = tltool(
        "explain", "run", photos / "ants", tmp_path / "broken.jpg", "-o", "some", cwd=place, code=3
    )

    assert "broken.jpg" in done.stderr and "1 of 3 files could not be read" in done.stderr
    assert len(list((place / "some").glob("*.png"))) == 2


def test_without_images_the_command_shows_what_to_type(place):
    assert "tltool explain latest photo.jpg" in tltool("explain", "run", cwd=place, code=2).stderr
    assert "tltool explain latest photo.jpg" in tltool("explain", cwd=place, code=2).stderr


def test_python_names_its_own_parameters(place, photos):
    with pytest.raises(tl.ToolkitError, match="^block  'blck2' is no block"):
        tl.explain(place / "run", photos, block="blck2")
    with pytest.raises(tl.ToolkitError, match="^target  'ant' is no output"):
        tl.explain(place / "run", photos, target="ant")
    with pytest.raises(tl.ToolkitError, match="^method  'gradcan' is no method"):
        tl.explain(place / "run", photos, method="gradcan")
