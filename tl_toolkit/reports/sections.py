"""What a report consists of: sections of paragraphs, tables, charts, pictures and links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from markupsafe import Markup

__all__ = ["Chart", "DataTable", "Gallery", "Link", "Listing", "Part", "Section", "Text", "Tile"]


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: Its sentences.
        is_warning: Whether it names something to look into.
    """

    text: str
    is_warning: bool = False
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class DataTable:
    """A table of figures; the first cell of each row names it.

    Attributes:
        caption: What it shows.
        columns: Names of the columns.
        rows: Rows, with a value for each column; None stays empty.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Chart:
    """A chart, which the page shows and the report's folder holds as a file.

    Attributes:
        name: Name of the file, without .svg; its own in the report.
        title: What it shows.
        description: What can be read off it, for those who do not see it.
        width: Of the drawing, in pixels.
        height: Of the drawing, in pixels.
        body: What the svg element holds beside title and description.
    """

    name: str
    title: str
    description: str
    width: float
    height: float
    body: Markup
    kind: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Tile:
    """An image of the data with what is said of it.

    Attributes:
        path: The file, as it is shown.
        pictures: Data URIs by what they show, as "image" and "heat map"; "" where the file cannot
            be read.
        lines: Short lines below it.
    """

    path: str
    pictures: Mapping[str, str]
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Gallery:
    """Images in rows.

    Attributes:
        title: What they have in common.
        tiles: The images.
    """

    title: str
    tiles: Sequence[Tile]
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Listing:
    """A file as it is, folded away.

    Attributes:
        title: Its name.
        text: What it holds.
    """

    title: str
    text: str
    kind: ClassVar[str] = "listing"


@dataclass(frozen=True)
class Link:
    """A page that lies beside this one, as a line of its own.

    Attributes:
        text: What it is.
        target: Its path relative to this page, with slashes.
    """

    text: str
    target: str
    kind: ClassVar[str] = "link"


Part = Text | DataTable | Chart | Gallery | Listing | Link


@dataclass(frozen=True)
class Section:
    """A section of a report.

    Attributes:
        name: Its anchor, one word.
        title: Its heading.
        parts: What it shows, in order.
        numbers: What it computed beside the run's metrics, as JSON can hold it.
    """

    name: str
    title: str
    parts: Sequence[Part]
    numbers: Mapping[str, Any] = field(default_factory=dict)
