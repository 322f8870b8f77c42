"""`tl.describe_environment`: what a bug report needs, and nothing that is secret."""

import json
import os
import platform
import shutil
import sys

import pytest

import tl_toolkit as tl
from tests.command import tltool


def test_versions_machine_and_folders_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras" / "models").mkdir(parents=True)
    (tmp_path / "keras" / "models" / "a.h5").write_bytes(b"x" * 1234)
    monkeypatch.chdir(tmp_path)

    told = tl.describe_environment()

    assert told["python"] == platform.python_version()
    assert told["versions"]["tl-toolkit"] == tl.__version__
    assert {"tensorflow", "keras", "numpy", "keras-tuner"} <= set(told["versions"])
    assert told["device"] in ("CPU", "GPU") or told["gpus"]
    assert told["cpus"]["count"] == os.cpu_count() >= told["cpus"]["usable"] >= 1
    assert 0 < told["memory"]["available"] < told["memory"]["total"]
    home = told["folders"]["KERAS_HOME"]
    files = [path for path in (tmp_path / "keras").rglob("*") if path.is_file()]
    assert home["path"] == str(tmp_path / "keras")
    assert home["bytes"] == sum(path.stat().st_size for path in files) >= 1234
    assert told["folders"]["cache"]["path"] == os.environ["TL_TOOLKIT_CACHE"]
    free = told["folders"]["working"]["free"]
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
    assert {"preferred_encoding", "stdout"} <= set(told["locale"])
    json.dumps(told)


def test_variables_are_told_that_change_what_is_computed_and_no_secrets(monkeypatch):
    shown = {"TF_ENABLE_ONEDNN_OPTS": "0", "OMP_NUM_THREADS": "3", "LC_ALL": "C.UTF-8"}
    hidden = {
        "TL_TOOLKIT_TOKEN": "secret 1",
        "https_proxy": "http://me:secret2@host",
        "AWS_SECRET_ACCESS_KEY": "secret 3",
        "TF_VAR_db": "secret 4",
        "MY_OWN": "secret 5",
    }
    for name, value in (shown | hidden).items():
        monkeypatch.setenv(name, value)

    told = tl.describe_environment()["variables"]

    assert {name: told[name] for name in shown} == shown
    assert told["TL_TOOLKIT_TOKEN"] == told["https_proxy"] == "(set, not shown)"
    assert "secret" not in json.dumps(told)
    assert not {"AWS_SECRET_ACCESS_KEY", "TF_VAR_db", "MY_OWN"} & set(told)


def test_a_tensorflow_that_does_not_start_is_told_beside_all_else(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # Python's own mark: no import

    told = tl.describe_environment()

    assert told["error"].startswith("TensorFlow does not start: ModuleNotFoundError")
    assert told["versions"]["tensorflow"].count(".") == 2 and told["gpus"] == []
    assert told["memory"]["total"] and told["folders"]["cache"]["free"]


def test_a_keras_json_that_keras_cannot_start_with_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text('{"floatx": "bfloat16"}')

    assert "bfloat16" in tl.describe_environment()["folders"]["KERAS_HOME"]["unfit"]


def test_the_command_prints_lines_and_json(tmp_path):
    printed = tltool("env", cwd=tmp_path).stdout
    as_json = json.loads(tltool("env", "--json", cwd=tmp_path).stdout)

    lines = dict(line.split("  ", 1) for line in printed.splitlines())
    assert f"tl-toolkit {tl.__version__}, tensorflow " in lines["versions"]
    assert lines["device"].strip() == as_json["device"]
    assert lines["working folder"].strip().startswith(f"{tmp_path}, free ")
