"""Errors: what a user reads, and the exit code a command ends with."""

import pickle

import pytest

from tl_toolkit import errors
from tl_toolkit.errors import Problem, RecipeError, ToolkitError, closest, nearest

EXIT_CODES = {
    "ToolkitError": 1,
    "RecipeError": 2,
    "DataError": 3,
    "WeightsError": 3,
    "CheckFailedError": 4,
    "ParityError": 4,
    "ReceiptError": 4,
    "ReproductionError": 4,
    "ThresholdError": 4,
    "SearchError": 5,
    "NonFiniteError": 6,
    "OutputError": 7,
    "HostError": 8,
}


@pytest.mark.parametrize(("name", "code"), EXIT_CODES.items())
def test_each_error_has_its_exit_code(name, code):
    error = getattr(errors, name)

    assert error.exit_code == code
    assert issubclass(error, ToolkitError)


def test_no_error_is_missing_from_the_table_of_exit_codes():
    names = {name for name in errors.__all__ if name.endswith("Error")}

    assert names == set(EXIT_CODES)


def test_failed_checks_are_one_family():
    family = (errors.ParityError, errors.ReceiptError, errors.ThresholdError)

    assert all(issubclass(error, errors.CheckFailedError) for error in family)


def test_problem_reads_as_place_expectation_and_hint():
    problem = Problem("x.yaml:14:9", "phases[1].unfreeze = 7", "expected 0 to 5.", "tltool models")

    assert str(problem) == (
        "x.yaml:14:9  phases[1].unfreeze = 7\n  expected 0 to 5.\n  Try: tltool models"
    )


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("", "the disk is full"), "the disk is full"),
        (Problem("data/ants", "is empty"), "data/ants  is empty"),
        (Problem("x", "is empty", hint="y"), "x  is empty. Try: y"),
        (
            Problem("x", "unknown; did you mean 'a'?", hint="y"),
            "x  unknown; did you mean 'a'? Try: y",
        ),
        (Problem("", "a = 1", "expected 2."), "a = 1\n  expected 2."),
    ],
)
def test_problem_leaves_empty_parts_out(problem, text):
    assert str(problem) == text


def test_error_takes_a_sentence():
    error = ToolkitError("the disk is full")

    assert str(error) == "the disk is full"
    assert error.problems == (Problem("", "the disk is full"),)


def test_error_takes_one_problem():
    problem = Problem("a", "b")

    assert RecipeError(problem).problems == (problem,)


def test_error_shows_all_its_problems():
    error = RecipeError([Problem("a", "b"), Problem("c", "d", "e")])

    assert str(error) == "a  b\nc  d\n  e"


def test_error_without_a_problem_is_a_mistake_in_the_code():
    with pytest.raises(ValueError, match="at least one problem"):
        RecipeError([])


def test_error_travels_between_processes():
    error = RecipeError([Problem("a", "b", "c", "d")])

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is RecipeError
    assert copy.problems == error.problems


@pytest.mark.parametrize("name", ["resnet5", "RESNET50", "resnt50"])
def test_closest_names_the_choice_that_was_meant(name):
    assert closest(name, ["vgg16", "resnet50"]) == "did you mean 'resnet50'?"
    assert nearest(name, ["vgg16", "resnet50"]) == "resnet50"


def test_closest_is_silent_when_nothing_is_near():
    assert closest("zzz", ["vgg16", "resnet50"]) == ""
    assert nearest("", []) == ""


def test_python_reads_its_own_parameters_and_a_terminal_its_options():
    error = RecipeError(
        [
            Problem("--out runs/a", "is full", "", "--overwrite to replace it, or another --out"),
            Problem("--top", "is wrong", "", "tltool evaluate a --data FOLDER"),
        ]
    )

    assert str(error) == (
        "out=runs/a  is full. Try: overwrite=True to replace it, or another out\n"
        "top  is wrong. Try: tltool evaluate a --data FOLDER"
    )
    assert error.as_typed() == (
        "--out runs/a  is full. Try: --overwrite to replace it, or another --out\n"
        "--top  is wrong. Try: tltool evaluate a --data FOLDER"
    )
