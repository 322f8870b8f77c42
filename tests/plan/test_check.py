"""The meaning of a recipe: names, ranges, files and classes, told at once and in their place."""

import importlib.util
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from tl_toolkit.catalog.lookup import ARCHITECTURES, read_variants
from tl_toolkit.errors import DataError, RecipeError, ToolkitError, WeightsError
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.space import resolve_space
from tl_toolkit.recipe.load import build_recipe, load_recipe

TEXT = """\
version: 1
name: insects
data:
  train: photos
  image_size: 64
model:
  base: mobilenet
  arguments: {alpha: 0.25}
  weights: random
phases:
  - name: head
    epochs: 5
  - name: tune
    epochs: 2
    unfreeze: {from: conv_dw_12}
"""


@pytest.fixture(autouse=True)
def _no_cached_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path):
    return draw_folder(tmp_path / "photos", ants=8, bees=8)


@pytest.fixture
def recipe(tmp_path, photos):
    path = tmp_path / "x.yaml"
    path.write_text(TEXT)
    return path


def draw_folder(folder, **classes):
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.png").write_text(f"never decoded: {folder}")
    return folder


def check(path, *overrides):
    return check_recipe(load_recipe(path, overrides))


def refuse(path, *overrides, error=RecipeError):
    with pytest.raises(ToolkitError) as caught:
        check(path, *overrides)
    assert type(caught.value) is error
    return caught.value.problems


def write_weights(path, base="mobilenet", variant=1):
    """Writes zeros in the layout of keras.applications for a variant of the catalog."""
    with h5py.File(path, "w") as file:
        layers = read_variants(base)[variant][1]
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, shapes in layers.items():
            group = file.create_group(name)
            names = [f"{name}/weight{index}:0" for index in range(len(shapes))]
            group.attrs["weight_names"] = [text.encode() for text in names]
            for text, shape in zip(names, shapes, strict=True):
                group[text] = np.zeros(shape, np.float32)
    return path


def test_valid_recipe_gives_a_summary(recipe):
    summary = check(recipe)

    assert summary.classes == ("ants", "bees")
    assert summary.images == {"to be split": {"ants": 8, "bees": 8}}
    assert summary.units == {"head": (), "tune": ("conv_dw_12", "conv_dw_13")}
    assert summary.weights_file is None
    assert summary.as_json()["images"] == {"to be split": {"ants": 8, "bees": 8}}
    assert summary.describe().splitlines() == [
        "base     mobilenet, alpha 0.25; weights random",
        "classes  2: ants, bees",
        "images   16 to be split",
        "phases   head 5 epochs (head); tune 2 epochs (head and 2 units from conv_dw_12)",
    ]


def test_builtin_digits_are_valid(recipe):
    summary = check(recipe, "~data.train", "data.builtin=digits")

    assert summary.classes == tuple("0123456789")
    assert sum(summary.images["to be split"].values()) == 1797


def test_folders_are_counted_by_split(recipe, tmp_path):
    draw_folder(tmp_path / "val", ants=3, bees=2)

    summary = check(recipe, "data.validation=val")

    assert summary.images == {
        "train": {"ants": 8, "bees": 8},
        "validation": {"ants": 3, "bees": 2},
    }


def test_unknown_base_names_the_closest(recipe):
    (problem,) = refuse(recipe, "model.base=mobilnet")

    assert problem.where == "override model.base=mobilnet"
    assert problem.what == "model.base = 'mobilnet'"
    assert "did you mean 'mobilenet'?" in problem.expected


def test_base_like_nothing_known_is_told_where_to_look(recipe):
    (problem,) = refuse(recipe, "model.base=zzz")

    assert problem.expected == f"Unknown base; expected one of {len(ARCHITECTURES)} names."
    assert problem.hint == "tltool models list"


@pytest.mark.parametrize(
    ("override", "what", "expected"),
    [
        ("model.arguments.alhpa=1", "model.arguments.alhpa = 1", "did you mean 'alpha'?"),
        ("model.arguments.alpha=99", "model.arguments.alpha = 99", "0.03125 to 4"),
        ("model.arguments.alpha=wide", "model.arguments.alpha = 'wide'", "a number"),
        ("model.arguments.alpha=true", "model.arguments.alpha = True", "a number"),
        ("data.image_size=28", "data.image_size = [28, 28]", "at least 32 x 32 pixels"),
        ("data.image_size=[64, 31]", "data.image_size = [64, 31]", "at least 32 x 32 pixels"),
        ("phases.tune.unfreeze=6", "phases[1].unfreeze = 6", "expected 0 to 5."),
        ("phases.tune.unfreeze=[blok5]", "phases[1].unfreeze = 'blok5'", "did you mean 'block"),
        ("phases.tune.unfreeze=[conv_dw_3]", "phases[1].unfreeze = 'conv_dw_3'", "is a unit"),
        ("phases.tune.unfreeze.from=block4", "phases[1].unfreeze.from = 'block4'", "is a block"),
        (
            "phases.tune.unfreeze.from=conv_dw_21",
            "phases[1].unfreeze.from = 'conv_dw_21'",
            "did you mean 'conv_dw_",
        ),
    ],
)
def test_value_against_the_catalog_is_refused(recipe, override, what, expected):
    (problem,) = refuse(recipe, override)

    assert problem.where == f"override {override}"
    assert problem.what == what
    assert expected in problem.expected


