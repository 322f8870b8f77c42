"""The protocol of S3 over HTTP, spoken by a server on loopback: data, files, and no secret left."""

import hashlib
import json
import os
import re
import signal
import subprocess
import threading

import keras
import pytest
import s3fs
from moto.s3.responses import S3Response

from tests.command import TLTOOL, tltool
from tests.sources.conftest import ID, SECRET, TOKEN
from tl_toolkit.architectures.lenet import build_lenet5
from tl_toolkit.features.leases import LEASE_PREFIX
from tl_toolkit.sources import objects, small_objects, stores

pytestmark = pytest.mark.slow


def write_recipe(place, source):
    place.write_text(
        f"version: 1\nname: s3\ndata: {{train: '{source}', image_size: 32, batch_size: 4}}\n"
        "model: {base: lenet5, weights: random}\nphases: [{name: head, epochs: 2}]\n"
    )
    return str(place)


def call(*arguments, folder, code=0):
    result = tltool(*arguments, cwd=folder, code=code)
    for text in (result.stdout, result.stderr):
        assert_no_secret(text.encode())
    return result


def assert_no_secret(content):
    for secret in (ID, SECRET, TOKEN):
        assert secret.encode() not in content


def list_files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_run_on_a_bucket_equals_one_on_files_and_holds_no_secret(server, tmp_path):
    local = write_recipe(tmp_path / "local.yaml", tmp_path / "photos")
    remote = write_recipe(tmp_path / "remote.yaml", "s3://flowers/photos")
    call("validate", remote, folder=tmp_path)
    call("finetune", local, "--out", tmp_path / "local", folder=tmp_path)
    call("finetune", remote, "--out", tmp_path / "remote", folder=tmp_path)

    for name in ("manifest.csv", "predictions.csv"):
        rows = (tmp_path / "remote" / name).read_text().replace(
            "s3://flowers/photos", str(tmp_path / "photos")
        )  # fmt: skip
        assert rows == (tmp_path / "local" / name).read_text()
    metrics = [
        json.loads((tmp_path / name / "metrics.json").read_text())["validation"]
        for name in ("local", "remote")
    ]
    assert metrics[0] == metrics[1]
    for path in (*list_files(tmp_path / "remote"), *list_files(tmp_path / "cache")):
        assert_no_secret(path.read_bytes())


def test_a_table_in_a_bucket_is_split_begun_with_and_trained_on(server, tmp_path):
    rows = [f"{name}/{number}.jpg,{name}" for name in ("ants", "bees") for number in range(5)]
    table = "\n".join(["path,label", *rows])
    (tmp_path / "photos" / "labels.csv").write_text(table)
    server.pipe("flowers/photos/labels.csv", table.encode())
    address = "s3://flowers/photos/labels.csv"
    call("init", address, "-o", "remote.yaml", "--base", "lenet5", folder=tmp_path)
    call("init", "photos/labels.csv", "-o", "local.yaml", "--base", "lenet5", folder=tmp_path)
    for name in ("local", "remote"):
        options = ("export=false", "report=false", "phases.0.epochs=1")
        call("finetune", f"{name}.yaml", *options, "--out", name, folder=tmp_path)
        source = address if name == "remote" else "photos/labels.csv"
        call("data", "split", source, "-o", f"{name}.csv", folder=tmp_path)

    for name in ("local/manifest.csv", "local/predictions.csv"):
        remote = (tmp_path / name.replace("local", "remote")).read_text()
        local = (tmp_path / name).read_text()
        assert remote.replace("s3://flowers/photos", str(tmp_path / "photos")) == local
    remote, local = ((tmp_path / f"{name}.csv").read_text() for name in ("remote", "local"))
    assert remote.replace("s3://flowers/", "") == local
    for path in (*list_files(tmp_path / "remote"), *list_files(tmp_path / "cache")):
        assert_no_secret(path.read_bytes())


