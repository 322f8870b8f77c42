"""Heads as convex problems: a linear map from pooled features to targets, with a chosen penalty.

Features are standardized; the answer is in the units of the features that are passed. Scores of a
ridge regression are no logits, so that they are scaled by what makes cross-validated predictions
likeliest (Platt, 1999).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tl_toolkit.architectures.heads import CELLS_OF
from tl_toolkit.tasks.standardized import Standardized, blas_threads

__all__ = [
    "Solution",
    "Solver",
    "import_solvers",
    "solve_classes",
    "solve_labels",
    "solve_values",
]

Solver = Literal["ridge", "logistic", "auto"]

_PENALTIES = 19  # of a path over ten powers of ten, as broad as Kornblith et al. (2019) search
_STRENGTHS = 6  # of logistic regression, whose path is walked for each fold: below 0.1 it crawls
_FOLDS = 4
_STEPS = 200
_USUAL_PENALTY = 100.0
_PARTNER = 1.25  # of the better one's loss: a worse solution has no part in the mean
_JUDGES = 1000  # examples by which groups of features are chosen
_GAIN = 1e-6  # of the loss, that leaving out a group must win: rounding must not choose
_FACTORS = (0.0, 5.0)  # logarithms of what scores of a ridge regression are multiplied by


@dataclass(frozen=True)
class Solution:
    """A solved head.

    Attributes:
        kernel: float64 (features, outputs).
        bias: float64 (outputs,).
        solver: ridge or logistic; the better of the two where this is the mean of both.
        penalty: The strength that was chosen, for standardized features: scikit-learn's alpha of
            ridge, 1 / C of logistic; the mean over outputs where each has its own.
        loss: Mean cross-validated loss: cross-entropy, or the squared error of values.
        partner: The other solution, where this is the mean of both.
        left_out: Groups of features whose rows of the kernel are 0.
        kept: The other groups.
    """

    kernel: np.ndarray
    bias: np.ndarray
    solver: str
    penalty: float
    loss: float
    partner: Solution | None = None
    left_out: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def describe(self) -> str:
        """Returns solver, penalty, cross-validated loss and what was left out in a line."""
        loss = f"cross-validated loss {self.loss:.4f}"
        if np.isinf(self.loss):
            loss = "not cross-validated, as a class has one image"
        words = f"{self.solver}, penalty {self.penalty:.3g}, {loss}"
        words = f"mean of {words}; {self.partner.describe()}" if self.partner else words
        if len(self.kept) < len(self.left_out):
            return f"{words}; on {', '.join(self.kept)} alone"
        return f"{words}; without {', '.join(self.left_out)}" if self.left_out else words


_Attempt = Callable[[np.ndarray], Solution]
"""Solves for standardized features."""


def import_solvers() -> None:
    """Imports what solves a head now, while other work runs: scikit-learn takes a second."""
    import sklearn.linear_model  # noqa: F401


def solve_classes(
    features: Standardized,
    labels: np.ndarray,
    classes: int,
    solver: Solver,
    *,
    weights: np.ndarray | None = None,
) -> Solution:
    """Solves the logits of classes that exclude each other.

    Each group of features in turn is left out, from all of them and from all but cells, where the
    ridge regression of one-hot targets then has a lower leave-one-out loss over at most 1,000
    examples, weighted as they are. None is where at least half of the examples are the only ones
    of their class.

    Args:
        features: (n, features), with their groups.
        labels: (n,), indices into the classes; each class may be absent.
        classes: Number of classes.
        solver: ridge, logistic, or auto for the mean of both, and for logistic where at least half
            of the examples are the only ones of their class.
        weights: Weight of each example, (n,), with a mean of about 1; by default 1.
    """
    targets = np.eye(classes)[labels]
    counts = np.unique(labels, return_counts=True)[1]
    # Else most images leave no other of their class to choose by.
    may_choose = 2 * (counts == 1).sum() < len(labels)
    if not may_choose and solver == "auto":
        solver = "logistic"
    attempts: dict[str, _Attempt] = {
        "ridge": lambda x: _ridge_classes(x, targets, weights),
        "logistic": lambda x: _logistic_classes(x, labels, classes, weights),
    }
    return _solve(features, solver, attempts, targets, weights, may_choose=may_choose)


def solve_labels(
    features: Standardized,
    labels: np.ndarray,
    solver: Solver,
    *,
    weights: np.ndarray | None = None,
) -> Solution:
    """Solves the logits of labels that do not exclude each other, each for itself.

    Args:
        features: As in `solve_classes`.
        labels: (n, labels) of 0 and 1.
        solver: ridge, logistic, or auto for the mean of both.
        weights: Weight of each label of each example, (n, labels), with means of about 1; by
            default 1.
    """
    each = [None] * labels.shape[1] if weights is None else list(weights.T)
    pairs = list(zip(labels.T, each, strict=True))
    attempts: dict[str, _Attempt] = {
        "ridge": lambda x: _join([_ridge_label(x, *pair) for pair in pairs]),
        "logistic": lambda x: _join([_logistic_label(x, *pair) for pair in pairs]),
    }
    return _solve(features, solver, attempts, labels, weights)


def solve_values(features: Standardized, values: np.ndarray) -> Solution:
    """Solves numbers by ridge regression, each with a penalty of its own.

    Args:
        features: As in `solve_classes`.
        values: (n, columns), standardized.
    """

    def solve(x: np.ndarray) -> Solution:
        return _join([_ridge(x, column[:, None])[0] for column in values.T])

    return _solve(features, "ridge", {"ridge": solve}, values, None)


def _solve(
    x: Standardized,
    solver: Solver,
    attempts: Mapping[str, _Attempt],
    targets: np.ndarray,
    weights: np.ndarray | None,
    *,
    may_choose: bool = True,
) -> Solution:
    """Solves for the groups of features that help; those of the others have the weight 0."""
    groups = x.groups if may_choose else {}
    left_out = _choose_left_out(x, targets, weights) if len(groups) > 1 else ()
    kept = x.variance > 0
    if not kept.any():  # every image has the same features
        kept[:] = True
    for name in left_out:
        kept[groups[name]] = False
    chosen = list(attempts.values()) if solver == "auto" else [attempts[solver]]
    best = _solve_standardized(x, np.flatnonzero(kept), chosen)
    kernel = np.zeros((len(kept), best.kernel.shape[1]))
    kernel[kept] = best.kernel / x.scale[kept, None]
    with blas_threads(len(x) * len(kept)):
        bias = best.bias - x.mean @ kernel
    reads = tuple(name for name in groups if name not in left_out)
    return replace(best, kernel=kernel, bias=bias, left_out=left_out, kept=reads)


def _choose_left_out(
    x: Standardized, targets: np.ndarray, weights: np.ndarray | None
) -> tuple[str, ...]:
    """Returns the groups of features without which a ridge regression predicts better."""
    groups = x.groups
    judges = np.random.default_rng(0).permutation(len(x))[:_JUDGES]
    targets = np.asarray(targets, np.float64)[judges]
    weights = None if weights is None else weights[judges]
    products = {name: x.multiply(group, judges) for name, group in groups.items()}

    def measure(without: Sequence[str]) -> float:
        product = np.sum([products[name] for name in groups if name not in without], axis=0)
        return _leave_one_out(product, targets, weights)

    def descend(left_out: tuple[str, ...]) -> tuple[float, tuple[str, ...]]:
        best = measure(left_out)
        for name in groups:
            if name in left_out or len(left_out) + 1 == len(groups):
                continue
            loss = measure([*left_out, name])
            if loss < (1 - _GAIN) * best:
                best, left_out = loss, (*left_out, name)
        return best, left_out

    cells = tuple(name for name in groups if name.startswith(CELLS_OF))
    with blas_threads(len(judges) ** 2):
        best, left_out = descend(())
        if cells and len(cells) < len(groups):  # each may help beside the rest, and all may not
            loss, without_cells = descend(cells)
            if loss < (1 - _GAIN) * best:
                left_out = without_cells
    return left_out


def _leave_one_out(product: np.ndarray, targets: np.ndarray, weights: np.ndarray | None) -> float:
    """Returns the least loss of ridge regressions on examples that they leave out.

    It is that of scikit-learn's `RidgeCV`, without the time for its models.

    Args:
        product: Of the features of examples with each other, (n, n).
        targets: (n, outputs).
        weights: Of examples, (n,), or of labels, (n, outputs), which count in the loss alone.
    """
    of_targets = np.ones_like(targets)
    own = np.ones(len(targets))
    if weights is not None:
        of_targets = of_targets * weights.reshape(len(targets), -1)
        own = weights if weights.ndim == 1 else own
    share, root = own / own.sum(), np.sqrt(own)[:, None]
    mean = product @ share
    values, vectors = np.linalg.eigh(
        (product - mean - mean[:, None] + mean @ share) * root * root.T
    )
    if values[-1] <= 0:
        return np.inf
    values = np.maximum(values, 0.0)
    y = (targets - share @ targets) * root
    projected, squares = vectors.T @ y, vectors**2
    losses = []
    for penalty in _penalties(len(values)):
        kept = values / (values + penalty)
        left = 1 - share - squares @ kept
        errors = (y - vectors @ (kept[:, None] * projected)) / (left[:, None] * root)
        losses.append(np.average(errors**2, weights=of_targets))
    return float(min(losses))


def _solve_standardized(
    x: Standardized, columns: np.ndarray, attempts: Sequence[_Attempt]
) -> Solution:
    """Solves for some columns, in the basis of their own directions where these are fewer.

    A penalty on the squared weights does not depend on the basis.
    """
    dual = None
    if len(columns) > len(x):
        product = x.multiply(columns)
        with blas_threads(len(x) * len(columns)):
            vectors, roots = _find_directions(product)
        if len(roots):  # else every image has the same features, and any basis is as good
            directions, dual = vectors * roots, vectors / roots
    if dual is None:
        directions = x.take(columns)
    with blas_threads(directions.size):
        best = _average([attempt(directions) for attempt in attempts])
    if dual is None:
        return best
    # The basis is `x.T @ dual`, as large as x, which is not worth its memory.
    return replace(best, kernel=x.project(columns, dual @ best.kernel))


def _find_directions(product: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns orthonormal columns and their scale, whose product with itself is a given one."""
    values, vectors = np.linalg.eigh(product)
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept], np.sqrt(values[kept])


