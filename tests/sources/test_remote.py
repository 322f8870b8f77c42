"""Folders on object stores: listed as local ones, read object by object, without a secret."""

import html
import json
import logging
import os
import sys
import threading
import traceback
from contextlib import closing
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

import tl_toolkit as tl
from tests.stores import count_reads, recipe_of
from tl_toolkit.api import report as api_report
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.images.pipeline import Images
from tl_toolkit.images.scan import ScanSettings, scan
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import dump_recipe, read_recipe
from tl_toolkit.recipe.remote import (
    find_address,
    find_address_fault,
    hide_credentials,
    mirror_of,
)
from tl_toolkit.runs.locks import hold
from tl_toolkit.sources import objects, stores
from tl_toolkit.sources.object_cache import ObjectCache
from tl_toolkit.sources.objects import read_image_file, stat_image
from tl_toolkit.sources.read_ahead import ReadAhead
from tl_toolkit.sources.remote import list_remote
from tl_toolkit.sources.survey import list_images

SECRET = "hunter2"


pytestmark = pytest.mark.usefixtures("quick_and_forgetful")


def plan(address, **data):
    return check_recipe(read_recipe(recipe_of(address, **data)))


def survey(address, **data):
    plan(address, **data)
    return plan_task(read_recipe(recipe_of(address, **data)).recipe).survey().list_files()


def inspect(address, **settings):
    return scan(survey(address), ScanSettings(**settings))


def names_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*") if path.is_file())


def images_in(folder):
    return [name for name in names_of(folder) if not name.startswith(".")]


def test_a_folder_is_listed_and_the_recipe_keeps_its_address(bucket, tmp_path, monkeypatch):
    system, root, address = bucket
    read = count_reads(system, monkeypatch)

    found = plan(address)

    folder = mirror_of(address)
    assert read == []
    assert found.classes == ("ants", "bees")
    assert find_address(folder) == address
    assert [(folder / name).stat().st_size for name in images_in(folder)] == [0] * 10
    assert f'train: "{address}"' in dump_recipe(found.recipe)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(found.recipe))
    assert read_recipe(tmp_path / "recipe.yaml").recipe == found.recipe
    assert found.recipe.data.source_name == "photos"


def test_an_object_has_the_state_and_the_bytes_that_the_store_says(bucket):
    system, root, address = bucket

    for file in survey(address).files:
        encoded = system.cat(file.path.replace("memory:/", ""))
        assert read_image_file(file.path) == encoded
        assert stat_image(file.path).st_size == len(encoded)


def test_a_scan_reads_each_object_once_and_a_second_one_reads_none(bucket, monkeypatch):
    system, root, address = bucket
    read = count_reads(system, monkeypatch)

    first = inspect(address)
    assert sorted(read) == sorted({path.replace("memory:/", "") for path in read})
    assert len(read) == 10
    monkeypatch.setenv("TL_TOOLKIT_REMOTE_GB", "0")
    second = inspect(address)

    assert len(read) == 10
    assert first == second
    assert {entry.path for entry in first.examples} == {
        f"{address}/{name}" for name in images_in(mirror_of(address))
    }


def test_an_object_that_changed_is_inspected_again(bucket, monkeypatch):
    system, root, address = bucket
    before = {entry.path: entry.sha256 for entry in inspect(address).examples}
    system.pipe(f"{root}/ants/0.jpg", system.cat(f"{root}/bees/1.jpg"))
    system.rm(f"{root}/ants/1.jpg")
    read = count_reads(system, monkeypatch)

    after = {entry.path: entry.sha256 for entry in inspect(address).examples}

    assert read == [f"{root}/ants/0.jpg"]
    assert after.pop(f"{address}/ants/0.jpg") == before[f"{address}/bees/1.jpg"]
    assert before.pop(f"{address}/ants/1.jpg") and before.pop(f"{address}/ants/0.jpg")
    assert after == before


@pytest.mark.parametrize("change", ["other", "shorter", "gone"])
def test_an_object_that_changed_since_the_scan_is_named(bucket, monkeypatch, change):
    system, root, address = bucket
    monkeypatch.setenv("TL_TOOLKIT_REMOTE_GB", "0")
    images = Images(inspect(address).examples, image_size=(32, 32), memory_budget=0)
    content = system.cat(f"{root}/ants/0.jpg")
    system.pipe(f"{root}/ants/0.jpg", content[::-1] if change == "other" else content[:-1])
    if change == "gone":
        system.rm(f"{root}/ants/0.jpg")
    words = {"other": "is not the image", "shorter": r"has \d+ bytes", "gone": "no such object"}

    with pytest.raises(DataError, match=f"{address}/ants/0.jpg.*{words[change]}"):
        images.load(range(len(images)))


