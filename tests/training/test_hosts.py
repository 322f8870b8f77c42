"""Hosts find one another, train one model, and stop when one of them is gone."""

import csv
import fcntl
import json
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.api.test_resume import RECIPE
from tests.features.test_parts import values_of
from tests.training.test_devices import check_cases
from tl_toolkit.api.together import Together
from tl_toolkit.errors import HostError, RecipeError
from tl_toolkit.events import Event
from tl_toolkit.plan.hosts import Hosts, parse_hosts
from tl_toolkit.training import meeting as meetings
from tl_toolkit.training.meeting import Meeting, meet

CLOSE = 1e-5


def free_addresses(count=2):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return [f"127.0.0.1:{port}" for port in ports]


def in_meeting(work, count=3):
    """What a function returns or raises on each of several hosts, which are threads here."""
    addresses = free_addresses(count)

    def join(index):
        try:
            with meet(Hosts(tuple(addresses), index, 20)) as meeting:
                return work(meeting, index)
        except HostError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(join, range(count)))


def test_all_hosts_have_what_the_first_one_shares():
    def work(meeting, index):
        values = [meeting.share(f"{index}, {turn}".encode()) for turn in range(3)]
        meeting.finish()
        return values

    assert in_meeting(work) == [[b"0, 0", b"0, 1", b"0, 2"]] * 3


