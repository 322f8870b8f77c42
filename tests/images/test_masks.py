"""Masks: what values mean, what is refused and how it is told, how they follow their images."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tl_toolkit.images.masks import MaskReader
from tl_toolkit.images.targets import Targets, inspect_targets, place_pixels, resize_target
from tl_toolkit.recipe.pixel_schema import IGNORE, Masks

from tl_toolkit.errors import DataError
from tl_toolkit.images.decoder import resize_image
from tl_toolkit.images.manifest import Example

VALUES = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


def paletted(values):
    image = Image.fromarray(values, mode="P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    return image


def with_alpha(values):
    return np.stack([values, values, values, np.full_like(values, 255)], axis=-1)


@pytest.mark.parametrize(
    "form",
    [
        lambda values: values,
        paletted,
        lambda values: values.astype(np.uint16),
        lambda values: values.astype(np.int32),
        lambda values: np.repeat(values[..., None], 3, axis=-1),
        with_alpha,
        lambda values: Image.fromarray(values).convert("LA"),
    ],
    ids=["grey", "palette", "16 bits", "32 bits", "grey RGB", "RGBA", "grey and alpha"],
)
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_values_are_the_classes_in_every_form_of_file(save, form):
    form = form(VALUES)
    # Pillow writes no 32 bits into a PNG.
    is_deep = isinstance(form, np.ndarray) and form.dtype == np.int32
    path = save(form, "mask.tif" if is_deep else "mask.png")

    found = MaskReader(Masks(), 3).read(path)

    assert found.dtype == np.uint8
    assert found.tolist() == VALUES.tolist()


def test_ids_say_which_value_is_which_class(save):
    path = save(np.array([[7, 30], [30, 200]], np.uint8))

    found = MaskReader(Masks(ids=(30, 7), ignore=200), 2).read(path)

    assert found.tolist() == [[1, 0], [0, IGNORE]]


def test_an_ignored_value_may_be_255_itself(save):
    path = save(np.array([[0, 255]], np.uint8))

    assert MaskReader(Masks(ignore=255), 2).read(path).tolist() == [[0, IGNORE]]


def test_colors_say_which_color_is_which_class(save):
    red, green, white = (200, 0, 0), (0, 200, 0), (255, 255, 255)
    path = save(np.array([[red, green], [white, red]], np.uint8))

    reader = MaskReader(Masks(colors=(green, red), ignore=white), 2)

    assert reader.read(path).tolist() == [[1, 0], [IGNORE, 1]]


def test_colors_of_a_palette_are_looked_up_too(save):
    image = Image.fromarray(VALUES).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])

    reader = MaskReader(Masks(colors=((0, 128, 0), (0, 0, 0), (128, 0, 0))), 3)

    assert reader.read(save(image)).tolist() == [[1, 2, 0], [0, 2, 1]]


def test_unknown_values_are_named_with_their_pixels(save):
    path = save(np.array([[0, 9, 9], [1, 4, 255]], np.uint8))

    with pytest.raises(ValueError, match=r"4 \(1 pixels\), 9 \(2 pixels\), 255 \(1 pixels\)$"):
        MaskReader(Masks(), 2).read(path)


def test_values_beyond_a_byte_are_unknown_not_wrapped(save):
    path = save(np.array([[0, 256], [1, 65535]], np.uint16))

    with pytest.raises(ValueError, match=r"256 \(1 pixels\), 65535 \(1 pixels\)"):
        MaskReader(Masks(), 2).read(path)


def test_unknown_colors_are_named_as_colors(save):
    path = save(np.array([[(200, 0, 0), (200, 1, 16)]], np.uint8))

    with pytest.raises(ValueError, match=r"#c80110 \(1 pixels\)"):
        MaskReader(Masks(colors=((200, 0, 0), (0, 0, 0))), 2).read(path)


def test_a_photo_taken_for_a_mask_is_refused(save, draw):
    with pytest.raises(ValueError, match=r"a colour image; data\.masks\.colors says"):
        MaskReader(Masks(), 2).read(save(draw()))


def look(images, masks, settings=None, num_classes=2):
    examples = [Example(path, "0", None, "train") for path in images]
    return inspect_targets(examples, masks, MaskReader(settings or Masks(), num_classes))


def test_looked_at_masks_are_noted_with_their_content(save):
    image = save(np.zeros((2, 3, 3), np.uint8), "photo.png")
    one, other = save(VALUES % 2), save(VALUES // 2, "other.png")

    first, second = look([image, image], [one, other])

    assert (first.mask, second.mask) == (one, other)
    assert first.mask_sha256 != second.mask_sha256 and len(first.mask_sha256) == 64


def test_all_problems_are_told_at_once_by_name(save, tmp_path):
    image = save(np.zeros((2, 3, 3), np.uint8), "photo.png")
    (tmp_path / "text.png").write_text("not an image")
    missing, text = str(tmp_path / "missing.png"), str(tmp_path / "text.png")
    small = save(np.zeros((1, 3), np.uint8), "small.png")
    unknown = save(np.full((2, 3), 7, np.uint8), "unknown.png")
    good = save(np.zeros((2, 3), np.uint8), "good.png")

    with pytest.raises(DataError) as caught:
        look([image] * 5, [missing, small, good, unknown, text], Masks(ignore=200))

    message = str(caught.value)
    assert "2 masks: cannot be read" in message
    assert f"{missing}: No such file or directory" in message and f"{text}: " in message
    assert "1 mask: differ in size from their images" in message
    assert f"{small}: 3 x 1, its image is 3 x 2" in message
    assert "1 mask: hold values that are no class" in message
    assert "Expected the values 0, 1 and 200 (ignored)." in message
    assert f"{unknown}: 7 (6 pixels)" in message
    assert "data.masks.ignore=VALUE" in message
    assert "good.png" not in message


def test_many_problems_are_named_up_to_a_limit(save, tmp_path):
    image = save(np.zeros((2, 3, 3), np.uint8), "photo.png")
    missing = [str(tmp_path / f"missing{number}.png") for number in range(25)]

    with pytest.raises(DataError, match="25 masks: cannot be read") as caught:
        look([image] * 25, missing)

    assert str(caught.value).count("No such file") == 20
    assert "and 5 more" in str(caught.value)


@pytest.mark.parametrize("damage", [lambda one: one[:60], lambda one: one[:-20] + bytes(20)])
def test_a_damaged_mask_is_a_problem_not_a_traceback(save, tmp_path, damage):
    image = save(np.zeros((40, 40, 3), np.uint8), "photo.png")
    noise = np.random.default_rng(0).integers(0, 2, (40, 40), np.uint8)
    encoded = Path(save(noise)).read_bytes()
    (tmp_path / "mask.png").write_bytes(damage(encoded))

    try:
        look([image], [str(tmp_path / "mask.png")])
    except DataError as error:
        assert "mask.png" in str(error)


def test_a_mask_that_claims_to_be_enormous_is_not_opened(tmp_path, write_png):
    path = tmp_path / "mask.png"
    path.write_bytes(write_png(np.zeros((2, 3, 3), np.uint8), size=(60_000, 60_000)))

    with pytest.raises(OSError, match="exceeds limit"):
        MaskReader(Masks(), 2).read(str(path))


def test_masks_of_skipped_images_are_not_opened(tmp_path):
    broken = Example("gone.jpg", "", None, "train", "broken", "cannot be read")

    found = inspect_targets([broken], ["gone.png"], MaskReader(Masks(), 2))

    assert found[0].mask == "gone.png" and not found[0].mask_sha256


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_mask_has_the_size_of_its_image_as_it_is_turned(tmp_path, draw, encode, orientation):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encode(draw(width=52, height=36), "JPEG", orientation=orientation))
    size = (52, 36) if orientation in (6, 8) else (36, 52)
    Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / "right.png")
    Image.fromarray(np.zeros(size[::-1], np.uint8)).save(tmp_path / "wrong.png")

    look([str(photo)], [str(tmp_path / "right.png")])

    with pytest.raises(DataError, match="differ in size"):
        look([str(photo)], [str(tmp_path / "wrong.png")])


def save_targets(save, count=2, **options):
    paths = [save(np.full((4, 6), number, np.uint8), f"{number}.png") for number in range(count)]
    examples = [Example("", "0", None, "train", mask=path) for path in paths]
    return Targets(examples, MaskReader(Masks(), count), image_size=(2, 3), **options)


def test_pixels_of_each_class_are_counted_at_the_models_size(save):
    assert save_targets(save).count().tolist() == [6, 6]


def test_pixels_are_counted_once(save):
    targets = save_targets(save, memory_budget=0)
    counts = targets.count()
    counts += 1  # what a caller does to them is its own affair

    save(np.ones((4, 6), np.uint8), "0.png")

    assert targets.count().tolist() == [6, 6]


def test_masks_that_are_not_in_memory_are_counted_several_at_a_time(save, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    targets = save_targets(save)
    both, read = threading.Barrier(2, timeout=10), targets.reader.read
    monkeypatch.setattr(targets.reader, "read", lambda path: (both.wait(), read(path))[1])

    assert targets.count().tolist() == [6, 6]  # a reader alone would wait until the barrier breaks


@pytest.mark.parametrize("memory_budget", [0, 6, 1000])
def test_what_is_kept_in_memory_changes_nothing(save, memory_budget):
    targets = save_targets(save, memory_budget=memory_budget)

    for _ in range(2):
        assert [targets.resized(index).tolist() for index in (0, 1)] == [
            [[0] * 3] * 2, [[1] * 3] * 2
        ]  # fmt: skip


def test_a_mask_that_changes_during_a_run_is_told(save):
    targets = save_targets(save)
    save(np.full((4, 6), 9, np.uint8), "1.png")

    with pytest.raises(DataError, match=r"1\.png  is not what it was: 9 \(24 pixels\)"):
        targets.whole(1)


@pytest.mark.parametrize("mode", ["stretch", "crop"])
@pytest.mark.parametrize("size", [(36, 52), (18, 26), (40, 40), (72, 30), (13, 90)])
def test_a_mask_follows_its_image_through_resizing(mode, size):
    # A step from black to white in each direction, found in the image and in the mask alike.
    values = np.zeros((36, 52), np.uint8)
    values[14:, 20:] = 1
    image = np.repeat(values[..., None] * 255, 3, axis=-1)

    resized = resize_image(image, size, mode).numpy()[..., 0] > 127
    found = resize_target(values, size, mode)

    assert found.shape == size
    # The two may differ where a new pixel lies across the step: in one row, or one column.
    differs = resized != found.astype(bool)
    assert differs.any(axis=1).sum() <= 1 or differs.any(axis=0).sum() <= 1
    assert differs.mean() < 0.06


def test_a_target_of_several_channels_is_resized_as_each_of_them():
    target = np.random.default_rng(0).normal(size=(9, 7, 3))

    found = resize_target(target, (4, 5), "crop")

    for channel in range(3):
        np.testing.assert_array_equal(
            found[..., channel], resize_target(target[..., channel], (4, 5), "crop")
        )


def test_places_are_where_pixels_lie_in_the_resized_image():
    ys, xs = place_pixels((4, 8), (8, 8))

    assert ys.tolist() == [0.5, 2.5, 4.5, 6.5]
    assert xs.tolist() == list(range(8))


def test_places_beyond_the_image_are_those_that_cropping_cuts_off():
    ys, xs = place_pixels((4, 8), (4, 4), "crop")

    assert ys.tolist() == [0, 1, 2, 3]
    assert xs.tolist() == [-2, -1, 0, 1, 2, 3, 4, 5]
