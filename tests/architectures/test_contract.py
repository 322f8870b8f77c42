"""What holds for every architecture of the catalog."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tl_toolkit.architectures.catalog import ARCHITECTURES, check_image_size, find_architecture
from tl_toolkit.architectures.graph import find_cuts, layer_variables

each_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


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
def test_it_builds_at_its_minimum_size(name, drawn):
    base = drawn(name)

    assert all(n >= 1 for n in base.features.shape[1:])
    assert len(base.features.shape) == {"map": 4, "vector": 2}[ARCHITECTURES[name].output]


@each_architecture
def test_an_image_below_the_minimum_size_is_refused_by_name(name):
    architecture = ARCHITECTURES[name]
    least = architecture.minimum_size

    problem = check_image_size(architecture, (least, least - 1))

    assert check_image_size(architecture, (least, least)) is None
    assert f"{name} needs images of at least {least} x {least} pixels" in str(problem)


@each_architecture
@pytest.mark.parametrize("count", [1, 3])
def test_its_outputs_are_finite(name, count, drawn):
    base = drawn(name)

    outputs = base.model(random_images(count, ARCHITECTURES[name].minimum_size))

    assert outputs.shape[0] == count
    assert np.isfinite(outputs).all()


@each_architecture
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


@each_architecture
def test_a_second_build_has_the_same_names(name, draw, drawn):
    first = drawn(name)

    second = draw(name, size=ARCHITECTURES[name].minimum_size)

    assert all_names(second.blocks) == all_names(first.blocks)
    assert [op.name for op in second.model.operations] == [op.name for op in first.model.operations]


def test_another_process_gives_the_same_names(drawn):
    # The other process draws in the opposite order, so that counters of Keras stand elsewhere.
    script = """
import json, sys
sys.path[:0] = [{tests!r}]
from conftest import draw
from test_contract import all_names
from tl_toolkit.architectures.catalog import ARCHITECTURES
names = {{n: all_names(draw(n, size=a.minimum_size).blocks)
         for n, a in reversed(ARCHITECTURES.items())}}
print(json.dumps(names))
""".format(tests=__file__.rpartition("/")[0])

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    theirs = json.loads(result.stdout.splitlines()[-1])
    assert theirs == {name: all_names(drawn(name).blocks) for name in ARCHITECTURES}


@each_architecture
def test_blocks_partition_the_graph(name, drawn):
    base = drawn(name)

    inside = [op for block in base.blocks for unit in block.units for op in unit.operations]

    outside = [op.name for op in base.model.operations if op not in inside]
    assert len(inside) == len(set(inside))
    assert {op for op in base.model.operations if op.name not in outside} == set(inside)
    assert all(n == "image" or n.startswith("pixels_") for n in outside)


@each_architecture
def test_blocks_and_units_are_those_of_the_catalog(name, drawn):
    blocks = drawn(name).blocks

    found = [(b.name, [(u.name, u.end_layer) for u in b.units]) for b in blocks]

    recorded = ARCHITECTURES[name].blocks
    assert found == [(b.name, [(u.name, u.end) for u in b.units]) for b in recorded]


@each_architecture
def test_every_unit_begins_where_the_last_one_ended_and_ends_at_a_cut(name, drawn):
    base = drawn(name)
    units = [unit for block in base.blocks for unit in block.units]
    cuts = {id(cut.tensor) for cut in find_cuts(base.model)}

    assert units[0].inputs is base.pixels
    assert all(b.inputs is a.tensor for a, b in zip(units, units[1:], strict=False))
    assert units[-1].tensor is base.features
    assert all(id(unit.tensor) in cuts for unit in units)


@each_architecture
def test_the_graph_cut_at_a_block_equals_the_whole(name, drawn):
    base = drawn(name)
    cut = base.blocks[len(base.blocks) // 2].units[0].inputs
    images = random_images(2, ARCHITECTURES[name].minimum_size)

    lower = keras.Model(base.model.input, cut)
    upper = keras.Model(cut, base.features)

    assert np.array_equal(upper(lower(images)), base.model(images))


@each_architecture
def test_a_saved_model_gives_the_same_outputs(name, drawn, tmp_path):
    model = drawn(name).model
    images = random_images(2, ARCHITECTURES[name].minimum_size)
    model.save(tmp_path / "base.keras")

    loaded = keras.saving.load_model(tmp_path / "base.keras")

    assert [op.name for op in loaded.operations] == [op.name for op in model.operations]
    assert np.array_equal(loaded(images), model(images))


@each_architecture
def test_the_parameter_count_is_the_catalogs(name, draw, drawn):
    architecture = find_architecture(name)

    # Only a base that ends in a vector has weights that grow with the image.
    is_map = architecture.output == "map"
    base = drawn(name) if is_map else draw(name, size=architecture.default_size)

    assert base.model.count_params() == architecture.parameters
