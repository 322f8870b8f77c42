import colorsys
import hashlib
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from tl_toolkit.images import augment as augment_module
from tl_toolkit.images.augment import (
    AugmentSettings,
    GeometricTransform,
    RandAugmentSettings,
    build_augment,
    build_geometric_transform,
)
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.pipeline import Images
from tl_toolkit.tasks.dense.spec import IGNORE

KEYS = np.array([5, -9_000_000_000_000_000_000, 3, 1, 4_000_000_000, 9, 2, 6])
SETTINGS = {
    "flip": AugmentSettings(flip="horizontal"),
    "rotation": AugmentSettings(rotation=0.1),
    "zoom": AugmentSettings(zoom=0.3),
    "contrast": AugmentSettings(contrast=0.5),
    "erasing": AugmentSettings(erasing=0.99),
}
EVERYTHING = AugmentSettings(
    flip="both", rotation=0.1, zoom=0.2, contrast=0.3, rand_augment=RandAugmentSettings(num_ops=1),
    brightness=0.1, saturation=0.2, hue=0.02, erasing=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def images():
    """Eight images of smooth colours, so that interpolation moves values a little only."""
    seeds = np.random.default_rng(0).integers(0, 256, (8, 4, 5, 3), dtype=np.uint8)
    return np.repeat(np.repeat(seeds, 6, axis=1), 6, axis=2)


@pytest.fixture(scope="module")
def everything():
    return build_augment(EVERYTHING)


@pytest.fixture(
    scope="module",
    params=[*(pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS), "everything"],
)
def change(request, everything):
    return build_augment(SETTINGS[request.param]) if request.param in SETTINGS else everything


def test_nothing_configured_changes_nothing(images):
    for augment in (None, AugmentSettings(), AugmentSettings(rotation=0.0, zoom=0.0, contrast=0.0)):
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


@pytest.mark.parametrize(
    "size", [3, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 8))]
)
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


