"""Folds: each image in one, classes spread evenly, equal images and groups never apart."""

import collections
import hashlib

import pytest

from tl_toolkit.errors import DataError
from tl_toolkit.images.folds import assign_folds
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.images.splits import check_groups, join_groups, sample_splits


def sha(text):
    return hashlib.sha256(repr(text).encode()).hexdigest()


def examples(**counts):
    """Makes so many examples of each class, all of different content, for training."""
    return [
        Example(f"{label}/{number}.jpg", sha(f"{label}{number}"), "train", (label,))
        for label, count in counts.items()
        for number in range(count)
    ]


def patients(count, images=4, classes="ab"):
    """Makes so many patients of each class with so many images; returns them and their groups."""
    entries = examples(**dict.fromkeys(classes, count * images))
    groups = [f"{entry.targets[0]}{index // images}" for index, entry in enumerate(entries)]
    return entries, groups


def test_each_class_is_spread_evenly_over_the_folds():
    entries = [*examples(a=20, b=11), Example("test.jpg", sha("t"), "test", ("a",))]

    folded = assign_folds(entries, 5, seed=0)

    counts = collections.Counter((entry.targets[0], entry.fold) for entry in folded[:-1])
    assert {counts["a", fold] for fold in range(1, 6)} == {4}
    assert sorted(counts["b", fold] for fold in range(1, 6)) == [2, 2, 2, 2, 3]
    assert folded[-1].fold == 0


def test_folds_depend_on_seed_and_content_and_not_on_names_or_order():
    entries = examples(a=10, b=10)
    moved = [Example(f"x/{e.sha256}", e.sha256, "train", e.targets) for e in entries[::-1]]

    chosen = [
        {entry.sha256: entry.fold for entry in assign_folds(group, 3, seed=seed)}
        for group, seed in ((entries, 0), (moved, 0), (entries, 1))
    ]

    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize("stratify", [0, None])
def test_equal_images_and_groups_lie_in_one_fold(stratify):
    entries, groups = patients(4)
    # The same image of two patients joins both.
    entries += [Example("copy.jpg", entries[0].sha256, "train", ("a",))]
    groups += ["a3"]

    folded = assign_folds(entries, 3, seed=0, stratify=stratify, groups=groups)

    folds = collections.defaultdict(set)
    for entry, group in zip(folded, groups, strict=True):
        folds[group].add(entry.fold)
    assert all(len(of_group) == 1 for of_group in folds.values())
    assert folds["a0"] == folds["a3"] and len(set.union(*folds.values())) == 3


def test_a_class_that_only_one_group_has_is_refused():
    entries, groups = patients(3)
    groups = ["a" if group.startswith("a") else group for group in groups]

    with pytest.raises(DataError, match="too few groups of 'a' for 2 folds"):
        assign_folds(entries, 2, seed=0, groups=groups)


def test_fewer_images_than_folds_are_refused():
    with pytest.raises(DataError, match="4 different images for 5 folds"):
        assign_folds(examples(a=2, b=2), 5, seed=0)


def test_a_plain_validation_split_takes_whole_groups():
    entries, groups = patients(10)

    sampled = sample_splits(entries, {"validation": 0.2}, seed=0, groups=groups)

    check_groups(sampled, groups)
    counts = collections.Counter(e.targets[0] for e in sampled if e.split == "validation")
    assert counts == {"a": 8, "b": 8}


def test_a_group_that_a_table_tears_is_refused():
    entries, groups = patients(2)
    entries[1] = Example(entries[1].path, entries[1].sha256, "test", ("a",))

    with pytest.raises(DataError, match="images of 'a0' lie in test and train"):
        check_groups(entries, groups)


def test_without_groups_only_equal_images_have_a_key_in_common():
    entries = examples(a=3)

    assert join_groups([*entries, entries[1]]) == [e.sha256 for e in [*entries, entries[1]]]


def test_the_manifest_keeps_folds_and_a_target_of_that_name(tmp_path):
    folded = tuple(assign_folds(examples(a=3, b=3), 3, seed=0))
    plain = Manifest((Example("x", sha("x"), "train", ("7",)),), (), ("fold",))

    for manifest in (Manifest(folded, ("a", "b")), plain):
        manifest.save(tmp_path / "manifest.csv")
        assert Manifest.load(tmp_path / "manifest.csv", classes=manifest.classes) == manifest
    assert Manifest(folded, ("a", "b")).digest != Manifest(tuple(examples(a=3, b=3)), "ab").digest
