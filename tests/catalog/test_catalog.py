import json
import subprocess
import sys
from types import SimpleNamespace

import keras
import pytest

from tl_toolkit.catalog.lookup import (
    ARCHITECTURES,
    check_arguments,
    check_image_size,
    complete_arguments,
    find_architecture,
    find_block_name,
    find_unit_name,
    find_weight_file,
    read_variants,
    resolve_unfreeze,
)
from tl_toolkit.errors import RecipeError

MOBILENET = ARCHITECTURES["mobilenet"]
MOBILENET_V2 = ARCHITECTURES["mobilenet_v2"]
LENET = ARCHITECTURES["lenet5"]


def run_python(script):
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout


def test_the_catalog_imports_nothing_slow():
    script = (
        "import sys, tl_toolkit.catalog.lookup as c; c.read_variants('mobilenet_v2');"
        "print(sorted({'keras', 'tensorflow', 'numpy', 'h5py', 'pydantic'} & set(sys.modules)))"
    )

    assert run_python(script).strip() == "[]"


def test_a_misspelt_base_is_named_with_the_closest_one():
    with pytest.raises(RecipeError, match=r"model\.base = 'mobilnet'\n.*mean 'mobilenet'\?"):
        find_architecture("mobilnet")


def test_a_base_like_no_other_is_refused_with_where_to_look():
    expected = rf"one of {len(ARCHITECTURES)} names\.\n  Try: tltool models list"

    with pytest.raises(RecipeError, match=expected):
        find_architecture("zzz")


def test_unfreeze_zero_trains_no_unit():
    assert resolve_unfreeze(MOBILENET, 0) == ()


def test_unfreeze_one_trains_the_units_of_the_last_block():
    assert resolve_unfreeze(MOBILENET, 1) == ("conv_dw_12", "conv_dw_13")


def test_unfreeze_as_many_blocks_as_there_are_trains_every_unit():
    assert resolve_unfreeze(MOBILENET, 5) == tuple(unit.name for unit in MOBILENET.units)


@pytest.mark.parametrize("count", [-1, 6, True])
def test_unfreeze_out_of_range_names_the_range_and_the_blocks(count):
    expected = (
        rf"unfreeze = {count}\n  mobilenet has 5 blocks "
        r"\(block1, block2, block3, block4, block5\): expected 0 to 5\."
    )

    with pytest.raises(RecipeError, match=expected):
        resolve_unfreeze(MOBILENET, count)


def test_unfreeze_from_a_unit_trains_it_and_all_after_it():
    units = resolve_unfreeze(MOBILENET_V2, SimpleNamespace(unit="block_15"))

    assert units == ("block_15", "block_16", "Conv_1")


def test_unfreeze_from_an_unknown_unit_names_the_closest():
    with pytest.raises(RecipeError, match=r"from = 'conv_dw12'\n.*did you mean 'conv_dw_12'\?"):
        resolve_unfreeze(MOBILENET, SimpleNamespace(unit="conv_dw12"))


def test_unfreeze_from_a_block_names_its_first_unit():
    with pytest.raises(RecipeError, match="'block5' is a block; its first unit is 'conv_dw_12'"):
        resolve_unfreeze(MOBILENET, SimpleNamespace(unit="block5"))


def test_unfreeze_by_names_gives_units_in_the_order_of_the_network():
    assert resolve_unfreeze(LENET, ("f6", "c3")) == ("c3", "f6")


def test_unfreeze_by_names_refuses_a_unit_and_says_how_to_write_it():
    with pytest.raises(
        RecipeError, match=r"'conv_dw_12' is a unit: unfreeze: \{from: conv_dw_12\}"
    ):
        resolve_unfreeze(MOBILENET, ("block1", "conv_dw_12"))


def test_arguments_are_completed_in_their_own_types():
    values = complete_arguments(MOBILENET, {"alpha": 1})

    assert values == {"alpha": 1.0}
    assert isinstance(values["alpha"], float)


@pytest.mark.parametrize(
    ("architecture", "arguments", "expected"),
    [
        (MOBILENET, {"alpha": 0}, r"alpha = 0\n  Expected 0\.03125 to 4\."),
        (MOBILENET, {"alpha": float("nan")}, r"alpha = nan\n  Expected 0\.03125 to 4\."),
        (MOBILENET, {"alpha": "wide"}, "Expected a number, got str"),
        (MOBILENET, {"alpha": True}, "Expected a number, got bool"),
        (MOBILENET, {"alhpa": 0.5}, r"has no argument 'alhpa'; did you mean 'alpha'\?"),
        (LENET, {"pooling": "least"}, r"Expected one of: average, max, sum\."),
        (LENET, {"width": 1.5}, "Expected a whole number, got float"),
    ],
)
def test_a_wrong_argument_is_refused(architecture, arguments, expected):
    with pytest.raises(RecipeError, match=expected):
        complete_arguments(architecture, arguments)


