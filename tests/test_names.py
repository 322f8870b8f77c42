"""Awkward names of files and folders: they work end to end, or are refused by name."""

import csv
import json
import os
import unicodedata

import pytest

from tests.command import tltool
from tests.conftest import draw_class_folders
from tests.names import NAMES, text_of
from tl_toolkit.plan.starter_lines import quote
from tl_toolkit.printing.words import escape_controls
from tl_toolkit.recipe.yaml_reader import read_yaml

REFUSED = ("not UTF-8",)  # as folders of recipes, which are UTF-8 themselves
FILES = {name: f"{text_of(name)[:240]}.jpg" for name in NAMES}


def rename_images(folder, names):
    """Gives images of a folder other names, each a copy of one that is there."""
    image = next(folder.iterdir()).read_bytes()
    for number, name in enumerate(names):
        (folder / name).write_bytes(image + bytes([number]))  # what follows a JPEG is skipped


def assert_shown(done):
    """Nothing in what people read moves the cursor, colours text, or turns its order."""
    for text in (done.stdout, done.stderr):
        assert escape_controls(text) == text


def test_there_are_twenty_five_names():
    assert len(NAMES) >= 25
    assert max(map(len, NAMES.values())) == 255


@pytest.mark.slow
def test_images_and_classes_of_any_name_are_trained_on_and_predicted(tmp_path, write_recipe):
    photos = draw_class_folders(tmp_path / "photos", count=4)
    rename_images(photos / "ants", FILES.values())
    names = ("right to left", "escape sequence", "tab and return")
    for old, name in zip(("ants", "bees", "wasps"), names, strict=True):
        (photos / old).rename(photos / text_of(name))
    recipe = write_recipe(tmp_path / "r.yaml", photos, yardsticks=False)

    trained = tltool("finetune", recipe, "--out", "run", cwd=tmp_path)
    predicted = tltool("predict", "run", photos, "-o", "p.csv", cwd=tmp_path)
    evaluated = tltool("evaluate", "run", cwd=tmp_path)

    for done in (trained, predicted, evaluated):
        assert_shown(done)
    with open(tmp_path / "p.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        paths = {os.path.basename(row["path"]) for row in csv.DictReader(file)}
    # A file's name is kept as it is; `é` may be spelled in two ways.
    assert set(FILES.values()) <= paths
    classes = json.loads((tmp_path / "run/classes.json").read_text())
    assert {unicodedata.normalize("NFC", text_of(name)) for name in names} == set(classes)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_a_folder_of_any_name_gets_a_recipe_that_names_it(name, tmp_path):
    photos = draw_class_folders(tmp_path / text_of(name), count=1)
    for folder in photos.iterdir():
        rename_images(folder, ["a.jpg", "b.jpg"])

    tltool("init", f"./{text_of(name)}", "-o", "r.yaml", cwd=tmp_path)
    done = tltool("validate", "r.yaml", cwd=tmp_path)

    assert_shown(done)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("verb", ["init", "validate"])
def test_a_folder_that_no_recipe_can_name_is_refused_by_its_name(name, verb, tmp_path):
    folder = tmp_path / text_of(name)
    draw_class_folders(folder / "photos", count=2)
    (folder / "r.yaml").write_text(
        '{"version": 1, "name": "x", "data": {"train": "photos"}, '
        '"model": {"base": "lenet5"}, "phases": [{"name": "head", "epochs": 1}]}'
    )

    done = tltool(verb, folder / {"init": "photos", "validate": "r.yaml"}[verb], cwd=tmp_path,
                  code=2)  # fmt: skip

    assert "expected a path in UTF-8" in done.stderr and "gr\\udce8ve" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_a_run_of_any_name_trains_resumes_predicts_and_exports(name, tmp_path, write_recipe):
    home = tmp_path / text_of(name)
    photos = draw_class_folders(home / text_of(name), count=6)
    recipe = write_recipe(home / "r.yaml", f"./{text_of(name)}")
    run = f"./{text_of(name)[:240]}.run"

    tltool("finetune", "r.yaml", "--out", run, cwd=home)
    tltool("predict", run, f"./{text_of(name)}", "-o", f"./{text_of(name)[:240]}.csv", cwd=home)
    tltool("evaluate", run, cwd=home)
    tltool("export", run, "--to", "weights", cwd=home)

    assert recipe.exists() and photos.exists()
    assert not list(tmp_path.rglob("canary"))


def test_a_name_that_no_file_system_takes_is_refused_without_a_traceback(tmp_path, write_recipe):
    photos = draw_class_folders(tmp_path / "photos", count=4)
    recipe = write_recipe(tmp_path / "r.yaml", photos)

    done = tltool("finetune", recipe, "--out", "x" * 300, cwd=tmp_path, code=7)
    missing = tltool("predict", "y" * 300, photos, cwd=tmp_path, code=2)

    assert "too long" in done.stderr and "too long" in missing.stderr


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_a_name_in_yaml_is_read_back_as_it_was(name):
    text = text_of(name)

    assert read_yaml(f"a: {quote(text)}", lambda *_: "").plain() == {"a": text}


def test_a_home_is_that_of_the_user_and_nothing_else_is_expanded(tmp_path, monkeypatch):
    from tl_toolkit.recipe.load import build_recipe

    monkeypatch.setenv("HOME", str(tmp_path))
    values = {"version": 1, "name": "x", "model": {"base": "lenet5", "weights": "random"},
              "phases": [{"name": "head", "epochs": 1}]}  # fmt: skip

    def train(path):
        return str(
            build_recipe({**values, "data": {"train": path, "image_size": 32}}).recipe.data.train
        )

    assert train("~/x") == f"{tmp_path}/x"
    for path in ("~root", "$HOME/x", "${HOME}/x", "%HOME%", "`pwd`", "$(pwd)", "*"):
        assert train(path) == os.path.abspath(path)
