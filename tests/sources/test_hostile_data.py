"""Hostile tables, folders and images: nothing outside is read, and nothing is waited for."""

import os
import struct
import zlib

import pytest
from PIL import Image

from tests.command import tltool
from tl_toolkit.images.scan import inspect_images
from tl_toolkit.sources import table_rows
from tl_toolkit.sources.tables import read_header, read_table


@pytest.fixture
def photos(tmp_path):
    """A folder of images with a table, and a secret beside it."""
    (tmp_path / "photos/below").mkdir(parents=True)
    for name in ("photos/a.png", "photos/b.png", "photos/below/c.png", "secret.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "photos/link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "photos/linked").symlink_to(tmp_path)
    (tmp_path / "photos/inner.png").symlink_to("below/c.png")
    return tmp_path / "photos"


def write_table(photos, *paths):
    rows = ["path,label", "a.png,x", "b.png,y", *(f'"{path}",x' for path in paths)]
    (photos / "t.csv").write_text("\n".join(rows))
    return photos / "t.csv"


@pytest.mark.parametrize(
    "path", ["../secret.png", "below/../../secret.png", "link.png", "linked/secret.png", "{top}"]
)
def test_a_table_reads_no_image_outside_its_folder_unless_the_recipe_follows(path, photos):
    table = write_table(photos, path.format(top=photos.parent / "secret.png"))

    _, ((field, problem),) = read_table(table)
    files, problems = read_table(table, links="follow")

    assert (field, problem.hint) == ("csv", "data.links=follow to use them")
    assert "'t.csv' names 1 image outside its folder: line 4: " in problem.what
    assert not problems and len(files) == 3


@pytest.mark.parametrize("path", ["below/c.png", "./below/../below/c.png", "inner.png", "{here}"])
def test_a_table_reads_what_is_below_its_folder(path, photos):
    table = write_table(photos, path.format(here=photos / "below/c.png"))

    assert not read_table(table)[1]


def test_a_table_through_a_link_to_its_folder_is_the_same(photos, tmp_path):
    write_table(photos)
    (tmp_path / "door").symlink_to(photos)

    assert not read_table(tmp_path / "door/t.csv")[1]


def write_recipe(folder, text):
    (folder / "r.yaml").write_text(
        f"version: 1\nname: x\ndata: {{{text}, image_size: 32}}\n"
        "model: {base: lenet5, weights: random}\nphases: [{name: head, epochs: 1}]\n"
    )


@pytest.mark.parametrize(
    ("kind", "text"), [("pipe", "is no regular file"), ("device", "is no regular file")]
)
def test_a_table_without_an_end_is_refused(kind, text, tmp_path):
    path = tmp_path / "t.csv"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    write_recipe(tmp_path, '"csv": "t.csv"')

    done = tltool("validate", "r.yaml", cwd=tmp_path, code=3)

    assert text in done.stderr


def test_a_table_that_is_too_large_is_not_opened(photos, monkeypatch):
    table = write_table(photos)
    monkeypatch.setattr(table_rows, "MAX_BYTES", 10)

    _, (problem,) = read_header(table, expected="A table")

    assert "has more than 0 MiB" in problem.what


def test_a_cell_without_an_end_is_a_problem_of_the_table(photos):
    (photos / "t.csv").write_text("path,label\n" + "x" * 200_000 + ",y\n")

    assert "field larger than field limit" in read_table(photos / "t.csv")[1][0][1].what


def png(width, height):
    def chunk(name, content):
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


BOMBS = {
    "png": png(100_000, 100_000),
    "png of the largest sides": png(2**31 - 1, 2**31 - 1),
    "gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(20),
    "bmp": b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 60000, 60000, 1, 24, *[0] * 6),
    "webp": b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\xff" * 2 + bytes(20),
    "jpeg": bytes.fromhex("ffd8ffc0001108fffffffe03011100021100031100") + b"\xff\xd9",
    "tiff": b"II*\0\x08\0\0\0\x02\0"
    + struct.pack("<HHIIHHII", 256, 4, 1, 200_000, 257, 4, 1, 200_000)
    + bytes(4),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_an_image_that_claims_billions_of_pixels_is_broken_by_its_header(kind, tmp_path):
    path = tmp_path / "x.img"
    path.write_bytes(BOMBS[kind])

    inspection = inspect_images([str(path)], cache_dir=tmp_path / "cache")[0]

    assert inspection.verdict == "broken", inspection


def test_a_pipe_that_is_called_an_image_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.png")

    inspection = inspect_images([str(tmp_path / "x.png")], cache_dir=tmp_path)[0]

    assert (inspection.verdict, inspection.reason) == ("broken", "no regular file")


def test_pipes_devices_and_loops_of_links_in_a_folder_are_left_out(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / f"{number}.png")
    os.mkfifo(tmp_path / "photos/a/pipe.png")
    (tmp_path / "photos/a/zero.png").symlink_to("/dev/zero")
    (tmp_path / "photos/a/self.png").symlink_to("self.png")
    (tmp_path / "photos/b/up").symlink_to("..")
    write_recipe(tmp_path, '"train": "photos", "validation": 0.5, "links": "follow"')

    done = tltool("validate", "r.yaml", cwd=tmp_path)

    # Those of a are found once more through the link in b, which is followed, and ends.
    assert "images   6 to be split" in done.stderr


@pytest.mark.slow
def test_a_diagram_escapes_the_names_in_it(tmp_path):
    import keras

    name = '"><script>alert(1)<!--'
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 3, name="a<b>&'\"")(image), name=name)
    model.save(tmp_path / "x.keras")

    tltool("models", "draw", "x.keras", "-o", "x.svg", cwd=tmp_path)

    text = (tmp_path / "x.svg").read_text()
    assert "<script" not in text and "a<b>" not in text and "a&lt;b&gt;&amp;" in text


def test_a_mask_that_would_start_a_program_is_not_opened(tmp_path):
    from tl_toolkit.tasks.segmentation.masks import _read_pixels

    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    (tmp_path / "mask.png").write_bytes(program)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.format == "EPS"

    with pytest.raises(OSError, match="cannot identify image file"):
        _read_pixels(str(tmp_path / "mask.png"), as_rgb=True)
