"""Annotations of COCO: which images they list, and what is refused in them."""

import json
import re

import pytest
from PIL import Image

from tests.command import tltool
from tests.tables import list_recipe
from tl_toolkit.errors import DataError
from tl_toolkit.sources.coco import hash_annotations, read_coco
from tl_toolkit.sources.coco_listing import find_background, list_coco

SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]


def make_coco(names=("a.png", "b.png"), **parts):
    """Returns annotations of images of 6 x 4 pixels: a square of a cat in the first."""
    images = [
        {"id": 10 + place, "file_name": name, "height": 4, "width": 6}
        for place, name in enumerate(names)
    ]
    annotation = {"image_id": 10, "category_id": 7, "segmentation": [SQUARE]}
    categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
    return {"images": images, "annotations": [annotation], "categories": categories, **parts}


@pytest.fixture
def write(tmp_path):
    """Writes annotations/instances_train2017.json, with images in train2017; returns its path."""

    def write(values, split="train"):
        path = tmp_path / f"annotations/instances_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(values if isinstance(values, str) else json.dumps(values))
        folder = tmp_path / f"{split}2017"
        folder.mkdir(exist_ok=True)
        for name in ("a.png", "b.png"):
            Image.new("RGB", (6, 4)).save(folder / name)
        return path

    return write


def list_names(path, classes=("background", "cat", "dog"), **settings):
    files, problems = list_coco(path, "train", classes, where="data.train", **settings)
    root = f"{path.parent.parent}/"
    pairs = [tuple(text.replace(root, "") for text in (file.path, *file.targets)) for file in files]
    return pairs, [(field, problem.what, problem.hint) for field, problem in problems]


def test_images_are_found_where_coco_has_them_with_the_path_of_their_masks(write):
    pairs, problems = list_names(write(make_coco()))

    mask = "coco:annotations/instances_train2017.json"
    assert pairs == [("train2017/a.png", f"{mask}#10"), ("train2017/b.png", f"{mask}#11")]
    assert not problems


@pytest.mark.parametrize(
    "place", ["annotations", "annotations/images", "images", "images/train2017"]
)
def test_images_are_found_beside_the_file_and_in_folders_of_images(place, write, tmp_path):
    path = write(make_coco())
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / "train2017").rename(tmp_path / "moved")
    (tmp_path / place).mkdir(exist_ok=True)
    for file in (tmp_path / "moved").iterdir():
        file.rename(tmp_path / place / file.name)

    assert [pair[0] for pair in list_names(path)[0]] == [f"{place}/a.png", f"{place}/b.png"]


@pytest.mark.parametrize(
    ("classes", "background"),
    [
        (["background", "cat"], "background"),
        (["dog", "nothing"], "nothing"),
        (["cat", "_background_"], "_background_"),
    ],
)
def test_the_class_that_is_no_category_is_that_of_pixels_of_no_object(classes, background):
    categories = ["cat", "dog", "_background_"][: 3 if background == "_background_" else 2]

    assert find_background(categories, classes) == background


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("cat", "dog"), "all are categories; expected one more, for pixels of no object"),
        (
            ("background", "cat", "dgo"),
            "'background', 'dgo' are no categories; expected one, for pixels of no object; its "
            "categories are 'cat', 'dog'. did you mean 'dog'?",
        ),
    ],
)
def test_classes_that_are_not_the_categories_and_one_more_are_refused(classes, message, write):
    [(field, what, _)] = list_names(write(make_coco()), classes)[1]

    assert (field, what) == ("classes", message)


def test_images_that_are_missing_outside_or_listed_twice_are_refused(write, tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "secret.png")
    path = write(make_coco(["a.png", "no.png", "../secret.png", "a.png", "x\0.png"]))

    problems = list_names(path)[1]

    assert [(re.sub(r"'\S*/", "'", what), hint) for _, what, hint in problems] == [
        (
            "'instances_train2017.json' names 2 images that are no files: "
            f"{tmp_path}/train2017/no.png, {tmp_path}/train2017/x\0.png",
            "data.masks.images=FOLDER, relative to the file",
        ),
        (
            "'instances_train2017.json' names 1 images outside the folder of images: "
            f"{tmp_path}/secret.png",
            "data.links=follow to use them",
        ),
        (f"'instances_train2017.json' names 1 images twice: {tmp_path}/train2017/a.png", ""),
    ]