@pytest.mark.slow
def test_another_process_decodes_and_changes_alike(draw, encode, everything, tmp_path):
    rows = []
    for number in range(8):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(encode(draw(seed=number), "JPEG", orientation=1 + number))
        rows.append((str(path), hashlib.sha256(path.read_bytes()).hexdigest(), "train", ("a",)))
    code = (
        "import hashlib, keras, tensorflow as tf\n"
        "tf.config.experimental.enable_op_determinism()\n"
        "tf.config.threading.set_intra_op_parallelism_threads(2)\n"
        "tf.config.threading.set_inter_op_parallelism_threads(3)\n"
        "from tl_toolkit.images.augment import build_augment\n"
        "from tl_toolkit.images.manifest import Example\n"
        "from tl_toolkit.images.pipeline import Images\n"
        "from tl_toolkit.images.augment import AugmentSettings, RandAugmentSettings\n"
        "[keras.layers.RandomFlip() for _ in range(3)]\n"  # moves Keras's counters and seeds
        f"images = Images([Example(*row) for row in {rows!r}], image_size=(24, 30))\n"
        f"run = build_augment({EVERYTHING!r})\n"
        "changed = run(images.load(range(8)), 3, 7, images.keys)\n"
        "print(hashlib.sha256(changed.numpy().tobytes()).hexdigest())"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    images = Images([Example(*row) for row in rows], image_size=(24, 30))
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


def as_hsv(image):
    """The hue, saturation and value of each pixel, by Python's own conversion."""
    pixels = image.reshape(-1, 3).astype(float) / 255
    return np.array([colorsys.rgb_to_hsv(*pixel) for pixel in pixels])


def test_brightness_adds_one_number_to_all_pixels():
    greys = np.full((200, 2, 2, 3), 128, np.uint8)

    added = build_augment(AugmentSettings(brightness=0.2))(greys, 0, 1, np.arange(200)) - greys

    assert np.ptp(added.numpy().reshape(200, -1), axis=1).max() == 0
    assert -51 <= added.numpy().min() < -40 and 40 < added.numpy().max() <= 51


def test_saturation_is_multiplied_and_hue_and_value_stay():
    image = COLORS.reshape(1, 5, 1, 3).astype(np.uint8)
    images = np.repeat(image, 100, axis=0)

    changed = build_augment(AugmentSettings(saturation=0.3))(images, 0, 1, np.arange(100)).numpy()

    before, after = as_hsv(image), np.array([as_hsv(one) for one in changed])
    assert after[..., 2] == pytest.approx(np.broadcast_to(before[:, 2], (100, 5)), abs=1e-4)
    hue = np.abs((after[..., 0] - before[:, 0] + 0.5) % 1 - 0.5)
    assert hue.max() < 1e-4
    dull = before[:, 1] * 1.3 < 1  # others reach the end of the scale
    multiples = after[..., dull, 1] / before[dull, 1]
    assert dull.sum() >= 2
    assert 0.7 <= multiples.min() < 0.75 and 1.25 < multiples.max() <= 1.3 + 1e-5
    assert np.ptp(multiples, axis=1).max() < 1e-3  # one for the whole image
    assert after[..., 1].max() <= 1


def test_hue_turns_by_one_angle_and_saturation_and_value_stay():
    image = COLORS.reshape(1, 5, 1, 3).astype(np.uint8)
    images = np.repeat(image, 100, axis=0)

    changed = build_augment(AugmentSettings(hue=0.1))(images, 0, 1, np.arange(100)).numpy()

    before, after = as_hsv(image), np.array([as_hsv(one) for one in changed])
    turns = (after[..., 0] - before[:, 0] + 0.5) % 1 - 0.5
    assert np.ptp(turns, axis=1).max() < 1e-3
    assert -0.1 - 1e-4 <= turns.min() < -0.08 and 0.08 < turns.max() <= 0.1 + 1e-4
    assert after[..., 1:] == pytest.approx(np.broadcast_to(before[:, 1:], (100, 5, 2)), abs=1e-4)


def test_erasing_replaces_one_rectangle_in_a_share_of_the_images():
    greys = np.full((400, 20, 30, 3), 128, np.uint8)

    changed = build_augment(AugmentSettings(erasing=0.25))(greys, 0, 1, np.arange(400)).numpy()

    erased = (changed != 128).any(axis=-1)
    assert 75 <= erased.any(axis=(1, 2)).sum() <= 125
    for image in erased[erased.any(axis=(1, 2))]:
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        inside = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert inside.mean() > 0.9  # a pixel of noise may be 128
        assert 2 <= len(rows) <= 12 and 4 <= len(columns) <= 18  # sqrt(0.02) to sqrt(0.33)


def test_half_of_the_images_are_flipped():
    image = np.tile(np.arange(8, dtype=np.uint8)[:, None], (200, 4, 1, 3))

    changed = build_augment(SETTINGS["flip"])(image, 0, 0, np.arange(200)).numpy()

    assert 75 <= (changed[:, 0, 0, 0] == 7).sum() <= 125


@pytest.mark.slow
def test_draws_for_one_image_are_independent():
    seeds = augment_module._ImageSeeds()
    values = []
    for key in range(200):
        seeds.start(tf.constant([key, 0], tf.int64))
        values.append([float(keras.random.uniform((), seed=seeds)) for _ in range(2)])

    assert abs(np.corrcoef(np.transpose(values))[0, 1]) < 0.2


@pytest.mark.slow
def test_rand_augment_equals_that_of_keras(images):
    seeds = augment_module._ImageSeeds()
    changed = []
    for kind in (augment_module._RandAugment, keras.layers.RandAugment):
        layer = kind((0, 255), num_ops=2, factor=0.4, seed=0, data_format="channels_last")
        layer.generator = seeds
        run = augment_module._compile([layer], seeds, images.shape[1:])
        start = tf.constant([1, 2], tf.int64)
        changed.append(run(tf.constant(images, tf.float32), start, tf.constant(KEYS)).numpy())

    np.testing.assert_array_equal(*changed)


# What each pixel is known to be moves with its image.

MOVES = {
    "horizontal": AugmentSettings(flip="horizontal"),
    "vertical": AugmentSettings(flip="vertical"),
    "both": AugmentSettings(flip="both"),
    "rotation": AugmentSettings(rotation=0.5),
    "zoom": AugmentSettings(zoom=0.9),
    "together": AugmentSettings(flip="horizontal", rotation=0.2, zoom=0.3),
}
ONE_MOVE = [
    pytest.param(name, marks=[] if name == "together" else pytest.mark.slow) for name in MOVES
]
OPERATIONS = keras.layers.RandAugment._AUGMENT_LAYERS
GEOMETRIC = ("random_shear", "random_translation", "random_rotation")
COLORS = np.array([[0, 200, 90], [50, 10, 240], [100, 90, 20], [150, 250, 130], [200, 60, 180]])


@pytest.fixture(scope="module")
def scenes():
    """Masks of five classes in large patches, and images: red is 50 times the class."""
    patches = np.random.default_rng(1).integers(0, 5, (8, 3, 4), dtype=np.uint8)
    masks = patches.repeat(16, axis=1).repeat(16, axis=2)
    return masks, COLORS[masks].astype(np.uint8)


def move(augment, masks, *, seed=0, epoch=1, keys=KEYS):
    tell = build_geometric_transform(augment, masks.shape[1:3])
    motions = [tell(seed, epoch, int(key)) for key in keys]
    return np.stack([one.move(mask, IGNORE) for one, mask in zip(motions, masks, strict=True)])


def find_inner(masks, far=1):
    """Pixels of a class that all pixels up to so far are of too."""
    height, width = masks.shape[1:]
    around = np.pad(masks, ((0, 0), (far, far), (far, far)), constant_values=IGNORE)
    steps = range(2 * far + 1)
    shifts = [around[:, y : y + height, x : x + width] for y in steps for x in steps]
    return (np.stack(shifts) == masks).all(axis=0) & (masks != IGNORE)


def agreement(changed, moved):
    """How often the class that an image shows is its mask's, away from borders."""
    inner = find_inner(moved)
    assert inner.mean() > 0.25  # or there would be little to compare
    return (np.round(changed[..., 0] / 50) == moved)[inner].mean()


def purity(changed, moved, far=1):
    """The share of pixels away from borders in the colour that most of their class have."""
    inners = find_inner(moved, far)
    assert inners.mean() > 0.15
    same = total = 0
    for image, mask, inner in zip(changed, moved, inners, strict=True):
        for value in np.unique(mask[inner]):
            colors = np.round(image[inner & (mask == value)])
            counts = np.unique(colors, axis=0, return_counts=True)[1]
            same += counts.max()
            total += counts.sum()
    return same / total


@pytest.mark.parametrize("name", ONE_MOVE)
def test_a_mask_moves_as_its_image(name, scenes):
    masks, images = scenes

    changed = build_augment(MOVES[name])(images, 0, 1, KEYS).numpy()
    moved = move(MOVES[name], masks)

    assert agreement(changed, moved) >= 0.99
    assert agreement(changed, masks) < 0.9  # unmoved masks would be wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", ["horizontal", "vertical", "both"])
def test_a_flipped_mask_equals_the_flipped_image_everywhere(name, scenes):
    masks, images = scenes

    changed = build_augment(MOVES[name])(images, 0, 1, KEYS).numpy()

    np.testing.assert_array_equal(move(MOVES[name], masks), changed[..., 0] / 50)


@pytest.mark.slow
@pytest.mark.parametrize("num_ops", [1, 2])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_a_mask_moves_by_each_operation_of_rand_augment(name, num_ops, scenes, monkeypatch):
    masks, images = scenes
    monkeypatch.setattr(augment_module._RandAugment, "_AUGMENT_LAYERS", [name])
    augment = AugmentSettings(rand_augment=RandAugmentSettings(num_ops=num_ops, magnitude=0.3))

    changed = build_augment(augment)(images, 0, 1, KEYS).numpy()
    moved = move(augment, masks)

    assert agreement(changed, moved) >= 0.99
    assert agreement(changed, masks) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in GEOMETRIC])
