"""Heads as convex problems: the answers of scikit-learn, and logits that can be believed."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from tl_toolkit.tasks.solvers import solve_classes, solve_labels, solve_values
from tl_toolkit.tasks.standardized import Standardized

RANDOM = np.random.default_rng(0)


def make_classes(count=90, features=12, classes=3, noise=1.0):
    labels = np.arange(count) % classes
    centres = 2 * np.random.default_rng(1).normal(size=(classes, features))
    x = centres[labels] + noise * np.random.default_rng(2).normal(size=(count, features))
    return x * 7 + 100, labels  # far from standardized


def standardize(x):
    return (x - x.mean(axis=0)) / x.std(axis=0)


@pytest.mark.parametrize("features", [12, 300], ids=["fewer features", "more features"])
def test_ridge_is_scikit_learns_at_the_chosen_penalty_up_to_one_factor(features):
    x, labels = make_classes(features=features)

    solution = solve_classes(Standardized(x), labels, 3, "ridge")

    model = Ridge(solution.penalty).fit(standardize(x), np.eye(3)[labels])
    expected = model.predict(standardize(x))
    logits = x @ solution.kernel + solution.bias
    factor = (logits * expected).sum() / (expected**2).sum()
    assert factor >= 1
    np.testing.assert_allclose(logits, factor * expected, atol=1e-6 * abs(logits).max())


@pytest.mark.parametrize("features", [12, 300], ids=["fewer features", "more features"])
def test_logistic_predicts_as_scikit_learn_at_the_chosen_penalty(features):
    x, labels = make_classes(features=features, noise=2.0)

    solution = solve_classes(Standardized(x), labels, 3, "logistic")

    model = LogisticRegression(C=1 / solution.penalty, max_iter=5000, tol=1e-8)
    expected = model.fit(standardize(x), labels).predict_log_proba(standardize(x))
    logits = x @ solution.kernel + solution.bias
    log_shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(np.exp(log_shares), np.exp(expected), atol=1e-3)


def test_the_factor_makes_left_out_examples_likely():
    x, labels = make_classes(noise=3.0)
    fresh, fresh_labels = make_classes(count=3000, noise=3.0)
    # Of the same centres, with other noise.
    solution = solve_classes(Standardized(x), labels, 3, "ridge")

    def loss(factor):
        logits = factor * (fresh @ solution.kernel + solution.bias)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return -logits[np.arange(len(fresh)), fresh_labels].mean()

    assert loss(1.0) < min(loss(0.2), loss(5.0))


def test_auto_is_the_mean_of_both_and_names_the_better_one_first():
    x, labels = make_classes(noise=4.0)
    both = {name: solve_classes(Standardized(x), labels, 3, name) for name in ("ridge", "logistic")}

    solution = solve_classes(Standardized(x), labels, 3, "auto")

    assert solution.solver == min(both, key=lambda name: both[name].loss)
    np.testing.assert_allclose(solution.bias, sum(it.bias for it in both.values()) / 2)
    np.testing.assert_allclose(solution.kernel, sum(it.kernel for it in both.values()) / 2)
    assert solution.describe().startswith(f"mean of {solution.solver}, penalty ")


def test_auto_leaves_out_a_solution_that_is_much_worse():
    x, labels = make_classes()
    labels = np.where(np.arange(len(labels)) == 5, 3, labels)  # logistic cannot be validated

    solution = solve_classes(Standardized(x), labels, 4, "auto")

    assert solution.solver == "ridge" and solution.partner is None


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_a_class_without_images_is_never_predicted(solver):
    x, labels = make_classes()

    solution = solve_classes(Standardized(x), labels, 4, solver)

    logits = x @ solution.kernel + solution.bias
    assert (logits.argmax(axis=1) == labels).mean() > 0.9


@pytest.mark.parametrize("solver", ["ridge", "logistic", "auto"])
def test_labels_are_solved_each_for_itself(solver):
    x, classes = make_classes()
    labels = np.stack([classes == 0, classes != 1, np.zeros(len(classes))], axis=1)

    solution = solve_labels(Standardized(x), labels.astype(np.float32), solver)

    logits = x @ solution.kernel + solution.bias
    assert ((logits > 0) == labels).mean() > 0.9
    alone = solve_labels(Standardized(x), labels[:, :1].astype(np.float32), solver)
    np.testing.assert_allclose(
        x @ alone.kernel[:, 0] + alone.bias[0], logits[:, 0], rtol=1e-6, atol=1e-6
    )


def test_a_feature_that_does_not_vary_has_no_weight():
    x, labels = make_classes()
    x[:, 3] = 5.0

    solution = solve_classes(Standardized(x), labels, 3, "ridge")

    assert not solution.kernel[3].any()


@pytest.mark.parametrize("solver", ["ridge", "logistic", "auto"])
@pytest.mark.parametrize("features", [3, 300], ids=["fewer features", "more features"])
def test_features_of_which_none_varies_leave_the_shares_of_the_classes(solver, features):
    labels = np.array([0, 0, 0, 1, 1, 2] * 4)

    solution = solve_classes(Standardized(np.full((24, features), 7.0)), labels, 3, solver)

    assert not solution.kernel.any()
    assert list(np.argsort(-solution.bias)) == [0, 1, 2]


def test_values_are_predicted():
    x, _ = make_classes()
    values = np.stack([standardize(x)[:, 0], standardize(x)[:, 1] * 2 + 1], axis=1)

    solution = solve_values(Standardized(x), values)

    np.testing.assert_allclose(x @ solution.kernel + solution.bias, values, atol=0.1)


@pytest.mark.parametrize("solver", ["ridge", "logistic", "auto"])
def test_a_class_of_one_image_is_solved_too(solver):
    x, labels = make_classes()
    labels = np.where(np.arange(len(labels)) == 5, 3, labels)

    solution = solve_classes(Standardized(x), labels, 4, solver)

    assert ((x @ solution.kernel + solution.bias).argmax(axis=1) == labels).mean() > 0.9


def test_auto_takes_logistic_where_most_classes_have_one_example():
    x, _ = make_classes(features=40)
    rare = np.arange(90) // 88 + 1
    rare[0] = 0

    assert solve_classes(Standardized(x[:6]), np.arange(6), 6, "auto").solver == "logistic"
    assert solve_classes(Standardized(x[:6]), np.arange(6), 6, "auto").partner is None
    assert solve_classes(Standardized(x), rare, 3, "auto").solver == "ridge"


def test_whole_weights_are_repeated_examples():
    x, labels = make_classes(noise=2.0)
    counts = 1 + np.arange(len(labels)) % 3
    weighted = solve_classes(Standardized(x), labels, 3, "ridge", weights=counts.astype(float))

    model = Ridge(weighted.penalty)
    model.fit(standardize(x), np.eye(3)[labels], sample_weight=counts)

    expected = model.predict(standardize(x))
    logits = x @ weighted.kernel + weighted.bias
    factor = (logits * expected).sum() / (expected**2).sum()
    np.testing.assert_allclose(logits, factor * expected, atol=1e-5 * abs(logits).max())
