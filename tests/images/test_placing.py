"""Splits of sets that grow: shares, groups, times, and that nothing moves."""

from collections import Counter
from dataclasses import replace

import pytest

from tl_toolkit.images.placing import (
    Group,
    parse_times,
    place_by_hash,
    place_by_time,
    place_exactly,
)

SHARES = {"validation": 0.2, "test": 0.1}


def make(count, label="a", start=0):
    return [Group(f"{label}{number}", (label,)) for number in range(start, start + count)]


def count(groups, splits):
    """Images of each class in each split."""
    counts = Counter()
    for group, split in zip(groups, splits, strict=True):
        for label in group.labels:
            counts[label, split] += 1
    return counts


def test_a_hash_moves_nothing_when_groups_are_added_or_go():
    old, new = make(300), make(200, start=1000)

    few = dict(zip([group.key for group in old], place_by_hash(old, SHARES, seed=1), strict=True))
    mixed = [*new, *old[:250]]
    many = dict(zip([group.key for group in mixed], place_by_hash(mixed, SHARES, seed=1),
                    strict=True))  # fmt: skip

    assert all(many[group.key] == few[group.key] for group in old[:250])


def test_shares_of_a_hash_are_near_and_another_seed_makes_others():
    groups = make(5000)

    first, second = (place_by_hash(groups, SHARES, seed=seed) for seed in (0, 1))

    assert count(groups, first)["a", "validation"] / 5000 == pytest.approx(0.2, abs=0.02)
    assert count(groups, first)["a", "test"] / 5000 == pytest.approx(0.1, abs=0.02)
    assert sum(a != b for a, b in zip(first, second, strict=True)) > 1000


def test_exact_shares_are_met_in_each_class_to_the_image():
    groups = [*make(10, "a"), *make(25, "b"), *make(3, "c")]

    counts = count(groups, place_exactly(groups, SHARES, seed=0))

    assert [counts[label, "validation"] for label in "abc"] == [2, 5, 1]
    assert [counts[label, "test"] for label in "abc"] == [1, 2, 1]
    assert [counts[label, "train"] for label in "abc"] == [7, 18, 1]


def test_exact_shares_count_what_has_a_split_and_leave_it_there():
    known = ["train"] * 7 + ["validation"] * 3
    groups = [replace(group, split=split) for group, split in zip(make(10), known, strict=True)]

    splits = place_exactly([*groups, *make(10, start=10)], SHARES, seed=0)

    assert splits[:10] == known
    assert Counter(splits[10:]) == {"validation": 1, "test": 2, "train": 7}


def test_a_class_of_one_group_trains():
    assert place_exactly(make(1), SHARES, seed=0) == ["train"]


def test_large_groups_do_not_overshoot_a_share():
    groups = [Group(f"patient{number}", ("a",) * 10) for number in range(10)]

    counts = count(groups, place_exactly(groups, SHARES, seed=0))

    assert [counts["a", split] for split in ("train", "validation", "test")] == [70, 20, 10]


def test_the_oldest_train_and_the_newest_are_the_test():
    groups = [Group(str(number), ("a",), time=float(-number)) for number in range(10)]

    splits = place_by_time(groups, SHARES)

    assert splits == ["test", "validation", "validation", *["train"] * 7]


def test_images_of_one_time_stay_together():
    groups = [Group(str(number), ("a",), time=time) for number, time in enumerate([1, 2, 2, 2, 3])]

    splits = place_by_time(groups, {"validation": 0.4})

    assert splits == ["train"] * 4 + ["validation"]


def test_borders_stay_where_an_earlier_table_has_them():
    known = {1: "train", 5: "train", 6: "validation", 8: "test"}
    groups = [Group(str(time), ("a",), split, time) for time, split in known.items()]
    new = [Group(f"new{time}", ("a",), "", time) for time in (3, 5.5, 7, 99)]

    assert place_by_time([*groups, *new], SHARES)[4:] == ["train", "validation", "test", "test"]


def test_times_are_numbers_or_dates_but_no_words():
    assert parse_times(["3", "20"]) == [3.0, 20.0]
    first, second, third = parse_times(
        ["2024:05:01 12:00:00", "2024-05-01T15:00:00+02:00", "2024-05-02"]
    )
    assert second - first == 3600 and third - first == 43200
    with pytest.raises(ValueError, match="^yesterday$"):
        parse_times(["2024-05-01", "yesterday"])
