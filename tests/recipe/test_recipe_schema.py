"""The schema: defaults, ranges, rules between fields, and that nothing changes afterwards."""

import pickle
from pathlib import Path
from types import MappingProxyType

import pytest
from pydantic import BaseModel, ValidationError

from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe import schema
from tl_toolkit.recipe.load import build_recipe, load_recipe
from tl_toolkit.recipe.schema import Export, Recipe, UnfreezeFrom

SECTIONS = [getattr(schema, name) for name in schema.__all__]


def read(values, **overrides):
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    return build_recipe(values, changes).recipe


def refuse(values, field, value):
    with pytest.raises(RecipeError) as caught:
        build_recipe(values, {field: value})
    return str(caught.value)


def test_short_recipe_gets_the_defaults(values):
    recipe = read(values)

    assert (recipe.seed, recipe.deterministic, recipe.task.kind) == (0, True, "classification")
    assert (recipe.data.validation, recipe.data.test, recipe.data.batch_size) == (0.2, None, 32)
    assert recipe.phases[0].learning_rate == 1e-3
    assert recipe.phases[0].unfreeze == 0
    assert recipe.phases[0].batch_norm == "frozen"
    assert recipe.model.head.pooling is None
    assert recipe.model.head.activation == "softmax"
    assert recipe.export == Export(formats=("saved_model",))
    assert recipe.baseline is None


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_and_field_is_described(section):
    assert section.__doc__
    assert all(field.description for field in section.model_fields.values())


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_is_frozen_and_refuses_unknown_keys(section):
    assert section.model_config["frozen"]
    assert section.model_config["extra"] == "forbid"
    assert section.model_config["strict"]


def test_no_section_is_missing_from_the_public_names():
    actual = {
        name
        for name, value in vars(schema).items()
        if isinstance(value, type) and issubclass(value, BaseModel) and name != "Section"
    }

    assert actual == set(schema.__all__)


def test_recipe_cannot_be_changed(values):
    recipe = read(
        values, model__arguments={"alpha": 0.25}, baseline={"phases.tune.unfreeze": ["a", "b"]}
    )

    with pytest.raises(ValidationError):
        recipe.seed = 3
    with pytest.raises(TypeError):
        recipe.model.arguments["alpha"] = 1.0
    with pytest.raises(AttributeError):
        recipe.baseline["phases.tune.unfreeze"].append("c")


def test_recipe_hashes_and_travels_between_processes(values):
    recipe = read(values, model__arguments={"alpha": 0.25}, baseline={"model.weights": "random"})

    copy = pickle.loads(pickle.dumps(recipe))

    assert copy == recipe
    assert hash(copy) == hash(recipe)


def test_python_s_own_read_only_mapping_cannot_be_pickled_which_is_why_settings_are_ours():
    with pytest.raises(TypeError):
        pickle.dumps(MappingProxyType({"alpha": 0.25}))


def test_arguments_compare_and_unpack_as_a_dict(values):
    arguments = read(values, model__arguments={"alpha": 0.25, "layers": 2}).model.arguments

    assert arguments == {"layers": 2, "alpha": 0.25}
    assert dict(**arguments) == {"alpha": 0.25, "layers": 2}
    assert repr(arguments) == "{'alpha': 0.25, 'layers': 2}"


@pytest.mark.parametrize(("size_field", "size"), [(28, (28, 28)), ([32, 64], (32, 64))])
def test_image_size_is_one_side_or_height_and_width(values, size_field, size):
    assert read(values, data__image_size=size_field).data.image_size == size


@pytest.mark.parametrize(
    "size_field", [7, 2049, [28], [28, 28, 3], [28, 4], "28", 28.0, True, None]
)
def test_image_size_out_of_range_is_reported_once(values, size_field):
    text = refuse(values, "data.image_size", size_field)

    assert "data.image_size = " in text
    assert "expected a side or [height, width] in pixels, each an integer from 8 to 2048" in text
    assert text.count("expected") == 1


