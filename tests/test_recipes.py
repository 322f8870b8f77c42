"""Every shipped recipe: valid, headed by its command, its data and a measurement, and trainable."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tl_toolkit as tl
from tests.command import tltool
from tests.pixels import draw_balls
from tl_toolkit.catalog.lookup import ARCHITECTURES, find_architecture
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.starter import write_starter
from tl_toolkit.recipe.load import json_schema, load_recipe
from tl_toolkit.recipe.shipped import find_schema, list_shipped

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {recipe.name: recipe for recipe in list_shipped()}

every_recipe = pytest.mark.parametrize("shipped", RECIPES.values(), ids=RECIPES)


def test_the_shipped_recipes_are_those_of_this_checkout():
    assert {recipe.path.parent for recipe in RECIPES.values()} == {ROOT / "recipes"}
    assert {"quickstart", "pretrain_digits", "hymenoptera_mobilenet", "clothing_mobilenet"} <= set(
        RECIPES
    )


@every_recipe
def test_a_recipe_opens_with_its_command_its_data_and_a_measurement(shipped):
    header = re.match(r"(#.*\n)+", shipped.path.read_text()).group()

    assert f"tltool finetune recipes/{shipped.name}.yaml" in header
    assert "# yaml-language-server: $schema=recipe.schema.json" in header
    assert "Data:" in header
    assert re.search(r"Measured .*\d{4}-\d{2}-\d{2}", header)
    assert shipped.summary.endswith(".")


@every_recipe
def test_a_recipe_is_named_as_its_file(shipped):
    assert load_recipe(shipped.path).recipe.name == shipped.name


TRAINED = {"quickstart"}
"""The others are slow; tests of the API and of tasks train the like of them by default."""


@pytest.mark.parametrize(
    "shipped",
    [
        pytest.param(recipe, id=name, marks=[] if name in TRAINED else [pytest.mark.slow])
        for name, recipe in RECIPES.items()
    ],
)
def test_a_recipe_builds_and_trains_for_two_steps_on_drawn_images(shipped, tmp_path, draw_photos):
    recipe = load_recipe(shipped.path).recipe
    size = find_architecture(recipe.model.base).minimum_size
    overrides = {
        "model.weights": "random",
        # Features of random weights may be nothing, and leave the head without a gradient.
        "model.head.l2": 1e-3,
        "data.image_size": size,
        "data.batch_size": 4,
        "export": False,
        "baseline": None,
    }
    if recipe.task.is_dense:
        folder = draw_balls(tmp_path, train=8, validation=4, test=4) / recipe.task.kind
        overrides |= {f"data.{path.name}": str(path) for path in folder.iterdir()}
    elif recipe.data.train is not None:
        for split in ("train", "validation", "test"):
            if isinstance(getattr(recipe.data, split), Path):
                overrides[f"data.{split}"] = str(
                    draw_photos(tmp_path / split, classes=("a", "b"), count=4)
                )
    elif recipe.data.builtin:
        overrides["data.examples_per_class"] = max(1, 8 // len(recipe.data.classes or range(10)))
    for phase in recipe.phases:
        # Random weights are nothing to BatchNormalization that is frozen.
        overrides |= {f"phases.{phase.name}.epochs": 1, f"phases.{phase.name}.batch_norm": "train"}

    run = tl.finetune(shipped.path, overrides=overrides, out=tmp_path / "run")

    for index, phase in enumerate(recipe.phases):
        path = run.folder.phase(index, phase.name) / "receipt.json"
        assert json.loads(path.read_text())["steps"] >= 2


def test_the_schema_that_recipes_name_is_current():
    assert json.loads(find_schema().read_text()) == json_schema(ARCHITECTURES), "run: make docs"


def test_the_reference_has_every_section():
    schema = json_schema(ARCHITECTURES)
    text = (ROOT / "docs" / "recipe.md").read_text()

    for section in [schema, *schema["$defs"].values()]:
        for field in section.get("properties", {}):
            assert f"| `{field}` |" in text, field


def test_the_reference_is_current():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import build
    finally:
        sys.path.pop(0)

    expected = build.build_reference(json_schema(ARCHITECTURES))
    assert (ROOT / "docs" / "recipe.md").read_text() == expected, "run: make docs"


def test_recipes_are_listed_shown_and_copied(tmp_path):
    listed = tltool("recipes", "list", cwd=tmp_path).stdout
    shown = tltool("recipes", "show", "quickstart", cwd=tmp_path).stdout
    tltool("recipes", "copy", "quickstart", "mine.yaml", cwd=tmp_path)

    assert all(name in listed for name in RECIPES)
    assert shown == RECIPES["quickstart"].path.read_text()
    assert (tmp_path / "mine.yaml").is_file()
    assert (tmp_path / "recipe.schema.json").is_file()


def test_a_copy_never_overwrites(tmp_path):
    (tmp_path / "mine.yaml").write_text("precious")

    tltool("recipes", "copy", "quickstart", "mine.yaml", cwd=tmp_path, code=2)

    assert (tmp_path / "mine.yaml").read_text() == "precious"


@pytest.mark.parametrize("layout", ["split", "plain"])
def test_init_writes_a_recipe_that_is_valid(tmp_path, draw_photos, layout):
    if layout == "split":
        for name in ("train", "val", "test"):
            draw_photos(tmp_path / "my photos" / name)
    else:
        draw_photos(tmp_path / "my photos")

    tltool("init", "my photos", cwd=tmp_path)
    told = tltool("validate", "my_photos.yaml", "model.weights=random", cwd=tmp_path).stderr

    recipe = load_recipe(tmp_path / "my_photos.yaml").recipe
    assert "my_photos.yaml: valid" in told
    assert recipe.data.test == (tmp_path / "my photos" / "test" if layout == "split" else None)
    assert recipe.data.image_size == (224, 224)


@pytest.mark.parametrize("split", ["", "train"])
def test_init_writes_a_recipe_of_segmentation_for_images_and_masks(tmp_path, split):
    draw_balls(tmp_path, train=3, validation=2)

    text, name, _ = write_starter(tmp_path / "segmentation" / split, place=tmp_path)
    (tmp_path / "x.yaml").write_text(text)
    found = check_recipe(load_recipe(tmp_path / "x.yaml", ["model.weights=random"]))

    assert found.recipe.task.kind == name == "segmentation"
    assert found.classes == ("class_0", "class_1")
    assert found.recipe.data.train == tmp_path / "segmentation" / "train"
    assert {sum(counts.values()) for counts in found.images.values()} == ({3} if split else {3, 2})


def check_starter(folder, place, **options):
    """Writes the first recipe of a folder, and checks it."""
    text, *_ = write_starter(folder, place=place, **options)
    (place / "x.yaml").write_text(text)
    return text, check_recipe(load_recipe(place / "x.yaml", ["model.weights=random"]))


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ((0, 1, 2), ["classes: [class_0, class_1, class_2]", "# ids: [0, 1, 2]", "# ignore: 255"]),
        ((0, 255), ["classes: [class_0, class_255]", "    ids: [0, 255]", "# ignore: 255"]),
        ((0, 1, 255), ["classes: [class_0, class_1]", "# ids: [0, 1]", "    ignore: 255 "]),
        ((3, 7), ["classes: [class_3, class_7]", "    ids: [3, 7]"]),
    ],
)
def test_init_names_the_values_that_masks_hold(tmp_path, values, lines):
    for name in ("images", "masks"):
        (tmp_path / "d" / name).mkdir(parents=True)
    for index, value in enumerate((*values, values[0])):
        mask = np.full((4, 4), value, np.uint8)
        Image.fromarray(mask).save(tmp_path / "d" / "masks" / f"{index}.png")
        (tmp_path / "d" / "images" / f"{index}.jpg").touch()

    text, plan = check_starter(tmp_path / "d", tmp_path)

    assert all(line in text for line in lines)
    assert len(plan.classes) == lines[0].count("class_")


def test_init_writes_what_solves_the_problems_of_its_folders(tmp_path):
    def fill(folder, count=2):
        (tmp_path / folder).mkdir(parents=True)
        for index in range(count):
            (tmp_path / folder / f"{index}.jpg").touch()

    for name in ("d/train/a", "d/train/b", "d/valid/a", "d/valid/b", "d/train/only here"):
        fill(name)
    for name in ("d/valid/extra", "d/test", "d/train/__MACOSX", "elsewhere/c", "d/valid/c"):
        fill(name)
    fill("d/train/@eaDir/x")
    (tmp_path / "d" / "train" / "c").symlink_to(tmp_path / "elsewhere" / "c")

    text, plan = check_starter(tmp_path / "d", tmp_path)

    assert plan.classes == ("a", "b", "c")
    assert "'extra' is left out, it has too few images: 0 of 1 in train" in text
    assert "'only here' is left out, it has too few images: 0 of 1 in validation" in text
    assert "  links: follow " in text
    assert f"test/ has no class folders: tltool predict latest {tmp_path / 'd' / 'test'}" in text
    assert plan.recipe.data.test is None


def test_init_leaves_out_a_class_of_one_image(tmp_path, draw_photos):
    draw_photos(tmp_path / "d", count=2)
    (tmp_path / "d" / "single").mkdir()
    (tmp_path / "d" / "single" / "1.jpg").touch()

    text, plan = check_starter(tmp_path / "d", tmp_path)

    assert plan.classes == ("ants", "bees", "wasps")
    assert "'single' is left out, it has too few images: 1 of 2 in train" in text


def test_init_writes_the_first_recipe_of_the_readme(tmp_path, draw_photos):
    readme = (ROOT / "README.md").read_text()
    (recipe,) = re.findall(r"```yaml\n(version: 1\nname: photos\n.*?)```", readme, re.DOTALL)
    (tmp_path / "readme.yaml").write_text(recipe)
    draw_photos(tmp_path / "photos")

    _, plan = check_starter(tmp_path / "photos", tmp_path)

    first, written = load_recipe(tmp_path / "readme.yaml").recipe, plan.recipe
    assert written.phases == first.phases
    assert written.model.arguments == first.model.arguments
    assert (written.data.train, written.data.image_size) == (
        first.data.train,
        first.data.image_size,
    )


def test_init_takes_images_to_segment_whose_test_images_have_no_masks(tmp_path):
    draw_balls(tmp_path, train=3, validation=2)
    (tmp_path / "segmentation" / "test").mkdir()
    (tmp_path / "segmentation" / "test" / "1.jpg").touch()

    text, plan = check_starter(tmp_path / "segmentation", tmp_path)

    assert plan.recipe.data.test is None
    assert "test/ has no masks: tltool predict latest" in text
