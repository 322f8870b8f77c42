import itertools
from functools import cache

import keras
import numpy as np
import pytest

from tests.architectures.networks import fill
from tests.models import build_transfer, layers_of
from tl_toolkit.tasks.dense.predictor import DensePredictor
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.dense.task import PREFIX_BATCH
from tl_toolkit.tasks.segmentation.task import Segmentation
from tl_toolkit.transfer.freezing import split_at

CLASSES = ("sky", "tree", "road")
HEADS = {
    "linear": {},
    "linear with dropout": {"dropout": 0.5},
    "one hidden": {"hidden": [{"units": 24, "dropout": 0.5}]},
    "three hidden": {
        "hidden": [{"units": 24}, {"units": 16, "activation": "tanh"}, {"units": 8}],
        "dropout": 0.3,
    },
}


slow = pytest.mark.slow


def keep_all(outputs):
    return {"outputs": outputs}


@cache
def assemble_pixels(head="one hidden", *, base="vgg_tiny", size=(32, 32), **pixels):
    """A model of three classes whose outputs are far from each other."""
    task = Segmentation(CLASSES, PixelSettings(**pixels), head=layers_of(HEADS[head]))
    arguments = {"alpha": 0.25} if base == "mobilenet" else {}
    transfer = build_transfer(base, task=task, size=size, arguments=arguments)
    fill(transfer.model)
    return transfer


def draw_image(size=(32, 32)):
    """Draws one image of coarse blobs: single pixels of noise would average out in the maps."""
    blobs = np.random.default_rng(1).uniform(0, 255, (1, 8, 8, 3))
    rows, columns = (np.arange(side) * 8 // side for side in size)
    return blobs[:, rows][:, :, columns].astype("float32")


def ask_all(transfer, image):
    """Asks for all pixels as training does, one after the other in a list."""
    height, width = image.shape[1:3]
    pixels = np.stack(np.mgrid[:height, :width], axis=-1).reshape(1, -1, 2)
    return ask(transfer, image, pixels).reshape(height, width, -1)


def ask(transfer, image, pixels):
    # In batches of the predictor's size: kernels choose by it, and differ in the last digits.
    rows = [np.repeat(one, PREFIX_BATCH, axis=0).astype("float32") for one in (image, pixels)]
    return keras.ops.convert_to_numpy(transfer.model(rows, training=False))[0]


def predict(transfer, image, ys=None, xs=None, **settings):
    predictor = DensePredictor(transfer.model, **settings)
    maps = [one[0] for one in predictor.read_maps(image)]
    ys, xs = (
        np.arange(side, dtype="float32") if places is None else np.asarray(places, "float32")
        for places, side in zip((ys, xs), image.shape[1:3], strict=True)
    )
    return predictor.predict(maps, ys, xs, keep_all)["outputs"]


def assert_same(actual, expected, tolerance=1e-6):
    # Answers that are alike everywhere would hide any mistake.
    assert expected.std(axis=(0, 1)).max() > 0.005
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "normalize"),
    [
        pytest.param(head, normalize, marks=[] if normalize == ("hidden" in head) else slow)
        for head in HEADS
        for normalize in (False, True)
    ],
)
def test_all_pixels_are_what_single_ones_are(head, normalize):
    transfer = assemble_pixels(head, normalize=normalize)

    actual = predict(transfer, draw_image())

    assert actual.shape == (32, 32, 3)
    assert_same(actual, ask_all(transfer, draw_image()))


@pytest.mark.parametrize(
    "size", [(33, 50), *(pytest.param(size, marks=slow) for size in ((32, 64), (40, 24)))]
)
def test_images_of_any_shape_are_predicted_in_whole(size):
    transfer = assemble_pixels(size=size)

    actual = predict(transfer, draw_image(size))

    assert actual.shape == (*size, 3)
    assert_same(actual, ask_all(transfer, draw_image(size)))


@pytest.mark.slow
def test_a_base_without_maps_as_fine_as_the_image_is_predicted_too():
    transfer = assemble_pixels(base="mobilenet", size=(64, 64))

    actual = predict(transfer, draw_image((64, 64)))

    assert [tap.stride for tap in DensePredictor(transfer.model)._taps] == [2, 4, 8, 16, 32]
    assert_same(actual, ask_all(transfer, draw_image((64, 64))))


