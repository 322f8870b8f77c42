"""Recipes from files: paths, places, round trips, and files that cannot be read."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.load import (
    build_baseline,
    build_recipe,
    dump_recipe,
    json_schema,
    load_recipe,
    replace_fields,
)


def refuse(source, overrides=()):
    with pytest.raises(RecipeError) as caught:
        load_recipe(source, overrides)
    return caught.value


def test_file_and_mapping_give_the_same_recipe(write, values, monkeypatch):
    path = write()
    monkeypatch.chdir(path.parent)

    assert load_recipe(path).recipe == build_recipe(values).recipe


def test_source_may_be_text_and_is_kept_as_path(write, monkeypatch):
    monkeypatch.chdir(write().parent)

    loaded = load_recipe("x.yaml")

    assert loaded.path == Path("x.yaml")
    assert loaded.locate(("phases", 1, "unfreeze")) == "x.yaml:14:5"


def test_problem_has_file_line_column_and_the_form_of_the_house(write, monkeypatch):
    monkeypatch.chdir(write("version: 1\ndata:\n  batch_size: '8'\n").parent)

    problems = refuse("x.yaml").problems

    assert str(problems[-1]) == (
        "x.yaml:3:3  data.batch_size = '8'\n"
        "  expected an integer, got '8'.\n"
        "  Try: batch_size: 8 (without quotes)"
    )


def test_all_problems_come_in_one_pass_in_the_order_of_the_file(write):
    path = write(
        "version: 2\n"
        "name: a b\n"
        "data: {train: x, image_size: 3, batchsize: 4}\n"
        "model: {base: 1, weights: s3://x, head: {pooling: avg, hidden: [{units: x}]}}\n"
        "phases:\n"
        "  - {name: a, epochs: -1}\n"
        "  - {name: a, learning_rate: 0}\n"
        "seed: 1.5\n"
    )

    problems = refuse(path).problems

    assert [problem.where.removeprefix(f"{path}:") for problem in problems] == [
        "1:1",
        "2:1",
        "3:18",
        "3:33",
        "4:9",
        "4:18",
        "4:42",
        "4:66",
        "6:15",
        "7:5",
        "7:6",
        "7:15",
        "8:1",
    ]


def test_paths_are_relative_to_the_recipe(write, monkeypatch, tmp_path):
    (tmp_path / "recipes").mkdir()
    path = write(
        "version: 1\n"
        "name: a\n"
        "data: {train: ../data/train, validation: ../data/val, test: /t, image_size: 28}\n"
        "model: {base: lenet5, weights: w.h5}\n"
        "phases: [{name: a, epochs: 1}]\n"
        "baseline: {model.weights: b.h5, model: {base: c, weights: c.h5}}\n",
        name="recipes/x.yaml",
    )
    monkeypatch.chdir("/")

    recipe = load_recipe(path).recipe

    assert recipe.data.train == tmp_path / "data/train"
    assert recipe.data.validation == tmp_path / "data/val"
    assert recipe.data.test == Path("/t")
    assert recipe.model.weights == str(tmp_path / "recipes/w.h5")
    assert recipe.baseline == {
        "model.weights": str(tmp_path / "recipes/b.h5"),
        "model": {"base": "c", "weights": str(tmp_path / "recipes/c.h5")},
    }


def test_relative_recipe_gives_absolute_paths(write, monkeypatch, tmp_path):
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(write(name="recipes/x.yaml").parent.parent)

    assert load_recipe("recipes/x.yaml").recipe.data.train == tmp_path / "recipes/photos"


def test_home_is_understood(values, monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")

    assert build_recipe(values, ["data.train=~/a"]).recipe.data.train == Path("/somewhere/a")


@pytest.mark.parametrize("word", ["imagenet", "random"])
def test_words_for_weights_are_no_paths(write, recipe_text, word):
    path = write(recipe_text.replace("random", word))

    assert load_recipe(path).recipe.model.weights == word


def test_folder_called_random_is_a_path(values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert build_recipe(values, ["data.train=random"]).recipe.data.train == tmp_path / "random"


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "just words", "3"])
def test_file_without_sections_is_refused(write, text):
    error = refuse(write(text))

    assert "expected a recipe: lines such as `name: flowers`" in str(error)
    assert error.problems[0].where.endswith(":1:1")


def test_byte_order_mark_is_passed_over(write, recipe_text):
    assert load_recipe(write("\ufeff" + recipe_text)).recipe.name == "flowers"


@pytest.mark.parametrize(
    ("content", "where"),
    [(b"a: \xff", ":1:4"), (b"a: 1\n\xc3\xa9: \xe9", ":2:4"), ("a: 1".encode("utf-16"), ":1:1")],
)
def test_file_that_is_not_utf_8_is_refused_with_its_place(tmp_path, content, where):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)

    (problem,) = refuse(path).problems

    assert problem.where == f"{path}{where}"
    assert "is not UTF-8" in problem.what


def test_large_file_is_refused_unread(write):
    assert "expected at most 256 KiB" in str(refuse(write("# " + "x" * 300_000)))


def test_missing_file_names_the_closest_one(write, tmp_path):
    write(name="quickstart.yaml")

    assert "did you mean" in str(refuse(tmp_path / "quikstart.yaml"))


@pytest.mark.parametrize("source", ["nowhere/x.yaml", "/", "a\0b", ""])
def test_source_that_is_no_file_is_refused(source):
    assert isinstance(refuse(source), RecipeError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_refused(write):
    path = write()
    path.chmod(0)

    assert "cannot be read" in str(refuse(path))


def test_values_from_python_are_located_at_the_recipe(values):
    loaded = build_recipe(values)

    assert loaded.locate(("phases", 0, "epochs")) == "recipe"
    assert loaded.path == Path("recipe")


def test_values_that_contain_themselves_are_refused(values):
    values["model"]["arguments"] = values

    with pytest.raises(RecipeError, match="nested too deeply"):
        build_recipe(values)


def test_keys_that_are_no_text_are_refused(values):
    with pytest.raises(RecipeError, match="key 3"):
        build_recipe({**values, 3: 4})


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", 1j, np.complex64(1)])
def test_values_of_unknown_types_are_refused(values, value):
    with pytest.raises(RecipeError, match="expected a number, text, a path, a list or a mapping"):
        build_recipe({**values, "seed": value})


def test_number_too_long_to_be_written_is_refused(values):
    with pytest.raises(RecipeError, match="at most 40 digits"):
        build_recipe(values, {"data.examples_per_class": 10**400})


def test_values_of_derived_types_become_plain(values, write):
    phase = {"name": "a", "epochs": 1, "learning_rate": np.float64(0.5)}
    values["model"]["arguments"] = {"alpha": np.float64(0.25)}
    recipe = build_recipe({**values, "phases": [phase]}).recipe

    assert type(recipe.phases[0].learning_rate) is float
    assert type(recipe.model.arguments["alpha"]) is float
    assert load_recipe(write(dump_recipe(recipe))).recipe == recipe


def test_dumped_recipe_reads_back_equal(values, write):
    values |= {
        "seed": 7,
        "augment": {"flip": "both", "rand_augment": {"magnitude": 1e-5}},
        "early_stopping": {"min_delta": 1e-10},
        "export": False,
        "baseline": {"model.weights": "random", "phases.head.learning_rate": 1e-7},
    }
    values["data"] |= {
        "image_size": [28, 32],
        "validation": "val",
        "classes": ["yes", "0", "1e-4", "~", "a: b", "é花🙂", "#x", " ", "true", "a\nb", "x" * 300],
    }
    values["model"] |= {"arguments": {"alpha": 0.25, "pad": "same"}, "weights": "w x.h5"}
    values["model"]["head"] = {"hidden": [{"units": 8, "l2": 1e-4}]}
    values["phases"] += [{"name": "c", "epochs": 0, "unfreeze": {"from": "conv2"}}]
    values["phases"] += [{"name": "d", "epochs": 0, "unfreeze": ["a", "b"]}]
    recipe = build_recipe(values).recipe

    assert load_recipe(write(dump_recipe(recipe))).recipe == recipe


@pytest.mark.parametrize("name", ["\x7f", "\x85", "\u2028", "\ufeff", "\x1b", "\0", "\\"])
def test_awkward_characters_survive_a_dump(values, write, name):
    values["data"]["classes"] = [f"a{name}b", "c"]
    recipe = build_recipe(values).recipe

    assert load_recipe(write(dump_recipe(recipe))).recipe == recipe


def test_dump_quotes_what_older_readers_take_for_true(values):
    values["data"]["classes"] = ["yes", "off"]

    assert '["yes", "off"]' in dump_recipe(build_recipe(values).recipe)


def test_replaced_fields_give_a_new_recipe(values):
    recipe = build_recipe(values).recipe

    changed = replace_fields(
        recipe, {"phases.tune.epochs": 9, "model.head.hidden.0.units": 4, "data.batch_size": 8}
    )

    assert changed.phases[1].epochs == 9
    assert changed.model.head.hidden[0].units == 4
    assert changed.data.batch_size == 8
    assert changed.data.train == recipe.data.train
    assert recipe.phases[1].epochs == 2


def test_replacing_nothing_changes_nothing(values):
    values["augment"] = {"zoom": 0.1}
    values["baseline"] = {"model.weights": "random"}
    recipe = build_recipe(values).recipe

    assert replace_fields(recipe, {}) == recipe


def test_replaced_fields_are_validated(values):
    with pytest.raises(RecipeError, match=r"override data\.batch_size=0  data\.batch_size = 0"):
        replace_fields(build_recipe(values).recipe, {"data.batch_size": 0})


def test_baseline_is_the_same_recipe_with_its_changes(values):
    values["baseline"] = {"model.weights": "random", "phases.head.learning_rate": 0.5}
    values["model"]["weights"] = "w.h5"
    recipe = build_recipe(values).recipe

    baseline = build_baseline(recipe)

    assert baseline.model.weights == "random"
    assert baseline.phases[0].learning_rate == 0.5
    assert baseline.phases[1] == recipe.phases[1]
    assert baseline.baseline is None


def test_recipe_without_baseline_has_none(values):
    assert build_baseline(build_recipe(values).recipe) is None


def test_wrong_baseline_is_located_at_its_key(write, recipe_text):
    path = write(recipe_text + "baseline:\n  model.weight: x\n  phases.head.epochs: -3\n")

    problems = refuse(path).problems

    assert [problem.where for problem in problems] == [f"{path}:{line}:3" for line in (16, 17)]
    assert "did you mean 'weights'?" in str(problems[0])


@pytest.mark.parametrize("key", ["baseline", "~baseline", "baseline.seed", "data.train", "x", ""])
def test_baseline_changes_neither_itself_nor_the_images(values, key):
    with pytest.raises(RecipeError, match="expected a change to seed, augment, model, phases"):
        build_recipe({**values, "baseline": {key: None}})


def test_json_schema_serves_editors():
    schema = json_schema(bases=["lenet5", "mobilenet"])
    sections = {"Recipe": schema, **schema["$defs"]}

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["required"]) == {"version", "name", "data", "model"}
    for section in sections.values():
        assert section["additionalProperties"] is False
        assert section["description"]
        assert all("description" in field for field in section["properties"].values())
    phase = schema["$defs"]["Phase"]["properties"]
    assert phase["optimizer"]["anyOf"][0]["enum"] == ["adam", "adamw", "sgd"]
    assert phase["optimizer"]["default"] == "adam"
    assert phase["learning_rate"]["anyOf"][0]["exclusiveMinimum"] == 0
    assert list(schema["$defs"]["UnfreezeFrom"]["properties"]) == ["from"]
    assert schema["$defs"]["Model"]["properties"]["base"]["anyOf"][0]["enum"] == [
        "lenet5",
        "mobilenet",
    ]


def test_json_schema_without_names_allows_any_base():
    assert "enum" not in json_schema()["$defs"]["Model"]["properties"]["base"]


def test_reading_recipes_imports_no_numpy_and_no_tensorflow():
    code = (
        "import sys, tl_toolkit.recipe.load\n"
        "heavy = {'numpy', 'tensorflow', 'keras', 'h5py', 'PIL'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (result.returncode, result.stderr) == (0, "")


def test_a_loaded_recipe_is_shown_by_name_and_file(values):
    assert repr(build_recipe(values)) == "LoadedRecipe('flowers', path='recipe')"
