"""Folders on object stores: mirrored by content, within a size, without credentials anywhere."""

import json
import logging
import os
import threading
import traceback

import fsspec
import pytest

import tl_toolkit as tl
from tests.conftest import draw_class_folders
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.recipe.load import dump_recipe, read_recipe
from tl_toolkit.recipe.remote import (
    find_address,
    find_address_fault,
    hide_credentials,
    mirror_of,
)
from tl_toolkit.runs.locks import hold
from tl_toolkit.sources.remote import mirror_folders

SECRET = "hunter2"


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder of images in memory, and its address; the cache is a folder of this test."""
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    draw_class_folders(tmp_path / "photos", classes=("ants", "bees"), count=5)
    system = fsspec.filesystem("memory")
    address = f"memory://{tmp_path.name}/photos"
    system.put(str(tmp_path / "photos"), f"/{tmp_path.name}/photos", recursive=True)
    yield system, f"/{tmp_path.name}/photos", address
    monkeypatch.undo()  # what a test has put in place of the store's functions
    system.rm(f"/{tmp_path.name}", recursive=True)


def recipe_of(address, **data):
    return {
        "version": 1,
        "name": "remote",
        "data": {"train": address, "image_size": 32, "batch_size": 4, **data},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
        "export": False,
        "report": False,
    }


def plan(address, **data):
    return check_recipe(read_recipe(recipe_of(address, **data)))


def names_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*") if path.is_file())


def test_a_folder_is_mirrored_and_the_recipe_keeps_its_address(bucket, tmp_path):
    system, root, address = bucket

    found = plan(address)

    folder = mirror_of(address)
    assert found.classes == ("ants", "bees")
    assert find_address(folder) == address
    for name in names_of(folder):
        if not name.startswith("."):
            assert (folder / name).read_bytes() == system.cat(f"{root}/{name}")
    assert sum(not name.startswith(".") for name in names_of(folder)) == 10
    assert f'train: "{address}"' in dump_recipe(found.recipe)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(found.recipe))
    assert read_recipe(tmp_path / "recipe.yaml").recipe == found.recipe
    assert found.recipe.data.source_name == "photos"


def test_only_what_changed_is_fetched_again(bucket):
    system, root, address = bucket
    plan(address)
    folder = mirror_of(address)
    names = [name for name in names_of(folder) if not name.startswith(".")]
    times = {name: (folder / name).stat().st_mtime_ns for name in names}
    other, gone, lost = names[0], names[1], names[2]
    content = system.cat(f"{root}/{names[3]}")
    system.pipe(f"{root}/{other}", content + b"more")
    system.rm(f"{root}/{gone}")
    (folder / lost).write_bytes(b"torn")

    plan(address)

    assert (folder / other).read_bytes() == content + b"more"
    assert not (folder / gone).exists()
    assert (folder / lost).read_bytes() == system.cat(f"{root}/{lost}")
    for name in names[3:]:
        assert (folder / name).stat().st_mtime_ns == times[name]


def test_a_folder_above_the_limit_is_not_fetched(bucket, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_REMOTE_GB", "0.000001")

    with pytest.raises(DataError, match=r"(?s)data\.train: memory://.*at most 1e-06 GB.*REMOTE_GB"):
        plan(bucket[2])
    assert not [name for name in names_of(mirror_of(bucket[2])) if name.endswith("jpg")]


def test_a_file_that_comes_short_is_no_image(bucket, monkeypatch):
    system, root, address = bucket
    find = system.find

    def lie(*arguments, **options):
        listed = find(*arguments, **options)
        return {name: {**facts, "size": facts["size"] + 1} for name, facts in listed.items()}

    with monkeypatch.context() as patch:
        patch.setattr(system, "find", lie)
        with pytest.raises(DataError, match=r"OSError: has \d+ bytes, \d+ were listed"):
            plan(address)
    assert not [name for name in names_of(mirror_of(address)) if not name.startswith(".mirror")]


def test_a_store_without_its_package_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path))

    with pytest.raises(
        DataError, match=r"needs s3fs, which is not installed\. Try: pip install s3fs"
    ):
        plan("s3://bucket/photos")


def test_offline_a_mirror_is_taken_as_it_is(bucket, monkeypatch):
    system, root, address = bucket
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    with pytest.raises(DataError, match=r"is not in the cache"):
        plan(address)
    monkeypatch.delenv("TL_TOOLKIT_OFFLINE")
    plan(address)
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    system.rm(f"{root}/ants/0.jpg")

    assert plan(address).classes == ("ants", "bees")
    assert (mirror_of(address) / "ants" / "0.jpg").is_file()


def test_what_was_fetched_before_a_failure_is_not_fetched_again(bucket, monkeypatch):
    system, root, address = bucket
    opened = []
    open_file = system.open

    def count(path, *arguments, **options):
        opened.append(path)
        if len(opened) == 4:
            raise OSError("the connection was lost")
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(system, "open", count)
    with pytest.raises(DataError, match="the connection was lost"):
        plan(address)
    plan(address)

    assert len(opened) == len(set(opened)) + 1 == 11


def mirror(address):
    mirror_folders({"data.train": mirror_of(address)})
    return mirror_of(address)


def add_to_listing(monkeypatch, system, names, facts):
    """Lets a store list objects whose names nobody could give a file."""
    find, open_file = system.find, system.open
    listed = {name: {"size": 4, "type": "file", **facts} for name in names}
    monkeypatch.setattr(system, "find", lambda *a, **b: {**find(*a, **b), **listed})

    def fetch(path, *arguments, **options):
        assert path not in names, "fetched"
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(system, "open", fetch)


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


def test_a_file_that_became_a_folder_is_mirrored_and_back(bucket):
    system, root, address = bucket
    system.pipe(f"{root}/cats", b"file")
    folder = mirror(address)
    assert (folder / "cats").read_bytes() == b"file"

    system.rm(f"{root}/cats")
    system.pipe(f"{root}/cats/0.jpg", b"in a folder")
    mirror(address)
    assert (folder / "cats" / "0.jpg").read_bytes() == b"in a folder"

    system.rm(f"{root}/cats", recursive=True)
    system.pipe(f"{root}/cats", b"file")
    mirror(address)
    assert (folder / "cats").read_bytes() == b"file"


def test_a_name_as_long_as_a_file_may_have_is_mirrored(bucket):
    system, root, address = bucket
    name = "a" * 251 + ".jpg"
    system.pipe(f"{root}/ants/{name}", b"long")

    assert (mirror(address) / "ants" / name).read_bytes() == b"long"


def test_ctrl_c_keeps_what_was_fetched(bucket, monkeypatch):
    system, root, address = bucket
    opened, open_file = [], system.open

    def press(path, *arguments, **options):
        opened.append(path)
        if len(opened) == 4:
            raise KeyboardInterrupt
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(system, "open", press)
    with pytest.raises(KeyboardInterrupt):
        mirror(address)
    mirror(address)

    assert len(opened) == 11


def test_a_file_that_has_grown_is_not_fetched_to_its_end(bucket, monkeypatch):
    system, root, address = bucket
    system.pipe(f"{root}/ants/0.jpg", bytes(2**22))
    find = system.find
    monkeypatch.setattr(
        system,
        "find",
        lambda *a, **b: {name: {**facts, "size": 7} for name, facts in find(*a, **b).items()},
    )

    with pytest.raises(DataError, match="has more than 7 bytes, 7 were listed"):
        mirror(address)


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

    assert "waiting, its copy is being written by process" in caplog.text
    assert (folder / "ants" / "0.jpg").is_file()


@pytest.mark.parametrize("limit", ["much", "nan"])
def test_a_limit_that_is_no_number_is_refused(bucket, monkeypatch, limit):
    monkeypatch.setenv("TL_TOOLKIT_REMOTE_GB", limit)

    with pytest.raises(DataError, match=rf"TL_TOOLKIT_REMOTE_GB  '{limit}'"):
        mirror(bucket[2])


@pytest.mark.parametrize(
    "text",
    [f"403 for https://b/x?sig={SECRET}", f"AccountName=me;AccountKey={SECRET};x", "plain"],
)
@pytest.mark.parametrize("call", ["find", "open"])
def test_no_traceback_shows_what_a_store_says_of_secrets(bucket, monkeypatch, call, text):
    def fail(*arguments, **options):
        raise OSError(text)

    monkeypatch.setattr(bucket[0], call, fail)
    with pytest.raises(DataError, match=text[:5]) as caught:
        mirror(bucket[2])

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


def test_a_run_trains_on_a_mirror_and_its_files_hold_the_address(bucket, tmp_path):
    run = tl.finetune(recipe_of(bucket[2]), out=tmp_path / "run")

    assert json.loads((run.path / "metrics.json").read_text())["validation"]
    assert f'train: "{bucket[2]}"' in (run.path / "recipe.yaml").read_text()
