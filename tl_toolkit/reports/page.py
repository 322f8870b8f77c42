"""The page of a report, and its charts as files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tl_toolkit.printing.page import replace_undecodable
from tl_toolkit.reports.charts import load_environment
from tl_toolkit.reports.sections import Chart, DataTable, Part, Section
from tl_toolkit.runs.files import write_atomically, write_json

__all__ = ["Report", "as_sentence", "write_report"]

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f]")


@dataclass(frozen=True)
class Report:
    """A report before it is written.

    Attributes:
        title: Its heading.
        verdict: What came of it, in a sentence.
        sentences: What qualifies the verdict.
        sections: Its sections; those without parts are left out.
        footer: What made it, from what.
        warning: What is missing in it, and what to type; "" where nothing is.
    """

    title: str
    verdict: str
    sentences: Sequence[str]
    sections: Sequence[Section]
    footer: str
    warning: str = ""


@dataclass(frozen=True)
class _ShownTable:
    """A table as the page shows it: text, and whether it is a number."""

    caption: str
    columns: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[tuple[str, bool]]]


def write_report(folder: Path, report: Report) -> Path:
    """Writes index.html, a file for each chart, and numbers.json; an earlier report is replaced.

    The page holds all it shows: no font, script, style or picture besides itself.

    Args:
        folder: Receives the files.
        report: The report.

    Returns:
        The page.

    Raises:
        OutputError: A file cannot be written.
    """
    sections = [section for section in report.sections if section.parts]
    charts = [part for each in sections for part in each.parts if isinstance(part, Chart)]
    names = [chart.name for chart in charts]
    if len(set(names)) < len(names):
        raise ValueError(f"charts of one name: {sorted(names)}")
    page = load_environment().get_template("page.html.jinja").render(
        report=report,
        sections=[
            {"name": each.name, "title": each.title, "groups": list(_group(each.parts))}
            for each in sections
        ],
    )  # fmt: skip
    for path in folder.glob("*.svg"):  # of an earlier report, which may have had others
        path.unlink(missing_ok=True)
    for chart in charts:
        write_atomically(folder / f"{chart.name}.svg", _render_file(chart))
    numbers = {each.name: dict(each.numbers) for each in sections if each.numbers}
    write_json(folder / "numbers.json", numbers)
    write_atomically(folder / "index.html", _readable(page.lstrip()))
    return folder / "index.html"


def as_sentence(text: str) -> str:
    """Returns a text with a capital first and a full stop at its end.

    Args:
        text: Words of one sentence.
    """
    return f"{text[:1].upper()}{text[1:]}."


def _render_file(chart: Chart) -> str:
    template = load_environment().get_template("chart.svg.jinja")
    return _readable(template.render(chart=chart, is_file=True))


def _group(parts: Sequence[Part]) -> Iterator[tuple[str, list[Any]]]:
    """Yields parts in order, those of one kind that follow each other together."""
    for kind, group in groupby(parts, key=lambda part: part.kind):
        yield kind, [_show_table(part) if isinstance(part, DataTable) else part for part in group]


def _show_table(table: DataTable) -> _ShownTable:
    numeric = [
        any(isinstance(row[place], int | float) for row in table.rows)
        for place in range(len(table.columns))
    ]
    return _ShownTable(
        table.caption,
        list(zip(table.columns, numeric, strict=True)),
        [list(zip(map(_write, row), numeric, strict=True)) for row in table.rows],
    )


def _write(value: Any) -> str:
    """Returns a cell as text."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.3g}" if 0 < abs(value) < 0.001 or abs(value) >= 1e5 else f"{value:.4f}"
        case Mapping():
            return ", ".join(f"{name}: {_write(item)}" for name, item in value.items())
    return str(value)


def _readable(text: str) -> str:
    """Returns a text whose bytes that are no letters, as names of files may hold, are replaced."""
    # Control characters have no place in XML, and a page would show none.
    return _CONTROLS.sub("\ufffd", replace_undecodable(text))
