"""Tables of labels: both forms, what is wrong with them, and what `init` writes for them."""

import pytest
from PIL import Image

from tests.tables import make_recipe, write_table
from tl_toolkit.errors import DataError
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.images.scan import ScanSettings, scan
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.starter import write_starter
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import build_recipe, load_recipe

NAMES = [("path", "labels"), ("0.png", "cat|dog"), ("1.png", ""), ("2.png", "dog | bird | dog")]
FLAGS = [("path", "bird", "cat", "dog"), ("0.png", 0, 1, 1), ("1.png", 0, 0, 0), ("2.png", 1, 0, 1)]


@pytest.fixture
def write(tmp_path):
    """Writes a table beside six images of different content."""
    for number in range(6):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return lambda rows, name="t.csv": write_table(tmp_path / name, rows)


def plan(table, *, task="multilabel", **data):
    recipe = build_recipe(make_recipe(task, table), {f"data.{key}": data[key] for key in data})
    return check_recipe(recipe)


def refuse(table, **options):
    with pytest.raises(DataError) as caught:
        plan(table, **options)
    return str(caught.value)


def targets_of(listing):
    return [file.targets for file in listing.files]


@pytest.mark.parametrize("rows", [NAMES, FLAGS], ids=["names", "flags"])
def test_both_forms_of_table_give_classes_and_labels(write, rows):
    listing = plan(write(rows)).listing

    assert listing.classes == ("bird", "cat", "dog")
    assert [sorted(labels.split("|")) for (labels,) in targets_of(listing)] == [
        ["cat", "dog"], [""], ["bird", "dog"]
    ]  # fmt: skip
    assert (listing.columns, listing.stratify) == (("labels",), "")


@pytest.mark.parametrize("flags", [("False", "True"), ("0.0", "1.0"), ("false", "TRUE")])
def test_flags_may_be_written_as_pandas_writes_them(write, flags):
    rows = [FLAGS[0], *([path, *(flags[cell] for cell in cells)] for path, *cells in FLAGS[1:])]
    table = write(rows)

    listing = plan(table).listing

    assert targets_of(listing) == targets_of(plan(write(FLAGS)).listing)
    assert "task: multilabel" in write_starter(write(rows)).text


def test_images_are_counted_whatever_their_classes(write):
    survey = plan(write(NAMES)).survey

    assert survey.counts == {None: {"images": 3}}


@pytest.mark.parametrize("rows", [NAMES, FLAGS], ids=["names", "flags"])
def test_chosen_classes_order_the_outputs_and_leave_others_out(write, rows):
    listing = plan(write(rows), classes=["dog", "bird"]).listing

    assert listing.classes == ("dog", "bird")
    assert [set(labels.split("|")) for (labels,) in targets_of(listing)] == [
        {"dog"}, {""}, {"dog", "bird"}
    ]  # fmt: skip


def test_other_columns_may_stand_beside_chosen_ones(write):
    rows = [(*row, age) for row, age in zip(FLAGS, ("age", 3, 4, "?"), strict=True)]

    assert plan(write(rows), classes=["dog", "bird"]).listing.classes == ("dog", "bird")


def test_column_and_separator_are_those_of_the_task(write):
    table = write([("path", "tags"), ("0.png", "cat;dog"), ("1.png", "dog;a|b"), ("2.png", "")])

    listing = plan(table, task={"kind": "multilabel", "labels": "tags", "separator": ";"}).listing

    assert listing.classes == ("a|b", "cat", "dog")
    assert targets_of(listing) == [("cat;dog",), ("dog;a|b",), ("",)]


def test_splits_stand_in_the_table(write):
    splits = ("split", "train", "val", "train")
    rows = [(*row, split) for row, split in zip(NAMES, splits, strict=True)]

    listing = plan(write(rows)).listing

    assert [file.split for file in listing.files] == ["train", "validation", "train"]
    assert not listing.fractions


def test_wrong_rows_are_told_by_line(write):
    message = refuse(write([*FLAGS[:2], ("9.png", 2, "x", 1), ("2.png", 1, 0, 1)]))

    assert "t.csv:3: no file" in message
    assert "t.csv:3: column 'bird' = '2'; expected 0 or 1" in message
    assert "t.csv:3: column 'cat' = 'x'; expected 0 or 1" in message
    assert "t.csv:4" not in message


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("path", "labels"), ("0.png", "cat")], "names 1 class\n  At least 2 classes are needed."),
        ([("path", "tags"), ("0.png", "a|b")], "has no column 'labels', and no 0 and 1 in 'tags'"),
        ([("path", "tags"), ("0.png", "a|b")], "Try: task={kind: multilabel, labels: tags}"),
        ([("path", "a", "age"), ("0.png", 1, 33)], "no 0 and 1 in 'age'"),
        ([("path", "a", "b|c"), ("0.png", 1, 1)], "has the column 'b|c'"),
        ([("path", "a", "b"), ("0.png", 1, 0)], "has no image of 'b' to train from"),
        ([("path", "labels", "split"), ("0.png", "a", "train"), ("1.png", "b", "val")],
         "has no image of 'b' to train from"),
        ([("file", "labels"), ("0.png", "a|b")], "has no column path"),
        ([("path", "labels")], "has no rows"),
    ],
)  # fmt: skip
def test_unusable_tables_are_refused(write, rows, expected):
    assert expected in refuse(write(rows))