def test_objects_are_predicted_listed_and_checked(server, tmp_path):
    recipe = write_recipe(tmp_path / "remote.yaml", "s3://flowers/photos")
    run = tmp_path / "run"
    call("finetune", recipe, "export=false", "report=false", "--out", run, folder=tmp_path)
    (tmp_path / "list.txt").write_text("s3://flowers/photos/ants/0.jpg\ns3://flowers/no.jpg\n")

    def predict(*arguments, code=0):
        return call("predict", run, *arguments, folder=tmp_path, code=code).stdout

    one = predict("s3://flowers/photos/ants/0.jpg", "--format", "csv")
    below = predict("s3://flowers/photos/bees", "--format", "csv")
    predict("--list", tmp_path / "list.txt", "--out", tmp_path / "rows", code=3)
    report = call("data", "check", "s3://flowers/photos", "--json", folder=tmp_path).stdout

    assert one.count("s3://flowers/photos/ants/0.jpg,") == 1
    assert below.count("s3://flowers/photos/bees/") == 5
    table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "rows").to_pylist()
    assert [row["path"] for row in table] == [
        "s3://flowers/photos/ants/0.jpg", "s3://flowers/no.jpg",
    ]  # fmt: skip
    assert table[0]["label"] and not table[0]["error"] and table[1]["error"]
    found = json.loads(report)
    assert found["source"] == "s3://flowers/photos" and found["images"] == 10


def test_files_of_a_bucket_are_copied_once_for_each_state(server, tmp_path, monkeypatch):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = sorted((tmp_path / "photos").glob("*/*.jpg"))
    rows = [{"image": image.read_bytes(), "label": image.parent.name} for image in images]
    for name, part in (("train-00000-of-00002", rows[::2]), ("train-00001-of-00002", rows[1::2])):
        parquet.write_table(pa.Table.from_pylist(part), tmp_path / f"{name}.parquet")
        server.put(str(tmp_path / f"{name}.parquet"), f"flowers/sets/data/{name}.parquet")
    server.pipe("flowers/sets/exclude.csv", b"path\ndata/train-00000-of-00002.parquet#1\n")
    pixels = keras.Input((32, 32, 1))
    keras.Model(pixels, build_lenet5(pixels)).save_weights(tmp_path / "lenet.weights.h5")
    server.put(str(tmp_path / "lenet.weights.h5"), "flowers/sets/lenet.weights.h5")
    (tmp_path / "r.yaml").write_text(
        "version: 1\nname: s3\nphases: [{name: head, epochs: 1}]\nexport: false\nreport: false\n"
        "data: {table: 's3://flowers/sets', exclude: 's3://flowers/sets/exclude.csv', "
        "image_size: 32, batch_size: 4}\n"
        "model: {base: lenet5, weights: 's3://flowers/sets/lenet.weights.h5'}\n"
    )

    first = call("validate", "r.yaml", folder=tmp_path).stderr
    before = {path: path.stat().st_mtime_ns for path in list_files(tmp_path / "cache" / "remote")
              if path.suffix in (".parquet", ".h5", ".csv")}  # fmt: skip
    call("finetune", "r.yaml", "--out", "run", folder=tmp_path)
    lock = json.loads((tmp_path / "run" / "lock.json").read_text())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    call("validate", "r.yaml", "--offline", folder=tmp_path)

    assert "9 to be split" in first and "1 image left out by s3://flowers/sets/exclude" in first
    assert len(before) == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert lock["weights"] == "s3://flowers/sets/lenet.weights.h5"
    digest = hashlib.sha256((tmp_path / "lenet.weights.h5").read_bytes()).hexdigest()
    assert lock["weights_sha256"] == digest
    for path in (*list_files(tmp_path / "run"), *list_files(tmp_path / "cache")):
        assert_no_secret(path.read_bytes())