def test_what_differs_is_named_on_all_hosts():
    def work(meeting, index):
        meeting.check_equal({"recipe": "same", "set of images": index // 2})

    texts = [str(error) for error in in_meeting(work)]

    assert all("host 2 (127.0.0.1:" in text for text in texts)
    assert all(text.split(")")[1].startswith(" has another set of images") for text in texts)


def test_a_host_that_ends_is_named_to_the_others():
    def work(meeting, index):
        lost = []
        meeting.watch(lost.append)
        if index == 1:
            return None
        text = meeting.find_lost(20)
        assert lost == [text]
        return text

    first, _, other = in_meeting(work)

    assert first.startswith("host 1 (127.0.0.1:")
    assert other.startswith("host 0 (127.0.0.1:")  # which leaves, too


def test_a_host_that_waits_for_what_never_comes_is_told():
    def work(meeting, index):
        if index == 0:
            raise HostError("ended")
        meeting.share()

    assert "host 0 (127.0.0.1:" in str(in_meeting(work)[1])


@pytest.mark.parametrize("is_alive", [True, False], ids=["stands still", "is gone"])
def test_a_host_that_does_not_come_to_the_training_is_named_to_all(is_alive):
    done = threading.Event()

    def work(meeting, index):
        if index == 1:
            if is_alive:
                done.wait(20)
            return None
        try:
            meeting.gather(0.5)
        finally:
            if index == 2:
                done.set()

    first, _, other = in_meeting(work)

    for error in (first, other):
        assert "host 1 (127.0.0.1:" in str(error)
        assert "before the training began" in str(error)
        assert "host 2" not in str(error)


def test_a_first_host_that_does_not_come_is_named_and_not_taken_for_dead(monkeypatch):
    monkeypatch.setattr("tl_toolkit.training.meeting._ANSWER_SECONDS", 0.8)
    done = threading.Barrier(3, timeout=20)

    def work(meeting, index):
        try:
            if index:
                meeting.gather(0.2)
        finally:
            done.wait()

    _, *others = in_meeting(work)

    for error in others:
        assert "host 0 (127.0.0.1:" in str(error) and "host_wait" in str(error)
        assert "is gone" not in str(error)


def test_hosts_that_come_to_the_training_go_on_together():
    def work(meeting, index):
        time.sleep(index / 10)
        meeting.gather(20)
        return meeting.share(f"{index}".encode())

    assert in_meeting(work) == [b"0"] * 3


def test_the_limit_of_coming_to_the_training_is_none_of_the_training_itself(monkeypatch):
    monkeypatch.setattr("tl_toolkit.training.meeting._ANSWER_SECONDS", 0.8)

    def work(meeting, index):
        meeting.gather(0.8)
        if index == 0:
            time.sleep(2)  # it evaluates and exports, when the others are done
        return meeting.share(b"done")

    assert in_meeting(work) == [b"done"] * 3


def test_hosts_that_do_not_come_are_named():
    addresses = free_addresses()

    for index in (0, 1):
        with pytest.raises(HostError, match=rf"hosts  host {1 - index} \(.*\) did not come"):
            with meet(Hosts(tuple(addresses), index, 0.3)):
                pass


def test_who_is_no_host_is_not_waited_for():
    addresses = free_addresses()
    hosts = [Hosts(tuple(addresses), index, 20) for index in (0, 1)]

    def disturb():
        name, port = hosts[0].split(0)
        for _ in range(100):
            try:
                with socket.create_connection((name, port)) as stranger:
                    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                return
            except OSError:
                time.sleep(0.05)

    def join(index):
        if index == 1:
            disturb()
        with meet(hosts[index]) as meeting:
            return meeting.share(b"hello")

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(join, (0, 1))) == [b"hello", b"hello"]


def visit(address, messages):
    """Sends messages slowly to a host that listens or will; returns how many it took."""
    name, port = address.split(":")
    for _ in range(200):
        try:
            stranger = socket.create_connection((name, port))
            break
        except OSError:
            time.sleep(0.02)
    with stranger:
        for count, message in enumerate(messages):
            time.sleep(0.02)
            try:
                stranger.sendall(message)
            except OSError:
                return count
        return len(messages)


def wait_for_a_host(addresses):
    with pytest.raises(HostError) as caught, meet(Hosts(tuple(addresses), 0, 0.5)):
        pass
    return str(caught.value)


def framed(text, size=None):
    return struct.pack(">Q", len(text) if size is None else size) + text


@pytest.mark.parametrize(
    "messages",
    [
        [framed(b"", 2**33), *[b" "] * 500],
        [framed(b"", 1000), *[b" "] * 500],
        [framed(b"[" * 1000), *[b" "] * 500],
    ],
    ids=["long", "slow", "deep"],
)
def test_a_stranger_cannot_keep_a_host_from_its_deadline(messages, monkeypatch):
    monkeypatch.setattr(meetings, "_ANSWER_SECONDS", 0.3)
    addresses = free_addresses()

    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(visit, addresses[0], messages)
        assert "did not come" in wait_for_a_host(addresses)

    assert taken.result() < len(messages)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([framed(b"{}", 102), *[b" "] * 100], "is gone"),
        ([framed(b"{")], "another version"),
        ([framed(b"[]")], "another version"),
    ],
    ids=["slow", "no JSON", "no facts"],
)
def test_who_takes_the_place_of_a_host_is_refused(second, expected, monkeypatch):
    monkeypatch.setattr(meetings, "_ANSWER_SECONDS", 0.3)
    addresses = free_addresses()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(visit, addresses[0], [framed(b'{"index": 1}'), *second])
        assert expected in wait_for_a_host(addresses)


def test_the_end_of_a_host_is_noticed_among_thousands_of_open_files():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(2048, limits[0]), limits[1]))
    first, other = socket.socketpair()
    try:
        number = fcntl.fcntl(first.fileno(), fcntl.F_DUPFD_CLOEXEC, 1500)
        meeting = Meeting(Hosts(("a:1", "b:1"), 0), {1: socket.socket(fileno=number)})
        meeting.watch(lambda text: None)
        assert meeting.find_lost(0.5) == ""
        other.close()
        assert meeting.find_lost(20).startswith("host 1 (b:1) is gone")
        meeting.close()
    finally:
        first.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


ALL = ("a:1", "b:1", "c:1")
CLUSTER = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}}


