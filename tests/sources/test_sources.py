import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tl_toolkit.errors import DataError
from tl_toolkit.sources.builtin import describe_builtin, load_builtin
from tl_toolkit.sources.glyphs import GLYPHS, render_all_glyphs
from tl_toolkit.sources.survey import (
    Splits,
    check_builtin,
    count_builtin,
    list_builtin,
    list_class_folders,
    list_class_table,
    list_images,
    survey_folders,
)


@pytest.fixture
def make_folders(tmp_path):
    """Makes files of one byte: {"train/ants": ["1.jpg"]} below a folder, whose path it returns."""

    def make(folders, root="photos"):
        for folder, names in folders.items():
            (tmp_path / root / folder).mkdir(parents=True, exist_ok=True)
            for name in names:
                path = tmp_path / root / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x")
        return tmp_path / root

    return make


def survey(*, csv=None, classes=None, train=None, validation=0.2, test=None, links="refuse"):
    """Lists a table, or the folders of splits; returns what is wrong with them too."""
    splits = Splits(train, validation, test, links)
    return list_class_table(csv, splits, classes) if csv else survey_folders(splits, classes)


def list_valid(**values):
    listing, problems = survey(**values)
    assert problems == []
    return listing


def names(listing):
    return [
        (file.targets[0], os.path.relpath(file.path, Path(file.path).parents[1]), file.split)
        for file in listing.files
    ]


def actual(**values):
    return [(field, str(problem)) for field, problem in survey(**values)[1]]


# --- folders -----------------------------------------------------------------------------------


def test_images_are_listed_by_class_and_name(make_folders):
    root = make_folders(
        {"b": ["2.png", "10.JPG"], "A": ["x.webp"], "a10": ["x.tiff"], "a9": ["1.gif"]}
    )

    listing = list_valid(train=root)

    assert listing.classes == ("A", "a10", "a9", "b")
    assert names(listing) == [
        ("A", "A/x.webp", None),
        ("a10", "a10/x.tiff", None),
        ("a9", "a9/1.gif", None),
        ("b", "b/10.JPG", None),
        ("b", "b/2.png", None),
    ]
    assert listing.fractions == {"validation": 0.2}


def test_classes_select_and_order(make_folders):
    root = make_folders({"a": ["1.jpg"], "b": ["1.jpg"], "c": ["1.jpg"]})

    listing = list_valid(train=root, classes=("c", "a"))

    assert listing.classes == ("c", "a")
    assert {file.targets[0] for file in listing.files} == {"a", "c"}


def test_folders_below_a_class_belong_to_it_and_hidden_ones_do_not(make_folders):
    root = make_folders(
        {
            "a": ["1.jpg", "2020/may/2.jpg", ".3.jpg", ".cache/4.jpg"],
            "b": ["1.jpg"],
            ".git": ["1.jpg"],
        }
    )

    listing = list_valid(train=root)

    labels = [(file.targets[0], os.path.relpath(file.path, root)) for file in listing.files]
    assert labels == [("a", "a/1.jpg"), ("a", "a/2020/may/2.jpg"), ("b", "b/1.jpg")]
    assert listing.ignored == ()


def test_other_files_are_ignored_and_counted(make_folders):
    root = make_folders({"a": ["1.jpg", "notes.txt", "more.TXT", "Makefile"], "b": ["1.jpg"]})
    os.mkfifo(root / "a" / "pipe.jpg")

    listing = list_valid(train=root)

    assert len(listing.files) == 2
    assert (
        listing.describe_ignored()
        == "4 files ignored: 2 .txt, 1 file without extension, 1 special file"
    )


