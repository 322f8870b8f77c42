"""Images in two splits, and images that a recipe leaves out by name."""

import pytest
from PIL import Image

import tl_toolkit as tl
from tests.models import plan_values
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.events import ignore
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.sources.known_files import KnownFiles
from tl_toolkit.training.prepare import survey_images


@pytest.fixture
def recipe(tmp_path, draw_photos):
    """Photos in two splits, one of which is in both."""
    draw_photos(tmp_path / "train", count=4)
    draw_photos(tmp_path / "val", count=2, seed=1)
    leak = (tmp_path / "train" / "ants" / "1.jpg").read_bytes()
    (tmp_path / "val" / "bees" / "leak.jpg").write_bytes(leak)
    return {
        "version": 1,
        "name": "leaky",
        "data": {
            "train": str(tmp_path / "train"),
            "validation": str(tmp_path / "val"),
            "image_size": 32,
        },
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
        "export": False,
    }


def exclude(folder, *names, name="exclude.csv"):
    """Writes a table of images to leave out."""
    path = folder / name
    path.write_text("path,reason\n" + "".join(f"{name},mine\n" for name in names))
    return path


def test_the_same_bytes_in_two_splits_are_refused_with_both_names(recipe, tmp_path):
    with pytest.raises(DataError, match="data.leakage = 'refuse': 1 image is in two splits") as no:
        tl.validate(recipe)

    train, val = tmp_path / "train" / "ants" / "1.jpg", tmp_path / "val" / "bees" / "leak.jpg"
    assert f"{val} (validation) is {train} (train)" in str(no.value)


def test_leakage_that_is_allowed_by_name_is_no_problem(recipe):
    plan = tl.validate(recipe, {"data.leakage": "allow"})

    assert plan.images["validation"]["bees"] == 3


@pytest.fixture
def near(recipe, tmp_path, monkeypatch):
    """The recipe, with a near copy in the place of the copy."""
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tl_toolkit.sources.known_files._YOUNG", 0)  # files are new in tests
    with Image.open(tmp_path / "train" / "ants" / "1.jpg") as image:
        image.resize((96, 96)).save(tmp_path / "val" / "bees" / "leak.jpg", quality=95)
    return recipe


def test_near_copies_are_known_when_a_check_has_found_them_and_not_before(near, tmp_path):
    strict = {"data.leakage": "refuse_near"}
    copy, original = tmp_path / "val/bees/leak.jpg", tmp_path / "train/ants/1.jpg"
    named = f"{copy} (validation) looks like {original} (train)"
    assert tl.validate(near, strict).warnings == []

    assert len(tl.check_data(near).of("near_leak")) == 1
    (warning,) = tl.validate(near).warnings
    with pytest.raises(
        DataError, match="= 'refuse_near': 1 pair of near duplicates is in"
    ) as error:
        tl.validate(near, strict)
    tl.check_data(near).write_exclusions(tmp_path / "exclude.csv", ["near_leak"])
    plan = tl.validate(near, strict | {"data.exclude": tmp_path / "exclude.csv"})

    reversed_named = f"{original} (train) looks like {copy} (validation)"
    assert any(text in warning for text in (named, reversed_named))
    assert any(text in str(error.value) for text in (named, reversed_named))
    assert plan.warnings == []
    copy.write_bytes(copy.read_bytes() + b" ")  # another file: nothing is known of it
    assert tl.validate(near, strict).warnings == []


def test_a_near_copy_stays_known_when_another_of_its_group_is_left_out(near, tmp_path):
    copy, first = tmp_path / "val/bees/leak.jpg", tmp_path / "train/ants/1.jpg"
    second, third = first.with_name("second.jpg"), first.with_name("third.jpg")
    with Image.open(first) as image:
        image.resize((80, 80)).save(second, quality=93)
        image.resize((120, 100)).save(third, quality=97)
    tl.check_data(near)

    for left in (first, second, third):
        others = [path.relative_to(tmp_path) for path in (first, second, third) if path != left]
        table = exclude(tmp_path, *others)
        with pytest.raises(DataError, match="1 pair of near duplicates") as error:
            tl.validate(near, {"data.leakage": "refuse_near", "data.exclude": table})
        assert str(left) in str(error.value) and str(copy) in str(error.value)


@pytest.mark.parametrize("changes", [{}, {"data.validation": 0.5}, {"data.folds": 2}])
def test_near_copies_that_no_check_has_seen_are_refused_before_training(near, tmp_path, changes):
    if changes:  # a copy of each image, of which some come to the other side
        del near["data"]["validation"]
        for path in (tmp_path / "train").rglob("*.jpg"):
            with Image.open(path) as image:
                image.resize((96, 96)).save(path.with_name(f"copy-{path.name}"), quality=95)
    plan, task = plan_values(near, changes | {"data.leakage": "refuse_near"})

    with pytest.raises(
        DataError, match="pairs? of near duplicates (is|are) in two splits"
    ) as error:
        survey_images(plan, task, RunFolder(tmp_path / "run"), ignore)

    wanted = "data split SOURCE -o splits.csv --near" if changes else "--exclude near_leak"
    assert wanted in str(error.value)
    assert ("data.group=group_near" in str(error.value)) == ("data.folds" in changes)