def test_annotations_in_a_bucket_list_the_images_beside_them(server, tmp_path):
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 40, "width": 40} for n in range(5)]
    values = {
        "images": images,
        "annotations": [
            {"image_id": n, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}
            for n in range(5)
        ],
        "categories": [{"id": 1, "name": "ant"}],
    }
    server.pipe("flowers/annotations/instances_train.json", json.dumps(values).encode())
    server.put(str(tmp_path / "photos" / "ants"), "flowers/train", recursive=True)

    call("init", "s3://flowers", "-o", "r.yaml", folder=tmp_path)
    found = call("validate", "r.yaml", folder=tmp_path).stderr

    assert "s3://flowers/annotations/instances_train.json" in (tmp_path / "r.yaml").read_text()
    assert "5 to be split" in found


def test_hosts_share_stored_features_through_a_bucket(server, tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path / "remote.yaml", "s3://flowers/photos")
    place = f"features.location=s3://flowers/{tmp_path.name}/features"

    def fill(host):
        monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / host))
        monkeypatch.setattr(objects, "_facts", {})
        done = call("cache", "fill", recipe, place, "features.store=always", folder=tmp_path)
        shards = (tmp_path / host).glob("remote/*features/*/*/*.npy")
        return done.stderr, {path.name: path.read_bytes() for path in shards}

    first, values = fill("first")
    second, copies = fill("second")

    assert "ran once for 10 images" in first and "ran once" not in second
    assert copies == values and values


def test_an_object_is_created_once_and_replaced_only_as_it_was(server, tmp_path, monkeypatch):
    folder = f"s3://flowers/{tmp_path.name}"
    address, path = f"{folder}/object", f"flowers/{tmp_path.name}/object"
    monkeypatch.setattr(small_objects, "_known", {})

    assert small_objects.knows_conditions("where", folder)
    assert not server.find(f"flowers/{tmp_path.name}")
    assert small_objects.read_object("where", address) is None
    assert not small_objects.replace_object("where", address, b"0", b"1")
    assert small_objects.create_object("where", address, b"1")
    assert not small_objects.create_object("where", address, b"2")
    assert not small_objects.replace_object("where", address, b"2", b"3")
    assert small_objects.replace_object("where", address, b"1", b"3")
    assert small_objects.read_object("where", address) == b"3"

    read = small_objects.read_object

    def read_before_another_host_writes(where, address):
        content = read(where, address)
        server.pipe_file(path, b"theirs")
        return content

    monkeypatch.setattr(small_objects, "read_object", read_before_another_host_writes)
    assert not small_objects.replace_object("where", address, b"3", b"4")
    assert server.cat_file(path) == b"theirs"

    small_objects.remove_object("where", address)
    small_objects.remove_object("where", address)
    assert not server.find(f"flowers/{tmp_path.name}")


