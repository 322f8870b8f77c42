"""Answers as files: their names, and what they replace."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tl_toolkit.errors import OutputError
from tl_toolkit.runs.files import check_folder
from tl_toolkit.tasks.dense.pictures import Pictures
from tl_toolkit.tasks.edges.task import Edges
from tl_toolkit.tasks.normals.task import Normals

PIXELS = np.full((4, 6, 3), 100, np.uint8)


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6), value, np.uint8)).save(path)
    return path


def write(folder, *paths, value=200, kind="mask"):
    pictures = Pictures(folder, paths, kind=kind)
    prediction = Image.fromarray(np.full((4, 6), value, np.uint8))
    return [pictures.write(path, prediction, PIXELS) for path in paths]


def value_of(path):
    with Image.open(path) as image:
        return np.asarray(image).flat[0]


def test_predictions_are_named_after_their_files(tmp_path):
    paths = [Path("a/cat.png"), Path("b/cat.jpg"), Path("cat_2.png"), Path("c/cat.png")]

    actual = write(tmp_path, *paths, paths[0])

    names = [Path(one["mask"]).name for one in actual]
    assert names == ["cat_mask.png", "cat_2_mask.png", "cat_2_2_mask.png", "cat_3_mask.png",
                     "cat_mask.png"]  # fmt: skip


@pytest.mark.slow
def test_many_files_of_one_name_are_named_at_once(tmp_path):
    # With a look at all names for each it would take minutes.
    pictures = Pictures(tmp_path, [Path(f"{n}/frame.png") for n in range(20_000)], kind="mask")

    assert pictures._bases[Path("19999/frame.png")].name == "frame_20000"


def test_an_overlay_is_half_photo_and_half_prediction(tmp_path):
    (files,) = write(tmp_path, Path("cat.png"))

    assert value_of(files["mask"]) == 200
    assert value_of(files["overlay"]) == 150


def test_predictions_replace_those_of_an_earlier_call(tmp_path):
    write(tmp_path, Path("cat.png"), value=10)

    (files,) = write(tmp_path, Path("cat.png"), value=20)

    assert value_of(files["mask"]) == 20


@pytest.mark.parametrize("name", ["cat_mask.png", "cat_overlay.png"])
def test_a_file_of_the_user_is_not_replaced(name, tmp_path):
    mine = save(tmp_path / name, value=7)

    with pytest.raises(OutputError, match=rf"out=.*{name} would be lost\n.*\n  Try: out=DIR"):
        write(tmp_path, Path("ant.png"), Path("cat.png"))

    assert value_of(mine) == 7
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_photo_that_is_asked_about_is_not_replaced_though_a_call_wrote_it(tmp_path):
    (files,) = write(tmp_path, Path("cat.png"))

    with pytest.raises(OutputError, match=r"cat_mask\.png would be lost"):
        write(tmp_path, Path("cat.png"), Path(files["mask"]))


def test_a_file_is_no_folder_to_write_to(tmp_path):
    file = save(tmp_path / "cat.png")

    for folder in (file, file / "below"):
        with pytest.raises(OutputError, match=rf"out={folder}  {file} is a file\n  A folder is"):
            check_folder(folder)
    check_folder(tmp_path / "new" / "below")
    assert not (tmp_path / "new").exists()


def test_a_legend_shows_the_colour_of_each_class_in_order(tmp_path):
    palette = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    colors = dict(zip(["sky", "tree", "a long name"], palette, strict=True))
    pictures = Pictures(tmp_path, [Path("cat.png")], kind="mask")

    with Image.open(pictures.write_legend(colors)) as image:
        pixels = np.asarray(image)

    rows = pixels.reshape(3, -1, *pixels.shape[1:])
    for row, color in zip(rows, palette, strict=True):
        assert (row == color).all(-1).sum() > 100  # the box of the class
        assert (row[:, 48:] < 100).all(-1).sum() > 20  # its name
    names = [np.flatnonzero((row < 100).all(-1).any(0)).max() for row in rows]
    assert names[2] > max(names[:2]) and names[2] < pixels.shape[1] - 1


def test_a_legend_of_the_user_is_not_replaced(tmp_path):
    mine = save(tmp_path / "legend.png", value=7)

    with pytest.raises(OutputError, match=r"legend\.png would be lost"):
        write(tmp_path, Path("cat.png"))

    assert value_of(mine) == 7


@pytest.mark.parametrize(
    ("task", "prediction", "names"),
    [
        (Edges, {"probability": np.array([[0, 0.25], [0.5, 1]])}, [0, 0.25, 0.5, 1]),
        (Normals, {"normal": np.array([[[1, 0, 0], [0, -1, 0], [0, 0, 1]]])}, ["+x", "-y", "+z"]),
    ],
    ids=["edges", "normals"],
)
def test_a_legend_of_numbers_has_the_colours_of_the_picture(task, prediction, names):
    task = task.__new__(task)
    palette = np.zeros((0, 3), np.uint8)
    pixels = np.asarray(task.render(prediction, palette).convert("RGB")).reshape(-1, 3)

    colors = task.list_colors(palette)

    for name, color in zip(names, pixels, strict=True):
        key = name if isinstance(name, str) else f"probability {name:g}"
        np.testing.assert_allclose(colors[key], color, atol=1)