def annotate(segmentation, **fields):
    annotation = {"image_id": 10, "category_id": 7, "segmentation": segmentation, **fields}
    return make_coco(annotations=[annotation])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{", "is no JSON: "),
        ("[1]", "holds list, no object"),
        ("[" * 100_000, "is nested too deeply"),
        ({"images": []}, "has no list categories"),
        (make_coco(images=[{"id": 1}]), "has no file_name in images[0]"),
        (make_coco(["\ud800d/x.png"]), "holds half of a character in file_name of images[0]"),
        (
            make_coco(categories=[{"id": 7, "name": "\udc00"}]),
            "holds half of a character in name of categories[0]",
        ),
        (make_coco(images=make_coco()["images"][:1] * 2), "has two images of one id"),
        (
            make_coco(images=[{"id": 10, "file_name": "a", "height": 10**9, "width": 10**9}]),
            "has an image of 1000000000 x 1000000000 pixels: 'a'",
        ),
        (annotate([SQUARE], image_id=1), "names no image or category of id 1 in annotations[0]"),
        (annotate([SQUARE], category_id=1), "names no image or category of id 1 in annotations[0]"),
        (annotate([]), "holds no region in annotations[0]: no segmentation, a box alone"),
        (annotate([[1, 2, 3, 4]]), "annotations[0]: a polygon that has not 3 or more points"),
        (annotate([[1, 2, 3, 4, 5, None]]), "a polygon with something else than numbers"),
        (annotate([[1, 2, 3, 4, 5, float("nan")]]), "a polygon with something else than numbers"),
        (annotate([[1, 2, 3, 4, 5, 10**400]]), "a polygon with something else than numbers"),
        (annotate([[1, 2, 3, 4, 5, "6"]]), "a polygon with something else than numbers"),
        (annotate([[1, 2, 3, 4, -1e9, 1e9]]), "a polygon with something else than numbers"),
        (annotate({"size": [6, 4], "counts": [24]}), "size [6, 4], its image has [4, 6]"),
        (annotate({"size": [4, 6], "counts": [1 << 60]}), "pixels in all"),
        (annotate({"size": [4, 6], "counts": [25, -1]}), "counts that are no run lengths"),
        (annotate({"size": [4, 6], "counts": "é"}), "counts that are no run lengths"),
        (annotate({"size": [4, 6], "counts": "o" * 99}), "counts that are no run lengths"),
        (annotate({"size": [4, 6], "counts": "d"}), "counts that are cut off"),
    ],
)
def test_files_that_hold_something_else_are_refused(values, message, write):
    path = write(values)

    with pytest.raises(DataError) as caught:
        read_coco(path)

    assert f"'{path}' " in caught.value.problems[0].what
    assert message in caught.value.problems[0].what


def test_a_pipe_and_a_file_that_is_too_large_are_not_read(tmp_path, write, monkeypatch):
    import os

    os.mkfifo(tmp_path / "pipe.json")
    path = write(make_coco())
    monkeypatch.setattr("tl_toolkit.sources.coco._MAX_BYTES", 10)

    for place, message in ((tmp_path / "pipe.json", "no regular file"), (path, "more than 0 MiB")):
        with pytest.raises(DataError, match=message):
            read_coco(place)


def test_the_digest_of_a_mask_is_of_the_objects_of_its_image_alone(write):
    path = write(make_coco())
    digests = [hash_annotations(f"coco:{path}#{number}") for number in (10, 11)]
    more = {"image_id": 11, "category_id": 3, "segmentation": [SQUARE]}
    write(make_coco(annotations=[*make_coco()["annotations"], more]))

    changed = [hash_annotations(f"coco:{path}#{number}") for number in (10, 11)]

    assert changed[0] == digests[0] != digests[1] and changed[1] not in digests


def test_init_recognizes_coco_and_validate_takes_its_recipe(write, tmp_path):
    write(make_coco())
    write(make_coco(["b.png", "a.png"]), "val")
    for number, path in enumerate(sorted(tmp_path.glob("*2017/*.png"))):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(path)

    done = tltool("init", ".", "-o", "r.yaml", cwd=tmp_path)
    checked = tltool("validate", "r.yaml", cwd=tmp_path)

    text = (tmp_path / "r.yaml").read_text()
    assert "task: segmentation, by annotations of COCO" in done.stderr
    assert "train: annotations/instances_train2017.json\n" in text
    assert "validation: annotations/instances_val2017.json\n" in text
    assert "classes: [background, cat, dog]" in text
    assert "images   2 train, 2 validation" in checked.stderr


def test_a_folder_with_annotations_is_told_to_be_their_file(write, tmp_path):
    path = write(make_coco())

    [(field, problem)] = list_recipe("segmentation", train=tmp_path, classes=["none", "cat"])[1]

    assert (field, problem.what) == ("train", f"{str(tmp_path)!r} holds annotations of COCO")
    assert problem.hint == f"data.train={path}"


def test_annotations_are_refused_for_tasks_without_classes(write, tmp_path):
    write(make_coco())
    (tmp_path / "r.yaml").write_text(
        "version: 1\nname: x\ntask: edges\n"
        "data: {train: annotations/instances_train2017.json, image_size: 32}\n"
        "model: {base: mobilenet, weights: random}\nphases: [{name: head, epochs: 1}]\n"
    )

    done = tltool("validate", "r.yaml", cwd=tmp_path, code=3)

    assert "annotations of COCO have classes, and no other targets" in done.stderr
