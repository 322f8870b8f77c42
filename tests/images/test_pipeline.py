import tracemalloc

import numpy as np
import pytest

from tl_toolkit.errors import DataError
from tl_toolkit.images.decoder import decode_image, resize_image
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.pipeline import DecodedImages, Images
from tl_toolkit.images.scan import inspect_images
from tl_toolkit.sources.builtin import load_builtin


@pytest.fixture
def examples(tmp_path, draw, encode):
    """Ten JPEG files of two classes, some turned by EXIF."""
    paths = []
    for number in range(10):
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes(encode(draw(seed=number), "JPEG", orientation=1 + number % 8))
    inspections = inspect_images([str(path) for path in paths], cache_dir=tmp_path / "cache")
    return [
        Example(inspection.path, inspection.sha256, "train", ("ab"[n % 2],))
        for n, inspection in enumerate(inspections)
    ]


def images(examples, **values):
    return Images(examples, **{"image_size": (20, 24), **values})


def test_images_are_decoded_and_resized_in_the_order_asked_for(examples):
    loaded = images(examples, resize="crop").load([3, 0, 3])

    assert loaded.dtype == np.uint8
    for pixels, index in zip(loaded, [3, 0, 3], strict=True):
        with open(examples[index].path, "rb") as file:
            expected = resize_image(decode_image(file.read()), (20, 24), "crop")
        np.testing.assert_array_equal(pixels, expected)


def test_targets_of_the_same_images_are_kept_beside_them(examples):
    targets = np.arange(10)

    split = images(examples, targets=targets)

    assert len(split) == 10
    assert split.targets is targets


def test_small_budget_changes_nothing_but_the_memory(examples):
    in_memory, decoded = images(examples), images(examples, memory_budget=20 * 24 * 3 * 9)

    for _ in range(2):
        np.testing.assert_array_equal(in_memory.load([5, 1, 9]), decoded.load([5, 1, 9]))


def test_kept_images_are_decoded_once(examples, tmp_path):
    in_memory, decoded = images(examples), images(examples, memory_budget=0)
    before = in_memory.load(range(10))
    decoded.load(range(10))
    for path in tmp_path.glob("*.jpg"):
        path.unlink()

    np.testing.assert_array_equal(in_memory.load(range(10)), before)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        decoded.load(range(10))


def test_what_is_decoded_already_is_neither_decoded_again_nor_copied(examples, tmp_path):
    decoded = DecodedImages((200, 240))
    for example, path in zip(examples, sorted(tmp_path.glob("*.jpg")), strict=True):
        decoded.add(example.sha256, decode_image(path.read_bytes()))
        path.unlink()

    tracemalloc.start()
    split = images(examples, image_size=(200, 240), decoded=decoded)
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert allocated < 200 * 240 * 3  # not even one of the ten
    np.testing.assert_array_equal(split.load([7])[0], decoded.get(examples[7].sha256))


def test_what_is_loaded_may_be_changed_by_the_caller(examples):
    split = images(examples)
    split.load([0])[:] = 7

    assert split.load([0]).std() > 1


def test_file_that_changed_since_the_scan_is_named(examples, draw, encode):
    with open(examples[4].path, "wb") as file:
        file.write(encode(draw(), "JPEG"))

    with pytest.raises(DataError, match=r"4\.jpg  is not the image that was scanned before"):
        images(examples).load(range(10))


def test_batches_follow_the_order(examples):
    order = np.random.default_rng(0).permutation(10)
    split = images(examples)

    batches = list(split.batches(order, 4))

    assert [len(indices) for _, indices in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), order)
    np.testing.assert_array_equal(np.concatenate([b[0] for b in batches]), split.load(order))
    assert list(split.batches([], 4)) == []


def test_error_in_a_batch_prepared_ahead_reaches_the_caller(examples, tmp_path):
    (tmp_path / "9.jpg").unlink()
    batches = images(examples).batches(range(10), 4)

    next(batches)
    next(batches)
    with pytest.raises(DataError, match=r"9\.jpg  cannot be read"):
        next(batches)


def test_batches_may_be_left_early(examples):
    batches = images(examples).batches(range(10), 2)
    next(batches)

    batches.close()

    with pytest.raises(StopIteration):
        next(batches)


def test_keys_are_of_the_content(examples):
    split, reversed_split = images(examples), images(examples[::-1])

    assert split.keys.dtype == np.int64
    assert len(set(split.keys.tolist())) == 10
    np.testing.assert_array_equal(split.keys, reversed_split.keys[::-1])


def test_digits_go_the_same_way():
    path = "builtin:digits/17"
    [inspection] = inspect_images([path])
    split = Images([Example(path, inspection.sha256, "train", ("7",))], image_size=(8, 8))
    larger = Images([Example(path, inspection.sha256, "train", ("7",))], image_size=(16, 20))

    np.testing.assert_array_equal(split.load([0])[0], load_builtin("digits")[0][17])
    expected = resize_image(load_builtin("digits")[0][17], (16, 20))
    np.testing.assert_array_equal(larger.load([0])[0], expected)
