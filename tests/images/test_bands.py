"""Images with other channels than RGB: what is decoded, refused, measured and changed."""

import io
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tl_toolkit.audit.bands import inspect_bands
from tl_toolkit.errors import DataError
from tl_toolkit.images.augment import AugmentSettings, build_augment
from tl_toolkit.images.bands import decode_file, encode_npy
from tl_toolkit.images.decoder import decode_image, explain, resize_image
from tl_toolkit.images.geometry import build_resize
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.npy_header import NPY_MAGIC
from tl_toolkit.images.pipeline import DecodedImages, Images, read_encoded, read_pixels
from tl_toolkit.images.scan import inspect_images, judge, scan_files
from tl_toolkit.images.statistics import measure_bands
from tl_toolkit.images.tta import build_views, find_sizes, list_views
from tl_toolkit.sources.listing import SourceFile


def draw_bands(channels=4, *, size=(6, 7), seed=0):
    return np.random.default_rng(seed).uniform(0, 200, (*size, channels))


def why(encoded, channels=4):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        decode_file(encoded, channels)
    return explain(caught.value)


def write_header(text):
    header = text.encode().ljust(117) + b"\n"
    return NPY_MAGIC + b"\x01\x00" + len(header).to_bytes(2, "little") + header


def encode_png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# --- arrays ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["u1", "?", "<u2", ">u2", "<u4", "<i2", ">i8", "<f2", "<f4", ">f4", "<f8"]
)
def test_arrays_of_all_kinds_are_read_as_numpy_reads_them(kind):
    bands = draw_bands().astype(kind)

    for array in (bands, np.asfortranarray(bands)):
        decoded = decode_file(encode_npy(array), 4).numpy()
        assert decoded.dtype == np.float32
        np.testing.assert_array_equal(decoded, bands.astype(np.float32))


def test_array_of_two_axes_is_an_image_of_one_channel():
    bands = draw_bands(1)[..., 0]

    np.testing.assert_array_equal(decode_file(encode_npy(bands), 1)[..., 0], np.float32(bands))


def test_refused_arrays_say_why():
    bands = draw_bands().astype("f4")
    whole = encode_npy(bands)
    objects = io.BytesIO()
    np.save(objects, np.array([[{}]], object), allow_pickle=True)

    assert why(encode_npy(draw_bands(5))) == "an array of 5 bands where data.channels is 4"
    assert why(encode_npy(np.moveaxis(bands, -1, 0))) == (
        "an array of 7 bands where data.channels is 4; bands come last, as in (height, width, 4): "
        "numpy.moveaxis(array, 0, -1)"
    )
    assert why(whole[:-3]) == f"a .npy file of {len(whole) - 3} bytes, its header asks for 800"
    assert why(whole + b"x") == f"a .npy file of {len(whole) + 1} bytes, its header asks for 800"
    assert why(whole[:30]) == why(NPY_MAGIC) == "a .npy file that is cut off"
    assert why(objects.getvalue()) == "a .npy file of Python objects, not numbers"
    assert why(encode_npy(bands.astype("c8"))).startswith("a .npy file of the type <c8, none of u1")
    assert why(encode_npy(bands[0, 0])) == "an array of shape (4,): (height, width, 4) is expected"
    assert "not finite" in why(encode_npy(np.full_like(bands, np.nan)))
    assert why(write_header("{'descr': 1}")) == "a .npy file whose header cannot be read"


def write_odd(text, data=b"", version=b"\x01\x00"):
    """An array whose header says what numpy would not write."""
    header = text.encode()
    length = len(header).to_bytes(2 if version[0] == 1 else 4, "little")
    return NPY_MAGIC + version + length + header + data


def describe_array(kind="<f4", shape="(1, 1, 4)"):
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"


