"""Edges: maps as files, the balanced loss against NumPy, the score from histograms."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.models import plan_values
from tests.pixels import draw_balls, make_recipe
from tl_toolkit.images.manifest import Example
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.edges.task import EdgeReader, Edges

# All three kinds; edges alone; none at all; nothing counts.
TARGETS = np.array(
    [[1, 0.75, 0, 0, -1, 0.25], [1, 1, 1, -1, -1, 1], [0, 0, 0, 0, -1, 0], [-1] * 6], np.float32
)


def balanced():
    return Edges(PixelSettings(class_weights="balanced"))


def make_outputs(seed=0):
    draw = np.random.default_rng(seed)
    return draw.uniform(0.02, 0.98, (*TARGETS.shape, 1)).astype(np.float32)


def test_values_are_fractions_of_annotators(save):
    actual = EdgeReader().read(save(np.array([[0, 51], [204, 255]], np.uint8)))

    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, [[0, 0.2], [0.8, 1]])


def test_files_of_16_bits_keep_them(save):
    actual = EdgeReader().read(save(np.array([[0, 1, 13107, 65535]], np.uint16)))

    np.testing.assert_allclose(actual, [[0, 1 / 65535, 0.2, 1]])


@pytest.mark.parametrize("mode", ["1", "RGB", "LA", "P", "RGBA"])
def test_black_and_white_mean_the_same_in_every_form_of_png(save, mode):
    grey = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))

    assert EdgeReader().read(save(grey.convert(mode))).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_map_whose_edges_are_1_is_refused(save, kind):
    path = save(np.array([[0, 1], [1, 0]], kind))

    with pytest.raises(ValueError, match=f"no value above 1; an edge is {np.iinfo(kind).max}"):
        EdgeReader().read(path)


@pytest.mark.parametrize(("kind", "values"), [(np.uint8, [7, 8]), (np.uint16, [7 * 257, 7])])
def test_an_ignored_value_counts_nowhere(save, kind, values):
    reader = EdgeReader(ignore=7)

    actual = reader.read(save(np.array([values], kind)))

    assert actual[0, 0] == -1 and actual[0, 1] >= 0
    assert reader.sampling_groups(actual).tolist() == [[IGNORE, 0]]


def test_strata_are_edges_from_half_of_the_annotators_on():
    target = np.array([[-1, 0, 0.49, 0.5, 1]], np.float32)

    assert EdgeReader().sampling_groups(target).tolist() == [[IGNORE, 0, 0, 1, 1]]


def test_colours_and_other_kinds_of_files_are_refused(save):
    colour = save(np.array([[(255, 0, 0), (0, 0, 0)]], np.uint8))
    photo = save(np.zeros((4, 4), np.uint8), "edges.jpg")

    with pytest.raises(ValueError, match="a colour image"):
        EdgeReader().read(colour)
    with pytest.raises(ValueError, match=r"a \.jpg file, not a PNG file"):
        EdgeReader().read(photo)


def test_a_damaged_file_cannot_be_read(save, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
    (tmp_path / "cut.png").write_bytes((tmp_path / save(noise)).read_bytes()[:200])

    with pytest.raises(OSError, match="a damaged PNG file"):
        EdgeReader().read(str(tmp_path / "cut.png"))


@pytest.mark.parametrize("ignore", [9, None])
def test_the_reader_of_a_recipe_ignores_what_it_says(ignore, tmp_path, save):
    values = make_recipe("edges", draw_balls(tmp_path, train=1, validation=1))
    values["data"]["masks"] = {"ignore": ignore}
    path = save(np.array([[9, 255]], np.uint8))

    _, task = plan_values(values)

    assert task.reader.read(path)[0, 0] == (-1 if ignore else np.float32(9 / 255))


def test_balanced_edges_and_other_pixels_weigh_alike():
    outputs = make_outputs()

    losses, _ = balanced().compare(tf.constant(outputs), tf.constant(TARGETS))

    p = outputs[0, [0, 1, 2, 3, 5], 0]
    t = TARGETS[0, [0, 1, 2, 3, 5]]
    on_edges = -(t * np.log(p)).sum() / t.sum()
    elsewhere = -((1 - t) * np.log(1 - p)).sum() / (1 - t).sum()
    assert losses[0].numpy() == pytest.approx((on_edges + elsewhere) / 2, rel=1e-5)


def test_balanced_is_the_weighting_of_hed():
    # Weights are the share of the other kind; their mean is that of the two kinds' means.
    outputs = make_outputs()[:1, :4]
    targets = np.array([[1, 0, 0, 0]], np.float32)

    losses, _ = balanced().compare(tf.constant(outputs), tf.constant(targets))

    p = outputs[0, :, 0]
    beta = 3 / 4
    weights = np.where(targets[0] == 1, beta, 1 - beta)
    own = -np.where(targets[0] == 1, np.log(p), np.log(1 - p))
    assert losses[0].numpy() == pytest.approx((weights * own).sum() / weights.sum(), rel=1e-5)


def test_an_image_of_one_kind_alone_counts_its_pixels_alike():
    outputs = make_outputs()

    losses, _ = balanced().compare(tf.constant(outputs), tf.constant(TARGETS))

    edges = -np.log(outputs[1, [0, 1, 2, 5], 0]).mean()
    others = -np.log(1 - outputs[2, [0, 1, 2, 3, 5], 0]).mean()
    assert losses[1].numpy() == pytest.approx(edges, rel=1e-5)
    assert losses[2].numpy() == pytest.approx(others, rel=1e-5)


def test_without_class_weights_all_pixels_count_alike():
    outputs = make_outputs()

    losses, _ = Edges(PixelSettings()).compare(tf.constant(outputs), tf.constant(TARGETS))

    p, t = outputs[0, [0, 1, 2, 3, 5], 0], TARGETS[0, [0, 1, 2, 3, 5]]
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    assert losses[0].numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("task", [balanced(), Edges(PixelSettings())], ids=["balanced", "plain"])
def test_ignored_pixels_have_no_loss_no_gradient_and_no_state(task):
    outputs = tf.constant(make_outputs())

    with tf.GradientTape() as tape:
        tape.watch(outputs)
        losses, states = task.compare(outputs, tf.constant(TARGETS))
    gradient = tape.gradient(losses, outputs).numpy()[..., 0]

    assert losses[3].numpy() == 0
    assert np.abs(gradient[TARGETS < 0]).max() == 0
    assert np.abs(gradient[TARGETS >= 0]).min() > 0
    assert states.numpy().sum(axis=1).tolist() == (TARGETS >= 0).sum(axis=1).tolist()


def test_a_confident_error_costs_its_full_price():
    task = balanced()
    logits = keras.Input((1, 1))
    model = keras.Model(logits, keras.layers.Activation("sigmoid")(logits))

    @tf.function
    def loss_of(value, target):
        return task.compare(model(value), target)[0]

    assert loss_of(tf.constant([[[60.0]]]), tf.constant([[0.0]])).numpy() == pytest.approx([60])
    assert loss_of(tf.constant([[[-60.0]]]), tf.constant([[1.0]])).numpy() == pytest.approx([60])


def test_the_score_is_the_best_f_measure_of_single_pixels():
    outputs = np.array([[0.9, 0.8, 0.7, 0.3, 0.2, 0.1]], np.float32)[..., None]
    targets = np.array([[1, 0, 1, 1, 0, 0]], np.float32)

    _, states = balanced().compare(tf.constant(outputs), tf.constant(targets))

    # From 0.3 on: 3 of 3 found, 1 of 4 wrong.
    assert balanced().score_of(states.numpy().sum(axis=0)) == pytest.approx(2 * 3 / (4 + 3))


def test_the_score_is_1_for_a_perfect_prediction_and_0_without_an_edge():
    edges = TARGETS[:1] >= 0.5
    outputs = tf.constant(edges[..., None].astype(np.float32))

    _, states = balanced().compare(outputs, tf.constant(TARGETS[:1]))
    _, without = balanced().compare(outputs, tf.constant(TARGETS[2:3]))

    assert balanced().score_of(states.numpy()[0]) == 1
    assert balanced().score_of(without.numpy()[0]) == 0
    whole = balanced().build_metric().add({"probability": np.zeros((9, 9))}, np.zeros((9, 9)))
    assert whole["f_score"] == 0


def test_a_prediction_is_a_grey_image_of_probabilities():
    prediction = balanced().postprocess(tf.constant([[[0.0], [0.2], [1.0]]]))

    image = balanced().render(
        {name: kept.numpy() for name, kept in prediction.items()}, np.zeros((0, 3))
    )

    assert image.mode == "L"
    assert np.asarray(image).tolist() == [[0, 51, 255]]


def test_whole_maps_are_measured_over_all_images_and_each_alone():
    target = np.zeros((100, 100), np.float32)
    target[50, 10:90] = 1
    target[70, 10:90] = 0.4  # most annotators saw none
    target[:, 80:] = -1
    metric = balanced().build_metric()

    right = metric.add({"probability": np.where(target == 1, 0.7, 0)}, target)
    wrong = metric.add({"probability": np.zeros((100, 100))}, target)

    assert right["f_score"] == 1 and wrong["f_score"] == 0
    actual = metric.result()
    assert actual["images"] == 2
    assert actual["ods"] == actual["ois"] == pytest.approx(2 / 3)
    assert actual["average_precision"] == pytest.approx(1 / 2)


def test_thin_targets_are_lines_one_pixel_wide_where_they_are_learned(tmp_path):
    wide = np.zeros((30, 40), np.uint8)
    wide[10:13] = 255  # three rows
    wide[20] = 64  # few annotators saw it
    Image.fromarray(wide).save(tmp_path / "mask.png")
    example = Example("", "0", "train", (str(tmp_path / "mask.png"),))

    thin, plain = (
        Edges(thin=is_thin).load_targets([example], (30, 40), "stretch")
        for is_thin in (True, False)
    )

    assert (plain.resized(0) == 1).sum(axis=0).tolist() == [3] * 40
    lines = thin.resized(0) == 1
    assert lines[11, 2:-2].all() and lines.sum(axis=0).max() == 1
    assert (thin.resized(0)[20] == plain.resized(0)[20]).all()
    assert (thin.whole(0) == plain.whole(0)).all()  # what is measured is as its file has it
