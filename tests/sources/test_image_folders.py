"""Image folders of Hugging Face: images that metadata.jsonl or metadata.csv lists by file_name."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

import tl_toolkit as tl
from tests.command import tltool
from tests.tables import list_recipe, plan_data
from tl_toolkit.sources.tables import read_header, read_table

ROWS = [
    {"file_name": f"{number}.png", "label": label, "split": split}
    for number, (label, split) in enumerate(
        [("cat", "train"), ("dog", "train"), ("cat", "validation"), ("dog", "validation")]
    )
]


@pytest.fixture
def photos(tmp_path):
    """A folder of four images, with the table labels.csv, which lists them as ROWS does."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    write_csv(folder / "labels.csv", "path", ROWS)
    return folder


def write_csv(path, name, rows):
    lines = [",".join([name, *list(rows[0])[1:]]), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines))


def write_jsonl(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
@pytest.mark.parametrize("named", ["folder", "file"])
def test_metadata_lists_what_a_table_of_the_same_rows_does(name, named, photos):
    if name.endswith("jsonl"):
        write_jsonl(photos / name, ROWS)
    else:
        write_csv(photos / name, "file_name", ROWS)

    listing, problems = list_recipe(table=photos if named == "folder" else photos / name)

    assert not problems
    assert listing == list_recipe(csv=photos / "labels.csv")[0]
    assert listing.count() == {split: {"cat": 1, "dog": 1} for split in ("train", "validation")}


def test_folders_of_splits_have_a_metadata_file_each(photos):
    for place, split in (("train", "train"), ("Val", "validation")):
        rows = [
            {**row, "file_name": f"../{row['file_name']}"} for row in ROWS if row["split"] == split
        ]
        write_jsonl(
            photos / place / "metadata.jsonl",
            [{"file_name": row["file_name"], "label": row["label"]} for row in rows],
        )

    listing, problems = list_recipe(table=photos, links="follow")

    assert not problems
    assert set(listing.files) == set(list_recipe(csv=photos / "labels.csv")[0].files)


def test_one_file_for_folders_of_splits_takes_the_splits_of_the_folders(photos):
    for number, place in enumerate(("train", "train", "test", "test")):
        (photos / place).mkdir(exist_ok=True)
        (photos / f"{number}.png").rename(photos / place / f"{number}.png")
    rows = [
        {"file_name": f"{place}/{number}.png", "label": label}
        for number, (place, label) in enumerate(
            zip(["train"] * 2 + ["test"] * 2, "xyxy", strict=True)
        )
    ]

    listing, problems = list_recipe(table=write_jsonl(photos / "metadata.jsonl", rows))

    assert not problems
    assert [file.split for file in listing.files] == [None, None, "test", "test"]
    assert listing.fractions == {"validation": 0.2}


def test_values_of_other_kinds_are_cells_of_several_labels_and_of_numbers(photos):
    rows = [
        {"file_name": "0.png", "labels": ["cat", "dog"], "size": 3, "age": 0.5, "note": None},
        {"file_name": "1.png", "labels": [], "size": 4, "age": 1e-3, "note": {"by": "me"}},
        {"file_name": "2.png", "labels": ["dog"], "size": -5, "age": 2, "note": "é"},
    ]
    write_jsonl(photos / "metadata.jsonl", rows)

    labels, wrong = list_recipe("multilabel", table=photos)
    numbers, bad = list_recipe({"kind": "regression", "columns": ["size", "age"]}, table=photos)

    assert not wrong and not bad
    assert labels.classes == ("cat", "dog")
    assert [file.targets for file in labels.files] == [("cat|dog",), ("",), ("dog",)]
    assert [file.targets for file in numbers.files] == [("3", "0.5"), ("4", "0.001"), ("-5", "2")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "0.png", "label": ', r"line 3: is no JSON: Expecting value, column 33"),
        ("[1]", "line 3: is list, no object"),
        ('{"file_name": "0.png", "label": ["a|b"]}', r"line 3: a name in \['a\|b'\] holds '\|'"),
        ('{"file_name": "0.png", "label": "\\ud800"}', "line 3: holds half of a character"),
        ("[" * 100_000, "line 3: is nested too deeply"),
    ],
)
def test_a_line_that_is_no_row_is_named(line, message, photos):
    table = photos / "metadata.jsonl"
    table.write_text('{"file_name": "1.png", "label": "a"}\n\n' + line)

    _, [(field, problem)] = list_recipe(table=table)

    assert (field, problem.where) == ("table", "data.table")
    assert re.search(message, problem.what)
    assert "One JSON object a line is expected" in problem.expected


