"""Features that are standardized some columns at a time."""

import numpy as np
import pytest

from tl_toolkit.tasks import standardized
from tl_toolkit.tasks.solvers import solve_classes
from tl_toolkit.tasks.standardized import Standardized


@pytest.fixture
def features():
    """Columns of different sizes, of which one is constant."""
    random = np.random.default_rng(0)
    values = random.normal(5, 3, (40, 90)) * np.arange(1, 91)
    values[:, 7] = 2.5
    return values.astype(np.float32)


@pytest.fixture
def narrow(monkeypatch):
    """Parts of seven columns, of which the last is shorter."""
    monkeypatch.setattr(standardized, "_NUMBERS", 7 * 40)


def whole(features):
    x = features.astype(np.float64)
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-6)


def test_parts_of_columns_give_what_all_give(features, narrow):
    x, expected = Standardized(features), whole(features)
    columns, rows = np.arange(3, 88), np.array([5, 0, 31])
    vectors = np.random.default_rng(1).normal(size=(40, 3))

    some = expected[:, columns]
    np.testing.assert_allclose(x.take(columns), some, rtol=1e-12)
    np.testing.assert_allclose(x.multiply(columns), some @ some.T, rtol=1e-9)
    np.testing.assert_allclose(x.multiply(columns, rows), some[rows] @ some[rows].T, rtol=1e-9)
    np.testing.assert_allclose(x.project(columns, vectors), some.T @ vectors, rtol=1e-9, atol=1e-9)


def test_a_constant_column_is_nowhere_divided_by_0(features, narrow):
    x = Standardized(features)

    assert x.variance[7] == 0 and x.mean[7] == 2.5
    np.testing.assert_array_equal(x.take(np.array([7])), np.zeros((40, 1)))


@pytest.mark.parametrize("columns", [30, 90])
def test_a_head_is_the_same_however_many_columns_are_taken(features, monkeypatch, columns):
    """With 30 columns they are solved for themselves, with 90 their directions are."""
    groups = {"first": np.arange(10), "rest": np.arange(10, columns)}
    labels = np.arange(40) % 3
    solutions = []

    for numbers in (7 * 40, 10**6):
        monkeypatch.setattr(standardized, "_NUMBERS", numbers)
        found = solve_classes(Standardized(features[:, :columns], groups), labels, 3, "ridge")
        solutions.append(found)

    np.testing.assert_allclose(*(found.kernel for found in solutions), rtol=1e-6, atol=1e-12)
    assert solutions[0].describe() == solutions[1].describe()


def test_features_are_not_copied_as_a_whole(features, narrow, monkeypatch):
    taken = []
    take = Standardized.take
    monkeypatch.setattr(
        Standardized,
        "take",
        lambda self, columns, rows=None: taken.append(len(columns)) or take(self, columns, rows),
    )

    solve_classes(Standardized(features), np.arange(40) % 3, 3, "ridge")

    assert max(taken) == 7
