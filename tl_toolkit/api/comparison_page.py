"""A comparison of runs as a page in one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tl_toolkit.api.comparing import Difference, RunComparison
from tl_toolkit.printing.page import render_page

__all__ = ["MOST_SHOWN", "render_comparison"]

_SIDE = 144  # pixels of a picture's longer side
MOST_SHOWN = 60
"""Images of each group that are shown; the others are counted."""


@dataclass(frozen=True)
class _Tile:
    path: str  # and what was predicted, below the picture
    picture: str


@dataclass(frozen=True)
class _Group:
    title: str
    tiles: tuple[_Tile, ...]
    more: int


def render_comparison(comparison: RunComparison) -> str:
    """Renders a comparison: scores, verdicts, what differs, and the images that differ.

    Args:
        comparison: Of the runs; the images of its tests are read.
    """
    return render_page(
        "printing/comparison.html.jinja",
        maker="tltool compare",
        side=_SIDE,
        title=" and ".join(info.name for info in comparison.infos),
        scores=comparison.tabulate_scores(),
        verdicts=comparison.describe_verdicts(),
        differences=list(comparison.tabulate_differences()),
        are_equal=not comparison.fields,
        groups=_list_groups(comparison),
    )


def _list_groups(comparison: RunComparison) -> list[_Group]:
    groups = []
    for test in comparison.tests:
        for is_right, right, wrong in ((True, test.run, test.other), (False, test.other, test.run)):
            images = [image for image in test.differing if image.is_right == is_right]
            if images:
                title = f"{right} is right, {wrong} is wrong ({test.split}, {len(images):,})"
                groups.append(_build_group(title, images))
    return groups


def _build_group(title: str, images: Sequence[Difference]) -> _Group:
    from tl_toolkit.images.thumbnails import make_thumbnail

    tiles = []
    for image in images[:MOST_SHOWN]:
        wrong = image.other if image.is_right else image.predicted
        text = f"{image.path}: {image.target}, not {wrong}"
        tiles.append(_Tile(text, make_thumbnail(image.path, _SIDE)))
    return _Group(title, tuple(tiles), len(images) - len(tiles))