def test_pixels_equal_those_of_a_local_folder(bucket, tmp_path):
    remote = Images(inspect(bucket[2]).examples, image_size=(32, 32))
    local = Images(inspect(str(tmp_path / "photos")).examples, image_size=(32, 32))

    order = range(len(local) - 1, -1, -1)
    batches = zip(remote.batches(order, 3), local.batches(order, 3), strict=True)

    assert all((a == c).all() and (b == d).all() for (a, b), (c, d) in batches)


def test_the_cache_stays_within_its_budget_and_keeps_what_was_read_last(bucket, monkeypatch):
    system, root, address = bucket
    size = max(system.size(f"{root}/{name}") for name in ("ants/0.jpg", "bees/4.jpg")) + 64
    monkeypatch.setenv("TL_TOOLKIT_REMOTE_GB", str(4 * size / 1e9))
    files = [file.path for file in survey(address).files]

    for path in files:
        read_image_file(path)
        held = [file.stat().st_size for file in Path(os.environ["TL_TOOLKIT_CACHE"]).glob(
            "objects/*/*")]  # fmt: skip
        assert 0 < sum(held) <= 4 * size
    read = count_reads(system, monkeypatch)
    read_image_file(files[-1])
    assert read == []
    read_image_file(files[0])
    assert len(read) == 1


def test_a_damaged_file_of_the_cache_is_read_from_the_store_again(bucket, tmp_path, monkeypatch):
    path = survey(bucket[2]).files[0].path
    encoded = read_image_file(path)
    (held,) = (tmp_path / "cache" / "objects").glob("*/*")
    held.write_bytes(held.read_bytes()[:-1] + b"x")
    read = count_reads(bucket[0], monkeypatch)

    assert read_image_file(path) == encoded
    assert len(read) == 1


def test_a_cache_that_is_cleared_meanwhile_keeps_what_comes_later(tmp_path, monkeypatch, caplog):
    cache, write = ObjectCache(tmp_path / "objects", 10**6), Path.write_bytes

    def write_and_clear(path, content):
        write(path, content)
        ObjectCache(tmp_path / "objects", 10**6).clear()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_and_clear)
        cache.put("a", b"lost")
    cache.put("b", b"kept")

    assert (cache.get("a"), cache.get("b")) == (None, b"kept")
    assert not caplog.records


def test_a_cache_that_cannot_be_written_keeps_nothing(bucket, tmp_path, caplog):
    path = survey(bucket[2]).files[0].path
    (tmp_path / "cache" / "objects").write_bytes(b"a file")

    assert read_image_file(path)
    assert "objects are not kept in the cache" in caplog.text


def test_a_store_without_its_package_names_it(tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path))

    with pytest.raises(DataError, match=r"needs gcsfs, which is not installed\. Try: pip install"):
        plan("gs://bucket/photos")


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("s3://bucket/photos", r'pip install "tl-toolkit\[s3\]"'),
        ("gs://bucket/photos", "pip install gcsfs"),  # which brings fsspec
        ("file:///photos", "pip install fsspec"),
    ],
)
def test_without_fsspec_one_command_brings_all_that_an_address_takes(
    address, hint, tmp_path, monkeypatch
):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(stores, "_systems", {})
    monkeypatch.setitem(sys.modules, "fsspec", None)

    with pytest.raises(DataError, match=f"needs fsspec, which is not installed. Try: {hint}"):
        plan(address)


def test_offline_the_last_listing_and_the_cache_are_taken(bucket, monkeypatch):
    system, root, address = bucket
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    with pytest.raises(DataError, match=r"is not in the cache"):
        plan(address)
    monkeypatch.delenv("TL_TOOLKIT_OFFLINE")
    known = inspect(address)
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    monkeypatch.setattr(objects, "_facts", {})  # as in a new process
    system.rm(f"{root}/ants/0.jpg")

    assert inspect(address) == known
    assert len(Images(known.examples, image_size=(32, 32)).load(range(10))) == 10
    with pytest.raises(DataError, match="ants/9.jpg  is not in the cache"):
        read_image_file(f"{address}/ants/9.jpg")