@pytest.mark.parametrize("unfreeze", ["0", "5", "[block5, block2]", "{from: conv1}"])
def test_every_part_of_the_base_may_train(recipe, unfreeze):
    check(recipe, f"phases.tune.unfreeze={unfreeze}", "phases.tune.batch_norm=train")


def test_pooling_is_refused_where_there_is_no_map(recipe):
    problems = refuse(
        recipe,
        "model={base: lenet5, weights: random, head: {pooling: max}}",
        "phases.tune.unfreeze=1",
    )

    assert [problem.what for problem in problems] == ["model.head.pooling = 'max'"]
    assert "lenet5 ends in a vector" in problems[0].expected


def test_sigmoid_takes_two_classes(recipe, tmp_path):
    check(recipe, "model.head.activation=sigmoid")
    draw_folder(tmp_path / "photos", wasps=3)

    (problem,) = refuse(recipe, "model.head.activation=sigmoid")

    assert "expected exactly 2 classes for a sigmoid, got 3." in problem.expected


def test_sigmoid_counts_the_classes_that_are_selected(recipe, tmp_path):
    draw_folder(tmp_path / "photos", wasps=3)

    check(recipe, "model.head.activation=sigmoid", "data.classes=[wasps, ants]")


def test_missing_folder_is_an_error_of_the_data(recipe):
    (problem,) = refuse(recipe, "data.train=fotos", error=DataError)

    assert problem.where == "override data.train=fotos"
    assert "data.train: " in problem.what
    assert "fotos' does not exist" in problem.what
    assert "photos" in str(problem)


def test_folder_with_one_class_is_refused(recipe, photos):
    shutil.rmtree(photos / "bees")

    (problem,) = refuse(recipe, error=DataError)

    assert problem.where == f"{recipe}:4:3"
    assert "one class only (ants)" in problem.what


def test_classes_that_differ_between_splits_are_refused(recipe, tmp_path):
    draw_folder(tmp_path / "val", ants=2, wasps=2)

    problems = refuse(recipe, "data.validation=val", error=DataError)

    assert {problem.where for problem in problems} == {"override data.validation=val"}
    assert any("no folder for 'bees'" in problem.what for problem in problems)
    assert any("wasps" in problem.what for problem in problems)


def test_class_too_small_to_be_split_is_refused(recipe, tmp_path):
    draw_folder(tmp_path / "photos", wasps=2)
    check(recipe)

    (problem,) = refuse(recipe, "data.test=0.1", error=DataError)

    assert problem.where == f"{recipe}:4:3"
    assert problem.what == "data.train: too few images of 'wasps' (2)"
    assert "at least 3 of each class, for train and validation and test" in problem.expected


def test_imagenet_is_refused_where_nothing_was_published(recipe):
    overrides = ["~model.arguments", "model.base=lenet5", "phases.tune.unfreeze=1"]

    (problem,) = refuse(recipe, "model.weights=imagenet", *overrides)

    assert problem.where == "override model.weights=imagenet"
    assert "no ImageNet weights of lenet5 were ever published" in problem.expected
    assert problem.hint == "weights: random"


def test_imagenet_names_the_arguments_that_were_published(recipe):
    (problem,) = refuse(recipe, "model.weights=imagenet", "model.arguments.alpha=0.3")

    assert "alpha 0.25, 0.5, 0.75, 1.0 only" in problem.expected


def test_imagenet_that_is_not_here_yet_will_be_fetched(recipe):
    summary = check(recipe, "model.weights=imagenet")

    assert not summary.is_fetched
    assert "(is not here: will be fetched" in summary.describe()
    assert "which takes a network)" in summary.describe()
    assert summary.weights_file.name == "mobilenet_2_5_224_tf_no_top.h5"


