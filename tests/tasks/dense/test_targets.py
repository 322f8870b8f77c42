"""Files of targets: how faults are reported, how targets follow their images."""

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tl_toolkit.errors import DataError
from tl_toolkit.images.convert import convert_to_png
from tl_toolkit.images.decoder import decode_image, resize_image
from tl_toolkit.images.geometry import Padding
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.tasks.dense.inspection import inspect_targets
from tl_toolkit.tasks.dense.png import read_png
from tl_toolkit.tasks.dense.resizing import place_pixels, resize_target
from tl_toolkit.tasks.dense.sampling import sample_pixels
from tl_toolkit.tasks.dense.targets import Targets
from tl_toolkit.tasks.parity import read_by_pillow
from tl_toolkit.tasks.segmentation.masks import MaskReader, MaskSettings
from tl_toolkit.tasks.segmentation.task import Segmentation

VALUES = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


def inspect(images, masks, settings=None, num_classes=2):
    examples = tuple(
        Example(path, "0", "train", (mask,)) for path, mask in zip(images, masks, strict=True)
    )
    manifest = Manifest(examples, (), columns=("mask",))
    return inspect_targets(manifest, MaskReader(settings or MaskSettings(), num_classes))


def test_inspected_masks_are_noted_with_their_content(save):
    image = save(np.zeros((2, 3, 3), np.uint8), "photo.png")
    one, other = save(VALUES % 2), save(VALUES // 2, "other.png")

    manifest = inspect([image, image], [one, other])

    assert manifest.columns == ("mask", "mask_sha256")
    paths, hashes = zip(*(example.targets for example in manifest.examples), strict=True)
    assert paths == (one, other)
    assert hashes[0] != hashes[1] and len(hashes[0]) == 64


def test_all_problems_are_told_at_once_by_name(save, tmp_path):
    image = save(np.zeros((2, 3, 3), np.uint8), "photo.png")
    (tmp_path / "text.png").write_text("not an image")
    missing, text = str(tmp_path / "missing.png"), str(tmp_path / "text.png")
    small = save(np.zeros((1, 3), np.uint8), "small.png")
    unknown = save(np.full((2, 3), 7, np.uint8), "unknown.png")
    good = save(np.zeros((2, 3), np.uint8), "good.png")

    with pytest.raises(DataError) as caught:
        inspect([image] * 5, [missing, small, good, unknown, text], MaskSettings(ignore=200))

    message = str(caught.value)
    assert "2 masks: cannot be read" in message
    assert f"{missing}: No such file or directory" in message and f"{text}: " in message
    assert "1 mask: differ in size from their images" in message
    assert f"{small}: 3 x 1, its image is 3 x 2" in message
    assert "1 mask: hold values that are no class" in message
    assert "Expected the values 0, 1 and 200 (ignored)." in message
    assert f"{unknown}: 7 (6 pixels)" in message
    assert "masks: {ignore: 7} for pixels of no class" in message
    assert "good.png" not in message


def test_values_of_no_class_are_counted_over_all_masks(save):
    image = save(np.zeros((2, 3, 3), np.uint8), "photo.png")
    masks = [save(np.full((2, 3), 11, np.uint8), f"mask{number}.png") for number in range(30)]

    with pytest.raises(DataError) as everywhere:
        inspect([image] * 30, masks)
    some = save(np.array([[0, 12, 13]] * 2, np.uint8), "some.png")
    with pytest.raises(DataError) as mixed:
        inspect([image] * 31, [*masks, some])

    assert "\n  11 in all 30 masks\n" in str(everywhere.value)
    assert "masks: {ignore: 11} for pixels of no class" in str(everywhere.value)
    assert str(everywhere.value).count("(6 pixels)") == 3
    assert "and 27 more" in str(everywhere.value)
    for text in ("11 in 30 of 31 masks", "12 in 1 of 31 masks", "masks: {ignore: VALUE}"):
        assert text in str(mixed.value)


def test_a_colour_of_no_class_is_named_as_a_recipe_has_it(save):
    image = save(np.zeros((2, 3, 3), np.uint8), "photo.png")
    mask = save(np.full((2, 3, 3), (255, 128, 0), np.uint8), "mask.png")

    with pytest.raises(DataError, match=r"masks: \{ignore: \[255, 128, 0\]\} for pixels"):
        inspect([image], [mask], MaskSettings(colors=((0, 0, 0), (1, 1, 1))))


def test_many_problems_are_named_up_to_a_limit(save, tmp_path):
    image = save(np.zeros((2, 3, 3), np.uint8), "photo.png")
    missing = [str(tmp_path / f"missing{number}.png") for number in range(25)]

    with pytest.raises(DataError, match="25 masks: cannot be read") as caught:
        inspect([image] * 25, missing)

    assert str(caught.value).count("No such file") == 20
    assert "and 5 more" in str(caught.value)


@pytest.mark.parametrize("damage", [lambda one: one[:60], lambda one: one[:-20] + bytes(20)])
def test_a_damaged_mask_is_a_problem_not_a_traceback(save, tmp_path, damage):
    image = save(np.zeros((40, 40, 3), np.uint8), "photo.png")
    noise = np.random.default_rng(0).integers(0, 2, (40, 40), np.uint8)
    encoded = Path(save(noise)).read_bytes()
    (tmp_path / "mask.png").write_bytes(damage(encoded))

    try:
        inspect([image], [str(tmp_path / "mask.png")])
    except DataError as error:
        assert "mask.png" in str(error)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("resize", "place", "how"),
    [("stretch", (0, 0), "resized"), ("crop", (slice(None), 0), "cropped"), ("crop", (2, 5), "")],
)
def test_an_image_that_loses_all_labels_by_resizing_is_skipped_by_name(
    save, split, resize, place, how
):
    values = np.full((6, 12), 255, np.uint8)
    values[place] = 1
    image, mask = save(np.zeros((6, 12, 3), np.uint8), "photo.png"), save(values)
    manifest = Manifest((Example(image, "0", split, (mask,)),), (), columns=("mask",))
    reader = MaskReader(MaskSettings(ignore=255), 2)

    (example,) = inspect_targets(manifest, reader, image_size=(4, 4), resize=resize).examples

    if how and split != "test":  # those are measured at their own size
        assert example.reason == f"no pixel of its mask counts once it is {how} to 4 x 4: {mask}"
    assert example.usable == (not how or split == "test")


