"""The block diagram: well-formed, folded, coloured."""

from xml.etree import ElementTree

import pytest

import tl_toolkit as tl
from tl_toolkit.errors import OutputError
from tl_toolkit.inspect.diagram import Box, fold_boxes, render_diagram

SVG = "{http://www.w3.org/2000/svg}"


def box(name, *, block="conv2", kind="Conv2D Add", shape=(8, 8, 4), trainable=0, **fields):
    return Box(block, name, kind, shape, 100, trainable, 5000, (9, 9), **fields)


def words(document):
    return [element.text for element in ElementTree.fromstring(document).iter(f"{SVG}text")]


def draw(boxes, title="Net"):
    return render_diagram(boxes, title=title, image_size=(32, 48))


@pytest.mark.parametrize("count", [1, 2])
def test_few_units_alike_stay_single(count):
    assert len(fold_boxes([box(f"u{number}") for number in range(count)])) == count


def test_units_that_repeat_are_folded_and_say_how_many():
    boxes = [box("conv2_block1", kind="Conv2D")] + [box(f"conv2_block{n}") for n in range(2, 36)]

    text = words(draw(boxes))

    assert [len(group) for group in fold_boxes(boxes)] == [1, 34]
    assert "conv2_block2 … conv2_block35  × 34" in text
    assert "100 each" in text


def test_units_of_growing_width_are_folded_with_first_and_last_shape():
    text = words(draw([box(f"u{n}", shape=(8, 8, 32 + 12 * n)) for n in range(5)]))

    assert "8 × 8 × 32 … 80" in text


@pytest.mark.parametrize(
    "change", [{"block": "conv3"}, {"kind": "Conv2D"}, {"shape": (4, 4, 4)}, {"trainable": 9}]
)
def test_units_that_differ_are_not_folded(change):
    boxes = [box(f"a{n}") for n in range(3)] + [box(f"b{n}", **change) for n in range(3)]

    assert [len(group) for group in fold_boxes(boxes)] == [3, 3]


def test_frozen_and_trainable_units_have_different_colours_and_a_legend():
    document = draw([box("below"), box("above", trainable=90)])

    fills = [e.get("fill") for e in ElementTree.fromstring(document).iter(f"{SVG}rect")]
    legend_frozen, legend_trainable = fills[1], fills[2]
    assert fills[-2:] == [legend_frozen, legend_trainable]
    assert legend_frozen != legend_trainable
    assert {"frozen", "trainable"} <= set(words(document))


def test_what_is_read_over_other_units_is_drawn_once_on_the_side():
    boxes = [
        box("down", block="a"),
        box("bottom", block="b"),
        box("up", block="c", reads=("down",)),
    ]

    paths = [e.get("d") for e in ElementTree.fromstring(draw(boxes)).iter(f"{SVG}path")]

    assert sum(" H" in path for path in paths) == 1


def test_names_are_escaped_and_the_image_size_is_told():
    text = words(draw([box("a<b&c")], title="x < y & z"))

    assert "a<b&c" in text and "x < y & z" in text
    assert "image 32 × 48 × 3" in text


def test_connections_that_overlap_have_lanes_of_their_own():
    boxes = [box(name, block=name, reads=reads) for name, reads in
             [("a", ()), ("b", ()), ("c", ("a",)), ("d", ("b",)), ("e", ("c",))]]  # fmt: skip

    paths = [e.get("d") for e in ElementTree.fromstring(draw(boxes)).iter(f"{SVG}path")]

    lanes = [path.split(" H")[1].split()[0] for path in paths if " H" in path]
    assert lanes[0] == lanes[2] != lanes[1]  # from a to c and from c to e; b to d overlaps both


def test_a_diagram_never_takes_the_place_of_a_folder(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "thesis.svg").touch()

    with pytest.raises(OutputError, match="figures  is a folder"):
        tl.render_architecture("lenet5", tmp_path / "figures")

    assert (tmp_path / "figures" / "thesis.svg").is_file()
