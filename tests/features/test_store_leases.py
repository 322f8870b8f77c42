"""Leases in an object store: one host computes a part, and what a dead one has left is free."""

import json
import os
import re
import threading
import time
from types import SimpleNamespace

import fsspec
import pytest

from tests.conftest import draw_class_folders
from tests.features.test_parts import context_of, values_of
from tl_toolkit.features import store_leases
from tl_toolkit.features.leases import LEASE_PREFIX, FolderLeases, describe_lessee, leased
from tl_toolkit.features.shards import ShardWriter
from tl_toolkit.features.store_leases import StoreLeases
from tl_toolkit.plan.training import training_settings
from tl_toolkit.recipe.remote import mirror_of
from tl_toolkit.runtime import numerics
from tl_toolkit.sources import small_objects, stores
from tl_toolkit.training import filling

IMAGES = [b"1"]
HERE = store_leases._describe_here()
ENDED = {**HERE, "pid": 2**22 + 1}
ELSEWHERE = {**HERE, "host": "elsewhere", "boot": "another", "pid": 77}


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A store in memory whose requests come one after the other, as a server's do."""
    monkeypatch.setattr(stores, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(store_leases, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(small_objects, "_known", {})
    system, requests = fsspec.filesystem("memory"), threading.RLock()

    def in_turn(name):
        request = getattr(type(system), name)

        def wait(*arguments, **options):
            with requests:
                return request(*arguments, **options)

        monkeypatch.setattr(type(system), name, wait)

    for name in ("find", "info", "cat_file", "get_file", "put_file", "pipe_file", "rm_file"):
        in_turn(name)
    yield system
    monkeypatch.undo()
    if system.exists(f"/{tmp_path.name}"):
        system.rm(f"/{tmp_path.name}", recursive=True)


@pytest.fixture
def clock(monkeypatch):
    """The clock of the waiting process, which stands still."""
    clock = SimpleNamespace(now=1000.0, time=time.time)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(store_leases, "time", clock)
    return clock


@pytest.fixture
def become(tmp_path, system):
    """Returns the leases of a host on an entry."""

    def become(host, entry="key"):
        folder = FolderLeases(tmp_path / host / entry)
        return StoreLeases(f"memory://{tmp_path.name}/{entry}", folder)

    return become


@pytest.fixture
def place(tmp_path, become):
    """The path of the lease on IMAGES."""
    with leased([become("any")], IMAGES):
        (path,) = list_leases(tmp_path)
    return path


def list_leases(tmp_path):
    system = fsspec.filesystem("memory")
    return [path for path in system.find(f"/{tmp_path.name}") if LEASE_PREFIX in path]


def write_lease(system, path, holder, **facts):
    """A lease as its holder has left it."""
    facts = {"since": 1_000_000_000, "key": "other", "beat": 0, **holder, **facts}
    system.pipe_file(path, json.dumps(facts).encode())


def take(*entries, images=IMAGES):
    """Returns whether a lease can be had now."""
    with leased(entries, images) as is_ours:
        return is_ours


def test_of_two_hosts_one_has_a_lease(system, become, tmp_path):
    first, second = become("first"), become("second")

    with leased([become("first", "b"), first], IMAGES) as is_ours:
        assert is_ours
        assert len(list_leases(tmp_path)) == 2
        assert not take(second)
        with leased([second, become("second", "a")], IMAGES) as is_theirs:
            assert not is_theirs
            assert len(list_leases(tmp_path)) == 2  # and none on a
        assert describe_lessee([second], IMAGES).startswith(f"process {os.getpid()} on ")
        assert take(second, images=[b"2"])
        assert len(list_leases(tmp_path)) == 2
    assert take(second)

    assert not system.find(f"/{tmp_path.name}")
    assert not list(tmp_path.rglob(f"{LEASE_PREFIX}*"))


def test_a_lease_without_a_sign_of_life_for_five_minutes_is_free(system, become, place, clock):
    write_lease(system, place, ELSEWHERE)
    waiter = become("first")

    assert not take(waiter)
    assert describe_lessee([waiter], IMAGES).startswith("process 77 on elsewhere since 2001-")
    clock.now += 299
    assert not take(waiter)
    write_lease(system, place, ELSEWHERE, beat=1)
    clock.now += 2
    assert not take(waiter)
    clock.now += 299
    assert not take(waiter)
    clock.now += 2
    with leased([waiter], IMAGES) as is_ours:
        assert is_ours
        assert json.loads(system.cat_file(place))["pid"] == os.getpid()
        assert not take(become("second"))

    assert not system.exists(place)


def test_a_waiter_that_was_stopped_while_it_asked_takes_nobody_for_dead(
    system, become, place, clock, monkeypatch
):
    write_lease(system, place, ELSEWHERE)
    waiter, cat_file = become("first"), type(system).cat_file
    assert not take(waiter)

    def stop(self, path, **options):
        content = cat_file(self, path, **options)
        clock.now += 301
        return content

    monkeypatch.setattr(type(system), "cat_file", stop)

    assert not take(waiter)


def test_the_lease_of_an_ended_process_of_this_host_is_free_at_once(system, become, place):
    write_lease(system, place, ENDED)

    assert take(become("first"))


@pytest.mark.parametrize("fact", ["host", "boot", "pid_namespace"])
def test_an_ended_process_id_of_another_host_or_container_says_nothing(system, become, place, fact):
    write_lease(system, place, ENDED, **{fact: "another"})

    assert not take(become("first"))


def test_of_two_hosts_that_find_a_dead_holder_one_takes_over(
    system, become, place, clock, monkeypatch
):
    write_lease(system, place, ELSEWHERE)
    first, second = become("first"), become("second")
    assert not take(first) and not take(second)
    clock.now += 301
    replace, taken = store_leases.replace_object, []

    def be_late(*arguments):
        monkeypatch.setattr(store_leases, "replace_object", replace)
        held = leased([second], IMAGES)
        taken.append((held, held.__enter__()))
        return replace(*arguments)

    monkeypatch.setattr(store_leases, "replace_object", be_late)

    assert not take(first)
    ((held, is_ours),) = taken
    assert is_ours and system.exists(place)
    held.__exit__(None, None, None)
    assert take(first)


def test_a_holder_gives_signs_of_life(system, become, place, monkeypatch):
    monkeypatch.setattr(store_leases, "_BEAT_SECONDS", 0.01)
    with leased([become("first")], IMAGES):
        wait_for(lambda: json.loads(system.cat_file(place))["beat"] > 1)

    assert not system.exists(place)


def test_a_holder_that_was_taken_for_dead_leaves_the_lease_of_its_follower(
    system, become, place, monkeypatch, caplog
):
    monkeypatch.setattr(store_leases, "_BEAT_SECONDS", 0.01)
    with leased([become("first")], IMAGES):
        write_lease(system, place, ELSEWHERE)
        wait_for(lambda: caplog.records)

    assert "another process took it" in caplog.text
    assert json.loads(system.cat_file(place))["host"] == "elsewhere"


def test_a_lease_whose_beat_is_being_written_is_left_to_expire(system, become, place, monkeypatch):
    """To delete it would be in vain: the beat may be written afterwards."""
    monkeypatch.setattr(store_leases, "_BEAT_SECONDS", 0.01)
    monkeypatch.setattr(store_leases, "_PATIENCE_SECONDS", 0.01)
    replace, is_written, goes_on = store_leases.replace_object, threading.Event(), threading.Event()

    def hang(*arguments):
        is_written.set()
        goes_on.wait(timeout=60)
        return replace(*arguments)

    monkeypatch.setattr(store_leases, "replace_object", hang)
    with leased([become("first")], IMAGES):
        assert is_written.wait(timeout=10)

    assert system.exists(place)
    goes_on.set()
    wait_for(lambda: json.loads(system.cat_file(place))["beat"] == 1)


def wait_for(claim):
    deadline = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ignore_mode(system):
    pipe_file = type(system).pipe_file
    return lambda self, path, value, mode=None, **options: pipe_file(self, path, value, **options)


def know_no_mode(system):
    pipe_file = type(system).pipe_file
    return lambda self, path, value: pipe_file(self, path, value)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (ignore_mode, "it created one that was there"),
        (know_no_mode, "TypeError: .* unexpected keyword"),
    ],
)
def test_a_store_without_exclusive_creation_works_as_without_leases_and_says_so_once(
    system, become, tmp_path, monkeypatch, caplog, kind, reason
):
    monkeypatch.setattr(type(system), "pipe_file", kind(system))
    first, second = become("first"), become("second")

    with leased([first], IMAGES) as is_ours:
        assert is_ours
        assert take(second)  # another host
        assert not take(become("first"))  # another process of the same one
        assert describe_lessee([first], IMAGES).startswith(f"process {os.getpid()} on ")
        assert not system.find(f"/{tmp_path.name}")

    (record,) = caplog.records
    text = rf"features\.location: memory://{tmp_path.name} cannot write .*{reason}"
    assert re.match(text, record.getMessage())


