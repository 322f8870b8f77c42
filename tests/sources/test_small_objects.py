"""Objects that hosts write against each other, in a store that looks before it writes."""

import errno
import re

import fsspec
import pytest

from tl_toolkit.errors import DataError
from tl_toolkit.sources import small_objects, stores
from tl_toolkit.sources.small_objects import (
    create_object,
    knows_conditions,
    read_object,
    remove_object,
    replace_object,
)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A store in memory, and the address of an object in it that is not there."""
    monkeypatch.setattr(stores, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(small_objects, "_known", {})
    system = fsspec.filesystem("memory")
    yield system, f"memory://{tmp_path.name}/object"
    monkeypatch.undo()
    if system.exists(f"/{tmp_path.name}"):
        system.rm(f"/{tmp_path.name}", recursive=True)


def test_an_object_is_created_once_replaced_as_it_was_and_deleted(bucket):
    _, address = bucket
    assert read_object("where", address) is None
    assert not replace_object("where", address, b"0", b"1")

    assert create_object("where", address, b"1")
    assert not create_object("where", address, b"2")
    assert not replace_object("where", address, b"2", b"3")
    assert replace_object("where", address, b"1", b"3")

    assert read_object("where", address) == b"3"
    remove_object("where", address)
    remove_object("where", address)
    assert read_object("where", address) is None


def test_a_write_whose_answer_was_lost_counts(bucket, monkeypatch):
    system, address = bucket
    pipe_file, lost = type(system).pipe_file, []

    def lose(self, *arguments, **options):
        pipe_file(self, *arguments, **options)
        if not lost:
            lost.append(True)
            raise OSError("the connection was closed")

    monkeypatch.setattr(type(system), "pipe_file", lose)

    assert create_object("where", address, b"1")
    assert lost and read_object("where", address) == b"1"


def test_a_condition_that_s3_names_alone_is_refused_without_another_try(bucket, monkeypatch):
    system, address = bucket
    asked = []

    def refuse(self, *arguments, **options):
        asked.append(arguments)
        cause = Exception("An error occurred (PreconditionFailed) when calling PutObject")
        raise OSError(errno.EINVAL, "at least one condition did not hold") from cause

    monkeypatch.setattr(type(system), "pipe_file", refuse)

    assert not create_object("where", address, b"1")
    assert len(asked) == 1


def test_a_store_is_tried_once_and_nothing_is_left(bucket, tmp_path, monkeypatch):
    system, address = bucket
    written, pipe_file = [], type(system).pipe_file

    def count(self, path, *arguments, **options):
        written.append(path)
        return pipe_file(self, path, *arguments, **options)

    monkeypatch.setattr(type(system), "pipe_file", count)

    assert knows_conditions("where", f"memory://{tmp_path.name}/a/b")
    assert knows_conditions("where", f"memory://{tmp_path.name}/c")
    assert len(written) == 3 and not system.exists(f"/{tmp_path.name}")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotImplementedError("501"), "NotImplementedError: 501"),
        (FileExistsError("412"), r"\(it replaced none\)"),
    ],
)
def test_a_store_that_only_creates_on_a_condition_is_named(
    bucket, tmp_path, monkeypatch, caplog, error, reason
):
    system, address = bucket
    pipe_file = type(system).pipe_file

    def refuse(self, path, value, mode="overwrite"):
        if mode != "create":
            raise error
        pipe_file(self, path, value, mode=mode)

    monkeypatch.setattr(type(system), "pipe_file", refuse)

    assert not knows_conditions("where", f"memory://{tmp_path.name}/a")
    (record,) = caplog.records
    text = f"where: memory://{tmp_path.name} cannot write an object on a condition .*{reason}"
    assert re.match(text, record.getMessage())
    assert not system.exists(f"/{tmp_path.name}")


def test_a_store_that_refuses_is_named(bucket, monkeypatch):
    system, address = bucket
    create_object("where", address, b"1")

    def refuse(*arguments, **options):
        raise PermissionError("403")

    for name in ("cat_file", "pipe_file", "rm_file"):
        monkeypatch.setattr(type(system), name, refuse)

    with pytest.raises(DataError, match=f"where: {address}.*cannot be read: PermissionError"):
        read_object("where", address)
    with pytest.raises(DataError, match=f"where: {address}.*cannot be written: PermissionError"):
        create_object("where", address, b"2")
    with pytest.raises(DataError, match=f"where: {address}.*cannot be deleted: PermissionError"):
        remove_object("where", address)
