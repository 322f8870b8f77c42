"""Charts and pages: axes, escaped names, files that stand alone."""

from xml.etree import ElementTree

import pytest

from tl_toolkit.reports.charts import Series, plot_series
from tl_toolkit.reports.matrices import plot_bars, plot_matrix
from tl_toolkit.reports.page import Report, write_report
from tl_toolkit.reports.scales import fit_scale, write_number
from tl_toolkit.reports.sections import DataTable, Gallery, Listing, Section, Text, Tile

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("x")</script>&\udce9\x07'


def read_svg(chart, folder):
    page = write_report(folder, Report("t", "v", [], [Section("s", "S", [chart])], "f"))
    return ElementTree.parse(page.with_name(f"{chart.name}.svg")).getroot()


@pytest.mark.parametrize(
    ("values", "is_log", "ends", "ticks"),
    [
        ([0.0, 9.0], False, (0, 10), [0, 2, 4, 6, 8, 10]),
        ([0.71, 0.74], False, (0.71, 0.74), [0.71, 0.72, 0.73, 0.74]),
        ([-3.2, 1.0], False, (-4, 1), [-4, -3, -2, -1, 0, 1]),
        ([1e-5, 1e-1], True, (1e-5, 1e-1), [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
        ([2.0, 2.0], False, (1.8, 2.2), [1.8, 1.9, 2.0, 2.1, 2.2]),
    ],
)
def test_an_axis_holds_all_values_and_names_round_ones(values, is_log, ends, ticks):
    scale = fit_scale(values, (0, 100), is_log=is_log)

    assert (scale.low, scale.high) == pytest.approx(ends)
    assert scale.ticks == pytest.approx(ticks)
    assert (scale.place(scale.low), scale.place(scale.high)) == (0, 100)


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25"), (-2, "−2"), (12000, "12,000"), (1e-4, "1e−4"), (0, "0")]
)
def test_ticks_are_written_as_people_read_them(value, text):
    assert write_number(value) == text


def test_a_line_is_interrupted_where_a_value_is_missing(tmp_path):
    series = [Series("", [0, 1, 2, 3, 4], [0.0, 4.0, float("nan"), 2.0, 2.0])]
    chart = plot_series("c", "t", "d", series, x_title="x", y_title="y")

    paths = [path.get("d") for path in read_svg(chart, tmp_path).iter(f"{SVG}path")]

    # The plot is 342 pixels wide from 66 on, and 220 high from 12 on.
    assert "M66 232L151.5 12M322.5 122L408 122" in paths


def test_a_chart_says_in_words_what_it_shows(tmp_path):
    chart = plot_bars("bars", "Bars of it", "The longest is b.", [("a", 1, "1"), ("b", 4, "4")])

    svg = read_svg(chart, tmp_path)

    named = {element.get("id"): element.text for element in svg if element.get("id")}
    assert svg.get("role") == "img"
    labels = svg.get("aria-labelledby").split()
    assert [named[label] for label in labels] == ["Bars of it", "The longest is b."]
    short, long = (float(bar.get("width")) for bar in svg.iter(f"{SVG}rect") if bar.get("x"))
    assert long == pytest.approx(4 * short, abs=0.2)


def test_a_cell_is_as_dark_as_its_share_of_the_row(tmp_path):
    chart = plot_matrix("m", "t", "d", ["cat", "dog"], [[3, 1], [0, 5]])

    rects = [rect for rect in read_svg(chart, tmp_path).iter(f"{SVG}rect")]

    shares = [float(rect.get("fill-opacity")) for rect in rects if rect.get("class") == "cell"]
    assert shares == [0.75, 0.25, 1.0]


def test_names_of_any_kind_are_shown_as_text(tmp_path):
    parts = [
        Text(HOSTILE),
        DataTable(HOSTILE, [HOSTILE], [[HOSTILE]]),
        plot_matrix("m", HOSTILE, HOSTILE, [HOSTILE], [[1]]),
        plot_bars("b", HOSTILE, HOSTILE, [(HOSTILE, 1, HOSTILE)]),
        Gallery(HOSTILE, [Tile(HOSTILE, {"image": ""}, [HOSTILE])]),
        Listing(HOSTILE, HOSTILE),
    ]

    page = write_report(
        tmp_path, Report(HOSTILE, HOSTILE, [HOSTILE], [Section("s", "S", parts)], HOSTILE)
    ).read_bytes()

    assert b"<script" not in page and b"&lt;script&gt;" in page
    assert b"\x07" not in page
    page.decode("utf-8")
    for file in tmp_path.glob("*.svg"):
        ElementTree.parse(file)


def test_an_earlier_report_is_replaced_and_other_files_stay(tmp_path):
    bars = plot_bars("old", "t", "d", [("a", 1, "1")])
    write_report(tmp_path, Report("t", "v", [], [Section("s", "S", [bars])], "f"))
    (tmp_path / "notes.txt").write_text("mine")

    write_report(tmp_path, Report("t", "v", [], [Section("s", "S", [Text("x")], {"n": 1})], "f"))

    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"index.html", "numbers.json", "notes.txt"}


def test_a_page_asks_for_nothing_outside_itself(tmp_path):
    bars = plot_bars("b", "t", "d", [("a", 1, "1")])
    page = write_report(tmp_path, Report("t", "v", [], [Section("s", "S", [bars])], "f"))

    text = page.read_text()

    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text