def test_a_lease_that_may_not_be_deleted_is_free_at_once(system, become, place, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError("403")

    monkeypatch.setattr(type(system), "rm_file", refuse)

    assert take(become("first"))
    assert system.exists(place)
    assert take(become("second"))


def test_a_waiter_asks_a_store_every_two_seconds(system, become, place, clock, monkeypatch):
    monkeypatch.setattr(store_leases, "_LOOK_SECONDS", 2.0)
    write_lease(system, place, ELSEWHERE)
    waiter, asked, cat_file = become("first"), [], type(system).cat_file

    def count(self, path, **options):
        asked.append(path)
        return cat_file(self, path, **options)

    monkeypatch.setattr(type(system), "cat_file", count)
    for _ in range(21):
        assert not take(waiter)
        clock.now += 0.2

    assert asked == [place] * 3


def test_a_dead_holder_of_several_leases_is_waited_for_once(system, become, place, clock):
    write_lease(system, place, ELSEWHERE)
    write_lease(system, place.replace("/key/", "/a/"), ELSEWHERE)
    waiters = [become("first", "a"), become("first")]

    assert not take(*waiters)
    clock.now += 301
    assert take(*waiters)


def test_a_waiter_takes_no_other_lease_between_two_looks(system, become, place, clock, monkeypatch):
    """Each would be created and deleted again, five times a second."""
    monkeypatch.setattr(store_leases, "_LOOK_SECONDS", 2.0)
    write_lease(system, place, ELSEWHERE)
    free, held, created = become("first", "a"), become("first"), []
    pipe_file = type(system).pipe_file

    def count(self, path, *arguments, **options):
        created.append(path)
        return pipe_file(self, path, *arguments, **options)

    monkeypatch.setattr(type(system), "pipe_file", count)
    for _ in range(21):
        assert not take(held, free)
        clock.now += 0.2

    assert len(created) == 3
    assert take(free)


def test_offline_the_leases_of_this_host_are_all(system, become, tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")

    with leased([become("first")], IMAGES) as is_ours:
        assert is_ours
        assert not take(become("first"))
        assert not system.exists(f"/{tmp_path.name}")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_class_folders(tmp_path_factory.mktemp("photos") / "all", count=9)


def test_two_hosts_at_once_compute_each_image_once(photos, system, tmp_path, monkeypatch):
    """In four seconds: what leases are for, in threads; two processes do so in test_s3.py."""
    address, roots, trainers = f"memory://{tmp_path.name}/features", [], []
    texts, both, is_waiting = [], threading.Barrier(2), threading.Event()

    def report(event):
        texts.append(event.text or "")
        if texts[-1].startswith(f"waiting for process {os.getpid()} on "):
            is_waiting.set()

    for host in ("alone", "first", "second"):
        monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / host))
        roots.append(tmp_path / "store" if host == "alone" else mirror_of(address))
        location = tmp_path / "store" if host == "alone" else address
        context = context_of(photos, location, tmp_path, part=8)
        trainers.append(filling._build(context, report))
    finish, begun = ShardWriter.finish, set()

    def meet(self, *arguments):
        """Both have a first lease at once; the second keeps it until the first has no other."""
        host = threading.current_thread().name
        if host not in begun:
            begun.add(host)
            both.wait(timeout=60)
            assert host == "first" or is_waiting.wait(timeout=60)
        finish(self, *arguments)

    settings = training_settings(context.plan)
    with numerics(deterministic=True, threads=None):
        assert trainers[0].fill(settings) is None
        monkeypatch.setattr(ShardWriter, "finish", meet)
        threads = [
            threading.Thread(target=trainer.fill, args=(settings,), name=host)
            for trainer, host in zip(trainers[1:], ("first", "second"), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    counts = re.findall(r"27 images, for (\d+) of them in this process", "\n".join(texts))
    # Of the training images' parts of 8, 8 and 5 the second has one; 6 of validation are anyone's.
    assert sorted(map(int, counts)) in ([13, 14], [8, 19]) and is_waiting.is_set()
    assert values_of(roots[0]) == values_of(roots[1]) == values_of(roots[2])
    assert not list_leases(tmp_path)