def test_integers_are_fine_for_rates(values):
    phase = {"name": "a", "epochs": 1, "learning_rate": 1, "optimizer": "sgd", "momentum": 0}

    rate = read(values, phases=[phase]).phases[0].learning_rate

    assert rate == 1.0
    assert isinstance(rate, float)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("version", 2, "expected 1, got 2."),
        ("version", True, "expected 1, got true."),
        ("version", 1.0, "expected 1, got 1.0."),
        ("name", "a/b", "expected text ("),
        ("name", "-a", "expected text ("),
        ("name", "..", "expected text ("),
        ("name", "a\n", "expected text ("),
        ("name", "x" * 65, "expected at most 64 characters"),
        ("name", "latest", "expected another name"),
        ("seed", -1, "expected an integer from 0 to 2147483647, got -1."),
        ("seed", True, "expected an integer, got true."),
        ("deterministic", "yes", "expected true or false, got 'yes'."),
        ("deterministic", 1, "expected true or false, got 1."),
        ("task", "detection", "'edges' or 'normals', got 'detection'."),
        ("task", ["edges"], "expected the name of a task, or a section with its kind"),
        ("task.kind", "regresion", "Try: task.kind=regression"),
        ("data.batch_size", "8", "expected an integer, got '8'."),
        ("data.batch_size", 8.5, "expected an integer, got 8.5."),
        ("data.batch_size", 0, "expected an integer from 1 to 4096, got 0."),
        ("data.batch_size", None, "expected an integer, got null."),
        ("data.classes", ["a"], "expected at least 2 in the list"),
        ("data.classes", ["a", "b", "a"], "expected each name once, got 'a' again."),
        ("data.classes", [0, 1], "expected text, got 0."),
        ("data.classes", ["a", ""], "expected text that is not empty"),
        ("data.examples_per_class", 0, "expected an integer, 1 or more, got 0."),
        ("data.validation", 1, "expected a fraction above 0 and below 1, or the path of a folder"),
        ("data.validation", 0, "train on, got 0.\n  Try: data.validation=0.05"),
        ("data.validation", None, "epochs are compared on validation images"),
        ("data.validation", 0.0, "expected a fraction above 0 and below 1"),
        ("data.validation", True, "expected a fraction above 0 and below 1"),
        ("data.validation", [0.1], "expected a fraction above 0 and below 1"),
        ("data.test", 0.8, "expected fractions that leave images to train on, got 1 for"),
        ("data.broken", "ignore", "expected 'skip' or 'refuse', got 'ignore'."),
        ("data.pad_color", 114, "expected none without resize: pad, got 114.\n  Try: resize: pad"),
        ("data.pad_color", [1, 2], "expected a grey level from 0 to 255, or a colour [red, green,"),
        ("augment.mixup", 11.0, "expected a number from 0 to 10, got 11.0."),
        ("phases.0.feature_noise", 1.5, "expected a number from 0 to 1, got 1.5."),
        ("augment.rotation", 0.6, "expected a number from 0 to 0.5, got 0.6."),
        ("augment.rand_augment.num_ops", 11, "expected an integer from 1 to 10, got 11."),
        ("augment", 3, "expected a section with the keys flip, rotation"),
        ("model.base", 5, "expected the name of an architecture, or {model: FILE.keras}, got 5."),
        ("model.arguments", [], "expected a section of `key: value` lines"),
        ("model.arguments.alpha", [1], "expected a number, a word, true or false, got [1]."),
        ("model.arguments.alpha", float("nan"), "expected a finite number, got nan."),
        ("model.arguments.alpha", float("inf"), "expected a finite number, got inf."),
        ("model.head.dropout", 1.0, "expected a number from 0 to below 1, got 1.0."),
        ("model.head.dropout", -0.1, "expected a number from 0 to below 1, got -0.1."),
        ("model.head.hidden.0", {"units": 0}, "expected an integer from 1 to 65536, got 0."),
        ("model.head.hidden", {"units": 3}, "expected a list"),
        (
            "model.head.pooling",
            "avg",
            "expected 'average', 'max', 'sum', 'flatten', 'both', 'statistics'",
        ),
        ("phases", [], "expected at least one phase, or preset"),
        ("phases.0", 3, "expected a section with the keys name, epochs"),
        ("phases.0.name", "1", "expected text ("),
        ("phases.0.epochs", -1, "expected an integer from 0 to 100000, got -1."),
        ("phases.0.learning_rate", 0.0, "expected a number above 0, got 0.0."),
        ("phases.0.learning_rate", float("nan"), "expected a finite number, got nan."),
        ("phases.0.learning_rate", float("inf"), "expected a finite number, got inf."),
        ("phases.0.momentum", 0.9, "expected 0.0 or optimizer: sgd, got 0.9 with 'adam'."),
        (
            "phases.0.batch_norm_momentum",
            0.9,
            "expected none without batch_norm: train, got 0.9.",
        ),
        ("phases.0.weight_decay", 0.1, "expected 0.0 or optimizer: adamw, got 0.1 with 'adam'."),
        ("phases.0.unfreeze", -1, "expected a number of blocks (0 or more), {from: UNIT}, {on"),
        ("phases.0.unfreeze", True, "expected a number of blocks (0 or more), {from: UNIT}, {on"),
        ("phases.0.unfreeze", [], "expected a number of blocks (0 or more), {from: UNIT}, {on"),
        ("phases.0.unfreeze", {"form": "a"}, "expected a number of blocks (0 or more), {from: UN"),
        ("phases.0.unfreeze", ["a", "a"], "expected each name once, got 'a' again."),
        ("phases.1.name", "head", "expected a name of its own, got that of phases[0]."),
        ("early_stopping.patience", 0, "expected an integer, 1 or more, got 0."),
        ("early_stopping.min_delta", -1, "expected a number, 0 or more, got -1."),
        ("export", 0, "expected true, false or a section with formats, got 0."),
        ("export.formats", "weights", "expected a list, got 'weights'."),
        ("export.formats", ["weights", "weights"], "expected each name once"),
        ("baseline", [], "expected scratch, or a section of `key: value` lines"),
    ],
)
def test_wrong_value_is_refused_in_words(values, field, value, expected):
    assert expected in refuse(values, field, value)


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("data.batch_size", "8", "data.batch_size=8 (without quotes)"),
        ("data.batch_size", 9999, "data.batch_size=4096"),
        ("seed", 2**40, "seed=2147483647"),
        ("phases.0.epochs", 5.0, "phases.head.epochs=5"),
        ("phases.0.learning_rate", "1e-3", "phases.head.learning_rate=1e-3 (without quotes)"),
        ("phases.0.optimizer", "adan", "phases.head.optimizer=adam"),
        ("phases.0.momentum", 0.9, "optimizer: sgd"),
        ("deterministic", "no", "deterministic=false"),
        ("data.classes", [7, "8"], '"7"'),
        ("export.formats", "weights", "export.formats=[weights]"),
        ("data.batchsize", 8, "data.batch_size=8"),
        ("trials", 3, "search.trials=3"),
        ("epochs", 3, "phases.head.epochs=3"),
        ("search.space", {"phases.head.epochs": 3}, "{choices: [3, ...]}"),
    ],
)
def test_wrong_value_comes_with_what_to_type(values, field, value, hint):
    assert refuse(values, field, value).endswith(f"Try: {hint}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype_policy", "mixed_float16"),
        ("data.class_weights", "balanced"),
        ("dropout", 0.5),
        ("modle", {"base": "x"}),
    ],
)
def test_no_hint_is_given_where_none_is_likely(values, field, value):
    assert "Try: " not in refuse(values, field, value)