def test_links_are_followed_to_files_inside_the_folder_only(make_folders):
    root = make_folders({"a": ["1.jpg"], "b": ["1.jpg"]})
    elsewhere = make_folders({"secret": ["1.jpg"]}, root="elsewhere")
    (root / "a" / "inside.jpg").symlink_to(root / "b" / "1.jpg")
    (root / "a" / "outside.jpg").symlink_to(elsewhere / "secret" / "1.jpg")
    (root / "a" / "nothing.jpg").symlink_to(root / "missing.jpg")
    (root / "a" / "loop").symlink_to(root)
    (root / "c").symlink_to(elsewhere / "secret")

    listing = list_valid(train=root, links="ignore")

    assert listing.classes == ("a", "b")
    assert [Path(file.path).name for file in listing.files] == ["1.jpg", "inside.jpg", "1.jpg"]
    assert sorted(entry.reason for entry in listing.ignored) == [
        "link out of the folder",
        "link to nothing",
        "linked folder",
        "linked folder",
    ]


def test_a_class_that_is_a_link_is_refused_unless_the_recipe_says_what_to_do(make_folders):
    root = make_folders({"a": ["1.jpg"], "b": ["1.jpg"]})
    elsewhere = make_folders({"c": ["2.jpg", "deep/3.jpg"]}, root="elsewhere")
    (root / "c").symlink_to(elsewhere / "c")
    (root / "d").symlink_to(root / "missing disk")

    [(field, message)] = actual(train=root)
    (root / "d").unlink()

    assert field == "train"
    assert f"{root / 'c'} (to {elsewhere / 'c'})" in message
    assert str(root / "d") in message
    assert "data.links=follow" in message
    assert list_valid(train=root, classes=("a", "b")).classes == ("a", "b")
    assert list_valid(train=root, links="ignore").classes == ("a", "b")
    followed = list_valid(train=root, links="follow")
    assert followed.classes == ("a", "b", "c")
    assert [file.path for file in followed.files[2:]] == [
        str(root / "c" / "2.jpg"),
        str(root / "c" / "deep" / "3.jpg"),
    ]


def test_links_that_are_followed_list_each_folder_once(make_folders):
    root = make_folders({"a": ["1.jpg", "deep/2.jpg"], "b": ["1.jpg"]})
    (root / "a" / "again").symlink_to(root / "a")
    (root / "a" / "also").symlink_to(root / "a" / "deep")

    listing = list_valid(train=root, links="follow")

    assert len(listing.files) == 3
    # A link to images of the same class leaves none out.
    assert len(list_valid(train=root).files) == 3


def test_a_folder_that_cannot_be_read_is_refused(make_folders, monkeypatch):
    root = make_folders({"a": ["1.jpg", "deep/2.jpg"], "b": ["1.jpg"]})
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)

    [(_, message)] = actual(train=root)

    assert f"folders cannot be read: {root / 'a' / 'deep'}" in message


def test_links_to_files_elsewhere_are_counted_and_named_and_may_be_followed(make_folders):
    root = make_folders({"a": ["1.jpg"], "b": ["1.jpg"]})
    store = make_folders({".": [f"{n}.jpg" for n in range(7)]}, root="cache")
    for number in range(7):
        (root / "a" / f"x{number}.jpg").symlink_to(store / f"{number}.jpg")
    (root / "b" / "gone.jpg").symlink_to(store / "gone.jpg")

    listing = list_valid(train=root)

    assert listing.describe_ignored() == (
        "8 files ignored: 7 link out of the folder, 1 link to nothing; data.links=follow uses the "
        "linked files a/x0.jpg, a/x1.jpg, a/x2.jpg, a/x3.jpg, a/x4.jpg and 2 more; these links "
        "lead nowhere: b/gone.jpg"
    )
    assert len(list_valid(train=root, links="follow").files) == 9


def test_folders_of_disk_stations_and_archives_hold_no_training_images(make_folders):
    root = make_folders(
        {
            "a": ["1.jpg", "@eaDir/1.jpg/THUMB_M.jpg", ".ipynb_checkpoints/1-checkpoint.jpg"],
            "b": ["1.jpg", "deep/@eaDir/x.jpg"],
            "@eaDir": ["1.jpg"],
            "__MACOSX": ["a/._1.jpg", "b/2.jpg"],
            ".ipynb_checkpoints": ["1.jpg"],
        }
    )

    listing = list_valid(train=root)

    assert listing.classes == ("a", "b")
    assert len(listing.files) == 2
    assert listing.describe_ignored() == "4 files ignored: 3 folder @eaDir, 1 folder __MACOSX"