OBJECTS = io.BytesIO()
np.save(OBJECTS, np.array([[{}]]), allow_pickle=True)
ODD = {
    "objects": (OBJECTS.getvalue(), "not numbers"),
    "nan": (encode_npy(np.full((4, 4, 4), np.nan)), "not finite"),
    "beyond float32": (encode_npy(np.full((4, 4, 4), 1e300)), "not finite"),
    "one axis": (encode_npy(np.zeros(4)), "no image with bands"),
    "too long": (encode_npy(np.zeros((4, 4, 4))) + b"more", "its header asks for"),
    "cut": (encode_npy(np.zeros((4, 4, 4)))[:-9], "its header asks for"),
    "cut header": (b"\x93NUMPY\x09\x00", "cut off"),
    "uint64": (encode_npy(np.zeros((4, 4, 4), np.uint64)), "type <u8, none of"),
    "float128": (write_odd(describe_array("<f16"), b"\0" * 64), "type <f16, none of"),
    "empty": (encode_npy(np.zeros((0, 4, 4))), "without pixels"),
    "huge side": (write_odd(describe_array(shape=f"(1, 1, {'9' * 400})")), "no image with bands"),
    "huge bands": (write_odd(describe_array(shape="(1, 1, 999999999)")), "its header asks for"),
    "bool side": (write_odd(describe_array(shape="(True, 4)")), "cannot be read"),
    "negative side": (write_odd(describe_array(shape="(-1, 4, 4)")), "cannot be read"),
    "mixed keys": (write_odd("{1: 2, 'a': 3}"), "cannot be read"),
    "unhashable": (write_odd("{[]: 1}"), "cannot be read"),
    "open": (write_odd("{("), "cannot be read"),
    "deep": (write_odd("-" * 9000), "cannot be read"),
    "not whole": (write_odd("-" * 20000), "cannot be read"),
    "tuple": (write_odd("{'descr': ('<f4',), 'fortran_order': False, 'shape': (1, 1)}"), "cann"),
    "accent": (write_odd(describe_array("\xe9")), "of the type"),
    "version 3": (write_odd(describe_array(), b"\0" * 16, b"\x03\x00"), ""),
    "version 2": (write_odd(describe_array(), b"\0" * 16, b"\x02\x00"), ""),
    "booleans": (encode_npy(np.eye(4)[np.newaxis] > 0), ""),
    "largest float": (encode_npy(np.full((4, 4, 4), 3e38)), ""),
    "int64": (encode_npy(np.full((4, 4, 4), 1 << 60)), ""),
    "fortran": (encode_npy(np.asfortranarray(np.ones((4, 5, 4), ">f4"))), ""),
}


@pytest.mark.parametrize("name", ODD)
def test_a_check_refuses_of_arrays_what_training_refuses(name):
    encoded, reason = ODD[name]

    content = inspect_bands(encoded, 4)
    try:
        pixels = decode_file(encoded, 4)
    except tf.errors.InvalidArgumentError as error:
        wrong = explain(error)
    else:
        wrong = ""
        assert pixels.shape == (content.height, content.width, content.bands)

    assert bool(content.fault) == bool(reason) == bool(wrong), (content, wrong)
    assert reason in content.reason
    is_short = name in ("cut", "cut header", "huge bands")
    assert content.fault == ("truncated" if is_short else "unreadable" if reason else "")


