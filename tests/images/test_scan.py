import contextlib
import hashlib
import io
import os
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tl_toolkit.errors import DataError
from tl_toolkit.images.convert import convert_to_png
from tl_toolkit.images.decoder import decode_image
from tl_toolkit.images.scan import ScanSettings, inspect_images, judge, scan, scan_files
from tl_toolkit.images.verdicts import Verdicts
from tl_toolkit.sources.known_files import DATABASE
from tl_toolkit.sources.survey import SourceFile, Splits, list_builtin, survey_folders


@pytest.fixture
def photos(tmp_path, draw, encode):
    """A folder of 2 classes with 6 different PNG images each."""
    for index, name in enumerate(("ants", "bees")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            image = draw(seed=10 * index + number, width=16, height=12)
            (tmp_path / "photos" / name / f"{number}.png").write_bytes(encode(image, "PNG"))
    return tmp_path / "photos"


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


def scan_folder(folder, *, validation=0.2, test=None, **options):
    """Scans a folder per class; settings of the scan are told from its options by their names."""
    listing, problems = survey_folders(Splits(folder, validation, test))
    assert problems == []
    names = [name for name in ScanSettings.__dataclass_fields__ if name in options]
    settings = ScanSettings(**{name: options.pop(name) for name in names})
    return scan(listing, settings, **options)


def stored_verdicts(cache_dir):
    """The (verdict, reason) of each content that the cache holds."""
    with contextlib.closing(sqlite3.connect(cache_dir / DATABASE)) as connection:
        return connection.execute("SELECT verdict, reason FROM verdicts").fetchall()


# --- verdicts ----------------------------------------------------------------------------------


def test_verdicts_say_what_becomes_of_an_image(draw, encode):
    assert judge(encode(draw(), "JPEG")) == ("good", "")
    assert judge(encode(draw(), "TIFF")) == ("convertible", "a TIFF image")
    assert judge(encode(draw("RGBA"), "WEBP")) == ("convertible", "a WebP image with alpha")
    assert judge(encode(draw("1"), "BMP"))[0] == "convertible"
    assert judge(b"") == ("broken", "an empty file")
    verdict, reason = judge(encode(draw(), "JPEG")[:-200])
    assert verdict == "broken"
    assert reason.startswith("a JPEG image that is damaged or incomplete (image file is truncated")
    assert judge(encode(draw(), "TIFF")[:300])[0] == "broken"


def test_float_pixels_are_broken_since_they_have_no_range(encode):
    image = Image.fromarray(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4))

    assert judge(encode(image, "TIFF")) == (
        "broken",
        "a TIFF image (pixels of the kind 'F' have no fixed range)",
    )


def test_bombs_are_broken_for_pillow_as_well(encode, draw):
    tiff = encode(draw(), "TIFF")
    for side in (52, 36):  # the entries of width and height: LONG, one value
        tiff = tiff.replace(
            b"\4\0\1\0\0\0" + side.to_bytes(4, "little"), b"\4\0\1\0\0\0" + b"\0\0\1\0"
        )

    verdict, reason = judge(tiff)

    assert verdict == "broken"
    assert "exceeds limit of 178956970 pixels" in reason


def test_other_formats_are_not_tried_with_pillow(draw, encode):
    for kind in ("PPM", "TGA", "ICO", "PCX"):
        assert judge(encode(draw(), kind))[0] == "broken"


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "CMYK", "I;16"])
def test_conversion_keeps_what_pillow_reads(mode, draw, encode, read_with_pillow):
    tiff = encode(draw(mode), "TIFF", tiffinfo={274: 6} if mode != "I;16" else {})

    image = decode_image(convert_to_png(tiff))

    np.testing.assert_array_equal(image, read_with_pillow(tiff))


def test_conversion_applies_the_orientation(draw, encode, read_with_pillow):
    webp = encode(draw("RGBA"), "WEBP", orientation=6)

    image = decode_image(convert_to_png(webp))

    assert image.shape == (52, 36, 3)
    np.testing.assert_array_equal(image, read_with_pillow(webp))


# --- inspecting --------------------------------------------------------------------------------