def test_offline_images_to_predict_are_those_of_the_cache(bucket, monkeypatch):
    system, root, address = bucket
    image, folder = f"{address}/ants/0.jpg", f"{address}/bees"
    for path in (*list_images(image), *list_images(folder)):
        read_image_file(path)
    kept = system.cat(f"{root}/ants/0.jpg")
    monkeypatch.setattr(objects, "_facts", {})  # as in a new process
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    asked = []
    for name in ("find", "info", "cat_file"):
        monkeypatch.setattr(type(system), name, lambda *a, **options: asked.append(a))

    assert list(map(str, list_images(image))) == [image]
    assert read_image_file(image) == kept
    assert list(map(str, list_images(folder))) == [f"{folder}/{number}.jpg" for number in range(5)]
    assert len(read_image_file(f"{folder}/4.jpg")) > 0
    for other in (f"{address}/ants/1.jpg", f"{address}/ants"):
        with pytest.raises(DataError, match=f"(?s)^{other}  is not in the cache.*Try: the same"):
            list_images(other)
    assert asked == []


def test_offline_an_object_whose_bytes_are_gone_is_not_in_the_cache(bucket, monkeypatch):
    image = f"{bucket[2]}/ants/0.jpg"
    plan(bucket[2])  # the folder is listed, and no image is read

    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    with pytest.raises(DataError, match=f"{image}  is not in the cache"):
        list_images(image)


def test_offline_a_folder_of_a_recipe_is_listed_as_the_recipe_listed_it(bucket, monkeypatch):
    plan(bucket[2])
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    monkeypatch.setattr(objects, "_facts", {})
    monkeypatch.setattr(type(bucket[0]), "find", None)  # it would be called

    assert len(list_images(bucket[2])) == 10
    assert len(list_images(f"{bucket[2]}/bees")) == 5


def fail_at(system, monkeypatch, *places):
    """Lets some requests fail, by their number."""
    read, cat_file, lock = [], type(system).cat_file, threading.Lock()

    def cat(self, path, *arguments, **options):
        with lock:
            read.append(path)
            fails = len(read) in places
        if fails:
            raise OSError("the connection was lost")
        return cat_file(self, path, *arguments, **options)

    monkeypatch.setattr(type(system), "cat_file", cat)
    return read


def test_a_request_that_fails_is_tried_again(bucket, monkeypatch):
    read = fail_at(bucket[0], monkeypatch, 2, 3)

    assert len(inspect(bucket[2]).examples) == 10
    assert len(read) == 12


def test_a_store_that_stays_away_is_no_broken_image(bucket, monkeypatch):
    fail_at(bucket[0], monkeypatch, *range(4, 200))

    with pytest.raises(DataError, match=f"(?s){bucket[2]}/.*the connection was lost.*resume"):
        inspect(bucket[2], broken="skip")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("The specified bucket does not exist"),
        PermissionError("Access Denied"),
        ValueError("Invalid endpoint: localhost:9000"),
        type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"),
    ],
)
def test_an_error_of_settings_says_what_to_set_and_not_that_it_may_pass(error):
    def fail():
        raise error

    with pytest.raises(DataError) as caught:
        stores.try_request("data.train: s3://nowhere/photos", fail)
    assert "--resume" not in str(caught.value)
    for name in ("bucket and folder", "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL, with http://"):
        assert name in caught.value.problems[0].hint

    with pytest.raises(DataError) as caught:
        stores.try_request("data.train: gs://nowhere/photos", fail)
    assert "bucket and folder" in caught.value.problems[0].hint
    assert "AWS" not in str(caught.value)


