import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tl_toolkit.images.decoder import (
    decode_bytes,
    decode_image,
    explain,
    resize_image,
    turn_upright,
)
from tl_toolkit.images.geometry import Padding
from tl_toolkit.sources.listing import MAX_PIXELS

SIDEWAYS = "II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".encode("latin-1")


def decode(encoded):
    """The pixels of an image, the same by the graph of all kinds and by that of its own."""
    try:
        pixels = decode_image(encoded)
    except tf.errors.InvalidArgumentError as error:
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            decode_bytes(encoded)
        assert explain(caught.value) == explain(error)
        raise
    np.testing.assert_array_equal(decode_bytes(encoded), pixels)
    return pixels


def refusal(encoded):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        decode(encoded)
    return explain(caught.value)


def with_segment(jpeg, content, marker=0xE1):
    """Puts an APP segment after the first one of a JPEG."""
    end = 4 + int.from_bytes(jpeg[4:6], "big")
    return jpeg[:end] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + jpeg[end:]


# --- kinds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"subsampling": "4:4:4", "quality": 95}),
        ("JPEG", "RGB", {"subsampling": "4:2:0", "quality": 40}),
        ("JPEG", "L", {}),
        ("PNG", "RGB", {}),
        ("PNG", "L", {}),
        ("PNG", "1", {}),
        ("PNG", "P", {}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("PNG", "I;16", {}),
        ("GIF", "P", {}),
        ("GIF", "L", {}),
        ("GIF", "P", {"interlace": 1}),
        ("GIF", "P", {"transparency": 3}),
        ("BMP", "RGB", {}),
        ("BMP", "RGBA", {}),
        ("BMP", "L", {}),
        ("BMP", "P", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGB", {"lossless": True}),
    ],
)
def test_pixels_equal_those_of_pillow(kind, mode, options, draw, encode, read_with_pillow):
    encoded = encode(draw(mode), kind, **options)

    image = decode(encoded)

    assert image.dtype == tf.uint8
    np.testing.assert_array_equal(image, read_with_pillow(encoded))


@pytest.mark.parametrize("marker", ["CMYK", "YCCK", None])
def test_cmyk_is_within_one_level_of_pillow(marker, draw, encode, read_with_pillow):
    encoded = encode(draw("CMYK"), "JPEG")
    place = encoded.index(b"\xff\xee")
    if marker == "YCCK":
        encoded = encoded[: place + 15] + b"\2" + encoded[place + 16 :]
    elif marker is None:
        encoded = encoded[:place] + encoded[place + 16 :]

    image = decode(encoded).numpy().astype(int)

    # TensorFlow and Pillow round the product of ink and black differently.
    assert np.abs(image - read_with_pillow(encoded)).max() <= 1


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_are_cut_to_the_upper_eight(channels, write_png):
    pixels = np.random.default_rng(0).integers(0, 1 << 16, (9, 7, channels), dtype=np.uint16)

    image = decode(write_png(pixels))

    np.testing.assert_array_equal(image, pixels[..., :3] >> 8)


def test_kind_is_told_by_content_alone(draw, encode):
    # The decoder gets no name; of each kind the first bytes must be enough.
    shapes = {kind: decode(encode(draw(), kind)).shape for kind in ("JPEG", "PNG", "WEBP")}

    assert set(shapes.values()) == {(36, 52, 3)}


def test_animation_gives_its_first_frame(draw, encode, read_with_pillow):
    first, *later_frames = (draw("P", seed=seed) for seed in range(3))
    gif = encode(first, "GIF", save_all=True, append_images=later_frames)
    apng = encode(draw(), "PNG", save_all=True, append_images=[draw(seed=1)])

    np.testing.assert_array_equal(decode(gif), first.convert("RGB"))
    np.testing.assert_array_equal(decode(apng), read_with_pillow(apng))


def test_gif_is_read_no_further_than_its_first_frame(draw, encode):
    first = draw("P")
    whole = encode(first, "GIF", save_all=True, append_images=[draw("P", seed=1)])
    alone = encode(first, "GIF")

    np.testing.assert_array_equal(decode(whole[:-40]), first.convert("RGB"))
    np.testing.assert_array_equal(decode(alone.rstrip(b";")), first.convert("RGB"))


