"""Name, task and base of a run's recipe are those that the whole recipe has."""

import pytest

from tests.conftest import ROOT
from tl_toolkit.recipe.load import build_recipe, dump_recipe, load_recipe
from tl_toolkit.recipe.summary import RecipeSummary, read_summary


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_summary_agrees_with_the_recipe(path, tmp_path):
    recipe = load_recipe(path).recipe
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe, ["a remark", "name: not this"]))

    assert read_summary(tmp_path / "recipe.yaml") == (
        recipe.name,
        recipe.task.kind,
        recipe.model.base,
    )


@pytest.mark.parametrize("task", ["edges", {"kind": "multilabel", "separator": ";"}])
def test_a_base_of_the_users_own_is_named_by_its_file(tmp_path, task):
    source = {"train": "photos"} if task == "edges" else {"csv": "table.csv"}
    values = {
        "version": 1,
        "name": "1e3",  # a number for YAML, were it not quoted
        "task": task,
        "data": {**source, "image_size": 32},
        "model": {"base": {"model": "/data/my base.keras"}},
        "phases": [{"name": "head", "epochs": 1}],
    }
    (tmp_path / "recipe.yaml").write_text(dump_recipe(build_recipe(values).recipe))

    kind = task if isinstance(task, str) else task["kind"]
    assert read_summary(tmp_path / "recipe.yaml") == ("1e3", kind, "my base.keras")


@pytest.mark.parametrize("text", [None, "", "a: [", "task: {kind: nothing}\n", "name: [\n", "7"])
def test_what_cannot_be_read_is_left_empty(tmp_path, text):
    if text is not None:
        (tmp_path / "recipe.yaml").write_text(text)

    assert read_summary(tmp_path / "recipe.yaml") == RecipeSummary()
