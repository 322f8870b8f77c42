"""What holds for every architecture of the catalog."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models import build_transfer, measure_parts
from tl_toolkit.architectures.graph import find_cuts, layer_variables
from tl_toolkit.catalog.lookup import ARCHITECTURES, check_image_size, find_architecture
from tl_toolkit.recipe.schema import Phase
from tl_toolkit.training.optimizers import build_optimizer
from tl_toolkit.training.steps import Steps
from tl_toolkit.transfer.freezing import check_whole, digest_variables, split_at
from tl_toolkit.transfer.receipt import write_receipt

TOO_LARGE = 100_000_000
"""Parameters above which an architecture is drawn and counted, and never run."""


def smallest_of_each_family():
    smallest = {}
    for name, one in ARCHITECTURES.items():
        best = smallest.get(one.family)
        if best is None or one.parameters < ARCHITECTURES[best].parameters:
            smallest[one.family] = name
    return set(smallest.values())


SMALLEST = smallest_of_each_family()
"""Slow tests of the other members take turns in CI."""

LIGHT = {"lenet5_1998", "vgg_tiny"}
"""Members that are computed with by default."""

DRAWN = LIGHT | {"alexnet", "mobilenet", "pixelnet_c12345", "resnet20", "unet_valid", "vgg11"}
"""Members that are drawn by default."""


@pytest.fixture(scope="session")
def read(drawn, outline):
    """A base as a graph; with values only where other tests compute with them too."""
    return lambda name: drawn(name) if name in LIGHT else outline(name)


TRAINED = {"vgg_tiny"}


def parametrize(names, *, default=DRAWN):
    """Marks as slow what is not in `default`, and lets take turns what stands for no family."""

    def mark(name):
        if name in default:
            return name
        turns = [] if name in SMALLEST else [pytest.mark.turns]
        return pytest.param(name, marks=[pytest.mark.slow, *turns])

    return pytest.mark.parametrize("name", list(map(mark, names)))


RUNNABLE = [name for name, one in ARCHITECTURES.items() if one.parameters <= TOO_LARGE]

each_architecture = parametrize(ARCHITECTURES)
each_that_is_drawn_twice = parametrize(ARCHITECTURES, default=LIGHT)
each_that_runs = parametrize(RUNNABLE, default=LIGHT)
each_that_trains = parametrize(RUNNABLE, default=TRAINED)


def random_images(count, size, *, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3))
    return values.astype("float32")


def all_names(blocks):
    """Blocks, units, operations and weights of a drawn base, by their canonical names."""
    return [
        [
            block.name,
            [
                [
                    unit.name,
                    unit.end_layer,
                    [operation.name for operation in unit.operations],
                    [
                        [v.layer, v.index, list(v.shape)]
                        for layer in unit.layers
                        for v in layer_variables(layer)
                    ],
                ]
                for unit in block.units
            ],
        ]
        for block in blocks
    ]


@each_architecture
def test_it_builds_at_its_minimum_size(name, read):
    base = read(name)

    assert all(n >= 1 for n in base.features.shape[1:])
    assert len(base.features.shape) == {"map": 4, "vector": 2}[ARCHITECTURES[name].output]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_image_below_the_minimum_size_is_refused_by_name(name):
    architecture = ARCHITECTURES[name]
    least = architecture.minimum_size

    problem = check_image_size(architecture, (least, least - 1))

    assert check_image_size(architecture, (least, least)) is None
    assert f"{name} needs images of at least {least} x {least} pixels" in str(problem)


@each_that_runs
@pytest.mark.parametrize("count", [1, 3])
def test_its_outputs_are_finite(name, count, drawn):
    base = drawn(name)

    outputs = base.model(random_images(count, ARCHITECTURES[name].minimum_size))

    assert outputs.shape[0] == count
    assert np.isfinite(outputs).all()


@each_that_runs
def test_every_weight_gets_a_gradient(name, drawn):
    model = drawn(name).model
    images = random_images(3, ARCHITECTURES[name].minimum_size)

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images, training=False) ** 2)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])

    assert len(gradients) > 0
    without = [
        v.path
        for v, g in zip(model.trainable_variables, gradients, strict=True)
        if g is None or not np.isfinite(g).all()
    ]
    assert without == []


@each_that_is_drawn_twice
def test_a_second_build_has_the_same_names(name, draw, drawn):
    first = drawn(name)

    second = draw(name, size=ARCHITECTURES[name].minimum_size)

    assert all_names(second.blocks) == all_names(first.blocks)
    assert [op.name for op in second.model.operations] == [op.name for op in first.model.operations]


def names_in_another_process(names):
    # It draws in the opposite order, so that counters of Keras stand elsewhere.
    script = """
