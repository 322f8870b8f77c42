"""What is frozen keeps every bit and never trains; what trains moves; parts equal the whole."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models import build_transfer, measure_parts
from tl_toolkit.architectures.batches import FixedBatch
from tl_toolkit.catalog.lookup import find_architecture, resolve_unfreeze
from tl_toolkit.errors import CheckFailedError, ReceiptError
from tl_toolkit.keras_private import producer_of
from tl_toolkit.recipe.schema import Phase, UnfreezeFrom
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.training.optimizers import build_optimizer
from tl_toolkit.training.steps import Steps
from tl_toolkit.transfer.assemble import Part, TransferModel
from tl_toolkit.transfer.freezing import (
    check_whole,
    digest_variables,
    split_at,
)
from tl_toolkit.transfer.receipt import check_receipt, write_receipt

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
CLASSES = ("a", "b", "c")
LABELS = np.arange(10, dtype=np.int32) % 3
TASK = Classification(("a", "b", "c"))


def assemble_mobilenet(**head):
    return build_transfer("mobilenet", arguments={"alpha": 0.25}, head=head or {"dropout": 0.3})


def toy_model():
    """Three units of one dense layer each, dropout and BatchNormalization in the second."""
    image = keras.Input((4,), name="image")
    first = keras.layers.Dense(5, name="first")(image)
    x = keras.layers.BatchNormalization(name="second_bn")(first)
    x = keras.layers.Dropout(0.9, name="second_dropout", seed=1)(x)
    second = keras.layers.Dense(5, name="second")(x)
    third = keras.layers.Dense(5, name="third")(second)
    outputs = keras.layers.Dense(3, activation="softmax", name="predictions")(third)
    model = keras.Model(image, outputs)
    layer = model.get_layer
    parts = (
        Part("a", "first", (layer("first"),), (image,)),
        Part("b", "second", tuple(map(layer, ("second_bn", "second_dropout", "second"))), (first,)),
        Part("c", "third", (layer("third"),), (second,)),
        Part("head", "head", (layer("predictions"),), (third,)),
    )
    return TransferModel(model, find_architecture("lenet5"), parts, TASK)


def take_steps(split, rows, *, steps=2, **phase):
    optimizer = build_optimizer(Phase(name="tune", epochs=1, **phase))
    trainer = Steps(split, optimizer, task=TASK, batch_size=32)
    for _ in range(steps):
        trainer.train(split.prefix(rows), LABELS[: len(rows)])


def move(split):
    """Moves all that trains, as steps do."""
    for variable in split.trainable:
        variable.assign_add(np.full(variable.shape, 1e-3, "float32"))


def snapshot(transfer):
    return {(part.name, name): value.numpy() for part, name, value in transfer.variables()}


def moved_layers(before, after):
    return {key[1].split("/")[0] for key in before if (before[key] != after[key]).any()}


def test_head_alone_trains_the_head_alone():
    transfer = toy_model()
    before = snapshot(transfer)

    take_steps(split_at(transfer, ()), np.eye(4, dtype="float32"))

    assert moved_layers(before, snapshot(transfer)) == {"predictions"}


def test_unfreeze_one_trains_only_the_last_block_and_leaves_its_batch_norm():
    transfer = toy_model()
    before = snapshot(transfer)

    take_steps(split_at(transfer, ("third", "second")), np.eye(4, dtype="float32"))

    assert moved_layers(before, snapshot(transfer)) == {"second", "third", "predictions"}


def test_batch_norm_trains_when_asked():
    transfer = toy_model()
    before = snapshot(transfer)

    take_steps(split_at(transfer, ("second",), train_batch_norm=True), np.eye(4, dtype="float32"))

    moved = moved_layers(before, snapshot(transfer))
    assert moved == {"second", "second_bn", "predictions"}
    key = ("second", "second_bn/2")
    assert (before[key] != snapshot(transfer)[key]).any()  # the moving mean


def test_a_frozen_block_above_a_trained_one_is_in_inference_mode():
    transfer = toy_model()
    split = split_at(transfer, ("first",))
    rows = tf.constant(np.eye(4, dtype="float32"))

    trained = split.suffix.model(split.prefix(rows), training=True)

    np.testing.assert_array_equal(trained, transfer.model(rows, training=False))


def test_dropout_of_an_unfrozen_block_is_active_in_training():
    transfer = toy_model()
    split = split_at(transfer, ("second",))
    rows = split.prefix(np.eye(4, dtype="float32"))

    trained = split.suffix.model(rows, training=True).numpy()

    assert np.abs(trained - split.suffix.model(rows, training=False).numpy()).max() > 1e-3


def test_moving_statistics_of_frozen_blocks_keep_every_bit():
    transfer = toy_model()
    before = snapshot(transfer)

    take_steps(split_at(transfer, ("first",)), np.eye(4, dtype="float32"))

    after = snapshot(transfer)
    assert all((before[key] == after[key]).all() for key in before if key[0] == "second")
    assert moved_layers(before, after) == {"first", "predictions"}


@pytest.fixture(scope="module")
def mobilenet():
    return assemble_mobilenet()


@pytest.mark.parametrize(
    "unfreeze",
    [
        UnfreezeFrom(unit="conv_dw_12"),
        *(pytest.param(each, marks=pytest.mark.slow) for each in (0, 1, 3, 5, ("block2",))),
    ],
)
def test_prefix_and_suffix_equal_the_whole_model(mobilenet, unfreeze):
    units = resolve_unfreeze(mobilenet.architecture, unfreeze)

    split = split_at(mobilenet, units)

    check_whole(mobilenet, split)
    assert measure_parts(mobilenet, split) < 1e-5


def of_another_model(toy):
    return split_at(toy_model(), ()).suffix


def without_a_layer(toy):
    boundary = keras.Input((5,))
    return FixedBatch(keras.Model(boundary, toy.model.get_layer("third")(boundary)))


def with_a_layer_twice(toy):
    boundary = keras.Input((5,))
    third, head = map(toy.model.get_layer, ("third", "predictions"))
    return FixedBatch(keras.Model(boundary, head(third(third(boundary)))))


def with_another_constant(toy):
    boundary = keras.Input((5,))
    third, head = map(toy.model.get_layer, ("third", "predictions"))
    return FixedBatch(keras.Model(boundary, head(third(boundary) * 2.0)))


@pytest.mark.parametrize(
    "build", [of_another_model, without_a_layer, with_a_layer_twice, with_another_constant]
)
def test_a_suffix_that_is_not_the_rest_of_the_whole_model_is_refused(build):
    toy = toy_model()
    split = split_at(toy, ("third",))
    check_whole(toy, split)

    with pytest.raises(CheckFailedError, match="prefix and suffix are not the whole model"):
        check_whole(toy, replace(split, suffix=build(toy)))


def test_a_prefix_that_ends_elsewhere_is_refused():
    toy = toy_model()

    with pytest.raises(CheckFailedError, match="prefix and suffix are not the whole model"):
        check_whole(toy, replace(split_at(toy, ("third",)), prefix=split_at(toy, ()).prefix))


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["average", "max", "sum", "flatten"])
def test_every_pooling_can_be_cut_and_trained(pooling):
    transfer = assemble_mobilenet(pooling=pooling, hidden=[{"units": 4, "dropout": 0.5, "l2": 0.1}])
    split = split_at(transfer, ())

    take_steps(split, IMAGES)

    check_whole(transfer, split)
    assert measure_parts(transfer, split) < 1e-5


@pytest.mark.parametrize(
    ("base", "arguments", "inner"),
    [
        ("mobilenet", {"alpha": 0.25}, [f"conv_dw_{number}_relu" for number in range(1, 14)]),
        pytest.param(
            "mobilenet_v2",
            {"alpha": 0.35},
            [
                "expanded_conv_depthwise_relu",
                *(f"block_{number}_depthwise_relu" for number in range(1, 17)),
            ],
            marks=pytest.mark.slow,
        ),
        ("vgg_tiny", {}, [f"block{number}_conv1_relu" for number in range(1, 4)]),
        ("lenet5", {}, []),
    ],
)
def test_a_head_reads_inside_of_units_and_the_rest_of_them_can_train(base, arguments, inner):
    transfer = build_transfer(base, arguments=arguments, head={"taps": "inner"})
    *units, head = transfer.parts
    maps = [producer_of(tensor).name for tensor in head.inputs]

    split = split_at(transfer, [part.name for part in units[len(units) // 2 :]])

    assert [maps[place] for place in transfer.inner_maps] == inner
    assert len(maps) == len(inner) + len(units)
    check_whole(transfer, split)
    assert measure_parts(transfer, split) < 1e-5


def test_pooling_of_a_frozen_base_belongs_to_the_prefix(mobilenet):
    split = split_at(mobilenet, ())

    assert split.prefix.model.output.shape == (None, 256)


@pytest.mark.slow
def test_an_image_has_the_same_outputs_in_any_batch():
    inputs = keras.Input((32, 32, 3))
    keras.utils.set_random_seed(1)
    base = keras.applications.ResNet50(
        input_tensor=inputs, include_top=False, weights=None, pooling="avg"
    )
    prefix = FixedBatch(keras.Model(inputs, base.output), batch_size=4)
    together = prefix(IMAGES).numpy()

    order = np.random.default_rng(1).permutation(10)
    alone = np.concatenate([prefix(IMAGES[i : i + 1]).numpy() for i in range(10)])
    shuffled = np.concatenate([prefix(IMAGES[order[i : i + 3]]).numpy() for i in (0, 3, 6, 9)])

    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[order], shuffled)


def receipt_of(transfer, split, change, **facts):
    before = digest_variables(transfer)
    change()
    facts = {"phase": "tune", "steps": 2, "learning_rate": 1e-3} | facts
    return write_receipt(transfer, split, before, **facts)


def test_a_phase_that_keeps_its_word_gets_a_receipt():
    transfer = toy_model()
    split = split_at(transfer, ("third",))

    receipt = receipt_of(transfer, split, lambda: move(split))

    check_receipt(receipt, where="receipt.json")
    rows = {row["part"]: row for row in receipt["parts"]}
    assert [rows[name]["state"] for name in rows] == ["frozen", "frozen", "trainable", "trainable"]
    assert rows["first"]["sha256_before"] == rows["first"]["sha256_after"]
    assert rows["third"]["sha256_before"] != rows["third"]["sha256_after"]


@pytest.mark.parametrize("index", [0, 2])  # gamma, moving mean
def test_a_frozen_tensor_that_moved_fails_the_run(index):
    transfer = toy_model()
    split = split_at(transfer, ("second",))
    variable = transfer.model.get_layer("second_bn").weights[index]

    def change():
        move(split)
        variable.assign_add(np.full(5, 1e-7, "float32"))

    receipt = receipt_of(transfer, split, change)

    with pytest.raises(ReceiptError, match=rf"second_bn/{index}: frozen, but moved"):
        check_receipt(receipt, where="receipt.json")


def test_problems_of_a_receipt_come_in_the_order_of_the_network():
    transfer = toy_model()
    split = split_at(transfer, ("third",))
    frozen = [
        variable for part in transfer.parts[:2] for layer in part.layers
        for variable in layer.weights
    ]  # fmt: skip

    def change():
        move(split)
        for variable in frozen:
            variable.assign_add(np.ones(variable.shape, "float32"))

    receipt = receipt_of(transfer, split, change)

    expected = [
        f"{layer.name}/{index}: frozen, but moved"
        for part in transfer.parts[:2] for layer in part.layers
        for index in range(len(layer.weights))
    ]  # fmt: skip
    assert len(expected) > 5 and receipt["problems"] == expected


def test_a_trainable_block_that_stood_still_fails_the_run():
    transfer = toy_model()
    split = split_at(transfer, ("third",))
    head = transfer.model.get_layer("predictions").kernel

    receipt = receipt_of(transfer, split, lambda: head.assign_add(tf.ones_like(head.value)))

    with pytest.raises(ReceiptError, match="'tune': c: trainable, but nothing in it moved"):
        check_receipt(receipt, where="receipt.json")


def test_a_single_still_tensor_is_a_warning():
    transfer = toy_model()
    split = split_at(transfer, ())
    head = transfer.model.get_layer("predictions").kernel

    receipt = receipt_of(transfer, split, lambda: head.assign_add(tf.ones_like(head.value)))

    check_receipt(receipt, where="receipt.json")
    assert receipt["warnings"] == ["predictions/1: trainable, but did not move"]


def test_a_phase_without_steps_has_nothing_to_move():
    transfer = toy_model()

    receipt = receipt_of(transfer, split_at(transfer, ("third",)), lambda: None, steps=0)

    check_receipt(receipt, where="receipt.json")


def test_a_penalty_lies_on_each_kernel_that_trains_and_on_nothing_else():
    transfer = build_transfer("resnet20", l1=1e-4, l2=1e-3, head={"l2": 1e-2})

    split = split_at(transfer, ("conv4_block3",), train_batch_norm=True)

    kernels = [v for v in split.trainable if v.name == "kernel"]
    assert len(split.suffix.model.losses) == len(kernels) == 3  # two convolutions and the output
    expected = [1e-4 * np.abs(k).sum() + 1e-3 * np.square(k).sum() for k in kernels[:2]]
    expected.append(1e-2 * np.square(kernels[2]).sum())
    np.testing.assert_allclose(sorted(split.suffix.model.losses), sorted(expected), rtol=1e-4)


def test_an_edge_filter_stands_between_the_pixels_and_the_base():
    transfer = build_transfer("lenet5", edge_filter="laplacian4")
    constant = np.full((1, 32, 32, 3), 90, "float32")

    entering = keras.Model(transfer.model.input, transfer.parts[0].inputs[0])(constant)

    assert transfer.parts[0].inputs[0]._keras_history.operation.name == "pixels_edges"
    np.testing.assert_allclose(entering, 0, atol=1e-6)


@pytest.mark.slow
def test_a_nested_model_is_frozen_hashed_and_trained_with_all_its_layers():
    transfer = build_transfer("convnext_tiny")
    nested = transfer.model.get_layer("convnext_tiny_downsampling_block_2")
    units = [part.name for part in transfer.parts]

    split_at(transfer, units[units.index("stage_3_block_0") : -1])
    frozen = [layer.trainable for layer in nested._flatten_layers()]
    split = split_at(transfer, units[units.index("downsampling_2") : -1])

    assert not any(frozen)
    assert all(layer.trainable for layer in nested._flatten_layers())
    assert {id(v) for v in nested.weights} <= {id(v) for v in split.trainable}
    digests = {name for part, name in digest_variables(transfer) if part == "downsampling_2"}
    assert digests == {f"{nested.name}/{index}" for index in range(4)}


def test_batch_norm_inside_a_nested_model_stays_frozen():
    image = keras.Input((4,), name="image")
    inner = keras.Sequential(
        [keras.layers.Dense(4), keras.layers.BatchNormalization()], name="nested"
    )
    x = inner(image)
    outputs = keras.layers.Dense(3, activation="softmax", name="predictions")(x)
    model = keras.Model(image, outputs)
    head = Part("head", "head", (model.get_layer("predictions"),), (x,))
    transfer = TransferModel(
        model,
        find_architecture("lenet5"),
        (Part("a", "nested", (inner,), (image,)), head),
        TASK,
    )

    split_at(transfer, ("nested",))

    assert [layer.trainable for layer in inner.layers] == [True, False]


def test_a_head_that_random_frozen_features_cannot_train_is_told_what_does():
    receipt = {
        "phase": "only", "cut": "head", "holds": False,
        "problems": ["head: trainable, but nothing in it moved: every image gets the same outputs, "
                     "so that nothing of it reaches them"],
        "parts": [{"block": name} for name in ("a", "b", "b", "head")],
    }  # fmt: skip

    with pytest.raises(
        ReceiptError,
        match=r"weights=imagenet, or phases\.only\.unfreeze=2 phases\.only\.batch_norm=train",
    ):
        check_receipt(receipt, where="here")
