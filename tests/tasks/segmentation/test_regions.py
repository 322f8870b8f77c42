"""Pixels of objects, against masks that were drawn by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.sources.test_coco import make_coco
from tl_toolkit.images.scan import ScanSettings, scan
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.sources.coco import read_coco
from tl_toolkit.sources.coco_listing import list_coco
from tl_toolkit.sources.listing import Listing
from tl_toolkit.tasks.dense.inspection import inspect_targets
from tl_toolkit.tasks.dense.targets import Targets
from tl_toolkit.tasks.segmentation.masks import MaskReader, MaskSettings
from tl_toolkit.tasks.segmentation.regions import fill_polygon, sample_mask
from tl_toolkit.tasks.segmentation.task import build


def draw(mask):
    return ["".join(".#"[int(inside)] for inside in row) for row in mask]


@pytest.mark.parametrize(
    ("polygon", "expected"),
    [
        ([1, 1, 4, 1, 4, 3, 1, 3], ["......", ".###..", ".###..", "......"]),
        ([1.4, 1.4, 4.6, 1.4, 4.6, 2.6, 1.4, 2.6], ["......", ".####.", ".####.", "......"]),
        ([1.6, 1.6, 4.4, 1.6, 4.4, 2.6, 1.6, 2.6], ["......", "......", "..##..", "......"]),
        ([0, 0, 4, 0, 0, 4], ["###...", "##....", "#.....", "......"]),
        ([-9, -9, 99, -9, 99, 99, -9, 99], ["######"] * 4),
        ([7, 0, 9, 0, 9, 4], ["......"] * 4),
        # Of a star that crosses itself the middle is outside; here of a bow tie, nothing.
        ([0, 0, 6, 4, 6, 0, 0, 4], ["#....#", "##..##", "##..##", "#....#"]),
        # A ring, its hole joined by an edge that is walked twice.
        ([0, 0, 6, 0, 6, 4, 0, 4, 0, 0, 1, 1, 1, 3, 5, 3, 5, 1, 1, 1],
         ["######", "#....#", "#....#", "######"]),
    ],
)  # fmt: skip
def test_a_polygon_holds_the_pixels_whose_centres_are_inside(polygon, expected):
    assert draw(fill_polygon(polygon, (4, 6))) == expected


def test_a_polygon_of_many_edges_is_filled_in_parts():
    angles = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    circle = np.stack([50 + 30 * np.cos(angles), 40 + 30 * np.sin(angles)], axis=-1)
    ys, xs = np.mgrid[:80, :100] + 0.5

    filled = fill_polygon(circle.reshape(-1), (80, 100))

    assert (filled == (np.hypot(xs - 50, ys - 40) < 30)).all()


RUNS = [9, 2, 2, 2, 9]
"""Column by column of 4: 9 outside, 2 inside, 2 outside, 2 inside."""
RUNS_DRAWN = ["......", "..##..", "..##..", "......"]


@pytest.mark.parametrize(
    "counts",
    [
        RUNS,
        # 5 bits and a letter from "0" on; from the fourth number on the difference to the second
        # one before: 9, 2, 2, 2 - 2, 9 - 2.
        "92207",
    ],
)
def test_run_lengths_go_column_by_column(counts, tmp_path):
    crowd = {"image_id": 10, "category_id": 7, "iscrowd": 1,
             "segmentation": {"size": [4, 6], "counts": counts}}  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps(make_coco(annotations=[crowd])))

    mask = sample_mask(f"coco:{path}#10", ["background", "cat"])

    assert draw(mask == 1) == RUNS_DRAWN


def test_run_lengths_of_several_letters_and_negative_differences_are_read(tmp_path):
    # 20 = 10100b takes two letters, as its highest bit would be a sign: "d" with more, "0".
    # 3, 20, 1 and then 0 - 20 = -20: 01100b with more, and 11111b: "\\" and "O".
    values = make_coco(annotations=[
        {"image_id": 10, "category_id": 7, "segmentation": {"size": [4, 6], "counts": "3d01\\O"}}
    ])  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(values))

    (region,) = read_coco(tmp_path / "a.json").images[10].regions

    assert list(region.counts) == [3, 20, 1, 0]


@pytest.fixture
def annotated(tmp_path):
    """Annotations of an image with a cat, a smaller dog over it, and a second image of nothing."""
    big = {"image_id": 10, "category_id": 7, "segmentation": [[0, 0, 5, 0, 5, 4, 0, 4]]}
    small = {"image_id": 10, "category_id": 3, "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(make_coco(annotations=[small, big])))
    for name, red in (("a.png", 0), ("b.png", 9)):
        Image.new("RGB", (6, 4), (red, 0, 0)).save(tmp_path / name)
    return path


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["background", "cat", "dog"], ["11111.", "12211.", "12211.", "11111."]),
        (["dog", "cat", "other"], ["111112", "100112", "100112", "111112"]),
        (["none", "dog"], ["......", ".11...", ".11...", "......"]),
    ],
)
def test_values_are_places_of_classes_and_the_smallest_object_is_on_top(
    classes, expected, annotated
):
    mask = sample_mask(f"coco:{annotated}#10", classes)

    assert [list(map(int, row.replace(".", "0"))) for row in expected] == mask.tolist()


def list_annotated(path, classes):
    files, problems = list_coco(path, "train", classes, where="data.train")
    assert not problems
    return Listing((), tuple(files), columns=("mask",), stratify="")


def test_masks_are_inspected_and_a_change_of_their_annotations_is_told(annotated):
    classes = ["background", "cat", "dog"]
    recipe = build_recipe(
        {
            "version": 1,
            "name": "x",
            "task": "segmentation",
            "data": {"train": str(annotated), "classes": classes, "image_size": 32},
            "model": {"base": "vgg_tiny", "weights": "random"},
            "phases": [{"name": "head", "epochs": 1}],
        }
    ).recipe
    reader = build(recipe, classes).reader
    listing = plan_task(recipe).survey().list_files()
    manifest = scan(listing, ScanSettings(), inspect_targets=lambda it: inspect_targets(it, reader))
    targets = Targets(manifest.examples, reader, image_size=(4, 6))

    assert manifest.columns == ("mask", "mask_sha256")
    assert targets.count().tolist() == [4 + 24, 16, 4]
    assert not any(annotated.parent.glob("**/*mask*"))
    annotated.write_text(annotated.read_text().replace("[1, 1, 3, 1", "[1, 1, 4, 1"))
    with pytest.raises(Exception, match="not the mask that was inspected"):
        targets.whole(0)


def test_annotations_of_another_size_than_their_image_are_told(annotated):
    Image.new("RGB", (8, 8)).save(annotated.parent / "a.png")
    reader = MaskReader(MaskSettings(), 2, ["background", "cat"])
    listing = list_annotated(annotated, ["background", "cat"])

    with pytest.raises(Exception, match=r"#10: 6 x 4, its image is 8 x 8"):
        scan(listing, ScanSettings(), inspect_targets=lambda it: inspect_targets(it, reader))
