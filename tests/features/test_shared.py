"""A feature store on an object store: hosts share it, and read the values of one process."""

import json
import shutil
import sys

import fsspec
import numpy as np
import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.conftest import draw_class_folders
from tests.features.test_features import recipe_of
from tests.features.test_parts import values_of
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.features.shared import SharedShards
from tl_toolkit.features.store import FeatureCache
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.recipe.load import read_recipe
from tl_toolkit.recipe.remote import mirror_of
from tl_toolkit.runs.locks import hold
from tl_toolkit.sources import stores


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_class_folders(tmp_path_factory.mktemp("photos") / "all", count=9)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store in memory, its address and a function that makes this process another host."""
    monkeypatch.setattr(stores, "_PAUSE_SECONDS", 0.0)
    system = fsspec.filesystem("memory")
    address = f"memory://{tmp_path.name}/features"

    def become(host):
        monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / host))

    become("first")
    yield system, f"/{tmp_path.name}/features", address, become
    monkeypatch.undo()
    if system.exists(f"/{tmp_path.name}"):
        system.rm(f"/{tmp_path.name}", recursive=True)


def fill(photos, location, part=4, **features):
    """Returns how many images were computed."""
    computed = []
    tl.fill_features(
        recipe_of(photos),
        overrides={
            "features.location": location,
            "features.store": "always",
            "features.part": part,
            **{f"features.{name}": value for name, value in features.items()},
        },
        progress=lambda event: (
            computed.append(event.done) if event.kind == "features_computed" else None
        ),
    )
    return max(computed, default=0)


@pytest.mark.slow
def test_a_second_host_reads_what_the_first_one_computed(photos, store, tmp_path):
    system, root, address, become = store
    assert fill(photos, tmp_path / "alone") == 27
    assert fill(photos, address) == 27

    become("second")

    assert fill(photos, address) == 0
    assert values_of(mirror_of(address)) == values_of(tmp_path / "alone")


@pytest.mark.slow
def test_what_a_killed_writer_left_is_no_shard_and_is_computed(photos, store, tmp_path):
    system, root, address, become = store
    fill(photos, address)
    whole = sorted(system.glob(f"{root}/*/*/whole.json"))
    kept = system.cat(whole[0])
    system.rm(whole[0])
    torn = next(path for path in system.ls(whole[1].rpartition("/")[0], detail=False)
                if path.endswith("0.npy"))  # fmt: skip
    system.pipe(torn, system.cat(torn)[:-1])

    become("second")
    computed = fill(photos, address)

    assert 0 < computed < 27
    assert values_of(mirror_of(address)).keys()
    become("first")
    assert fill(photos, address) == 0
    assert system.cat(whole[0]) == kept  # this host still had it
    first = values_of_all(mirror_of(address))
    become("second")
    assert values_of_all(mirror_of(address)) == first


def values_of_all(root):
    """The features of each image at each key, where several shards may hold an image."""
    from tl_toolkit.features.shards import map_shard, read_images
    from tl_toolkit.features.store import FeatureCache

    values = {}
    for shard in FeatureCache(root).shards():
        for image, *tensors in zip(read_images(shard.path), *map_shard(shard.path), strict=True):
            content = [np.asarray(tensor).tobytes() for tensor in tensors]
            assert values.setdefault((shard.path.parent.name, image), content) == content
    return values


def test_the_description_is_sent_last(photos, store, tmp_path, monkeypatch):
    system, root, address, become = store
    sent, put_file = [], type(system).put_file

    def put(self, place, path, **options):
        sent.append(path)
        return put_file(self, place, path, **options)

    monkeypatch.setattr(type(system), "put_file", put)
    fill(photos, address)

    for shard in {path.rpartition("/")[0] for path in sent}:
        names = [path.rpartition("/")[2] for path in sent if path.startswith(f"{shard}/")]
        assert names[-1] == "whole.json" and names.count("whole.json") == 1


def test_a_store_that_cannot_be_written_is_named(photos, store, monkeypatch):
    system, root, address, become = store

    def refuse(*arguments, **options):
        raise PermissionError("403")

    monkeypatch.setattr(type(system), "put_file", refuse)

    with pytest.raises(DataError, match=f"features.location: {address}/.*cannot be written"):
        fill(photos, address)


def test_a_store_that_cannot_be_read_is_named(photos, store, monkeypatch):
    system, root, address, become = store

    def refuse(self, path, **options):
        if path.strip("/") == root.strip("/"):  # which is listed before
            return {}
        raise PermissionError("403")

    monkeypatch.setattr(type(system), "find", refuse)

    with pytest.raises(DataError, match=f"features.location: {address}/.*cannot be read"):
        fill(photos, address)


@pytest.mark.slow
def test_copies_stay_within_the_budget(photos, store):
    system, root, address, become = store
    fill(photos, address)
    become("second")

    with pytest.raises(RecipeError, match=r"do not fit into features\.max_gb"):
        fill(photos, address, max_gb=1e-9)
    assert not values_of(mirror_of(address))


@pytest.mark.slow
def test_a_full_disk_receives_no_copies(photos, store, monkeypatch):
    system, root, address, become = store
    fill(photos, address)
    become("second")
    usage = shutil.disk_usage(mirror_of(address).anchor)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=10**9))

    with pytest.raises(RecipeError, match="do not fit into .* or on the disk"):
        fill(photos, address)
    assert not values_of(mirror_of(address))


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_no_error_of_the_store(photos, store, tmp_path):
    system, root, address, become = store
    fill(photos, address)
    key, *_ = system.ls(root, detail=False)
    (whole, *_) = system.glob(f"{key}/*/images.npy")
    with system.open(whole) as file:
        wanted = np.load(file)[0].tobytes()
    (tmp_path / "file").touch()
    asked = []

    shards = SharedShards(
        f"{address}/{key.rpartition('/')[2]}", tmp_path / "file" / "key",
        lambda size: asked.append(size) or True,
    )  # fmt: skip
    shards.pull([wanted])

    assert asked  # it would have been copied


def test_shards_without_a_wanted_image_are_not_copied(photos, store, tmp_path):
    system, root, address, become = store
    fill(photos, address)
    key, *_ = system.ls(root, detail=False)
    folder = tmp_path / "third"

    SharedShards(f"{address}/{key.rpartition('/')[2]}", folder, lambda size: True).pull([b"x" * 32])

    assert not folder.exists() or not list(folder.iterdir())


@pytest.mark.slow
def test_offline_the_copies_of_this_host_are_all(photos, store, monkeypatch):
    system, root, address, become = store
    fill(photos, address)
    system.rm(root, recursive=True)
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")

    assert fill(photos, address) == 0
    assert not system.exists(root)


@pytest.mark.slow
def test_what_was_filled_offline_lies_here_and_is_sent_later(photos, store, tmp_path, monkeypatch):
    system, root, address, become = store
    features = {"location": address, "store": "always"}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe_of(photos, features=features)))

    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    offline = tltool("cache", "fill", "recipe.json", cwd=tmp_path).stderr
    facts = json.loads(tltool("cache", "fill", "recipe.json", "--json", cwd=tmp_path).stdout)
    was_sent = system.exists(root)
    monkeypatch.delenv("TL_TOOLKIT_OFFLINE")
    online = tltool("cache", "fill", "recipe.json", cwd=tmp_path).stderr

    assert f"in this host's cache, {mirror_of(address)} (" in offline
    assert f"with a connection sends what {address} lacks" in offline
    assert (facts["folder"], facts["unsent_to"]) == (str(mirror_of(address)), address)
    assert not was_sent and system.glob(f"{root}/*/*/whole.json")
    assert f"in {address} (" in online and "sends what" not in online


def fill_entry(address, number, size=4):
    """Stores a row of one image as a run does; returns its entry."""
    entry = FeatureCache(mirror_of(address)).entry("0" * 32)
    image = bytes([number]) * 32
    with entry.write([image], [(size,)], "float32", "a test") as writer:
        writer.add([np.full((1, size), number)])
    return entry


def test_copies_of_a_store_are_counted_and_deleted(store, tmp_path):
    system, root, address, become = store
    fill_entry(address, 1)
    become("second")
    FeatureCache(mirror_of(address)).entry("0" * 32).missing([bytes([1]) * 32])  # copies it
    fill_entry(address, 2)
    size = sum(shard.size for shard in FeatureCache(mirror_of(address)).shards())

    (facts,) = json.loads(tltool("cache", "info", "--json", cwd=tmp_path).stdout)["shared"]
    words = tltool("cache", "info", cwd=tmp_path).stderr
    cleared = tltool("cache", "clear", cwd=tmp_path).stderr
    after = json.loads(tltool("cache", "info", "--json", cwd=tmp_path).stdout)["shared"]

    assert facts == {
        "address": address, "folder": str(mirror_of(address)), "bytes": size, "entries": 2,
        "unsent": 0,
    }  # fmt: skip
    assert f"2 entries of {address}, " in words and "not sent" not in words
    assert f"2 entries of {address} deleted here" in cleared and "not deleted" not in cleared
    assert after == [] and not any(mirror_of(address).iterdir())
    assert len(system.glob(f"{root}/*/*/whole.json")) == 2
    assert not system.glob(f"{root}/*/*/.sent")


def test_no_room_is_made_by_what_was_not_sent(store, monkeypatch):
    system, root, address, become = store
    cache = FeatureCache(mirror_of(address))
    with monkeypatch.context() as patch:
        patch.setenv("TL_TOOLKIT_OFFLINE", "1")
        fill_entry(address, 1)  # the oldest
    (unsent,) = cache.shards()
    later = FeatureCache(mirror_of(address)).entry("1" * 32)
    with later.write([b"2" * 32], [(4,)], "float32", "a test") as writer:
        writer.add([np.zeros((1, 4))])

    assert not cache.make_room(2 * unsent.size, 2 * unsent.size)
    assert cache.make_room(unsent.size, 2 * unsent.size)

    assert [shard.path for shard in cache.shards()] == [unsent.path]
    assert cache.measure_unsent() == unsent.size


def test_what_a_store_lacks_and_what_is_written_is_not_deleted(store, tmp_path, monkeypatch):
    system, root, address, become = store
    fill_entry(address, 1)
    with monkeypatch.context() as patch:
        patch.setenv("TL_TOOLKIT_OFFLINE", "1")
        fill_entry(address, 2)
    draft = mirror_of(address) / ("0" * 32) / ".draft-1-x"
    draft.mkdir()

    with hold(draft):
        words = tltool("cache", "info", cwd=tmp_path).stderr
        cleared = tltool("cache", "clear", cwd=tmp_path).stderr
        assert draft.exists()

    assert f"2 entries of {address}, " in words and "1 of them not sent yet" in words
    assert f"1 entry of {address} deleted here" in cleared
    assert f"1 entry of {address} not deleted" in cleared and "with a connection" in cleared
    entry = FeatureCache(mirror_of(address)).entry("0" * 32)
    assert entry.missing([bytes([1]) * 32, bytes([2]) * 32]) == []  # sends one, copies the other
    assert len(system.glob(f"{root}/*/*/whole.json")) == 2
    assert "not deleted" not in tltool("cache", "clear", cwd=tmp_path).stderr


def test_validate_names_a_feature_store_out_of_reach(photos, store, tmp_path, monkeypatch):
    system, root, address, become = store
    place = tmp_path / "recipe.json"

    def validate(store="auto", code=0):
        features = {"location": address, "store": store}
        place.write_text(json.dumps(recipe_of(photos, features=features)))
        return tltool("validate", place.name, cwd=tmp_path, code=code).stderr

    def refuse(*arguments, **options):
        raise PermissionError("403")

    validate()
    assert not system.exists(root)
    monkeypatch.setattr(type(system), "find", refuse)

    assert f"features.location: {address} cannot be read: PermissionError" in " ".join(
        validate(code=3).split()
    )
    validate("never")
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    validate()


@pytest.mark.parametrize(("kind", "count"), [("auto", 1), ("never", 0)])
def test_a_store_in_memory_is_taken_with_a_warning(photos, store, kind, count):
    features = {"location": store[2], "store": kind}

    plan = check_recipe(read_recipe(recipe_of(photos, features=features)))

    assert [store[2] in text for text in plan.warnings] == [True] * count


def test_validate_names_the_package_that_a_feature_store_needs(photos, tmp_path, monkeypatch):
    place = tmp_path / "recipe.json"
    place.write_text(json.dumps(recipe_of(photos, features={"location": "abfs://photos/features"})))
    monkeypatch.setitem(sys.modules, "adlfs", None)

    text = tltool("validate", place.name, cwd=tmp_path, code=3).stderr

    assert "features.location: abfs://photos/features" in text
    assert "needs adlfs" in text and "pip install adlfs" in text
