"""Every shipped recipe: valid, headed by its command, its data and a measurement, and trainable."""

import importlib
import json
import re
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

import tl_toolkit as tl
from tests.command import tltool
from tests.pixels import draw_balls
from tl_toolkit.catalog.lookup import ARCHITECTURES, find_architecture
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.starter import write_starter
from tl_toolkit.recipe.data_schema import Augment, Data, Features
from tl_toolkit.recipe.load import json_schema, load_recipe
from tl_toolkit.recipe.model_schema import Head, Model
from tl_toolkit.recipe.phase_schema import EarlyStopping, Phase
from tl_toolkit.recipe.pixels import Masks, Pixels
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.recipe.search_schema import Dimension, Search
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
def test_the_result_of_a_recipe_is_one_line_of_what_was_measured(shipped):
    header = re.match(r"(#.*\n)+", shipped.path.read_text()).group()
    details = header.partition("# Measured ")[2]

    line, date = re.fullmatch(r"(.+), (\d{4}-\d{2}-\d{2})", shipped.result).groups()

    assert details.startswith(date)
    figures = re.findall(r"\d+\.\d+", line)
    assert figures and [figure for figure in figures if figure not in details] == []
    assert len(shipped.result) <= 90


@every_recipe
def test_a_recipe_is_named_as_its_file(shipped):
    assert load_recipe(shipped.path).recipe.name == shipped.name


