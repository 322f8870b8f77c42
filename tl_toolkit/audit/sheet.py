"""The contact sheet: a page in one file that shows the images of each finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tl_toolkit.audit.findings import Finding
from tl_toolkit.audit.kinds import KINDS
from tl_toolkit.audit.report import DataReport
from tl_toolkit.images.thumbnails import make_thumbnail
from tl_toolkit.printing.page import render_page, replace_undecodable

__all__ = ["MOST_SHOWN", "render_sheet"]

MOST_SHOWN = 60
"""Images of each kind that are shown; the others are counted."""

_SIDE = 144  # pixels of the longer side of a small picture


@dataclass(frozen=True)
class _Tile:
    path: str
    picture: str  # a data URI, "" where there is none


@dataclass(frozen=True)
class _Group:
    reason: str
    tiles: tuple[_Tile, ...]
    more: int


@dataclass(frozen=True)
class _Section:
    kind: str
    title: str
    meaning: str
    count: int
    groups: tuple[_Group, ...]
    more: int


def render_sheet(report: DataReport) -> str:
    """Renders the findings of a report as HTML: small pictures, grouped by what was found.

    The page holds all it shows: no font, script or file besides itself. Every text is escaped.

    Args:
        report: The report; its images are read again.
    """
    sections = [_build_section(report, kind, found) for kind, found in report.groups()]
    splits = sorted(report.counts)
    labels = sorted({label for by_class in report.counts.values() for label in by_class})
    return render_page(
        "audit/sheet.html.jinja",
        maker="tltool data check",
        side=_SIDE,
        source=replace_undecodable(report.source),
        images=report.images,
        splits=splits,
        classes=[
            (replace_undecodable(label), [report.counts[split].get(label, 0) for split in splits])
            for label in labels
        ],
        notes=[replace_undecodable(note) for note in report.notes],
        sections=sections,
    )


def _build_section(report: DataReport, kind: str, found: Sequence[Finding]) -> _Section:
    groups: list[_Group] = []
    room = MOST_SHOWN
    for finding in found:
        if room <= 0:
            break
        shown = finding.paths[:room]
        room -= max(1, len(shown))
        tiles = tuple(
            _Tile(
                replace_undecodable(report.shorten(path)),
                make_thumbnail(report.inside.get(path, path), _SIDE),
            )
            for path in shown
        )
        groups.append(
            _Group(replace_undecodable(finding.reason), tiles, len(finding.paths) - len(shown))
        )
    words = KINDS[kind]
    more = len(found) - len(groups)
    return _Section(kind, words.title, words.meaning, len(found), tuple(groups), more)