def test_what_was_inspected_before_a_failure_is_not_read_again(bucket, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_REMOTE_GB", "0")
    monkeypatch.setattr(objects, "count_readers", lambda paths: 1)
    monkeypatch.setattr("tl_toolkit.images.scan.count_readers", lambda paths: 1)
    with monkeypatch.context() as patch:
        fail_at(bucket[0], patch, *range(4, 200))
        with pytest.raises(DataError, match="the connection was lost"):
            inspect(bucket[2])
    read = count_reads(bucket[0], monkeypatch)
    inspect(bucket[2])

    assert len(read) == 7


def test_a_table_names_objects(bucket, tmp_path, monkeypatch):
    system, root, address = bucket
    lines = [
        f"{address}/{name}/{number}.jpg,{name}" for name in ("ants", "bees") for number in range(5)
    ]
    table = tmp_path / "photos.csv"
    table.write_text("\n".join(["path,label", *lines]))
    data = {"csv": str(table), "links": "follow", "image_size": 32}
    recipe = {**recipe_of(address), "data": data}

    found = check_recipe(read_recipe(recipe))
    listing = plan_task(found.recipe).survey().list_files()

    assert listing.files == tuple(
        file for file in survey(address).files if file.path.startswith(address)
    )
    table.write_text("\n".join(["path,label", *lines, f"{address}/ants/9.jpg,ants"]))
    with pytest.raises(DataError, match=f"no object {address}/ants/9.jpg"):
        check_recipe(read_recipe(recipe))
    table.write_text(f"path,label\ns3://me:{SECRET}@b/0.jpg,ants\n{lines[0]}\n{lines[-1]}")
    with pytest.raises(DataError, match="without credentials") as caught:
        check_recipe(read_recipe(recipe))
    assert SECRET not in str(caught.value)


def test_images_are_left_out_by_their_addresses(bucket, tmp_path):
    table = tmp_path / "exclude.csv"
    table.write_text(f"path\n{bucket[2]}/ants/0.jpg\n")

    listing = survey(bucket[2], exclude=str(table))

    assert len(listing.files) == 9
    assert listing.excluded.images == 1 and not listing.excluded.missing


def test_a_folder_of_a_store_is_checked_as_one_of_files(bucket, tmp_path):
    table = tmp_path / "exclude.csv"
    bucket[0].copy(f"{bucket[1]}/ants/0.jpg", f"{bucket[1]}/ants/9.jpg")

    report = tl.check_data(bucket[2])
    report.write_exclusions(table)

    assert (report.source, report.root, report.images) == (bucket[2], bucket[2], 11)
    assert [finding.paths for finding in report.of("duplicate")] == [
        (f"{bucket[2]}/ants/0.jpg", f"{bucket[2]}/ants/9.jpg")
    ]
    assert len(survey(bucket[2], exclude=str(table)).files) == 10


def mirror(address):
    list_remote({"data.train": mirror_of(address)})
    return mirror_of(address)


def add_to_listing(monkeypatch, system, names, facts):
    """Lets a store list objects whose names nobody could give a file."""
    find = system.find
    listed = {name: {"size": 4, "type": "file", **facts} for name in names}
    monkeypatch.setattr(system, "find", lambda *a, **b: {**find(*a, **b), **listed})


@pytest.mark.parametrize(
    "name",
    ["{}/../out.jpg", "{}/ants/../../out.jpg", "{}//out.jpg", "/out.jpg", "{}-other/out.jpg",
     "{}/.mirror.json", "{}"],
)  # fmt: skip
def test_names_that_lead_out_of_the_folder_are_left_out(bucket, monkeypatch, name):
    system, root, address = bucket
    add_to_listing(monkeypatch, system, [name.format(root)], {})

    folder = mirror(address)

    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert len([name for name in names_of(folder) if not name.startswith(".")]) == 10


def test_links_and_pipes_are_left_out(bucket, tmp_path):
    (tmp_path / "photos" / "ants" / "link.jpg").symlink_to(tmp_path / "photos" / "bees" / "0.jpg")
    os.mkfifo(tmp_path / "photos" / "ants" / "pipe.jpg")

    folder = mirror(f"file://{tmp_path}/photos")

    assert not {"ants/link.jpg", "ants/pipe.jpg"} & set(names_of(folder))
    assert "ants/0.jpg" in names_of(folder)


def test_what_a_killed_call_has_left_is_removed_with_the_folders_it_empties(bucket):
    system, root, address = bucket
    folder = mirror(address)
    (folder / "wasps").mkdir()
    (folder / "wasps" / "0.jpg").write_bytes(b"of a call that was killed before its index")

    mirror(address)

    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["ants", "bees"]


def test_an_object_that_marks_a_folder_is_no_file(bucket, monkeypatch):
    system, root, address = bucket
    system.pipe(f"{root}/bees/new/er/9.jpg", system.cat(f"{root}/ants/0.jpg"))
    for folder in ("ants", "bees/new", "bees/new/er"):  # as a real store may hold them
        monkeypatch.setitem(system.store, f"{root}/{folder}", system.store[f"{root}/ants/0.jpg"])

    assert sorted(file.path for file in survey(address).files) == sorted(
        [f"{address}/{name}/{number}.jpg" for name in ("ants", "bees") for number in range(5)]
        + [f"{address}/bees/new/er/9.jpg"]
    )


def test_a_file_that_became_a_folder_is_mirrored_and_back(bucket):
    system, root, address = bucket
    system.pipe(f"{root}/cats", b"file")
    folder = mirror(address)
    assert (folder / "cats").is_file()

    system.rm(f"{root}/cats")
    system.pipe(f"{root}/cats/0.jpg", b"in a folder")
    mirror(address)
    assert (folder / "cats" / "0.jpg").is_file()

    system.rm(f"{root}/cats", recursive=True)
    system.pipe(f"{root}/cats", b"file")
    mirror(address)
    assert (folder / "cats").is_file()


def test_a_name_as_long_as_a_file_may_have_is_listed(bucket):
    system, root, address = bucket
    name = "a" * 251 + ".jpg"
    system.pipe(f"{root}/ants/{name}", b"long")

    assert (mirror(address) / "ants" / name).is_file()
    assert read_image_file(f"{address}/ants/{name}") == b"long"


def test_a_second_process_waits_for_the_one_that_copies(bucket, caplog):
    system, root, address = bucket
    folder = mirror_of(address)
    folder.mkdir(parents=True)
    second = threading.Thread(target=mirror, args=(address,))

    with caplog.at_level(logging.WARNING, "tl_toolkit"), hold(folder):
        second.start()
        while not caplog.records:
            second.join(0.01)
            assert second.is_alive()
        assert not (folder / "ants").exists()
    second.join(20)

    assert "waiting, its listing is being written by process" in caplog.text
    assert (folder / "ants" / "0.jpg").is_file()


@pytest.mark.parametrize("limit", ["much", "nan", "-1"])
def test_a_budget_that_is_no_number_is_refused(bucket, monkeypatch, limit):
    path = survey(bucket[2]).files[0].path
    monkeypatch.setenv("TL_TOOLKIT_REMOTE_GB", limit)

    with pytest.raises(DataError, match=rf"TL_TOOLKIT_REMOTE_GB  '{limit}'"):
        read_image_file(path)


@pytest.mark.parametrize(
    "text",
    [f"403 for https://b/x?sig={SECRET}", f"AccountName=me;AccountKey={SECRET};x", "plain"],
)
@pytest.mark.parametrize("call", ["find", "cat_file", "info"])
def test_no_traceback_shows_what_a_store_says_of_secrets(bucket, monkeypatch, call, text):
    def fail(*arguments, **options):
        raise OSError(text)

    monkeypatch.setattr(bucket[0], call, fail)
    with pytest.raises(DataError, match=text[:5]) as caught:
        mirror(bucket[2]) if call == "find" else read_image_file(f"{bucket[2]}/ants/0.jpg")

    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_an_address_of_two_is_refused():
    assert "plain folders" in find_address_fault("memory://a::https://elsewhere/b")


def test_a_folder_of_this_machine_has_an_address_too(bucket, tmp_path):
    found = plan(f"file://{tmp_path}/photos", validation=bucket[2], leakage="allow")

    assert found.recipe.data.train == mirror_of(f"file://{tmp_path}/photos")
    assert found.recipe.data.validation == mirror_of(bucket[2])


def test_an_address_without_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path))

    with pytest.raises(DataError, match=r"data\.train: memory://nowhere/at/all"):
        plan("memory://nowhere/at/all")


