"""`tltool weights`, `--offline`, and the same in Python."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from math import prod

import click
import h5py
import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.server import FileServer
from tl_toolkit.catalog.lookup import ARCHITECTURES, find_weight_file, read_variants
from tl_toolkit.cli.main import tltool as group
from tl_toolkit.runs.files import hash_file

SMALL = find_weight_file(ARCHITECTURES["mobilenet"], {"alpha": 0.25}, (128, 128))
KNOWN = find_weight_file(ARCHITECTURES["mobilenet"], {"alpha": 0.25}, (224, 224))


def write_weights(path, value=0.0, root=""):
    """A file of the shapes of MobileNet 0.25, in the layout of the published ones."""
    shapes = next(s for values, s in read_variants("mobilenet") if values == {"alpha": 0.25})
    with h5py.File(path, "w") as file:
        top = file.require_group(root) if root else file
        top.attrs["layer_names"] = [layer.encode() for layer in shapes]
        for layer, members in shapes.items():
            group = top.create_group(layer)
            names = [f"{layer}/weight{index}" for index in range(len(members))]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, shape in zip(names, members, strict=True):
                group[name] = np.full(shape, value, np.float32)
    return path


@pytest.fixture
def server(tmp_path, keras_models, monkeypatch):
    """Serves the file of MobileNet 0.25 for 128 pixels, in place of its publisher."""
    with contextlib.closing(FileServer(write_weights(tmp_path / "true.h5").read_bytes())) as server:
        monkeypatch.setitem(SMALL.__dict__, "url", server.url)
        yield server


PULL = ("weights", "pull", "mobilenet", "alpha=0.25", "--input-size", 128)
IMPORT = ("alpha=0.25", "--as", "mobilenet", "--input-size", 128)


def test_pull_fetches_once_and_prints_the_path(tmp_path, keras_models, server):
    first = tltool(*PULL, cwd=tmp_path)
    second = json.loads(tltool(*PULL, "--json", cwd=tmp_path).stdout)

    assert first.stdout == f"{keras_models / SMALL.name}\n"
    assert second == {
        "path": str(keras_models / SMALL.name),
        "bytes": len(server.content),
        "sha256": hash_file(tmp_path / "true.h5"),
    }
    assert server.requests == [""]


def test_pull_into_a_chosen_folder_leaves_the_cache_alone(tmp_path, keras_models, server):
    tltool(*PULL, "--out", "chosen", cwd=tmp_path)

    assert (tmp_path / "chosen" / SMALL.name).read_bytes() == server.content
    assert not keras_models.exists()


def test_pull_of_what_was_never_published_names_what_was(tmp_path, keras_models):
    done = tltool("weights", "pull", "mobilenet", "alpha=0.3", cwd=tmp_path, code=3)
    typo = tltool("weights", "pull", "mobilenett", cwd=tmp_path, code=2)

    assert "were published for alpha 0.25, 0.5, 0.75, 1.0 only" in done.stderr
    assert "did you mean 'mobilenet'?" in typo.stderr


def test_list_says_which_files_are_here_and_how_large_all_are(tmp_path, keras_models, server):
    tltool(*PULL, cwd=tmp_path)
    other = find_weight_file(ARCHITECTURES["mobilenet"], {"alpha": 0.25}, (160, 160))
    (keras_models / f"{other.name}.part").write_bytes(b"half")

    here = tltool("weights", "list", "--here", cwd=tmp_path)
    entries = json.loads(tltool("weights", "list", "--json", cwd=tmp_path).stdout)

    assert [line.split() for line in here.stdout.splitlines()[1:]] == [
        ["mobilenet", "alpha", "0.25", "128", "1.0", "MB", "pin", "here"],
        ["mobilenet", "alpha", "0.25", "160", "over", "0.9", "MB", "first", "use", "partial"],
    ]
    assert "1 of 2 here" in here.stderr
    states = {entry["path"]: entry["state"] for entry in entries}
    assert states[str(keras_models / SMALL.name)] == "here"
    assert states[str(keras_models / other.name)] == "partial"
    assert list(states.values()).count("absent") == len(states) - 2 > 80
    assert all(entry["url"].startswith("http") and entry["least_bytes"] for entry in entries)


def test_the_least_size_is_that_of_the_weights(tmp_path, keras_models):
    entry = json.loads(tltool("weights", "list", "vgg16", "--json", cwd=tmp_path).stdout)[0]

    shapes = [shape for layer in read_variants("vgg16")[0][1].values() for shape in layer]
    assert entry["least_bytes"] == 4 * sum(map(prod, shapes)) == 4 * 14_714_688
    assert entry["licence"] == "CC BY 4.0 (VGG, Oxford)"


def test_verify_ends_with_4_when_a_file_is_not_as_it_was(tmp_path, keras_models, server):
    tltool(*PULL, cwd=tmp_path)
    good = tltool("weights", "verify", "--json", cwd=tmp_path)
    write_weights(keras_models / SMALL.name, value=1.0)

    bad = tltool("weights", "verify", "mobilenet", cwd=tmp_path, code=4)

    assert [entry["state"] for entry in json.loads(good.stdout)] == ["pinned"]
    assert bad.stdout.splitlines()[1].startswith("changed")
    assert "is not the file that it was on its first use" in bad.stderr


def test_verify_pins_what_keras_fetched(tmp_path, keras_models):
    keras_models.mkdir(parents=True)
    write_weights(keras_models / SMALL.name)

    assert [verdict.state for verdict in tl.verify_weights()] == ["pinned"]
    write_weights(keras_models / SMALL.name, value=1.0)
    assert [verdict.state for verdict in tl.verify_weights("mobilenet")] == ["changed"]


def test_verify_of_a_file_writes_nothing_beside_it(tmp_path, keras_models):
    write_weights(tmp_path / SMALL.name)
    (tmp_path / "own.h5").write_bytes(b"\x89HDF\r\n\x1a\n half of it")

    done = tltool("weights", "verify", SMALL.name, "own.h5", cwd=tmp_path, code=4)
    missing = tltool("weights", "verify", "no.h5", cwd=tmp_path, code=3)

    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["readable", "damaged"]
    assert "own.h5  is a damaged HDF5 file" in done.stderr
    assert "no.h5  is not there" in missing.stderr
    assert sorted(os.listdir(tmp_path)) == sorted([SMALL.name, "own.h5"])


def test_verify_where_nothing_is_here(tmp_path, keras_models):
    assert "no file is here" in tltool("weights", "verify", cwd=tmp_path).stderr


# --------------------------------------------------------------------------------------- importing


def test_an_imported_file_is_what_imagenet_stands_for(tmp_path, keras_models, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    write_weights(tmp_path / "brought.h5")

    done = tltool("weights", "import", "brought.h5", *IMPORT, cwd=tmp_path)

    path = tl.pull_weights("mobilenet", {"alpha": 0.25}, image_size=128)
    assert done.stdout == f"{path}\n"
    assert path.read_bytes() == (tmp_path / "brought.h5").read_bytes()
    assert (keras_models / f"{SMALL.name}.sha256").read_text().startswith(hash_file(path))


def test_import_refuses_a_file_of_another_network_and_says_of_which(tmp_path, keras_models):
    write_weights(tmp_path / "w.h5")

    done = tltool("weights", "import", "w.h5", "--as", "mobilenet_v2", cwd=tmp_path, code=3)

    assert "holds the weights of mobilenet with alpha = 0.25, not of mobilenet_v2" in done.stderr
    assert "Try: --as mobilenet alpha=0.25" in done.stderr


def test_import_refuses_whole_models_with_the_reason(tmp_path, keras_models):
    write_weights(tmp_path / "whole.h5", root="model_weights")
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "whole.keras")

    for name in ("whole.h5", "whole.keras"):
        done = tltool("weights", "import", name, *IMPORT, cwd=tmp_path, code=3)

        assert (
            f"{name}  holds a whole model: its graph, which a reader would rebuild" in done.stderr
        )
        assert f"Try: model.weights={name}" in done.stderr
    assert not keras_models.exists()


def test_import_refuses_the_layout_of_save_weights(tmp_path, keras_models):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model.save_weights(tmp_path / "m.weights.h5")

    done = tltool("weights", "import", "m.weights.h5", *IMPORT, cwd=tmp_path, code=3)

    assert "holds weights in the layout of save_weights" in done.stderr


def test_import_refuses_a_file_without_the_published_digest(tmp_path, keras_models):
    write_weights(tmp_path / "w.h5")

    for options in ((), ("--overwrite",)):
        done = tltool(
            "weights", "import", "w.h5", "alpha=0.25", "--as", "mobilenet", *options,
            cwd=tmp_path, code=3,
        )  # fmt: skip

        assert f"Expected a file with SHA-256 {KNOWN.sha256}." in done.stderr
    assert not keras_models.exists()


def test_import_replaces_another_file_and_its_pin_only_when_told(tmp_path, keras_models):
    first = write_weights(tmp_path / "first.h5")
    second = write_weights(tmp_path / "second.h5", value=1.0)
    for _ in range(2):  # the same file again is no fault
        tl.import_weights(first, "mobilenet", {"alpha": 0.25}, image_size=128)

    with pytest.raises(tl.errors.WeightsError, match="on its first use(.|\n)*overwrite=True, if"):
        tl.import_weights(second, "mobilenet", {"alpha": 0.25}, image_size=128)
    path = tl.import_weights(second, "mobilenet", {"alpha": 0.25}, image_size=128, overwrite=True)

    assert path.read_bytes() == second.read_bytes()
    assert [verdict.state for verdict in tl.verify_weights()] == ["pinned"]


# ----------------------------------------------------------------------------------------- offline


@pytest.mark.parametrize("verb", ["finetune", "search", "sweep", "curve", "validate"])
def test_every_verb_that_may_fetch_has_the_option(verb):
    command = group.get_command(click.Context(group), verb)

    assert "--offline" in [option for parameter in command.params for option in parameter.opts]


@pytest.mark.parametrize("verb", ["validate", "finetune"])
def test_offline_a_file_that_is_not_here_is_an_error_and_no_socket_is_opened(
    tmp_path, keras_models, draw_photos, write_recipe, monkeypatch, verb
):
    opened = []
    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, lambda *words, **more: opened.append(words))
    model = {"base": "mobilenet", "weights": "imagenet", "arguments": {"alpha": 0.25}}
    write_recipe(tmp_path / "r.yaml", draw_photos(tmp_path / "photos"), model=model)

    done = tltool(verb, "r.yaml", "--offline", cwd=tmp_path, code=3)

    assert "is not there, and offline nothing is fetched" in done.stderr
    assert "tltool weights pull mobilenet alpha=0.25 --out DIR on a machine with a" in done.stderr
    assert opened == [] and not (tmp_path / "runs").exists()
    assert "TL_TOOLKIT_OFFLINE" not in os.environ


def test_offline_a_file_that_is_here_is_used(
    tmp_path, keras_models, draw_photos, write_recipe, monkeypatch
):
    keras_models.mkdir(parents=True)
    write_weights(keras_models / SMALL.name)
    model = {"base": "mobilenet", "weights": "imagenet", "arguments": {"alpha": 0.25}}
    data = {"train": "photos", "validation": 0.25, "image_size": 128, "batch_size": 8}
    draw_photos(tmp_path / "photos")
    write_recipe(tmp_path / "r.yaml", "photos", model=model, data=data)

    done = tltool("validate", "r.yaml", "--offline", cwd=tmp_path)

    assert f"weights {keras_models / SMALL.name} (is here)" in done.stderr


@pytest.mark.slow
def test_a_whole_run_offline_opens_no_socket(
    tmp_path, keras_models, draw_photos, write_recipe, monkeypatch
):
    opened = []
    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, lambda *words, **more: opened.append(words))
    keras_models.mkdir(parents=True)
    write_weights(keras_models / SMALL.name, value=0.01)
    model = {"base": "mobilenet", "weights": "imagenet", "arguments": {"alpha": 0.25}}
    data = {"train": "photos", "validation": 0.25, "image_size": 128, "batch_size": 8}
    draw_photos(tmp_path / "photos")
    write_recipe(tmp_path / "r.yaml", "photos", model=model, data=data)

    tltool("finetune", "r.yaml", "--offline", cwd=tmp_path)

    assert (tmp_path / "runs" / "photos" / "001" / "model.keras").exists()
    assert opened == []


@pytest.mark.slow
def test_weight_files_are_handled_without_tensorflow(tmp_path, keras_models):
    """A process of its own: what is imported is asked."""
    keras_models.mkdir(parents=True)
    write_weights(keras_models / SMALL.name)
    code = (
        "import sys; from tl_toolkit.cli.main import run; "
        "run(['weights', 'list', 'vgg16']); run(['weights', 'verify', sys.argv[1]]); "
        "print([name for name in ('keras', 'tensorflow') if name in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, keras_models / SMALL.name],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "readable" in done.stdout and done.stdout.splitlines()[-1] == "[]"


@pytest.mark.assets
def test_the_original_file_is_the_published_one_and_the_broken_ones_are_refused(
    tmp_path, keras_models, assets
):
    original = assets / "weights" / KNOWN.name

    path = tl.import_weights(original, "mobilenet", {"alpha": 0.25})

    assert path == keras_models / KNOWN.name and path.read_bytes() == original.read_bytes()
    assert [verdict.state for verdict in tl.verify_weights()] == ["published"]
    broken = sorted((assets / "weights" / "broken").iterdir())
    assert len(broken) == 4
    for file in broken:
        with pytest.raises(tl.errors.WeightsError):
            tl.import_weights(file, "vgg16")
    assert not list(keras_models.glob("vgg16*"))
