"""The list of artifacts: one line each, from which paths, documentation and removal are read."""

import ast
from pathlib import Path

import pytest

from tests.syntax import PACKAGE, nodes_of
from tl_toolkit.runs.folder import ARTIFACTS, RunFolder, describe_artifacts

ROOT = Path(__file__).resolve().parents[2]


def test_an_artifact_is_a_path_of_a_folder_and_a_line_of_the_class():
    folder = RunFolder(Path("runs/a/001"))

    assert folder.checkpoint == Path("runs/a/001/checkpoints/best.npz")
    assert RunFolder.checkpoint.name == "checkpoint"
    assert RunFolder.checkpoint in ARTIFACTS
    with pytest.raises(AttributeError):
        folder.checkpoint = Path("elsewhere")


def test_artifacts_have_paths_of_their_own_and_say_what_they_hold():
    paths = [artifact.relative for artifact in ARTIFACTS]

    assert len(set(paths)) == len(paths)
    assert all(artifact.about.endswith(".") for artifact in ARTIFACTS)


def test_those_that_are_there_are_listed(tmp_path):
    folder = RunFolder(tmp_path)
    folder.metrics.touch()
    folder.checkpoint.parent.mkdir()
    (tmp_path / "notes.md").touch()

    assert folder.list_artifacts() == [RunFolder.metrics]


def test_the_documentation_has_the_list():
    text = (ROOT / "docs" / "runs.md").read_text()

    assert describe_artifacts() in text, "python docs/build.py"


BELOW_RUNS = {  # layers that know no run folder
    ("recipe/export_formats.py", "parity.json"),
    ("recipe/export_formats.py", "model.keras"),
    ("recipe/model_schema.py", "base.keras"),
}


def test_no_code_but_the_list_names_the_file_of_an_artifact():
    names = {Path(artifact.relative).name for artifact in ARTIFACTS}
    names = {name for name in names if "." in name}

    texts = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    literals = {
        (str(path.relative_to(PACKAGE)), node.value)
        for path, text in texts.items()
        if any(name in text for name in names)
        for node in nodes_of(path)
        if isinstance(node, ast.Constant) and node.value in names
    }

    assert {entry for entry in literals if entry[0] != "runs/folder.py"} == BELOW_RUNS
