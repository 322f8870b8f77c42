"""The trials of a search: importance, parallel coordinates, what is listed."""

import re

import numpy as np
import pytest

from tests.reports.facts import find_parts
from tl_toolkit.reports.trials import Tried, build_trials, measure_importance


def make_tried(count=9, **changes):
    """Trials whose score is their rate's logarithm, and depends on nothing else."""
    trials = [
        {
            "number": number,
            "values": {"rate": 10.0**-number, "pooling": ("max", "average")[number % 2]},
            "score": 1 - number / 10, "state": "completed", "seconds": 1.0, "elapsed": 2.0 * number,
        }
        for number in range(1, count + 1)
    ]  # fmt: skip
    values = {"log_fields": ["rate"], "objective": "val_accuracy", "is_max": True, "best": 1}
    return Tried(trials, **{**values, **changes})


def test_the_field_that_decides_is_the_important_one():
    random = np.random.default_rng(0)
    first, second = random.uniform(size=(2, 40))

    important, idle = measure_importance([first, second], (first > 0.5).astype(float))

    # Shuffled halves agree by chance: the variance of the errors is twice that of the scores.
    assert important == pytest.approx(2, abs=0.3)
    assert idle < 0.02


def test_trials_are_listed_the_best_first():
    trials, fields = build_trials(make_tried(failed=2))

    (table,) = find_parts([trials], "table")
    assert [row[0] for row in table.rows] == list(range(1, 10))
    assert table.columns == ["trial", "val_accuracy", "state", "rate", "pooling", "time"]
    assert find_parts([trials], "text")[0].text.startswith("2 trials failed")
    assert fields.numbers["importance"]["rate"] > 10 * fields.numbers["importance"]["pooling"]


def test_lower_is_better_where_the_objective_says_so():
    trials, _ = build_trials(make_tried(is_max=False, best=9))

    assert find_parts([trials], "table")[0].rows[0][0] == 9
    assert "0.1000, was there after 18 s" in find_parts([trials], "chart")[1].description


def test_a_line_of_a_trial_goes_through_its_values():
    (chart, *_) = build_trials(make_tried(count=3))[0].parts

    lines = re.findall(r'class="trial ([^"]*)" d="M([^"]*)"', chart.body)
    # Rates are a decade apart, and two poolings a quarter and three quarters up.
    assert dict(lines)["first s6"] == "50 44L160 209L270 44"
    assert lines[0] == ("s0", "50 264L160 209L270 264")


def test_few_trials_tell_no_importance():
    fields = build_trials(make_tried(count=3))[1]

    assert not fields.numbers
    assert "Fewer than 8 trials" in fields.parts[0].text
    assert build_trials(make_tried(count=0))[0].parts[0].is_warning
