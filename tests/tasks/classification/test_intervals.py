"""How far an accuracy may be from that of new images."""

import pytest
from scipy.stats import binomtest

from tl_toolkit.tasks.classification.metrics import find_interval
from tl_toolkit.tasks.classification.spec import ClassificationSection


@pytest.mark.parametrize(("hits", "images"), [(0, 1), (4, 4), (131, 153), (1, 1000), (500, 1000)])
def test_the_interval_is_scipys_of_wilson(hits, images):
    expected = binomtest(hits, images).proportion_ci(method="wilson")

    assert find_interval(hits, images) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_four_images_that_are_all_right_say_little():
    metrics = {"images": 4, "accuracy": 1.0, "accuracy_interval": list(find_interval(4, 4))}

    text = ClassificationSection.describe_certainty(metrics)

    assert text == "accuracy on new images: 0.51 to 1.00 with 95 % confidence, by 4 images"


def test_metrics_of_earlier_versions_have_no_interval():
    assert ClassificationSection.describe_certainty({"images": 4, "accuracy": 1.0}) == ""