def test_broken_file_in_the_cache_is_an_error_of_the_weights(recipe, tmp_path):
    (tmp_path / "keras/models").mkdir(parents=True)
    (tmp_path / "keras/models/mobilenet_2_5_224_tf_no_top.h5").write_text("<html>not found</html>")

    (problem,) = refuse(recipe, "model.weights=imagenet", error=WeightsError)

    assert "is an error page" in problem.what


def test_weight_file_that_fits_is_accepted(recipe, tmp_path):
    path = write_weights(tmp_path / "w.h5")

    summary = check(recipe, "model.weights=w.h5")

    assert summary.weights_file == path
    assert summary.is_fetched


def test_weight_file_of_another_width_is_told_by_its_name(recipe, tmp_path):
    write_weights(tmp_path / "w.h5", variant=3)

    (problem,) = refuse(recipe, "model.weights=w.h5", error=WeightsError)

    assert problem.where == "override model.weights=w.h5"
    assert "holds the weights of mobilenet with alpha = 0.75" in problem.what


def test_weight_file_without_a_layer_is_refused(recipe, tmp_path):
    with h5py.File(write_weights(tmp_path / "w.h5"), "a") as file:
        names = [name for name in file.attrs["layer_names"] if name != "conv_dw_3"]
        file.attrs["layer_names"] = names

    (problem,) = refuse(recipe, "model.weights=w.h5", error=WeightsError)

    assert "the file has no conv_dw_3" in problem.what


def test_shapes_of_a_base_that_ends_in_a_vector_are_compared_at_its_own_size(recipe, tmp_path):
    path = write_weights(tmp_path / "w.h5", "lenet5", 0)
    overrides = ["model={base: lenet5, weights: w.h5}", "phases.tune.unfreeze=1"]
    check(recipe, *overrides, "data.image_size=32")
    with h5py.File(path, "a") as file:
        del file["f6_dense/f6_dense/weight0:0"]
        file["f6_dense/f6_dense/weight0:0"] = np.zeros((7, 7), np.float32)

    (problem,) = refuse(recipe, *overrides, "data.image_size=32", error=WeightsError)

    assert "f6_dense has" in problem.what


def test_weight_file_is_not_compared_under_wrong_arguments(recipe, tmp_path):
    write_weights(tmp_path / "w.h5")

    problems = refuse(recipe, "model.weights=w.h5", "model.arguments.alpha=99")

    assert [problem.what for problem in problems] == ["model.arguments.alpha = 99"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 17\n", "is a Git LFS pointer"),
        (b"just a note", "is a text file"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 5, "is a damaged HDF5 file"),
    ],
)
def test_file_that_holds_no_weights_is_told_for_what_it_is(recipe, tmp_path, content, expected):
    (tmp_path / "w.h5").write_bytes(content)

    (problem,) = refuse(recipe, "model.weights=w.h5", error=WeightsError)

    assert expected in problem.what


def test_missing_weight_file_is_refused(recipe):
    (problem,) = refuse(recipe, "model.weights=w.h5", error=WeightsError)

    assert "w.h5' is not there" in problem.what


def test_misspelt_word_for_weights_is_guessed(recipe):
    (problem,) = refuse(recipe, "model.weights=imagnet", error=WeightsError)

    assert problem.hint == "weights: imagenet"


def test_all_problems_come_in_one_pass_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "x.yaml"
    (tmp_path / "w.h5").write_text("note")
    changed = TEXT.replace("random", "w.h5").replace("64", "16").replace("conv_dw_12", "conv_99")
    path.write_text(changed)

    problems = refuse(path.name)

    assert [problem.where for problem in problems] == [
        "x.yaml:4:3",
        "x.yaml:5:3",
        "x.yaml:9:3",
        "x.yaml:15:16",
    ]
    assert all(problem.expected for problem in problems)


@pytest.mark.parametrize(
    ("overrides", "error", "code"),
    [
        (["data.train=no", "model.weights=no.h5", "data.image_size=16"], RecipeError, 2),
        (["data.train=no", "model.weights=no.h5"], DataError, 3),
        (["model.weights=no.h5"], WeightsError, 3),
    ],
)
def test_exit_code_is_that_of_the_recipe_before_that_of_files(recipe, overrides, error, code):
    refuse(recipe, *overrides, error=error)

    assert error.exit_code == code


def test_baseline_is_checked_and_located_at_its_change(tmp_path, recipe):
    path = tmp_path / "y.yaml"
    path.write_text(
        f"{TEXT}baseline:\n  phases.tune.unfreeze: 9\n  phases.0.unfreeze: [x]\n"
        "  model.weights: no.h5\n  model.head.activation: softmax\n"
    )

    problems = refuse("y.yaml")

    assert [problem.where for problem in problems] == [f"y.yaml:{n}:3" for n in (17, 18, 19)]
    assert all(problem.what.startswith("with its baseline, ") for problem in problems)


