"""What a wheel carries, wherever pip puts it: the shipped recipes and models, and one licence."""

import configparser
import json
import os
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

import tl_toolkit
from tl_toolkit.recipe.shipped import list_shipped

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ["setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
SOURCES += ["tl_toolkit", "recipes", "models"]


def pip(*arguments, cwd):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: a build leaves folders beside the sources."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "data")
    for name in SOURCES:
        path = ROOT / name
        copy = shutil.copy if path.is_file() else lambda a, b: shutil.copytree(a, b, ignore=ignored)
        copy(path, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", target, ".", cwd=source)
    (path,) = target.iterdir()
    return path


def test_every_file_of_the_package_that_is_no_module_is_named_as_package_data():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    patterns = settings["options.package_data"]["tl_toolkit"].split()
    package = ROOT / "tl_toolkit"

    files = {path for path in package.rglob("*.*") if path.is_file()}
    others = {path for path in files if path.suffix not in (".py", ".pyc")}
    named = {path for pattern in patterns for path in package.glob(pattern)}

    assert package / "audit" / "sheet.html.jinja" in others
    assert sorted(others - named) == []
    assert [pattern for pattern in patterns if not any(package.glob(pattern))] == []


@pytest.mark.slow
def test_the_metadata_have_the_version_and_the_licence(wheel):
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())

    assert metadata["Version"] == tl_toolkit.__version__
    assert metadata["License-Expression"] == "Apache-2.0"


@pytest.mark.slow
def test_recipes_are_found_in_a_target_folder_and_a_neighbour_is_not_taken_for_them(
    wheel, tmp_path
):
    """Processes of their own: pip, and an interpreter that looks into the target folder."""
    target = tmp_path / "target"
    pip("install", "--no-deps", "--no-index", "--target", target, wheel, cwd=tmp_path)
    (target / "recipes").mkdir()
    (target / "recipes" / "quickstart.yaml").write_text("# Somebody else's.\n")
    code = """
import json
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.recipe.load import read_recipe
from tl_toolkit.recipe.shipped import find_schema, find_shipped, list_shipped
check_recipe(read_recipe(find_shipped("quickstart").path, ()))  # its weights are there
print(json.dumps([str(recipe.path) for recipe in list_shipped()] + [str(find_schema())]))
"""

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    paths = [Path(path) for path in json.loads(done.stdout)]
    assert {path.parent for path in paths} == {target / "tl_toolkit" / "shipped" / "recipes"}
    assert [path.stem for path in paths[:-1]] == [recipe.name for recipe in list_shipped()]