def _average(solutions: Sequence[Solution]) -> Solution:
    """Returns the mean of solutions that are about as good: they err on different images."""
    best, *others = sorted(solutions, key=lambda solution: solution.loss)
    if not others or not others[0].loss <= _PARTNER * best.loss:
        return best
    partner = others[0]
    kernel, bias = (best.kernel + partner.kernel) / 2, (best.bias + partner.bias) / 2
    return replace(best, kernel=kernel, bias=bias, partner=partner)


def _penalties(features: int) -> np.ndarray:
    return np.logspace(-3, 6, _PENALTIES) * max(1.0, features / 1000)


def _ridge(
    x: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None
) -> tuple[Solution, np.ndarray]:
    """Returns a ridge regression, and its prediction of each target without that example."""
    from sklearn.linear_model import RidgeCV

    alphas = _penalties(x.shape[1])
    model = RidgeCV(alphas, scoring="neg_mean_squared_error", store_cv_results=True)
    model.fit(x, targets, sample_weight=weights)
    place = int(np.argmin(np.abs(alphas - model.alpha_)))
    left_out = model.cv_results_.reshape(len(x), -1, _PENALTIES)[..., place]
    solution = Solution(
        kernel=np.atleast_2d(model.coef_).T,
        bias=np.atleast_1d(model.intercept_),
        solver="ridge",
        penalty=float(model.alpha_),
        loss=float(np.mean((left_out - targets) ** 2)),
    )
    return solution, left_out


