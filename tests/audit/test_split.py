"""Splits as a table: what it holds, what it keeps, and that recipes take it."""

import csv
import json

import pytest
from PIL import Image

import tl_toolkit as tl
from tests.audit.test_findings import paint
from tests.command import tltool
from tl_toolkit.errors import DataError, RecipeError


@pytest.fixture
def photos(tmp_path):
    """Thirty pictures of each of two classes; two are equal, two look the same."""
    root = tmp_path / "photos"
    for index, label in enumerate(("cats", "dogs")):
        (root / label).mkdir(parents=True)
        for number in range(30):
            paint(100 * index + number).save(root / label / f"{number}.png")
    (root / "dogs" / "equal.png").write_bytes((root / "cats" / "1.png").read_bytes())
    for number in range(10):
        paint(number).resize((160, 160)).save(root / "cats" / f"near{number}.png")
    return root


def read(path):
    """The rows of a table by the name of their image."""
    with open(path, newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_images_that_are_added_move_no_others_and_equal_ones_stay_together(photos, tmp_path):
    tl.split_data(photos, tmp_path / "first.csv", test=0.1)
    for number in range(200, 260):
        paint(number).save(photos / "dogs" / f"{number}.png")
    tl.split_data(photos, tmp_path / "second.csv", test=0.1)

    first, second = read(tmp_path / "first.csv"), read(tmp_path / "second.csv")
    assert len(second) == len(first) + 60
    assert all(second[path] == row for path, row in first.items())
    assert first["photos/cats/1.png"]["split"] == first["photos/dogs/equal.png"]["split"]
    assert {row["split"] for row in first.values()} == {"train", "validation", "test"}


def test_a_recipe_takes_the_table(photos, tmp_path):
    split = tl.split_data(photos, tmp_path / "splits.csv", exact=True)

    plan = tl.validate({
        "version": 1, "name": "split",
        "data": {"csv": str(tmp_path / "splits.csv"), "image_size": 32},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}], "export": False,
    })  # fmt: skip

    assert plan.images == split.count()
    assert plan.images["validation"] == {"cats": 8, "dogs": 7}  # one of these equals a cat


def test_what_a_table_says_stays_with_every_method(photos, tmp_path):
    tl.split_data(photos, tmp_path / "splits.csv")
    rows = read(tmp_path / "splits.csv")
    moved = {"train": "validation", "validation": "train"}
    text = "".join(f"{path},{row['label']},{moved[row['split']]}\n" for path, row in rows.items())
    (tmp_path / "splits.csv").write_text(f"path,label,split\n{text}")
    paint(999).save(photos / "dogs" / "new.png")

    split = tl.split_data(photos, tmp_path / "splits.csv", exact=True, seed=7)

    again = read(tmp_path / "splits.csv")
    assert all(again[path]["split"] == moved[row["split"]] for path, row in rows.items())
    assert [image.path for image in split.images if image.is_new] == [
        str(photos / "dogs" / "new.png")
    ]


def test_a_group_that_a_table_tears_stays_torn_and_is_named(photos, tmp_path):
    (tmp_path / "splits.csv").write_text(
        "path,label,split\nphotos/cats/1.png,cats,test\nphotos/dogs/equal.png,dogs,train\n"
    )

    split = tl.split_data(photos, tmp_path / "splits.csv")

    rows = read(tmp_path / "splits.csv")
    assert rows["photos/cats/1.png"]["split"] == "test"
    assert rows["photos/dogs/equal.png"]["split"] == "train"
    assert split.notes[0].startswith(
        "1 groups lie in several splits, as the earlier table has them"
    )


def test_near_duplicates_stay_together_if_asked_and_are_told_if_not(photos, tmp_path):
    apart = tl.split_data(photos, tmp_path / "apart.csv")
    tl.split_data(photos, tmp_path / "near.csv", near=True)

    rows = read(tmp_path / "near.csv")
    pairs = [(f"photos/cats/{number}.png", f"photos/cats/near{number}.png") for number in range(10)]
    assert all(rows[a]["split"] == rows[b]["split"] for a, b in pairs)
    assert all(rows[a]["group_near"] == rows[b]["group_near"] for a, b in pairs)
    assert len({row["group_near"] for row in rows.values()}) == 60
    assert any(note.endswith("Try: --near") for note in apart.notes)


@pytest.fixture
def table(photos, tmp_path):
    """A table of some of the images, with patients and days."""
    lines = [
        f"photos/{label}/{number}.png;{number / 10};p{number // 5};2024-01-{number + 1:02}"
        for label in ("cats", "dogs")
        for number in range(20)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["path;size;patient;day", *lines]))
    return tmp_path / "table.csv"


