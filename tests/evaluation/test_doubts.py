"""Doubts of training labels, by vectors in which it is known which labels are wrong."""

from types import SimpleNamespace

import numpy as np
import pytest

from tl_toolkit.evaluation import doubts
from tl_toolkit.evaluation.doubts import find_training_doubts

CLASSES = ("cat", "dog", "rare")
WRONG = (3, 41)


def make_images(targets, names=None):
    examples = [
        SimpleNamespace(path=f"{number}.jpg", sha256=(names or range(len(targets)))[number])
        for number in range(len(targets))
    ]
    return SimpleNamespace(targets=targets, examples=examples)


@pytest.fixture
def vectors():
    """Sixty images that their first feature tells apart, and three of a class of their own."""
    random = np.random.default_rng(0)
    features = random.normal(0, 1, (63, 8))
    features[:, 0] += np.repeat([-4, 4, 0], [30, 30, 3])
    return features


@pytest.fixture
def labels():
    targets = np.repeat([0, 1, 2], [30, 30, 3]).astype(np.int32)
    targets[list(WRONG)] = 1 - targets[list(WRONG)]
    return targets


def test_labels_that_were_changed_are_doubted_with_what_they_should_be(vectors, labels):
    found = find_training_doubts(vectors, make_images(labels), CLASSES)

    assert (found["images"], found["doubted"]) == (60, 2)  # three images are too few to ask about
    rows = {row["path"]: (row["label"], row["suggested"]) for row in found["labels"]}
    assert rows == {"3.jpg": ("dog", "cat"), "41.jpg": ("cat", "dog")}
    assert all(row["own"] < 0.5 < row["other"] for row in found["labels"])


def test_a_copy_of_an_image_does_not_vouch_for_its_label(vectors, labels):
    names = list(range(63))
    vectors[4:10], labels[4:10] = vectors[3], labels[3]
    names[4:10] = [3] * 6

    apart = find_training_doubts(vectors, make_images(labels, names), CLASSES)
    together = find_training_doubts(vectors, make_images(labels), CLASSES)

    assert {"3.jpg", "9.jpg"} <= {row["path"] for row in apart["labels"]}
    assert "3.jpg" not in {row["path"] for row in together["labels"]}


def test_what_cannot_be_asked_cheaply_is_left_out(vectors, labels, monkeypatch):
    several = np.eye(3, dtype=np.int32)[labels]

    assert find_training_doubts(vectors, make_images(several), CLASSES) is None
    assert find_training_doubts(vectors, make_images(labels.astype(np.float32)), CLASSES) is None
    few = make_images(labels[60:])
    assert find_training_doubts(vectors[60:], few, CLASSES) is None
    monkeypatch.setattr(doubts, "_MOST_WORK", 63 * 8 * 8 - 1)
    assert find_training_doubts(vectors, make_images(labels), CLASSES) is None