def test_a_hint_leaves_out_a_value_of_another_type(load_text):
    assert "did you mean 'epochs'?\n  Try: epochs:" in load_text("phases: [{name: a, epocs: many}]")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("trials: 3", "Try: search: {trials: 3}"),
        ("data: {classes: [007]}", 'Try: "007"'),
        ("data: {classes: [1e3]}", 'Try: "1e3"'),
        ("name: 0x10", 'Try: name: "0x10"'),
        ("phases: [{name: a, epocs: 007}]", "Try: epochs: 007"),
    ],
)
def test_a_hint_keeps_what_was_typed(load_text, line, hint):
    assert hint in load_text(line)


@pytest.fixture
def load_text(tmp_path):
    """Returns a function that loads a line of YAML as a recipe, and gives its errors."""

    def load(line):
        path = tmp_path / "x.yaml"
        path.write_text(line + "\n")
        with pytest.raises(RecipeError) as caught:
            load_recipe(path)
        return str(caught.value)

    return load


def test_a_list_in_a_search_space_is_its_choices(values):
    space = {"phases.head.epochs": [1, 2], "model.head.dropout": {"choices": [0.1]}}

    search = read(values, search__space=space).search

    assert search.space["phases.head.epochs"].choices == (1, 2)
    assert search.space["model.head.dropout"].choices == (0.1,)


