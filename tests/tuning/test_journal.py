"""What a resumed search names of a recipe that is not the one it began with."""

import pytest

from tl_toolkit.errors import RecipeError
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tuning.journal import Journal

IDENTITY = {
    "recipe": {
        "seed": 0,
        "data": {"train": "a", "image_size": [28, 28]},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 3, "unfreeze": 0}],
    },
    "search": {"seed": 0},
    "images": "1234",
}


@pytest.fixture
def refuse(tmp_path):
    """Begins a search, resumes it with parts of another recipe, and returns what is said."""
    Journal(RunFolder(tmp_path)).begin(IDENTITY)

    def resume(**changes):
        with pytest.raises(RecipeError) as caught:
            Journal(RunFolder(tmp_path)).begin(
                IDENTITY | {"recipe": IDENTITY["recipe"] | changes.pop("recipe")} | changes
            )
        return caught.value.problems[0].what

    return resume


def test_a_few_fields_are_named_as_a_recipe_names_them(refuse):
    what = refuse(recipe={"seed": 1, "phases": [{"name": "head", "epochs": 4, "unfreeze": 0}]})

    assert what == "the search was begun with another phases.head.epochs, seed"


def test_many_fields_are_named_by_at_most_three_sections(refuse):
    other = {
        "data": {"train": "b", "image_size": [32, 32]},
        "model": {"base": "alexnet", "weights": "imagenet"},
        "phases": [{"name": "all", "epochs": 4, "unfreeze": 0}],
    }

    what = refuse(recipe=other, images="5678")

    assert what == "the search was begun with another images, data, model and 1 more (8 fields)"
