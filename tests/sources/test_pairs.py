"""Images and masks, matched by name: which belong together, and how problems are reported."""

from pathlib import Path

import pytest

from tl_toolkit.sources.pairs import PairFolders, list_pairs


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def list_names(folder, **settings):
    files, problems = list_pairs(folder, "train", PairFolders(**settings), where="data.train")
    root = f"{folder}/"
    pairs = [(file.path.removeprefix(root), file.targets[0].removeprefix(root)) for file in files]
    return pairs, [str(problem) for _, problem in problems]


def test_a_mask_has_the_name_of_its_image_whatever_the_suffix(tmp_path):
    touch(tmp_path, "images/b.jpg", "images/deep/a.webp", "masks/deep/a.png", "masks/b.png")

    pairs, problems = list_names(tmp_path)

    assert pairs == [("images/b.jpg", "masks/b.png"), ("images/deep/a.webp", "masks/deep/a.png")]
    assert not problems


def test_an_ending_is_what_names_of_masks_have_more(tmp_path):
    touch(tmp_path, "jpg/a.jpg", "jpg/b_mask.jpg", "truth/a_mask.png", "truth/b_mask_mask.png")
    touch(tmp_path, "truth/readme.png")

    pairs, problems = list_names(tmp_path, images="jpg", masks="truth", ending="_mask")

    assert pairs == [
        ("jpg/a.jpg", "truth/a_mask.png"), ("jpg/b_mask.jpg", "truth/b_mask_mask.png")
    ]  # fmt: skip
    assert not problems


def test_images_and_masks_may_lie_in_one_folder_apart_from_their_ending(tmp_path):
    touch(tmp_path, "images/a.jpg", "masks/a.png")

    assert list_names(tmp_path)[0] == [("images/a.jpg", "masks/a.png")]


def test_what_is_without_its_other_half_is_named_on_both_sides(tmp_path):
    touch(tmp_path, "images/cat.jpg", "images/dog.jpg", "images/ok.jpg")
    touch(tmp_path, "masks/cats.png", "masks/ok.png")

    pairs, problems = list_names(tmp_path)

    assert pairs == [("images/ok.jpg", "masks/ok.png")]
    assert "2 images without a mask: cat, dog" in problems[0]
    assert "'cat' may be 'cats'" in problems[0]
    assert "data.masks.ending=_mask" in problems[0]
    assert "1 mask without an image: cats" in problems[1]


def test_two_files_of_one_name_are_told_on_either_side(tmp_path):
    touch(tmp_path, "images/a.jpg", "images/a.png", "masks/a.png", "images/b.jpg")
    touch(tmp_path, "masks/b.gif", "masks/b.png")

    _, problems = list_names(tmp_path)

    assert len(problems) == 2
    assert "a.jpg" in problems[0] and "a.png have one name" in problems[0]
    assert "b.gif" in problems[1] and "b.png have one name" in problems[1]


def test_missing_folders_are_told_together(tmp_path):
    (tmp_path / "other").mkdir()

    pairs, problems = list_names(tmp_path)

    assert not pairs
    assert len(problems) == 2
    assert "data.masks.images" in problems[0] and "data.masks.masks" in problems[1]


def test_a_missing_folder_of_both_is_told_once(tmp_path):
    _, problems = list_names(tmp_path / "none")

    assert len(problems) == 1 and "none" in problems[0]


def test_a_folder_without_images_is_told(tmp_path):
    (tmp_path / "images").mkdir()
    touch(tmp_path, "masks/a.png")

    _, problems = list_names(tmp_path)

    assert any("holds no images" in problem for problem in problems)


def test_linked_folders_are_refused_and_thumbnails_are_left_out(tmp_path):
    touch(tmp_path, "images/a.jpg", "masks/a.png", "images/@eaDir/a.jpg/THUMB.jpg")
    touch(tmp_path, "elsewhere/b.jpg")

    pairs, problems = list_names(tmp_path)
    (tmp_path / "images" / "more").symlink_to(tmp_path / "elsewhere")
    _, refused = list_names(tmp_path)
    ignored = list_names(tmp_path, links="ignore")

    assert (pairs, problems) == ([("images/a.jpg", "masks/a.png")], [])
    assert "linked folders are not followed" in refused[0]
    assert ignored == (pairs, [])


def test_names_are_matched_in_one_form_of_unicode(tmp_path):
    touch(tmp_path, "images/\u00e9.jpg", "masks/e\u0301.png")

    pairs, problems = list_names(tmp_path)

    assert len(pairs) == 1
    assert not problems


VOC = {"images": "JPEGImages", "masks": "SegmentationClass", "lists": "ImageSets/Segmentation"}


def write_voc(folder, **lists):
    """Writes empty images of all lists, and masks of all but test, with the lists."""
    for name, names in lists.items():
        touch(folder, *(f"JPEGImages/{image}.jpg" for image in names))
        touch(folder, *(f"SegmentationClass/{image}.png" for image in names if name != "test"))
        path = folder / "ImageSets/Segmentation" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{image}\n" for image in names))


def list_splits(folder):
    files, problems = list_pairs(folder, "train", PairFolders(**VOC), where="data.train")
    return {Path(file.path).stem: file.split for file in files}, problems


def test_lists_name_the_images_of_each_split_and_others_are_left_out(tmp_path):
    write_voc(tmp_path, train=["a", "b"], val=["c"], trainval=["a", "b", "c"])
    touch(tmp_path, "JPEGImages/other.jpg", "SegmentationClass/more.png")

    splits, problems = list_splits(tmp_path)

    assert splits == {"a": "train", "b": "train", "c": "validation"}
    assert not problems


def test_a_list_of_images_without_any_mask_is_left_out(tmp_path):
    write_voc(tmp_path, train=["a"], val=["b"], test=["c", "d"])

    assert list_splits(tmp_path) == ({"a": "train", "b": "validation"}, [])


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": ["a", "b"], "val": ["b"]}, "lists images in two splits: b (train, validation)"),
        ({"val": ["b"]}, "lists no image to train from"),
        ({"trainval": ["b"]}, "lists no image to train from"),
    ],
)
def test_lists_that_name_no_splits_are_refused(lists, message, tmp_path):
    write_voc(tmp_path, **lists)

    _, [(field, problem)] = list_splits(tmp_path)

    assert field == "data.masks.lists" and message in problem.what


def test_a_listed_name_without_an_image_and_an_image_without_a_mask_are_named(tmp_path):
    write_voc(tmp_path, train=["a", "b", "c"])
    (tmp_path / "JPEGImages/b.jpg").unlink()
    (tmp_path / "SegmentationClass/c.png").unlink()

    [(_, missing)] = list_splits(tmp_path)[1]
    touch(tmp_path, "JPEGImages/b.jpg")
    [(_, unpaired)] = list_splits(tmp_path)[1]

    assert missing.what == "'ImageSets/Segmentation' lists 1 names without an image: b"
    assert unpaired.what == "1 image without a mask: c"


def test_a_folder_without_lists_is_refused(tmp_path):
    touch(tmp_path, "JPEGImages/a.jpg", "SegmentationClass/a.png")

    _, [(_, problem)] = list_splits(tmp_path)

    assert "ImageSets/Segmentation' cannot be read: No such file" in problem.what
