"""Edges without a model: a gradient worked out by hand, and its place beside a model's."""

import numpy as np
import pytest
from PIL import Image

from tests.models import build_trainer, plan_values
from tests.pixels import draw_balls, make_recipe
from tl_toolkit.evaluation.splits import evaluate_trained
from tl_toolkit.plan.training import training_settings
from tl_toolkit.tasks.edges.boundaries import count_matches, find_ridges, summarize
from tl_toolkit.tasks.edges.sobel import measure_gradient

# Weights of a Gaussian of one pixel, cut at four.
GAUSS = np.exp(-(np.arange(-4, 5) ** 2) / 2)
GAUSS /= GAUSS.sum()


def test_a_step_has_the_gradient_of_the_smoothed_step():
    image = np.zeros((20, 20, 3), np.uint8)
    image[:, 10:] = [0, 102, 51]  # 0.4 of the range in one channel, 0.2 in another

    strength = measure_gradient(image)

    # Sobel sums 1 + 2 + 1 times the difference of the pixels two apart, 4 for a full step.
    rise = GAUSS[4] + GAUSS[5]  # from the pixel before the step to the one behind it
    np.testing.assert_allclose(strength[:, 9:11], np.sqrt(0.4 * rise), rtol=1e-6)
    assert strength[:, :5].max() == strength[:, 15:].max() == 0
    assert find_ridges(strength)[5:15].sum(axis=1).max() == 1


def test_an_edge_is_found_where_the_brightness_changes_and_nowhere_else():
    image, target = np.full((60, 60, 3), 50, np.uint8), np.zeros((60, 60), bool)
    image[:, 30:] = 150
    image[:, 30] = 100  # the middle of the slope
    target[:, 30] = True

    found = summarize([count_matches(measure_gradient(image), target)])

    assert found["ods"] == found["ois"] == 1


@pytest.mark.slow
def test_a_run_measures_it_on_the_same_images_at_their_own_size(tmp_path):
    balls = draw_balls(tmp_path / "balls", train=4, validation=2)
    phases = [{"name": "head", "epochs": 1, "learning_rate": 1e-3}]
    plan, task = plan_values(make_recipe("edges", balls, phases=phases))
    trainer, images = build_trainer(plan, task, tmp_path)
    trainer.train(training_settings(plan))

    metrics = evaluate_trained(trainer, task, images).metrics["validation"]

    counts = []
    for path in sorted((balls / "edges" / "validation" / "images").glob("*.png")):
        with Image.open(path) as photo, Image.open(path.parents[1] / "masks" / path.name) as mask:
            strength = measure_gradient(np.asarray(photo))
            counts.append(count_matches(strength, np.asarray(mask) > 127))
    expected = summarize(counts)
    for name, values in expected.pop("curve").items():
        assert metrics["sobel"]["curve"][name] == pytest.approx(values)
    numbers = {name: value for name, value in metrics["sobel"].items() if name != "curve"}
    assert numbers == pytest.approx(expected)
    found = metrics["against"]["sobel"]
    assert found["difference"] == pytest.approx(metrics["ods"] - metrics["sobel"]["ods"])
    assert found["verdict"] == "worse"  # a head after one epoch


def test_a_recipe_leaves_it_out(tmp_path):
    balls = draw_balls(tmp_path / "balls", train=4, validation=2)

    _, task = plan_values(make_recipe("edges", balls, yardsticks=False))

    assert task.yardstick == ""
