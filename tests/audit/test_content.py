"""What is measured of an image's bytes."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tl_toolkit.audit.content import hash_differences, inspect_content, measure_blur


def encode(image, kind="PNG", **options):
    output = io.BytesIO()
    image.save(output, kind, **options)
    return output.getvalue()


def widen(data):
    """Lets the header of a PNG promise 40,000 x 40,000 pixels."""
    head = data[12:16] + (40_000).to_bytes(4, "big") * 2 + data[24:29]
    return data[:12] + head + zlib.crc32(head).to_bytes(4, "big") + data[33:]


@pytest.fixture
def picture():
    """Coloured blocks of 16 pixels, 128 x 96."""
    blocks = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(np.kron(blocks, np.ones((16, 16, 1), np.uint8)))


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda data: b"", "empty"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "unreadable"),
        (lambda data: widen(data), "bomb"),
        (lambda data: data[:-12], "convertible"),
        (lambda data: data + b"junk", ""),
    ],
)
def test_a_fault_is_named(picture, spoil, fault):
    content = inspect_content(spoil(encode(picture)))

    assert content.fault == fault
    assert bool(content.reason) == bool(fault)


def test_a_jpeg_that_was_cut_is_truncated_although_it_is_decoded_smaller(picture):
    large = encode(picture.resize((1280, 960)), "JPEG")

    assert inspect_content(large).fault == ""
    assert inspect_content(large[:-500]).fault == "truncated"


def test_an_image_that_exif_turns_has_its_upright_size_and_the_hash_of_it(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(picture.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)

    content = inspect_content(turned)

    assert (content.orientation, content.width, content.height) == (6, 128, 96)
    assert content.hash == inspect_content(encode(picture)).hash


def test_the_date_is_read_and_a_clock_that_was_never_set_has_none(picture):
    dates = {}
    for text in ("2024:05:01 12:00:00", "0000:00:00 00:00:00"):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = text
        dates[text] = inspect_content(encode(picture, "JPEG", exif=exif)).taken

    assert dates == {"2024:05:01 12:00:00": "2024:05:01 12:00:00", "0000:00:00 00:00:00": ""}


def test_the_hash_says_where_it_gets_brighter_to_the_right():
    ramp = np.tile(np.arange(9, dtype=np.uint8) * 20, (8, 1))
    ramp[4:] = ramp[4:, ::-1]

    assert hash_differences(Image.fromarray(ramp)) == "ffffffff00000000"


def test_blur_of_a_step_is_that_of_the_definition():
    """A step of 1 pixel loses (n - 1) / n of its difference to a mean over n = 11 pixels."""
    step = np.zeros((64, 64), np.float32)
    step[:, 32:] = 255

    assert measure_blur(step) == pytest.approx(1 / 11, abs=1e-6)


def test_blurring_raises_the_blur(picture):
    large = picture.resize((512, 384), Image.Resampling.NEAREST)

    sharp = inspect_content(encode(large)).blur
    blurred = inspect_content(encode(large.filter(ImageFilter.GaussianBlur(6)))).blur

    assert sharp < 0.3
    assert blurred > 0.6


def test_an_image_of_one_colour_has_no_hash_to_compare():
    content = inspect_content(encode(Image.new("RGB", (64, 64), (9, 90, 9))))

    assert (content.hash, content.signature, content.blur) == ("", b"", None)


@pytest.mark.assets
@pytest.mark.filterwarnings("ignore")  # Pillow's, of palettes: `inspect_files` silences them
def test_odd_files_are_judged_as_the_decoder_judges_them(assets):
    from tl_toolkit.images.scan import judge

    verdicts = {"": "good", "convertible": "convertible"}
    files = [path for path in (assets / "images" / "odd").iterdir() if path.suffix != ".tsv"]

    judged = {
        path.name: (verdicts.get(inspect_content(data).fault, "broken"), judge(data)[0])
        for path in files
        if (data := path.read_bytes()) is not None
    }
    assert len(judged) == 38
    assert {name: pair for name, pair in judged.items() if pair[0] != pair[1]} == {}
