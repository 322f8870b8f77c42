"""Normals: vectors as files of 8 and 16 bits, the angular loss, metrics in degrees, turns."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.models import plan_values
from tests.pixels import draw_balls, make_recipe
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.normals.task import NormalReader, Normals, measure_angles

TASK = Normals()
NO_PALETTE = np.zeros((0, 3), np.uint8)


def tilted(degrees, towards="x"):
    """A vector that leans so far from the viewer's direction."""
    lean, up = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return np.array([lean, 0, up] if towards == "x" else [0, lean, up], np.float32)


def random_normals(*shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(*shape, 3))
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def encode(normals, kind=np.uint8):
    return ((normals + 1) / 2 * np.iinfo(kind).max).round().astype(kind)


@pytest.fixture
def save(tmp_path, write_png):
    """Saves RGB of 8 or 16 bits as a PNG."""

    def save_as(pixels):
        (tmp_path / "normals.png").write_bytes(write_png(pixels))
        return str(tmp_path / "normals.png")

    return save_as


@pytest.mark.parametrize(("kind", "degrees"), [(np.uint8, 0.5), (np.uint16, 0.003)])
def test_colours_are_vectors_as_exact_as_their_bits(save, kind, degrees):
    normals = random_normals(12, 9)

    actual = NormalReader().read(save(encode(normals, kind)))

    assert actual.shape == (12, 9, 3) and actual.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(actual, axis=-1), 1, atol=1e-6)
    assert measure_angles(actual, normals).max() < degrees


def test_16_bits_are_not_cut_to_8(save):
    pixels = np.array([[[65535, 32768, 32768], [65535, 32768 + 100, 32768]]], np.uint16)

    actual = NormalReader().read(save(pixels))

    assert actual[0, 1, 1] - actual[0, 0, 1] == pytest.approx(200 / 65535, rel=1e-3)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_in_the_middle_is_no_normal(save, kind):
    middle = np.iinfo(kind).max // 2 + 1
    pixels = np.full((1, 2, 3), middle, kind)
    pixels[0, 1] = encode(tilted(0), kind)

    actual = NormalReader().read(save(pixels))

    assert actual[0, 0].tolist() == [0, 0, 0]
    assert NormalReader().sampling_groups(actual).tolist() == [[IGNORE, 0]]


@pytest.mark.parametrize("ignore", [0, (0, 0, 0)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_the_ignored_colour_is_no_normal(save, kind, ignore):
    pixels = encode(np.stack([[tilted(10), tilted(20)]]), kind)
    pixels[0, 0] = 0

    actual = NormalReader(ignore).read(save(pixels))

    assert actual[0, 0].tolist() == [0, 0, 0]
    assert np.linalg.norm(actual[0, 1]) == pytest.approx(1)


def test_an_ignored_colour_is_scaled_to_16_bits(save):
    pixels = encode(np.stack([[tilted(10), tilted(20)]]), np.uint16)
    color = (200, 130, 240)
    pixels[0, 1] = np.array(color) * 257

    actual = NormalReader(color).read(save(pixels))

    assert actual.any(axis=-1).tolist() == [[True, False]]


def test_black_that_is_not_ignored_is_refused_not_taken_for_a_normal(save):
    pixels = encode(random_normals(4, 4))
    pixels[1, 1:3] = 0

    with pytest.raises(ValueError, match=r"^2 pixels of lengths up to 1\.73, as \(0, 0, 0\)$"):
        NormalReader().read(save(pixels))


def test_grey_images_are_refused(tmp_path):
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "grey.png")

    with pytest.raises(ValueError, match="a grey image"):
        NormalReader().read(str(tmp_path / "grey.png"))


def test_the_reader_of_a_recipe_ignores_what_it_says(tmp_path, save):
    values = make_recipe("normals", draw_balls(tmp_path, train=1, validation=1))
    values["data"]["masks"] = {"ignore": [1, 2, 3]}
    pixels = encode(np.stack([[tilted(10), tilted(20)]]))
    pixels[0, 0] = 1, 2, 3
    path = save(pixels)

    _, task = plan_values(values)

    assert task.reader.read(path)[0].any(axis=-1).tolist() == [False, True]


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_loss_is_that_of_pixelnet_whatever_the_length_of_an_output(scale):
    predicted, wanted = random_normals(2, 7), random_normals(2, 7, seed=1)

    losses, _ = TASK.compare(tf.constant(predicted * scale), tf.constant(wanted))

    expected = (np.linalg.norm(predicted - wanted, axis=-1) ** 2 / 2).mean(axis=-1)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    cosines = np.cos(np.radians(measure_angles(predicted, wanted)))
    np.testing.assert_allclose(losses, (1 - cosines).mean(axis=-1), rtol=1e-5)


def test_pixels_without_a_normal_have_no_loss_no_gradient_and_no_state():
    wanted = random_normals(2, 6, seed=1)
    wanted[0, 2:] = 0
    wanted[1] = 0
    predicted = tf.constant(random_normals(2, 6) * 2)

    with tf.GradientTape() as tape:
        tape.watch(predicted)
        losses, states = TASK.compare(predicted, tf.constant(wanted))
    gradient = np.abs(tape.gradient(losses, predicted).numpy()).max(axis=-1)

    angles = measure_angles(predicted.numpy()[0, :2] / 2, wanted[0, :2])
    assert losses[0].numpy() == pytest.approx((1 - np.cos(np.radians(angles))).mean(), rel=1e-5)
    assert losses[1].numpy() == 0
    assert (gradient > 0).tolist() == wanted.any(axis=-1).tolist()
    assert states.numpy()[:, 1].tolist() == [2, 0]


def test_an_output_of_zeros_is_no_infinite_loss():
    zeros = tf.zeros((1, 2, 3))

    with tf.GradientTape() as tape:
        tape.watch(zeros)
        losses, _ = TASK.compare(zeros, tf.constant(random_normals(1, 2)))

    assert losses.numpy().tolist() == [1]
    assert np.isfinite(tape.gradient(losses, zeros).numpy()).all()


def test_the_score_counts_pixels_within_22_5_degrees():
    wanted = np.stack([[tilted(0)] * 4])
    predicted = np.stack([[tilted(22.4), tilted(-22.4, "y"), tilted(22.6), tilted(170)]])

    _, states = TASK.compare(tf.constant(predicted), tf.constant(wanted))

    assert states.numpy().tolist() == [[2, 4]]
    assert TASK.score_of(states.numpy()[0]) == 0.5
    assert TASK.score_of(np.array([0, 0])) == 0


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 30, 90, 179.9999, 180])
def test_angles_keep_their_digits_at_either_end(degrees):
    vector = np.array([np.sin(np.radians(degrees)), 0, np.cos(np.radians(degrees))])

    assert measure_angles(np.array([0, 0, 1.0]), vector) == pytest.approx(degrees, abs=1e-9)