def _ridge_classes(x: np.ndarray, targets: np.ndarray, weights: np.ndarray | None) -> Solution:
    """Returns a ridge regression of one-hot targets, its scores scaled to logits by one factor."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    solution, left_out = _ridge(x, targets, weights)
    believed = _smooth(targets, targets.shape[1])

    def loss(log_factor: float) -> float:
        logits = log_softmax(np.exp(log_factor) * left_out, axis=1)
        return float(-np.average((logits * believed).sum(axis=1), weights=weights))

    found = minimize_scalar(loss, bounds=_FACTORS, method="bounded")
    return _scale(solution, float(np.exp(found.x)), 0.0, float(found.fun))


def _ridge_label(x: np.ndarray, label: np.ndarray, weights: np.ndarray | None = None) -> Solution:
    """Returns a ridge regression of one label, its scores scaled and shifted to logits."""
    from scipy.optimize import minimize

    if len(np.unique(label)) == 1:
        return _constant_label(x, label[0], "ridge")
    solution, left_out = _ridge(x, label[:, None].astype(np.float64), weights)
    scores, believed = left_out[:, 0], _smooth(label, 2)

    def loss(parameters: Any) -> float:
        logits = np.exp(parameters[0]) * scores + parameters[1]
        losses = np.logaddexp(0.0, logits) - believed * logits
        return float(np.average(losses, weights=weights))

    bounds = [_FACTORS, (-100.0, 100.0)]
    found = minimize(loss, [1.0, -1.0], method="L-BFGS-B", bounds=bounds)
    return _scale(solution, float(np.exp(found.x[0])), float(found.x[1]), float(found.fun))


def _smooth(targets: np.ndarray, outcomes: int) -> np.ndarray:
    """Returns targets as Platt has them: with one more example of each outcome.

    Where all left-out examples are right, their likelihood has no other maximum, and logits
    without a bound would leave tuning no gradient.
    """
    return (targets * len(targets) + 1) / (len(targets) + outcomes)


def _logistic_classes(
    x: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray | None
) -> Solution:
    present, places = np.unique(labels, return_inverse=True)
    if len(present) == 1:
        return _constant(x, classes, present[0])
    kernel, bias, penalty, loss = _logistic(x, places, weights)
    if len(present) == 2:  # scikit-learn has one logit for both
        kernel, bias = np.hstack([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
    full, shift = np.zeros((x.shape[1], classes)), np.full(classes, bias.min() - 10.0)
    full[:, present], shift[present] = kernel, bias
    return Solution(full, shift, "logistic", penalty, loss)


def _logistic_label(
    x: np.ndarray, label: np.ndarray, weights: np.ndarray | None = None
) -> Solution:
    if len(np.unique(label)) == 1:
        return _constant_label(x, label[0], "logistic")
    kernel, bias, penalty, loss = _logistic(x, label.astype(int), weights)
    return Solution(kernel, bias, "logistic", penalty, loss)


def _logistic(
    x: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Returns kernel, bias, penalty and cross-validated loss; classes are 0, 1, ..."""
    from sklearn.linear_model import LogisticRegression

    penalty, loss = _choose_penalty(x, labels, weights)
    model = LogisticRegression(C=1 / penalty, max_iter=10 * _STEPS, tol=1e-5)
    model.fit(x, labels, sample_weight=weights)
    return model.coef_.T, np.atleast_1d(model.intercept_), penalty, loss