def test_images_beside_the_class_folders_are_counted(make_folders):
    root = make_folders({".": ["stray.jpg"], "a": ["1.jpg"], "b": ["1.jpg"]})

    described = list_valid(train=root).describe_ignored()

    assert described == "1 file ignored: 1 image beside the class folders"


def test_classes_are_compared_in_one_form_of_unicode(make_folders, tmp_path):
    composed, decomposed = "ca\u00e7ador", "cac\u0327ador"
    root = make_folders(
        {
            f"t/{decomposed}": ["1.jpg"],
            "t/b": ["1.jpg"],
            f"v/{composed}": ["1.jpg"],
            "v/b": ["1.jpg"],
        }
    )
    table = tmp_path / "photos" / "t" / "t.csv"
    table.write_text(f"path,label\n{composed}/1.jpg,{decomposed}\nb/1.jpg,b\n", encoding="utf-8")

    listing = list_valid(train=root / "t", validation=root / "v")

    assert listing.classes == ("b", composed)
    assert listing.count()["validation"] == {"b": 1, composed: 1}
    # A run of a model that was trained before keeps the spelling of its classes.
    evaluated = list_class_folders(root / "v", classes=("b", decomposed))
    assert {file.targets[0] for file in evaluated.files} == {"b", decomposed}
    rows = list_valid(csv=table)
    assert rows.classes == ("b", composed)
    assert all(os.path.exists(file.path) for file in rows.files)


def test_two_folders_of_one_class_are_refused(make_folders):
    root = make_folders({"\u00e9": ["1.jpg"], "e\u0301": ["1.jpg"], "b": ["1.jpg"]})

    assert "two folders of one name" in actual(train=root)[0][1]


def test_odd_names_are_listed_as_they_are(make_folders):
    odd = [
        "\u00e9.jpg",
        "e\u0301.jpg",
        "a b\n.jpg",
        "{}%s.jpg",
        "-x.jpg",
        os.fsdecode(b"\xff.jpg"),
        "🐝.jpg",
    ]
    root = make_folders({"a": odd, "ü ": ["1.jpg"]})

    listing = list_valid(train=root)

    assert sorted(Path(file.path).name for file in listing.files[:-1]) == sorted(odd)
    assert all(os.path.exists(file.path) for file in listing.files)


def test_given_folders_are_the_splits(make_folders):
    root = make_folders(
        {f"{split}/{name}": ["1.jpg"] for split in ("t", "v", "e") for name in "ab"}
    )

    listing = list_valid(train=root / "t", validation=root / "v", test=root / "e")

    assert listing.count() == {
        "train": {"a": 1, "b": 1},
        "validation": {"a": 1, "b": 1},
        "test": {"a": 1, "b": 1},
    }
    assert listing.fractions == {}


def test_a_fraction_beside_a_folder_is_taken_of_the_training_images(make_folders):
    root = make_folders({f"{split}/{name}": ["1.jpg"] for split in "tv" for name in "ab"})

    listing = list_valid(train=root / "t", validation=root / "v", test=0.5)

    assert listing.count() == {None: {"a": 1, "b": 1}, "validation": {"a": 1, "b": 1}}
    assert listing.fractions == {"test": 0.5}


def test_missing_folder_is_told_with_its_nearest_neighbour(make_folders):
    root = make_folders({"flowers/a": ["1.jpg"]})

    [(field, message)] = actual(train=root / "flower")

    assert field == "train"
    assert message == (
        f"data.train  '{root}/flower' does not exist\n"
        "  A folder is expected that holds one folder of images per class; did you mean 'flowers'?"
    )
    [(_, message)] = actual(train=root / "x" / "y")
    assert f"the nearest folder that exists is '{root}'" in message


def test_one_class_only_is_refused(make_folders):
    root = make_folders({"tulip": ["1.jpg"]})

    assert actual(train=root) == [
        (
            "train",
            f"data.train  '{root}' holds one class only (tulip)\n  At least 2 folders are needed.",
        )
    ]


