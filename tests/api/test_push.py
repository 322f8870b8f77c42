"""`tl.push` and `tltool push`: to a folder, and to a hub that this test is."""

import contextlib
import json
import os
import re
import shutil
import zipfile
from types import SimpleNamespace

import httpx
import huggingface_hub
import keras
import numpy as np
import pytest
from huggingface_hub.errors import HfHubHTTPError

import tl_toolkit as tl
from tests.command import tltool
from tests.runs.written import write_predictions, write_run
from tl_toolkit.errors import DataError, OutputError, RecipeError

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path / "runs")
    write_predictions(folder, [("image 0", "ant", "ant"), ("image 1", "bee", "ant")])
    image = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(image))
    keras.Model(image, outputs).save(folder.model)
    (folder.export / "saved_model" / "1").mkdir(parents=True)
    (folder.export / "saved_model" / "1" / "saved_model.pb").write_bytes(b"graph")
    (folder.export / "model.tflite").write_bytes(b"lite")
    for name in ("signature.json", "preprocess.json", "predict.py", "parity.json"):
        (folder.export / name).write_text("{}")
    return folder


class Hub:
    """The parts of the Hub's client that a push calls; what is uploaded stays in a folder."""

    def __init__(self, folder, *, private=True):
        self.folder = folder
        self.calls = []
        self.is_private = private

    def __call__(self, **_):
        return self

    def create_repo(self, repo_id, *, private, exist_ok):
        self.calls.append(("create_repo", repo_id, private, exist_ok))
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def model_info(self, repo_id):
        held = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.*")]
        siblings = [SimpleNamespace(rfilename=name) for name in held]
        return SimpleNamespace(private=self.is_private, siblings=siblings, sha="a1")

    def create_commit(self, repo_id, operations, *, commit_message, parent_commit):
        self.calls.append(("create_commit", repo_id, parent_commit))
        for operation in operations:
            path = self.folder / operation.path_in_repo
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(operation, huggingface_hub.CommitOperationDelete):
                path.unlink()
            else:
                shutil.copyfile(operation.path_or_fileobj, path)


