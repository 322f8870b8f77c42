"""Shards on disk: whole or not there, found by content, and never more than the budget."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tl_toolkit.cli.main import run
from tl_toolkit.features.store import FeatureCache


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "features")


def digest(number):
    return bytes([number]) * 32


def fill(entry, numbers, *, dtype="float32", size=4):
    """Stores a row for each number: `size` times that number, and a second tensor of its square."""
    images = [digest(number) for number in numbers]
    with entry.write(images, [(size,), (2, 1)], dtype, "a test") as writer:
        for number in numbers:
            writer.add([np.full((1, size), number), np.full((1, 2, 1), number**2)])


def test_rows_come_back_in_any_order(cache):
    entry = cache.entry("key")
    fill(entry, [1, 2, 3])

    rows = cache.entry("key").read([digest(3), digest(1)])
    first, second = rows.take(np.array([1, 0, 1]))

    assert first.dtype == np.float32 and first[:, 0].tolist() == [1, 3, 1]
    assert second.shape == (3, 2, 1) and second[:, 0, 0].tolist() == [1, 9, 1]
    assert rows.example_bytes == 24


def test_examples_of_several_shards_are_one(cache):
    entry = cache.entry("key")
    fill(entry, [1, 2])
    fill(entry, [3])

    rows = entry.read([digest(2), digest(3), digest(1)])

    assert rows.take(np.arange(3))[0][:, 0].tolist() == [2, 3, 1]


def test_what_is_missing_is_told_and_nothing_is_read_then(cache):
    entry = cache.entry("key")
    fill(entry, [1])

    assert entry.missing([digest(1), digest(2), digest(2)]) == [digest(2)]
    assert entry.read([digest(1), digest(2)]) is None


def test_float16_comes_back_as_float32(cache):
    entry = cache.entry("key")
    fill(entry, [3], dtype="float16")

    (rows, _) = entry.read([digest(3)]).take(np.array([0]))

    assert rows.dtype == np.float32 and rows.tolist() == [[3.0] * 4]


def test_an_interrupted_writer_leaves_nothing(cache):
    entry = cache.entry("key")
    with pytest.raises(KeyboardInterrupt):
        with entry.write([digest(1)], [(4,)], "float32", "a test") as writer:
            writer.add([np.zeros((1, 4))])
            raise KeyboardInterrupt

    assert entry.missing([digest(1)]) == [digest(1)]
    assert not list(entry.folder.iterdir())


def test_too_few_rows_are_not_published(cache):
    entry = cache.entry("key")
    with pytest.raises(ValueError, match="expected 2 examples, got 1"):
        with entry.write([digest(1), digest(2)], [(4,)], "float32", "a test") as writer:
            writer.add([np.zeros((1, 4))])

    assert entry.missing([digest(1)])


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from tl_toolkit.cli.main import run
from tl_toolkit.features.store import FeatureCache

entry = FeatureCache(Path(sys.argv[1])).entry("key")
with entry.write([bytes(32)] * 2, [(4,)], "float32", "a test") as writer:
    writer.add([np.zeros((1, 4))])
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_writer_that_is_killed_leaves_nothing_that_is_read_and_is_swept_away(cache):
    command = [sys.executable, "-c", WRITER, str(cache.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)

    assert len(list((cache.root / "key").iterdir())) == 1
    assert cache.entry("key").missing([bytes(32)])
    assert not cache.shards()
    assert cache.make_room(1, 10**9)
    assert not list((cache.root / "key").iterdir())


def test_a_draft_that_is_new_and_not_yet_locked_stays(cache):
    draft = cache.entry("key").folder / ".draft-1-2-3"
    draft.mkdir(parents=True)

    assert cache.make_room(1, 10**9)

    assert draft.is_dir()


def test_a_draft_of_a_living_process_stays(cache):
    entry = cache.entry("key")
    with entry.write([digest(1)], [(4,)], "float32", "a test") as writer:
        (draft,) = entry.folder.iterdir()
        for path in (*draft.iterdir(), draft):
            os.utime(path, (1, 1))  # its batches take long to compute
        assert cache.make_room(1, 10**9)
        writer.add([np.zeros((1, 4))])

    assert not entry.missing([digest(1)])


@pytest.mark.parametrize("name", ["0.npy", "images.npy", "whole.json"])
def test_a_torn_shard_is_not_read_and_goes(cache, name):
    entry = cache.entry("key")
    fill(entry, [1])
    (shard,) = cache.shards()
    path = shard.path / name
    path.write_bytes(path.read_bytes()[:-3])

    assert cache.entry("key").read([digest(1)]) is None
    again = cache.entry("key")
    assert again.missing([digest(1)])
    fill(again, [1])
    assert cache.entry("key").read([digest(1)]).take(np.array([0]))[0].tolist() == [[1.0] * 4]


def test_a_shard_whose_list_of_images_is_empty_is_passed_over(cache):
    fill(cache.entry("key"), [1])
    (shard,) = cache.shards()
    (shard.path / "images.npy").write_bytes(b"")

    entry = cache.entry("key")

    assert entry.missing([digest(1)]) == [digest(1)]
    assert entry.read([digest(1)]) is None


@pytest.mark.parametrize(("name", "stays"), [("x", True), (f"{10**30}-x", False)])
def test_a_folder_that_is_named_like_a_draft_ends_no_sweep(cache, name, stays):
    foreign = cache.entry("key").folder / f".draft-{name}"
    foreign.mkdir(parents=True)
    os.utime(foreign, (1, 1))

    assert cache.make_room(1, 10**9)
    assert foreign.is_dir() == stays


def test_rows_that_are_mapped_outlive_their_deletion(cache):
    entry = cache.entry("key")
    fill(entry, [1, 2])
    rows = entry.read([digest(1), digest(2)])

    assert cache.clear()[0] == 1

    assert rows.take(np.array([1]))[0].tolist() == [[2.0] * 4]
    assert not list(cache.root.iterdir())


def test_the_least_recently_used_shard_makes_room(cache):
    for number in (1, 2, 3):
        fill(cache.entry(f"key{number}"), [number])
    for number, shard in zip((1, 2, 3), sorted(cache.shards(), key=by_key), strict=True):
        os.utime(shard.path / "whole.json", (number, number))
    cache.entry("key1").read([digest(1)])  # now the last one used
    sizes = [shard.size for shard in cache.shards()]

    assert cache.make_room(1, sum(sizes))

    assert sorted(map(by_key, cache.shards())) == ["key1", "key3"]


def test_what_is_in_use_stays_and_what_does_not_fit_deletes_nothing(cache):
    fill(cache.entry("mine"), [1])
    fill(cache.entry("other"), [2])
    size = sum(shard.size for shard in cache.shards())

    assert not cache.make_room(size, size, keep=["mine"])
    assert len(cache.shards()) == 2
    assert cache.make_room(1, size, keep=["mine"])
    assert [by_key(shard) for shard in cache.shards()] == ["mine"]


def test_reading_marks_as_used(cache):
    fill(cache.entry("key"), [1])
    (before,) = cache.shards()
    os.utime(before.path / "whole.json", (1, 1))

    cache.entry("key").read([digest(1)])

    (after,) = cache.shards()
    assert time.time() - after.used < 60
    assert (after.images, after.made_by) == (1, "a test")


def by_key(shard):
    return shard.path.parent.name


def test_the_commands_show_and_empty_the_store(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path))
    fill(FeatureCache().entry("key"), [1, 2])

    assert run(["cache", "info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert run(["cache", "info"]) == 0
    shown = capsys.readouterr()
    assert run(["cache", "clear"]) == 0

    assert found["bytes"] == sum(entry["bytes"] for entry in found["entries"]) > 0
    assert found["entries"][0]["images"] == 2
    assert "a test" in shown.out and "just now" in shown.out
    assert not FeatureCache().shards()


def test_images_of_files_with_others_are_counted_and_stay(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path))
    folder = tmp_path / "extracted" / "t-01234567"
    folder.mkdir(parents=True)
    for name in ("1-aa.png", "2-bb.png"):
        (folder / name).write_bytes(bytes(1_500_000))
    (folder / "index.json").write_text("{}")

    for arguments in (["info"], ["info", "--json"], ["clear"]):
        assert run(["cache", *arguments]) == 0

    place = tmp_path / "extracted"
    shown = "".join(capsys.readouterr())
    line = f"2 images of Parquet and TFRecord files, 3.0 MB, in {place}"
    assert f"{line}\n" in shown and f"{line} stay, as finished runs read them\n" in shown
    assert '"bytes": 3000000' in shown
    assert len(list(folder.iterdir())) == 3


def test_the_store_is_shown_for_each_base_and_its_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path))
    for number, (key, cut, data) in enumerate(
        [("a", "conv1", "/photos"), ("b", "conv2", "/photos"), ("c", "conv1", "/scans")]
    ):
        entry = FeatureCache().entry(key)
        made_by = f"mobilenet before {cut}"
        with entry.write([digest(number)], [(4,)], "float32", made_by, data=data) as writer:
            writer.add([np.full((1, 4), number)])
    for shard in FeatureCache().shards():
        if shard.data == "/scans":
            os.utime(shard.path / "whole.json", (1, 1))

    assert run(["cache", "info"]) == 0

    _, first, second = capsys.readouterr().out.strip().splitlines()
    assert first.split()[:3] == ["mobilenet", "/scans", "1"] and first.endswith("days ago")
    assert second.split()[:3] == ["mobilenet", "/photos", "2"] and second.endswith("just now")
