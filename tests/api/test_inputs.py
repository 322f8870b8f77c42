"""The files of `predict`: what is left out is named."""

import pytest
from PIL import Image

from tl_toolkit.api.inputs import list_inputs
from tl_toolkit.errors import DataError


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
