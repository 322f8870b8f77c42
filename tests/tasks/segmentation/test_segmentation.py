"""One class for each pixel: losses and states against NumPy, predictions as images."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.segmentation.task import Segmentation

CLASSES = ("sky", "road", "tree")
TARGETS = np.array([[0, 1, 2, 1, IGNORE], [2, 2, IGNORE, IGNORE, 2]], np.int32)


def make_outputs(seed=0):
    logits = np.random.default_rng(seed).normal(0, 2, (*TARGETS.shape, 3))
    return (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).astype(np.float32)


def compare(outputs, targets=TARGETS, weights=None, **settings):
    task = Segmentation(CLASSES, PixelSettings(**settings))
    if weights is not None:
        task.class_weights.assign(weights)
    losses, states = task.compare(tf.constant(outputs), tf.constant(targets))
    return losses.numpy(), states.numpy()


class Counted:
    """Targets of which the pixels of each class are known."""

    def __init__(self, *counts):
        self._counts = np.array(counts)

    def count(self):
        return self._counts


def of_the_right_class(outputs, row):
    counted = TARGETS[row] != IGNORE
    return outputs[row, counted, TARGETS[row, counted]], TARGETS[row, counted]


def test_cross_entropy_is_the_mean_over_pixels_of_a_class():
    outputs = make_outputs()

    losses, _ = compare(outputs)

    expected = [-np.log(of_the_right_class(outputs, row)[0]).mean() for row in (0, 1)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_the_focal_loss_counts_easy_pixels_less():
    outputs = make_outputs()

    losses, _ = compare(outputs, loss="focal")

    right = [of_the_right_class(outputs, row)[0] for row in (0, 1)]
    expected = [(-((1 - one) ** 2) * np.log(one)).mean() for one in right]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_class_weights_make_a_weighted_mean():
    outputs = make_outputs()
    weights = np.array([1.0, 3.0, 0.5], np.float32)

    losses, _ = compare(outputs, class_weights={"road": 3.0, "tree": 0.5})

    for row in (0, 1):
        right, labels = of_the_right_class(outputs, row)
        expected = (-np.log(right) * weights[labels]).mean()
        assert losses[row] == pytest.approx(expected, rel=1e-5)


def test_an_image_of_one_class_keeps_the_weight_of_that_class():
    outputs = np.full((1, 4, 3), 1 / 3, np.float32)

    losses, _ = compare(
        outputs, np.full((1, 4), 2, np.int32), weights=np.array([1, 1, 5], np.float32)
    )

    assert losses[0] == pytest.approx(5 * np.log(3), rel=1e-5)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 2.0, 4.0)])
def test_dice_is_one_minus_the_overlap_of_the_classes_in_the_image(weights):
    outputs = make_outputs()

    losses, _ = compare(outputs, weights=np.array(weights, np.float32), loss="dice")

    for row in (0, 1):
        counted = TARGETS[row] != IGNORE
        predicted, labels = outputs[row, counted], TARGETS[row, counted]
        present = sorted(set(labels))
        overlap = [
            2 * predicted[labels == value, value].sum()
            / ((labels == value).sum() + predicted[:, value].sum())
            for value in present
        ]  # fmt: skip
        expected = np.average(1 - np.array(overlap), weights=np.array(weights)[present])
        assert losses[row] == pytest.approx(expected, rel=1e-5)


def test_a_perfect_prediction_has_a_dice_loss_of_zero():
    outputs = np.eye(3, dtype=np.float32)[np.where(TARGETS == IGNORE, 0, TARGETS)]

    losses, _ = compare(outputs, loss="dice")

    np.testing.assert_allclose(losses, 0, atol=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "dice"])
def test_pixels_of_no_class_change_no_loss_and_get_no_gradient(loss):
    task = Segmentation(CLASSES, PixelSettings(loss=loss))
    outputs = tf.constant(make_outputs())

    with tf.GradientTape() as tape:
        tape.watch(outputs)
        losses, _ = task.compare(outputs, tf.constant(TARGETS))
    gradient = tape.gradient(losses, outputs).numpy()

    assert np.abs(gradient[TARGETS == IGNORE]).max() == 0
    assert np.abs(gradient[TARGETS != IGNORE]).max(axis=-1).min() > 0


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "dice"])
def test_an_image_without_a_pixel_of_a_class_has_no_loss(loss):
    losses, states = compare(make_outputs(), np.full_like(TARGETS, IGNORE), loss=loss)

    assert losses.tolist() == [0, 0] and states.sum() == 0


def test_a_confident_error_costs_its_full_price():
    # By the logits behind a softmax, not by a probability that is clipped at 1e-7.
    task = Segmentation(CLASSES, PixelSettings())
    logits = keras.Input((1, 3))
    model = keras.Model(logits, keras.layers.Activation("softmax")(logits))

    @tf.function
    def loss_of(value):
        return task.compare(model(value), tf.zeros((1, 1), tf.int32))[0]

    assert loss_of(tf.constant([[[0.0, 60.0, 0.0]]])).numpy() == pytest.approx([60.0])


def test_the_state_is_the_confusion_of_each_image():
    outputs = np.eye(3, dtype=np.float32)[[[0, 2, 2, 1, 0], [0, 2, 1, 1, 2]]]

    _, states = compare(outputs)

    assert states.reshape(2, 3, 3).tolist() == [
        [[1, 0, 0], [0, 1, 1], [0, 0, 1]],
        [[0, 0, 0], [0, 0, 0], [1, 0, 2]],
    ]
    task = Segmentation(CLASSES, PixelSettings())
    # sky: 1 of 2; road: 1 of 2; tree: 3 of 5.
    assert task.score_of(states.sum(axis=0)) == pytest.approx((1 / 2 + 1 / 2 + 3 / 5) / 3)


def test_balanced_weights_are_the_median_frequency_over_each_ones():
    task = Segmentation(CLASSES, PixelSettings(class_weights="balanced"))

    task.prepare(Counted(100, 10, 40))

    assert task.class_weights.numpy().tolist() == pytest.approx([0.4, 4.0, 1.0])


def test_a_class_without_pixels_keeps_a_weight_of_one():
    task = Segmentation(CLASSES, PixelSettings(class_weights="balanced"))

    task.prepare(Counted(100, 0, 50))

    assert task.class_weights.numpy().tolist() == pytest.approx([0.75, 1.0, 1.5])


def test_balanced_weights_stay_below_fifty():
    task = Segmentation(CLASSES, PixelSettings(class_weights="balanced"))

    task.prepare(Counted(1_000_000, 10, 500_000))

    assert task.class_weights.numpy().tolist() == [0.5, 50, 1]


def test_masks_without_a_counted_pixel_leave_the_weights_alone():
    task = Segmentation(CLASSES, PixelSettings(class_weights="balanced"))

    task.prepare(Counted(0, 0, 0))

    assert task.class_weights.numpy().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("class_weights", "weights"), [({"tree": 2.0}, [1, 1, 2]), (None, [1, 1, 1])], ids=str
)
def test_other_weights_need_no_counts(class_weights, weights):
    task = Segmentation(CLASSES, PixelSettings(class_weights=class_weights))

    task.prepare(None)  # all masks would be read for nothing

    assert task.class_weights.numpy().tolist() == weights


def test_a_prediction_is_a_palette_image_of_the_classes():
    task = Segmentation(CLASSES, PixelSettings())
    outputs = np.eye(3, dtype=np.float32)[[[0, 2], [1, 1]]] * 0.9
    palette = np.array([[0, 0, 255], [128, 128, 128], [0, 255, 0]], np.uint8)

    prediction = {
        name: kept.numpy() for name, kept in task.postprocess(tf.constant(outputs)).items()
    }
    image = task.render(prediction, palette)

    assert np.asarray(image).tolist() == [[0, 2], [1, 1]]
    assert np.asarray(image.convert("RGB"))[0, 1].tolist() == [0, 255, 0]
    assert prediction["probability"] == pytest.approx(0.9)


@pytest.mark.parametrize("num_classes", [2, 3, 16, 255])
def test_a_saved_prediction_keeps_the_pixels_that_were_not_seen(num_classes, tmp_path):
    task = Segmentation([str(index) for index in range(num_classes)], PixelSettings())
    mask = np.array([[0, num_classes - 1, IGNORE]], np.uint8)

    task.render({"mask": mask}, np.full((num_classes, 3), 200, np.uint8)).save(
        tmp_path / "mask.png"
    )

    with Image.open(tmp_path / "mask.png") as image:
        assert np.asarray(image).tolist() == mask.tolist()
        assert np.asarray(image.convert("RGB"))[0].tolist() == [[200] * 3, [200] * 3, [0] * 3]


def test_whole_masks_are_measured_over_all_images_and_each_alone():
    metric = Segmentation(CLASSES, PixelSettings()).build_metric()

    first = metric.add({"mask": np.array([[0, 0]])}, np.array([[0, 1]]))
    second = metric.add({"mask": np.array([[1, 1]])}, np.array([[1, IGNORE]]))

    assert first == {"pixel_accuracy": 0.5, "mean_iou": 0.25}
    assert second == {"pixel_accuracy": 1.0, "mean_iou": 1.0}
    assert metric.result()["images"] == 2
    assert metric.result()["mean_iou"] == pytest.approx(0.5)


def test_a_temperature_softens_probabilities_and_moves_no_pixel_to_another_class():
    outputs = make_outputs()
    task = Segmentation(CLASSES, calibrate=True)
    plain = task.postprocess(tf.constant(outputs))

    task.restore({"temperature": 2.5})
    maps = task.postprocess(tf.constant(outputs))

    np.testing.assert_array_equal(maps["mask"], plain["mask"])
    powers = outputs.astype(np.float64) ** (1 / 2.5)
    expected = (powers / powers.sum(-1, keepdims=True)).max(-1)
    np.testing.assert_allclose(maps["probability"], expected, rtol=1e-5)
    assert task.state() == {"temperature": 2.5}
    assert Segmentation(CLASSES).state() == {}


def test_the_calibration_error_of_maps_leaves_out_ignored_pixels():
    task = Segmentation(CLASSES, calibrate=True)
    metric = task.build_metric()
    target = np.array([[0, 1], [2, IGNORE]], np.uint8)
    mask = np.array([[0, 1], [1, 1]], np.uint8)
    probability = np.array([[0.95, 0.95], [0.55, 0.15]], np.float32)

    metric.add({"mask": mask, "probability": probability}, target)
    measured = metric.result()

    # two pixels of 0.95 are right, one of 0.55 is wrong: (2 x 0.05 + 0.55) / 3
    assert measured["ece"] == pytest.approx(0.65 / 3)
    assert sum(each["number"] for each in measured["calibration"]["bins"]) == 3
    assert "ece" not in Segmentation(CLASSES).build_metric().result()
