"""What `init` says of tables: wrong cells, misnamed columns, separators, and its own choices."""

import struct

import numpy as np
import pytest
from PIL import Image

from tests.command import tltool
from tests.conftest import draw_class_folders
from tests.tables import make_recipe, write_table
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.starter import write_starter
from tl_toolkit.recipe.load import build_recipe, load_recipe
from tl_toolkit.sources.arrays import read_shape

COUNT = 8
FLAGS = {"cat": [0, 1] * 4, "dog": [1, 0, 0, 1] * 2}
NUMBERS = {"age": list(range(COUNT)), "height": [0.5 * number for number in range(COUNT)]}


@pytest.fixture
def write(tmp_path):
    """Writes a table of the columns beside its images."""
    for number in range(COUNT):
        Image.new("RGB", (8, 8), (30 * number, 0, 0)).save(tmp_path / f"{number}.png")

    def write(columns, name="t.csv"):
        rows = zip(*columns.values(), strict=True)
        lines = [(f"{number}.png", *row) for number, row in enumerate(rows)]
        return write_table(tmp_path / name, [("path", *columns), *lines])

    return write


def spoil(columns, name, value, place=5):
    """Returns the columns with another value in one cell; place 5 is line 7."""
    cells = [*columns[name][:place], value, *columns[name][place + 1 :]]
    return columns | {name: cells}


def refuse(table, **options):
    with pytest.raises(DataError) as caught:
        write_starter(table, base="lenet5", **options)
    return str(caught.value)


def plan_starter(table, **options):
    starter = write_starter(table, base="lenet5", place=table.parent, **options)
    (table.parent / "r.yaml").write_text(starter.text)
    return starter, check_recipe(load_recipe(table.parent / "r.yaml"))


@pytest.mark.parametrize("value", ["2", "yes", "", "O"])
def test_init_names_the_one_cell_of_a_table_of_flags_that_is_none(write, value):
    table = write(spoil(FLAGS, "dog", value))

    message = refuse(table)

    assert f"{table}:7: column 'dog' = {value!r}; expected 0 or 1" in message
    assert f"tltool init --task regression {table}" in message
    assert "data.csv" not in message


def test_init_takes_flags_for_numbers_where_it_is_told_to(write):
    starter, plan = plan_starter(write(spoil(FLAGS, "dog", "2")), task="regression")

    assert plan.recipe.task.kind == "regression"
    assert starter.choices == ("task: regression, by columns of numbers: cat, dog",)


@pytest.mark.parametrize("columns", [NUMBERS, {"age": NUMBERS["age"]}], ids=["two", "one"])
@pytest.mark.parametrize("value", ["", "n/a", "1,5"])
def test_init_names_the_one_cell_of_a_table_of_numbers_that_is_none(write, columns, value):
    table = write(spoil(columns, "age", value))

    message = refuse(table)

    assert f"{table}:7: column 'age' = {value!r}; expected a number" in message
    assert "height" not in message


def test_a_count_beside_numbers_is_no_wrong_flag(write):
    starter, plan = plan_starter(write(spoil(FLAGS, "dog", "2") | NUMBERS))

    assert plan.classes == ("cat", "dog", "age", "height")
    assert "regression" in starter.choices[0]


def test_init_says_which_columns_it_does_not_use_and_why(write):
    names = {"name": list("abcdefgh")}

    flags, planned = plan_starter(write(names | FLAGS))
    numbers, _ = plan_starter(write(names | NUMBERS))
    labels, _ = plan_starter(write(names | {"label": list("xyxyxyxy")}))

    assert planned.classes == ("cat", "dog")
    assert flags.choices == (
        "task: multilabel, by columns of 0 and 1: cat, dog",
        "not used: 'name' (neither 0 and 1 nor numbers)",
    )
    assert numbers.choices == (
        "task: regression, by columns of numbers: age, height",
        "not used: 'name' (8 of 8 cells are no numbers, first 'a' in line 2)",
    )
    assert labels.choices == ("task: classification, by the column label", "not used: 'name'")
    assert "#   not used: 'name' (8 of 8 cells" in numbers.text


def test_the_command_says_what_it_chose(write, tmp_path):
    write(FLAGS)

    said = tltool("init", "t.csv", "--base", "lenet5", cwd=tmp_path).stderr

    assert said.startswith("task: multilabel, by columns of 0 and 1: cat, dog\nwrote t.yaml")


