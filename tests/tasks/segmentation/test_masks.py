"""Masks: what values mean, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.segmentation.masks import MaskReader, MaskSettings

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

    actual = MaskReader(MaskSettings(), 3).read(path)

    assert actual.dtype == np.uint8
    assert actual.tolist() == VALUES.tolist()


def test_ids_say_which_value_is_which_class(save):
    path = save(np.array([[7, 30], [30, 200]], np.uint8))

    actual = MaskReader(MaskSettings(ids=(30, 7), ignore=200), 2).read(path)

    assert actual.tolist() == [[1, 0], [0, IGNORE]]


def test_an_ignored_value_may_be_255_itself(save):
    path = save(np.array([[0, 255]], np.uint8))

    assert MaskReader(MaskSettings(ignore=255), 2).read(path).tolist() == [[0, IGNORE]]


def test_colors_say_which_color_is_which_class(save):
    red, green, white = (200, 0, 0), (0, 200, 0), (255, 255, 255)
    path = save(np.array([[red, green], [white, red]], np.uint8))

    reader = MaskReader(MaskSettings(colors=(green, red), ignore=white), 2)

    assert reader.read(path).tolist() == [[1, 0], [IGNORE, 1]]


def test_colors_of_a_palette_are_looked_up_too(save):
    image = Image.fromarray(VALUES).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])

    reader = MaskReader(MaskSettings(colors=((0, 128, 0), (0, 0, 0), (128, 0, 0))), 3)

    assert reader.read(save(image)).tolist() == [[1, 2, 0], [0, 2, 1]]


def test_unknown_values_are_named_with_their_pixels(save):
    path = save(np.array([[0, 9, 9], [1, 4, 255]], np.uint8))

    with pytest.raises(ValueError, match=r"4 \(1 pixels\), 9 \(2 pixels\), 255 \(1 pixels\)$"):
        MaskReader(MaskSettings(), 2).read(path)


def test_values_beyond_a_byte_are_unknown_not_wrapped(save):
    path = save(np.array([[0, 256], [1, 65535]], np.uint16))

    with pytest.raises(ValueError, match=r"256 \(1 pixels\), 65535 \(1 pixels\)"):
        MaskReader(MaskSettings(), 2).read(path)


def test_unknown_colors_are_named_as_colors(save):
    path = save(np.array([[(200, 0, 0), (200, 1, 16)]], np.uint8))

    with pytest.raises(ValueError, match=r"\[200, 1, 16\] \(1 pixels\)"):
        MaskReader(MaskSettings(colors=((200, 0, 0), (0, 0, 0))), 2).read(path)


def test_a_photo_taken_for_a_mask_is_refused(save, draw):
    with pytest.raises(ValueError, match=r"a colour image; data\.masks\.colors says"):
        MaskReader(MaskSettings(), 2).read(save(draw()))


def test_a_mask_that_claims_to_be_enormous_is_not_opened(tmp_path, write_png):
    path = tmp_path / "mask.png"
    path.write_bytes(write_png(np.zeros((2, 3, 3), np.uint8), size=(60_000, 60_000)))

    with pytest.raises(OSError, match="exceeds limit"):
        MaskReader(MaskSettings(), 2).read(str(path))


@pytest.mark.parametrize("value", [0.9, 0.5, float("nan"), float("inf")])
def test_fractions_are_no_classes(tmp_path, value):
    values = np.array([[0, 1, value]], np.float32)
    Image.fromarray(values).save(tmp_path / "soft.tif")

    with pytest.raises(ValueError, match="1 fractions?, as .*whole numbers"):
        MaskReader(MaskSettings(), 2).read(str(tmp_path / "soft.tif"))


def test_whole_numbers_may_be_floats_but_no_colours(tmp_path):
    path = str(tmp_path / "hard.tif")
    Image.fromarray(np.array([[0, 1, 2]], np.float32)).save(path)

    np.testing.assert_array_equal(MaskReader(MaskSettings(), 3).read(path), [[0, 1, 2]])
    with pytest.raises(ValueError, match="'F', not colours of 8 bits"):
        MaskReader(MaskSettings(colors=((0, 0, 0), (1, 1, 1))), 2).read(path)
