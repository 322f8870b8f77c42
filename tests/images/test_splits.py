import hashlib
import time

import pytest

from tl_toolkit.errors import DataError
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.images.splits import keep_few, sample_splits


def sha(text):
    return hashlib.sha256(repr(text).encode()).hexdigest()


def examples(**counts):
    """Makes so many examples of each class, all of different content, for training."""
    return [
        Example(f"{label}/{number}.jpg", sha(f"{label}{number}"), "train", (label,))
        for label, count in counts.items()
        for number in range(count)
    ]


def count(sampled, split):
    labels = [entry.targets[0] for entry in sampled if entry.split == split]
    return {label: labels.count(label) for label in sorted(set(labels))}


def test_every_class_gives_its_share():
    sampled = sample_splits(examples(a=100, b=10, c=3), {"validation": 0.2, "test": 0.1}, seed=0)

    assert count(sampled, "validation") == {"a": 20, "b": 2, "c": 1}
    assert count(sampled, "test") == {"a": 10, "b": 1, "c": 1}
    assert count(sampled, "train") == {"a": 70, "b": 7, "c": 1}


def test_split_depends_on_the_seed():
    entries = examples(a=50, b=50)

    sampled = {
        tuple(sample_splits(entries, {"validation": 0.2}, seed=seed)) for seed in (0, 0, 1, 2)
    }

    assert len(sampled) == 3


def test_split_depends_on_content_and_neither_on_names_nor_on_order():
    entries = examples(a=30, b=30)
    moved = [Example(f"elsewhere/{e.sha256}", e.sha256, "train", e.targets) for e in entries[::-1]]

    chosen = [
        {
            entry.sha256
            for entry in sample_splits(group, {"validation": 0.3}, seed=4)
            if entry.split != "train"
        }
        for group in (entries, moved)
    ]

    assert chosen[0] == chosen[1]


def test_a_new_image_moves_hardly_any_other():
    entries = examples(a=200, b=200)

    before = sample_splits(entries, {"validation": 0.2}, seed=0)
    after = sample_splits([*entries, *examples(c=5)], {"validation": 0.2}, seed=0)
    more = sample_splits(
        [*entries, Example("new", sha("new"), "train", ("a",))], {"validation": 0.2}, seed=0
    )

    assert after[:400] == before
    assert sum(entry != moved for entry, moved in zip(before, more, strict=False)) <= 1


def test_equal_images_stay_together_whatever_their_labels():
    copies = [Example(f"copy{n}.jpg", sha(n % 20), "train", ("ab"[n % 2],)) for n in range(60)]
    crossed = [Example(f"b/{n}.jpg", sha(f"a{n}"), "train", ("b",)) for n in range(10)]
    entries = [*copies, *examples(a=40, b=10), *crossed]

    for seed in range(10):
        sampled = sample_splits(entries, {"validation": 0.2, "test": 0.2}, seed=seed)
        assert Manifest(tuple(sampled), ("a", "b")).find_leaks() == []
        assert 8 <= count(sampled, "validation")["a"] <= 16


def test_copies_do_not_make_a_split_larger_than_its_share():
    copies = [Example(f"{n}", sha(n // 4), "train", ("a",)) for n in range(8)]

    for seed in range(10):
        sampled = sample_splits([*copies, *examples(a=20)], {"validation": 0.25}, seed=seed)
        assert count(sampled, "validation") == {"a": 7}


def test_class_of_copies_is_divided_by_groups():
    entries = [Example(f"{n}", sha(n // 5), "train", ("a",)) for n in range(10)]

    sampled = sample_splits([*entries, *examples(b=10)], {"validation": 0.1}, seed=0)

    assert count(sampled, "validation") == {"a": 5, "b": 1}


def test_every_class_keeps_training_images_under_large_fractions():
    sampled = sample_splits(examples(a=3, b=4), {"validation": 0.5, "test": 0.4}, seed=0)

    for split in ("train", "validation", "test"):
        assert set(count(sampled, split)) == {"a", "b"}


def test_too_few_different_images_are_refused_by_class():
    entries = [*examples(a=1, b=5), *[Example(f"{n}", sha(1), "train", ("c",)) for n in range(4)]]

    with pytest.raises(DataError, match=r"too few different images of 'a' \(1\), 'c' \(1\)"):
        sample_splits(entries, {"validation": 0.2}, seed=0)


def test_classes_that_share_all_their_images_are_refused():
    # Whichever image is taken, one class has none there or none left for training.
    shared = [("a", 0), ("a", 1), ("b", 0), ("b", 2), ("c", 1), ("c", 2)]
    entries = [Example(f"{label}{n}", sha(n), "train", (label,)) for label, n in shared]

    with pytest.raises(DataError, match="no image is left of '.' for validation"):
        sample_splits(entries, {"validation": 0.2}, seed=0)


def test_without_a_column_to_stratify_a_share_is_taken_of_all_images():
    sampled = sample_splits(examples(a=50, b=1), {"validation": 0.2}, seed=0, stratify=None)

    assert sum(entry.split == "validation" for entry in sampled) == 10


def test_too_few_images_are_refused_without_classes_to_name():
    with pytest.raises(DataError) as caught:
        sample_splits(examples(a=1), {"validation": 0.2}, seed=0, stratify=None)

    assert "too few different images (1) to split" in str(caught.value)
    assert "At least 2 are needed, one for each split." in str(caught.value)


def test_only_usable_training_images_are_divided():
    fixed = Example("test.jpg", sha("t"), "test", ("a",))
    broken = Example("broken.jpg", sha("b"), "train", ("a",), "broken", "an empty file")

    sampled = sample_splits([fixed, broken, *examples(a=10)], {"validation": 0.9}, seed=0)

    assert sampled[:2] == [fixed, broken]


# --- few examples ------------------------------------------------------------------------------


def test_few_training_images_are_kept_and_all_others():
    entries = [*examples(a=20, b=20, c=2), Example("v.jpg", sha("v"), "validation", ("a",))]

    entries_left = keep_few(entries, 3, seed=0)

    assert count(entries_left, "train") == {"a": 3, "b": 3, "c": 2}
    assert count(entries_left, "validation") == {"a": 1}


def test_more_examples_contain_the_fewer():
    entries = examples(a=20, b=20)

    assert set(keep_few(entries, 3, seed=1)) < set(keep_few(entries, 9, seed=1))
    assert set(keep_few(entries, 3, seed=1)) != set(keep_few(entries, 3, seed=2))


def test_the_time_of_a_split_is_linear_in_the_number_of_classes():
    def measure(number):
        entries = examples(**{f"c{index}": 2 for index in range(number)})
        start = time.process_time()
        sample_splits(entries, {"validation": 0.2}, seed=0)
        return time.process_time() - start

    measure(100)

    # Ten times as many classes; a search through all images for each class takes 100 times as long.
    assert min(measure(3000) for _ in range(3)) < 30 * min(measure(300) for _ in range(3))
