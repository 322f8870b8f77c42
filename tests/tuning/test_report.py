"""The tables and plots of a search."""

import re
from unittest import mock

import pytest

from tl_toolkit.recipe.search_schema import Dimension
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tuning import report
from tl_toolkit.tuning.journal import Trial
from tl_toolkit.tuning.report import SweepRow, plot_fields, write_sweep


def make_trial(number, fields):
    values = {field: number / 10 for field in fields}
    return Trial(number, values, "completed", 0.5, {}, "", seconds=1.0, elapsed=float(number))


@pytest.mark.parametrize(
    "count", [5, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 2, 3, 4, 7))]
)
def test_each_field_has_a_panel_and_no_panel_is_blank(tmp_path, count):
    fields = [f"field_{number}" for number in range(count)]
    trials = [make_trial(number, fields) for number in (1, 2)]

    plot_fields(tmp_path / "fields.svg", trials, dict.fromkeys(fields, Dimension(min=0.0, max=1.0)),
                "val_accuracy", trials[0])  # fmt: skip

    panels = re.findall(r'<g id="axes_\d+">', (tmp_path / "fields.svg").read_text())
    assert len(panels) == count


def plot(path, dimension, values):
    """Plots trials of one field, and returns its axis."""
    trials = [
        Trial(number, {"field": value}, "completed", number / 10, {}, "", 1.0, 1.0)
        for number, value in enumerate(values, start=1)
    ]
    with mock.patch.object(report, "save_figure") as save:
        plot_fields(path / "fields.svg", trials, {"field": dimension}, "val_accuracy", trials[0])
    figure = save.call_args.args[0]
    figure.savefig(path / "fields.png")
    return figure.axes[0]


def labels_of(axis):
    return [label.get_text() for label in axis.get_xticklabels() if label.get_text()]


@pytest.mark.parametrize(
    "ends",
    [
        *(pytest.param(each, marks=pytest.mark.slow) for each in ((1e-5, 1e-1), (1e-3, 2e-2))),
        (3e-4, 8e-4),
    ],
)
def test_a_field_that_was_sampled_by_ratios_has_an_axis_of_ratios(tmp_path, ends):
    low, high = ends
    values = [low, (low * high) ** 0.5, high]

    axis = plot(tmp_path, Dimension(min=low, max=high, sampling="log"), values)

    assert axis.get_xscale() == "log"
    shown = [tick for tick in axis.get_xticks() if low * 0.9 <= tick <= high * 1.1]
    assert len(shown) >= 2


def test_a_field_that_was_sampled_by_steps_has_a_linear_axis(tmp_path):
    assert plot(tmp_path, Dimension(min=0.001, max=1.0), [0.001, 0.5]).get_xscale() == "linear"


@pytest.mark.parametrize(
    "values", [[1], *(pytest.param(each, marks=pytest.mark.slow) for each in ([0, 1, 2], [8, 9]))]
)
def test_whole_numbers_have_no_ticks_between(tmp_path, values):
    for dimension in (
        Dimension(min=0, max=20), Dimension(choices=tuple(range(20))), Dimension(choices=(0, 1, 2))
    ):  # fmt: skip
        axis = plot(tmp_path, dimension, values)

        assert all(float(tick).is_integer() for tick in axis.get_xticks())


def test_sections_are_words_on_an_axis_in_the_order_of_the_recipe(tmp_path):
    choices = (2, {"from": "conv_dw_12"}, 0)

    axis = plot(tmp_path, Dimension(choices=choices), [0, 2, {"from": "conv_dw_12"}])

    assert labels_of(axis) == ["2", "from conv_dw_12", "0"]


def test_depths_of_a_sweep_are_words_in_the_plot_and_typed_in_the_table(tmp_path):
    folder = RunFolder(tmp_path)
    rows = [SweepRow(depth, "head", 9, 0.5, 1.0) for depth in (0, {"from": "conv_dw_12"})]

    with mock.patch.object(report, "save_figure") as save:
        write_sweep(folder, rows, "val_accuracy")

    assert labels_of(save.call_args.args[0].axes[0])[1] == "from conv_dw_12\nhead"
    assert "{from: conv_dw_12},head" in folder.sweep_table.read_text()


def test_a_long_label_leaves_room_for_the_axes(tmp_path):
    paths = tuple(f"a_folder_with_a_name/{'x' * 90}/{number}.weights.h5" for number in (1, 2))

    axis = plot(tmp_path, Dimension(choices=paths), list(paths))

    assert [label[-12:] for label in labels_of(axis)] == ["1.weights.h5", "2.weights.h5"]
    assert max(map(len, labels_of(axis))) <= 24
