"""The block diagram of an architecture: from rows to the text of an SVG file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

__all__ = ["Box", "render_diagram", "fold_boxes"]

# Pixels.
_WIDTH = 860
_MARGIN = 24
_TOP = 104
_BLOCK_LEFT = 24
_BOX_LEFT = 208
_BOX_WIDTH = 500
_BOX_HEIGHT = 48
_GAP = 20
_PADDING = 12
_ARC_STEP = 16

_LEAST_RUN = 3  # units alike in a row that are drawn as one
_KIND_LETTERS = 72

_FROZEN = ("#dfe9f3", "#6d87a3")
_TRAINABLE = ("#ffe2bd", "#d07c1f")
_EMPTY = ("#f4f4f4", "#9a9a9a")
_INK = "#1f2933"
_GREY = "#5b6670"


@dataclass(frozen=True)
class Box:
    """A unit as it is drawn.

    Attributes:
        block: Name of its block; boxes of one block stand in one frame.
        name: Its name.
        kind: Classes of its layers in order, with spaces between; equal kinds can be folded.
        shape: Of its output, without the batch.
        parameters: Its weights.
        trainable: Those of them that train.
        multiply_accumulates: For one image.
        receptive_field: Height and width in pixels at its end; None for the whole image.
        reads: Names of units, other than the one before, whose outputs enter it.
    """

    block: str
    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    trainable: int
    multiply_accumulates: int
    receptive_field: tuple[int, int] | None
    reads: tuple[str, ...] = ()

    @property
    def colors(self) -> tuple[str, str]:
        """Fill and border: what trains, what is frozen, what has no weights."""
        if not self.parameters:
            return _EMPTY
        return _TRAINABLE if self.trainable else _FROZEN


@dataclass(frozen=True)
class _Drawn:
    """A run of boxes, drawn as one, and where."""

    boxes: tuple[Box, ...]
    top: int

    @property
    def middle(self) -> int:
        return self.top + _BOX_HEIGHT // 2


def fold_boxes(boxes: Sequence[Box]) -> list[tuple[Box, ...]]:
    """Groups neighbours that repeat: same block, layers, height and width, trained or not.

    Runs of fewer than three stay single. The number of channels may grow, as in DenseNet.

    Args:
        boxes: Units, input to output.
    """

    def signature(box: Box) -> tuple[object, ...]:
        return box.block, box.kind, len(box.shape), box.shape[:-1], box.trainable > 0

    groups: list[tuple[Box, ...]] = []
    for _, run in groupby(boxes, key=signature):
        members = tuple(run)
        groups += [members] if len(members) >= _LEAST_RUN else [(box,) for box in members]
    return groups


def render_diagram(boxes: Sequence[Box], *, title: str, image_size: tuple[int, int]) -> str:
    """Draws a diagram, input at the top: a frame for each block, a box for each unit.

    Units that repeat are folded into one box. Connections that pass over a box are drawn on the
    right. The text needs no font, script or file besides itself.

    Args:
        boxes: Units, input to output; at least one.
        title: Heading.
        image_size: (height, width) of the image.

    Returns:
        An SVG document.
    """
    drawn, frames, bottom = _place(fold_boxes(boxes))
    arcs = _draw_arcs(drawn)
    height = bottom + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" '
        f'font-family="Helvetica, Arial, sans-serif" fill="{_INK}">',
        f"<title>{escape(title)}</title>",
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{_GREY}"/></marker>'
        "</defs>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        *_draw_heading(boxes, title, image_size),
        *(_draw_frame(members, top, end) for members, top, end in frames),
        _arrow(_TOP - 10, drawn[0].top),
        *(
            _arrow(one.top + _BOX_HEIGHT, two.top)
            for one, two in zip(drawn, drawn[1:], strict=False)
        ),
        *arcs,
        *(_draw_box(one) for one in drawn),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _place(
    groups: Sequence[tuple[Box, ...]],
) -> tuple[list[_Drawn], list[tuple[list[Box], int, int]], int]:
    """Returns the runs with their places, the frames (boxes, top, bottom), and the lower end."""
    drawn: list[_Drawn] = []
    frames = []
    y = _TOP + 6
    for _, run in groupby(groups, key=lambda group: group[0].block):
        top = y
        members: list[Box] = []
        y += _PADDING
        for group in run:
            drawn.append(_Drawn(group, y))
            members += group
            y += _BOX_HEIGHT + _GAP
        y += _PADDING - _GAP
        frames.append((members, top, y))
        y += _GAP
    return drawn, frames, y - _GAP


def _draw_heading(boxes: Sequence[Box], title: str, image_size: tuple[int, int]) -> list[str]:
    parameters = sum(box.parameters for box in boxes)
    trainable = sum(box.trainable for box in boxes)
    accumulates = sum(box.multiply_accumulates for box in boxes)
    line = (
        f"{parameters:,} parameters, {trainable:,} of them trainable · "
        f"{_count(accumulates)} multiply-accumulates"
    )
    legend = [
        _legend(x, fill, border, word)
        for x, (fill, border), word in (
            (_WIDTH - 320, _FROZEN, "frozen"),
            (_WIDTH - 232, _TRAINABLE, "trainable"),
            (_WIDTH - 126, _EMPTY, "no weights"),
        )
    ]
    height, width = image_size
    return [
        _text(_MARGIN, 36, title, size=20, weight="bold"),
        _text(_MARGIN, 58, line, size=13, color=_GREY),
        _text(
            _BOX_LEFT + _BOX_WIDTH // 2, _TOP - 16, f"image {height} × {width} × 3", anchor="middle"
        ),
        *legend,
    ]


def _legend(x: int, fill: str, border: str, word: str) -> str:
    square = f'<rect x="{x}" y="24" width="14" height="14" rx="3" fill="{fill}" stroke="{border}"/>'
    return square + _text(x + 20, 36, word, size=13)


def _draw_frame(members: Sequence[Box], top: int, bottom: int) -> str:
    parameters = sum(box.parameters for box in members)
    trainable = sum(box.trainable for box in members)
    share = trainable / parameters if parameters else 0.0
    field = members[-1].receptive_field
    sees = "sees the whole image" if field is None else f"sees {_times(field)} pixels"
    lines = [f"{_count(parameters)} weights, {share:.0%} train", sees]
    left, width = _BLOCK_LEFT + 12, _BOX_LEFT + _BOX_WIDTH + 14 - _BLOCK_LEFT
    return "".join(
        [
            f'<rect x="{_BLOCK_LEFT}" y="{top}" width="{width}" '
            f'height="{bottom - top}" rx="8" fill="#fafbfc" stroke="#cfd6dd"/>',
            _text(left, top + 26, members[0].block, size=15, weight="bold"),
            *(
                _text(left, top + 44 + 16 * number, line, size=11.5, color=_GREY)
                for number, line in enumerate(lines)
            ),
        ]
    )


def _draw_box(drawn: _Drawn) -> str:
    first, last = drawn.boxes[0], drawn.boxes[-1]
    fill, border = first.colors
    count = len(drawn.boxes)
    rectangle = (
        '<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{fill}" stroke="{border}"/>'
    )
    # A folded run looks like a pile of sheets.
    parts = [
        rectangle.format(
            x=_BOX_LEFT + shift,
            y=drawn.top + shift,
            w=_BOX_WIDTH,
            h=_BOX_HEIGHT,
            fill=fill,
            border=border,
        )
        for shift in ((6, 3, 0) if count > 1 else (0,))
    ]
    name = first.name if count == 1 else f"{first.name} … {last.name}  × {count}"
    shape = _times(last.shape)
    if first.shape != last.shape:
        shape = f"{_times(first.shape)} … {last.shape[-1]}"
    each = " each" if count > 1 and first.parameters == last.parameters else ""
    weights = _count(first.parameters if each else sum(box.parameters for box in drawn.boxes))
    right = _BOX_LEFT + _BOX_WIDTH - 12
    parts += [
        _text(_BOX_LEFT + 12, drawn.top + 21, name, size=14, weight="bold"),
        _text(_BOX_LEFT + 12, drawn.top + 38, _tell_kinds(first.kind), size=11.5, color=_GREY),
        _text(right, drawn.top + 21, shape, size=14, anchor="end"),
        _text(right, drawn.top + 38, f"{weights}{each}", size=11.5, color=_GREY, anchor="end"),
    ]
    return "".join(parts)


def _draw_arcs(drawn: Sequence[_Drawn]) -> list[str]:
    """Draws what a unit reads of units further back, each on a line of its own."""
    places = {box.name: index for index, one in enumerate(drawn) for box in one.boxes}
    pairs = sorted(
        {
            (places[name], index)
            for index, one in enumerate(drawn)
            for box in one.boxes
            for name in box.reads
            if name in places and places[name] < index - 1
        },
        key=lambda pair: pair[1] - pair[0],
    )
    lanes: list[list[tuple[int, int]]] = []
    arcs = []
    for start, end in pairs:
        lane = next(
            (
                number
                for number, taken in enumerate(lanes)
                if all(end <= one or start >= two for one, two in taken)
            ),
            len(lanes),
        )
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append((start, end))
        edge = _BOX_LEFT + _BOX_WIDTH
        # Lanes beyond the margin lie on each other: legible still, as no network here has more.
        x = min(edge + 26 + _ARC_STEP * lane, _WIDTH - 8)
        top, bottom = drawn[start].middle + 8, drawn[end].middle - 8
        arcs.append(
            f'<path d="M{edge},{top} H{x} V{bottom} H{edge + 2}" fill="none" stroke="{_GREY}" '
            f'stroke-width="1.5" marker-end="url(#tip)"/>'
        )
    return arcs


def _arrow(top: int, bottom: int) -> str:
    x = _BOX_LEFT + _BOX_WIDTH // 2
    return (
        f'<path d="M{x},{top} V{bottom - 1}" stroke="{_GREY}" stroke-width="1.5" '
        f'marker-end="url(#tip)"/>'
    )


def _text(
    x: int,
    y: int,
    text: str,
    *,
    size: float = 13,
    weight: str = "normal",
    color: str = _INK,
    anchor: str = "start",
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{color}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _tell_kinds(kind: str) -> str:
    """Counts classes of layers, those that say most first, in at most one line."""
    counts = Counter(kind.split())
    ordered = sorted(counts, key=lambda name: ("Conv" not in name, "Dense" not in name))
    words = [name if counts[name] == 1 else f"{counts[name]} {name}" for name in ordered]
    line = ", ".join(words)
    while len(line) > _KIND_LETTERS and len(words) > 1:
        words.pop()
        line = ", ".join(words) + ", …"
    return line


def _times(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))


def _count(number: int) -> str:
    """Writes a count with three digits and a unit: 25.6 M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