@pytest.mark.parametrize(
    ("typed", "index", "environment", "expected"),
    [
        (None, None, {}, None),
        ("a:1,b:2", 1, {}, Hosts(("a:1", "b:2"), 1)),
        (["a:1", "[::1]:2"], 0, {}, Hosts(("a:1", "[::1]:2"), 0)),
        (None, None, {**CLUSTER, "task": {"type": "chief"}}, Hosts(ALL, 0)),
        (None, None, {**CLUSTER, "task": {"type": "worker", "index": 1}}, Hosts(ALL, 2)),
        (None, None, {"cluster": {"worker": ["a:1"]}, "task": {"index": 0}}, None),
    ],
)
def test_hosts_are_typed_or_those_of_tf_config(typed, index, environment, expected):
    variables = {"TF_CONFIG": json.dumps(environment)} if environment else {}

    assert parse_hosts(typed, index, variables) == expected


@pytest.mark.parametrize(
    ("typed", "index", "variable", "message"),
    [
        ("a:1", 0, "", "expected two hosts or more"),
        ("a:1,a:1", 0, "", "expected two hosts or more, each once"),
        ("a,b:1", 0, "", r"'a'\n  expected HOST:PORT"),
        ("a:1,b:70000", 0, "", "expected HOST:PORT"),
        ("a:1,b:1", None, "", "none is given"),
        ("a:1,b:1", 2, "", "host_index  2\n  expected the place .* 0 to 1"),
        (None, 0, "", "It goes with hosts"),
        (None, None, "{", "TF_CONFIG .*\n  expected JSON"),
        (None, None, '{"cluster": {"ps": ["a:1"], "worker": ["b:1"]}}', "TF_CONFIG  has ps"),
    ],
)
def test_what_is_no_list_of_hosts_is_refused(typed, index, variable, message):
    with pytest.raises(RecipeError, match=message):
        parse_hosts(typed, index, {"TF_CONFIG": variable})


def test_the_wait_for_hosts_is_theirs():
    assert parse_hosts("a:1,b:1", 0, {}, wait_seconds=7).wait_seconds == 7
    assert parse_hosts("a:1,b:1", 0, {}).wait_seconds == 300
    for hosts, seconds, message in ((None, 7, "It goes with hosts"), ("a:1,b:1", 0, "1 to 86400")):
        with pytest.raises(RecipeError, match=message):
            parse_hosts(hosts, 0 if hosts else None, {}, wait_seconds=seconds)


def run_processes(commands, folder, *, meanwhile=lambda processes: None, environments=None):
    """Runs commands side by side; returns exit codes and what was printed."""
    files = [(folder / f"printed{index}").open("w+") for index in range(len(commands))]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | variables,
        )
        for command, file, variables in zip(
            commands, files, environments or [{}] * len(commands), strict=True
        )
    ]
    try:
        meanwhile(processes)
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    texts = []
    for file in files:
        file.seek(0)
        texts.append(file.read())
        file.close()
    return codes, texts