@pytest.mark.slow  # tests of the API and of tasks train the like of them by default
@every_recipe
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
        "report": False,
        "yardsticks": False,
        "baseline": None,
    }
    if recipe.task.is_dense:
        folder = draw_balls(tmp_path, train=8, validation=4, test=4) / recipe.task.kind
        overrides |= {f"data.{path.name}": str(path) for path in folder.iterdir()}
    elif recipe.data.train is not None:
        for seed, split in enumerate(("train", "validation", "test")):
            if isinstance(getattr(recipe.data, split), Path):
                overrides[f"data.{split}"] = str(
                    draw_photos(tmp_path / split, classes=("a", "b"), count=4, seed=seed)
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


@pytest.fixture
def build(monkeypatch):
    """The script that writes the reference."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("build")


def test_the_reference_is_current(build):
    expected = build.build_reference(json_schema(ARCHITECTURES))
    assert (ROOT / "docs" / "recipe.md").read_text() == expected, "run: make docs"


def read_reference():
    """The cells of each field of each section of docs/recipe.md."""
    sections = {}
    for part in (ROOT / "docs" / "recipe.md").read_text().split("\n## ")[1:]:
        rows = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in part.splitlines()
                if line.startswith("| `")]  # fmt: skip
        sections[part.split("\n")[0]] = {row[0].strip("`"): row[1:] for row in rows}
    return sections


def test_the_reference_names_types_allowed_values_and_ranges():
    reference = read_reference()

    assert reference["augment"]["flip"][0] == "`horizontal`, `vertical`, `both`"
    assert reference["model.head"]["pooling"][0].startswith("`average`, `max`, `sum`")
    assert reference["search"]["algorithm"][0] == "`random`, `grid`, `bayesian`, `tpe`, `hyperband`"
    assert reference["phases, a list"]["optimizer"][0].startswith("`adam`, `adamw`, `sgd`; or a se")
    assert "`sobel_x`" in reference["model"]["edge_filter"][0]
    assert reference["augment"]["rotation"][0] == "number, 0 to 0.5"
    assert reference["data"]["batch_size"][0] == "integer, 1 to 4,096"
    assert all(row[0] for rows in reference.values() for row in rows.values())


PLACED = {
    "The top level": "", "data": "data", "data.masks": "data.masks", "pixels": "pixels",
    "augment": "augment", "features": "features", "model": "model", "model.head": "model.head",
    "phases, a list": "phases.0", "early_stopping": "early_stopping", "search": "search",
    "search.space, a dimension for each dotted field": "search.space.lr",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::pydantic.warnings.UnsupportedFieldAttributeWarning")
def test_the_examples_of_the_reference_have_a_shape_that_is_valid():
    reference = read_reference()
    refused = []
    for heading, place in PLACED.items():
        for field, (_, _, example, _) in reference[heading].items():
            written = example.strip("`").replace("\\|", "|")
            values = YAML(typ="safe").load(written)[field]
            path = tuple(f"{place}.{field}".strip(".").split("."))
            problems = find_shape_problems(path, values)
            refused += [(heading, written, problem) for problem in problems]

    assert refused == []


def find_shape_problems(path, value):
    """What is wrong with the type or range of one field of a recipe."""
    section = Recipe
    *parents, field = path
    if parents == ["phases", "0"]:
        section = Phase
    elif parents[:2] == ["search", "space"]:
        section = Dimension
    else:
        for name in parents:
            section = {
                "data": Data, "masks": Masks, "pixels": Pixels, "augment": Augment,
                "features": Features, "model": Model, "head": Head, "search": Search,
                "early_stopping": EarlyStopping,
            }[name]  # fmt: skip
    names = {info.alias or name: info for name, info in section.model_fields.items()}
    info = names[field]
    try:
        TypeAdapter(Annotated[info.annotation, info]).validate_python(value)
    except ValidationError as error:
        return [entry["msg"] for entry in error.errors()]
    return []


def test_recipes_are_listed_shown_and_copied(tmp_path):
    listed = tltool("recipes", "list", cwd=tmp_path).stdout
    shown = tltool("recipes", "show", "quickstart", cwd=tmp_path).stdout
    tltool("recipes", "copy", "quickstart", "mine.yaml", cwd=tmp_path)

    assert all(name in listed for name in RECIPES)
    words = listed.split()
    assert all(set(recipe.result.split()) <= set(words) for recipe in RECIPES.values())
    assert shown == RECIPES["quickstart"].path.read_text()
    assert (tmp_path / "mine.yaml").is_file()
    assert (tmp_path / "recipe.schema.json").is_file()


@every_recipe
def test_the_comment_of_a_copy_is_true_of_the_copy(shipped, tmp_path):
    target = Path("tried/mine.yaml")
    tltool("recipes", "copy", shipped.name, target, cwd=tmp_path)

    text = (tmp_path / target).read_text()
    header = re.match(r"(#.*\n)+", text).group()
    assert f"#   tltool finetune {target}\n" in header
    assert "recipes/data" not in header and f"recipes/{shipped.name}.yaml" not in header
    if "recipes/data" in shipped.path.read_text():
        assert "tried/data/" in header  # where the copy's relative paths lead
    assert f"# Result of the shipped {shipped.name}: {shipped.result}" in header
    assert f"# Measured with the shipped {shipped.name}, 20" in header


def test_the_name_of_a_shipped_recipe_stands_for_its_file(tmp_path):
    told = tltool("validate", "quickstart", cwd=tmp_path).stderr
    (tmp_path / "quickstart.yaml").write_text("version: 1")
    own = tltool("validate", "quickstart.yaml", cwd=tmp_path, code=2).stderr
    missing = tltool("validate", "quikstart", cwd=tmp_path, code=2).stderr

    assert f"{RECIPES['quickstart'].path}: valid" in told
    assert "quickstart.yaml" in own and "is valid" not in own
    assert "quikstart" in missing


def test_a_copy_never_overwrites(tmp_path):
    (tmp_path / "mine.yaml").write_text("precious")

    tltool("recipes", "copy", "quickstart", "mine.yaml", cwd=tmp_path, code=2)

    assert (tmp_path / "mine.yaml").read_text() == "precious"


@pytest.mark.parametrize("layout", ["split", "plain"])
def test_init_writes_a_recipe_that_is_valid(tmp_path, draw_photos, layout):
    if layout == "split":
        for seed, name in enumerate(("train", "val", "test")):
            draw_photos(tmp_path / "my photos" / name, seed=seed)
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

    text, name, *_ = write_starter(tmp_path / "segmentation" / split, place=tmp_path)
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
    for name in ("ants", "bees"):  # so many that the head is tuned, too
        first = next((tmp_path / "photos" / name).iterdir())
        for number in range(1400):
            (tmp_path / "photos" / name / f"more{number}.png").hardlink_to(first)

    _, plan = check_starter(tmp_path / "photos", tmp_path)

    first, written = load_recipe(tmp_path / "readme.yaml").recipe, plan.recipe
    assert written.phases == first.phases and written.model.head == first.model.head
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
