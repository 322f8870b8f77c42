"""Nested folders: classes of the first level, or of every folder that holds images; and links."""

import pytest

import tl_toolkit as tl
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.sources.survey import list_class_folders


@pytest.fixture
def nested(tmp_path):
    """Folders birds/owl, birds/gull and fish with images, and images in birds itself."""
    root = tmp_path / "animals"
    for folder, count in (("birds", 2), ("birds/owl", 3), ("birds/gull/young", 4), ("fish", 5)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number}.png").write_text(f"{folder} {number}")
    return root


def make_recipe(root, **data):
    return {
        "version": 1, "name": "animals", "data": {"train": str(root), "image_size": 32, **data},
        "model": {"base": "lenet5", "weights": "random"}, "phases": [{"name": "head", "epochs": 1}],
    }  # fmt: skip


def test_a_folder_is_a_class_with_all_below_it(nested):
    plan = tl.validate(make_recipe(nested))

    assert plan.images["to be split"] == {"birds": 9, "fish": 5}


def test_each_folder_with_images_is_a_class_if_asked(nested):
    plan = tl.validate(make_recipe(nested, class_folders="all"))

    assert plan.images["to be split"] == {
        "birds": 2, "birds/gull/young": 4, "birds/owl": 3, "fish": 5,
    }  # fmt: skip


def test_classes_of_paths_can_be_chosen(nested):
    plan = tl.validate(make_recipe(nested, class_folders="all", classes=["fish", "birds/owl"]))

    assert plan.classes == ("fish", "birds/owl")
    assert plan.images["to be split"] == {"fish": 5, "birds/owl": 3}


def test_an_unknown_path_names_the_nearest(nested):
    with pytest.raises(DataError, match="did you mean 'birds/owl'"):
        tl.validate(make_recipe(nested, class_folders="all", classes=["fish", "birds/owls"]))


def test_a_run_is_measured_on_folders_of_the_same_depth(nested):
    classes = ("birds", "birds/gull/young", "birds/owl", "fish")

    listing = list_class_folders(nested, classes=classes, class_folders="all")

    assert listing.count()["test"] == {
        "birds": 2, "birds/gull/young": 4, "birds/owl": 3, "fish": 5,
    }  # fmt: skip


def test_a_linked_folder_below_a_chosen_class_is_refused_as_ever(nested, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").write_text("a")
    (nested / "birds" / "owl" / "more").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(DataError, match="linked folders are not followed"):
        tl.validate(make_recipe(nested, class_folders="all", classes=["fish", "birds/owl"]))


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"builtin": "digits", "image_size": 32, "class_folders": "all"}},
        {"task": "edges", "data": {"train": "x", "image_size": 32, "class_folders": "all"}},
    ],
)
def test_it_is_refused_where_folders_are_no_classes(nested, changes):
    with pytest.raises(RecipeError, match=r"data\.class_folders"):
        tl.validate(make_recipe(nested) | changes)


def test_links_out_of_a_folder_are_named_and_followed_if_asked(nested, tmp_path):
    (tmp_path / "cache").write_text("from elsewhere")
    (nested / "fish" / "linked.png").symlink_to(tmp_path / "cache")
    (nested / "fish" / "lost.png").symlink_to(tmp_path / "nowhere")

    refused, followed = tl.check_data(nested), tl.check_data(nested, follow_links=True)

    assert [(finding.paths[0], finding.reason) for finding in refused.of("not_listed")] == [
        (str(nested / "fish" / "linked.png"), "link out of the folder"),
        (str(nested / "fish" / "lost.png"), "link to nothing"),
    ]
    assert (refused.images, followed.images) == (14, 15)