def test_header_that_asks_for_more_than_the_file_takes_no_memory():
    shape = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s, %s, 4), }"
    why(write_header(shape % (1, 1)))  # traced

    tracemalloc.start()
    huge = why(write_header(shape % (999999999, 999999999)))
    large = why(write_header(shape % (9999, 9999)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert huge.endswith("at most 178956970 pixels are decoded")
    assert large == "a .npy file of 128 bytes, its header asks for 1599680144"
    assert peak < 1 << 20


# --- photos and TIFF ---------------------------------------------------------------------------


def test_photos_are_grey_as_pillow_has_it_with_one_channel(draw, encode):
    for encoded in (encode(draw(), "PNG"), encode(draw("L"), "JPEG"), encode(draw("CMYK"), "JPEG")):
        rgb = Image.fromarray(decode_image(encoded).numpy())

        decoded = decode_file(encoded, 1).numpy()

        np.testing.assert_array_equal(decoded[..., 0], np.asarray(rgb.convert("L")))


@pytest.mark.parametrize(
    ("mode", "channels"), [("RGBA", 4), pytest.param("LA", 2, marks=pytest.mark.slow)]
)
def test_png_with_alpha_has_two_or_four_channels(mode, channels, draw, encode):
    image = draw(mode)

    decoded = decode_file(encode(image, "PNG", orientation=6), channels).numpy()

    expected = np.asarray(image.transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(decoded, expected)


def test_an_image_of_other_bands_is_refused_with_their_number(draw, encode):
    assert why(encode(draw(), "PNG")) == "a PNG image of 3 bands where data.channels is 4"
    assert why(encode(draw(), "JPEG")) == "a JPEG image of 3 bands where data.channels is 4"
    assert why(encode(draw("RGBA"), "PNG")[:200]).startswith("a PNG image that is damaged")


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_tiff_bands_are_read_by_pixel_by_plane_and_by_page(kind):
    tifffile = pytest.importorskip("tifffile")
    bands = draw_bands(5, size=(24, 20)).astype(kind)
    planes = np.moveaxis(bands, -1, 0)

    for array, options in (
        (bands, {"planarconfig": "contig", "photometric": "minisblack"}),
        (planes, {"planarconfig": "separate", "photometric": "minisblack"}),
        (planes, {"photometric": "minisblack"}),
        (bands, {"planarconfig": "contig", "photometric": "minisblack", "compression": "zlib"}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, **options)
        encoded = buffer.getvalue()

        np.testing.assert_array_equal(decode_file(encoded, 5).numpy(), bands.astype(np.float32))
        assert why(encoded, 4) == "a TIFF image of 5 bands where data.channels is 4"
    assert why(encoded[:100], 5).startswith("a TIFF image")


def test_tiff_that_is_turned_in_two_ways_is_damaged():
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    turned = [(274, "H", 2, (1, 6), True)]
    tifffile.imwrite(buffer, np.ones((6, 7, 4), np.uint16), planarconfig="contig",
                     photometric="minisblack", extratags=turned)  # fmt: skip

    content = inspect_bands(buffer.getvalue(), 4)

    assert content.fault == "unreadable" and "damaged or incomplete" in content.reason


def test_tiff_without_its_reader_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)

    assert "pip install tifffile imagecodecs" in why(b"II*\0junk")


# --- scan --------------------------------------------------------------------------------------


def save_bands(folder, count, channels=4, *, size=(6, 7)):
    paths = [folder / f"{number}.npy" for number in range(count)]
    for number, path in enumerate(paths):
        np.save(path, draw_bands(channels, size=size, seed=number).astype(np.float32))
    return paths


def as_examples(paths, channels=4, **options):
    inspections = inspect_images(list(map(str, paths)), channels=channels, **options)
    return [
        Example(it.path, it.sha256, "train", ("a",), it.verdict, it.reason) for it in inspections
    ]


def test_verdicts_depend_on_the_channels(tmp_path):
    (path,) = save_bands(tmp_path, 1)

    for _ in range(2):  # the second time from the cache
        four, grey, rgb = (
            as_examples([path], channels, cache_dir=tmp_path / "cache")[0] for channels in (4, 1, 3)
        )
        assert four.verdict == "good"
        assert grey.verdict == "broken" and "4 bands" in grey.reason
        assert rgb.verdict == "broken"
        assert rgb.reason == "a .npy array, which is read with its data.channels"


def test_other_bands_are_named_for_each_file_with_what_to_type(tmp_path):
    paths = save_bands(tmp_path, 2, 6)
    files = [SourceFile(str(path), None, ("a",)) for path in paths]

    with pytest.raises(DataError) as caught:
        scan_files(files, channels=4, cache_dir=tmp_path / "cache")

    (problem,) = caught.value.problems
    assert f"{paths[1]}: an array of 6 bands where data.channels is 4" in problem.expected
    assert problem.hint == "data.channels=6"

    np.save(tmp_path / "fits.npy", np.zeros((6, 7, 4)))
    files.append(SourceFile(str(tmp_path / "fits.npy"), None, ("a",)))
    with pytest.raises(DataError, match="data.broken=skip"):
        scan_files(files, channels=4, cache_dir=tmp_path / "cache")


def test_only_what_stands_for_rgb_is_converted(draw, encode):
    webp = encode(draw("RGBA"), "WEBP")

    assert judge(webp, 1) == ("convertible", "a WebP image with alpha")
    assert judge(webp, 4) == ("broken", "a WebP image with alpha")


# --- pixels ------------------------------------------------------------------------------------


def test_statistics_are_those_of_numpy_in_any_order(tmp_path):
    paths = save_bands(tmp_path, 3) + [tmp_path / "large.npy"]
    np.save(paths[-1], draw_bands(size=(30, 20), seed=9) * 1000 + 5e5)
    pixels = np.concatenate([np.load(path).astype("f4").reshape(-1, 4) for path in paths])
    examples = as_examples(paths, cache_dir=tmp_path / "cache")

    statistics = measure_bands(examples, 4)

    assert statistics.images == 4
    np.testing.assert_allclose(statistics.mean, pixels.mean(axis=0, dtype="f8"), rtol=1e-12)
    np.testing.assert_allclose(statistics.deviation, pixels.std(axis=0, dtype="f8"), rtol=1e-9)
    assert measure_bands(examples[::-1], 4) == statistics


def test_bands_are_resized_as_single_channels_are(tmp_path):
    bands = draw_bands(5, size=(12, 30)).astype(np.float32)

    for mode in ("stretch", "crop", build_resize("pad", 7, 5)):
        resized = resize_image(bands, (8, 10), mode).numpy()
        for band in range(5):
            single = resize_image(bands[..., band : band + 1], (8, 10), mode).numpy()
            np.testing.assert_array_equal(resized[..., band], single[..., 0])
    assert resized[0, 0].tolist() == [7] * 5
    assert build_resize("pad", None, 5).color == (0, 0, 0)


def test_images_are_float32_and_do_not_depend_on_where_they_are_kept(tmp_path):
    examples = as_examples(save_bands(tmp_path, 4), cache_dir=tmp_path / "cache")
    decoded = DecodedImages((8, 8), channels=4)
    as_examples(tmp_path.glob("*.npy"), cache_dir=tmp_path / "other", keep=decoded.add)
    kept, read, handed = (
        Images(examples, image_size=(8, 8), channels=4, **options)
        for options in ({}, {"memory_budget": 4 * 8 * 8 * 4}, {"decoded": decoded})
    )

    expected = [resize_image(read_pixels(it.path, channels=4), (8, 8)) for it in examples]

    assert kept.load([0]).dtype == np.float32
    for images in (kept, read, handed):
        np.testing.assert_array_equal(images.load(range(4)), expected)


def test_parity_reads_arrays_as_they_are(tmp_path):
    (example,) = as_examples(save_bands(tmp_path, 1), cache_dir=tmp_path / "cache")

    assert read_encoded(example, 4) == (tmp_path / "0.npy").read_bytes()


def test_bands_are_moved_and_not_cut_to_a_range():
    bands = (draw_bands(4, size=(8, 8)) * 1000).astype(np.float32)[np.newaxis]
    keys = np.array([3])

    flipped = build_augment(AugmentSettings(flip="horizontal"))
    contrast = build_augment(AugmentSettings(contrast=0.5))

    seen = [flipped(bands, 0, epoch, keys).numpy() for epoch in range(1, 6)]
    for image in seen:
        assert any(np.array_equal(image, it) for it in (bands, bands[:, :, ::-1]))
    assert len({image.tobytes() for image in seen}) == 2
    changed = contrast(bands, 0, 1, keys).numpy()
    means = bands.mean(axis=(1, 2), keepdims=True)
    ratios = (changed - means) / (bands - means)
    np.testing.assert_allclose(ratios, ratios.flat[0], rtol=1e-2)
    assert abs(ratios.flat[0] - 1) > 0.01
    assert changed.max() > 255


def test_views_of_bands_are_those_of_each_band():
    views = list_views(["flip", "crops"])
    bands = draw_bands(4, size=(20, 20)).astype(np.float32)
    sizes = list(find_sizes((14, 14), views))

    def view(pixels):
        resized = {size: resize_image(pixels, size).numpy()[np.newaxis] for size in sizes}
        return build_views(resized, (14, 14), views)[0]

    np.testing.assert_array_equal(view(bands)[..., 2:3], view(bands[..., 2:3]))