def test_folder_without_class_folders_is_refused(make_folders):
    root = make_folders({".": ["1.jpg", "2.jpg", "x.txt"], "empty": []})

    assert "holds nothing and no folder per class" in actual(train=root / "empty")[0][1]
    (root / "empty").rmdir()
    assert "holds 2 images and no folder per class" in actual(train=root)[0][1]
    (root / "link").symlink_to(root)
    assert f"linked folders are not followed: {root / 'link'}" in actual(train=root)[0][1]


def test_folder_of_splits_is_not_taken_for_classes(make_folders):
    root = make_folders({"train/a": ["1.jpg"], "train/b": ["1.jpg"], "val/a": ["1.jpg"]})

    [(_, message)] = actual(train=root)

    assert "holds splits, not classes (train, val)" in message
    assert f"Try: data.train: {root}/train" in message
    # Who names them as classes means them.
    assert actual(train=root, classes=("train", "val")) == []


def test_empty_class_is_refused_and_says_what_lies_there(make_folders):
    root = make_folders({"a": ["1.jpg"], "b": ["1.heic", "2.heic"], "c": []})

    [(field, message)] = actual(train=root)

    assert field == "train"
    assert "has no images of 'b', 'c'" in message
    assert "(2 files ignored: 2 .heic)" in message
    assert actual(train=root, classes=("a", "b"))


def test_unknown_class_is_told_with_the_nearest(make_folders):
    root = make_folders({"ants": ["1.jpg"], "bees": ["1.jpg"]})

    [(field, message)] = actual(train=root, classes=("ants", "bee"))

    assert field == "classes"
    assert "has no folder for 'bee'" in message
    assert "did you mean 'bees'?" in message


def test_splits_must_have_the_same_classes(make_folders):
    root = make_folders(
        {"t/ants": ["1.jpg"], "t/bees": ["1.jpg"], "v/ants": ["1.jpg"], "v/wasps": ["1.jpg"]}
    )

    problems = actual(train=root / "t", validation=root / "v")

    assert [field for field, _ in problems] == ["validation", "validation"]
    assert "has no folder for 'bees'" in problems[0][1]
    assert "has folders of other classes: 'wasps'" in problems[1][1]


def test_a_split_must_not_be_the_training_folder(make_folders, tmp_path):
    root = make_folders({"a": ["1.jpg"], "b": ["1.jpg"]})
    (tmp_path / "again").symlink_to(root)

    problems = actual(train=root, validation=tmp_path / "again")

    assert "is the folder of data.train as well" in problems[0][1]


def test_all_problems_are_told_at_once(make_folders):
    root = make_folders({"a": [], "b": ["1.jpg"]})

    problems = actual(train=root, validation=root / "x", test=root / "y")

    assert [field for field, _ in problems] == ["validation", "test", "train"]


def test_file_in_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\n")

    [(_, message)] = actual(train=tmp_path / "list.csv")

    assert f"'{tmp_path}/list.csv' is a file" in message
    assert f"Try: data.csv: {tmp_path}/list.csv" in message


def test_folder_for_evaluation_holds_some_of_the_classes_of_the_model(make_folders):
    root = make_folders({"a": ["1.jpg"], "b": ["1.jpg"]})

    listing = list_class_folders(root, classes=("c", "b", "a"))

    assert listing.classes == ("c", "b", "a")
    assert listing.count() == {"test": {"c": 0, "b": 1, "a": 1}}
    with pytest.raises(DataError, match="data  .* has folders of other classes: 'b'"):
        list_class_folders(root, classes=("a", "c"))
    with pytest.raises(DataError, match="holds 1 image and no folder per class"):
        list_class_folders(root / "a", classes=("a", "b"))


def test_images_are_named_by_files_and_by_folders(make_folders):
    root = make_folders({"a": ["1.jpg", "2.txt", ".3.jpg", "deep/4.png"]})

    assert list_images(root / "a") == [root / "a" / "1.jpg", root / "a" / "deep" / "4.png"]
    assert list_images(root / "a" / "2.txt") == [root / "a" / "2.txt"]
    with pytest.raises(DataError, match="does not exist"):
        list_images(root / "b")


