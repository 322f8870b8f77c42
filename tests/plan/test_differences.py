"""Fields in which recipes differ, by the names that overrides have for them."""

import pytest

from tl_toolkit.plan.values import find_differences


def phase(name, **fields):
    return {"name": name, "epochs": 1, **fields}


@pytest.mark.parametrize(
    ("trees", "found"),
    [
        (({"seed": 1}, {"seed": 1}), {}),
        (({"seed": 1}, {"seed": 2}), {"seed": (1, 2)}),
        (({"data": {"a": 1, "b": 2}}, {"data": {"a": 1, "b": 3}}), {"data.b": (2, 3)}),
        (({"data": {"a": 1}}, {"data": {"a": 1, "b": 3}}), {"data.b": (None, 3)}),
        (({"a": {"b": 1}}, {}), {"a": ({"b": 1}, None)}),
        (({"a": [1, 2]}, {"a": [1, 3]}), {"a": ([1, 2], [1, 3])}),
        (({"a": 1}, {"a": 1}, {"a": 2}), {"a": (1, 1, 2)}),
        (
            ({"phases": [phase("head"), phase("tune")]}, {"phases": [phase("head")]}),
            {
                "phases": (["head", "tune"], ["head"]),
                "phases.tune": ({"name": "tune", "epochs": 1}, None),
            },
        ),
        (
            ({"phases": [phase("head")]}, {"phases": [phase("head", rate=0.1)]}),
            {"phases.head.rate": (None, 0.1)},
        ),
        (
            ({"rate": {"kind": "cosine", "initial": 1}}, {"rate": {"kind": "step", "every": 2}}),
            {"rate": ({"kind": "cosine", "initial": 1}, {"kind": "step", "every": 2})},
        ),
        (
            ({"rate": {"kind": "cosine", "initial": 1}}, {"rate": {"kind": "cosine"}}),
            {"rate.initial": (1, None)},
        ),
        (({"unfreeze": 1}, {"unfreeze": {"from": "c5"}}), {"unfreeze": (1, {"from": "c5"})}),
    ],
)  # fmt: skip
def test_fields_that_differ_are_found_with_the_value_of_each(trees, found):
    assert find_differences(trees) == found
