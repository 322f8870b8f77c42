"""Curves of training, and where training and validation part."""

import pytest

from tl_toolkit.reports.course import build_course, find_parting


def make_history(losses, val_losses, phase="tune", first=1):
    return [
        {
            "phase": phase, "epoch": number, "learning_rate": 0.1, "loss": loss, "accuracy": 0.5,
            "val_loss": val_loss, "val_accuracy": 0.5,
        }
        for number, (loss, val_loss) in enumerate(zip(losses, val_losses, strict=True), first)
    ]  # fmt: skip


def test_parting_is_the_epoch_of_the_lowest_validation_loss():
    history = make_history([1.0, 0.8, 0.6, 0.4], [1.1, 0.9, 1.0, 1.3])

    assert find_parting(history) == {
        "phase": "tune", "epoch": 2, "loss": [0.8, 0.4], "val_loss": [0.9, 1.3],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("losses", "val_losses"),
    [
        ([1.0, 0.8, 0.6], [1.1, 0.9, 0.8]),  # both fall
        ([1.0, 0.8, 0.9], [1.1, 0.9, 1.2]),  # both rise
        ([1.0, 0.8], [0.9, 1.0]),  # too few
    ],
)
def test_losses_that_do_not_part_are_no_sign(losses, val_losses):
    assert find_parting(make_history(losses, val_losses)) is None


def test_epochs_of_phases_are_counted_on_and_the_kept_one_is_marked():
    history = [
        {**make_history([0], [2.0], "head", 0)[0], "loss": None},
        *make_history([1.0, 0.9], [1.5, 1.4], "head"),
        {**make_history([0], [1.4], "tune", 0)[0], "loss": None},
        *make_history([0.8], [1.3], "tune"),
    ]

    section = build_course(
        history, best={"phase": "tune", "epoch": 1}, score="accuracy", title="accuracy", rates={}
    )

    table, loss, *_ = section.parts
    assert [row[:2] for row in table.rows] == [["head", 2], ["tune", 1]]
    assert "over 3 epochs" in loss.description
    assert "training 1 to 0.8; validation 2 to 1.3" in loss.description
    assert ">head<" in loss.body and ">tune<" in loss.body and ">kept<" in loss.body


def test_rates_of_parts_are_plotted():
    parts = [{"name": "block3", "rate": 0.01}, {"name": "head", "rate": 0.04}]
    moving = [{"epoch": epoch, "rates": parts} for epoch in (1, 2, 3)]
    history = make_history([1.0, 0.8, 0.6], [1.1, 0.9, 0.8])
    best = {"phase": "tune", "epoch": 3}

    for rates in ({"rates": parts}, {"rates": parts, "epochs": moving}):
        section = build_course(
            history, best=best, score="accuracy", title="accuracy", rates={"tune": rates}
        )

        (chart,) = [
            part for part in section.parts if getattr(part, "name", "") == "course-rates-tune"
        ]
        assert "block3" in chart.body and "head" in chart.body


def test_mixtures_of_weights_are_no_epochs():
    mixed = [
        {**row, "loss": None, "mixture": share, "val_accuracy": score}
        for row, share, score in zip(
            make_history([0, 0, 0], [1.0, 1.0, 1.0], "interpolate", 0),
            [0.0, 0.5, 1.0],
            [0.6, 0.8, 0.7],
            strict=True,
        )
    ]
    history = [*make_history([1.0, 0.8, 0.6], [1.1, 0.9, 0.8]), *mixed]

    section = build_course(
        history,
        best={"phase": "interpolate", "epoch": 1},
        score="accuracy",
        title="accuracy",
        rates={},
    )

    charts = {part.name: part for part in section.parts if part.kind == "chart"}
    assert "over 3 epochs" in charts["course-loss"].description
    assert "0.8, has a share of 0.5" in charts["course-mixtures"].description
    assert [row[0] for row in section.parts[0].rows] == ["tune"]