# --- tables ------------------------------------------------------------------------------------


@pytest.fixture
def write_table(make_folders, tmp_path):
    """Writes photos/table.csv beside photos/a/0.jpg ... 3.jpg; returns its path."""

    def write(text, encoding="utf-8"):
        make_folders({"a": [f"{number}.jpg" for number in range(4)]})
        path = tmp_path / "photos" / "table.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_table_paths_are_relative_to_it(write_table):
    table = write_table("\ufeffpath, label\r\na/0.jpg,x\r\na/1.jpg, y\r\n")

    listing = list_valid(csv=table)

    assert listing.classes == ("x", "y")
    assert [file.path for file in listing.files] == [
        str(table.parent / "a" / "0.jpg"),
        str(table.parent / "a" / "1.jpg"),
    ]
    assert listing.fractions == {"validation": 0.2}


def test_table_may_give_the_splits(write_table):
    table = write_table(
        "label,path,split\nx,a/0.jpg,train\ny,a/1.jpg,\nx,a/2.jpg,val\ny,a/3.jpg,Validation\n"
    )

    listing = list_valid(csv=table)

    assert listing.count() == {"train": {"x": 1, "y": 1}, "validation": {"x": 1, "y": 1}}
    assert listing.fractions == {}


def test_classes_select_rows(write_table):
    table = write_table("path,label\na/0.jpg,x\na/1.jpg,y\na/2.jpg,z\n")

    listing = list_valid(csv=table, classes=("z", "x"))

    assert listing.classes == ("z", "x")
    assert len(listing.files) == 2


def test_wrong_rows_are_told_by_line(write_table):
    table = write_table(
        "path,label,split\na/0.jpg,x,\na/9.jpg,x,\n,y,\na/1.jpg,,\na/2.jpg,y,tset\na/0.jpg,y,\n"
    )

    messages = [problem.what for _, problem in survey(csv=table)[1]]

    assert messages == [
        f"table.csv:3: no file '{table.parent}/a/9.jpg'",
        "table.csv:4: no path",
        "table.csv:5: no label",
        "table.csv:6: split 'tset'; expected train, validation, test or nothing",
        "table.csv:7: the image of line 2 again",
    ]


def test_many_wrong_rows_are_counted(write_table):
    table = write_table("path,label\n" + "".join(f"{number}.jpg,x\n" for number in range(50)))

    _, problems = survey(csv=table)

    assert len(problems) == 21
    assert problems[-1][1].what == "'table.csv' has 30 more wrong lines"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has no column path and no column label"),
        ("path|label\na/0.jpg|x\n", "has no column path and no column label"),
        ("path,class\na/0.jpg,x\n", "has no column label"),
        ("path,label\n", "has no rows"),
        ("path,label\na/0.jpg,x\na/1.jpg,x\n", "holds one class only (x)"),
        ("path,label,split\na/0.jpg,x,train\na/1.jpg,y,val\n", "has no train row of 'y'"),
        ("path,label,split\na/0.jpg,x,val\na/1.jpg,y,val\n", "has no train row of 'x', 'y'"),
    ],
)
def test_unusable_tables_are_refused(text, expected, write_table):
    field, message = actual(csv=write_table(text))[0]

    assert field == "csv" and expected in message


def test_table_in_another_encoding_is_refused(write_table):
    table = write_table("path,label\na/0.jpg,é\n", encoding="latin-1")

    [(_, message)] = actual(csv=table)

    assert "is not UTF-8: line 2 is 'a/0.jpg,é' in Windows-1252" in message


# --- built-in sets -----------------------------------------------------------------------------


def test_digits_are_rgb_of_the_full_range():
    pixels, digits = load_builtin("digits")

    assert pixels.shape == (1797, 8, 8, 3)
    assert pixels.dtype == np.uint8
    assert sorted(np.unique(pixels))[:2] + [pixels.max()] == [0, 16, 255]
    assert digits[:3] == ("0", "1", "2")


