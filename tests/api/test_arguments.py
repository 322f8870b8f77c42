"""Arguments of a wrong type are refused in a line that names the argument."""

import pytest

import tl_toolkit as tl
from tl_toolkit.errors import DataError
from tl_toolkit.runs.folder import RunFolder


@pytest.mark.parametrize("verb", [tl.finetune, tl.validate, tl.build_model, tl.search])
@pytest.mark.parametrize(("value", "shown"), [(None, "None"), (3, "3"), ([1], r"\[1\]")])
def test_what_is_no_recipe_is_named(verb, value, shown):
    words = f"^recipe: expected a path, a mapping or a tl.Recipe, got {shown}$"

    with pytest.raises(TypeError, match=words):
        verb(value)


def test_what_is_no_run_is_named():
    with pytest.raises(TypeError, match=r"^run: expected a folder, .* or 'latest', got 1$"):
        tl.load_run(1)


def test_what_is_no_path_of_a_model_is_named():
    with pytest.raises(TypeError, match=r"^path: expected the file model\.keras of a run, got 1$"):
        tl.load_model(1)


def test_the_folder_of_a_run_is_answered_by_its_model(tmp_path):
    with pytest.raises(DataError, match="is a folder") as caught:
        tl.load_model(tmp_path)
    assert "Try" not in str(caught.value)
    model = RunFolder(tmp_path).model
    model.touch()

    with pytest.raises(DataError) as caught:
        tl.load_model(tmp_path)
    assert str(caught.value).endswith(f"Try: tl.load_model({str(model)!r})")