def test_colours_leave_a_mask_alone(name, scenes, monkeypatch):
    masks, images = scenes
    monkeypatch.setattr(augment_module._RandAugment, "_AUGMENT_LAYERS", [name])
    augment = AugmentSettings(rand_augment=RandAugmentSettings())

    changed = build_augment(augment)(images, 0, 1, KEYS).numpy()

    np.testing.assert_array_equal(move(augment, masks), masks)
    assert purity(changed, masks, far=2) >= 0.99


def test_colours_and_erasing_move_no_pixel():
    settings = AugmentSettings(brightness=0.3, saturation=0.5, hue=0.1, erasing=1.0)

    transform = build_geometric_transform(settings, (8, 8))(0, 1, 5)

    np.testing.assert_array_equal(transform.linear, np.eye(2))
    mask = np.arange(64).reshape(8, 8)
    np.testing.assert_array_equal(transform.move(mask, 255), mask)


def test_contrast_and_nothing_leave_a_mask_alone(scenes):
    masks, _ = scenes

    np.testing.assert_array_equal(move(AugmentSettings(contrast=0.5), masks), masks)
    np.testing.assert_array_equal(move(AugmentSettings(), masks), masks)


@pytest.mark.slow
def test_a_mask_moves_as_its_image_among_colours_that_draw_too(scenes):
    masks, images = (np.tile(values, (3, *[1] * (values.ndim - 1))) for values in scenes)
    keys = np.arange(len(masks))
    augment = AugmentSettings(
        flip="horizontal", rotation=0.1, zoom=0.2, contrast=0.3,
        rand_augment=RandAugmentSettings(num_ops=2, magnitude=0.3),
    )  # fmt: skip

    changed = build_augment(augment)(images, 0, 1, keys).numpy()
    moved = move(augment, masks, keys=keys)

    # Five steps, and perhaps sharpening, spread the borders.
    assert purity(changed, moved, far=3) >= 0.99
    assert purity(changed, masks, far=3) < 0.9