def _choose_penalty(
    x: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> tuple[float, float]:
    """Returns the penalty of logistic regression with the least cross-validated loss, and it.

    Where a class has one example, which no fold can leave out, it is a usual one.
    """
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold

    folds = int(min(_FOLDS, np.bincount(labels).min()))
    if folds < 2:
        return _USUAL_PENALTY, np.inf
    penalties = np.logspace(-1, 4, _STRENGTHS)
    model = LogisticRegressionCV(
        Cs=1 / penalties,
        cv=StratifiedKFold(folds, shuffle=True, random_state=0),
        scoring="neg_log_loss",
        max_iter=_STEPS,
        tol=1e-3,
        refit=False,
    )
    with warnings.catch_warnings():
        # The weakest penalties may not converge; cross-validation measures them as they are.
        warnings.simplefilter("ignore")
        model.fit(x, labels, sample_weight=weights)
    scores = model.scores_  # (folds, penalties), the same for each class
    scores = next(iter(scores.values())) if isinstance(scores, dict) else scores
    losses = -np.asarray(scores).mean(axis=0)
    place = int(losses.argmin())
    return float(penalties[place]), float(losses[place])


def _constant(x: np.ndarray, classes: int, label: int) -> Solution:
    bias = np.full(classes, -10.0)
    bias[label] = 0.0
    return Solution(np.zeros((x.shape[1], classes)), bias, "logistic", 0.0, 0.0)


def _constant_label(x: np.ndarray, value: float, solver: str) -> Solution:
    bias = np.array([10.0 if value else -10.0])
    return Solution(np.zeros((x.shape[1], 1)), bias, solver, 0.0, 0.0)


def _scale(solution: Solution, factor: float, shift: float, loss: float) -> Solution:
    return replace(
        solution,
        kernel=solution.kernel * factor,
        bias=solution.bias * factor + shift,
        loss=loss,
    )


def _join(solutions: list[Solution]) -> Solution:
    return Solution(
        kernel=np.hstack([solution.kernel for solution in solutions]),
        bias=np.concatenate([solution.bias for solution in solutions]),
        solver=solutions[0].solver,
        penalty=float(np.mean([solution.penalty for solution in solutions])),
        loss=float(np.mean([solution.loss for solution in solutions])),
    )