@pytest.fixture
def hosts(server, tmp_path, monkeypatch):
    """Returns a function that starts to fill a store in the bucket, as a process of a host.

    Its attribute `writes` receives what is called when an object was written, with its path.
    """
    recipe = write_recipe(tmp_path / "remote.yaml", "s3://flowers/photos")
    place = f"features.location=s3://flowers/{tmp_path.name}/features"
    put_object, turn = S3Response.put_object, threading.Lock()

    def put(response):
        with turn:  # S3 compares and writes in one step, moto does not
            result = put_object(response)
        start.on_write(response.parse_key_name())
        return result

    def start(host):
        return subprocess.Popen(
            [TLTOOL, "cache", "fill", recipe, place, "features.store=always", "features.part=2"],
            env=os.environ | {"TL_TOOLKIT_CACHE": str(tmp_path / host)},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    start.on_write = lambda path: None
    monkeypatch.setattr(S3Response, "put_object", put)
    return start


def read_features(folder):
    """The files of each shard of a host, by the images in it."""
    shards = [path.parent for path in folder.glob("remote/*features/*/*/whole.json")]
    values = {
        (shard.parent.name, (shard / "images.npy").read_bytes()): (shard / "0.npy").read_bytes()
        for shard in shards
    }
    assert len(values) == len(shards)  # each was computed once
    return values


def test_two_processes_of_two_hosts_compute_each_image_once(server, hosts, tmp_path, monkeypatch):
    alone = hosts("alone")
    alone.communicate()
    server.rm(f"flowers/{tmp_path.name}", recursive=True)
    leased, both = set(), threading.Barrier(2)

    def meet(path):
        """Each of the two waits with its first lease until the other one has its own."""
        if LEASE_PREFIX in path and len(leased) < 2 and path not in leased:
            leased.add(path)
            both.wait(timeout=120)

    hosts.on_write = meet
    processes = [hosts(name) for name in ("first", "second")]
    texts = [process.communicate()[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    counts = [re.search(r"for (\d) of them in this process", text) for text in texts]
    assert sum(int(count[1]) for count in counts) == 10 and min(int(count[1]) for count in counts)
    values = read_features(tmp_path / "alone")
    assert read_features(tmp_path / "first") == read_features(tmp_path / "second") == values
    assert not [path for path in server.find(f"flowers/{tmp_path.name}") if "/." in path]


def test_what_a_killed_process_had_leased_is_computed_by_the_next(server, hosts, tmp_path):
    killed, leases = hosts("killed"), []

    def kill(path):
        if LEASE_PREFIX in path:
            leases.append(path)
            if len(leases) == 2:
                os.kill(killed.pid, signal.SIGKILL)

    hosts.on_write = kill
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    left = [path for path in server.find(f"flowers/{tmp_path.name}") if LEASE_PREFIX in path]
    hosts.on_write = lambda path: None

    follower = hosts("next")
    text = follower.communicate()[1]

    assert follower.returncode == 0 and "ran once for 8 images" in text
    assert len(left) == 1 and "waiting" not in text
    assert len(read_features(tmp_path / "next")) == 5
    assert not [path for path in server.find(f"flowers/{tmp_path.name}") if LEASE_PREFIX in path]


def test_wrong_credentials_and_buckets_are_named_without_the_secret(server, tmp_path, monkeypatch):
    output = call(
        "validate", write_recipe(tmp_path / "a.yaml", "s3://nobody/photos"), folder=tmp_path, code=3
    ).stderr

    assert "s3://nobody/photos" in output

    monkeypatch.setattr(stores, "_systems", {})
    monkeypatch.setattr(stores, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    s3fs.S3FileSystem.clear_instance_cache()
    output = call(
        "validate",
        write_recipe(tmp_path / "b.yaml", "s3://flowers/photos"),
        folder=tmp_path,
        code=3,
    ).stderr

    assert "s3://flowers/photos" in output and "cannot be read" in output
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET


def test_a_bucket_that_is_not_there_is_no_feature_store(server, tmp_path):
    recipe = write_recipe(tmp_path / "r.yaml", tmp_path / "photos")

    text = call("validate", recipe, "features.location=s3://none/features", folder=tmp_path, code=3)
    call("validate", recipe, "features.location=s3://flowers/features", folder=tmp_path)

    assert "features.location: s3://none/features" in text.stderr
    assert "no such bucket: s3://none" in text.stderr


def test_a_run_starts_from_one_in_a_bucket_and_learns_from_it(server, tmp_path):
    recipe = write_recipe(tmp_path / "r.yaml", "s3://flowers/photos")
    call("finetune", recipe, "--out", "first", folder=tmp_path)
    server.put(str(tmp_path / "first"), "flowers/runs/first", recursive=True)
    options = ("~model.weights", "export=false", "report=false", "phases.0.epochs=1")
    for name, place in (("local", "first"), ("remote", "s3://flowers/runs/first")):
        changes = (*options, f"teacher={place}", "--out", name, "--from", place)
        call("finetune", recipe, *changes, folder=tmp_path)

    locks = [
        json.loads((tmp_path / name / "lock.json").read_text()) for name in ("local", "remote")
    ]
    digests = [
        json.loads((tmp_path / name / "metrics.json").read_text())["weights_sha256"]
        for name in ("local", "remote")
    ]
    assert digests[0] == digests[1]
    assert locks[1]["start"]["run"] == locks[1]["teacher"]["run"] == "s3://flowers/runs/first"
    for path in (*list_files(tmp_path / "remote"), *list_files(tmp_path / "cache")):
        assert_no_secret(path.read_bytes())
