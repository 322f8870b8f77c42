"""The sections of what `auto` tried: time, bases, finished runs; and intervals as a chart."""

import re

from tests.reports.facts import find_parts
from tl_toolkit.reports.automatic import build_bases, build_runs, build_time, describe_choice
from tl_toolkit.reports.intervals import Scored, plot_intervals


def make_run(name, score, interval):
    run = {"base": "a", "about": "a head alone", "images": 1200, "operations": 10, "trained": 0}
    return run | {"name": name, "score": score, "interval": interval, "seconds": 75.0}


RECORD = {
    "minutes": 2.0, "seconds": 100.0, "steps": {"first run": 75.0, "search": 5.0, "bases": 0.0},
    "runs": [make_run("models/z", 0.8, [0.7, 0.9]), make_run("models/b", 0.85, None)],
    "chosen": "models/z", "tied": ["models/b"], "skipped": {}, "bases": [],
    "why": {"ranking": "the ranking failed: no room"},
}  # fmt: skip


def test_the_rest_of_the_time_is_between_the_steps():
    (text,) = find_parts([build_time(RECORD)], "text")
    (chart,) = find_parts([build_time(RECORD)], "chart")

    assert text.text == "1 min 40 s of 2 min 0 s were used."
    assert re.findall(r">([^<]*%)<", chart.body) == ["1 min 15 s, 62%", "5.0 s, 4%", "20 s, 17%"]
    assert "the longest step is first run" in chart.description


def test_runs_are_listed_the_best_first_and_the_chosen_one_is_linked_first():
    section = build_runs(RECORD, "accuracy", {"models/b": "b.html", "models/z": "z.html"})

    assert [link.target for link in find_parts([section], "link")] == ["z.html", "b.html"]
    (table,) = find_parts([section], "table")
    assert [(row[0], row[6]) for row in table.rows] == [
        ("models/b", "tied"), ("models/z", "chosen"),
    ]  # fmt: skip
    assert describe_choice(RECORD, "accuracy") == (
        "Chosen: models/z, accuracy 0.800 (0.700 to 0.900) on 1,200 validation images, after 100 s "
        "of 120 s."
    )


def test_a_ranking_that_failed_says_why():
    texts = [part.text for part in find_parts([build_bases(RECORD, "accuracy", "a")], "text")]

    assert texts == ["The ranking failed: no room.", "No bases were ranked."]


def test_lines_of_a_chart_go_from_end_to_end_of_the_intervals():
    rows = [Scored("best", 0.5, (0.25, 0.75)), Scored("taken", 0.0, (0.0, 1.0), True),
            Scored("alone", 1.0, None)]  # fmt: skip

    chart = plot_intervals("bases", "x", "y", rows, score="accuracy")

    lines = re.findall(r'class="line (s\d)"[^>]*d="M([\d.]+) [\d.]+H([\d.]+)"', chart.body)
    (best, low, high), (taken, start, end) = lines  # one without an interval is a dot alone
    assert (best, taken) == ("s0", "s1")
    across = float(end) - float(start)
    assert abs(float(low) - float(start) - across / 4) < 0.2
    assert abs(float(end) - float(high) - across / 4) < 0.2
    assert ">taken *<" in chart.body
    assert 'class="mark"' not in chart.body  # the best score has no interval that begins
    marked = plot_intervals("bases", "x", "y", rows[:2], score="accuracy").body
    assert f'class="mark" d="M{low} ' in marked