def test_problem_of_recipe_and_baseline_is_told_once(recipe):
    problems = refuse(recipe, "data.image_size=16", "baseline.model.weights=random")

    assert len(problems) == 1


def test_recipe_built_in_python_is_checked(photos):
    values = {
        "version": 1,
        "name": "a",
        "data": {"train": photos, "image_size": 64},
        "model": {"base": "mobilenet", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1, "unfreeze": 9}],
    }

    with pytest.raises(RecipeError, match=r"recipe  phases\[0\].unfreeze = 9"):
        check_recipe(build_recipe(values))


@pytest.fixture
def recipe_of_edges(tmp_path):
    for folder in ("images", "masks"):
        draw_folder(tmp_path / "drawn", **{folder: 8})
    path = tmp_path / "edges.yaml"
    text = TEXT.replace("data:", "task: edges\ndata:").replace("photos", "drawn")
    path.write_text(text + "pixels:\n  taps: [conv1_relu, conv_pw_3_relu]\n")
    return path


@pytest.mark.parametrize(
    ("name", "near"),
    [("conv_pw_3_rellu", "conv_pw_3_relu"), ("hello", ""), ("conv_pw_99_relu", ""), ("block2", "")],
)
def test_a_tap_that_no_layer_has_the_name_of_is_refused(recipe_of_edges, name, near):
    override = f"pixels.taps=[conv1_relu, {name}]"

    (problem,) = refuse(recipe_of_edges, override, "phases.tune.unfreeze=0")

    assert problem.where == f"override {override}"
    assert problem.what == f"pixels.taps[1] = {name!r}"
    assert "mobilenet has no such layer or unit" in problem.expected and near in problem.expected


def test_a_word_for_several_taps_is_no_tap_of_a_list(recipe):
    (problem,) = refuse(recipe, "model.head.taps=[inner]")
    (misspelt,) = refuse(recipe, "model.head.taps=innr")

    assert problem.what == "model.head.taps[0] = 'inner'"
    assert problem.hint == "model.head.taps=inner"
    assert misspelt.hint == "model.head.taps=inner"


@pytest.mark.parametrize("name", ["conv_pw_3_relu", "conv_dw_3", "conv_pw_3_bn"])
def test_what_lies_behind_the_last_tap_cannot_train(recipe_of_edges, name):
    taps = f"pixels.taps=[conv1_relu, {name}]"

    (problem,) = refuse(recipe_of_edges, taps)
    actual = check(recipe_of_edges, taps, "phases.tune.unfreeze.from=conv_dw_3")

    assert problem.where == f"{recipe_of_edges}:16:16"
    assert problem.what == "phases[1].unfreeze: conv_dw_12, conv_dw_13 would train"
    assert problem.expected.startswith("expected conv_dw_3 or a unit before it")
    assert problem.hint == "unfreeze: {from: conv_dw_3}"
    assert actual.units["tune"][0] == "conv_dw_3"


def test_a_field_of_the_space_that_is_none_is_named_once(recipe):
    [problem] = refuse(recipe, "search.space={phases.tune.epoch: {choices: [1, 2, 3]}}")

    assert problem.what == "search.space: phases.tune.epoch is no field"
    assert problem.hint == "phases.tune.epochs in place of phases.tune.epoch"


def test_a_search_may_not_train_what_lies_behind_the_last_tap(recipe_of_edges):
    base = ["pixels.taps=[c5_conv]", "~model.arguments", "model.base=lenet5"]
    base.append("phases.tune.unfreeze=0")
    space = "search.space={phases.tune.unfreeze: {min: 0, max: 3}}"

    (problem,) = refuse(recipe_of_edges, *base, space)
    actual = check(recipe_of_edges, *base, "search={}")

    assert "with phases.tune.unfreeze = 1, phases[1].unfreeze: f6 would train" in problem.what
    assert resolve_space(actual.recipe)["phases.tune.unfreeze"].values == (0, 2, 3, 4)


def test_a_tap_of_a_layer_that_no_rule_tells_is_left_to_the_graph(recipe_of_edges):
    base = ["~model.arguments", "model.base=pixelnet", "pixels.taps=[block1_pool]"]

    assert check(recipe_of_edges, *base, "phases.tune.unfreeze=1").recipe.pixels.taps