import json, sys
sys.path[:0] = [{tests!r}]
from conftest import draw
from test_contract import all_names
from tl_toolkit.catalog.lookup import ARCHITECTURES
found = {{n: all_names(draw(n, size=ARCHITECTURES[n].minimum_size).blocks) for n in {names!r}}}
print(json.dumps(found))
""".format(tests=__file__.rpartition("/")[0], names=list(reversed(names)))
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow  # by default a second build in this process finds what depends on a counter
def test_another_process_gives_the_same_names(drawn):
    names = [name for name in ARCHITECTURES if name in LIGHT]

    theirs = names_in_another_process(names)

    assert theirs == {name: all_names(drawn(name).blocks) for name in names}


@parametrize([name for name in ARCHITECTURES if name not in LIGHT], default=())
def test_another_process_gives_the_same_names_to_each(name, drawn):
    assert names_in_another_process([name])[name] == all_names(drawn(name).blocks)


@each_architecture
def test_blocks_partition_the_graph(name, read):
    base = read(name)

    inside = [op for block in base.blocks for unit in block.units for op in unit.operations]

    outside = [op.name for op in base.model.operations if op not in inside]
    assert len(inside) == len(set(inside))
    assert {op for op in base.model.operations if op.name not in outside} == set(inside)
    assert all(n == "image" or n.startswith("pixels_") for n in outside)


@each_architecture
def test_blocks_and_units_are_those_of_the_catalog(name, read):
    blocks = read(name).blocks

    found = [(b.name, [(u.name, u.end_layer) for u in b.units]) for b in blocks]

    recorded = ARCHITECTURES[name].blocks
    assert found == [(b.name, [(u.name, u.end) for u in b.units]) for b in recorded]


@each_architecture
def test_every_unit_begins_where_the_last_one_ended_and_ends_at_a_boundary(name, read):
    base = read(name)
    units = [unit for block in base.blocks for unit in block.units]
    cuts = {id(cut.tensor) for cut in find_cuts(base.model)}

    assert units[0].inputs == (base.pixels,)
    assert all(b.inputs == a.outputs for a, b in zip(units, units[1:], strict=False))
    assert units[-1].outputs == (base.features,)
    width = ARCHITECTURES[name].cut_width
    assert max(len(unit.outputs) for unit in units) == width
    if width == 1:
        assert all(id(unit.tensor) in cuts for unit in units)


@each_that_runs
def test_the_graph_cut_at_a_block_equals_the_whole(name, drawn):
    base = drawn(name)
    cut = list(base.blocks[len(base.blocks) // 2].units[0].inputs)
    images = random_images(2, ARCHITECTURES[name].minimum_size)

    lower = keras.Model(base.model.input, cut)
    upper = keras.Model(cut, base.features)

    assert np.array_equal(upper(lower(images)), base.model(images))


@each_that_runs
def test_a_saved_model_gives_the_same_outputs(name, drawn, tmp_path):
    model = drawn(name).model
    images = random_images(2, ARCHITECTURES[name].minimum_size)
    model.save(tmp_path / "base.keras")

    loaded = keras.saving.load_model(tmp_path / "base.keras")

    assert [op.name for op in loaded.operations] == [op.name for op in model.operations]
    assert np.array_equal(loaded(images), model(images))


@each_architecture
def test_the_parameters_of_each_block_are_the_catalogs(name, draw, read):
    architecture = find_architecture(name)

    # Only a base that ends in a vector has weights that grow with the image.
    is_map = architecture.output == "map"
    base = read(name) if is_map else draw(name, size=architecture.default_size)

    counts = [sum(layer.count_params() for layer in block.layers) for block in base.blocks]
    assert counts == [block.parameters for block in architecture.blocks]
    assert sum(counts) == base.model.count_params() == architecture.parameters


@each_that_trains
def test_a_batch_of_its_own_boundary_trains(name):
    """What crosses from a frozen prefix to a trained suffix is enough to train it."""
    size = (ARCHITECTURES[name].minimum_size,) * 2
    transfer = build_transfer(name, head={"dropout": 0.2}, size=size)
    units = [part.name for part in transfer.parts[:-1]]
    split = split_at(transfer, units[len(units) // 2 :], train_batch_norm=True)
    before = digest_variables(transfer)
    images = random_images(3, ARCHITECTURES[name].minimum_size).astype("uint8")
    phase = Phase(name="tune", epochs=1, optimizer="sgd", learning_rate=1e-3)

    check_whole(transfer, split)
    assert measure_parts(transfer, split) < 1e-5
    steps = Steps(split, build_optimizer(phase), task=transfer.task, batch_size=3)
    (loss,), _ = steps.train(split.prefix(images), np.array([0, 1, 2], np.int32))

    receipt = write_receipt(transfer, split, before, phase="tune", steps=1, learning_rate=1e-3)
    assert np.isfinite(loss)
    assert receipt["holds"], receipt["problems"]