def test_hostile_rows_are_named_by_their_lines(photos):
    rows = [
        {"file_name": "0.png", "label": "cat"},
        {"file_name": "../labels.csv", "label": "cat"},
        {"file_name": "9.png", "label": "cat"},
        {"file_name": "0.png", "label": "dog"},
        {"label": "dog"},
        {"file_name": "a\0b.png", "label": "dog"},
    ]
    (photos.parent / "labels.csv").write_text("")
    table = write_jsonl(photos / "metadata.jsonl", rows)

    messages = [problem.what for _, problem in read_table(table)[1]]

    assert messages == [
        f"'metadata.jsonl' names 1 image outside its folder: line 2: '{photos.parent}/labels.csv'",
        f"metadata.jsonl:3: no file '{photos}/9.png'",
        "metadata.jsonl:4: the image of line 1 again",
        "metadata.jsonl:5: no path",
        f"metadata.jsonl:6: no file {str(photos) + '/a' + chr(0) + 'b.png'!r}",
    ]


def test_a_row_of_one_folder_of_splits_is_named_with_its_file(photos):
    write_jsonl(photos / "train/metadata.jsonl", [{"file_name": "no.png", "label": "cat"}])
    write_jsonl(photos / "test/metadata.jsonl", [{"file_name": "../1.png", "label": "cat"}])

    messages = [problem.what for _, problem in read_table(photos, links="follow")[1]]

    assert messages == [f"train/metadata.jsonl:1: no file '{photos}/train/no.png'"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.jsonl", '{"image": "0.png"}\n', "has no file_name; it has image"),
        ("metadata.jsonl", "\xff", "is not UTF-8"),
        ("metadata.jsonl", "", "has no column path and no column label"),
        ("other.txt", "", "is a folder that holds no metadata.jsonl"),
    ],
)
def test_a_folder_without_usable_metadata_is_refused(name, text, message, photos):
    (photos / name).write_bytes(text.encode("latin-1"))

    _, [(field, problem)] = list_recipe(table=photos)

    assert field == "table" and message in problem.what


def test_init_recognizes_an_image_folder_and_validate_takes_its_recipe(photos):
    write_jsonl(photos / "metadata.jsonl", ROWS)

    done = tltool("init", "photos", "-o", "r.yaml", cwd=photos.parent)
    checked = tltool("validate", "r.yaml", cwd=photos.parent)

    assert "task: classification, by the column label" in done.stderr
    assert "  table: photos\n" in (photos.parent / "r.yaml").read_text()
    assert "classes  2: cat, dog" in checked.stderr
    assert "images   2 train, 2 validation" in checked.stderr


def test_init_names_a_broken_line_and_no_field_of_a_recipe(photos):
    (photos / "metadata.jsonl").write_text("{")

    done = tltool("init", "photos", cwd=photos.parent, code=3)

    assert "metadata.jsonl' line 1: is no JSON" in done.stderr
    assert "data.csv" not in done.stderr


