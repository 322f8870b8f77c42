"""Nearest neighbours by cosine: what they predict, and how many are asked."""

import numpy as np
import pytest
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.neighbors import fit_neighbors


def draw(count=60, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    return random.normal(size=(count, 5)) + 1.2 * np.eye(5)[labels], labels


def fit(features, labels):
    task = Classification("abc")
    return fit_neighbors(features, task.spread(labels), task.judge)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_number_is_that_of_scikit_learns_leave_one_out(seed):
    features, labels = draw(30, seed)
    numbers = [1, 3, 5, 10, 20]

    scores = [
        cross_val_score(
            KNeighborsClassifier(number, metric="cosine", algorithm="brute"),
            features, labels, cv=LeaveOneOut(),
        ).mean()
        for number in numbers
    ]  # fmt: skip

    assert fit(features, labels).number == numbers[int(np.argmax(scores))]


def test_predictions_are_the_shares_of_scikit_learn():
    features, labels = draw()
    others, _ = draw(seed=1)
    neighbors = fit(features, labels)

    expected = KNeighborsClassifier(neighbors.number, metric="cosine", algorithm="brute")

    np.testing.assert_allclose(
        neighbors.predict(others), expected.fit(features, labels).predict_proba(others)
    )


def test_the_length_of_a_vector_says_nothing():
    features, labels = draw()
    lengths = np.random.default_rng(2).uniform(0.1, 9, (60, 1))

    assert fit(features * lengths, labels).number == fit(features, labels).number


def test_an_image_that_is_there_twice_is_no_neighbour_of_itself_alone():
    features = np.repeat(np.eye(4), 2, axis=0)

    neighbors = fit(features, np.array([0, 1, 1, 2, 2, 0, 0, 1]))  # twins of other classes

    assert neighbors.number == 3


def test_two_images_are_enough():
    assert fit(np.eye(2), np.array([0, 1])).number == 1
