"""The block diagram of an architecture, rendered with an SVG template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby

import jinja2

__all__ = ["Box", "fold_boxes", "render_diagram"]

# Pixels.
_TOP = 104
_BOX_HEIGHT = 48
_GAP = 20
_PADDING = 12
_MARGIN = 24

_MIN_RUN = 3  # equal units in a row that are plotted as one
_KIND_LETTERS = 72


@dataclass(frozen=True)
class Box:
    """A unit as it is plotted.

    Attributes:
        block: Name of its block; boxes of one block share a frame.
        name: Its name.
        kind: Classes of its layers in order, with spaces between; equal kinds can be collapsed.
        shape: Shape of its output, without the batch.
        parameters: Its weights.
        trainable: The weights that train.
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
    def state(self) -> str:
        """Whether it is "trainable" or "frozen", or has "no weights"."""
        if not self.parameters:
            return "no weights"
        return "trainable" if self.trainable else "frozen"


@dataclass(frozen=True)
class _Unit:
    """A run of boxes that is plotted as one, and the words in it."""

    boxes: tuple[Box, ...]
    top: int

    @property
    def is_collapsed(self) -> bool:
        return len(self.boxes) > 1

    @property
    def state(self) -> str:
        return self.boxes[0].state

    @property
    def name(self) -> str:
        first, last = self.boxes[0].name, self.boxes[-1].name
        return f"{first} … {last}  × {len(self.boxes)}" if self.is_collapsed else first

    @property
    def kinds(self) -> str:
        return _summarize_kinds(self.boxes[0].kind)

    @property
    def shape(self) -> str:
        first, last = self.boxes[0].shape, self.boxes[-1].shape
        return _join(last) if first == last else f"{_join(first)} … {last[-1]}"

    @property
    def weights(self) -> str:
        if self.is_collapsed and self.boxes[0].parameters == self.boxes[-1].parameters:
            return f"{_abbreviate(self.boxes[0].parameters)} each"
        return _abbreviate(sum(box.parameters for box in self.boxes))


@dataclass(frozen=True)
class _Frame:
    """The frame of a block, and the words in it."""

    boxes: tuple[Box, ...]
    top: int
    bottom: int

    @property
    def name(self) -> str:
        return self.boxes[0].block

    @property
    def weights(self) -> str:
        parameters = sum(box.parameters for box in self.boxes)
        fraction = sum(box.trainable for box in self.boxes) / max(parameters, 1)
        return f"{_abbreviate(parameters)} weights, {fraction:.0%} train"

    @property
    def receptive_field(self) -> str:
        field = self.boxes[-1].receptive_field
        return "sees the whole image" if field is None else f"sees {_join(field)} pixels"


@dataclass(frozen=True)
class _Arc:
    """A connection that passes over units; arcs of one lane do not overlap."""

    top: int
    bottom: int
    lane: int


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
        groups += [members] if len(members) >= _MIN_RUN else [(box,) for box in members]
    return groups


def render_diagram(boxes: Sequence[Box], *, title: str, image_size: tuple[int, int]) -> str:
    """Renders a diagram, input at the top: a frame for each block, a box for each unit.

    Repeated units are collapsed into one box. Connections that pass over a box are on the right.
    The text needs no font, script or file besides itself.

    Args:
        boxes: Units, input to output; at least one.
        title: Heading.
        image_size: (height, width) of the image.

    Returns:
        An SVG document.
    """
    units, frames = _place(fold_boxes(boxes))
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = resources.files(__package__).joinpath("diagram.svg.jinja").read_text("utf-8")
    document = environment.from_string(source).render(
        title=title,
        summary=_summarize(boxes),
        image=f"image {_join((*image_size, 3))}",
        height=frames[-1].bottom + _MARGIN,
        top=_TOP,
        box_height=_BOX_HEIGHT,
        frames=frames,
        units=units,
        arcs=list(_place_arcs(units)),
    )
    return document + "\n"


def _place(groups: Sequence[tuple[Box, ...]]) -> tuple[list[_Unit], list[_Frame]]:
    units: list[_Unit] = []
    frames: list[_Frame] = []
    y = _TOP + 6
    for _, run in groupby(groups, key=lambda group: group[0].block):
        top = y
        members: list[Box] = []
        y += _PADDING
        for group in run:
            units.append(_Unit(group, y))
            members += group
            y += _BOX_HEIGHT + _GAP
        y += _PADDING - _GAP
        frames.append(_Frame(tuple(members), top, y))
        y += _GAP
    return units, frames


def _place_arcs(units: Sequence[_Unit]) -> Iterator[_Arc]:
    """Gives each connection over other units a lane, the short ones the inner lanes."""
    places = {box.name: index for index, unit in enumerate(units) for box in unit.boxes}
    pairs = {
        (places[name], index)
        for index, unit in enumerate(units)
        for box in unit.boxes
        for name in box.reads
        if name in places and places[name] < index - 1
    }
    lanes: list[list[tuple[int, int]]] = []
    for start, end in sorted(pairs, key=lambda pair: (pair[1] - pair[0], pair)):
        lane = 0
        while lane < len(lanes) and any(
            start < last and first < end for first, last in lanes[lane]
        ):
            lane += 1
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append((start, end))
        middle = _BOX_HEIGHT // 2
        yield _Arc(units[start].top + middle + 8, units[end].top + middle - 8, lane)


def _summarize(boxes: Sequence[Box]) -> str:
    return (
        f"{sum(box.parameters for box in boxes):,} parameters, "
        f"{sum(box.trainable for box in boxes):,} of them trainable · "
        f"{_abbreviate(sum(box.multiply_accumulates for box in boxes))} multiply-accumulates"
    )


def _summarize_kinds(kind: str) -> str:
    """Counts classes of layers, those with kernels first, in at most one line."""
    counts = Counter(kind.split())
    ordered = sorted(counts, key=lambda name: ("Conv" not in name, "Dense" not in name))
    words = [name if counts[name] == 1 else f"{counts[name]} {name}" for name in ordered]
    line = ", ".join(words)
    while len(line) > _KIND_LETTERS and len(words) > 1:
        words.pop()
        line = ", ".join(words) + ", …"
    return line


def _join(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))


def _abbreviate(number: int) -> str:
    """Returns a count with three digits and a unit: 25.6 M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