@pytest.mark.parametrize("column", ["author", "width"])
@pytest.mark.parametrize("split", ["", "train"])
def test_a_folder_per_class_with_a_table_of_something_else_stays_one(photos, column, split):
    for number, label in enumerate("xxyy"):
        (photos / split / label).mkdir(exist_ok=True, parents=True)
        (photos / f"{number}.png").rename(photos / split / label / f"{number}.png")
    value = {"author": "me", "width": 8}[column]
    (photos / split / "metadata.csv").write_text(f"file_name,{column}\nx/0.png,{value}\n")

    tltool("init", "photos", "-o", "r.yaml", cwd=photos.parent)

    text = (photos.parent / "r.yaml").read_text()
    assert f"  train: {photos.name / Path(split)}\n" in text and "\ntask:" not in text
    assert column in read_header(photos, expected="")[0]


def test_a_task_that_is_named_takes_the_table_in_a_folder_per_class(photos):
    for number, label in enumerate("xxyy"):
        (photos / label).mkdir(exist_ok=True)
        (photos / f"{number}.png").rename(photos / label / f"{number}.png")
    write_jsonl(
        photos / "metadata.jsonl",
        [{"file_name": f"{'xxyy'[number]}/{number}.png", "width": number} for number in range(4)],
    )

    tltool("init", "photos", "--task", "regression", "-o", "r.yaml", cwd=photos.parent)

    assert "  table: photos\n" in (photos.parent / "r.yaml").read_text()


@pytest.mark.parametrize("split", ["", "train"])
@pytest.mark.parametrize("name", ["features.parquet", "more.tfrecord", "data/x.parquet"])
def test_a_folder_per_class_wins_over_shards_that_lie_in_it(photos, name, split):
    for number, label in enumerate("xxyy"):
        (photos / split / label).mkdir(exist_ok=True, parents=True)
        (photos / f"{number}.png").rename(photos / split / label / f"{number}.png")
    for folder in {photos, photos / split}:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"features")

    tltool("init", "photos", "-o", "r.yaml", cwd=photos.parent)
    checked = tltool("data", "check", "photos", cwd=photos.parent)
    place = str(photos.name / Path(split))
    tltool("data", "split", place, "-o", "s.csv", "--validation", "0.5", cwd=photos.parent)

    assert f"  train: {place}\n" in (photos.parent / "r.yaml").read_text()
    assert "4 images looked at" in checked.stdout + checked.stderr
    assert len((photos.parent / "s.csv").read_text().splitlines()) == 5


def test_a_run_on_a_table_is_evaluated_on_a_folder_per_class_with_shards_in_it(photos, tmp_path):
    planning = plan_data(csv=photos / "labels.csv", validation=0.5)
    other = tmp_path / "other"
    for label in ("cat", "dog"):
        (other / label).mkdir(parents=True)
        (photos / f"{'01'[label == 'dog']}.png").rename(other / label / "0.png")
    (other / "features.parquet").write_bytes(b"features")

    listing = planning.list_for_evaluation(other, ("cat", "dog"))

    assert [file.targets for file in listing.files] == [("cat",), ("dog",)]


def test_an_image_folder_is_checked_and_split_as_a_table_is(photos):
    write_jsonl(photos / "metadata.jsonl", [{**row, "split": None} for row in ROWS])

    checked = tltool("data", "check", "photos", cwd=photos.parent)
    tltool(
        "data",
        "split",
        "photos",
        "-o",
        "s.csv",
        "--validation",
        "0.5",
        "--exact",
        cwd=photos.parent,
    )

    assert "4 images looked at" in checked.stdout + checked.stderr
    rows = (photos.parent / "s.csv").read_text().splitlines()
    assert rows[0] == "path,label,split" and len(rows) == 5
    assert rows[1].startswith("photos/0.png,cat,")


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_an_image_folder_is_listed_for_an_evaluation(task, photos):
    rows = [{"file_name": f"{number}.png", "label": "xy"[number % 2], "labels": ["x"], "size": 1}
            for number in range(4)]  # fmt: skip
    write_jsonl(photos / "metadata.jsonl", rows)
    kind = {"kind": "regression", "columns": ["size"]} if task == "regression" else task
    planning = plan_data(kind, table=photos)
    classes = {"classification": ("x", "y"), "multilabel": ("x",), "regression": ("size",)}

    listing = planning.list_for_evaluation(photos, classes[task])

    assert {file.split for file in listing.files} == {"test"}
    assert {file.targets for file in listing.files} == {
        "classification": {("x",), ("y",)}, "multilabel": {("x",)}, "regression": {("1",)}
    }[task]  # fmt: skip


