"""Tables of one label for each image: what `init` writes for them, and evaluation on them."""

import pytest
from PIL import Image

from tests.tables import make_recipe, write_table
from tl_toolkit.errors import DataError
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.starter import write_starter
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import build_recipe, load_recipe

ROWS = [("path", "label"), ("0.png", "bee"), ("1.png", "ant"), ("2.png", "bee"), ("3.png", "ant")]


@pytest.fixture
def write(tmp_path):
    """Writes a table beside four images."""
    for number in range(4):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return lambda rows, name="t.csv": write_table(tmp_path / name, rows)


def test_init_writes_a_recipe_for_a_table_of_labels(write, tmp_path):
    text, name, *_ = write_starter(write(ROWS, "insects.csv"), base="lenet5", place=tmp_path)
    (tmp_path / "r.yaml").write_text(text)

    planned = check_recipe(load_recipe(tmp_path / "r.yaml"))

    assert (name, planned.recipe.task.kind) == ("insects", "classification")
    assert planned.classes == ("ant", "bee")
    assert "# insects: 4 images to train from, of 2 classes." in text


def test_init_leaves_out_labels_with_too_few_rows(write, tmp_path):
    table = write([*ROWS, ("4.png", "single")], "insects.csv")
    Image.new("RGB", (8, 8)).save(tmp_path / "4.png")

    text, *_ = write_starter(table, base="lenet5", place=tmp_path)
    (tmp_path / "r.yaml").write_text(text)

    assert check_recipe(load_recipe(tmp_path / "r.yaml")).classes == ("ant", "bee")
    assert "'single' is left out, it has too few images: 1 of 2 in train" in text


def test_a_table_for_evaluation_may_hold_some_of_the_classes(write):
    planning = plan_task(build_recipe(make_recipe("classification", write(ROWS))).recipe)
    table = write([("path", "label"), ("3.png", "bee")], "other.csv")

    listing = planning.list_for_evaluation(table, ("ant", "bee", "wasp"))

    assert listing.classes == ("ant", "bee", "wasp")
    assert [(file.targets, file.split) for file in listing.files] == [(("bee",), "test")]


@pytest.mark.parametrize("sign", [";", "\t"])
def test_semicolons_and_tabs_separate_too(write, tmp_path, sign):
    rows = [("path", "label", "note"), ("0.png", "bee", "a, b"), ("3.png", "ant", "")]
    (tmp_path / "s.csv").write_text("\n".join(map(sign.join, rows)), encoding="utf-8-sig")
    planning = plan_task(build_recipe(make_recipe("classification", write(ROWS))).recipe)

    listing = planning.list_for_evaluation(tmp_path / "s.csv", ("ant", "bee"))

    assert [file.targets for file in listing.files] == [("bee",), ("ant",)]


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1252", "is not UTF-8: line 2 is '0.png,abeille é' in Windows-1252"),
        ("utf-16", "is UTF-16, not UTF-8"),
    ],
)
def test_another_encoding_is_named_with_the_way_out(write, tmp_path, encoding, words):
    text = "path,label\n0.png,abeille é\n1.png,fourmi\n"
    (tmp_path / "e.csv").write_text(text, encoding=encoding)
    planning = plan_task(build_recipe(make_recipe("classification", write(ROWS))).recipe)

    with pytest.raises(DataError) as caught:
        planning.list_for_evaluation(tmp_path / "e.csv", ("ant", "bee"))

    assert words in str(caught.value)
    assert f"iconv -f {encoding.replace('cp', 'windows-').upper()} -t UTF-8" in str(caught.value)


def test_a_missing_table_for_evaluation_is_no_missing_folder(write, tmp_path):
    planning = plan_task(build_recipe(make_recipe("classification", write(ROWS))).recipe)

    with pytest.raises(DataError, match=r"does not exist\n  A table is expected"):
        planning.list_for_evaluation(tmp_path / "none.csv", ("ant", "bee"))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("path", "label"), ("3.png", "fly")], "has labels of other classes: 'fly'"),
        ([("path", "label"), ("9.png", "bee")], "csv:2: no file"),
        ([("path", "class"), ("3.png", "bee")], "has no column label"),
    ],
)
def test_other_tables_are_refused_for_evaluation(write, rows, expected):
    planning = plan_task(build_recipe(make_recipe("classification", write(ROWS))).recipe)

    with pytest.raises(DataError) as caught:
        planning.list_for_evaluation(write(rows, "other.csv"), ("ant", "bee"))

    assert str(caught.value).startswith("data  ") and expected in str(caught.value)