@pytest.mark.parametrize(
    "address",
    [
        f"s3://user:{SECRET}@bucket/photos",
        f"s3://bucket/photos?X-Amz-Signature={SECRET}",
        f"s3://{SECRET}@bucket/a",
        f"gs://bucket/photos#{SECRET}",
    ],
)
@pytest.mark.parametrize("field", ["train", "csv", "validation"])
@pytest.mark.parametrize("typed", [False, True])
def test_credentials_are_refused_and_not_repeated(address, field, typed):
    values = recipe_of("photos")
    changes = [f"data.{field}={address}"] if typed else []
    if not typed:
        values["data"][field] = address

    with pytest.raises(RecipeError) as caught:
        read_recipe(values, changes)

    assert f"data.{field}" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_credentials_in_errors_of_a_store_are_hidden():
    text = f"403 for https://bucket/x.png?X-Amz-Signature={SECRET} and s3://me:{SECRET}@b"

    assert SECRET not in hide_credentials(text)


def test_a_file_that_has_grown_is_not_fetched_to_its_end(bucket):
    system, root, address = bucket
    mirror(address)
    size = system.size(f"{root}/ants/0.jpg")
    system.pipe(f"{root}/ants/0.jpg", bytes(2**22))

    with pytest.raises(DataError, match=f"has more than {size} bytes, {size} were listed"):
        read_image_file(f"{address}/ants/0.jpg")


