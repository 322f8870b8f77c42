"""Filling the store in parts, by several processes: the values are those of one pass."""

import os
import threading
from collections import Counter

import numpy as np
import pytest

import tl_toolkit as tl
from tests.features.test_features import recipe_of
from tests.models import plan_values
from tl_toolkit.events import ignore
from tl_toolkit.features.leases import LEASE_PREFIX, FolderLeases, leased
from tl_toolkit.features.parts import Part, cut_parts, limit_part, list_parts
from tl_toolkit.features.shards import map_shard, read_images
from tl_toolkit.features.store import FeatureCache
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.training.filling import FillContext, fill_part
from tl_toolkit.training.prepare import survey_images


def values_of(root):
    """The features of each image at each key, as bytes; an image is stored once."""
    values = {}
    for shard in FeatureCache(root).shards():
        for image, *tensors in zip(read_images(shard.path), *map_shard(shard.path), strict=True):
            key = shard.path.parent.name, image
            assert key not in values
            values[key] = [np.asarray(tensor).tobytes() for tensor in tensors]
    return values


@pytest.fixture(scope="module")
def photos(tmp_path_factory, draw):
    return draw(tmp_path_factory.mktemp("photos") / "all", count=9)


@pytest.fixture(scope="module")
def draw():
    from tests.conftest import draw_class_folders

    return draw_class_folders


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """What one process stores in one pass, and the folder."""
    root = tmp_path_factory.mktemp("whole")
    facts = tl.fill_features(
        recipe_of(photos), overrides={"features.location": root, "features.store": "always"}
    )
    assert (facts["images"], facts["parts"], facts["folder"]) == (27, 2, str(root))
    return values_of(root)


def context_of(photos, root, tmp_path, part=4):
    features = {"location": str(root), "store": "always", "part": part}
    plan, task = plan_values(recipe_of(photos, features=features))
    manifest, _ = survey_images(plan, task, RunFolder(tmp_path), ignore)
    return FillContext.of(plan, manifest, ())


@pytest.mark.slow
def test_parts_in_any_order_hold_the_values_of_one_pass(tmp_path, photos, whole, monkeypatch):
    context = context_of(photos, tmp_path / "store", tmp_path)
    parts = context.list_parts()
    inspected = Counter()

    def count(shard):
        inspected[shard] += 1
        return read_images(shard)

    monkeypatch.setattr("tl_toolkit.features.store.read_images", count)

    assert [fill_part(context, part) for part in [*parts[::-1], parts[0]]] == [None] * 9

    assert len(parts) == 8  # 21 images in six parts, 6 in two
    assert set(inspected.values()) == {1}  # and not for each later part again
    assert values_of(tmp_path / "store") == whole
    run = tl.finetune(context.plan.recipe, out=tmp_path / "run", progress=ignore)
    assert values_of(tmp_path / "store").items() >= whole.items()
    assert run.metrics["validation"]["images"] == 6


def test_a_part_that_another_one_computes_is_waited_for(tmp_path, photos, whole):
    root = tmp_path / "store"
    context = context_of(photos, root, tmp_path)
    first, *others = context.list_parts()
    events = []
    for part in others:  # so that the entries are there, and all but one part
        fill_part(context, part, events.append)
    entries = {shard.path.parent for shard in FeatureCache(root).shards() if shard.images == 4}
    known = {image for _, image in values_of(root)}
    lacking = [
        image
        for example in context.manifest.of("train")
        if (image := bytes.fromhex(example.sha256)) not in known
    ]
    filling = threading.Thread(target=fill_part, args=(context, first))

    with leased([FolderLeases(entry) for entry in entries], lacking) as is_ours:
        events.clear()
        filling.start()
        filling.join(timeout=1.0)
        counts = [event.done for event in events if event.kind == "features_computed"]
        texts = [event.text for event in events if event.text]
        waited = filling.is_alive()
        assert {image for _, image in values_of(root)} == known
    filling.join()

    assert is_ours and waited
    assert len(counts) > 1 and set(counts) == {0}
    (text,) = texts
    assert text.startswith(f"waiting for process {os.getpid()} on ")
    assert values_of(root) == whole
    assert not list(root.rglob(f"{LEASE_PREFIX}*"))


def test_a_lease_has_one_holder(tmp_path):
    a, b = FolderLeases(tmp_path / "a"), FolderLeases(tmp_path / "b")
    with leased([a, b], [b"1"]) as first, leased([b], [b"1"]) as second:
        with leased([b], [b"2"]) as other_images:
            pass
    with leased([b, a], [b"1"]) as later:
        pass

    assert (first, second, other_images, later) == (True, False, True, True)
    assert not list(tmp_path.rglob(f"{LEASE_PREFIX}*"))


def test_a_lease_of_which_a_killed_process_left_the_folder_is_removed(tmp_path):
    cache, entry = FeatureCache(tmp_path), tmp_path / "key"
    left = entry / f"{LEASE_PREFIX}left"
    left.mkdir(parents=True)

    with leased([FolderLeases(entry)], [b"1"]):
        cache.make_room(0, 10**9)
        (held,) = entry.glob(f"{LEASE_PREFIX}*")

    assert held != left and not list(entry.glob(f"{LEASE_PREFIX}*"))


def test_parts_are_decided_by_all_images():
    places = {letter: place for place, letter in enumerate("abcdefg")}

    assert cut_parts("gbda", places, 3) == [["a", "b"], ["d"], ["g"]]
    assert list_parts({"train": 3, "validation": 1}, 2, 2) == [
        Part("train", 1, 0, 2), Part("train", 1, 1, 1),
        Part("train", 2, 0, 2), Part("train", 2, 1, 1),
        Part("validation", None, 0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("images", "shares", "expected"),
    [(1000, 1, 300), (1000, 2, 300), (400, 2, 224), (33, 2, 32), (27, 3, 32), (0, 2, 32)],
)
def test_a_part_is_at_most_a_share_in_whole_batches(images, shares, expected):
    assert limit_part(300, images, shares=shares, batch_size=32) == expected
