"""Images and masks of a recipe, held against each other before training."""

import pytest

from tl_toolkit.errors import DataError
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import build_recipe


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def make_recipe(**data):
    return build_recipe(
        {
            "version": 1,
            "name": "pairs",
            "task": "segmentation",
            "data": {"image_size": 32, "classes": ["x", "y"], **data},
            "model": {"base": "mobilenet", "weights": "random"},
            "phases": [{"name": "head", "epochs": 1}],
        }
    )


def test_problems_of_all_splits_are_told_at_once(tmp_path):
    touch(tmp_path / "one", "images/a.jpg", "masks/b.png")
    touch(tmp_path / "two", "images/c.jpg", "masks/c.png", "masks/d.png")
    recipe = make_recipe(
        train=tmp_path / "one", validation=tmp_path / "two", test=tmp_path / "three"
    )

    with pytest.raises(DataError) as caught:
        check_recipe(recipe)

    fields = [problem.what.partition(":")[0] for problem in caught.value.problems]
    assert fields == ["data.train", "data.train", "data.validation", "data.test"]


def test_a_listing_has_the_told_classes_and_counts_images_with_masks(tmp_path):
    touch(tmp_path, "images/a.jpg", "masks/a.png", "images/b.jpg", "masks/b.png")

    survey = plan_task(make_recipe(train=tmp_path).recipe).survey()
    listing = survey.list_files()

    assert survey.classes == listing.classes == ("x", "y")
    assert survey.counts == {None: {"with mask": 2}}
    assert (listing.columns, listing.stratify) == (("mask",), "")
    assert listing.fractions == {"validation": 0.2}