@pytest.mark.slow
def test_motions_hang_on_seed_epoch_and_key(scenes):
    masks = np.repeat(scenes[0][:1], 8, axis=0)

    moved = move(MOVES["rotation"], masks)

    np.testing.assert_array_equal(move(MOVES["rotation"], masks), moved)
    assert len({mask.tobytes() for mask in moved}) == 8
    for other in ({"seed": 1}, {"epoch": 2}):
        assert not np.array_equal(move(MOVES["rotation"], masks, **other), moved)


@pytest.mark.slow
def test_several_threads_get_what_one_gets():
    tell = build_geometric_transform(MOVES["together"], (48, 64))
    expected = [tell(0, 1, key).steps for key in range(40)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda key: tell(0, 1, key).steps, range(40)))

    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "name",
    ["together", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rotation", "zoom"))],
)
def test_pixels_from_outside_are_filled_and_no_others(name):
    size = height, width = 48, 64
    tell = build_geometric_transform(MOVES[name], size)
    ys, xs = np.mgrid[:height, :width]
    centre = np.array([width - 1, height - 1]) / 2
    filled = 0

    for key in range(16):
        motion = tell(0, 1, key)
        moved = motion.move(np.ones(size, np.uint8), 77)

        # These changes keep the centre where it is.
        before = (np.stack([xs, ys], axis=-1) - centre) @ motion.linear.T + centre
        nearest = np.floor(before + 0.5).astype(int)
        inside = ((nearest >= 0) & (nearest < (width, height))).all(axis=-1)
        if name == "together":
            # What the turn brings out of the image is lost, though the zoom would bring it back.
            inside &= moved == 1
        expected = np.where(inside, nearest[..., 1] * width + nearest[..., 0], -1)
        assert set(np.unique(moved)) <= {1, 77}
        assert ((moved == 1) == inside).mean() > 0.99
        source = motion.move(np.arange(height * width).reshape(size), -1)
        assert (source == expected).mean() > 0.98  # the last digits decide some of them
        filled += (moved == 77).mean() / 16

    assert filled > 0.03