def test_metrics_are_over_all_pixels_of_all_images():
    metric = TASK.build_metric()
    front = np.stack([[tilted(0)] * 3])
    with_a_gap = front.copy()
    with_a_gap[0, 2] = 0
    angles = [0, 10, 20, 25, 45]

    first = metric.add({"normal": np.stack([[tilted(one) for one in angles[:3]]])}, front)
    metric.add({"normal": np.stack([[tilted(25), tilted(45), tilted(90)]])}, with_a_gap)

    actual = metric.result()
    assert first["mean_angle"] == pytest.approx(10, abs=1e-5)
    assert (actual["images"], actual["pixels"]) == (2, 5)
    assert actual["mean_angle"] == pytest.approx(np.mean(angles), abs=1e-5)
    assert actual["median_angle"] == pytest.approx(20, abs=0.0051)
    assert actual["rmse_angle"] == pytest.approx(np.sqrt(np.mean(np.square(angles))), abs=1e-5)
    assert actual["within_11_25"] == 0.4
    assert actual["within_22_5"] == 0.6
    assert actual["within_30"] == 0.8
    assert actual["facing"]["mean_angle"] == 0 and actual["facing"]["within_11_25"] == 1


def test_the_median_is_off_by_no_more_than_half_a_bin():
    target, predicted = random_normals(50, 41), random_normals(50, 41, seed=2)
    metric = TASK.build_metric()

    metric.add({"normal": predicted}, target)

    expected = np.sort(measure_angles(predicted, target).reshape(-1))[(50 * 41 - 1) // 2]
    assert abs(metric.result()["median_angle"] - expected) <= 0.005


def test_without_a_normal_all_metrics_are_0():
    metric = TASK.build_metric()

    metric.add({"normal": random_normals(2, 2)}, np.zeros((2, 2, 3), np.float32))

    assert metric.result()["mean_angle"] == metric.result()["median_angle"] == 0


def test_a_prediction_is_rendered_as_the_files_are_coded(tmp_path):
    normals = random_normals(6, 5)
    prediction = {
        name: kept.numpy() for name, kept in TASK.postprocess(tf.constant(normals * 3)).items()
    }

    TASK.render(prediction, NO_PALETTE).save(tmp_path / "normals.png")

    actual = NormalReader().read(str(tmp_path / "normals.png"))
    assert measure_angles(actual, normals).max() < 0.5


def draw_bump(height=40, width=60):
    """Normals of a bump that is nowhere symmetric, from its heights; x to the right, y up."""
    ys, xs = np.mgrid[:height, :width]
    return np.exp(-(((xs - 22) / 9) ** 2) - ((ys - 15) / 6) ** 2 - (xs - 22) * (ys - 15) / 90)


def normals_of(bump):
    down, along = np.gradient(bump * 8)
    vectors = np.stack([-along, down, np.ones_like(bump)], axis=-1)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def mirror(flip):
    """The matrix of an image mirrored upside down, and left to right."""
    return np.diag([-1.0 if flip[1] else 1.0, -1.0 if flip[0] else 1.0])


def rotate(angle):
    """The matrix of an image turned counterclockwise; y is down."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize("flip", [(True, False), (False, True), (True, True)])
def test_mirrored_normals_are_those_of_the_mirrored_surface(flip):
    axes = [axis for axis in (0, 1) if flip[axis]]

    moved = np.flip(normals_of(draw_bump()), axes)

    expected = normals_of(np.flip(draw_bump(), axes))
    np.testing.assert_allclose(NormalReader().turn(moved, mirror(flip)), expected, atol=1e-6)
    assert np.abs(moved - expected).max() > 0.3


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turned_normals_are_those_of_the_turned_surface(quarters):
    moved = np.rot90(normals_of(draw_bump()), quarters)  # counterclockwise

    actual = NormalReader().turn(moved, rotate(quarters * np.pi / 2))

    np.testing.assert_allclose(actual, normals_of(np.rot90(draw_bump(), quarters)), atol=1e-6)


def test_mirroring_comes_before_turning():
    moved = np.rot90(np.fliplr(normals_of(draw_bump())))

    actual = NormalReader().turn(moved, rotate(np.pi / 2) @ mirror((False, True)))

    expected = normals_of(np.rot90(np.fliplr(draw_bump())))
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_pixels_without_a_normal_stay_so_when_turned():
    actual = NormalReader().turn(np.zeros((2, 2, 3), np.float32), rotate(0.3))

    assert not actual.any()