def test_images_of_a_group_stay_together_and_other_columns_are_kept(table, tmp_path):
    tl.split_data(table, tmp_path / "splits.csv", group="patient", exact=True, validation=0.5)

    rows = read(tmp_path / "splits.csv")
    splits = {}
    for row in rows.values():
        splits.setdefault(row["patient"], set()).add(row["split"])
    assert {len(names) for names in splits.values()} == {1}
    assert rows["photos/dogs/7.png"] | {"split": ""} == {
        "path": "photos/dogs/7.png", "size": "0.7", "patient": "p1", "day": "2024-01-08",
        "split": "",
    }  # fmt: skip
    assert sum(row["split"] == "validation" for row in rows.values()) == 20


def test_a_group_keeps_its_split_when_it_grows(table, tmp_path):
    few = "\n".join(table.read_text().splitlines()[:30])
    (tmp_path / "few.csv").write_text(few)

    small = tl.split_data(tmp_path / "few.csv", tmp_path / "a.csv", group="patient")
    large = tl.split_data(table, tmp_path / "b.csv", group="patient")

    before = {image.group: image.split for image in small.images}
    after = {image.group: image.split for image in large.images}
    assert before == {name: after[name] for name in before}


def test_the_newest_are_the_test(table, tmp_path):
    tl.split_data(table, tmp_path / "splits.csv", time="day", test=0.1)

    days = {}
    for row in read(tmp_path / "splits.csv").values():
        days.setdefault(row["split"], []).append(row["day"])
    assert max(days["train"]) < min(days["validation"])
    assert max(days["validation"]) < min(days["test"]) == "2024-01-19"


def test_photos_are_ordered_by_their_cameras_clock_and_none_may_lack_it(tmp_path):
    for number in range(10):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = f"2024:05:{10 - number:02} 12:00:00"
        (tmp_path / "all").mkdir(exist_ok=True)
        paint(number).save(tmp_path / "all" / f"{number}.jpg", exif=exif)

    split = tl.split_data(tmp_path / "all", time="exif")

    assert [image.split for image in split.images] == ["validation"] * 2 + ["train"] * 8
    paint(11).save(tmp_path / "all" / "11.jpg")
    with pytest.raises(DataError, match=r"1 images have no time: .*11\.jpg"):
        tl.split_data(tmp_path / "all", time="exif")


def test_files_that_cannot_be_read_are_left_out_and_named(photos, tmp_path):
    (photos / "cats" / "torn.png").write_bytes(b"torn")

    split = tl.split_data(photos, tmp_path / "splits.csv")

    assert "photos/cats/torn.png" not in read(tmp_path / "splits.csv")
    assert split.notes[0].startswith("1 files cannot be read and are left out: ")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"validation": 0.0}, RecipeError, "above 0 and below 1 together"),
        ({"validation": 0.5, "test": 0.5}, RecipeError, "above 0 and below 1 together"),
        ({"group": "patient"}, RecipeError, "a folder has no columns"),
        ({"time": "day"}, RecipeError, "no such column"),
        ({"time": "exif", "exact": True}, RecipeError, "One of the two"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(photos, arguments, error, words):
    with pytest.raises(error, match=words):
        tl.split_data(photos, **arguments)


def test_a_folder_of_splits_and_a_file_that_is_no_table_of_splits_are_refused(photos, tmp_path):
    (tmp_path / "mine.csv").write_text("path,price\n")
    with pytest.raises(DataError, match="is no table of splits"):
        tl.split_data(photos, tmp_path / "mine.csv")

    (tmp_path / "all").mkdir()
    photos.rename(tmp_path / "all" / "train")
    with pytest.raises(DataError, match="holds splits already: train"):
        tl.split_data(tmp_path / "all")


def test_links_out_of_the_folder_are_counted_and_followed_if_asked(photos, tmp_path):
    paint(500).save(tmp_path / "elsewhere.png")
    (photos / "cats" / "linked.png").symlink_to(tmp_path / "elsewhere.png")

    left_out = tl.split_data(photos)
    followed = tl.split_data(photos, follow_links=True)

    linked = str(photos / "cats" / "linked.png")
    assert left_out.notes[0] == f"1 links are left out: {linked}. Try: --follow-links"
    assert linked in {image.path for image in followed.images}


def test_a_source_that_is_missing_is_refused(tmp_path):
    done = tltool("data", "split", "photo", "-o", "s.csv", cwd=tmp_path, code=3)

    assert done.stderr.startswith("photo  does not exist")


def test_the_command_prints_shares_and_writes_the_table(photos, tmp_path):
    done = tltool("data", "split", "photos", "-o", "s.csv", "--exact", cwd=tmp_path)
    listed = tltool("data", "split", "photos", "-o", "-", "--exact", cwd=tmp_path)
    as_json = tltool("data", "split", "photos", "-o", "s.csv", "--json", cwd=tmp_path)

    assert "cats" in done.stdout and "20.0%" in done.stdout
    assert "written: s.csv, 71 images are new. Next: data.csv=s.csv" in done.stderr
    assert listed.stdout == (tmp_path / "s.csv").read_text()
    assert json.loads(as_json.stdout)["new"] == 0