def test_transparent_pixels_of_a_gif_keep_the_colour_of_their_palette(draw, encode):
    image = draw("P")

    decoded = decode(encode(image, "GIF", transparency=image.getpixel((0, 0))))

    np.testing.assert_array_equal(decoded, image.convert("RGB"))


def test_large_gif_frame_with_many_blocks_is_found(encode):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500), dtype=np.uint8)  # 12,000 blocks

    image = decode(encode(Image.fromarray(noise), "GIF"))

    np.testing.assert_array_equal(image[..., 0], noise)


def test_gif_with_a_palette_of_its_frame_is_read(draw, encode, read_with_pillow):
    gif = encode(draw("P"), "GIF")
    size, table = gif[10] & 7, 3 * 2 << (gif[10] & 7)
    position = gif.index(b",", 13 + table)
    screen = gif[:10] + bytes([gif[10] & 0x7F]) + gif[11:13]
    flags = bytes([gif[position + 9] | 0x80 | size])
    local = screen + gif[position : position + 9] + flags + gif[13 : 13 + table]
    local += gif[position + 10 :]

    np.testing.assert_array_equal(decode(local), read_with_pillow(gif))


def test_bmp_rows_may_run_downwards_and_bytes_may_follow(draw, encode, read_with_pillow):
    bmp = encode(draw(), "BMP")
    flipped = bmp[:22] + struct.pack("<i", -36) + bmp[26:]

    np.testing.assert_array_equal(decode(bmp + b"\0\0"), read_with_pillow(bmp))
    np.testing.assert_array_equal(decode(flipped), read_with_pillow(bmp)[::-1])


# --- orientation -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_by_pillow(kind, orientation, draw, encode, read_with_pillow):
    encoded = encode(draw(), kind, orientation=orientation)

    image = decode(encoded)

    assert image.shape == ((36, 52, 3) if orientation < 5 else (52, 36, 3))
    np.testing.assert_array_equal(image, read_with_pillow(encoded))


def test_orientations_differ():
    image = tf.reshape(tf.range(18, dtype=tf.int32), [2, 3, 3])

    turned = {turn_upright(image, tf.constant(n, tf.int64)).numpy().tobytes() for n in range(1, 9)}

    assert len(turned) == 8


def test_both_byte_orders_are_read(draw, encode):
    plain = encode(draw(), "JPEG")
    motorola = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"

    for block in (SIDEWAYS, motorola):
        assert decode(with_segment(plain, b"Exif\0\0" + block)).shape == (52, 36, 3)


@pytest.mark.parametrize(("kind", "value"), [(1, b"\x06\0\0\0"), (4, b"\x06\0\0\0")])
def test_orientation_may_be_a_byte_or_a_long(kind, value, draw, encode):
    block = SIDEWAYS[:12] + struct.pack("<H", kind) + SIDEWAYS[14:18] + value + SIDEWAYS[22:]

    image = decode(with_segment(encode(draw(), "JPEG"), b"Exif\0\0" + block))

    assert image.shape == (52, 36, 3)