def test_unknown_key_names_the_closest_and_all_others(values):
    text = refuse(values, "phases.0.unfreze", 3)

    assert "phases[0].unfreze: unknown key" in text
    assert "did you mean 'unfreeze'?" in text
    assert "name, epochs, optimizer" in text


@pytest.mark.parametrize(
    ("field", "hint"),
    [("version", "version: 1"), ("data.image_size", "image_size: 224"), ("model", "")],
)
def test_missing_field_says_what_it_is_for(values, field, hint):
    text = refuse(values, f"~{field}", None)

    assert f"{field} is missing" in text
    assert "expected a value: " in text
    assert text.endswith(hint)


@pytest.mark.parametrize("value", [True, {}, {"formats": ["saved_model"]}])
def test_export_true_means_the_default(values, value):
    assert read(values, export=value).export == Export()


def test_export_false_means_none(values):
    assert read(values, export=False).export is False


def test_unknown_key_of_export_has_its_own_place(values):
    assert "export.format: unknown key" in refuse(values, "export", {"format": ["weights"]})


@pytest.mark.parametrize(
    ("unfreeze", "meant"),
    [(2, 2), (["a", "b"], ("a", "b")), ({"from": "conv2"}, UnfreezeFrom(unit="conv2"))],
)
def test_unfreeze_is_a_number_a_unit_or_blocks(values, unfreeze, meant):
    recipe = read(values, phases=[{"name": "a", "epochs": 1, "unfreeze": unfreeze}])

    assert recipe.phases[0].unfreeze == meant


@pytest.mark.parametrize(
    "sources_named", [["train", "csv"], ["csv", "builtin"], ["train", "builtin"]]
)
def test_two_sources_of_data_are_refused(values, sources_named):
    sources = {"train": "a", "csv": "b.csv", "builtin": "digits"}
    data = {"image_size": 28, **{name: sources[name] for name in sources_named}}

    text = refuse(values, "data", data)

    assert (
        f"expected one of train, csv, table or builtin, got {' and '.join(sources_named)}" in text
    )
    assert f"~data.{sources_named[0]}" in text


def test_a_slip_of_the_pen_is_one_problem_not_a_missing_field_besides(values):
    with pytest.raises(RecipeError) as caught:
        build_recipe(
            {**values, "data": {"tran": "photos", "image_size": 28}, "model": {"bas": "lenet5"}}
        )

    assert {problem.what for problem in caught.value.problems} == {
        "data.tran: unknown key",
        "model.bas: unknown key",
        "model.weights is missing",
    }


def test_no_source_of_data_is_refused(values):
    assert "expected one of train, csv, table or builtin, got none" in refuse(
        values, "data", {"image_size": 28}
    )


@pytest.mark.parametrize(
    "changes, place, expected",
    [
        (
            {"augment.mixup": 0.2, "features.store": "always"},
            "features.store = 'always'",
            "each epoch mixes images anew, and mixes are not stored",
        ),
        (
            {"augment.cutmix": 1.0, "features.views": 4},
            "features.views = 4",
            "expected none with augment.cutmix",
        ),
        (
            {"augment.mixup": 0.2, "phases.0.feature_mixup": 0.2},
            "phases[0].feature_mixup = 0.2",
            "an example is mixed once",
        ),
    ],
)
def test_mixed_images_are_not_stored_and_not_mixed_again(values, changes, place, expected):
    with pytest.raises(RecipeError) as caught:
        build_recipe(values, changes)

    assert place in str(caught.value) and expected in str(caught.value)
    assert len(caught.value.problems) == 1


def test_strengths_of_zero_mix_nothing_and_go_with_all(values):
    recipe = read(values, augment__mixup=0, features__views=2, phases__0__feature_mixup=0)

    assert recipe.features.views == 2