def test_folders_per_class_are_evaluated_as_such_whatever_table_they_hold(photos):
    (photos / "x").mkdir()
    (photos / "0.png").rename(photos / "x/0.png")
    write_jsonl(photos / "metadata.jsonl", [{"file_name": "1.png", "label": "y"}])
    planning = plan_data("classification", train=photos)

    listing = planning.list_for_evaluation(photos, ("x", "y"))

    assert [file.path for file in listing.files] == [str(photos / "x/0.png")]


def write_named(photos, text):
    (photos / "t.csv").write_text(text)
    return photos / "t.csv"


NAMED = """file,species,label,fold
0.png,cat,7,train
1.png,dog,7,train
2.png,cat,7,val
3.png,dog,7,val
"""
NAMES = {"path": "file", "label": "species", "split": "fold"}


def test_columns_that_a_table_calls_otherwise_are_read(photos):
    table = write_named(photos, NAMED)

    listing, problems = list_recipe(csv=table, columns=NAMES)

    assert not problems
    assert listing == list_recipe(csv=photos / "labels.csv")[0]


def test_columns_of_other_tasks_are_beside_those_that_are_called_otherwise(photos):
    table = write_named(photos, "file,labels,size\n0.png,a|b,1\n1.png,b,2\n")

    labels, wrong = list_recipe("multilabel", csv=table, columns={"path": "file"})
    numbers, bad = list_recipe(
        {"kind": "regression", "columns": ["size"]}, csv=table, columns={"path": "file"}
    )

    assert not wrong and not bad
    assert [file.targets for file in labels.files] == [("a|b",), ("b",)]
    assert [file.targets for file in numbers.files] == [("1",), ("2",)]
    assert [file.path for file in numbers.files] == [str(photos / "0.png"), str(photos / "1.png")]


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_a_column_that_is_not_there_is_refused_at_its_field(task, photos):
    table = write_named(photos, NAMED)

    [(field, problem)] = list_recipe(task, csv=table, columns={"path": "fiel"})[1]

    assert field == problem.where == "data.columns.path"
    assert problem.what == f"'{table}' has no column 'fiel'"
    assert problem.hint == "data.columns.path=file"


def test_a_label_of_a_like_name_is_suggested(photos):
    table = write_named(photos, "path,Label\n0.png,a\n1.png,b\n")

    [(field, problem)] = list_recipe(csv=table)[1]

    assert (field, problem.hint) == ("csv", "data.columns.label=Label")


def test_names_of_columns_go_with_a_table(photos):
    done = tltool("validate", "r.yaml", "data.columns.label=x", cwd=write_recipe(photos), code=2)

    assert "expected none without data.csv or data.table" in done.stderr


def write_recipe(photos):
    (photos / "r.yaml").write_text(
        "version: 1\nname: x\ndata: {train: a, image_size: 32}\n"
        "model: {base: lenet5, weights: random}\nphases: [{name: head, epochs: 1}]\n"
    )
    return photos


def test_a_table_without_labels_hides_no_folder_per_class_from_a_check(photos):
    for number, label in enumerate("xxyy"):
        (photos / label).mkdir(exist_ok=True)
        (photos / f"{number}.png").rename(photos / label / f"{number}.png")
    (photos / "metadata.csv").write_text("file_name,author\nx/0.png,me\n")

    report = tl.check_data(photos)
    split = tl.split_data(photos, photos.parent / "s.csv", validation=0.5, test=0, exact=True)

    assert report.images == 4 and all(set(of) == {"x", "y"} for of in report.counts.values())
    assert sorted(image.values for image in split.images) == [("x",)] * 2 + [("y",)] * 2