def test_exif_is_found_behind_other_segments(draw, encode):
    jpeg = with_segment(encode(draw(), "JPEG"), b"Exif\0\0" + SIDEWAYS)
    jpeg = with_segment(jpeg, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    jpeg = with_segment(jpeg, bytes(60_000), marker=0xE2)

    assert decode(jpeg).shape == (52, 36, 3)


def test_exif_is_found_behind_bytes_of_no_segment(draw, encode):
    jpeg = with_segment(encode(draw(), "JPEG"), b"Exif\0\0" + SIDEWAYS)
    place = jpeg.index(b"\xff\xe1")

    for filling in (b"\xff", b"\xff\xff", b"\0", b"abc"):
        assert decode(jpeg[:place] + filling + jpeg[place:]).shape == (52, 36, 3)


def test_exif_is_found_behind_a_chunk_of_odd_length_in_webp(draw, encode):
    webp = encode(draw(), "WEBP", orientation=6)
    place = webp.index(b"EXIF")

    longer = webp[:place] + b"JUNK" + struct.pack("<I", 3) + b"abc\0" + webp[place:]
    longer = longer[:4] + struct.pack("<I", len(longer) - 8) + longer[8:]

    assert decode(longer).shape == (52, 36, 3)


def test_exif_is_found_behind_the_pixels_of_a_png(draw, write_png):
    pixels = np.asarray(draw())

    assert decode(write_png(pixels, after=[(b"eXIf", SIDEWAYS)])).shape == (52, 36, 3)
    assert decode(write_png(pixels, before=[(b"eXIf", SIDEWAYS)])).shape == (52, 36, 3)
    assert decode(write_png(pixels, before=[(b"tEXt", SIDEWAYS)])).shape == (36, 52, 3)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II",
        SIDEWAYS[:7],
        SIDEWAYS[:21],  # cut within the entry
        b"XX" + SIDEWAYS[2:],
        SIDEWAYS[:4] + b"\xff\xff\xff\xff" + SIDEWAYS[8:],  # a directory out of bounds
        SIDEWAYS[:18] + b"\x09" + SIDEWAYS[19:],
        SIDEWAYS[:18] + b"\x00" + SIDEWAYS[19:],
        SIDEWAYS[:14] + b"\x02" + SIDEWAYS[15:],  # two values
        SIDEWAYS[:12] + b"\x02" + SIDEWAYS[13:],  # text
        bytes(range(256)),
    ],
)
def test_damaged_exif_counts_as_upright(block, draw, encode):
    plain = encode(draw(), "JPEG")

    image = decode(with_segment(plain, b"Exif\0\0" + block))

    np.testing.assert_array_equal(image, decode(plain))


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (b"", "an empty file"),
        (b"\xff", "no JPEG, PNG, GIF, BMP or WebP"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a text file"),
        (b"\0\0\0\x18ftypheic", "an HEIC or AVIF image"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image that is damaged or incomplete"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image without a header"),
        (b"GIF89a", "a GIF image that ends within its first frame"),
        (b"GIF89a\4\0\4\0\0\0\0;", "a GIF image without a frame"),
        (b"GIF89a\4\0\4\0\0\0\0Z", "a GIF image with an unknown block"),
        (b"BM" + bytes(60), "a BMP image that is not plain 8, 24 or 32 bits"),
        (b"RIFF\0\0\0\0WEBPJUNK", "a WebP image without a known chunk"),
    ],
)
def test_what_is_no_image_is_refused_by_name(encoded, expected):
    assert expected in refusal(encoded)


def test_kinds_that_only_pillow_reads_are_refused_by_name(draw, encode):
    frames = {"save_all": True, "append_images": [draw(seed=1)]}

    assert refusal(encode(draw(), "TIFF")) == "a TIFF image"
    assert refusal(encode(draw("RGBA"), "WEBP")) == "a WebP image with alpha"
    assert refusal(encode(draw("RGBA"), "WEBP", lossless=True)) == "a WebP image with alpha"
    assert refusal(encode(draw(), "WEBP", **frames)) == "an animated WebP image"


def test_bmp_of_other_layouts_is_refused(draw, encode):
    bmp, palette = encode(draw(), "BMP"), encode(draw("P"), "BMP")
    expected = "a BMP image that is not plain 8, 24 or 32 bits"

    assert refusal(encode(draw("1"), "BMP")) == expected
    assert refusal(bmp[:14] + struct.pack("<I", 12) + bmp[18:]) == expected  # of OS/2
    assert refusal(palette[:30] + struct.pack("<I", 1) + palette[34:]) == expected  # run lengths


def test_gif_frame_that_leaves_its_screen_open_is_refused(draw, encode):
    gif = bytearray(encode(draw("P"), "GIF"))
    gif[6:8] = struct.pack("<H", 60)  # a wider screen

    assert refusal(bytes(gif)) == "a GIF image whose first frame does not fill it"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
def test_truncated_images_are_refused(kind, part, draw, encode):
    encoded = encode(draw("P" if kind == "GIF" else "RGB"), kind)

    assert kind.lower() in refusal(encoded[: int(part * len(encoded))]).lower()


