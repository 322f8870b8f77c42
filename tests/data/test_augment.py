import hashlib
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tl_toolkit.data import augment as augment_module
from tl_toolkit.data.augment import build_augment
from tl_toolkit.data.manifest import Example
from tl_toolkit.data.pipeline import Images
from tl_toolkit.recipe.schema import Augment, RandAugment

KEYS = np.array([5, -9_000_000_000_000_000_000, 3, 1, 4_000_000_000, 9, 2, 6])
SETTINGS = {
    "flip": Augment(flip="horizontal"),
    "rotation": Augment(rotation=0.1),
    "zoom": Augment(zoom=0.3),
    "contrast": Augment(contrast=0.5),
}
EVERYTHING = Augment(
    flip="both", rotation=0.1, zoom=0.2, contrast=0.3, rand_augment=RandAugment(num_ops=1)
)


@pytest.fixture(scope="module")
def images():
    """Eight images of smooth colours, so that interpolation moves values a little only."""
    seeds = np.random.default_rng(0).integers(0, 256, (8, 4, 5, 3), dtype=np.uint8)
    return np.repeat(np.repeat(seeds, 6, axis=1), 6, axis=2)


@pytest.fixture(scope="module")
def everything():
    return build_augment(EVERYTHING)


@pytest.fixture(scope="module", params=[*SETTINGS, "everything"])
def change(request, everything):
    return build_augment(SETTINGS[request.param]) if request.param in SETTINGS else everything


def test_nothing_configured_changes_nothing(images):
    for augment in (None, Augment(), Augment(rotation=0.0, zoom=0.0, contrast=0.0)):
        changed = build_augment(augment)(images, 0, 1, KEYS)

        assert changed.dtype == tf.float32
        np.testing.assert_array_equal(changed, images)


def test_each_change_does_something_and_stays_in_range(change, images):
    changed = change(images, 0, 1, KEYS).numpy()

    assert changed.dtype == np.float32
    assert changed.shape == images.shape
    assert 0 <= changed.min() < changed.max() <= 255
    assert not np.array_equal(changed, images)


def test_each_image_hangs_on_seed_epoch_and_key(change, images):
    same = np.repeat(images[:1], 8, axis=0)

    changed = change(same, 0, 1, KEYS).numpy()

    # A flip has two outcomes; the others have many.
    assert len({image.tobytes() for image in changed}) > 1
    assert not np.array_equal(change(same, 1, 1, KEYS), changed)
    assert not np.array_equal(change(same, 0, 2, KEYS), changed)
    np.testing.assert_array_equal(change(same, 0, 1, KEYS), changed)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_neither_order_nor_batch_size_matters(size, images, everything):
    order = np.random.default_rng(size).permutation(8)

    expected = everything(images, 3, 7, KEYS).numpy()
    parts = [order[start : start + size] for start in range(0, 8, size)]
    changed = np.concatenate([everything(images[part], 3, 7, KEYS[part]) for part in parts])

    np.testing.assert_array_equal(changed, expected[order])


def test_float_and_integer_images_are_changed_alike(images, everything):
    integers = everything(images, 0, 0, KEYS)
    floats = everything(tf.constant(images, tf.float32), 0, 0, KEYS)

    np.testing.assert_array_equal(integers, floats)


def test_another_process_decodes_and_changes_alike(draw, encode, everything, tmp_path):
    rows = []
    for number in range(8):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(encode(draw(seed=number), "JPEG", orientation=1 + number))
        rows.append((str(path), hashlib.sha256(path.read_bytes()).hexdigest(), "a", "train"))
    code = (
        "import hashlib, keras, tensorflow as tf\n"
        "tf.config.experimental.enable_op_determinism()\n"
        "tf.config.threading.set_intra_op_parallelism_threads(2)\n"
        "tf.config.threading.set_inter_op_parallelism_threads(3)\n"
        "from tl_toolkit.data.augment import build_augment\n"
        "from tl_toolkit.data.manifest import Example\n"
        "from tl_toolkit.data.pipeline import Images\n"
        "from tl_toolkit.recipe.schema import Augment, RandAugment\n"
        "[keras.layers.RandomFlip() for _ in range(3)]\n"  # moves Keras's counters and seeds
        f"images = Images([Example(*row) for row in {rows!r}], ['a'], image_size=(24, 30))\n"
        f"run = build_augment({EVERYTHING!r})\n"
        "changed = run(images.load(range(8)), 3, 7, images.keys)\n"
        "print(hashlib.sha256(changed.numpy().tobytes()).hexdigest())"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    images = Images([Example(*row) for row in rows], ["a"], image_size=(24, 30))
    changed = everything(images.load(range(8)), 3, 7, images.keys).numpy()
    assert result.stdout.strip() == hashlib.sha256(changed.tobytes()).hexdigest(), result.stderr


def test_no_random_numbers_of_others_are_used():
    random.seed(0)
    np.random.seed(0)
    before = random.getstate(), np.random.get_state()[2]

    build_augment(EVERYTHING)

    assert (random.getstate(), np.random.get_state()[2]) == before


def test_contrast_is_lowered_and_raised():
    image = np.zeros((20, 8, 8, 3), np.uint8)
    image[:, :4] = 200
    image[:, 4:] = 100

    changed = build_augment(SETTINGS["contrast"])(image, 0, 0, np.arange(20)).numpy()

    spread = changed.max(axis=(1, 2, 3)) - changed.min(axis=(1, 2, 3))
    assert 50 <= spread.min() < 80
    assert 120 < spread.max() <= 150


def test_half_of_the_images_are_flipped():
    image = np.tile(np.arange(8, dtype=np.uint8)[:, None], (200, 4, 1, 3))

    changed = build_augment(SETTINGS["flip"])(image, 0, 0, np.arange(200)).numpy()

    assert 75 <= (changed[:, 0, 0, 0] == 7).sum() <= 125


def test_draws_for_one_image_are_independent():
    seeds = augment_module._ImageSeeds()
    values = []
    for key in range(200):
        seeds.start(tf.constant([key, 0], tf.int64))
        values.append([float(keras.random.uniform((), seed=seeds)) for _ in range(2)])

    assert abs(np.corrcoef(np.transpose(values))[0, 1]) < 0.2


def test_rand_augment_equals_that_of_keras(images):
    seeds = augment_module._ImageSeeds()
    changed = []
    for kind in (augment_module._RandAugment, keras.layers.RandAugment):
        layer = kind((0, 255), num_ops=2, factor=0.4, seed=0, data_format="channels_last")
        layer.generator = seeds
        run = augment_module._compile([layer], seeds, images.shape[1:3])
        start = tf.constant([1, 2], tf.int64)
        changed.append(run(tf.constant(images, tf.float32), start, tf.constant(KEYS)).numpy())

    np.testing.assert_array_equal(*changed)
