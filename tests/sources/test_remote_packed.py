"""Parquet and TFRecord files on object stores: copied as a whole, once, and read as local ones."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

import tl_toolkit as tl
from tests.command import tltool
from tests.stores import count_reads, recipe_of
from tl_toolkit.api.inputs import list_inputs
from tl_toolkit.errors import DataError, OutputError
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import dump_recipe, read_recipe
from tl_toolkit.recipe.remote import mirror_of, mirror_of_file
from tl_toolkit.runs.files import name_draft
from tl_toolkit.sources import copies, objects, stores
from tl_toolkit.sources.addresses import find_source
from tl_toolkit.sources.remote import list_remote

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

PACKED = [("pets.parquet", ""), ("pets.tfrecord", ""), ("pets.tfrecord.gz", "GZIP")]


def write_packed(path, images, compression=""):
    """Writes images, and the folder that each lies in as its label."""
    rows = [{"image": image.read_bytes(), "label": image.parent.name} for image in images]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
        return path
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for row in rows:
            lists = {
                "image": tf.train.BytesList(value=[row["image"]]),
                "label": tf.train.BytesList(value=[row["label"].encode()]),
            }
            feature = {key: tf.train.Feature(bytes_list=values) for key, values in lists.items()}
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    return path


@pytest.fixture
def send(bucket, tmp_path):
    """Returns a function that writes the images of the bucket into a file, and sends it there."""
    images = sorted((tmp_path / "photos").glob("*/*.jpg"))

    def send(name, images=images, compression=""):
        file = write_packed(tmp_path / "packed" / name, images, compression)
        bucket[0].put(str(file), f"{bucket[1]}-packed/{name}")
        return f"{bucket[2]}-packed/{name}"

    send.folder, send.root, send.images = f"{bucket[2]}-packed", f"{bucket[1]}-packed", images
    return send


def survey(table, field="table", **data):
    recipe = check_recipe(read_recipe(recipe_of(None, **{field: table}, **data))).recipe
    return plan_task(recipe).survey().list_files()


@pytest.mark.parametrize(("name", "compression"), PACKED)
@pytest.mark.parametrize("field", ["table", "csv"])
def test_a_file_with_images_is_read_as_a_local_one(send, tmp_path, name, compression, field):
    address = send(name, compression=compression)

    listing = survey(address, field)
    local = survey(str(tmp_path / "packed" / name), field)

    rows = [(file.path.rpartition("#")[2], *file.targets) for file in listing.files]
    assert rows == [(file.path.rpartition("#")[2], *file.targets) for file in local.files]
    assert len(rows) == 10
    assert mirror_of_file(address).read_bytes() == (tmp_path / "packed" / name).read_bytes()


def test_the_recipe_keeps_the_address_and_the_name(send, tmp_path):
    address = send("pets.tfrecord.gz", compression="GZIP")
    recipe = check_recipe(read_recipe(recipe_of(None, table=address))).recipe
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))

    assert f'table: "{address}"' in dump_recipe(recipe)
    assert recipe.data.source_name == "pets"
    assert read_recipe(tmp_path / "recipe.yaml").recipe == recipe


def test_a_file_is_copied_once_for_each_of_its_states(send, bucket, monkeypatch):
    address = send("pets.parquet")
    read = count_reads(bucket[0], monkeypatch)

    survey(address)
    survey(address)
    assert read == [f"{send.root}/pets.parquet"]

    send("pets.parquet", send.images[1:])
    assert len(survey(address).files) == 9
    assert read == [f"{send.root}/pets.parquet"] * 2


def test_a_copy_that_was_touched_is_made_again(send, bucket, monkeypatch):
    address = send("pets.parquet")
    survey(address)
    place = mirror_of_file(address)
    whole = place.read_bytes()
    place.write_bytes(bytes(len(whole)))

    survey(address)

    assert place.read_bytes() == whole


def test_a_store_without_tags_is_asked_for_the_file_each_time(send, bucket, monkeypatch):
    address = send("pets.parquet")
    read = count_reads(bucket[0], monkeypatch)
    monkeypatch.setattr(stores, "_TAGS", ())

    survey(address)
    survey(address)

    assert len(read) == 2


@pytest.mark.parametrize("suffix", ["parquet", "tfrecord"])
def test_a_folder_of_files_has_their_splits(send, bucket, suffix, monkeypatch):
    send(f"data/train-00000-of-00002.{suffix}", send.images[:4])
    send(f"data/train-00001-of-00002.{suffix}", send.images[4:8])
    send(f"validation/0.{suffix}", send.images[1:9])
    read = count_reads(bucket[0], monkeypatch)

    first = survey(send.folder)
    again = survey(send.folder)

    assert [file.split for file in first.files] == ["train"] * 8 + ["validation"] * 8
    assert again == first
    assert len(read) == 3


def test_a_folder_that_is_called_like_a_file_is_named_with_a_slash(send, tmp_path):
    send("pets.parquet/part-0.parquet")

    with pytest.raises(DataError, match=r"no such object") as caught:
        survey(f"{send.folder}/pets.parquet")
    assert caught.value.problems[0].hint == (
        f"data.table={send.folder}/pets.parquet/ if it is a folder"
    )

    recipe = check_recipe(read_recipe(recipe_of(None, table=f"{send.folder}/pets.parquet/"))).recipe
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert len(survey(f"{send.folder}/pets.parquet/").files) == 10
    assert read_recipe(tmp_path / "recipe.yaml").recipe == recipe


@pytest.mark.parametrize("end", ["", "/"])
def test_commands_take_a_folder_that_is_called_like_a_file(send, tmp_path, monkeypatch, end):
    monkeypatch.chdir(tmp_path)
    send("pets.parquet/part-0.parquet")
    source = f"{send.folder}/pets.parquet{end}"

    checked = tltool("data", "check", source, "--no-features", cwd=tmp_path)
    tltool("data", "split", source, "-o", "split.csv", cwd=tmp_path)
    tltool("init", source, "-o", "new.yaml", "--base", "lenet5", cwd=tmp_path)
    validated = tltool("validate", "new.yaml", cwd=tmp_path)

    assert "10 images looked at" in checked.stderr
    assert f"\n{send.folder}/pets.parquet/part-0.parquet#1," in (tmp_path / "split.csv").read_text()
    assert f'  table: "{send.folder}/pets.parquet/"' in (tmp_path / "new.yaml").read_text()
    assert "images   10 to be split" in validated.stderr


def test_a_row_without_an_image_is_named_by_its_address(send, bucket, tmp_path):
    image = send.images[0].read_bytes()
    table = pa.Table.from_pylist([{"image": image, "label": "a"}, {"image": None, "label": "b"}])
    for name, rows in (("some", table), ("none", table.slice(1))):
        parquet.write_table(rows, tmp_path / f"{name}.parquet")
        bucket[0].put(str(tmp_path / f"{name}.parquet"), f"{send.root}/{name}.parquet")

    inputs = list_inputs(f"{send.folder}/some.parquet", None, print)

    assert [str(path) for path in inputs.missing] == [f"{send.folder}/some.parquet#2"]
    assert str(inputs.files[1]) == f"{send.folder}/some.parquet#2"
    with pytest.raises(DataError, match=rf"^{send.folder}/none.parquet  holds no image$"):
        list_inputs(f"{send.folder}/none.parquet", None, print)


@pytest.mark.parametrize(("name", "compression"), PACKED)
def test_one_row_of_a_file_is_predicted_by_its_address(
    send, bucket, monkeypatch, name, compression
):
    address = send(name, compression=compression)
    read = count_reads(bucket[0], monkeypatch)

    for item in (f"{address}#3", Path(f"{address}#3")):
        inputs = list_inputs(item, None, print)
        assert [path.read_bytes() for path in inputs.files] == [send.images[2].read_bytes()]

    assert not inputs.missing
    assert read == [f"{send.root}/{name}"]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("pets.parquet#99", "{}/pets.parquet#99  holds no image"),
        ("none.parquet#3", "{}/none.parquet  no such object"),
        ("pets.parquet#x", "without credentials"),
        ("pets.parquet?key=pets.parquet#3", "without credentials"),
    ],
)
def test_a_row_that_is_not_there_is_named_by_its_address(send, end, words):
    send("pets.parquet")

    with pytest.raises(DataError, match=re.escape(words.format(send.folder))):
        list_inputs(f"{send.folder}/{end}", None, print)


@pytest.mark.parametrize(
    ("name", "words"), [("pets.parquet", "cannot be read"), ("pets.tfrecord", "holds no TFRecord")]
)
def test_a_damaged_file_is_named_by_its_address(send, bucket, name, words):
    bucket[0].pipe(f"{send.root}/{name}", b"junk" * 30)
    address = f"{send.folder}/{name}"

    with pytest.raises(DataError, match=rf"^{address}  '{address}' {words}") as caught:
        list_inputs(address, None, print)

    assert str(mirror_of(send.folder)) not in str(caught.value)


def test_images_that_cannot_be_taken_out_are_named_by_the_address(send, bucket):
    address = send("pets.parquet")
    whole = bucket[0].cat(f"{send.root}/pets.parquet")
    bucket[0].pipe(f"{send.root}/pets.parquet", whole[:100] + bytes(300) + whole[400:])

    with pytest.raises(DataError, match=rf"^'{address}' cannot be read"):
        tl.check_data(address)


def test_a_listing_of_the_folder_leaves_the_copy_alone(send, bucket, monkeypatch):
    address = send("pets.parquet")
    survey(address)
    read = count_reads(bucket[0], monkeypatch)
    find_source(send.folder, "SOURCE")

    survey(address)

    assert read == []


def test_a_listing_leaves_an_older_copy_for_who_reads_it_yet(send, bucket):
    address = send("pets.parquet")
    survey(address)
    before = mirror_of_file(address).read_bytes()
    send("pets.parquet", send.images[1:])

    list_remote({"data.train": mirror_of(send.folder)})

    assert mirror_of_file(address).read_bytes() == before
    assert len(survey(address).files) == 9


def test_a_folder_per_class_copies_no_other_files(bucket, send, monkeypatch):
    send("ants/features.parquet")
    bucket[0].copy(f"{send.root}/ants/features.parquet", f"{bucket[1]}/features.parquet")
    read = count_reads(bucket[0], monkeypatch)

    find_source(bucket[2], "SOURCE")

    assert read == []


@pytest.mark.parametrize("is_folder", [False, True])
def test_offline_the_copy_is_taken(send, monkeypatch, is_folder):
    address = send("pets.parquet")
    source = send.folder if is_folder else address
    find_source(send.folder, "SOURCE")  # lists it, and copies the file
    mirror_of_file(address).unlink(missing_ok=True)
    (mirror_of(send.folder) / "pets.parquet").write_bytes(b"")  # as a listing has it
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")

    with pytest.raises(DataError, match=rf"data\.table: {source}  is not in the cache"):
        survey(source)
    monkeypatch.delenv("TL_TOOLKIT_OFFLINE")
    survey(source)
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")

    assert len(survey(source).files) == 10


def test_a_disk_without_room_is_named_before_the_copy(send, bucket, monkeypatch):
    address = send("pets.parquet")
    read = count_reads(bucket[0], monkeypatch)
    monkeypatch.setattr(
        copies.shutil, "disk_usage", lambda folder: SimpleNamespace(total=10**9, free=9)
    )

    with pytest.raises(
        OutputError, match=rf"{address}  has [\d,]+ bytes, and the disk of the cache has 9 left"
    ):
        survey(address)

    assert read == [] and not mirror_of_file(address).exists()


def test_a_large_file_is_named_while_it_is_copied(send, monkeypatch, caplog):
    address = send("pets.parquet")
    monkeypatch.setattr(copies, "_LARGE", 100)

    survey(address)
    survey(address)

    assert [record.getMessage() for record in caplog.records] == [
        f"{address}: copying 0.0 GB into the cache"
    ]


def test_a_file_that_grows_while_it_is_copied_is_refused(send, bucket, monkeypatch):
    address = send("pets.parquet")
    get = type(bucket[0]).get_file

    def grow(self, path, place, **options):
        get(self, path, place, **options)
        with open(place, "ab") as file:
            file.write(b"more")

    monkeypatch.setattr(type(bucket[0]), "get_file", grow)

    with pytest.raises(DataError, match="bytes, .* were listed"):
        survey(address)
    assert not mirror_of_file(address).exists()


def test_a_file_that_is_replaced_while_it_is_copied_is_refused(send, bucket, monkeypatch):
    address = send("pets.parquet")
    get = type(bucket[0]).get_file

    def replace(self, path, place, **options):
        get(self, path, place, **options)  # a part of it, as far as anybody can say
        self.pipe(path, bytes(self.size(path)))

    with monkeypatch.context() as patch:
        patch.setattr(type(bucket[0]), "get_file", replace)
        with pytest.raises(DataError, match=f"{address}  was changed while it was copied"):
            survey(address)
    assert not mirror_of_file(address).exists()
    send("pets.parquet")
    assert len(survey(address).files) == 10


def test_a_file_takes_the_place_of_a_folder_that_was_listed(send, bucket):
    send("data/pets.parquet/part-0.parquet")
    find_source(f"{send.folder}/data", "SOURCE")
    bucket[0].rm(f"{send.root}/data", recursive=True)
    send("pets.parquet")
    bucket[0].mv(f"{send.root}/pets.parquet", f"{send.root}/data/pets.parquet")

    assert len(survey(f"{send.folder}/data/pets.parquet").files) == 10


def test_what_a_killed_copy_has_left_is_removed(send):
    address = send("pets.parquet")
    draft = mirror_of_file(address).with_name(".pets.1.0123abcd.parquet")
    index = name_draft(draft.with_name(objects._LISTED))  # another process writes it without a lock
    draft.parent.mkdir(parents=True)
    draft.write_bytes(b"half")
    index.write_bytes(b"{")

    survey(address)

    assert not draft.exists() and index.exists()


def test_commands_name_rows_by_the_address(send, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address = send("pets.parquet", [*send.images, send.images[0]])

    report = tl.check_data(address)
    report.write_exclusions(tmp_path / "exclude.csv")
    tltool("data", "split", address, "-o", "split.csv", "--exact", cwd=tmp_path)
    with open("split.csv", newline="") as file:
        rows = [row["path"] for row in csv.DictReader(file)]

    assert report.root == send.folder
    assert report.of("duplicate")[0].paths == (f"{address}#1", f"{address}#11")
    assert f"\n{address}#11," in (tmp_path / "exclude.csv").read_text()
    assert rows == [f"{address}#{place}" for place in range(1, 12)]
    left = survey(address, exclude=str(tmp_path / "exclude.csv"))
    assert len(left.files) == 10 and not left.excluded.missing
    found = survey(str(tmp_path / "split.csv"), "csv", links="follow", leakage="allow").files
    assert [file.path for file in found] == [
        f"inside:{mirror_of_file(address)}#{place}" for place in range(1, 12)
    ]
    with pytest.raises(DataError, match="names 11 images outside its folder"):
        survey(str(tmp_path / "split.csv"), "csv", leakage="allow")


@pytest.mark.parametrize(("name", "compression"), PACKED)
def test_rows_to_leave_out_that_are_not_there_are_named(send, bucket, name, compression):
    address, other = send(name, compression=compression), send(f"other/{name}")
    secret = "s3://me:hunter2@b/pets.parquet#1"
    rows = f"path\n{name}#2\n{name}#999\nother/{name}#999\nnone/{name}#1\n{secret}\n"
    bucket[0].pipe(f"{send.root}/exclude.csv", rows.encode())

    excluded = survey(address, exclude=f"{send.folder}/exclude.csv").excluded

    assert excluded.images == 1
    assert excluded.missing == (
        f"{address}#999, {send.folder}/none/{name}#1, s3://...@b/pets.parquet#1"
    )
    assert not mirror_of_file(other).exists()  # no file of another set is copied for it


def test_a_table_on_the_store_names_rows_of_a_file_beside_it(send, bucket):
    address = send("pets.parquet")
    rows = "".join(f"pets.parquet#{place},{place % 2}\n" for place in range(1, 9))
    bucket[0].pipe(f"{send.root}/t.csv", f"path,label\n{rows}".encode())

    files = survey(f"{send.folder}/t.csv", "csv").files

    assert [file.path for file in files] == [
        f"inside:{mirror_of_file(address)}#{place}" for place in range(1, 9)
    ]


@pytest.mark.parametrize("is_folder", [False, True])
def test_init_writes_a_recipe_that_is_valid_and_asks_for_no_image(
    send, bucket, tmp_path, monkeypatch, is_folder
):
    monkeypatch.chdir(tmp_path)
    address = send("pets.parquet")
    source = send.folder if is_folder else address
    read, asked, info = count_reads(bucket[0], monkeypatch), set(), type(bucket[0]).info

    def record(self, path, **options):
        asked.add(path)
        return info(self, path, **options)

    monkeypatch.setattr(type(bucket[0]), "info", record)

    tltool("init", source, "-o", "new.yaml", "--base", "lenet5", cwd=tmp_path)
    checked = tltool("validate", "new.yaml", cwd=tmp_path)

    assert f'  table: "{source}"' in (tmp_path / "new.yaml").read_text()
    assert "images   10 to be split" in checked.stderr
    assert read == [f"{send.root}/pets.parquet"]
    assert asked <= {send.root, f"{send.root}/pets.parquet"}


def test_copies_are_counted_and_deleted_with_the_objects(send, tmp_path):
    address = send("pets.parquet")
    survey(address)
    size = mirror_of_file(address).stat().st_size

    before = json.loads(tltool("cache", "info", "--json", cwd=tmp_path).stdout)["copies"]
    words = tltool("cache", "info", cwd=tmp_path).stderr
    tltool("cache", "clear", cwd=tmp_path)
    after = json.loads(tltool("cache", "info", "--json", cwd=tmp_path).stdout)["copies"]

    assert before == {"folder": str(objects.mirror_of("s3://b").parent), "bytes": size, "files": 1}
    assert "1 copy of a file on a store" in words
    assert (after["files"], after["bytes"]) == (0, 0) and not mirror_of_file(address).exists()
    assert len(survey(address).files) == 10


def test_offline_a_folder_whose_copies_were_deleted_is_not_in_the_cache(
    send, tmp_path, monkeypatch
):
    send("pets.parquet")
    survey(send.folder)
    tltool("cache", "clear", cwd=tmp_path)
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")

    with pytest.raises(DataError, match=rf"data\.table: {send.folder}  is not in the cache"):
        survey(send.folder)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "compression"), PACKED)
def test_a_run_on_a_file_of_a_store_equals_one_on_a_local_copy(send, tmp_path, name, compression):
    address = send(name, compression=compression)
    place = tmp_path / "packed" / name
    local = tl.finetune(recipe_of(None, table=str(place)), out=tmp_path / "local")
    remote = tl.finetune(recipe_of(None, table=address), out=tmp_path / "remote")

    def metrics(run):
        values = json.loads((run.path / "metrics.json").read_text())
        return values["validation"], values["best"]

    digests = [
        [receipt.read_text() for receipt in sorted(run.path.glob("phases/*/receipt.json"))]
        for run in (local, remote)
    ]
    assert metrics(remote) == metrics(local)
    assert digests[0] == digests[1] != []
    assert f'table: "{address}"' in (remote.path / "recipe.yaml").read_text()
    others = remote.evaluate(address), local.evaluate(place)
    assert [values.pop("split") for values in others] == [address, str(place)]
    assert others[0] == others[1]
    assert len(remote.predict(address)) == 10