def test_a_table_of_no_task_is_described_by_what_it_holds(write):
    message = refuse(write({"Label": list("abcdefgh")}))

    assert "is a table of no task" in message
    assert "'Label' holds 'a' (line 2)." in message
    assert "Did you mean the column 'label'?" in message


def test_a_table_without_paths_is_described_by_its_columns(tmp_path):
    table = write_table(tmp_path / "t.csv", [("Path", "label"), ("0.png", "a")])

    message = refuse(table)

    assert "has no column path; it has Path, label. Try: 'path' as the name of 'Path'" in message


def test_a_task_that_is_asked_for_must_fit(write):
    assert "is no data for classification" in refuse(write(NUMBERS), task="classification")
    with pytest.raises(RecipeError, match="did you mean 'regression'"):
        write_starter(write(NUMBERS), base="lenet5", task="regresion")


@pytest.mark.parametrize("name", ["Split", "splits", "set", "SUBSET"])
def test_a_misnamed_column_of_splits_is_named(write, name):
    table = write({"label": list("xyxyxyxy"), name: ["train"] * 4 + ["val"] * 2 + ["test"] * 2})

    with pytest.raises(DataError) as caught:
        check_recipe(build_recipe(make_recipe("classification", table)))

    assert f"has splits in the column {name!r}" in str(caught.value)
    assert f"Try: 'split' as the name of {name!r}" in str(caught.value)
    assert repr(name) in refuse(table)


def test_a_column_that_is_only_called_like_one_of_splits_is_none(write):
    table = write({"label": list("xyxyxyxy"), "set": ["summer", "winter"] * 4})

    assert check_recipe(build_recipe(make_recipe("classification", table))).classes == ("x", "y")


LISTS = ["cat;dog", "cat", "dog", "", "dog;bird", "bird", "cat", "dog"]


def test_another_separator_is_named_with_its_field(write):
    table = write({"labels": LISTS})
    recipe = make_recipe("multilabel", table)

    with pytest.raises(DataError) as caught:
        check_recipe(build_recipe(recipe))

    assert "has the class 'cat;dog'" in str(caught.value)
    assert "Try: task.separator='\";\"'" in str(caught.value)
    assert check_recipe(build_recipe(recipe, ["task.separator=\";\""])).classes == (
        "bird", "cat", "dog"
    )  # fmt: skip


def test_init_takes_the_separator_that_a_table_has(write):
    starter, plan = plan_starter(write({"labels": [text.replace(";", ", ") for text in LISTS]}))

    assert plan.classes == ("bird", "cat", "dog")
    assert 'separator: ","' in starter.text


def test_a_comma_in_the_name_of_one_class_is_no_separator(write):
    table = write({"labels": ["sea, calm", "dog", "dog|sea, calm", "sea"] * 2})

    plan = check_recipe(build_recipe(make_recipe("multilabel", table)))

    assert plan.classes == ("dog", "sea", "sea, calm")


def draw_sizes(folder, sizes, *, exif=None):
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number, size in enumerate(sizes):
            options = {"exif": exif} if exif else {}
            Image.new("RGB", size).save(folder / label / f"{number}.jpg", **options)
    return folder


@pytest.mark.parametrize(
    "sizes, line, reason",
    [
        ([(30, 20), (32, 20)] * 5, "  resize: stretch", "about the same proportions"),
        ([(30, 20), (20, 30)] * 5, "  resize: crop", "0.67 to 1.50; cuts off 33%"),
        ([(40, 20), (20, 40)] * 5, "  resize: pad", "0.50 to 2.00; nothing is cut off"),
        # A tenth at either end does not count.
        ([(40, 20), *[(20, 20)] * 9], "  resize: stretch", "width / height 1.00"),
    ],
)
def test_init_chooses_a_resize_by_the_proportions(tmp_path, sizes, line, reason):
    starter, plan = plan_starter(draw_sizes(tmp_path / "data", sizes))

    (written,) = [text for text in starter.text.splitlines() if text.startswith("  resize")]
    assert written.startswith(f"{line} ") and reason in written
    assert plan.recipe.data.resize == line.split()[-1]
    assert any(text.startswith(f"data.{line.strip()}, as ") for text in starter.choices)


def test_init_reads_proportions_of_images_as_they_are_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6

    starter = write_starter(draw_sizes(tmp_path / "x", [(30, 20)] * 5, exif=exif), base="lenet5")

    assert "width / height 0.67" in starter.text


