"""The images of `predict`: paths, arrays and images of Pillow; what is left out is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tl_toolkit.api.inputs import list_inputs
from tl_toolkit.errors import DataError
from tl_toolkit.images.decoder import decode_image


@pytest.fixture
def photos(tmp_path):
    """A folder with an image, and links to a folder and to an image elsewhere."""
    for name in ("photos/a.png", "elsewhere/b.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "out.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    return tmp_path / "photos"


def test_links_that_are_left_out_of_a_folder_are_named(photos):
    events = []
    (photos / "notes.txt").touch()

    inputs = list_inputs(photos, None, events.append)

    assert inputs.files == [photos / "a.png"]
    (event,) = events
    assert event.kind == "warning"
    assert f"{photos / 'linked'} (linked folder)" in event.text
    assert f"{photos / 'out.png'} (link out of the folder)" in event.text
    assert "notes.txt" not in event.text


def test_a_link_that_is_named_itself_is_followed(photos):
    events = []

    inputs = list_inputs([photos / "linked", photos / "out.png"], None, events.append)

    assert inputs.files == [photos / "linked" / "b.png", photos / "out.png"]
    assert events == []


def test_a_folder_of_links_alone_says_so(photos):
    (photos / "a.png").unlink()

    with pytest.raises(DataError, match=r"holds no images but .*linked \(linked folder\)"):
        list_inputs(photos, None, print)


def draw(mode="RGB"):
    pixels = np.random.default_rng(1).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def pixels_of(*items):
    return list(list_inputs(items, None, print).arrays.values())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_images_of_pillow_are_read_as_their_files_are(mode, tmp_path):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image, upside_down = draw(mode), Image.Exif()
    upside_down[274] = 3
    image.save(path, exif=upside_down)

    with Image.open(path) as opened:
        (pixels,) = pixels_of(opened)

    expected = decode_image(path.read_bytes()).numpy()
    # libjpeg and TensorFlow round the inks of CMYK differently.
    assert np.abs(pixels.astype(int) - expected).max() <= (1 if mode == "CMYK" else 0)


def test_an_image_of_pillow_without_a_fixed_range_is_refused():
    with pytest.raises(DataError, match=r"paths\[0\]  an image of mode 'F' cannot be read: .*'F'"):
        pixels_of(draw("F"))


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1)])
def test_arrays_of_one_channel_are_grey(shape):
    array = np.arange(20, dtype=np.uint8).reshape(shape)

    (pixels,) = pixels_of(array)

    assert pixels.shape == (4, 5, 3)
    assert (pixels == array.reshape(4, 5, 1)).all()


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (np.full((4, 5, 3), 0.5), "(array * 255).astype('uint8')"),
        (np.full((4, 5, 3), 200.0), "array.astype('uint8')"),
        (np.full((4, 5, 3), 200), "array.astype('uint8')"),
        (np.full((4, 5, 4), 200, np.uint8), "array[..., :3]"),
        (np.full((3, 8, 9), 0.5), "(array.transpose(1, 2, 0) * 255).astype('uint8')"),
        (np.full((4, 5, 3), 40000, np.uint16), "(array >> 8).astype('uint8')"),
    ],
)
def test_other_arrays_are_refused_with_the_change_that_mends_them(array, hint):
    with pytest.raises(DataError) as caught:
        list_inputs(array, None, print)

    assert str(caught.value).endswith(f"Try: {hint}")
    pixels_of(eval(hint, {"array": array}))


def test_iterables_of_paths_are_lists_of_them(photos):
    path = photos / "a.png"

    for paths in (np.array([str(path)]), np.array([path]), {path}, iter([path])):
        assert list_inputs(paths, None, print).files == [path]


@pytest.mark.parametrize("paths", ["", " ", Path(""), ["a.png", ""]])
def test_an_empty_path_is_not_the_working_directory(paths, photos, monkeypatch):
    monkeypatch.chdir(photos)

    with pytest.raises(DataError, match=r"paths\[\d\]  = .*(?s:.*)Try: run.predict\(\"\.\"\)"):
        list_inputs(paths, None, print)
    assert list_inputs(".", None, print).files == [Path("a.png")]


def test_nothing_to_predict_is_refused():
    with pytest.raises(DataError, match=r"paths  holds nothing to predict: \[\]"):
        list_inputs([], None, print)


@pytest.mark.parametrize("item", [float("nan"), None, b"\x89PNG", {"path": "a.png"}])
def test_what_is_no_image_is_named_by_its_place(item, photos):
    with pytest.raises(DataError, match=r"paths\[1\]  = .*, of type "):
        list_inputs([photos / "a.png", item], None, print)


def test_a_table_is_no_column_of_paths():
    with pytest.raises(DataError, match=r"Try: one column of it"):
        list_inputs(np.array([["a.png", "cat"]]), None, print)
