"""Files that need not be read again: only those that cannot have changed since."""

import os
import time

import pytest

from tl_toolkit.images.scan import inspect_images
from tl_toolkit.images.verdicts import KnownFiles

OLD = 1_600_000_000


@pytest.fixture
def photo(tmp_path, draw, encode):
    """A picture that has lain there for years."""
    path = tmp_path / "photo.png"
    path.write_bytes(encode(draw(), "PNG"))
    os.utime(path, (OLD, OLD))
    return path


def remember(path, folder):
    """Notes a file as the scan does; returns what a later process knows of it."""
    files = KnownFiles(folder)
    files.add(str(path), os.stat(path), "ab")
    files.save()
    return KnownFiles(folder).get(str(path), os.stat(path))


def test_an_old_file_is_remembered(photo, tmp_path):
    assert remember(photo, tmp_path / "cache") == "ab"


def test_a_young_file_is_not_remembered(photo, tmp_path):
    os.utime(photo, (time.time(), time.time()))

    assert remember(photo, tmp_path / "cache") is None


def write_in_place(path, content):
    path.write_bytes(content)
    os.utime(path, (OLD + 1, OLD + 1))


def lengthen(path, content):
    path.write_bytes(content + b"more")
    os.utime(path, (OLD, OLD))


def replace(path, content):
    draft = path.with_name("draft.png")
    draft.write_bytes(content)
    os.utime(draft, (OLD, OLD))
    draft.rename(path)


@pytest.mark.parametrize("change", [write_in_place, lengthen, replace])
def test_a_file_that_changed_is_read_again(photo, tmp_path, change):
    """Each change leaves all but one of what a file is known by: time, size, place on the disk."""
    before = inspect_images([str(photo)], cache_dir=tmp_path / "cache")[0]
    content = bytearray(photo.read_bytes())
    content[-20] ^= 1  # one bit of the pixels' checksum

    change(photo, bytes(content))
    after = inspect_images([str(photo)], cache_dir=tmp_path / "cache")[0]

    assert before.verdict == "good"
    assert after.sha256 != before.sha256


def test_a_file_that_did_not_change_is_not_read_again(photo, tmp_path):
    before = inspect_images([str(photo)], cache_dir=tmp_path / "cache")
    photo.write_bytes(bytes(photo.stat().st_size))
    os.utime(photo, (OLD, OLD))

    assert inspect_images([str(photo)], cache_dir=tmp_path / "cache") == before