def test_masks_of_skipped_images_are_not_opened(tmp_path):
    broken = Example("gone.jpg", "", "train", ("gone.png",), "broken", "cannot be read")
    manifest = Manifest((broken,), (), columns=("mask",))

    (example,) = inspect_targets(manifest, MaskReader(MaskSettings(), 2)).examples

    assert example.targets == ("gone.png", "")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_mask_has_the_size_of_its_image_as_it_is_turned(tmp_path, draw, encode, orientation):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encode(draw(width=52, height=36), "JPEG", orientation=orientation))
    size = (52, 36) if orientation in (6, 8) else (36, 52)
    Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / "right.png")
    Image.fromarray(np.zeros(size[::-1], np.uint8)).save(tmp_path / "wrong.png")

    inspect([str(photo)], [str(tmp_path / "right.png")])

    with pytest.raises(DataError, match="differ in size"):
        inspect([str(photo)], [str(tmp_path / "wrong.png")])


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize("with_exif", [False, True])
def test_an_orientation_in_xmp_alone_turns_neither_image_nor_mask(tmp_path, draw, with_exif):
    exif = Image.Exif()
    exif[0x010E] = "described, not turned"
    options = {"exif": exif} if with_exif else {}
    photo, mask = tmp_path / "photo.jpg", tmp_path / "mask.webp"
    draw(width=52, height=36).convert("RGB").save(photo, xmp=XMP, **options)
    values = np.eye(36, 52, dtype=np.uint8)
    Image.fromarray(values).convert("RGB").save(mask, lossless=True, xmp=XMP, **options)

    inspect([str(photo)], [str(mask)])

    assert decode_image(photo.read_bytes()).shape == (36, 52, 3)
    assert read_by_pillow(photo.read_bytes()).shape == (36, 52, 3)
    assert Image.open(io.BytesIO(convert_to_png(photo.read_bytes()))).size == (52, 36)
    np.testing.assert_array_equal(MaskReader(MaskSettings(), 2).read(str(mask)), values)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_is_turned_by_its_own_exif_as_an_image_is(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "mask.png"
    Image.fromarray(np.triu(np.ones((5, 9), np.uint8))).save(path, exif=exif)

    actual = MaskReader(MaskSettings(), 2).read(str(path))

    np.testing.assert_array_equal(actual, decode_image(path.read_bytes())[..., 0])
    if orientation > 1:
        with pytest.raises(ValueError, match="save it upright"):
            read_png(str(path))


def test_a_mask_that_is_not_the_one_that_was_inspected_is_refused(save):
    image, mask = save(np.zeros((2, 3, 3), np.uint8), "photo.png"), save(VALUES % 2)
    targets = Targets(
        inspect([image], [mask]).examples, MaskReader(MaskSettings(), 2), image_size=(2, 3)
    )

    save(1 - VALUES % 2)

    with pytest.raises(DataError, match="not the mask that was inspected"):
        targets.whole(0)


def test_images_whose_pixels_are_all_ignored_are_skipped_by_name(save):
    image = save(np.zeros((2, 3, 3), np.uint8), "photo.png")
    good, none = save(VALUES % 2), save(np.full((2, 3), 9, np.uint8), "none.png")

    actual = inspect([image, image], [good, none], MaskSettings(ignore=9)).examples

    assert [example.verdict for example in actual] == ["good", "broken"]
    assert actual[1].reason == f"no pixel of its mask counts, all are ignored: {none}"


def test_training_masks_of_one_value_are_refused_whatever_others_hold(save):
    image = save(np.zeros((2, 3, 3), np.uint8), "photo.png")
    both, one = save(VALUES % 2), save(np.zeros((2, 3), np.uint8), "one.png")
    # 255 is a class in these masks, and the recipe ignores it.
    lost = save(np.array([[0, 255, 0], [0, 0, 255]], np.uint8), "lost.png")
    task = Segmentation(("sky", "tree"), reader=MaskReader(MaskSettings(ignore=255), 2))
    splits = ("train", "train", "validation")

    def manifest(*masks):
        entries = zip(splits, masks, strict=True)
        examples = tuple(Example(image, "0", split, (mask,)) for split, mask in entries)
        return Manifest(examples, (), columns=("mask",))

    task.inspect_targets(manifest(one, both, one))
    with pytest.raises(DataError, match="all masks to train from hold one value only") as caught:
        task.inspect_targets(manifest(one, lost, both))

    assert "Expected the values 0, 1 and 255 (ignored)." in str(caught.value)


def test_masks_are_counted_while_they_are_inspected_and_may_be_stopped(save):
    image = save(np.zeros((4, 6), np.uint8), "image.png")
    masks = [save(np.full((4, 6), number % 2, np.uint8), f"{number}.png") for number in range(9)]
    examples = tuple(Example(image, "0", "train", (mask,)) for mask in masks)
    manifest = Manifest(examples, (), columns=("mask",))
    task = Segmentation(("sky", "tree"), reader=MaskReader(MaskSettings(), 2))
    counts = []

    def stop(done, total):
        counts.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task.inspect_targets(manifest, progress=stop)

    assert counts == [(1, 9), (2, 9), (3, 9)]


def save_targets(save, count=2, **options):
    paths = [save(np.full((4, 6), number, np.uint8), f"{number}.png") for number in range(count)]
    examples = [Example("", "0", "train", (path,)) for path in paths]
    return Targets(examples, MaskReader(MaskSettings(), count), image_size=(2, 3), **options)


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


@pytest.mark.parametrize("mode", ["stretch", "crop", Padding((0, 0, 0))])
@pytest.mark.parametrize("size", [(36, 52), (18, 26), (40, 40), (72, 30), (13, 90)])
def test_a_mask_follows_its_image_through_resizing(mode, size):
    # A step from black to white in each direction, found in the image and in the mask alike.
    values = np.zeros((36, 52), np.uint8)
    values[14:, 20:] = 1
    image = np.repeat(values[..., None] * 255, 3, axis=-1)

    resized = resize_image(image, size, mode).numpy()[..., 0] > 127
    actual = resize_target(values, size, mode)

    assert actual.shape == size
    # The two may differ where a new pixel lies across the step: in one row, or one column.
    differs = resized != actual.astype(bool)
    assert differs.any(axis=1).sum() <= 1 or differs.any(axis=0).sum() <= 1
    assert differs.mean() < 0.06


def test_a_target_of_several_channels_is_resized_as_each_of_them():
    target = np.random.default_rng(0).normal(size=(9, 7, 3))

    actual = resize_target(target, (4, 5), "crop")

    for channel in range(3):
        np.testing.assert_array_equal(
            actual[..., channel], resize_target(target[..., channel], (4, 5), "crop")
        )


def test_pixels_of_a_padding_have_no_target():
    target = np.arange(8).reshape(2, 4)

    actual = resize_target(target, (4, 4), Padding(), fill=255)

    np.testing.assert_array_equal(actual, [[255] * 4, [0, 1, 2, 3], [4, 5, 6, 7], [255] * 4])
    ys, xs = place_pixels((2, 4), (4, 4), Padding())
    assert (ys.tolist(), xs.tolist()) == ([1, 2], [0, 1, 2, 3])


def test_pixels_of_a_padding_are_not_sampled_for_training(save):
    paths = [save(np.full((2, 8), 1, np.uint8))]
    examples = [Example("photo.png", "0", "train", (path, "")) for path in paths]
    reader = MaskReader(MaskSettings(), 2)
    targets = Targets(examples, reader, image_size=(8, 8), resize=Padding())

    sampled = sample_pixels(
        reader.sampling_groups(targets.resized(0)), 16, np.random.default_rng(0)
    )

    assert targets.count().tolist() == [0, 16]
    assert sorted(sampled) == list(range(3 * 8, 5 * 8))


def test_places_are_where_pixels_lie_in_the_resized_image():
    ys, xs = place_pixels((4, 8), (8, 8))

    assert ys.tolist() == [0.5, 2.5, 4.5, 6.5]
    assert xs.tolist() == list(range(8))


def test_places_beyond_the_image_are_those_that_cropping_cuts_off():
    ys, xs = place_pixels((4, 8), (4, 4), "crop")

    assert ys.tolist() == [0, 1, 2, 3]
    assert xs.tolist() == [-2, -1, 0, 1, 2, 3, 4, 5]