def test_init_pads_what_may_lie_at_the_border(tmp_path):
    for number in range(12):
        Image.new("RGB", (8, 12) if number % 2 else (12, 8)).save(tmp_path / f"{number}.png")
    rows = [(f"{number}.png", number % 2, 1 - number % 2) for number in range(12)]
    table = write_table(tmp_path / "t.csv", [("path", "cat", "dog"), *rows])

    assert "  resize: pad " in write_starter(table, base="lenet5").text


def test_init_writes_to_stdout_where_the_file_is_a_dash(tmp_path, draw_photos):
    draw_photos(tmp_path / "photos")

    done = tltool("init", "photos", "-o", "-", cwd=tmp_path)

    assert "\nname: photos\n" in done.stdout and "wrote" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_commands_that_init_and_copy_suggest_can_be_typed_as_they_are(tmp_path, draw_photos):
    draw_photos(tmp_path / "my photos" / "train")
    (tmp_path / "my photos" / "test").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "my photos" / "test" / "a.png")

    made = tltool("init", "my photos", "-o", "my photos.yaml", cwd=tmp_path)
    copied = tltool("recipes", "copy", "quickstart", "my copy.yaml", cwd=tmp_path)

    assert "tltool validate 'my photos.yaml', then" in made.stderr
    assert "tltool predict latest 'my photos/test'" in (tmp_path / "my photos.yaml").read_text()
    assert "tltool validate 'my copy.yaml'" in copied.stderr
    assert "tltool finetune 'my copy.yaml'" in (tmp_path / "my copy.yaml").read_text()


@pytest.mark.parametrize("masks", ["labels", "gt", "Annotations"])
def test_photos_beside_masks_of_another_name_are_doubted(tmp_path, draw_photos, masks):
    draw_photos(tmp_path / "streets", classes=("images", masks))

    said = tltool("init", "streets", "--base", "lenet5", cwd=tmp_path).stderr

    assert f"warning: images/ and {masks}/ are taken for two classes; if they are images" in said


def test_a_folder_of_datasets_is_doubted(tmp_path, draw_photos):
    draw_photos(tmp_path / "flowers", classes=("daisy", "rose"))
    draw_photos(tmp_path / "my cars", classes=("red", "blue"))
    draw_photos(tmp_path / "plain", classes=("a", "b"))

    said = tltool("init", ".", "-o", "all.yaml", "--base", "lenet5", cwd=tmp_path).stderr
    plain = tltool("init", "plain", "--base", "lenet5", cwd=tmp_path).stderr

    assert "flowers/ is taken for one class; if its folders (daisy, rose) are the classes" in said
    assert "tltool init 'my cars'" in said
    assert "warning" not in plain


def test_a_column_of_files_is_told_to_be_called_path(tmp_path):
    table = write_table(tmp_path / "t.csv", [("file", "label"), ("0.png", "a")])

    assert "Try: 'path' as the name of 'file'" in refuse(table)


def test_a_decimal_comma_is_told_by_the_number_with_a_point(tmp_path):
    (tmp_path / "t.csv").write_text('path,price\n0.png,"0,5"\n1.png,"1,5"\n')

    assert "Try: a decimal point: 0.5 for 0,5" in refuse(tmp_path / "t.csv")


def test_images_without_class_folders_are_told_what_to_do(tmp_path, draw_photos):
    flat = draw_photos(tmp_path / "photos", classes=("ants",)) / "ants"

    assert "Try: a folder per class with its images, or a table" in refuse(flat)