def test_bombs_are_refused_before_they_take_memory(draw, encode, write_png):
    side = 20_000
    sides = struct.pack("<HH", side, side)
    gif = bytearray(encode(draw("P"), "GIF"))
    gif[6:10] = sides
    bmp = bytearray(encode(draw(), "BMP"))
    bmp[18:26] = struct.pack("<ii", side, -side)
    jpeg = bytearray(encode(draw(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    webp = bytearray(encode(draw(), "WEBP", orientation=6))
    webp[24:30] = struct.pack("<I", side - 1)[:3] * 2
    png = write_png(np.zeros((4, 4, 3), np.uint8), size=(side, side))
    many = write_png(np.zeros((4, 4, 3), np.uint8), size=(0xFFFFFFFF, 0xFFFFFFFF))
    before = peak_memory()

    for bomb in (gif, bmp, jpeg, webp, png):
        reason = refusal(bytes(bomb))
        assert reason == f"an image of {side} x {side} pixels; at most {MAX_PIXELS} are decoded"
    assert "at most" in refusal(many)

    assert peak_memory() - before < 100e6  # One of them is 1.2 GB.


def peak_memory():
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def test_an_image_of_the_most_pixels_is_not_refused_for_its_size(write_png):
    # Sides from the header; the pixels themselves are missing, and that is what is told.
    encoded = write_png(np.zeros((4, 4, 3), np.uint8), size=(MAX_PIXELS // 10, 10))

    assert "damaged" in refusal(encoded)


@pytest.mark.slow
def test_random_damage_never_does_more_than_refuse(draw, encode):
    random = np.random.default_rng(0)
    modes = {"JPEG": "RGB", "PNG": "P", "GIF": "P", "BMP": "P", "WEBP": "RGB"}
    encoded = [encode(draw(mode), kind) for kind, mode in modes.items()]
    encoded += [encode(draw(), kind, orientation=6) for kind in ("JPEG", "PNG", "WEBP")]
    outcomes = set()

    for number in range(400):
        damaged = bytearray(encoded[number % len(encoded)])
        for place in random.integers(0, 120, 3):
            damaged[place] = random.integers(256)
        try:
            outcomes.add(decode(bytes(damaged)).shape[2])
        except tf.errors.InvalidArgumentError as error:
            outcomes.add("refused")
            assert explain(error)

    assert outcomes == {3, "refused"}


# --- where it runs -----------------------------------------------------------------------------


def test_decoder_works_in_tf_data(draw, encode):
    encoded = [encode(draw(seed=seed), "JPEG", orientation=1 + seed) for seed in range(8)]
    data = tf.data.Dataset.from_tensor_slices(encoded).map(decode_image, num_parallel_calls=2)

    assert data.element_spec.shape.as_list() == [None, None, 3]
    for image, source in zip(data, encoded, strict=True):
        np.testing.assert_array_equal(image, decode_image(source))


@pytest.mark.slow
def test_decoder_works_in_an_exported_signature(draw, encode, tmp_path):
    class Service(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def serve(self, encoded):
            spec = tf.TensorSpec([16, 16, 3], tf.uint8)
            read_image = lambda item: resize_image(decode_image(item), (16, 16), "crop")  # noqa: E731
            return {"image": tf.map_fn(read_image, encoded, fn_output_signature=spec)}

    service = Service()
    tf.saved_model.save(service, str(tmp_path), signatures=service.serve)
    encoded = [
        encode(draw(), "JPEG", orientation=6),
        encode(draw("CMYK"), "JPEG"),
        encode(draw("P"), "GIF"),
        encode(draw("P"), "BMP"),
        encode(draw(), "WEBP"),
    ]

    loaded = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    images = loaded(tf.constant(encoded))["image"]

    for image, source in zip(images, encoded, strict=True):
        expected = resize_image(decode_image(source), (16, 16), "crop")
        np.testing.assert_array_equal(image, expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match="cannot decode a TIFF image"):
        loaded(tf.constant([encode(draw(), "TIFF")]))


# --- resizing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["stretch", "crop", Padding()])
def test_same_size_returns_the_pixels(mode):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)

    np.testing.assert_array_equal(resize_image(pixels, (20, 30), mode), pixels)


@pytest.mark.parametrize("size", [(24, 24), (90, 40), (17, 200)])
def test_stretch_agrees_with_pillow(size, draw):
    image = draw(width=120, height=80)

    resized = resize_image(np.asarray(image), size).numpy()

    expected = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    assert resized.dtype == np.uint8
    # Pillow rounds after each of its two passes, and its weights to 22 bits.
    assert np.abs(resized - expected).max() <= 1


@pytest.mark.parametrize("size", [(24, 24), (90, 40), (17, 200)])
def test_crop_agrees_with_pillow(size, draw):
    image = draw(width=120, height=80)
    scale = max(size[0] / 80, size[1] / 120)
    left, top = (120 - size[1] / scale) / 2, (80 - size[0] / scale) / 2

    resized = resize_image(np.asarray(image), size, "crop").numpy()

    box = (left, top, 120 - left, 80 - top)
    expected = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, box)).astype(int)
    assert np.abs(resized - expected).max() <= 1


@pytest.mark.parametrize(
    "size, place",
    [
        ((24, 24), (4, 20, 0, 24)),  # 120 x 80 at a fifth: 24 x 16
        ((30, 24), (7, 23, 0, 24)),
        ((80, 200), (0, 80, 40, 160)),
        ((17, 200), (0, 17, 87, 113)),  # 25.5 columns are 26
    ],
)
def test_a_padded_image_is_pillows_resized_one_on_its_colour(size, place, draw):
    image = draw(width=120, height=80)
    top, bottom, left, right = place

    padded = resize_image(np.asarray(image), size, Padding((1, 20, 255))).numpy()

    inner = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    is_padding = np.ones(size, bool)
    is_padding[top:bottom, left:right] = False
    assert (padded[is_padding] == (1, 20, 255)).all()
    assert np.abs(padded[top:bottom, left:right] - np.asarray(inner).astype(int)).max() <= 1


@pytest.mark.parametrize("source", [(1, 900), (900, 1)])
def test_a_padded_strip_keeps_one_line(source):
    white = np.full((*source, 3), 255, np.uint8)

    padded = resize_image(white, (16, 16), Padding((0, 0, 0))).numpy()[..., 0]

    assert sorted({padded.any(axis=0).sum(), padded.any(axis=1).sum()}) == [1, 16]


def test_crop_keeps_proportions_and_stretch_does_not():
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[10:30, 28:48] = 255  # a square of 20

    sides = {}
    for mode in ("stretch", "crop"):
        white = resize_image(pixels, (20, 20), mode).numpy()[..., 0] > 127
        sides[mode] = (white.any(axis=1).sum(), white.any(axis=0).sum())

    assert sides == {"stretch": (10, 5), "crop": (10, 10)}


def test_batch_is_resized_as_its_images():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)

    batch = resize_image(pixels, (8, 12), "crop")

    for image, alone in zip(batch, pixels, strict=True):
        np.testing.assert_array_equal(image, resize_image(alone, (8, 12), "crop"))


def test_values_are_rounded_not_cut():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0] = 3  # the mean of 3, 3, 0 and 0 is 1.5; of 3 parts in 4, 2.25

    assert resize_image(pixels, (1, 1)).numpy().max() == 2
    assert resize_image(pixels, (4, 1)).numpy()[:, 0, 0].tolist() == [3, 2, 1, 0]


def test_cropping_a_thin_strip_takes_little_memory():
    strip = np.full((1, 60_000, 3), 200, np.uint8)
    before = peak_memory()

    image = resize_image(strip, (224, 224), "crop")

    assert np.unique(image).tolist() == [200]
    assert peak_memory() - before < 500e6  # Scaled to cover, it would be 36 GB.


def test_explain_gives_words_for_any_error():
    error = tf.errors.InvalidArgumentError(None, None, "something else")

    assert explain(error) == "an image that is damaged or incomplete"


def test_pillow_limit_is_the_same():
    assert MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