CODE = """
import sys
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.errors import ToolkitError
from tl_toolkit.recipe.load import load_recipe
try:
    check_recipe(load_recipe("x.yaml", sys.argv[1:]))
except ToolkitError as error:
    print(error)
heavy = {"numpy", "tensorflow", "keras", "sklearn", "h5py"} & set(sys.modules)
print(sorted(heavy))
"""


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param([], marks=pytest.mark.slow),
        ["model.weights=x.yaml", "phases.tune.unfreeze=[x]"],
    ],
)
def test_check_imports_nothing_heavy(recipe, overrides):
    result = subprocess.run(
        [sys.executable, "-c", CODE, *overrides], capture_output=True, text=True, check=True
    )

    assert result.stdout.splitlines()[-1] == "[]"


def test_check_opens_no_image(recipe, photos):
    opened = []
    is_on = [True]  # A hook stays for the life of the process.
    sys.addaudithook(lambda event, values: is_on and event == "open" and opened.append(values[0]))

    check(recipe)
    is_on.clear()

    assert opened  # The hook sees what the check opens: the recipe's neighbours.
    assert not [path for path in opened if str(photos) in str(path)]


def test_a_warm_up_that_its_phase_does_not_outlast_is_a_warning(recipe):
    schedule = "phases.tune.learning_rate={kind: cosine, initial: 0.01, warmup_epochs: 5}"

    short = check(recipe, schedule)
    long = check(recipe, schedule, "phases.tune.epochs=6")
    (text,) = short.warnings

    assert "the warm-up of phase tune takes 5 epochs, the phase has 2" in text
    assert "Try: phases.tune.learning_rate.warmup_epochs=1" in text
    assert short.describe().splitlines()[-1] == f"warning  {text}"
    assert long.warnings == [] and "warning" not in long.describe()


def test_a_plan_is_shown_in_a_line(recipe):
    assert repr(check(recipe)) == (
        "Plan('insects', base='mobilenet', 16 to be split; "
        "head 5 epochs (head); tune 2 epochs (head and 2 units from conv_dw_12))"
    )


def test_a_plateau_that_no_epoch_can_reach_is_a_warning(write_recipe, tmp_path, draw_photos):
    rate = {"kind": "plateau", "initial": 0.1, "patience": 3}
    phases = [{"name": "head", "epochs": 9, "learning_rate": rate}]
    path = write_recipe(tmp_path / "r.yaml", draw_photos(tmp_path / "photos"), phases=phases)

    plain = check_recipe(load_recipe(path))
    stopped = check_recipe(load_recipe(path, ["early_stopping.patience=3"]))

    assert plain.warnings == []
    (text,) = stopped.warnings
    assert text.startswith("the rate of phase head falls after 3 epochs without a better result")
    assert text.endswith("Try: phases.head.learning_rate.patience=1")


def accumulate(phase, count):
    return f"phases.{phase}.optimizer={{kind: adam, accumulate: {count}}}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["phases.tune.unfreeze={gradual: 2}", accumulate("tune", 3)], "all epochs of tune-1"),
        # 16 images in 4 folds: 12 in each training, 3 batches in each of 5 epochs.
        (
            ["data.folds=4", "data.batch_size=4", "~phases.tune", accumulate("head", 16)],
            "at most 15",
        ),
        (["baseline={phases.tune.optimizer: {kind: adam, accumulate: 5}}"], "with its baseline"),
        (
            ["search.space={phases.tune.optimizer.accumulate: [1, 5]}"],
            "with phases.tune.optimizer.accumulate = 5",
        ),
    ],
)
def test_gradients_that_never_change_a_weight_are_refused(recipe, overrides, message):
    problems = refuse(recipe, "data.batch_size=8", *overrides)

    assert any(message in str(problem) for problem in problems), problems


def test_a_format_that_is_not_installed_is_told_at_its_place(recipe, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else found(name)
    )

    with pytest.raises(RecipeError, match=r"export.formats.*not installed: openvino"):
        check_recipe(load_recipe(recipe, ["export.formats=[openvino]"]))


def test_a_sampler_that_is_not_installed_names_its_extra(recipe, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name)
    )

    with pytest.raises(
        RecipeError, match=r"search\.algorithm = 'tpe'(.|\n)*pip install 'tl-toolkit\[optuna\]'"
    ):
        check_recipe(load_recipe(recipe, ["search.algorithm=tpe"]))
    check_recipe(load_recipe(recipe, ["search.algorithm=bayesian"]))


def test_the_oldest_tensorflow_may_be_a_number_of_yaml(recipe):
    def read(value):
        return load_recipe(recipe, [f"export.min_tensorflow={value}"]).recipe.export.min_tensorflow

    assert read("2.20") == "2.20"
    assert read("2.15") == "2.15"
    with pytest.raises(RecipeError, match="min_tensorflow"):
        read("2.16")