def test_inspections_come_in_order_with_their_content(photos, cache_dir):
    paths = sorted(str(path) for path in photos.rglob("*.png"))
    counts = []

    inspections = inspect_images(
        paths, cache_dir=cache_dir, progress=lambda done, total: counts.append((done, total))
    )

    assert [inspection.path for inspection in inspections] == paths
    assert [inspection.sha256 for inspection in inspections] == [
        hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths
    ]
    assert {inspection.verdict for inspection in inspections} == {"good"}
    assert counts == [(number, 12) for number in range(1, 13)]


def test_unreadable_files_are_broken_and_say_why(tmp_path, cache_dir):
    (tmp_path / "folder.jpg").mkdir()
    paths = [str(tmp_path / "vanished.jpg"), str(tmp_path / "folder.jpg")]

    inspections = inspect_images(paths, cache_dir=cache_dir)

    assert [inspection.reason for inspection in inspections] == [
        "cannot be read: No such file or directory",
        "no regular file",
    ]
    assert [inspection.sha256 for inspection in inspections] == ["", ""]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file_is_broken_and_says_why(photos, cache_dir):
    path = photos / "ants" / "0.png"
    path.chmod(0)

    [inspection] = inspect_images([str(path)], cache_dir=cache_dir)

    assert inspection.reason == "cannot be read: Permission denied"


def test_files_too_large_to_be_images_are_not_read(tmp_path, cache_dir):
    path = tmp_path / "huge.png"
    with open(path, "wb") as file:
        file.truncate(600 << 20)  # without taking the room

    [inspection] = inspect_images([str(path)], cache_dir=cache_dir)

    assert inspection.reason == "a file of more than 512 MiB"
    assert inspection.sha256 == ""


# --- the cache of verdicts ---------------------------------------------------------------------


@pytest.fixture
def planted(photos, cache_dir):
    """The photos' paths, and a cache that says of each that it is broken, which they are not."""
    paths = sorted(str(path) for path in photos.rglob("*.png"))
    inspect_images(paths, cache_dir=cache_dir)
    with contextlib.closing(sqlite3.connect(cache_dir / DATABASE)) as connection, connection:
        connection.execute("UPDATE verdicts SET verdict = 'broken', reason = 'planted'")
    return paths


def test_known_content_is_not_decoded_again(planted, cache_dir):
    renamed = planted[0].replace("0.png", "renamed.png")
    os.rename(planted[0], renamed)

    inspections = inspect_images([renamed, *planted[1:]], cache_dir=cache_dir)

    assert {(inspection.verdict, inspection.reason) for inspection in inspections} == {
        ("broken", "planted")
    }


def test_new_content_is_decoded_and_added(planted, cache_dir, draw, encode):
    Path(planted[0]).write_bytes(encode(draw(), "JPEG"))

    inspections = inspect_images(planted, cache_dir=cache_dir)

    assert [inspection.verdict for inspection in inspections] == ["good", *["broken"] * 11]
    assert len(stored_verdicts(cache_dir)) == 13


@pytest.mark.parametrize("content", [b"", b"{}", b"SQLite format 3\0", b"\0" * 9000])
def test_damaged_cache_is_ignored_and_made_anew(content, planted, cache_dir):
    (cache_dir / DATABASE).write_bytes(content)

    inspections = inspect_images(planted, cache_dir=cache_dir)

    assert {inspection.verdict for inspection in inspections} == {"good"}
    assert stored_verdicts(cache_dir) == [("good", "")] * 12


def test_cache_that_cannot_be_written_does_no_harm(photos, tmp_path):
    (tmp_path / "file").write_text("in the way")

    manifest = scan_folder(photos, cache_dir=tmp_path / "file" / "cache")

    assert len(manifest.examples) == 12


