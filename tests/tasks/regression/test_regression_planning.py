"""Tables of numbers: which columns, what is wrong with them, what `init` writes for them."""

import pytest
from PIL import Image

from tests.tables import make_recipe, write_table
from tl_toolkit.errors import DataError
from tl_toolkit.images.scan import ScanSettings, scan
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.starter import write_starter
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import build_recipe, load_recipe

ROWS = [("path", "age", "sex", "a b: %"), ("0.png", 3, "f", "-1e-3"), ("1.png", 4.5, "m", 7)]
TAKEN = [("path", "age", "predicted_age"), ("0.png", 1, 2)]
NUMBERS = [[text for place, text in enumerate(row) if place != 2] for row in ROWS]


@pytest.fixture
def write(tmp_path):
    """Writes a table beside three images of different content."""
    for number in range(3):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return lambda rows, name="t.csv": write_table(tmp_path / name, rows)


def plan(table, task="regression"):
    return check_recipe(build_recipe(make_recipe(task, table)))


def choose(*columns):
    return {"kind": "regression", "columns": list(columns)}


def refuse(table, task="regression"):
    with pytest.raises(DataError) as caught:
        plan(table, task)
    return str(caught.value)


def test_all_columns_but_path_and_split_are_targets(write):
    rows = [[*row, split] for row, split in zip(NUMBERS, ("split", "train", "val"), strict=True)]

    planned = plan(write(rows))

    assert planned.classes == planned.listing.columns == ("age", "a b: %")
    assert [file.targets for file in planned.listing.files] == [("3", "-1e-3"), ("4.5", "7")]
    assert planned.survey.counts == {"train": {"images": 1}, "validation": {"images": 1}}


def test_columns_choose_and_order_the_outputs(write):
    listing = plan(write(ROWS), choose("a b: %", "age")).listing

    assert listing.classes == ("a b: %", "age")
    assert [file.targets for file in listing.files] == [("-1e-3", "3"), ("7", "4.5")]


@pytest.mark.parametrize("text", ["", "n/a", "nan", "inf", "1,5", "1_000", "1e39", "1e999"])
def test_what_is_no_number_is_told_by_line(write, text):
    message = refuse(write([("path", "age"), ("0.png", 3), ("1.png", text)]))

    assert f"t.csv:3: column 'age' = {text!r}; expected " in message
    assert "t.csv:2" not in message


@pytest.mark.parametrize(
    ("rows", "task", "expected"),
    [
        (ROWS, "regression", "has no numbers in 'sex'"),
        (ROWS, "regression", 'Try: task.columns=[age, "a b: %"]'),
        (ROWS, choose("ages"), "has no column 'ages'\n  Its columns are 'age', 'sex', 'a b: %'; "),
        (ROWS, choose("ages"), "did you mean 'age'?"),
        ([("path", "split"), ("0.png", "")], "regression", "has no column of targets"),
        ([("path", "age", "sha256"), ("0.png", 1, 2)], "regression", "has the column 'sha256'"),
        ([("path", "age", "sha256"), ("0.png", 1, 2)], "regression", "task.columns=[age]"),
        (TAKEN, "regression", "has the targets 'age' and 'predicted_age'"),
        (TAKEN, "regression", "Try: task.columns=[age]"),
        ([("file", "age"), ("0.png", 1)], choose("age"), "has no column path"),
        ([("path", "age")], "regression", "has no rows"),
        ([("path", "age"), ("9.png", 1)], "regression", "csv:2: no file"),
    ],
)
def test_unusable_tables_are_refused(write, rows, task, expected):
    assert expected in refuse(write(rows), task)


def test_a_table_for_evaluation_needs_the_columns_of_the_run_alone(write):
    planning = plan_task(plan(write(NUMBERS)).recipe)
    table = write([("age", "note", "path"), (8, "old", "2.png")], "other.csv")

    listing = planning.list_for_evaluation(table, ("age",))

    assert [(file.targets, file.split) for file in listing.files] == [(("8",), "test")]
    with pytest.raises(DataError, match="data  .* has no column 'a b: %'"):
        planning.list_for_evaluation(table, ("age", "a b: %"))


def test_a_manifest_has_a_column_for_each_target(write, tmp_path):
    manifest = scan(
        plan(write([*NUMBERS, ("2.png", 5, 6)])).listing, ScanSettings(), cache_dir=tmp_path / "c"
    )
    manifest.save(tmp_path / "manifest.csv")

    header, first, *_ = (tmp_path / "manifest.csv").read_text().splitlines()
    assert header == "path,sha256,age,a b: %,split,verdict,reason"
    assert ",3,-1e-3," in first


def test_init_proposes_the_columns_of_numbers(write, tmp_path):
    text, name, *_ = write_starter(write(ROWS, "people.csv"), base="lenet5", place=tmp_path)
    (tmp_path / "r.yaml").write_text(text)

    planned = check_recipe(load_recipe(tmp_path / "r.yaml"))

    assert (name, planned.recipe.task.kind) == ("people", "regression")
    assert planned.classes == ("age", "a b: %")
    assert "# people: 2 images with numbers: age, a b: %." in text


def test_init_takes_a_column_label_for_classes_even_if_it_holds_numbers(write):
    table = write([("path", "label"), ("0.png", 3), ("1.png", 7)])

    text, *_ = write_starter(table, base="lenet5")

    assert "task:" not in text and "of 2 classes" in text


def test_init_says_what_a_table_of_no_task_should_hold(write):
    with pytest.raises(DataError, match="is a table of no task") as caught:
        write_starter(write([("path", "name"), ("0.png", "x")]), base="lenet5")

    assert "path and columns of numbers" in str(caught.value)


def test_init_tells_wrong_rows_of_a_table_of_numbers(write):
    with pytest.raises(DataError, match="csv:3: no file"):
        write_starter(write([*NUMBERS[:2], ("9.png", 1, 2)]), base="lenet5")


def test_a_column_called_like_a_prediction_may_be_left_aside_or_stand_alone(write):
    table = write([*TAKEN, ("1.png", 3, 4)])

    assert plan(table, choose("age")).classes == ("age",)
    assert plan(table, choose("predicted_age")).classes == ("predicted_age",)


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "Unnamed: 0.1"])
def test_the_index_of_a_data_frame_is_no_target(write, name):
    table = write([(name, "path", "age"), (0, "0.png", 3), (1, "1.png", 4)])

    for message in (refuse(table), refuse_starter(table)):
        assert (repr(name) if name else "a column without a name") in message
        assert message.endswith(
            "Try: write it with index=False, as df.to_csv('t.csv', index=False)"
        )
    assert plan(table, choose("age")).classes == ("age",)


def refuse_starter(table):
    with pytest.raises(DataError) as caught:
        write_starter(table)
    return str(caught.value)