@pytest.mark.slow
def test_one_map_alone_is_read_without_a_hypercolumn():
    transfer = assemble_pixels("three hidden", taps=("block3",))

    assert_same(predict(transfer, draw_image()), ask_all(transfer, draw_image()))


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_both_modes_agree(head):
    transfer = assemble_pixels(head)

    first, second = (
        predict(transfer, draw_image(), mode=mode) for mode in ("project_first", "gather_first")
    )

    assert_same(first, second, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "head"),
    [
        pytest.param("project_first", "linear", marks=slow),
        ("project_first", "one hidden"),
        pytest.param("gather_first", "one hidden", marks=slow),
    ],
)
def test_tiles_of_any_size_give_the_same_map(head, mode):
    transfer = assemble_pixels(head, size=(50, 50))
    expected = predict(transfer, draw_image((50, 50)), mode=mode)
    # One row a tile, and no map projected as a whole; 7 rows, which do not divide 50; all rows.
    sizes = {1, 7 * 50 * 4 * 24 * 4, 1 << 45}

    actual = [predict(transfer, draw_image((50, 50)), mode=mode, tile_bytes=n) for n in sizes]

    for one in actual:
        # Not bit-equal: the kernels of dense layers choose the order of their sums by the size.
        assert_same(one, expected)


@pytest.mark.slow
def test_the_same_tiles_give_the_same_map_bit_for_bit():
    transfer = assemble_pixels()

    first, second = (predict(transfer, draw_image(), tile_bytes=30_000) for _ in range(2))

    assert np.array_equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("tile_bytes", [1, 100_000, 1 << 30])
def test_some_rows_and_columns_are_predicted_as_in_the_whole_map(tile_bytes):
    transfer = assemble_pixels()
    ys, xs = [31, 0, 17, 18], [5, 30, 2]
    expected = ask_all(transfer, draw_image())[np.ix_(ys, xs)]

    assert_same(predict(transfer, draw_image(), ys, xs, tile_bytes=tile_bytes), expected)


@pytest.mark.slow
def test_places_between_pixels_and_beyond_the_image_are_those_of_single_pixels():
    transfer = assemble_pixels()
    ys, xs = [-40.5, -0.25, 0.5, 21.75, 31.4, 99.0], [-7.0, 12.125, 40.5]
    expected = ask(transfer, draw_image(), np.array([list(itertools.product(ys, xs))]))

    actual = predict(transfer, draw_image(), ys, xs)

    assert_same(actual, expected.reshape(6, 3, 3))


@pytest.mark.slow
def test_images_are_predicted_from_what_crosses_a_cut():
    transfer = assemble_pixels.__wrapped__(normalize=True)  # one of its own: it is cut in two
    split = split_at(transfer, [part.name for part in transfer.parts[-3:-1]])
    predictor = DensePredictor(transfer.model, source=split.cut.tensors)

    maps = predictor.read_maps(split.prefix(draw_image()))

    places = np.arange(32, dtype="float32")
    actual = predictor.predict([one[0] for one in maps], places, places, keep_all)["outputs"]
    assert_same(actual, ask_all(transfer, draw_image()))


@pytest.mark.slow
def test_images_of_many_sizes_share_their_compiled_functions():
    predictor = DensePredictor(assemble_pixels().model, tile_bytes=40_000)

    sizes = [(20 + 30 * n, 90 - 25 * n) for n in range(3)]
    actual = [predictor.predict_large(draw_image(size)[0], keep_all)["outputs"] for size in sizes]

    # One where all maps fit into a tile, and one for each number of maps that do not.
    functions = list(predictor._compiled.values())
    assert len(functions) <= 3
    assert sum(one.experimental_get_tracing_count() for one in functions) == len(functions)
    for size, one in zip(sizes, actual, strict=True):
        alone = DensePredictor(assemble_pixels().model, tile_bytes=40_000)
        assert one.shape[:2] == size
        assert np.array_equal(alone.predict_large(draw_image(size)[0], keep_all)["outputs"], one)


@pytest.mark.slow
def test_a_model_that_was_saved_predicts_alike(tmp_path):
    transfer = assemble_pixels.__wrapped__(normalize=True)
    expected = predict(transfer, draw_image())
    transfer.model.save(tmp_path / "x.keras")

    predictor = DensePredictor(keras.saving.load_model(tmp_path / "x.keras"))

    maps = [one[0] for one in predictor.read_maps(draw_image())]
    places = np.arange(32, dtype="float32")
    assert_same(predictor.predict(maps, places, places, keep_all)["outputs"], expected)


@pytest.mark.slow
def test_what_is_kept_of_the_outputs_is_what_a_task_says():
    transfer = assemble_pixels()
    predictor = DensePredictor(transfer.model, tile_bytes=50_000)
    maps = [one[0] for one in predictor.read_maps(draw_image())]
    places = np.arange(32, dtype="float32")

    actual = predictor.predict(maps, places, places, transfer.task.postprocess)

    expected = ask_all(transfer, draw_image())
    assert actual["mask"].dtype == np.uint8
    assert np.array_equal(actual["mask"], expected.argmax(axis=-1))
    assert_same(actual["probability"], expected.max(axis=-1))
