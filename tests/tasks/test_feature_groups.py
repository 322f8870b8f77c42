"""Solved heads take what helps of the last map, of late and early ones, and of their cells."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits

from tl_toolkit.architectures.heads import HeadLayers, build_head, group_features
from tl_toolkit.tasks.solvers import (
    _leave_one_out,
    _penalties,
    solve_classes,
    solve_labels,
    solve_values,
)
from tl_toolkit.tasks.standardized import Standardized

COUNT = 80
LABELS = np.arange(COUNT) % 2
RANDOM = np.random.default_rng(0)
TELLING = LABELS[:, None] + RANDOM.normal(size=(COUNT, 6))
NOISE = RANDOM.normal(size=(COUNT, 300))
FEATURES = np.hstack([TELLING, NOISE])
GROUPS = {"telling": np.arange(6), "noise": np.arange(6, 306)}


def solve_by(task, features, groups=None, solver="ridge"):
    if task == "classes":
        return solve_classes(Standardized(features, groups), LABELS, 2, solver)
    if task == "labels":
        return solve_labels(
            Standardized(features, groups), np.stack([LABELS, 1 - LABELS], 1), solver
        )
    return solve_values(Standardized(features, groups), LABELS[:, None] - LABELS.mean())


@pytest.mark.parametrize("task", ["classes", "labels", "values"])
def test_a_group_that_does_not_help_has_no_weight(task):
    solution = solve_by(task, FEATURES, GROUPS)

    alone = solve_by(task, TELLING)
    assert solution.left_out == ("noise",) and solution.describe().endswith("; without noise")
    further = replace(solution, left_out=("noise", "cells of noise"))
    assert further.describe().endswith("; on telling alone")
    assert not solution.kernel[6:].any()
    np.testing.assert_allclose(solution.kernel[:6], alone.kernel, atol=1e-8)
    np.testing.assert_allclose(solution.bias, alone.bias, atol=1e-8)
    assert solution.penalty == alone.penalty and solution.loss == pytest.approx(alone.loss)


@pytest.mark.parametrize("weights", [None, np.where(LABELS, 3.0, 0.5)], ids=["equal", "weighted"])
@pytest.mark.parametrize("features", [6, 306])
def test_the_loss_of_examples_left_out_is_that_of_scikit_learn(weights, features):
    x, targets = FEATURES[:, :features], np.eye(2)[LABELS]

    found = _leave_one_out(x @ x.T, targets, weights)

    model = RidgeCV(_penalties(COUNT), store_cv_results=True, scoring="neg_mean_squared_error")
    model.fit(x, targets, sample_weight=weights)
    errors = (model.cv_results_.reshape(COUNT, 2, -1) - targets[..., None]) ** 2
    losses = np.average(errors.mean(axis=1), axis=0, weights=weights)
    assert found == pytest.approx(losses.min(), rel=1e-6)


def test_groups_that_help_all_have_a_part():
    groups = {"first": np.arange(3), "second": np.arange(3, 6)}

    solution = solve_by("classes", TELLING, groups)

    assert solution.left_out == () and "without" not in solution.describe()
    np.testing.assert_array_equal(solution.kernel, solve_by("classes", TELLING).kernel)


def test_the_last_group_is_never_left_out():
    groups = {"noise": np.arange(150), "other noise": np.arange(150, 300)}

    assert len(solve_by("classes", NOISE, groups).left_out) <= 1


def test_features_that_are_the_same_for_all_images_solve_too():
    solution = solve_by("classes", np.ones((COUNT, 306)), GROUPS)

    assert np.isfinite(solution.kernel).all() and np.isfinite(solution.bias).all()


def test_rounding_leaves_nothing_out():
    random = np.random.default_rng(0)  # standardized features of two images differ in sign alone
    groups = {"first": np.arange(10), "second": np.arange(10, 30)}
    values = np.array([[-1.0], [1.0]])

    pairs = [random.normal(size=(2, 30)) for _ in range(6)]

    assert {solve_values(Standardized(pair, groups), values).left_out for pair in pairs} == {()}


def test_all_cells_are_left_out_together_where_that_is_better_than_some():
    random = np.random.default_rng(54)
    parts = [LABELS[:, None] + 1.5 * random.normal(size=(COUNT, 6))]
    parts += [0.5 * LABELS[:, None] + 1.5 * random.normal(size=(COUNT, 15)) for _ in range(2)]
    places = {"maps": np.arange(6), "late": np.arange(6, 21), "early": np.arange(21, 36)}
    cells = {"cells of late", "cells of early"}

    one_by_one = solve_by("classes", np.hstack(parts), places)
    named = dict(zip(["maps", "cells of late", "cells of early"], places.values(), strict=True))
    together = solve_by("classes", np.hstack(parts), named)

    assert one_by_one.left_out == ("early",)
    assert set(together.left_out) == cells


def test_classes_of_one_image_each_choose_no_features():
    features = np.random.default_rng(0).normal(size=(20, 306))

    assert solve_classes(Standardized(features, GROUPS), np.arange(20), 20, "auto").left_out == ()


@pytest.mark.parametrize(
    ("task", "seed", "equal", "weighted"),
    [("classes", 0, ("few",), ()), ("labels", 1, (), ("few",))],
    ids=["classes", "labels"],
)
def test_weights_have_a_part_in_the_choice(task, seed, equal, weighted):
    labels = (np.arange(200) < 20).astype(int)
    random = np.random.default_rng(seed)
    few = labels[:, None] + random.normal(size=(200, 2))
    many = 0.8 * labels[:, None] + random.normal(size=(200, 80))
    features, groups = np.hstack([few, many]), {"many": np.arange(2, 82), "few": np.arange(2)}

    def choose(weights):
        if task == "classes":
            return solve_classes(
                Standardized(features, groups), labels, 2, "ridge", weights=weights
            )
        weights = None if weights is None else weights[:, None]
        return solve_labels(
            Standardized(features, groups), labels[:, None], "ridge", weights=weights
        )

    assert choose(None).left_out == equal
    assert choose(np.where(labels, 5.0, 5 / 9)).left_out == weighted


def test_small_problems_have_the_same_weights_whatever_the_threads():
    features = np.random.default_rng(0).normal(size=(400, 3000)) + np.arange(400)[:, None] % 2
    kernels = []

    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            kernels.append(
                solve_classes(Standardized(features), np.arange(400) % 5, 5, "ridge").kernel
            )

    np.testing.assert_array_equal(*kernels)


def build(pooling, *shapes):
    maps = [keras.Input(shape) for shape in shapes]
    head = HeadLayers(pooling=pooling)
    return keras.Model(maps, build_head(maps, head, units=2, activation="softmax"))


def test_a_pyramid_joins_average_deviation_and_cells():
    model = build("pyramid", (7, 9, 2))
    x = np.random.default_rng(0).normal(size=(4, 7, 9, 2)).astype(np.float32)

    found = keras.Model(model.input, model.get_layer("head_pool").output).predict(x, verbose=0)

    rows, columns = [(0, 3), (2, 5), (4, 7)], [(0, 3), (3, 6), (6, 9)]
    cells = [x[:, a:b, c:d].mean(axis=(1, 2)) for a, b in rows for c, d in columns]
    deviation = np.sqrt(x.var(axis=(1, 2)) + 1e-6)
    expected = np.concatenate([x.mean(axis=(1, 2)), deviation, *cells], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("side", range(3, 18))
def test_nine_cells_of_one_size_cover_a_map_of_any_side(side):
    cells = build("pyramid", (side, side, 1)).get_layer("head_pool_cells_average")
    rows = np.eye(side, dtype=np.float32)[:, :, None, None] * np.ones((side, 1))  # one lit row each

    averages = np.asarray(cells(rows))

    assert averages.shape == (side, 3, 3, 1)
    assert averages.any(axis=(1, 2, 3)).all()


def test_cells_of_half_precision_are_as_exact_as_the_average():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build("pyramid", (112, 112, 1))
    finally:
        keras.config.set_dtype_policy("float32")
    pooled = keras.Function(model.inputs, model.get_layer("head_pool").output)

    found = np.asarray(pooled([np.full((1, 112, 112, 1), 100, np.float32)]))[0]

    np.testing.assert_array_equal(np.delete(found, 1), 100)


def test_a_map_of_fewer_positions_has_no_cells():
    assert build("pyramid", (2, 5, 4)).get_layer("head_pool").output.shape[-1] == 8


def test_features_are_grouped_by_the_depth_of_their_map_and_by_cells():
    model = build("pyramid", *[(9, 9, 1)] * 5, (2, 2, 4))

    groups = group_features(model.layers)

    assert {name: len(places) for name, places in groups.items()} == {
        "the last map": 8, "late maps": 2, "early maps": 8,
        "cells of late maps": 9, "cells of early maps": 36,
    }  # fmt: skip
    assert groups["early maps"][:4].tolist() == [0, 1, 11, 12]
    assert sorted(np.concatenate(list(groups.values()))) == list(range(63))


def test_features_of_inner_maps_are_groups_of_their_own():
    model = build("pyramid", *[(9, 9, 1)] * 6)

    groups = group_features(model.layers, inner=(1, 4))

    assert list(groups) == [
        f"{part}{maps}"
        for maps in (
            "the last map", "late maps", "inner late maps", "early maps", "inner early maps"
        )
        for part in ("", "cells of ")
        if maps != "late maps"
    ]  # fmt: skip
    assert groups["inner early maps"].tolist() == [11, 12]
    assert groups["inner late maps"].tolist() == [44, 45]
    assert sorted(np.concatenate(list(groups.values()))) == list(range(66))


def test_a_head_of_one_map_or_of_vectors_has_groups_too():
    assert list(group_features(build("statistics", (3, 3, 2)).layers)) == ["the last map"]
    assert group_features(build(None, (6,)).layers) == {}