def test_any_values_move_with_any_fill():
    one_to_the_left = GeometricTransform(np.array([[[1, 0, 1], [0, 1, 0], [0, 0, 1]]], np.float32))
    vectors = np.arange(12, dtype=np.float32).reshape(2, 2, 3)

    moved = one_to_the_left.move(vectors, (0, 0, 1))

    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved, [[[3, 4, 5], [0, 0, 1]], [[9, 10, 11], [0, 0, 1]]])
    np.testing.assert_array_equal(
        one_to_the_left.move(np.array([[5, 6], [7, 8]]), 0), [[6, 0], [8, 0]]
    )


def test_what_one_step_takes_out_of_the_image_another_does_not_bring_back():
    left, right = np.tile(np.eye(3), (2, 1, 1))
    left[0, 2], right[0, 2] = 1, -1
    values = np.array([[1, 2, 3]])

    np.testing.assert_array_equal(
        GeometricTransform(np.stack([left, right])).move(values, 0), [[0, 2, 3]]
    )
    np.testing.assert_array_equal(
        GeometricTransform(np.stack([right, left])).move(values, 0), [[1, 2, 0]]
    )


@pytest.mark.slow
def test_flip_and_zoom_tell_their_linear_part(scenes):
    masks, images = scenes
    flipped = build_augment(MOVES["horizontal"])(images, 0, 1, KEYS).numpy()[..., 0] / 50
    flip, zoom = (
        build_geometric_transform(MOVES[name], masks.shape[1:]) for name in ("horizontal", "zoom")
    )

    for mask, seen, key in zip(masks, flipped, KEYS, strict=True):
        sign = 1 if np.array_equal(mask, seen) else -1
        np.testing.assert_array_equal(flip(0, 1, int(key)).linear, np.diag([sign, 1]))
        linear = zoom(0, 1, int(key)).linear
        assert 0.1 <= linear[0, 0] <= 1.9
        np.testing.assert_allclose(linear, np.eye(2) * linear[0, 0], atol=1e-5)
        np.testing.assert_allclose(zoom(0, 1, int(key)).turn, np.eye(2), atol=1e-5)


@pytest.mark.parametrize("quarter", [0.25, pytest.param(-0.25, marks=pytest.mark.slow)])
def test_a_quarter_turn_turns_arrows(quarter, monkeypatch):
    def build(augment, seeds):
        layer = keras.layers.RandomRotation((quarter, quarter), seed=0, dtype="float32")
        layer.generator = seeds
        return [layer]

    monkeypatch.setattr(augment_module, "_build_layers", build)
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    arrows = random.normal(size=(16, 16, 2)).astype(np.float32)
    changed = build_augment(AugmentSettings())(image, 0, 1, KEYS[:1]).numpy()[0]
    left = np.allclose(np.rot90(image[0]), changed, atol=0.1)
    assert left or np.allclose(np.rot90(image[0], 3), changed, atol=0.1)

    motion = build_geometric_transform(AugmentSettings(), (16, 16))(0, 1, int(KEYS[0]))
    moved = motion.move(arrows, 0) @ motion.turn.T

    # Turned to the left, what pointed right points up, where y is negative.
    x, y = np.moveaxis(np.rot90(arrows, 1 if left else 3), -1, 0)
    expected = np.stack([y, -x] if left else [-y, x], axis=-1)
    np.testing.assert_allclose(moved, expected, atol=1e-4)


@pytest.mark.parametrize("name", ONE_MOVE)
def test_arrows_that_point_away_from_the_centre_still_do(name):
    ys, xs = np.mgrid[:48, :64].astype(np.float32)
    away = np.stack([xs - 31.5, ys - 23.5], axis=-1)
    away /= np.linalg.norm(away, axis=-1, keepdims=True)
    tell = build_geometric_transform(MOVES[name], (48, 64))

    for key in range(8):
        motion = tell(0, 1, key)
        turned = motion.move(away, 0) @ motion.turn.T
        seen = motion.move(np.ones((48, 64), bool), False)
        far = seen & (np.hypot(xs - 31.5, ys - 23.5) > 12)

        assert (turned * away).sum(axis=-1)[far].mean() > 0.99
        assert (turned * away).sum(axis=-1)[far].min() > 0.95
