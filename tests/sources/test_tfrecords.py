"""TFRecord files that TensorFlow writes: examples with images in them, in files and in shards."""

import gzip
import hashlib
import io
import json
import random
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import tensorflow as tf
from PIL import Image

import tl_toolkit as tl
from tests.command import tltool
from tests.tables import list_recipe
from tl_toolkit.api.inputs import list_inputs
from tl_toolkit.errors import DataError
from tl_toolkit.images.scan import ScanSettings, scan
from tl_toolkit.sources import packed, tfexamples
from tl_toolkit.sources.tables import read_header, read_table
from tl_toolkit.sources.tfrecords import read_images


def encode(number, kind="PNG"):
    """Returns an image file of one grey level."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number,) * 3).save(buffer, kind)
    return buffer.getvalue()


def as_feature(values):
    values = values if isinstance(values, list) else [values]
    if values and isinstance(values[0], str | bytes):
        texts = [value.encode() if isinstance(value, str) else value for value in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
    if values and isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def serialize(values):
    feature = {key: as_feature(value) for key, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def write(path, examples, options=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for values in examples:
            writer.write(values if isinstance(values, bytes) else serialize(values))
    return path


def make_examples(count=6, kind="PNG"):
    return [{"image": encode(number, kind), "label": number % 2} for number in range(count)]


def test_examples_are_listed_and_a_scan_reads_the_bytes_that_were_written(tmp_path):
    table = write(tmp_path / "a.tfrecord", make_examples())

    listing, problems = list_recipe(table=table)
    manifest = scan(listing, ScanSettings(), cache_dir=tmp_path / "cache")

    assert not problems
    assert listing.classes == ("0", "1")
    assert [file.path for file in listing.files] == [f"inside:{table}#{n}" for n in range(1, 7)]
    digests = [hashlib.sha256(encode(number)).hexdigest() for number in range(6)]
    assert [entry.sha256 for entry in manifest.examples] == digests


def test_keys_of_imagenet_are_known_and_text_comes_before_its_number(tmp_path):
    examples = [
        {
            "image/encoded": encode(number, "JPEG"),
            "image/class/label": number,
            "image/class/text": text,
            "image/format": "JPEG",
        }
        for number, text in enumerate(["BMW", "ärger"])
    ]

    files, problems = read_table(write(tmp_path / "train-00000-of-00001", examples))

    assert not problems
    assert [file.targets for file in files] == [("BMW",), ("ärger",)]
    assert [data for _, data in read_images(tmp_path / "train-00000-of-00001", [2])] == [
        encode(1, "JPEG")
    ]


def test_values_of_all_kinds_are_cells(tmp_path):
    values = {
        "a": encode(0, "BMP"),
        "brand": "BMW, which is no image although it begins so",
        "floats": [0.1, -2.0, 1e-8],
        "none": [],
        "numbers": [1, -1, 1 << 62, -(1 << 63)],
        "pixels": list(range(1001)),
        "raw": b"\xff\x00",
        "words": ["x", "y"],
    }
    table = write(tmp_path / "a.tfrecords", [values])

    files, problems = read_table(table, list(values)[1:], refuse=lambda column, value: "")

    assert not problems
    assert read_header(table, expected="")[0] == ("path", *list(values)[1:])
    assert files[0].targets == (
        values["brand"], "0.1|-2|1e-08", "", f"1|-1|{1 << 62}|{-(1 << 63)}", "", "", "x|y"
    )  # fmt: skip


def test_a_folder_that_tfds_prepared_has_splits_and_names_of_classes(tmp_path):
    folder = tmp_path / "pets/1.0.0"
    for split, count in (("train", 4), ("test", 2)):
        write(folder / f"pets-{split}.tfrecord-00000-of-00001", make_examples(count))
    (folder / "label.labels.txt").write_text("cat\ndog\n")
    (folder / "dataset_info.json").write_text("{}")

    listing, problems = list_recipe(table=folder)

    assert not problems
    assert listing.classes == ("cat", "dog")
    assert listing.count() == {"test": {"cat": 1, "dog": 1}, None: {"cat": 2, "dog": 2}}


def test_names_of_classes_that_are_not_utf8_are_refused_by_their_file(tmp_path):
    write(tmp_path / "pets-train.tfrecord-00000-of-00001", make_examples())
    (tmp_path / "label.labels.txt").write_bytes(b"caf\xe9\ndog\n")

    [(_, problem)] = list_recipe(table=tmp_path)[1]

    assert problem.what == f"'{tmp_path}/label.labels.txt' is not UTF-8"


@pytest.mark.parametrize(("labels", "file"), [([0, 1], "a|b\nc\n"), (["a|b", "c"], "")])
def test_names_of_a_list_that_hold_the_sign_between_them_are_refused(labels, file, tmp_path):
    table = write(tmp_path / "a.tfrecord", [{"image": encode(0), "labels": labels}])
    if file:
        (tmp_path / "labels.labels.txt").write_text(file)

    _, [(_, problem)] = read_table(table, ["labels"])

    assert "has a name with '|' in it" in problem.what and "a|b" in problem.what


def test_a_record_whose_length_begins_as_gzip_does_is_read(tmp_path):
    length, example = 0x8B1F, {"image": encode(0) + bytes(35_000), "label": "x"}
    example["image"] += bytes(length - len(serialize(example)))
    assert len(serialize(example)) == length

    files, problems = read_table(write(tmp_path / "a.tfrecord", [example]))

    assert not problems and [file.targets for file in files] == [("x",)]


def test_large_examples_are_stepped_over_without_being_read(tmp_path, monkeypatch):
    examples = [{"image": encode(9) + bytes(1 << 20), "label": number % 2} for number in range(8)]
    table = write(tmp_path / "a.tfrecord", examples)
    read = []

    class Counted(tfexamples.RecordFile):
        def __init__(self, file, size):
            super().__init__(self, size)
            self._open = file

        def seek(self, place):
            self._open.seek(place)

        # The file under the blocks, which counts what is read of it.
        def read(self, span):
            if isinstance(span, int):
                read.append(span)
                return self._open.read(span)
            return super().read(span)

    monkeypatch.setattr(tfexamples, "RecordFile", Counted)

    files, problems = read_table(table)

    assert not problems and len(files) == 8
    assert sum(read) < 0.3 * table.stat().st_size


def damage(path, place, data):
    content = bytearray(path.read_bytes())
    content[place : place + len(data)] = data
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"no records at all, but text"), "holds no TFRecord"),
        (lambda path: path.write_bytes(b"short"), "ends within a record, at byte 0"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "ends within a record, at byte "),
        (lambda path: damage(path, 0, struct.pack("<Q", 1 << 60)), "holds no TFRecord"),
        (lambda path: write(path, [serialize(make_examples(1)[0]), b"\x0a\x7f\x0a"]),
         "holds no tf.train.Example"),
        (lambda path: write(path, [b"\xff" * 40]), "holds no tf.train.Example"),
        (lambda path: write(path, [{"label": 1}]),
         "has no encoded image in its first example, whose keys are label"),
        (lambda path: spoil_packed(path, lambda data: data[:-9]),
         "is compressed, and ends before its data do; write or fetch it again"),
        (lambda path: spoil_packed(path, lambda data: data[:10]), "is compressed, and ends before"),
        (lambda path: spoil_packed(path, lambda data: data[:-8] + b"\1\2\3\4" + data[-4:]),
         "is compressed, and damaged: incorrect data check"),
        (lambda path: spoil_packed(path, lambda data: data + b"PK"),
         "is compressed, and damaged: incorrect header check"),
        (lambda path: path.write_bytes(gzip.compress(path.read_bytes()[:-5])),
         "ends within a record, at byte "),
        (lambda path: path.write_bytes(gzip.compress(b"no records at all, but text")),
         "holds no TFRecord"),
        (lambda path: path.write_bytes(zlib.compress(path.read_bytes())[:-1]),
         "is compressed, and ends before its data do; write or fetch it again"),
        (lambda path: path.write_bytes(zlib.compress(path.read_bytes())[:-1] + b"\0"),
         "is compressed, and damaged: incorrect data check"),
    ],
)  # fmt: skip
def test_files_that_hold_something_else_are_refused(spoil, message, tmp_path):
    table = write(tmp_path / "a.tfrecord", make_examples())
    spoil(table)

    [(field, problem)] = list_recipe(table=table)[1]
    with pytest.raises(DataError):
        list(read_images(table, [1, 2, 6]))

    assert field == "table" and message in problem.what


def spoil_packed(path, spoil):
    path.write_bytes(spoil(gzip.compress(path.read_bytes())))


@pytest.mark.parametrize(
    ("compression", "name"),
    [("GZIP", "a.tfrecord"), ("GZIP", "a.tfrecord.gz"), ("ZLIB", "a-train-00000-of-00001")],
)
def test_a_compressed_file_has_the_rows_and_the_images_of_a_plain_one(compression, name, tmp_path):
    plain = write(tmp_path / "plain.tfrecord", make_examples(40))
    options = tf.io.TFRecordOptions(compression_type=compression)
    table = write(tmp_path / name, make_examples(40), options)
    before = table.read_bytes()
    assert not before.startswith(plain.read_bytes()[:8])

    listing, problems = list_recipe(table=table)
    manifest = scan(listing, ScanSettings(), cache_dir=tmp_path / "cache")

    assert not problems
    assert [file.path for file in listing.files] == [f"inside:{table}#{n}" for n in range(1, 41)]
    assert [entry.sha256 for entry in manifest.examples] == [
        entry.sha256
        for entry in scan(
            list_recipe(table=plain)[0], ScanSettings(), cache_dir=tmp_path / "cache"
        ).examples
    ]
    assert [row for row, _ in read_images(table, [40, 7])] == [7, 40]
    assert table.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["cache", name, plain.name])


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """A compressed file of 24 examples."""
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    return write(tmp_path / "pets.tfrecord.gz", make_examples(24), options)


def train_on(source, out):
    return tl.finetune(
        tl.Recipe(
            version=1,
            name="pets",
            data={"image_size": 32, "batch_size": 8, **source},
            model={"base": "lenet5", "weights": "random"},
            phases=[{"name": "head", "epochs": 1, "learning_rate": 0.01}],
            export=False,
            report=False,
            yardsticks=False,
        ),
        out=out,
    )


@pytest.mark.slow
def test_a_run_on_a_compressed_file_is_checked_trained_and_measured(pets, tmp_path):
    checked = tltool("data", "check", pets.name, "--json", cwd=tmp_path)

    run = train_on({"table": str(pets), "validation": 0.25}, tmp_path / "run")

    whole, rows = (
        [it.as_record() for it in run.predict(paths)]
        for paths in (pets, [f"{pets}#24", f"{pets}#3"])
    )
    printed = tltool("predict", "run", f"{pets.name}#7", cwd=tmp_path).stdout
    assert json.loads(checked.stdout)["images"] == 24
    assert len(whole) == 24
    assert [Path(it["path"]).name.split("-")[0] for it in rows] == ["24", "3"]
    assert rows == [whole[23], whole[2]]
    assert whole[6]["label"] in printed
    assert run.evaluate()["accuracy"] == run.metrics["validation"]["accuracy"]
    assert run.recipe.data.source_name == "pets"


@pytest.mark.slow
def test_a_run_on_the_splits_of_a_compressed_file_is_measured(pets, tmp_path):
    tltool("data", "split", pets.name, "-o", "splits.csv", cwd=tmp_path)

    run = train_on({"csv": str(tmp_path / "splits.csv")}, tmp_path / "run")

    assert len(run.predict(pets)) == 24
    assert run.evaluate()["accuracy"] == run.metrics["validation"]["accuracy"]


def test_rows_that_cannot_be_predicted_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    table = write(tmp_path / "a.tfrecord", make_examples(3))
    spoiled = tmp_path / "b.tfrecord.gz"
    spoiled.write_bytes(gzip.compress(table.read_bytes())[:-9])

    inputs = list_inputs([f"{table}#2", f"{table}#4", spoiled], None, print)

    assert [path.name.split("-")[0] for path in inputs.files[:1]] == ["2"]
    problems = [problem.what for problem in inputs.missing.values()]
    assert problems[0] == "holds no image"
    assert "is compressed, and ends before its data do" in problems[1]
    assert inputs.missing[spoiled].where == str(spoiled)


def test_compressed_parts_that_were_joined_are_one_file(tmp_path):
    content = write(tmp_path / "a.tfrecord", make_examples()).read_bytes()
    table = tmp_path / "b.tfrecord.gz"
    table.write_bytes(gzip.compress(content) + gzip.compress(content[:20]))
    with open(table, "ab") as file:
        file.write(gzip.compress(content[20:]))

    files, problems = read_table(table)

    assert not problems and len(files) == 12


def test_a_compressed_file_of_large_records_holds_one_at_a_time(tmp_path, monkeypatch):
    noise = random.Random(0).randbytes(3 << 20)
    examples = [{"image": encode(9) + noise, "label": number % 2} for number in range(3)]
    table = write(tmp_path / "a.tfrecord", examples)
    table.write_bytes(gzip.compress(table.read_bytes(), 1))
    monkeypatch.setattr(packed, "_MOST_HELD", 4 << 20)

    files, problems = read_table(table)

    assert not problems and len(files) == 3
    assert [data for _, data in read_images(table, [3])] == [examples[2]["image"]]


def bomb(path, claimed):
    """Writes a record that claims some bytes, and far more zeros than a file of images has."""
    head = struct.pack("<Q", claimed)
    record = head + struct.pack("<I", tfexamples._sum(head))
    content = write(path, make_examples()).read_bytes() + record + bytes(64 << 20)
    path.write_bytes(gzip.compress(content, 1))
    return path


def test_a_compressed_file_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    table = bomb(tmp_path / "a.tfrecord", claimed=60 << 20)
    monkeypatch.setattr(packed, "_SMALL", 1 << 20)

    [(_, problem)] = list_recipe(table=table)[1]

    # 64 MiB of zeros are packed to 290 kB.
    assert re.search(r"unpacks to more than 5\d MiB, and has 2\d\d,\d\d\d bytes", problem.what)


@pytest.mark.parametrize("claimed", [600 << 20, 1 << 60])
def test_a_compressed_record_that_memory_cannot_hold_is_refused(claimed, tmp_path):
    table = bomb(tmp_path / "a.tfrecord", claimed)

    [(_, problem)] = list_recipe(table=table)[1]

    assert "has an example of more than 512 MiB" in problem.what


def test_an_empty_file_has_no_rows(tmp_path):
    (tmp_path / "a.tfrecord").write_bytes(b"")

    [(_, problem)] = list_recipe(table=tmp_path / "a.tfrecord")[1]

    assert "has no column label" in problem.what


def test_listing_imports_no_library_in_a_process_of_its_own(tmp_path):
    """In a process of its own: this one has imported them all."""
    write(tmp_path / "a.tfrecord", make_examples())
    (tmp_path / "0.png").write_bytes(encode(0))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.png", "label": "x"}\n')
    image = {"id": 1, "file_name": "0.png", "height": 8, "width": 8}
    parts = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "coco.json").write_text(json.dumps(parts))
    code = (
        "import sys; from pathlib import Path\n"
        "from tl_toolkit.sources.coco_listing import list_coco\n"
        "from tl_toolkit.sources.tables import read_table\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "assert len(read_table(folder / 'a.tfrecord')[0]) == 6\n"
        "assert len(read_table(folder / 'metadata.jsonl')[0]) == 1\n"
        "coco = list_coco(folder / 'coco.json', 'train', ['none', 'x'], where='')\n"
        "assert len(coco[0]) == 1\n"
        "heavy = {'numpy', 'tensorflow', 'keras', 'pyarrow', 'PIL'}\n"
        "print(heavy & set(sys.modules))"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert result.stdout.strip() == "set()", result.stderr
