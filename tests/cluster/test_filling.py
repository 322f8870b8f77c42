"""`tltool cache fill`, here and as tasks: the same values, and counts of images."""

import json
import sys

import pytest
from PIL import Image

import tl_toolkit as tl
from tests.cluster.stand_in import OneNode
from tests.command import tltool
from tests.conftest import draw_class_folders
from tests.features.test_features import recipe_of
from tests.features.test_parts import values_of
from tl_toolkit.errors import RecipeError


@pytest.fixture
def ray(monkeypatch):
    ray = OneNode()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", ray.exceptions)
    return ray


@pytest.mark.slow
def test_tasks_fill_what_the_command_fills_alone(tmp_path, ray):
    photos = draw_class_folders(tmp_path / "photos", count=9)
    features = {"location": str(tmp_path / "alone"), "store": "always", "part": 4}
    recipe = recipe_of(photos, features=features, search={"resources": {"cpus": 3}})
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    counts = []

    def handle(event):
        if event.kind == "features_computed":
            counts.append((event.done, event.total))

    result = tltool("cache", "fill", "recipe.json", "--json", cwd=tmp_path)
    facts = tl.fill_features(
        recipe, overrides={"features.location": tmp_path / "tasks"},
        ray="auto", workers=1, progress=handle,
    )  # fmt: skip

    printed = json.loads(result.stdout)
    assert (printed["images"], printed["parts"]) == (facts["images"], facts["parts"]) == (27, 8)
    assert printed["folder"] == str(tmp_path / "alone")
    assert values_of(tmp_path / "tasks") == values_of(tmp_path / "alone")
    assert counts == [(done, 27) for done in (4, 8, 12, 16, 20, 21, 25, 27)]
    (context,) = ray.shared
    assert (context.threads, ray.most) == (3, 1)


@pytest.mark.slow
def test_images_that_only_this_host_sees_are_refused(tmp_path, ray):
    photos = draw_class_folders(tmp_path / "photos", count=3)
    path = next(photos.rglob("*.jpg"))
    Image.open(path).save(path.with_suffix(".tif"))
    path.unlink()
    recipe = recipe_of(photos, features={"store": "always"})
    recipe["data"]["convert"] = True

    with pytest.raises(RecipeError, match="converted, into a folder of this host alone"):
        tl.fill_features(recipe, ray="auto")
    assert not ray.shared