@pytest.fixture
def inside(near, tmp_path):
    """The recipe of the near copy, with its photos in a Parquet file and the splits in a column."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"image": path.read_bytes(), "label": path.parent.name, "split": split}
        for split, name in (("train", "train"), ("validation", "val"))
        for path in sorted((tmp_path / name).rglob("*.jpg"))
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    return near | {"data": {"table": str(tmp_path / "t.parquet"), "image_size": 32}}, rows


def survey(recipe, folder, changes=(), progress=ignore):
    plan, task = plan_values(recipe, changes)
    return survey_images(plan, task, RunFolder(folder), progress)


def test_equal_images_in_a_file_with_others_are_refused_by_their_rows(inside, tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    recipe, rows = inside
    table = tmp_path / "t.parquet"
    rows[-1]["image"] = rows[0]["image"]
    parquet.write_table(pa.Table.from_pylist(rows), table)
    warnings = []

    with pytest.raises(DataError, match="leakage = 'refuse': 1 image is in two splits") as error:
        survey(recipe, tmp_path / "run")
    survey(recipe, tmp_path / "allowed", {"data.leakage": "allow"}, warnings.append)
    (tmp_path / "exclude.csv").write_text(f"path\n{table}#{len(rows)}\n")
    survey(recipe, tmp_path / "left", {"data.exclude": tmp_path / "exclude.csv"})

    assert f"{table}#{len(rows)} (validation) is {table}#1 (train)" in str(error.value)
    assert "tltool data check RECIPE --exclusions exclude.csv" in str(error.value)
    assert any("1 images are in two splits" in str(event) for event in warnings)


def test_near_copies_in_a_file_with_others_are_refused_by_their_rows(inside, tmp_path):
    recipe, _ = inside

    with pytest.raises(DataError, match="1 pair of near duplicates is in two splits") as error:
        survey(recipe, tmp_path / "run", {"data.leakage": "refuse_near"})

    assert "t.parquet#" in str(error.value) and "data.exclude=exclude.csv" in str(error.value)
    assert "--exclude near_leak --exclusions exclude.csv" in str(error.value)


def test_only_files_of_equal_size_are_read(recipe, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(KnownFiles, "add", lambda self, path, *_: read.append(path))

    with pytest.raises(DataError):
        tl.validate(recipe)

    sizes = [path.stat().st_size for path in tmp_path.rglob("val/*/*.jpg")]
    suspects = [path for path in tmp_path.rglob("train/*/*.jpg") if path.stat().st_size in sizes]
    assert 2 <= len(read) <= 2 * len(suspects)
    assert len(read) < 12 + 7


def test_an_image_that_is_left_out_leaks_no_more_and_is_counted(recipe, tmp_path):
    table = exclude(tmp_path, "val/bees/leak.jpg")

    plan = tl.validate(recipe, {"data.exclude": table})

    assert plan.images["validation"] == {"ants": 2, "bees": 2, "wasps": 2}
    assert plan.excluded == f"1 image left out by {table}"
    assert plan.excluded in plan.describe()


def test_paths_are_relative_to_the_table_and_names_that_are_gone_are_told(recipe, tmp_path):
    (tmp_path / "lists").mkdir()
    table = exclude(tmp_path / "lists", "../val/bees/leak.jpg", "../val/bees/gone.jpg")

    plan = tl.validate(recipe, {"data.exclude": table})

    assert plan.excluded.endswith(f"not there: {tmp_path / 'val' / 'bees' / 'gone.jpg'}")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["bees/leak.jpg"], "names no file that exists"),
        (["val/ants/0.jpg", "val/ants/1.jpg", "val/bees/leak.jpg"], "no image of 'ants' in valid"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(recipe, tmp_path, names, words):
    with pytest.raises(DataError, match=words):
        tl.validate(recipe, {"data.exclude": exclude(tmp_path, *names)})


def test_a_table_without_paths_is_refused(recipe, tmp_path):
    (tmp_path / "exclude.csv").write_text("file\nval/bees/leak.jpg\n")

    with pytest.raises(DataError, match="has no column path"):
        tl.validate(recipe, {"data.exclude": tmp_path / "exclude.csv"})


def test_built_in_images_cannot_be_left_out(recipe):
    data = {"builtin": "digits", "image_size": 32, "exclude": "x.csv"}

    with pytest.raises(RecipeError, match="expected none with data.builtin"):
        tl.validate(recipe | {"data": data})


def test_the_check_of_a_recipe_sees_what_it_uses(recipe, tmp_path):
    assert len(tl.check_data(recipe).of("leak")) == 1

    report = tl.check_data(recipe, {"data.exclude": exclude(tmp_path, "val/bees/leak.jpg")})

    assert not report.of("leak")
    assert report.notes[0] == f"1 image left out by {tmp_path / 'exclude.csv'}"
