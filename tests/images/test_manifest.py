import hashlib
import os

import pytest

from tl_toolkit.errors import DataError
from tl_toolkit.images.manifest import Example, Manifest


def sha(text):
    return hashlib.sha256(repr(text).encode()).hexdigest()


@pytest.fixture
def manifest():
    names = ['a, "b"\n.jpg', os.fsdecode(b"\xff.jpg"), "é.jpg", "builtin:digits/3"]
    good = tuple(Example(name, sha(name), "train", ("x",)) for name in names)
    examples = (
        Example("v.png", sha("v"), "validation", ("y",), "converted", "a TIFF image, from v.tif"),
        Example("b.png", "", "train", ("y",), "broken", "cannot be read: Permission denied"),
    )
    return Manifest(good + examples, ("y", "x"))


def test_saved_manifest_is_read_back_equal(manifest, tmp_path):
    manifest.save(tmp_path / "deep" / "manifest.csv")

    loaded = Manifest.load(tmp_path / "deep" / "manifest.csv", classes=manifest.classes)

    assert loaded == manifest
    assert loaded.digest == manifest.digest
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["manifest.csv"]


def test_manifest_has_the_documented_columns(manifest, tmp_path):
    manifest.save(tmp_path / "manifest.csv")

    first = (tmp_path / "manifest.csv").read_bytes().splitlines()[0]

    assert first == b"path,sha256,label,split,verdict,reason"


def test_targets_are_columns_of_their_own(tmp_path):
    rows = (
        Example("a.jpg", sha("a"), "train", ("3.5", "cat|dog")),
        Example("b.jpg", sha("b"), "test", ("-1e3", "")),
    )
    manifest = Manifest(rows, ("age", "labels"), columns=("age", "labels"))
    manifest.save(tmp_path / "manifest.csv")

    header, *lines = (tmp_path / "manifest.csv").read_text().splitlines()

    assert header == "path,sha256,age,labels,split,verdict,reason"
    assert lines[1] == f"b.jpg,{sha('b')},-1e3,,test,good,"
    assert Manifest.load(tmp_path / "manifest.csv", classes=manifest.classes) == manifest


def test_all_images_are_counted_together_without_a_column_of_classes(manifest):
    assert manifest.count("") == {"train": {"": 4}, "validation": {"": 1}}


def test_splits_hold_usable_images_only(manifest):
    assert [entry.path for entry in manifest.of("validation")] == ["v.png"]
    assert len(manifest.of("train")) == 4
    assert manifest.count() == {"train": {"y": 0, "x": 4}, "validation": {"y": 1, "x": 0}}


def test_digest_depends_on_content_targets_split_and_class_order(manifest):
    def changed(**fields):
        first, *rest = manifest.examples
        return Manifest((Example(**{**vars(first), **fields}), *rest), manifest.classes).digest

    digests = {
        manifest.digest,
        changed(sha256=sha("other")),
        changed(targets=("y",)),
        changed(split="test"),
        changed(verdict="broken"),
        Manifest(manifest.examples, ("x", "y")).digest,
    }

    assert len(digests) == 6
    assert changed(path="moved.jpg") == manifest.digest


def test_files_of_targets_count_in_the_digest_with_their_content_alone():
    def digest(path, sha256):
        example = Example("a.jpg", sha("a"), "train", (path, sha256))
        return Manifest((example,), (), columns=("mask", "mask_sha256")).digest

    assert digest("one.png", sha(1)) == digest("moved.png", sha(1))
    assert digest("one.png", sha(1)) != digest("one.png", sha(2))


def test_leaks_are_pairs_of_equal_images_in_different_splits():
    first = Example("t.jpg", sha(1), "train", ("a",))
    second = Example("v.jpg", sha(1), "validation", ("a",))

    assert Manifest((first, second, first), ("a",)).find_leaks() == [(first, second)]


@pytest.mark.parametrize(
    "text", ["", "path,label\n", "path,sha256,label,split,verdict,reason\na,b,c,d,e,f\n", "\0"]
)
def test_what_is_no_manifest_is_refused(text, tmp_path):
    (tmp_path / "manifest.csv").write_text(text)

    with pytest.raises(DataError, match="is not a readable manifest"):
        Manifest.load(tmp_path / "manifest.csv")


def test_missing_manifest_is_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        Manifest.load(tmp_path / "manifest.csv")


def test_equal_images_with_other_targets_are_listed_with_the_leaks():
    examples = (
        Example("ants/a.jpg", sha("a"), "train", ("ants",)),
        Example("bees/a.jpg", sha("a"), "train", ("bees",)),
        Example("ants/copy.jpg", sha("a"), "test", ("ants",)),
        Example("bees/b.jpg", sha("b"), "train", ("bees",)),
        Example("bees/torn.jpg", sha("b"), "train", ("ants",), "broken", "torn"),
    )
    manifest = Manifest(examples, ("ants", "bees"))

    assert manifest.find_contradictions() == [(examples[0], examples[1], "label")]
    leak, contradiction = manifest.describe_leaks()
    assert leak == {
        "path": "ants/copy.jpg", "split": "test", "equals": "ants/a.jpg", "equals_split": "train",
    }  # fmt: skip
    assert contradiction == {
        "path": "bees/a.jpg", "split": "train", "equals": "ants/a.jpg", "equals_split": "train",
        "differs": "label", "target": "bees", "equals_target": "ants",
    }  # fmt: skip


@pytest.mark.parametrize(("content", "is_found"), [("m", False), ("other", True)])
def test_masks_of_equal_images_are_compared_by_their_content(content, is_found):
    examples = (
        Example("a.jpg", sha("a"), "train", ("masks/a.png", sha("m"))),
        Example("b.jpg", sha("a"), "train", ("masks/b.png", sha(content))),
    )
    manifest = Manifest(examples, (), columns=("mask", "mask_sha256"))

    pairs = manifest.describe_leaks()

    assert [pair["target"] for pair in pairs] == ["masks/b.png"] * is_found