def test_folder_of_validation_images_goes_with_train_only(values):
    data = {"builtin": "digits", "image_size": 28, "validation": "a", "test": "b"}

    text = refuse(values, "data", data)

    assert text.count("a folder goes with train, not with builtin") == 2


def test_rules_between_fields_are_told_beside_wrong_fields(values):
    values["phases"][1] |= {"name": "head", "epochs": "x", "momentum": 0.9}
    values["data"] |= {"batch_size": 0, "builtin": "digits"}
    values["extra"] = 1

    with pytest.raises(RecipeError) as caught:
        build_recipe(values)

    actual = {problem.what for problem in caught.value.problems}
    assert actual == {
        "data.batch_size = 0",
        "data.builtin = 'digits'",
        "phases[1].name = 'head'",
        "phases[1].epochs = 'x'",
        "phases[1].momentum = 0.9",
        "extra: unknown key",
    }


REMOTE = ["hdfs:a", "https://a/b", "/gcs/a", "/cns/a", "/hdfs", "a+b://c"]


@pytest.mark.parametrize("path", REMOTE)
@pytest.mark.parametrize("field", ["data.table", "data.exclude", "model.weights", "model.start"])
def test_remote_path_is_refused_in_a_sentence(values, field, path):
    text = refuse(values, field, path)

    assert f"{field} = {path!r}" in text
    assert "expected a local path" in text


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("S3://photos/x", "s3://photos/x"),
        ("S3:/photos/x", "s3://photos/x"),
        ("s3:/photos/x", "s3://photos/x"),
        ("s4://photos/x", "s3://photos/x"),
        ("s3a://photos/x", "s3://photos/x"),
        ("GS://photos/x", "gs://photos/x"),
        ("hdfs://photos/x", "copy the files here and name the local folder"),
        ("s4://me:hunter2@photos/x", "copy the files here and name the local folder"),
    ],
)
@pytest.mark.parametrize(
    "field", ["data.train", "data.table", "data.exclude", "model.weights", "model.start"]
)
def test_the_address_that_is_meant_is_offered(values, field, path, meant):
    text = refuse(values, field, path)

    assert f"Try: {meant}" in text
    assert "hunter2" not in text


def test_the_store_of_features_is_named_among_what_may_have_an_address(values):
    text = refuse(values, "features.location", "s4://photos/features")

    assert "data, features, weights, models and runs may also have addresses" in text
    assert "Try: s3://photos/features" in text


@pytest.mark.parametrize("path", ["hdfs:a", "https://a/b", "/gcs/a", "a+b://c"])
@pytest.mark.parametrize("field", ["data.train", "data.csv", "data.validation"])
def test_images_lie_on_this_machine_or_on_an_object_store(values, field, path):
    assert "expected a local path" in refuse(values, field, path)


@pytest.mark.parametrize("path", ["", "a\0b", "a\udcffb", 3, [], True])
@pytest.mark.parametrize("field", ["data.train", "model.weights"])
def test_what_is_no_path_is_refused(values, field, path):
    assert "expected a path" in refuse(values, field, path)


def test_path_may_hold_spaces_and_any_letters(values):
    path = Path("/data/été {x} %20/花")

    assert read(values, data__train=path).data.train == path


def test_schema_alone_gives_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    data = schema.Data.model_validate({"train": "a", "validation": Path("b"), "image_size": 28})

    assert data.train == tmp_path / "a"
    assert data.validation == tmp_path / "b"


def test_recipe_takes_keyword_arguments(values):
    recipe = Recipe(**values)

    assert recipe.model.base == "lenet5"


def test_the_papers_head_stays_a_word_until_a_plan_resolves_it(values):
    model = read(values, model__base="vgg16", model__head="paper").model

    assert model.head == "paper"
    with pytest.raises(ValueError, match="expected a head that a plan has resolved"):
        _ = model.classifier


def test_a_word_that_is_no_head_is_refused(values):
    assert "expected paper, or a section" in refuse(values, "model.head", "Paper")


def test_an_unknown_edge_filter_is_refused_with_the_known_ones(values):
    message = refuse(values, "model.edge_filter", "krisch")

    assert "kirsch" in message
