"""The tables and plots of a search."""

import re

import pytest

from tl_toolkit.tuning.journal import Trial
from tl_toolkit.tuning.report import plot_fields


def make_trial(number, fields):
    values = {field: number / 10 for field in fields}
    return Trial(number, values, "completed", 0.5, {}, "", seconds=1.0, elapsed=float(number))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_each_field_has_a_panel_and_no_panel_is_blank(tmp_path, count):
    fields = [f"field_{number}" for number in range(count)]
    trials = [make_trial(number, fields) for number in (1, 2)]

    plot_fields(tmp_path / "fields.svg", trials, fields, "val_accuracy", trials[0])

    panels = re.findall(r'<g id="axes_\d+">', (tmp_path / "fields.svg").read_text())
    assert len(panels) == count