@pytest.mark.slow
def test_two_processes_since_tensorflow_connects_once_train_what_one_trains(tmp_path):
    addresses = ",".join(free_addresses())
    commands = [
        ("tests.training.loopback", addresses, str(index), "whole network", "float16")
        for index in (0, 1)
    ]

    codes, texts = run_processes(commands, tmp_path)

    assert codes == [0, 0], texts
    for text in texts:
        check_cases(json.loads(text.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("leaver", [0, 1])
def test_a_process_that_ends_before_tensorflow_connects_is_named_by_the_other(tmp_path, leaver):
    addresses = ",".join(free_addresses())
    commands = [
        ("tests.training.loopback", addresses, str(index), "leave" if index == leaver else "stay")
        for index in (0, 1)
    ]

    codes, texts = run_processes(commands, tmp_path)

    assert codes[leaver] == 9, texts
    assert codes[1 - leaver] == 8, texts
    assert f"host {leaver} (127.0.0.1:" in texts[1 - leaver]
    assert "is gone" in texts[1 - leaver]


LONG = RECIPE | {
    "model": RECIPE["model"] | {"head": {"dropout": 0}},
    "phases": [{"name": "tune", "epochs": 15, "unfreeze": 2, "learning_rate": 1e-3}],
    "early_stopping": None,
}


def losses(folder):
    with (folder / "phases" / "1-tune" / "history.csv").open() as file:
        return [float(row["val_loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_run_on_two_hosts_is_stopped_by_the_death_of_one_and_goes_on_with_one(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(LONG))
    command = ("tl_toolkit", "finetune", str(recipe), "--out")

    def start(name, *, resume=False, meanwhile=lambda processes: None):
        hosts = ("--hosts", ",".join(free_addresses()), *(("--resume",) if resume else ()))
        commands = [
            (*command, str(tmp_path / name), *hosts, "--host-index", str(index)) for index in (0, 1)
        ]
        return run_processes(commands, tmp_path, meanwhile=meanwhile)

    def kill_the_other(processes):
        status = tmp_path / "killed" / "status.json"
        while processes[0].poll() is None:
            if status.is_file() and json.loads(status.read_text()).get("epoch", 0) >= 3:
                processes[1].kill()
                return
            time.sleep(0.02)

    codes, texts = start("whole")
    assert codes == [0, 0], texts
    assert not [path for path in os.listdir(tmp_path) if path.startswith("tltool")]
    codes, texts = start("killed", meanwhile=kill_the_other)
    assert codes == [8, -9], texts
    assert "host 1 (127.0.0.1:" in texts[0]
    assert "is gone" in texts[0]
    assert "--resume" in texts[0]
    done = run_processes([(*command, str(tmp_path / "killed"), "--resume")], tmp_path)
    assert done[0] == [0], done
    alone = run_processes([(*command, str(tmp_path / "alone"))], tmp_path)
    assert alone[0] == [0], alone

    expected = losses(tmp_path / "alone")
    assert len(expected) == 16
    assert max(expected) - min(expected) > 0.05
    for name in ("whole", "killed"):
        assert losses(tmp_path / name) == pytest.approx(expected, abs=CLOSE)


@pytest.mark.slow
def test_two_hosts_compute_each_stored_feature_once_and_as_one_process_does(tmp_path):
    command = ("tl_toolkit", "finetune")
    plain = {name: value for name, value in LONG.items() if name != "augment"}
    plain["phases"] = [LONG["phases"][0] | {"epochs": 1}]

    def start(name, *hosts):
        features = {"store": "always", "location": str(tmp_path / name), "part": 4}
        recipe = tmp_path / f"{name}.yaml"
        recipe.write_text(json.dumps(plain | {"features": features}))
        out = ("--out", str(tmp_path / f"run-{name}"))
        codes, texts = run_processes(
            [(*command, str(recipe), *out, *each) for each in hosts], tmp_path
        )
        assert codes == [0] * len(hosts), texts
        return texts

    addresses = ",".join(free_addresses())
    texts = start(
        "shared", *(("--hosts", addresses, "--host-index", str(index)) for index in (0, 1))
    )
    start("alone", ())

    values = values_of(tmp_path / "shared")  # which finds no image twice
    assert values == values_of(tmp_path / "alone")
    told = [re.search(COMPUTED, " ".join(text.split())) for text in texts]
    computed = [int(found[2] or found[1]) for found in told if found]
    assert sum(computed) == len(values)


COMPUTED = r"ran once for (\d+) images(?:, for (\d+) of them)?"


def test_a_host_that_is_gone_ends_the_filling_of_the_store():
    def work(meeting, index):
        if index == 1:
            return None
        handle = Together(meeting, None, None).noticing(lambda event: None)
        meeting.watch(lambda text: None)
        assert meeting.find_lost(20)
        handle(Event("epoch_ended"))
        handle(Event("features_computed", done=0, total=1))

    first, _, other = in_meeting(work)

    assert "host 1 (127.0.0.1:" in str(first)
    assert isinstance(other, HostError)