def test_scans_at_the_same_time_leave_a_whole_cache(photos, cache_dir):
    paths = sorted(str(path) for path in photos.rglob("*.png"))
    parts = [paths[start::4] for start in range(4)]
    threads = [
        threading.Thread(target=inspect_images, args=(part,), kwargs={"cache_dir": cache_dir})
        for part in parts
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(stored_verdicts(cache_dir)) == {("good", "")}
    assert len(stored_verdicts(cache_dir)) == 12
    assert [path.name for path in cache_dir.iterdir()] == [DATABASE]


def test_what_others_found_meanwhile_is_kept(tmp_path):
    first, second = Verdicts(tmp_path, "1"), Verdicts(tmp_path, "1")
    first.add("a", "good", "")
    second.add("b", "broken", "an empty file")

    first.save()
    second.save()

    assert Verdicts(tmp_path, "1").get("a") == ("good", "")
    assert Verdicts(tmp_path, "1").get("b") == ("broken", "an empty file")
    assert Verdicts(tmp_path, "2").get("a") is None


def test_cache_folder_is_taken_from_the_environment(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "chosen"))
    inspect_images([str(photos / "ants" / "0.png")])
    monkeypatch.delenv("TL_TOOLKIT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    inspect_images([str(photos / "ants" / "0.png")])

    assert stored_verdicts(tmp_path / "chosen")
    assert stored_verdicts(tmp_path / "home" / ".cache" / "tl_toolkit")


# --- scanning ----------------------------------------------------------------------------------


def test_scan_gives_a_manifest_with_drawn_splits(photos, cache_dir):
    manifest = scan_folder(photos, test=0.2, cache_dir=cache_dir)

    assert manifest.classes == ("ants", "bees")
    assert manifest.count() == {
        "train": {"ants": 4, "bees": 4},
        "validation": {"ants": 1, "bees": 1},
        "test": {"ants": 1, "bees": 1},
    }
    assert [entry.path for entry in manifest.examples] == sorted(
        str(path) for path in photos.rglob("*.png")
    )


def test_scan_is_the_same_wherever_the_folder_lies(photos, cache_dir, tmp_path):
    before = scan_folder(photos, cache_dir=cache_dir)
    photos.rename(tmp_path / "moved")

    after = scan_folder(tmp_path / "moved", cache_dir=tmp_path / "other")

    assert after.digest == before.digest


def test_copies_are_kept_in_one_split(photos, cache_dir):
    for number in range(6):
        content = (photos / "ants" / f"{number}.png").read_bytes()
        (photos / "ants" / f"copy{number}.png").write_bytes(content)

    manifest = scan_folder(photos, validation=0.4, cache_dir=cache_dir)

    assert manifest.find_leaks() == []
    assert manifest.count()["validation"] == {"ants": 4, "bees": 2}


def test_few_examples_are_kept_of_each_class(photos, cache_dir):
    manifest = scan_folder(photos, examples_per_class=2, cache_dir=cache_dir)

    assert manifest.count() == {
        "train": {"ants": 2, "bees": 2},
        "validation": {"ants": 1, "bees": 1},
    }


def test_broken_images_are_refused_by_name_with_what_to_do(photos, cache_dir):
    (photos / "ants" / "0.png").write_bytes(b"")
    (photos / "bees" / "5.png").write_bytes(b"<html>")

    with pytest.raises(DataError) as caught:
        scan_folder(photos, cache_dir=cache_dir)

    assert str(caught.value) == (
        "data  2 images cannot be read\n"
        f"  {photos}/ants/0.png: an empty file\n"
        f"  {photos}/bees/5.png: a text file, as a saved web page, in place of an image\n"
        "  Try: data.broken=skip to leave them out"
    )


def test_many_broken_images_are_counted(photos, cache_dir):
    for number in range(30):
        (photos / "ants" / f"b{number:02}.jpg").write_bytes(b"")

    with pytest.raises(DataError) as caught:
        scan_folder(photos, cache_dir=cache_dir)

    assert "30 images cannot be read" in str(caught.value)
    assert "b19.jpg" in str(caught.value)
    assert "b20.jpg" not in str(caught.value)
    assert "and 10 more" in str(caught.value)


def test_skipped_images_stay_in_the_manifest_with_their_reason(photos, cache_dir):
    (photos / "ants" / "0.png").write_bytes(b"")

    manifest = scan_folder(photos, broken="skip", cache_dir=cache_dir)

    first = manifest.examples[0]
    assert (first.verdict, first.reason) == ("broken", "an empty file")
    assert sum(map(len, map(manifest.of, ("train", "validation")))) == 11


def test_convertible_images_are_refused_by_name_even_when_broken_ones_are_skipped(
    photos, cache_dir, draw, encode
):
    (photos / "ants" / "0.png").write_bytes(b"")
    (photos / "bees" / "x.tif").write_bytes(encode(draw(), "TIFF"))

    with pytest.raises(DataError) as caught:
        scan_folder(photos, broken="skip", cache_dir=cache_dir)

    assert str(caught.value) == (
        "data  1 image must be converted before use\n"
        f"  {photos}/bees/x.tif: a TIFF image\n"
        "  Try: data.convert=true to have copies made in PNG"
    )


def test_converted_images_are_read_from_their_copies(photos, cache_dir, draw, encode, tmp_path):
    tiff = encode(draw(), "TIFF")
    (photos / "bees" / "x.tif").write_bytes(tiff)

    manifest = scan_folder(
        photos, convert=True, cache_dir=cache_dir, convert_dir=tmp_path / "converted"
    )

    example = manifest.examples[-1]
    copy = tmp_path / "converted" / f"{hashlib.sha256(tiff).hexdigest()}.png"
    assert (example.path, example.verdict) == (str(copy), "converted")
    assert example.reason == f"a TIFF image, converted from {photos}/bees/x.tif"
    assert example.sha256 == hashlib.sha256(copy.read_bytes()).hexdigest()
    np.testing.assert_array_equal(decode_image(copy.read_bytes()), draw())
    assert (photos / "bees" / "x.tif").read_bytes() == tiff


def test_class_that_skipping_empties_is_refused(photos, cache_dir):
    for path in (photos / "ants").iterdir():
        path.write_bytes(b"")

    with pytest.raises(DataError, match="no usable image of 'ants' is left in train"):
        scan_folder(photos, broken="skip", cache_dir=cache_dir)


def test_split_that_skipping_empties_is_refused(photos, cache_dir, tmp_path):
    for name in ("ants", "bees"):
        (tmp_path / "other" / name).mkdir(parents=True)
        (tmp_path / "other" / name / "1.png").write_bytes(b"")

    with pytest.raises(DataError, match="no usable image of 'ants', 'bees' is left in validation"):
        scan_folder(photos, validation=tmp_path / "other", broken="skip", cache_dir=cache_dir)


def test_too_small_a_class_is_refused_before_training(photos, cache_dir):
    for number in range(1, 6):
        (photos / "ants" / f"{number}.png").unlink()

    with pytest.raises(DataError, match=r"too few different images of 'ants' \(1\)"):
        scan_folder(photos, cache_dir=cache_dir)


def test_digits_are_inspected_like_files(cache_dir):
    listing = list_builtin("digits", Splits(None, 0.2, 0.5), ("3", "8"))

    manifest = scan(listing, ScanSettings(), cache_dir=cache_dir)

    counts = manifest.count()
    assert counts["test"] == {"3": 92, "8": 87}
    assert sum(counts[split]["3"] for split in counts) == 183
    assert manifest.examples[0].path == "builtin:digits/3"
    assert not cache_dir.exists()


def test_files_alone_can_be_scanned(photos, cache_dir):
    files = [SourceFile(str(photos / "ants" / "0.png"), "test", ("ants",))]

    [example] = scan_files(files, cache_dir=cache_dir)

    assert (example.targets, example.split, example.verdict) == (("ants",), "test", "good")


def test_interrupt_ends_the_scan_and_keeps_what_is_known(tmp_path, cache_dir, draw, encode):
    def interrupt(done, total):
        raise KeyboardInterrupt

    for number in range(500):  # of different content: what follows the image does not matter
        (tmp_path / f"{number}.png").write_bytes(
            encode(draw(), "PNG") + bytes([number % 251, number // 251])
        )
    paths = [str(path) for path in tmp_path.glob("*.png")]
    with pytest.raises(KeyboardInterrupt):
        inspect_images(paths, cache_dir=cache_dir, progress=interrupt)

    assert 1 <= len(stored_verdicts(cache_dir)) < 500


def test_conversion_gives_an_rgb_png(draw, encode):
    png = Image.open(io.BytesIO(convert_to_png(encode(draw("RGBA"), "WEBP", lossless=True))))

    assert (png.format, png.mode, png.size) == ("PNG", "RGB", (52, 36))
