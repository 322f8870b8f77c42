"""Findings of a folder: what is named, what is left out, and that nothing is touched."""

import json
import os

import numpy as np
import pytest
from PIL import Image, ImageFilter

import tl_toolkit as tl
from tests.command import tltool


def paint(seed, side=64):
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(np.kron(blocks, np.ones((side // 8, side // 8, 1), np.uint8)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes in two splits, with one of each fault."""
    root = tmp_path_factory.mktemp("audit") / "photos"
    for split, seeds in (("train", range(12)), ("val", range(50, 54))):
        for index, label in enumerate(("cats", "dogs")):
            folder = root / split / label
            folder.mkdir(parents=True)
            for seed in seeds:
                paint(100 * index + seed).save(folder / f"{seed}.png")
    train, val = root / "train", root / "val"
    (train / "cats" / "empty.png").write_bytes(b"")
    cats = (train / "cats" / "1.png").read_bytes()
    (train / "cats" / "again.png").write_bytes(cats)
    (train / "cats" / "half.png").write_bytes(cats[: len(cats) // 2])
    (val / "dogs" / "seen.png").write_bytes((train / "dogs" / "2.png").read_bytes())
    (train / "dogs" / "cat.png").write_bytes((train / "cats" / "3.png").read_bytes())
    paint(4).resize((160, 160)).save(val / "cats" / "near.jpg", quality=80)
    paint(60).save(train / "cats" / "five.jpg", "PNG")
    Image.new("RGB", (64, 64)).save(train / "dogs" / "black.png")
    large = paint(70).resize((256, 256), Image.Resampling.NEAREST)
    large.filter(ImageFilter.GaussianBlur(6)).save(train / "dogs" / "blurred.png")
    paint(71).convert("L").save(train / "dogs" / "grey.png")
    paint(72).resize((200, 30)).save(train / "dogs" / "wide.png")
    paint(73).save(train / "dogs" / "noname", "JPEG")
    os.symlink(train / "cats" / "1.png", train / "dogs" / "loop.txt")
    return root


@pytest.fixture(scope="module")
def report(photos):
    return tl.check_data(photos)


def describe_files(folder):
    """Returns all that a change changes: not when a file was read last."""
    states = {path: path.lstat() for path in folder.rglob("*")}
    return {
        path: (state.st_ino, state.st_mode, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        for path, state in states.items()
    }


def paths_of(report, kind):
    return [[report.shorten(path) for path in finding.paths] for finding in report.of(kind)]


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        ("empty", [["train/cats/empty.png"]]),
        ("truncated", [["train/cats/half.png"]]),
        ("duplicate", [["train/cats/1.png", "train/cats/again.png"]]),
        ("leak", [["validation/dogs/seen.png", "train/dogs/2.png"]]),
        ("label_conflict", [["train/cats/3.png", "train/dogs/cat.png"]]),
        ("near_leak", [["validation/cats/near.jpg", "train/cats/4.png"]]),
        ("wrong_name", [["train/cats/five.jpg"]]),
        ("flat", [["train/dogs/black.png"]]),
        ("blurred", [["train/dogs/blurred.png"]]),
        ("odd_mode", [["train/dogs/grey.png"]]),
        ("odd_shape", [["train/dogs/wide.png"]]),
        ("not_listed", [["train/dogs/noname"]]),
        ("tiny_class", []),
    ],
)
def test_what_is_wrong_is_found_and_nothing_else(report, kind, paths):
    expected = [[path.replace("validation/", "val/") for path in group] for group in paths]

    assert paths_of(report, kind) == expected


def test_of_copies_one_stays_and_of_a_conflict_none(report, photos):
    left_out = {report.shorten(path) for path in report.list_exclusions()}

    assert left_out == {
        "train/cats/again.png", "train/cats/empty.png", "train/cats/half.png",
        "train/cats/3.png", "train/dogs/cat.png", "train/dogs/2.png",
    }  # fmt: skip
    assert report.list_exclusions(["near_leak"]).keys() == {str(photos / "train/cats/4.png")}


def test_a_second_look_opens_no_image(photos, report, monkeypatch):
    monkeypatch.setattr("tl_toolkit.audit.inspect.inspect_content", lambda encoded: 1 / 0)

    assert tl.check_data(photos) == report


def test_the_command_writes_table_sheet_and_exclusions_and_touches_no_image(photos, tmp_path):
    before = describe_files(photos)

    done = tltool(
        "data", "check", photos, "--sheet", "sheet.html", "--exclusions", "out.csv",
        "--fail-on", "leak,dark", cwd=tmp_path, code=4,
    )  # fmt: skip

    assert "train/cats/half.png: " in done.stdout
    assert "found: leak" in done.stderr
    assert describe_files(photos) == before
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0] == "path,reason"
    assert len(rows) == 7
    sheet = (tmp_path / "sheet.html").read_text()
    assert "train/dogs/black.png" in sheet
    assert "http" not in sheet.replace("http-equiv", "")


def test_json_holds_every_finding(photos, tmp_path, report):
    done = tltool("data", "check", photos, "--json", cwd=tmp_path)

    assert json.loads(done.stdout) == report.as_json()


def test_rows_that_an_exclusions_file_holds_stay(report, tmp_path):
    (tmp_path / "out.csv").write_text("path,reason\nmine.png,ugly\n")

    report.write_exclusions(tmp_path / "out.csv", ["flat"])

    assert "mine.png,ugly" in (tmp_path / "out.csv").read_text()


def test_the_sheet_escapes_names_of_files(tmp_path):
    folder = tmp_path / "cats"
    folder.mkdir()
    paint(1).save(folder / "<script>alert(1)<|script>&.png")
    (folder / "<script>alert(1)<|script>&2.png").write_bytes(
        (folder / "<script>alert(1)<|script>&.png").read_bytes()
    )

    tl.check_data(tmp_path).write_sheet(tmp_path / "sheet.html")

    text = (tmp_path / "sheet.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;|script&gt;&amp;2.png" in text


def test_small_and_missing_classes_are_named(tmp_path):
    for label, count in (("a", 30), ("b", 3), ("c", 1)):
        (tmp_path / "train" / label).mkdir(parents=True)
        for number in range(count):
            paint(number + 100 * count).save(tmp_path / "train" / label / f"{number}.png")
    (tmp_path / "val" / "a").mkdir(parents=True)
    paint(999).save(tmp_path / "val" / "a" / "1.png")

    report = tl.check_data(tmp_path)

    assert [finding.reason for finding in report.of("tiny_class")] == ["b (3), c (1)"]
    assert [finding.reason for finding in report.of("imbalance")] == ["a has 30 images, c 1"]
    assert [finding.reason for finding in report.of("missing_class")] == [
        "no image of b, c in validation"
    ]


def test_built_in_images_are_looked_at_as_a_recipe_lists_them(tmp_path):
    recipe = {
        "version": 1, "name": "digits", "data": {"builtin": "digits", "image_size": 32},
        "model": {"base": "lenet5", "weights": "random"}, "phases": [{"name": "head", "epochs": 1}],
    }  # fmt: skip

    report = tl.check_data(recipe)

    assert report.images == 1797
    assert not report.of("flat")


def test_an_unknown_kind_is_refused_with_the_nearest(photos, tmp_path):
    done = tltool("data", "check", photos, "--fail-on", "leek", cwd=tmp_path, code=2)

    assert "did you mean 'leak'?" in done.stderr


def test_findings_for_no_file_of_exclusions_are_refused(tmp_path):
    (tmp_path / "photos").mkdir()

    shown = tltool("data", "check", "photos", "--exclude", "dark", cwd=tmp_path, code=2)

    assert "--exclusions FILE.csv names it" in shown.stderr
