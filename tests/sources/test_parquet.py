"""Parquet files: images in them, with targets, in one file or in shards of splits."""

import hashlib
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from tests.command import tltool
from tests.tables import list_recipe
from tl_toolkit.api.data import check_data
from tl_toolkit.api.inputs import list_inputs
from tl_toolkit.api.split import split_data
from tl_toolkit.errors import DataError
from tl_toolkit.images.scan import ScanSettings, inspect_images, scan
from tl_toolkit.sources.parquet import read_images
from tl_toolkit.sources.table_rows import find_shards
from tl_toolkit.sources.tables import read_table

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def encode(number, kind="PNG"):
    """Returns an image file of one grey level."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number,) * 3).save(buffer, kind)
    return buffer.getvalue()


def write(path, rows, *, features=None, row_group=3):
    """Writes rows as Parquet, with the features that Hugging Face notes."""
    table = pa.Table.from_pylist(rows)
    if features:
        note = json.dumps({"info": {"features": features}}).encode()
        table = table.replace_schema_metadata({b"huggingface": note})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=row_group)
    return path


def make_rows(count=8, start=0):
    """Returns rows as Hugging Face writes them: a struct, and the number of a class."""
    return [
        {"image": {"bytes": encode(start + number), "path": f"{number}.png"}, "label": number % 2}
        for number in range(count)
    ]


FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
}


def sha(data):
    return hashlib.sha256(data).hexdigest()


def test_rows_are_listed_with_the_names_of_their_classes_and_no_image_is_read(tmp_path):
    table = write(tmp_path / "a.parquet", make_rows(), features=FEATURES)

    listing, problems = list_recipe(table=table)

    assert not problems
    assert listing.classes == ("cat", "dog")
    assert [file.path for file in listing.files] == [
        f"inside:{table}#{place}" for place in range(1, 9)
    ]
    assert [file.targets for file in listing.files] == [("cat",), ("dog",)] * 4


@pytest.mark.parametrize("kind", ["struct", "bytes"])
def test_a_scan_writes_each_image_once_and_the_manifest_has_its_bytes(kind, tmp_path):
    rows = make_rows()
    if kind == "bytes":
        rows = [{"image": row["image"]["bytes"], "label": row["label"]} for row in rows]
    table = write(tmp_path / "a.parquet", rows, features=FEATURES)
    listing = list_recipe(table=table)[0]
    cache = tmp_path / "cache"

    first = scan(listing, ScanSettings(), cache_dir=cache)
    written = {path: path.stat().st_mtime_ns for path in cache.glob("extracted/*/*.png")}
    table.with_name("b.parquet").write_bytes(b"")  # only that file is looked at
    second = scan(listing, ScanSettings(), cache_dir=cache)

    assert [entry.sha256 for entry in first.examples] == [sha(encode(place)) for place in range(8)]
    assert [int(entry.path.rsplit("/")[-1].split("-")[0]) for entry in first.examples] == [
        *range(1, 9)
    ]
    assert {entry.verdict for entry in first.examples} == {"good"}
    assert second.examples == first.examples
    assert {path: path.stat().st_mtime_ns for path in cache.glob("extracted/*/*.png")} == written


def test_a_changed_file_is_read_again(tmp_path):
    table = write(tmp_path / "a.parquet", make_rows())
    paths = [f"inside:{table}#{place}" for place in (2, 8)]
    inspect_images(paths, cache_dir=tmp_path / "cache")
    write(table, make_rows(start=100))

    found = inspect_images(paths, cache_dir=tmp_path / "cache")

    assert [entry.sha256 for entry in found] == [sha(encode(101)), sha(encode(107))]


@pytest.mark.parametrize("is_removed", [True, False])
def test_images_that_are_not_whole_in_the_cache_are_written_again(is_removed, tmp_path):
    table = write(tmp_path / "a.parquet", make_rows())
    paths = [f"inside:{table}#{place}" for place in (1, 5)]
    first = inspect_images(paths, cache_dir=tmp_path / "cache")
    [path] = tmp_path.glob("cache/extracted/*/5-*")
    path.unlink() if is_removed else path.write_bytes(path.read_bytes()[:-9])

    assert inspect_images(paths, cache_dir=tmp_path / "cache") == first


def test_shards_are_of_the_split_that_their_names_tell(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"):
        write(tmp_path / f"data/{name}.parquet", make_rows(2), features=FEATURES)
    write(tmp_path / "test/0000.parquet", make_rows(2), features=FEATURES)

    listing, problems = list_recipe(table=tmp_path)

    assert not problems
    assert [file.split for file in listing.files] == [*["train"] * 4, *["validation"] * 2,
                                                       *["test"] * 2]  # fmt: skip


def test_the_name_of_the_folder_itself_tells_no_split(tmp_path):
    for name in ("train", "test"):
        write(tmp_path / f"train/{name}-00000-of-00001.parquet", make_rows(2), features=FEATURES)

    files = read_table(tmp_path / "train")[0]

    assert [file.split for file in files] == ["test", "test", "train", "train"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00001-b42a775f407cee45.parquet", "train"),
        ("covid_test-train.tfrecord-00000-of-00001", "train"),
        ("covid_test-part1.tfrecord-00000-of-00001", ""),
        ("my-validation-set.tfrecord-00000-of-00001", ""),
        ("test_of_train.tfrecord", "train"),
        ("validation-00000-of-00128", "validation"),
        ("pets.parquet", ""),
    ],
)
def test_the_last_word_of_a_split_before_the_number_of_a_shard_counts(name, split, tmp_path):
    (tmp_path / name).touch()

    assert find_shards(tmp_path, "*") == [(tmp_path / name, split)]


def test_columns_of_several_labels_and_of_numbers_are_targets(tmp_path):
    rows = [
        {"picture": encode(number), "labels": labels, "size": size, "more": {"x": 1}}
        for number, (labels, size) in enumerate([([0, 1], 2.5), ([], -1.0), ([1], 1e-3)])
    ]
    features = {"labels": {"feature": {"names": ["cat", "dog"]}, "_type": "List"}}
    table = write(tmp_path / "a.parquet", rows, features=features)

    labels, wrong = list_recipe("multilabel", table=table)
    numbers, bad = list_recipe({"kind": "regression", "columns": ["size"]}, table=table)

    assert not wrong and not bad
    assert [file.targets for file in labels.files] == [("cat|dog",), ("",), ("dog",)]
    assert [file.targets for file in numbers.files] == [("2.5",), ("-1.0",), ("0.001",)]


@pytest.mark.parametrize(
    ("noted", "name", "is_struct"),
    [(True, "photo", False), (False, "image", False), (False, "photo", True)],
)
def test_the_column_of_images_is_not_that_of_other_bytes(noted, name, is_struct, tmp_path):
    data = encode(3)
    image = {"bytes": data, "path": ""} if is_struct else data
    features = {name: {"_type": "Image"}, "hash": {"_type": "Value"}} if noted else None
    table = write(
        tmp_path / "a.parquet", [{"hash": b"123", name: image, "label": "x"}], features=features
    )

    assert list(read_images(table, [1])) == [(1, data)]


@pytest.mark.parametrize("features", [None, {"labels": {"feature": {"names": ["a|b", "c"]}}}])
def test_names_of_a_list_that_hold_the_sign_between_them_are_refused(features, tmp_path):
    labels = [0, 1] if features else ["a|b", "c"]
    rows = [{"image": encode(0), "labels": labels}]
    table = write(tmp_path / "a.parquet", rows, features=features)

    _, [(_, problem)] = read_table(table, ["labels"])

    assert problem.what == f"'{table}' has a name with '|' in it, in ['a|b', 'c']"


def test_a_file_that_names_images_is_a_table_like_any_other(tmp_path):
    rows = [{"file_name": f"{number}.png", "label": label} for number, label in enumerate("xyx")]
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(encode(number))
    table = write(tmp_path / "a.parquet", rows)

    files, [(_, problem)] = read_table(table)

    assert [file.path for file in files] == [str(tmp_path / f"{number}.png") for number in range(3)]
    assert problem.what == f"a.parquet:3: no file '{tmp_path}/2.png'"


def test_rows_without_a_label_or_an_image_are_named(tmp_path):
    rows = [
        *make_rows(4),
        {"image": {"bytes": encode(9), "path": ""}, "label": -1},
        {"image": {"bytes": None, "path": "x.png"}, "label": 1},
    ]
    table = write(tmp_path / "a.parquet", rows, features=FEATURES)

    [(_, unlabelled)] = read_table(table)[1]
    with pytest.raises(DataError, match=f"inside:{table}#6: holds no bytes of an image"):
        scan(list_recipe("multilabel", table=write_flags(table, rows))[0], ScanSettings(),
             cache_dir=tmp_path / "cache")  # fmt: skip

    assert unlabelled.what == "a.parquet:5: no label"


def test_rows_without_an_image_are_no_hindrance_to_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    rows = make_rows(4)
    rows[1]["image"] = None
    rows[2]["image"] = {"bytes": None, "path": "gone.png"}
    table = write(tmp_path / "a.parquet", rows)

    inputs = list_inputs(table, None, print)

    gone = [tmp_path / "a.parquet#2", tmp_path / "a.parquet#3"]
    assert inputs.files[1:3] == list(inputs.missing) == gone
    assert [path.read_bytes() for path in (inputs.files[0], inputs.files[3])] == [
        rows[0]["image"]["bytes"], rows[3]["image"]["bytes"],
    ]  # fmt: skip
    with pytest.raises(DataError, match="a.parquet#2  holds no image"):
        list_inputs(gone, None, print)


def write_flags(path, rows):
    flags = [{"image": row["image"], "x": number % 2, "y": 1} for number, row in enumerate(rows)]
    return write(path, flags)


def test_a_damaged_image_is_broken_and_named_by_its_row(tmp_path):
    rows = [*make_rows(2), {"image": {"bytes": b"no image", "path": ""}, "label": 1}]
    table = write(tmp_path / "a.parquet", rows)

    *good, broken = inspect_images(
        [f"inside:{table}#{place}" for place in (1, 2, 3)], cache_dir=tmp_path / "cache"
    )

    assert [entry.verdict for entry in good] == ["good", "good"]
    assert broken.verdict == "broken" and "/3-" in broken.path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no Parquet", "cannot be read: "),
        (b"", "cannot be read: "),
        ([{"label": 1}], "has no column of images; it has label"),
    ],
)
def test_files_that_hold_something_else_are_refused(content, message, tmp_path):
    table = tmp_path / "a.parquet"
    table.write_bytes(content) if isinstance(content, bytes) else write(table, content)

    [(field, problem)] = list_recipe(table=table)[1]

    assert field == "table" and message in problem.what


def test_a_file_that_ends_in_its_images_is_refused_by_the_scan(tmp_path):
    table = write(tmp_path / "a.parquet", make_rows(300), row_group=300)
    listing = list_recipe(table=table)[0]
    data = bytearray(table.read_bytes())
    data[4:2000] = bytes(1996)
    table.write_bytes(data)

    with pytest.raises(DataError, match=r"a\.parquet' cannot be read"):
        scan(listing, ScanSettings(), cache_dir=tmp_path / "cache")


def test_without_pyarrow_the_message_says_what_to_install(tmp_path, monkeypatch):
    table = write(tmp_path / "a.parquet", make_rows())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)

    [(_, problem)] = list_recipe(table=table)[1]

    assert problem.what == f"'{table}' is a Parquet file, which the package pyarrow reads"
    assert problem.hint == "pip install 'tl-toolkit[parquet]'"


def test_rows_are_left_out_by_their_places(tmp_path):
    table = write(tmp_path / "a.parquet", make_rows(), features=FEATURES)
    (tmp_path / "exclude.csv").write_text("path\na.parquet#2\na.parquet#5\n")

    listing, problems = list_recipe(table=table, exclude=tmp_path / "exclude.csv")

    assert not problems
    assert [file.path.rpartition("#")[2] for file in listing.files] == list("134678")
    assert listing.excluded.describe().startswith("2 images left out")


def test_rows_to_leave_out_that_are_not_there_are_named(tmp_path):
    table = write(tmp_path / "a.parquet", make_rows(), features=FEATURES)
    write(tmp_path / "other/b.parquet", make_rows(2), features=FEATURES)
    rows = ["a.parquet#2", "a.parquet#999", "a.parquet#0", "other/b.parquet#2", "other/b.parquet#3"]
    (tmp_path / "exclude.csv").write_text("\n".join(["path", *rows]))

    listing, problems = list_recipe(table=table, exclude=tmp_path / "exclude.csv")

    lost = ("a.parquet#999", "a.parquet#0", "other/b.parquet#3")
    assert not problems
    assert listing.excluded.images == 1
    assert listing.excluded.missing == ", ".join(f"{tmp_path}/{name}" for name in lost)


def test_init_recognizes_parquet(tmp_path):
    write(tmp_path / "pets/data/train-0.parquet", make_rows(), features=FEATURES)

    tltool("init", "pets", "-o", "r.yaml", cwd=tmp_path)
    checked = tltool("validate", "r.yaml", cwd=tmp_path)

    assert "  table: pets\n" in (tmp_path / "r.yaml").read_text()
    assert "images   8 to be split" in checked.stderr


def test_init_takes_the_splits_of_parquet(tmp_path):
    for name in ("train", "validation", "test"):
        file = tmp_path / f"pets/data/{name}-00000-of-00001.parquet"
        write(file, make_rows(4), features=FEATURES)

    tltool("init", "pets", "-o", "r.yaml", cwd=tmp_path)
    checked = tltool("validate", "r.yaml", "data.leakage=allow", cwd=tmp_path)

    assert "validation:" not in (tmp_path / "r.yaml").read_text()
    assert "images   4 test, 4 train, 4 validation" in checked.stderr


def test_a_check_names_copies_and_damaged_images_in_parquet_by_their_rows(tmp_path):
    broken = {"image": {"bytes": b"no image", "path": "x.png"}, "label": 0}
    file = write(tmp_path / "a.parquet", [*make_rows(), make_rows()[1], broken], features=FEATURES)

    report = check_data(file)
    report.write_exclusions(tmp_path / "exclude.csv")
    report.write_sheet(tmp_path / "sheet.html")

    [copy], [unreadable] = report.of("duplicate"), report.of("unreadable")
    assert copy.paths == (f"{file}#2", f"{file}#9")
    assert unreadable.paths == (f"{file}#10",)
    assert report.shorten(copy.paths[0]) == "a.parquet#2"
    assert "\na.parquet#10," in (tmp_path / "exclude.csv").read_text()
    assert "data:image" in (tmp_path / "sheet.html").read_text()


def test_a_table_names_images_in_parquet_by_their_rows(tmp_path):
    file = write(tmp_path / "a.parquet", make_rows(), features=FEATURES)
    (tmp_path / "t.csv").write_text("path,label\na.parquet#3,dog\na.parquet#1,cat\n")

    files, problems = read_table(tmp_path / "t.csv", ["label"])
    verdicts = inspect_images([it.path for it in files], cache_dir=tmp_path / "cache")

    assert not problems
    assert [it.path for it in files] == [f"inside:{file}#3", f"inside:{file}#1"]
    assert [it.sha256 for it in verdicts] == [sha(encode(2)), sha(encode(0))]


def test_a_table_names_no_file_with_images_outside_its_folder(tmp_path):
    write(tmp_path / "a.parquet", make_rows(), features=FEATURES)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/t.csv").write_text("path,label\n../a.parquet#3,dog\n")

    _, [(_, problem)] = read_table(tmp_path / "inner/t.csv", ["label"])

    assert "names 1 image outside its folder" in problem.what


def test_a_split_of_parquet_is_a_table_that_goes_on(tmp_path):
    file = write(tmp_path / "a.parquet", make_rows(), features=FEATURES)

    split = split_data(file, output=tmp_path / "s.csv", validation=0.5, exact=True)
    again = split_data(file, output=tmp_path / "s.csv", validation=0.5, exact=True, seed=9)

    listing, problems = list_recipe(csv=tmp_path / "s.csv")
    assert not problems
    assert sorted(it.path for it in listing.files) == [f"inside:{file}#{n}" for n in range(1, 9)]
    assert sum(it.split == "validation" for it in listing.files) == 4
    assert [it.split for it in again.images] == [it.split for it in split.images]


@pytest.mark.slow
def test_a_run_on_parquet_is_that_on_the_same_files(tmp_path, monkeypatch):
    import tl_toolkit as tl

    random = np.random.default_rng(0)
    rows, lines = [], ["path,label"]
    for number in range(24):
        label = "ab"[number % 2]
        pixels = random.integers(0, 120, (32, 32, 3)).astype(np.uint8)
        pixels[:16] += 100 * (number % 2)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        data = (tmp_path / f"{number}.png").read_bytes()
        rows.append({"image": data, "label": label})
        lines.append(f"{number}.png,{label}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    write(tmp_path / "t.parquet", rows)
    runs = [
        tl.finetune(
            {
                "version": 1,
                "name": name,
                "data": {field: str(tmp_path / place), "image_size": 32, "batch_size": 8},
                "model": {"base": "lenet5", "weights": "random"},
                "phases": [{"name": "all", "epochs": 2, "learning_rate": 0.01, "unfreeze": 4}],
                "export": False,
            },
            out=tmp_path / name,
        )
        for name, field, place in (("files", "csv", "t.csv"), ("rows", "table", "t.parquet"))
    ]

    histories, locks = (
        [(run.folder.path / name).read_text() for run in runs]
        for name in ("phases/1-all/history.csv", "lock.json")
    )
    digests = [json.loads(lock)["data_sha256"] for lock in locks]
    assert histories[0] == histories[1]
    assert digests[0] == digests[1]