@pytest.mark.parametrize("rows", [NAMES, FLAGS], ids=["names", "flags"])
def test_an_unknown_class_is_told_with_the_nearest(write, rows):
    message = refuse(write(rows), classes=["dog", "brid"])

    assert "data.classes: " in message and "has no class 'brid'" in message
    assert "did you mean 'bird'?" in message


def test_a_table_for_evaluation_may_name_some_of_the_classes(write):
    planning = plan_task(plan(write(NAMES)).recipe)
    table = write([("path", "labels"), ("3.png", "dog"), ("4.png", "")], "other.csv")

    listing = planning.list_for_evaluation(table, ("dog", "cat"))

    assert listing.classes == ("dog", "cat")
    assert targets_of(listing) == [("dog",), ("",)]
    assert {file.split for file in listing.files} == {"test"}


def test_a_table_for_evaluation_must_not_name_others(write):
    planning = plan_task(plan(write(NAMES)).recipe)

    with pytest.raises(DataError, match="data  .* names other classes: 'bird'"):
        planning.list_for_evaluation(write(NAMES), ("dog", "cat"))


@pytest.mark.parametrize("rows", [NAMES, FLAGS], ids=["names", "flags"])
def test_where_a_run_chose_its_classes_others_are_left_out_of_evaluation(write, rows):
    planning = plan_task(plan(write(rows), classes=["dog", "cat"]).recipe)

    listing = planning.list_for_evaluation(write(rows), ("dog", "cat"))

    assert [set(labels.split("|")) for (labels,) in targets_of(listing)] == [
        {"dog", "cat"}, {""}, {"dog"}
    ]  # fmt: skip


def test_a_class_without_a_column_is_unknown_not_absent(write):
    planning = plan_task(plan(write(FLAGS)).recipe)
    table = write([("path", "cat", "dog"), ("3.png", 1, 0)], "other.csv")

    with pytest.raises(DataError, match="data  .* has no class 'bird'"):
        planning.list_for_evaluation(table, ("bird", "cat", "dog"))


def test_a_manifest_has_the_column_labels(write, tmp_path):
    listing = plan(write(NAMES)).listing

    manifest = scan(listing, ScanSettings(), cache_dir=tmp_path / "cache")
    manifest.save(tmp_path / "manifest.csv")

    header = (tmp_path / "manifest.csv").read_text().splitlines()[0]
    assert header == "path,sha256,labels,split,verdict,reason"
    assert manifest.count("") == {"train": {"": 2}, "validation": {"": 1}}
    assert Manifest.load(tmp_path / "manifest.csv", classes=listing.classes) == manifest


@pytest.mark.parametrize("rows", [NAMES, FLAGS], ids=["names", "flags"])
def test_init_writes_a_recipe_of_multilabel_for_both_forms(write, rows, tmp_path):
    text, name, *_ = write_starter(write(rows, "pets.csv"), base="lenet5", place=tmp_path)
    (tmp_path / "r.yaml").write_text(text)

    planned = check_recipe(load_recipe(tmp_path / "r.yaml"))

    assert (name, planned.recipe.task.kind) == ("pets", "multilabel")
    assert planned.classes == ("bird", "cat", "dog")
    assert "# pets: 3 images of any of 3 classes." in text
    assert "2  'dog'" in text


def test_init_tells_wrong_rows_of_a_table_of_labels(write):
    table = write([*FLAGS, ("9.png", 1, 1, 1)])

    with pytest.raises(DataError, match="csv:5: no file"):
        write_starter(table, base="lenet5")


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "Unnamed: 0.1"])
def test_the_index_of_a_data_frame_is_no_target(write, name):
    table = write([(name, "path", "cat", "dog"), (0, "0.png", 1, 0), (1, "1.png", 0, 1)])

    for message in (refuse(table), refuse_starter(table)):
        assert (repr(name) if name else "a column without a name") in message
        assert message.endswith(
            "Try: write it with index=False, as df.to_csv('t.csv', index=False)"
        )
    assert plan(table, classes=["cat", "dog"]).classes == ("cat", "dog")


def refuse_starter(table):
    with pytest.raises(DataError) as caught:
        write_starter(table)
    return str(caught.value)