@pytest.mark.slow
def test_glyphs_are_drawn_in_the_format_of_digits():
    pixels, names = load_builtin("glyphs")

    assert pixels.shape == (len(names), 8, 8, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(np.unique(pixels), np.unique(load_builtin("digits")[0]))
    # As much ink as digits have, within a tenth, and their margins left and right.
    assert abs(pixels.mean() / load_builtin("digits")[0].mean() - 1) < 0.1
    assert pixels[:, :, 0].mean() < 0.5
    assert {"A", "plus", "scribble_000"} <= set(names)


@pytest.mark.slow
def test_glyphs_are_the_same_each_time():
    again = render_all_glyphs(describe_builtin("glyphs").counts)

    pixels = np.rint(again * (255 / 16)).astype(np.uint8)
    np.testing.assert_array_equal(load_builtin("glyphs")[0][..., 0], pixels)
    assert len(np.unique(pixels.reshape(len(pixels), -1), axis=0)) > 0.99 * len(pixels)


def test_the_names_of_glyphs_are_those_that_have_strokes_and_then_scribbles():
    names = list(describe_builtin("glyphs").counts)

    assert names[: len(GLYPHS)] == list(GLYPHS)
    assert all(name.startswith("scribble_") for name in names[len(GLYPHS) :])


def test_the_labels_of_digits_are_those_of_scikit_learn():
    from sklearn import datasets

    assert load_builtin("digits")[1] == tuple(map(str, datasets.load_digits().target))


def test_glyphs_are_counted_without_drawing_them():
    counts = count_builtin("glyphs", None)

    assert {None: counts} == list_builtin("glyphs", Splits(None, 0.2), None).count()


def test_digits_are_counted_without_loading_them():
    counts = count_builtin("digits", None)

    assert {None: counts} == list_builtin("digits", Splits(None, 0.2), None).count()
    assert sum(counts.values()) == 1797


def test_digit_classes_are_selected_and_checked():
    listing = list_builtin("digits", Splits(None, 0.2), ("8", "3"))

    assert listing.classes == ("8", "3")
    assert {file.targets[0] for file in listing.files} == {"3", "8"}
    assert check_builtin("digits", ("8", "10"))[0][0] == "classes"


def test_listing_imports_no_library_in_a_process_of_its_own(make_folders):
    root = make_folders({"a": ["1.jpg"], "b": ["1.jpg"]})
    code = (
        "import sys; from pathlib import Path\n"
        "from tl_toolkit.sources import survey\n"
        f"splits = survey.Splits(Path({str(root)!r}), 0.2)\n"
        "assert not survey.survey_folders(splits)[1]\n"
        "for name in ('digits', 'glyphs'):\n"
        "    assert survey.count_builtin(name, None)\n"
        "    assert survey.list_builtin(name, splits, None).files\n"
        "heavy = {'numpy', 'tensorflow', 'keras', 'sklearn', 'PIL', 'tl_toolkit.sources.glyphs'}\n"
        "print(heavy & set(sys.modules))"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert result.stdout.strip() == "set()", result.stderr


@pytest.mark.slow
def test_validate_does_not_load_what_renders_glyphs_in_a_process_of_its_own(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "version: 1\nname: glyphs\ndata: {builtin: glyphs, validation: 0.2, image_size: 32}\n"
        "model: {base: lenet5, weights: random}\nphases: [{name: head, epochs: 1}]\n"
    )
    code = (
        "import sys; from tl_toolkit.cli.main import main\n"
        "sys.argv = ['tltool', 'validate', sys.argv[1]]\n"
        "try: main()\n"
        "except SystemExit as end: print('code', end.code or 0, file=sys.stderr)\n"
        "print('tl_toolkit.sources.glyphs' in sys.modules, file=sys.stderr)"
    )

    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "r.yaml")], capture_output=True, text=True
    )

    assert result.stderr.split()[-3:] == ["code", "0", "False"], result.stderr
