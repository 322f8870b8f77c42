"""Overrides: `a.b=value`, phases by name, removal, and where problems are said to be."""

import traceback

import pytest

import tl_toolkit as tl
from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.load import build_recipe, load_recipe


def refuse(values, *overrides):
    with pytest.raises(RecipeError) as caught:
        build_recipe(values, overrides)
    return caught.value.problems


@pytest.mark.parametrize(
    "override",
    ["phases.1.epochs=9", "phases.tune.epochs=9", "phases[1].epochs=9", " phases.tune.epochs = 9"],
)
def test_phase_is_named_by_number_or_name(values, override):
    recipe = build_recipe(values, [override]).recipe

    assert [phase.epochs for phase in recipe.phases] == [5, 9]


def test_value_is_read_as_yaml_1_2(values):
    overrides = [
        "phases.head.learning_rate=1e-4",
        "data.classes=[yes, 'no', \"1\"]",
        "data.convert=true",
        "phases.tune.unfreeze={from: conv2}",
        "augment.flip=",
    ]

    recipe = build_recipe(values, overrides).recipe

    assert recipe.phases[0].learning_rate == 1e-4
    assert recipe.data.classes == ("yes", "no", "1")
    assert recipe.data.convert is True
    assert recipe.phases[1].unfreeze.unit == "conv2"
    assert recipe.augment.flip is None


def test_only_the_first_equals_sign_splits(values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    recipe = build_recipe(values, ["data.train=a=b"]).recipe

    assert recipe.data.train == tmp_path / "a=b"


def test_later_override_wins(values):
    assert build_recipe(values, ["seed=1", "seed=2"]).recipe.seed == 2


def test_sections_that_are_not_there_are_made(values):
    overrides = ["augment.rand_augment.num_ops=3", "model.arguments.alpha=0.25"]

    recipe = build_recipe(values, overrides).recipe

    assert recipe.augment.rand_augment.num_ops == 3
    assert recipe.model.arguments == {"alpha": 0.25}


def test_short_forms_become_sections(values):
    values["export"] = False

    recipe = build_recipe(
        values, ["export.formats=[weights]", "phases.tune.unfreeze.from=c"]
    ).recipe

    assert recipe.export.formats == ("weights",)
    assert recipe.phases[1].unfreeze.unit == "c"


def test_list_grows_by_the_next_number(values):
    overrides = [
        "model.head.hidden.0.units=32",
        "model.head.hidden.1.units=16",
        "phases.2={name: more, epochs: 1}",
        "phases.more.epochs=3",
    ]

    recipe = build_recipe(values, overrides).recipe

    assert [hidden.units for hidden in recipe.model.head.hidden] == [32, 16]
    assert recipe.phases[2].epochs == 3


def test_list_does_not_grow_past_the_next_number(values):
    (problem,) = refuse(values, "phases.3.epochs=1")

    assert problem.where == "override phases.3.epochs=1"
    assert problem.what == "phases has no entry '3'"
    assert "expected head, tune or a number from 0 to 1; phases.2={name:" in problem.expected


def test_a_field_of_a_phase_that_is_not_there_is_told_by_the_phases_that_are(values):
    (problem,) = refuse(values, "phases.2.epochs=3")
    (removed,) = refuse(values, "~phases.2")

    assert problem.what == removed.what == "phases has no entry '2'"
    assert removed.expected == "expected head, tune or a number from 0 to 1."


def test_a_mistyped_phase_is_told_by_the_nearest(values):
    (problem,) = refuse(values, "phases.tun.epochs=3")

    assert problem.what == "phases has no entry 'tun'; did you mean 'tune'?"


@pytest.mark.parametrize(
    "words", [["phases.head.epochs: 3"], ["phases.head.epochs:3"], ["phases.head.epochs:", "3"]]
)
def test_a_colon_is_told_by_the_override_that_was_meant(values, words):
    (problem,) = refuse(values, *words)

    assert problem.hint == "phases.head.epochs=3"


def test_a_part_of_a_dimension_is_told_by_the_whole(values):
    (problem,) = refuse(values, "search.space.model.head.dropout.max=0.5")

    assert problem.what == "names 'max' of a dimension"
    assert problem.hint == "'search.space.model.head.dropout={min: 0, max: 0.5}'"


def test_tilde_removes(values):
    values["seed"] = 3

    recipe = build_recipe(values, ["~seed", "~phases.head", "~phases.0.unfreeze"]).recipe

    assert recipe.seed == 0
    assert [phase.name for phase in recipe.phases] == ["tune"]
    assert recipe.phases[0].unfreeze == 0


def test_places_follow_entries_when_one_before_them_is_removed(write):
    loaded = load_recipe(write(), ["~phases.head"])

    assert loaded.locate(("phases", 0, "unfreeze")).endswith("x.yaml:14:5")


def test_source_of_data_can_be_exchanged(values):
    data = build_recipe(values, ["~data.train", "data.builtin=digits"]).recipe.data

    assert (data.train, data.builtin) == (None, "digits")


def test_baseline_takes_dotted_fields(values):
    overrides = ["baseline.model.weights=random", "baseline.phases.head.epochs=3"]

    recipe = build_recipe(values, overrides).recipe

    assert recipe.baseline == {"model.weights": "random", "phases.head.epochs": 3}


def test_mapping_gives_values_of_python(values, tmp_path):
    overrides = {
        "data.train": tmp_path,
        "data.image_size": (32, 64),
        "phases.head.epochs": 1,
        "~phases.tune": None,
    }

    recipe = build_recipe(values, overrides).recipe

    assert recipe.data.train == tmp_path
    assert recipe.data.image_size == (32, 64)
    assert [phase.epochs for phase in recipe.phases] == [1]


def test_one_text_counts_as_one_override(values):
    assert build_recipe(values, "seed=4").recipe.seed == 4


def test_paths_in_overrides_are_relative_to_the_working_directory(write, tmp_path, monkeypatch):
    path = write()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    recipe = load_recipe(
        path, ["model.weights=w.h5", "data.validation=v", "baseline.model.weights=b.h5"]
    ).recipe

    assert recipe.data.train == tmp_path / "photos"
    assert recipe.data.validation == tmp_path / "here/v"
    assert recipe.model.weights == str(tmp_path / "here/w.h5")
    assert recipe.baseline == {"model.weights": str(tmp_path / "here/b.h5")}


def test_paths_in_a_section_given_as_override_are_relative_to_the_working_directory(
    write, tmp_path, monkeypatch
):
    path = write()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    recipe = load_recipe(path, ["data={train: t, image_size: 28}"]).recipe

    assert recipe.data.train == tmp_path / "here/t"


def test_problem_of_an_override_is_located_at_it(write):
    path = write()

    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["phases.head.epochs=-3", "data.batchsize=4"])

    assert {problem.where for problem in caught.value.problems} == {
        "override phases.head.epochs=-3",
        "override data.batchsize=4",
    }
    assert "did you mean 'batch_size'?" in str(caught.value)


