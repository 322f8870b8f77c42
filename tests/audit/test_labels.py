"""Confident learning, out-of-fold predictions and outliers, against figures computed by hand."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import tl_toolkit as tl
from tests.command import tltool
from tests.conftest import ROOT
from tl_toolkit.audit.labels import find_label_errors, find_outliers, predict_out_of_fold

WEIGHTS = ROOT / "models" / "digits_vgg_tiny.weights.h5"


def test_confident_learning_doubts_what_the_paper_doubts():
    """Thresholds: class 0 (0.9 + 0.8 + 0.3 + 0.4) / 4 = 0.6, class 1 (0.6 + 0.5 + 0.1) / 3 = 0.4.

    Image 2 is likely of class 1 alone, image 6 of class 0 alone: both are doubted, 6 by more. Image
    3 with 0.58 is above the threshold of class 1, too, but by less than image 2.
    """
    of_zero = np.array([0.9, 0.8, 0.3, 0.42, 0.4, 0.5, 0.9])
    labels = np.array([0, 0, 0, 0, 1, 1, 1])

    doubts = find_label_errors(np.stack([of_zero, 1 - of_zero], axis=1), labels)

    assert [(doubt.image, doubt.suggested) for doubt in doubts] == [(6, 0), (2, 1), (3, 1)]
    assert doubts[0].own == pytest.approx(0.1) and doubts[0].other == pytest.approx(0.9)


def test_a_class_that_is_likely_but_not_the_most_probable_is_no_doubt():
    """The mean of class 1 is 0.3: for image 1 it is likely with 0.4, but class 0 has 0.6."""
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]])

    assert find_label_errors(probabilities, np.array([0, 0, 1])) == []


def test_copies_with_a_wrong_label_do_not_confirm_each_other():
    """Fifteen images of each class, and a copy of one, five times, under the other label."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(30, 40))
    vectors[:, :20] += np.repeat([[0.6], [-0.6]], 15, axis=0)
    vectors = np.concatenate([vectors, np.repeat(vectors[:1], 5, axis=0)])
    labels = np.array([0] * 15 + [1] * 20)
    groups = np.array([*range(30), 0, 0, 0, 0, 0])

    apart = predict_out_of_fold(vectors, labels, np.arange(35), 2)
    together = predict_out_of_fold(vectors, labels, groups, 2)

    assert apart[30:, 0].max() < 0.5  # copies in other folds taught the wrong label
    assert together[30:, 0].min() > 0.5


def test_the_odd_one_is_an_outlier_and_its_copies_do_not_hide_it():
    random = np.random.default_rng(0)
    vectors = np.eye(8)[0] + 0.1 * random.normal(size=(200, 8))
    vectors[17] = vectors[18] = vectors[19] = np.eye(8)[3]

    outliers = find_outliers(vectors)

    assert {index for index, _ in outliers[:3]} == {17, 18, 19}
    assert outliers[2][1] > 10


def test_the_score_of_an_outlier_is_its_modified_z_score():
    """Unit vectors at some degrees, the last one far; each counts its fifth neighbour."""
    degrees = np.array([0, 1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 150])
    vectors = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)

    fifth = [sorted(abs(degrees - degree))[5] for degree in degrees]
    distances = 1 - np.cos(np.radians(fifth))
    middle = np.median(distances)
    deviation = 1.4826 * np.median(abs(distances - middle))
    (outlier,) = (pair for pair in find_outliers(vectors) if pair[0] == 11)
    assert outlier[1] == pytest.approx((distances[11] - middle) / deviation, rel=1e-3)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Twenty images of each of three digits, one of each labelled wrongly."""
    root = tmp_path_factory.mktemp("digits") / "digits"
    images, targets = load_digits(return_X_y=True)
    for label in (0, 1, 4):
        (root / str(label)).mkdir(parents=True)
    for label, wrong in ((0, 1), (1, 4), (4, 0)):
        for number, pixels in enumerate(images[targets == label][:20]):
            folder = root / str(wrong if number == 7 else label)
            grey = Image.fromarray((pixels.reshape(8, 8) * 15.9).astype(np.uint8))
            grey.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{label}-{number}.png")
    return root


def check(digits, **arguments):
    return tl.check_data(
        digits, {"data.image_size": 32}, base="vgg_tiny", weights=str(WEIGHTS), **arguments
    )


def test_wrong_labels_of_a_folder_are_found_by_a_base_and_remembered(digits, monkeypatch):
    report = check(digits)

    named = [report.shorten(finding.paths[0]) for finding in report.of("label_error")]
    assert {"1/0-7.png", "4/1-7.png", "0/4-7.png"} <= set(named)
    assert len(named) <= 5
    assert "labels and outliers by vgg_tiny" in report.notes
    monkeypatch.setattr("tl_toolkit.training.embedding.embed_images", lambda *_: 1 / 0)
    assert check(digits) == report


def test_a_folder_without_a_base_says_what_is_not_checked(digits, tmp_path):
    done = tltool("data", "check", digits, cwd=tmp_path)

    assert "label_error" not in done.stdout
    assert "labels and outliers are not checked, which takes a base" in done.stderr


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"base": "lenet5", "weights": "random"}, "model.weights is random"),
        ({"base": "mobilenet", "weights": "imagenet"}, "mobilenet_1_0_224_tf_no_top.h5"),
        ({"base": "vgg_tiny", "weights": "gone.h5"}, "gone.h5"),
    ],
)
def test_a_recipe_whose_base_cannot_be_asked_says_why(digits, model, words, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    recipe = {
        "version": 1, "name": "digits", "model": model,
        "data": {"train": str(digits), "image_size": 32},
        "phases": [{"name": "head", "epochs": 1}],
    }  # fmt: skip

    report = tl.check_data(recipe)

    assert words in report.notes[-1]
    assert report.notes[-1].startswith("labels and outliers are not checked: ")
