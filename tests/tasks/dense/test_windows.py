import keras
import numpy as np
import pytest

from tests.architectures.networks import fill
from tests.models import build_transfer, layers_of
from tl_toolkit.tasks.dense.predictor import DensePredictor
from tl_toolkit.tasks.dense.windows import SizelessBase, cut_spans
from tl_toolkit.tasks.segmentation.task import Segmentation


def keep_all(outputs):
    return {"outputs": outputs}


def assemble_pixels(size, *, base="vgg_tiny", **arguments):
    """The same weights at each size."""
    task = Segmentation(("sky", "tree", "road"), head=layers_of({"hidden": [{"units": 16}]}))
    transfer = build_transfer(base, task=task, size=size, arguments=arguments)
    fill(transfer.model)
    return transfer


def draw_photo(size):
    blobs = np.random.default_rng(1).integers(0, 256, (9, 9, 3)).astype("uint8")
    rows, columns = (np.arange(side) * 9 // side for side in size)
    return blobs[rows][:, columns]


def predict_at_size(size, **model):
    """The outputs of a model that was built for this size."""
    predictor = DensePredictor(assemble_pixels(size, **model).model)
    maps = [one[0] for one in predictor.read_maps(draw_photo(size)[np.newaxis])]
    ys, xs = (np.arange(side, dtype="float32") for side in size)
    return predictor.predict(maps, ys, xs, keep_all)["outputs"]


def assert_same(actual, expected):
    assert expected.std(axis=(0, 1)).max() > 0.005
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)  # other kernels, other sums


@pytest.mark.slow
@pytest.mark.parametrize("trained", [(40, 32), (32, 32)])
@pytest.mark.parametrize("size", [(96, 64), (32, 32), (20, 71)])
def test_an_image_is_predicted_as_by_a_model_of_its_size(size, trained):
    predictor = DensePredictor(assemble_pixels(trained).model)

    actual = predictor.predict_large(draw_photo(size), keep_all)["outputs"]

    assert actual.shape == (*size, 3)
    assert_same(actual, predict_at_size(size))


@pytest.mark.parametrize(
    "window", [160, *(pytest.param(window, marks=pytest.mark.slow) for window in (1, 192))]
)
def test_a_large_image_is_predicted_in_windows_without_seams(window):
    predictor = DensePredictor(assemble_pixels((32, 32)).model)
    photo = draw_photo((200, 333))
    expected = predictor.predict_large(photo, keep_all, window=1024)["outputs"]

    actual = predictor.predict_large(photo, keep_all, window=window)["outputs"]

    assert predictor.is_seamless
    assert_same(actual, expected)


@pytest.mark.slow
def test_a_smaller_margin_would_leave_seams():
    predictor = DensePredictor(assemble_pixels((32, 32)).model)
    photo = draw_photo((200, 200))
    expected = predictor.predict_large(photo, keep_all, window=1024)["outputs"]
    predictor._sizeless.margin = 0

    actual = predictor.predict_large(photo, keep_all, window=96)["outputs"]

    assert np.abs(actual - expected).max() > 1e-3


@pytest.mark.slow
def test_strided_convolutions_are_seamless_too():
    predictor = DensePredictor(assemble_pixels((64, 64), base="mobilenet", alpha=0.25).model)
    size = (96, 1100)

    actual = predictor.predict_large(draw_photo(size), keep_all, window=32)["outputs"]

    margin = predictor._sizeless.margin
    assert size[1] > 4 * margin > 0  # more than one window
    assert_same(actual, predict_at_size(size, base="mobilenet", alpha=0.25))


@pytest.mark.slow
def test_a_base_that_reads_the_whole_image_is_told_not_to_be_seamless():
    transfer = assemble_pixels((64, 64), base="mobilenet_v3_small", alpha=0.75)
    predictor = DensePredictor(transfer.model)

    actual = predictor.predict_large(draw_photo((100, 330)), keep_all, window=256)["outputs"]

    assert not predictor.is_seamless
    assert actual.shape == (100, 330, 3)
    assert np.isfinite(actual).all()


@pytest.mark.slow
def test_what_is_kept_has_the_images_size():
    transfer = assemble_pixels((32, 32))

    actual = DensePredictor(transfer.model).predict_large(
        draw_photo((50, 61)), transfer.task.postprocess
    )

    assert {name: one.shape for name, one in actual.items()} == {
        "mask": (50, 61),
        "probability": (50, 61),
    }


@pytest.mark.parametrize("length", [1, 31, 32, 33, 160, 161, 500, 1024, 1025])
@pytest.mark.parametrize(("window", "margin"), [(160, 32), (160, 64), (64, 0)])
def test_windows_predict_each_pixel_once_and_away_from_their_inner_ends(length, window, margin):
    spans = cut_spans(length, window=window, margin=margin)

    predicted = [pixel for span in spans for pixel in range(span.first, span.last)]
    assert predicted == list(range(length))
    for span in spans:
        assert span.start % 32 == 0
        assert span.stop - span.start <= window
        assert span.start == 0 or span.first >= span.start + margin
        assert span.stop >= length or span.last <= span.stop - margin


def test_the_margin_is_what_a_cell_sees_and_what_is_interpolated():
    image = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(2, 5, strides=4, padding="same")(image)

    assert SizelessBase(image, [x], [4]).margin == 32
    x = keras.layers.Conv2D(2, 17, padding="same")(x)  # 8 cells, or 32 pixels, to either side
    assert SizelessBase(image, [x], [4]).margin == 64


def test_a_field_that_windows_could_not_overlap_by_gives_no_margin():
    image = keras.Input((1024, 1024, 1))
    x = keras.layers.Conv2D(1, 3, padding="same", dilation_rate=500)(image)

    assert SizelessBase(image, [x], [1]).margin == 512
    x = keras.layers.Conv2D(1, 31, padding="same")(x)
    assert SizelessBase(image, [x], [1]).margin is None