def test_objects_of_a_list_are_read_ahead_in_their_order(bucket, tmp_path):
    paths = [objects.as_path(file.path) for file in survey(bucket[2]).files]
    begun, together = [], threading.Barrier(len(paths), timeout=20)

    def load(path):
        begun.append(path)
        together.wait()  # all are read at a time, or this breaks
        if path == paths[1]:
            raise DataError("refused")
        return str(path).encode()

    with closing(ReadAhead([tmp_path / "here.jpg", *paths, paths[0]], load)) as ahead:
        assert ahead.load(paths[0]) == str(paths[0]).encode()
        with pytest.raises(DataError, match="refused"):
            ahead.load(paths[1])
        assert [ahead.load(path) for path in paths[2:]] == [
            str(path).encode() for path in paths[2:]
        ]
    assert sorted(begun) == sorted(paths)


def test_batches_of_objects_are_read_several_at_a_time(bucket, monkeypatch):
    examples = inspect(bucket[2]).examples
    monkeypatch.setenv("TL_TOOLKIT_REMOTE_GB", "0")
    together, cat_file = threading.Barrier(8, timeout=20), type(bucket[0]).cat_file

    def wait(self, *arguments, **options):
        together.wait()  # more requests at a time than a batch has images
        return cat_file(self, *arguments, **options)

    images = Images(examples[:9], image_size=(32, 32), memory_budget=0)
    next(iter(images.batches([0], 1)))
    monkeypatch.setattr(type(bucket[0]), "cat_file", wait)
    batches = images.batches(range(1, 9), 2)

    assert len(list(batches)) == 4


@pytest.mark.slow
def test_a_run_on_objects_equals_one_on_files(bucket, tmp_path, monkeypatch):
    local = tl.finetune(recipe_of(str(tmp_path / "photos")), out=tmp_path / "local")
    remote = tl.finetune(recipe_of(bucket[2]), out=tmp_path / "remote")

    def facts(run, *names):
        metrics = json.loads((run.path / "metrics.json").read_text())
        return {name: metrics[name] for name in names}

    assert facts(remote, "validation", "best") == facts(local, "validation", "best")
    for name in ("manifest.csv", "predictions.csv"):
        rows = (remote.path / name).read_text()
        assert rows.replace(bucket[2], str(tmp_path / "photos")) == (local.path / name).read_text()
    assert f'train: "{bucket[2]}"' in (remote.path / "recipe.yaml").read_text()
    assert remote.evaluate() == local.evaluate()
    assert remote.evaluate(bucket[2])["accuracy"] == local.evaluate(tmp_path / "photos")["accuracy"]
    one = f"{bucket[2]}/ants/0.jpg"
    found, expected = (
        remote.predict([one, f"{bucket[2]}/ants/9.jpg"]),
        local.predict([tmp_path / "photos" / "ants" / "0.jpg"]),
    )
    assert str(found[0].path) == one
    assert found[0].probabilities == expected[0].probabilities
    assert "no" in found[1].error
    assert [str(item.path) for item in remote.predict(f"{bucket[2]}/bees")] == [
        f"{bucket[2]}/bees/{number}.jpg" for number in range(5)
    ]
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    monkeypatch.setattr(type(bucket[0]), "find", None)  # it would be called
    assert remote.predict(one)[0].probabilities == found[0].probabilities
    with pytest.raises(DataError, match=r"(?s)ants/9\.jpg  is not in the cache.*Try: "):
        remote.predict(f"{bucket[2]}/ants/9.jpg")


@pytest.mark.slow
def test_a_run_that_lost_its_store_is_resumed(bucket, tmp_path, monkeypatch):
    recipe = {**recipe_of(bucket[2]), "features": {"store": "never"}}
    whole = tl.finetune(recipe, out=tmp_path / "whole")
    monkeypatch.setenv("TL_TOOLKIT_REMOTE_GB", "0")
    with monkeypatch.context() as patch:
        fail_at(bucket[0], patch, *range(6, 200))
        with pytest.raises(DataError, match="the connection was lost"):
            tl.finetune(recipe, out=tmp_path / "run")

    resumed = tl.finetune(recipe, out=tmp_path / "run", resume=True)

    for name in ("manifest.csv", "predictions.csv"):
        assert (resumed.path / name).read_text() == (whole.path / name).read_text()


