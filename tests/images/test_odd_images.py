"""Awkward images from real collections: each verdict holds wherever the image is then used."""

import numpy as np
import pytest
import tensorflow as tf

from tl_toolkit.images.convert import convert_to_png
from tl_toolkit.images.decoder import decode_image, resize_image
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.pipeline import Images
from tl_toolkit.images.scan import inspect_images, judge

pytestmark = pytest.mark.assets

VERDICTS = {
    "animated_31frames.gif": "good",
    "animated_apng.png": "good",
    "animated_webp_42frames_rgba.webp": "convertible",
    "bad_crc_stream.png": "broken",
    "bad_exif.jpg": "good",
    "bilevel_1.png": "good",
    "cmyk.jpg": "good",
    "decompression_bomb_44bytes.gif": "broken",
    "exif_orientation_2.jpg": "good",
    "exif_orientation_3.jpg": "good",
    "exif_orientation_4.jpg": "good",
    "exif_orientation_5.jpg": "good",
    "exif_orientation_6.jpg": "good",
    "exif_orientation_6.webp": "good",
    "exif_orientation_7.jpg": "good",
    "exif_orientation_8.jpg": "good",
    "from16bit_rgb.png": "good",
    "gray.jpg": "good",
    "gray16.tif": "convertible",
    "gray16_I16.png": "good",
    "gray_alpha_LA.png": "good",
    "imageNotFound_palette.gif": "good",
    "jpeg_named_png.png": "good",
    "lfs_pointer_text.jpg": "broken",
    "lossy.webp": "good",
    "natural_exif6.JPG": "good",
    "palette_P.png": "good",
    "palette_with_transparency.png": "good",
    "png_named_jpg.jpg": "good",
    "rgb16.tiff": "convertible",
    "rgba.png": "good",
    "rgba.webp": "convertible",
    "truncated.jpg": "broken",
    "truncated.png": "broken",
    "ultrahdr_truncated.jpg": "broken",
    "unidentified.png": "broken",
    "zero_byte.jpg": "broken",
    "zero_width.gif": "broken",
}


@pytest.fixture
def odd(assets):
    return assets / "images" / "odd"


def test_every_odd_image_is_listed_here(odd):
    assert {path.name for path in odd.iterdir()} - {"INDEX.tsv"} == set(VERDICTS)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged EXIF, which it reads anyway
@pytest.mark.parametrize("name", VERDICTS)
def test_verdict_is_what_the_decoder_then_does(name, odd, read_with_pillow):
    encoded = (odd / name).read_bytes()

    verdict, reason = judge(encoded)

    assert verdict == VERDICTS[name]
    if verdict == "good":
        difference = decode_image(encoded).numpy().astype(int) - read_with_pillow(encoded)
        # Ink times black is rounded differently; everything else is equal.
        assert np.abs(difference).max() <= (1 if name == "cmyk.jpg" else 0)
        return
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(encoded)
    assert reason
    if verdict == "convertible":
        image = decode_image(convert_to_png(encoded))
        np.testing.assert_array_equal(image, read_with_pillow(encoded))
    else:
        with pytest.raises(ValueError):  # noqa: PT011  each plug-in has its own words
            convert_to_png(encoded)


def test_good_odd_images_are_trained_on_as_they_are_decoded(odd, tmp_path):
    paths = [str(odd / name) for name, verdict in VERDICTS.items() if verdict == "good"]
    inspections = inspect_images(paths, cache_dir=tmp_path)

    split = Images(
        [Example(*inspection[:2], "train", ("odd",)) for inspection in inspections],
        image_size=(64, 48),
    )

    for pixels, path in zip(split.load(range(len(split))), paths, strict=True):
        with open(path, "rb") as file:
            expected = resize_image(decode_image(file.read()), (64, 48))
        np.testing.assert_array_equal(pixels, expected)