def use(monkeypatch, hub):
    monkeypatch.delenv("TL_TOOLKIT_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda **_: str(hub.folder))
    return hub


def test_keras_loads_what_a_folder_holds(run, tmp_path):
    pushed = tl.push(run.path, tmp_path / "pushed")

    folder = tmp_path / "pushed"
    model = keras.saving.load_model(folder)
    expected = keras.saving.load_model(run.model)
    np.testing.assert_array_equal(model(IMAGES), expected(IMAGES))
    assert set(pushed.files) == {
        "README.md", "config.json", "metadata.json", "model.weights.h5", "classes.json",
        "export/model.tflite", "export/saved_model/1/saved_model.pb", "export/signature.json",
        "export/preprocess.json", "export/predict.py",
    }  # fmt: skip
    assert all((folder / name).stat().st_size == size for name, size in pushed.files.items())
    assert str(tmp_path) not in (folder / "README.md").read_text()


def test_the_lines_of_the_card_load_the_model(run, tmp_path, capsys):
    tl.push(run.path, tmp_path / "pushed", formats=["litert"])

    text = (tmp_path / "pushed" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    code = code.replace("(1, 32, 32, 3)", "(1, 8, 8, 3)")  # of the recipe that stands for one

    assert 'keras.saving.load_model(".")' in code and "tf.saved_model.load" not in text
    with contextlib.chdir(tmp_path / "pushed"):
        exec(code, {})
    assert capsys.readouterr().out.startswith("[[0.")
    assert not (tmp_path / "pushed" / "export" / "saved_model").exists()


def test_an_earlier_push_is_replaced_and_other_files_are_not(run, tmp_path):
    tl.push(run.path, tmp_path / "pushed")
    tl.push(run.path, tmp_path / "pushed", formats=["litert"])

    assert not (tmp_path / "pushed" / "export" / "saved_model").exists()
    (tmp_path / "pushed" / "export" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="holds other files"):
        tl.push(run.path, tmp_path / "pushed")


def test_the_hub_receives_one_commit_that_keras_loads(run, tmp_path, monkeypatch):
    hub = use(monkeypatch, Hub(tmp_path / "hub"))

    result = tltool("push", run.path, "hf://me/ants", "--private", "--license", "mit", cwd=tmp_path)

    assert hub.calls == [("create_repo", "me/ants", True, True), ("create_commit", "me/ants", "a1")]
    assert "pushed: https://huggingface.co/me/ants" in result.stderr
    model = keras.saving.load_model("hf://me/ants")
    np.testing.assert_array_equal(model(IMAGES), keras.saving.load_model(run.model)(IMAGES))
    card = (hub.folder / "README.md").read_text()
    assert "license: mit" in card and 'keras.saving.load_model("hf://me/ants")' in card
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if b"hf_secret" in path.read_bytes()]
    assert "hf_secret" not in result.stderr + result.stdout


def test_a_second_push_to_the_hub_removes_what_is_no_more_and_nothing_else(
    run, tmp_path, monkeypatch
):
    hub = use(monkeypatch, Hub(tmp_path / "hub"))
    tl.push(run.path, "hf://me/ants")
    (hub.folder / "LICENSE.txt").touch()

    tl.push(run.path, "hf://me/ants", formats=["litert"])

    assert not (hub.folder / "export" / "saved_model" / "1" / "saved_model.pb").exists()
    assert (hub.folder / "export" / "model.tflite").exists()
    assert (hub.folder / "LICENSE.txt").exists()


def test_nothing_goes_to_a_repository_of_something_else(run, tmp_path, monkeypatch):
    hub = use(monkeypatch, Hub(tmp_path / "hub"))
    hub.folder.mkdir()
    (hub.folder / "pytorch_model.bin").touch()

    with pytest.raises(DataError, match="holds other files"):
        tl.push(run.path, "hf://me/ants")

    assert [name for name, *_ in hub.calls] == ["create_repo"]


def test_an_export_of_an_earlier_model_is_left_out_and_refused_by_name(run, tmp_path):
    events = []
    (run.export / "parity.litert.json").write_text('{"model": "another"}')

    pushed = tl.push(run.path, tmp_path / "pushed", progress=events.append)

    assert "export/model.tflite" not in pushed.files
    assert "left out: litert" in events[0].text
    with pytest.raises(DataError, match=r"changed since its export to litert(?s:.*)--to litert"):
        tl.push(run.path, tmp_path / "pushed", formats=["litert"])


def test_only_what_keras_reads_is_taken_from_the_model_file(run, tmp_path):
    with zipfile.ZipFile(run.model, "a") as archive:
        archive.writestr("photos/me.jpg", b"photo")

    pushed = tl.push(run.path, tmp_path / "pushed", dry_run=True)

    assert "model.weights.h5" in pushed.files and "photos/me.jpg" not in pushed.files


def test_a_dry_run_lists_the_files_and_calls_nothing(run, tmp_path, monkeypatch):
    hub = use(monkeypatch, Hub(tmp_path / "hub"))

    listed = tltool("push", run.path, "hf://me/ants", "--dry-run", "--json", cwd=tmp_path).stdout
    shown = tltool("push", run.path, "new", "--dry-run", cwd=tmp_path).stdout

    assert json.loads(listed)["files"]["model.weights.h5"] > 1000
    assert "export/model.tflite" in shown and hub.calls == []
    assert not (tmp_path / "new").exists()


def test_nothing_goes_to_a_public_repository_that_should_be_private(run, tmp_path, monkeypatch):
    hub = use(monkeypatch, Hub(tmp_path / "hub", private=False))

    with pytest.raises(DataError, match="is public already"):
        tl.push(run.path, "hf://me/ants", private=True)

    assert [name for name, *_ in hub.calls] == ["create_repo"]


def test_a_card_that_the_hub_refuses_is_told_whole(run, tmp_path, monkeypatch):
    hub = use(monkeypatch, Hub(tmp_path / "hub"))

    def refuse(*_, **__):
        raise ValueError('Invalid metadata in README.md.\n- "license" must be one of [mit]')

    monkeypatch.setattr(hub, "create_commit", refuse, raising=False)

    with pytest.raises(DataError, match='Invalid metadata in README.md. - "license" must be one'):
        tl.push(run.path, "hf://me/ants", license="none")


def test_a_refusal_of_the_hub_is_told_with_its_remedy(run, tmp_path, monkeypatch):
    hub = use(monkeypatch, Hub(tmp_path / "hub"))
    answer = httpx.Response(401, request=httpx.Request("POST", "https://huggingface.co/api"))

    def refuse(*_, **__):
        raise HfHubHTTPError("401 Client Error: Unauthorized", response=answer)

    monkeypatch.setattr(hub, "create_repo", refuse, raising=False)

    result = tltool("push", run.path, "hf://me/ants", cwd=tmp_path, code=3)

    assert "hf://me/ants  was refused: 401 Client Error" in result.stderr
    assert "hf auth login" in result.stderr


@pytest.mark.parametrize("target", ["hf://ants", "hf://me/ants/more", "s3://bucket/ants"])
def test_what_is_no_target_is_refused(run, target):
    with pytest.raises(RecipeError, match=r"no repository|neither hf://OWNER/NAME"):
        tl.push(run.path, target)


def test_the_working_folder_is_not_replaced(run, tmp_path, monkeypatch):
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")

    with pytest.raises(OutputError, match="is the working folder"):
        tl.push(run.path, ".")


def test_what_is_missing_is_named(run, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"was not exported to onnx(?s:.*)--to onnx"):
        tl.push(run.path, tmp_path / "pushed", formats=["onnx"])
    monkeypatch.setattr("tl_toolkit.api.push.find_spec", lambda name: None)
    monkeypatch.delenv("TL_TOOLKIT_OFFLINE", raising=False)
    with pytest.raises(RecipeError, match=r"pip install 'tl-toolkit\[hub\]'"):
        tl.push(run.path, "hf://me/ants")
    monkeypatch.setitem(os.environ, "TL_TOOLKIT_OFFLINE", "1")
    with pytest.raises(DataError, match="TL_TOOLKIT_OFFLINE"):
        tl.push(run.path, "hf://me/ants")