@pytest.mark.slow
def test_a_report_asks_a_silent_store_for_one_picture(bucket, tmp_path, monkeypatch):
    system, root, address = bucket
    monkeypatch.setenv("TL_TOOLKIT_REMOTE_GB", "0")
    recipe = {**recipe_of(address, validation=0.4), "report": True}
    build, asked, events = api_report.build_report, [], []

    def build_without_store(run, **options):
        with monkeypatch.context() as patch:
            asked.append(fail_at(system, patch, *range(1, 200)))
            return build(run, **options)

    monkeypatch.setattr(api_report, "build_report", build_without_store)
    run = tl.finetune(recipe, out=tmp_path / "run", progress=events.append)
    ended = (run.folder.report / "index.html").read_text()
    again = tl.report(run, progress=events.append).read_text()  # with heat maps
    monkeypatch.setattr(api_report, "build_report", build)
    whole = tl.report(run, progress=events.append).read_text()

    words = [event.text for event in events if "are missing in the report" in event.text]
    assert [len(paths) for paths in asked] == [3, 3]  # the tries of one object
    assert len(words) == 2 and {event.kind for event in events if event.text in words} == {
        "warning"
    }
    for text, page in zip(words, (ended, again), strict=True):
        assert text.startswith(f"pictures of memory://{tmp_path.name} are missing in the report")
        assert "the connection was lost" in text
        assert text.endswith(f". Try: tltool report {run.path}")
        assert page.count(html.escape(text)) == 1 and "<img" not in page
    assert run.folder.read_status()["state"] == "done"
    assert "are missing in the report" not in whole and whole.count('alt="heat map: ') > 0


def draw_mask_folders(folder):
    """Draws eight images with masks of two classes, a rectangle on a ground of another colour."""
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(8):
        pixels = generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        mask = np.zeros((40, 40), np.uint8)
        mask[5 : 20 + number, 8:30] = 1
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")


@pytest.mark.slow
def test_masks_of_a_store_train_as_those_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TL_TOOLKIT_REMOTE_GB", "0")
    draw_mask_folders(tmp_path / "cells")
    address = f"memory://{tmp_path.name}/cells"
    fsspec.filesystem("memory").put(
        str(tmp_path / "cells"), f"/{tmp_path.name}/cells", recursive=True
    )
    rows = []
    for source in (str(tmp_path / "cells"), address):
        recipe = {
            **recipe_of(source, classes=["back", "front"], validation=0.25),
            "task": "segmentation",
            "model": {
                "base": "mobilenet",
                "weights": "random",
                "arguments": {"alpha": 0.25},
            },
        }
        run = tl.finetune(recipe, out=tmp_path / f"run{len(rows)}")
        metrics = json.loads((run.path / "metrics.json").read_text())["validation"]
        rows.append([metrics, (run.path / "manifest.csv").read_text().replace(source, "")])
    assert rows[0] == rows[1]
    assert rows[0][1].count("/masks/") == 8


@pytest.mark.slow
def test_a_report_of_maps_does_without_pictures_of_a_silent_store(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    draw_mask_folders(tmp_path / "cells")
    system, address = fsspec.filesystem("memory"), f"memory://{tmp_path.name}/cells"
    system.put(str(tmp_path / "cells"), f"/{tmp_path.name}/cells", recursive=True)
    recipe = {
        **recipe_of(address, classes=["back", "front"], validation=0.25),
        "task": "segmentation",
        "model": {"base": "mobilenet", "weights": "random", "arguments": {"alpha": 0.25}},
    }
    run, words = tl.finetune(recipe, out=tmp_path / "run"), []
    for place in (tmp_path / "cache" / "objects").glob("*/*"):
        if b"\x89PNG" in place.read_bytes() and place.stat().st_size < 1000:  # masks are small
            place.unlink()
    fail_at(system, monkeypatch, *range(1, 200))

    page = tl.report(run, progress=lambda event: words.append(event.text)).read_text()

    assert "no picture" in page
    assert len([text for text in words if "are missing in the report" in text]) == 1