@pytest.mark.parametrize(
    ("architecture", "arguments", "hint"),
    [
        (MOBILENET, {"alpha": 0}, "alpha=0.25"),
        (MOBILENET, {"alpha": 9.5}, "alpha=1.0"),
        (MOBILENET, {"alpha": "wide"}, "alpha=1.0"),
        (MOBILENET, {"alpha": float("nan")}, "alpha=1.0"),
        (MOBILENET, {"alhpa": 0.5}, "alpha=0.5"),
        (LENET, {"pooling": "avrage"}, "pooling=average"),
    ],
)
def test_a_wrong_argument_comes_with_what_to_type(architecture, arguments, hint):
    (problem,) = check_arguments(architecture, arguments).values()

    assert problem.hint == f"model.arguments.{hint}"


def test_all_wrong_arguments_are_told_together():
    problems = check_arguments(LENET, {"pooling": "least", "width": 0, "activation": "relu"})

    assert sorted(problems) == ["pooling", "width"]


def test_a_large_enough_image_has_no_problem():
    assert check_image_size(MOBILENET, (32, 48)) is None


@pytest.mark.parametrize(("side", "near"), [(20, 16), (250, 256)])
def test_a_size_between_two_steps_is_refused_with_the_nearest(side, near):
    problem = check_image_size(ARCHITECTURES["unet"], (side, 32))

    assert check_image_size(ARCHITECTURES["unet"], (near, 32)) is None
    assert "unet needs sizes of 16 plus a multiple of 16" in str(problem)
    assert f"data.image_size=[{near}, 32]" in str(problem)


def test_layers_of_mobilenet_are_told_to_their_unit():
    layers = ("conv1_bn", "conv_pad_2", "conv_dw_2_bn", "conv_pw_2_relu", "head_output")

    units = [find_unit_name(MOBILENET, layer) for layer in layers]

    assert units == ["conv1", "conv_dw_2", "conv_dw_2", "conv_dw_2", None]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_unit_belongs_to_the_block_it_stands_in(name):
    architecture = ARCHITECTURES[name]

    for block in architecture.blocks:
        assert {find_block_name(architecture, unit.name) for unit in block.units} == {block.name}


def test_the_weight_file_of_a_listed_size_is_the_one_of_that_size():
    file = find_weight_file(MOBILENET, {"alpha": 0.75}, (160, 160))

    assert file.name == "mobilenet_7_5_160_tf_no_top.h5"


@pytest.mark.parametrize("image_size", [(100, 100), (160, 128), (64, 64)])
def test_other_sizes_take_the_weight_file_of_the_default_size(image_size):
    file = find_weight_file(MOBILENET_V2, {"alpha": 1}, image_size)

    assert file.name == "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"


def test_arguments_that_no_file_was_trained_with_have_no_weight_file():
    assert find_weight_file(MOBILENET, {"alpha": 0.3}, (224, 224)) is None
    assert find_weight_file(LENET, {}, (32, 32)) is None


@pytest.mark.parametrize("name", ["densenet121", "pixelnet"])
def test_a_dropout_takes_the_file_of_the_same_weights(name):
    architecture = ARCHITECTURES[name]

    file = find_weight_file(architecture, {"dropout": 0.2}, (224, 224))

    assert file is not None
    assert file == find_weight_file(architecture, {}, (224, 224))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_shapes_hold_as_many_numbers_as_there_are_parameters(name):
    arguments, shapes = read_variants(name)[0]

    total = 0
    for weights in shapes.values():
        for shape in weights:
            count = 1
            for n in shape:
                count *= n
            total += count
    assert arguments == {}
    assert total == ARCHITECTURES[name].parameters


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_size_that_is_advised_is_a_size_that_is_accepted(name):
    architecture = ARCHITECTURES[name]
    least = architecture.minimum_size

    for size in ((8, 8), (least - 1, least), (least + 1, least + 7)):
        problem = check_image_size(architecture, size)
        if problem is not None:
            advised = json.loads(problem.hint.removeprefix("data.image_size="))
            advised = tuple(advised) if isinstance(advised, list) else (advised, advised)
            assert check_image_size(architecture, advised) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "argument"),
    [
        (name, argument)
        for name in ("lenet5", "lenet5_1998", "alexnet", "resnet50", "densenet_bc40",
                     "efficientnet_b0")
        for argument, record in ARCHITECTURES[name].arguments.items()
        if record.alike
    ],
)  # fmt: skip
def test_values_that_are_alike_have_the_same_weights(name, argument):
    from tl_toolkit.architectures.graph import build_base

    architecture = ARCHITECTURES[name]

    def shapes(arguments):
        channels = 1 if name.startswith("lenet") else 3
        image = keras.Input((architecture.minimum_size, architecture.minimum_size, channels))
        model = keras.Model(image, build_base(architecture, image, arguments))
        return [(layer.name, [w.shape for w in layer.weights]) for layer in model.layers
                if layer.weights]  # fmt: skip

    record = architecture.arguments[argument]
    for value in record.alike:
        assert shapes({argument: value}) == shapes({})


def test_a_file_in_place_of_a_base_is_told_its_section():
    with pytest.raises(RecipeError, match=r"Try: model\.base=\{model: map\.keras\}"):
        find_architecture("map.keras")