@pytest.mark.parametrize(("count", "phases"), [(8, []), (2800, ["tune"])])
def test_init_writes_what_a_recipe_without_phases_gets(tmp_path, draw_photos, count, phases):
    photos = draw_photos(tmp_path / "photos")
    for name in ("ants", "bees"):
        first = next((photos / name).iterdir())
        for number in range(count // 2):
            (photos / name / f"more{number}.png").hardlink_to(first)

    text = write_starter(photos, base="mobilenet", place=tmp_path).text
    (tmp_path / "r.yaml").write_text(text)
    (tmp_path / "plain.yaml").write_text(text[: text.index("  head:")])
    written = load_recipe(tmp_path / "r.yaml").recipe
    chosen = check_recipe(load_recipe(tmp_path / "plain.yaml")).recipe

    assert written == chosen and written.preset is None
    assert [phase.name for phase in written.phases] == phases
    assert "none to tune the base" in text if count == 8 else "kept where it is better" in text


def test_init_writes_the_balance_that_a_preset_chooses(tmp_path):
    draw_class_folders(tmp_path / "photos", classes=["few"], count=4)
    draw_class_folders(tmp_path / "photos", classes=["many"], count=13)

    text = write_starter(tmp_path / "photos", base="mobilenet", place=tmp_path).text
    (tmp_path / "r.yaml").write_text(text)
    before, task, after = text.partition("task:\n  kind: classification\n  balance: class_weights")
    (tmp_path / "plain.yaml").write_text(before + after.partition("\n")[2].partition("  head:")[0])

    written = load_recipe(tmp_path / "r.yaml").recipe
    assert task and written == check_recipe(load_recipe(tmp_path / "plain.yaml")).recipe
    assert "balance:" not in write_starter(tmp_path / "photos", base="vgg_tiny").text


def save_arrays(folder, shape, count=6, classes=("a", "b")):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            np.save(folder / name / f"{number}.npy", np.full(shape, number, np.uint16))
    return folder


def test_init_reads_the_channels_of_arrays(tmp_path):
    folder = save_arrays(tmp_path / "fields", (24, 32, 6))

    starter = write_starter(folder, base="mobilenet", place=tmp_path)

    assert "  channels: 6 " in starter.text
    reason = "12 arrays that were opened have 6 bands"
    assert f"data.channels: 6, as {reason}" in starter.choices
    assert any("width / height 1.33" in choice for choice in starter.choices)
    (tmp_path / "r.yaml").write_text(starter.text.replace("imagenet", "random"))
    plan = check_recipe(load_recipe(tmp_path / "r.yaml"))
    assert plan.recipe.data.channels == 6
    assert plan.images == {"to be split": {"a": 6, "b": 6}}
    (tmp_path / "r.yaml").write_text(starter.text)
    assert check_recipe(load_recipe(tmp_path / "r.yaml")).warnings == []


def test_init_reads_the_channels_of_arrays_in_pairs_and_tables(tmp_path):
    save_arrays(tmp_path / "pairs", (8, 8), classes=("images",))
    (tmp_path / "pairs" / "masks").mkdir()
    for number in range(6):
        Image.new("L", (8, 8), number % 2).save(tmp_path / "pairs" / "masks" / f"{number}.png")
    save_arrays(tmp_path / "table", (8, 8, 5), count=2)
    rows = [(f"table/{name}/{n}.npy", name) for name in "ab" for n in (0, 1)]
    table = write_table(tmp_path / "t.csv", [("path", "label"), *rows])

    # Masks are photos, as many as the arrays.
    assert "  channels: 1 " in write_starter(tmp_path / "pairs", base="unet").text
    assert "  channels: 5 " in write_starter(table, base="lenet5").text


def encode_tiff_header(bands, order="<"):
    """The tags of a TIFF file: 12 x 8 pixels, black is zero."""
    tags = [(256, 12), (257, 8), (262, 1), (277, bands)]
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(tags))
    return head + b"".join(struct.pack(f"{order}HHIHH", tag, 3, 1, it, 0) for tag, it in tags)


def test_init_reads_the_bands_of_tiff_files_and_leaves_photos_alone(tmp_path, draw_photos):
    photos = draw_photos(tmp_path / "photos", classes=("a", "b"), count=3)
    assert "channels" not in write_starter(photos, base="mobilenet").text

    for mode in ("RGBA", "CMYK", "RGB", "L"):
        for number in range(3):
            for name in "ab":
                Image.new(mode, (8, 8)).save(photos / name / f"{number}.tif")
                (photos / name / f"{number}.jpg").unlink(missing_ok=True)
        assert "channels" not in write_starter(photos, base="mobilenet").text

    for order in "<>":
        for number in range(3):
            for name in "ab":
                (photos / name / f"{number}.tif").write_bytes(encode_tiff_header(4, order))
        assert "  channels: 4 " in write_starter(photos, base="mobilenet").text
        assert read_shape(photos / "a" / "0.tif") == (8, 12, 4)


@pytest.mark.parametrize("columns", [{"label": list("abababab")}, FLAGS, NUMBERS])
@pytest.mark.parametrize(
    ("split", "is_sampled"), [("validation", False), ("val", False), ("test", True), ("", True)]
)
def test_init_samples_no_validation_images_where_the_table_names_them(
    write, columns, split, is_sampled
):
    splits = ["train"] * 4 + [split] * 4

    starter, plan = plan_starter(write({**columns, "split": splits}))

    assert ("  validation: 0.2 " in starter.text) == is_sampled
    assert ("validation" in plan.images) != is_sampled