def test_removed_field_that_is_needed_is_located_at_its_removal(values):
    (problem,) = refuse(values, "~model.base")

    assert problem.where == "override ~model.base"
    assert problem.what == "model.base is missing"


def test_field_given_again_after_its_removal_is_located_there(values):
    (problem,) = refuse(values, "~seed", "~data.image_size", "data.image_size=3")[1:]

    assert problem.where == "override data.image_size=3"


def test_problems_of_overrides_and_of_the_recipe_come_together(values):
    values["seed"] = -1

    problems = refuse(values, "x", "phases.heat.epochs=1", "~nothing", "data.batch_size=[")

    assert [problem.where for problem in problems] == [
        "override x",
        "override phases.heat.epochs=1",
        "override ~nothing",
        "override data.batch_size=[",
        "recipe",
    ]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("epochs", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("a..b=3", "expected KEY=VALUE"),
        ("~", "expected KEY=VALUE"),
        (".".join("a" * 21) + "=1", "expected KEY=VALUE"),
        ("phases.haed.epochs=1", "did you mean 'head'?"),
        ("~phases.haed", "did you mean 'head'?"),
        ("~model.bse", "did you mean 'base'?"),
        ("~seed.x", "is not in the recipe"),
        ("~name.x", "expected a field that is there"),
        ("model.bse=x", "did you mean 'base'?"),
        ("modle.base=x", "did you mean 'model'?"),
        ("data.image_size=!!int 3", "a value without a tag"),
        ("data.image_size='3", "not YAML"),
        ("model.head.hidden.x.units=3", "expected a list"),
    ],
)
def test_override_that_cannot_be_done_is_explained(values, override, expected):
    problems = refuse(values, override)

    assert expected in str(problems[0]) or expected in str(problems[-1])
    assert problems[0].where == f"override {override}"


def test_mapping_with_wrong_keys_is_refused(values):
    with pytest.raises(RecipeError, match="expected keys that are text"):
        build_recipe(values, {3: 4})
    with pytest.raises(RecipeError, match="expected None after ~KEY"):
        build_recipe(values, {"~seed": 4})


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (["phases.head.epochs", "=", "3"], "phases.head.epochs=3"),
        (["phases.head.epochs=", "3"], "phases.head.epochs=3"),
        (["phases.head.epochs", "=3"], "phases.head.epochs=3"),
    ],
)
def test_spaces_around_the_equals_sign_are_one_error(values, words, typed):
    with pytest.raises(RecipeError) as caught:
        build_recipe(values, ["seed=1", *words, "data.batch_size=8"])

    (problem,) = caught.value.problems
    assert problem.where == f"override {' '.join(words)}"
    assert "spaces around =" in problem.what and problem.hint == typed


def test_an_empty_value_and_a_removed_field_have_no_spaces(values):
    recipe = build_recipe(values, ["model.head.pooling=", "data.test=", "~data.test"]).recipe

    assert recipe.data.test is None


def test_a_field_of_a_search_space_is_dotted(values):
    recipe = build_recipe(values, ["search.space.phases.head.epochs=[1, 2]"]).recipe

    assert recipe.search.space["phases.head.epochs"].choices == (1, 2)


@pytest.mark.parametrize(
    "build",
    [
        lambda values: build_recipe(values, {"phases.head.epoch": 3}),
        lambda values: tl.recipe.Phase(name="head", epoch=3),
    ],
)
def test_a_traceback_shows_no_error_of_pydantic_before_ours(values, build):
    with pytest.raises(RecipeError) as caught:
        build(values)

    text = "".join(traceback.format_exception(caught.value))
    assert "ValidationError" not in text and "did you mean 'epochs'?" in text


def test_a_searched_field_that_has_the_name_of_a_part_of_a_dimension_is_one(values):
    (problem,) = refuse(values, "search.space.pixels.sampling=uniform")

    assert "expected {choices: [...]}" in problem.expected
