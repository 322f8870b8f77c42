"""What `auto` tried and chose: finished runs, its time, the ranking of bases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tl_toolkit.printing.words import describe_seconds
from tl_toolkit.reports.intervals import Scored, plot_intervals
from tl_toolkit.reports.matrices import plot_bars
from tl_toolkit.reports.page import as_sentence
from tl_toolkit.reports.sections import DataTable, Link, Part, Section, Text

__all__ = ["build_bases", "build_runs", "build_time", "describe_choice"]

_TIED = "tied"
_LEGEND = "tied: not to be told apart from it; weights trained are those of the base"


def describe_choice(record: Mapping[str, Any], title: str) -> str:
    """Returns the run that was chosen, its score and the time, in a sentence.

    Args:
        record: What auto.json holds.
        title: Of the score.
    """
    chosen = _find_chosen(record)
    interval = chosen["interval"]
    bounds = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return as_sentence(
        f"chosen: {chosen['name']}, {title} {chosen['score']:.3f}{bounds} on "
        f"{chosen['images']:,} validation images, after {record['seconds']:.0f} s of "
        f"{60 * record['minutes']:.0f} s"
    )


def _find_chosen(record: Mapping[str, Any]) -> Mapping[str, Any]:
    chosen: Mapping[str, Any]
    chosen = next(run for run in record["runs"] if run["name"] == record["chosen"])
    return chosen


def build_runs(record: Mapping[str, Any], title: str, pages: Mapping[str, str]) -> Section:
    """Returns the section of the finished runs, the best first.

    Args:
        record: What auto.json holds.
        title: Of the score.
        pages: The report of each run that has one, relative to this page.
    """
    chosen, tied = record["chosen"], record["tied"]
    runs = sorted(record["runs"], key=lambda run: -run["score"])
    rows = [
        [run["name"], run["base"], run["about"], run["score"], *(run["interval"] or (None,) * 2),
         "chosen" if run["name"] == chosen else _TIED if run["name"] in tied else "",
         run["operations"], run["trained"], describe_seconds(run["seconds"])]
        for run in runs
    ]  # fmt: skip
    columns = ["run", "base", "what it is", title, "from", "to", "", "operations",
               "weights trained", "time"]  # fmt: skip
    links = [
        Link(f"The report of {name}, which was chosen" if name == chosen else
             f"The report of {name}", pages[name])
        for name in sorted((run["name"] for run in runs), key=lambda name: name != chosen)
        if name in pages
    ]  # fmt: skip
    caption = f"{title} on validation images, with 95 % confidence; {_LEGEND}"
    table = DataTable(caption, columns, rows)
    scored = [_as_scored(run, run["score"], run["interval"], chosen) for run in runs]
    return Section("runs", "Finished runs", [*links, *_plot("runs", title, scored), table])


def build_time(record: Mapping[str, Any]) -> Section:
    """Returns the section of the budget, and of what each step used of it.

    Args:
        record: What auto.json holds.
    """
    budget, spent = 60 * record["minutes"], record["seconds"]
    steps = {name: seconds for name, seconds in record["steps"].items() if seconds}
    between = spent - sum(steps.values())
    if steps and between > 0:
        steps["start, and between steps"] = between
    bars = [
        (name, seconds, f"{describe_seconds(seconds)}, {seconds / budget:.0%}")
        for name, seconds in steps.items()
    ]
    used = f"{describe_seconds(spent)} of {describe_seconds(budget)} were used"
    parts: list[Part] = [Text(as_sentence(used))]
    if bars:
        longest = max(steps, key=lambda name: steps[name])
        about = f"{used}; the longest step is {longest}."
        parts.append(plot_bars("time", "Time by step, and its part of the budget", about, bars))
    return Section("time", "Time", parts)


def build_bases(record: Mapping[str, Any], title: str, taken: str) -> Section:
    """Returns the section of the bases: their probes, the best first, and those left out.

    Args:
        record: What auto.json holds.
        title: Of the score of a probe.
        taken: The base that was tuned.
    """
    bases = sorted(record["bases"], key=lambda base: -base["probe"])
    parts: list[Part] = [Text(as_sentence(record["why"][step])) for step in ("base", "ranking")
                         if step in record["why"]]  # fmt: skip
    if bases:
        scored = [_as_scored(base, base["probe"], base["probe_interval"], taken) for base in bases]
        best = scored[0]
        rows = [
            [base["name"], base["probe"], *(base["probe_interval"] or (None, None)),
             _judge(each, best, taken), base["neighbors"], base["parameters"], base["operations"],
             describe_seconds(base["seconds"] or 0.0)]
            for base, each in zip(bases, scored, strict=True)
        ]  # fmt: skip
        columns = ["base", f"probe: {title}", "from", "to", "", "neighbours", "weights",
                   "operations", "time"]  # fmt: skip
        caption = f"{bases[0]['images']:,} images, each predicted by a probe fitted without it; "
        caption += "tied: not to be told apart from the best"
        parts += [*_plot("bases", f"probe: {title}", scored), DataTable(caption, columns, rows)]
    else:
        parts.append(Text("No bases were ranked."))
    if record["skipped"]:
        rows = [[name, reason] for name, reason in record["skipped"].items()]
        parts.append(DataTable("Bases that were not tried", ["base", "why"], rows))
    return Section("bases", "Bases", parts)


def _as_scored(
    row: Mapping[str, Any], score: float, interval: Sequence[float] | None, chosen: str
) -> Scored:
    bounds = None if interval is None else (interval[0], interval[1])
    return Scored(row["name"], score, bounds, row["name"] == chosen)


def _judge(row: Scored, best: Scored, taken: str) -> str:
    """Returns whether a base was taken, and whether its interval overlaps that of the best."""
    if row is best:
        words = "best"
    else:
        is_apart = row.interval and best.interval and row.interval[1] < best.interval[0]
        words = "worse" if is_apart else _TIED
    return f"{words}, taken" if row.name == taken else words


def _plot(name: str, title: str, rows: Sequence[Scored]) -> list[Part]:
    """Returns a chart of scores with intervals; none of a single row."""
    if len(rows) < 2:
        return []
    listed = "; ".join(
        f"{row.name} {row.score:.3f}"
        + (f" ({row.interval[0]:.3f} to {row.interval[1]:.3f})" if row.interval else "")
        for row in rows
    )
    about = f"{listed}. The dashed line is where the interval of the best one begins."
    caption = f"{title}, with 95 % confidence; * is the one that was taken"
    return [plot_intervals(name, caption, about, rows, score=title)]
