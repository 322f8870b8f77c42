"""Files that need not be read again: only those that cannot have changed since."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tl_toolkit.images.scan import inspect_images
from tl_toolkit.images.verdicts import Verdicts
from tl_toolkit.sources import known_files
from tl_toolkit.sources.known_files import DATABASE, KnownFiles

OLD = 1_600_000_000


@pytest.fixture
def an_hour_later(monkeypatch):
    """Lets files that a test has just written count as old; a time of status change is real."""
    real = time.time_ns
    monkeypatch.setattr(known_files.time, "time_ns", lambda: real() + 3_600_000_000_000)


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


def test_an_old_file_is_remembered(photo, tmp_path, an_hour_later):
    assert remember(photo, tmp_path / "cache") == "ab"


def test_a_file_whose_status_changed_a_moment_ago_is_not_remembered(photo, tmp_path):
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


def write_in_place_and_set_the_time_back(path, content):
    """As `exiftool -P -overwrite_original_in_place` does."""
    path.write_bytes(content)
    os.utime(path, (OLD, OLD))


CHANGES = [write_in_place, lengthen, replace, write_in_place_and_set_the_time_back]


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_is_read_again(change, photo, tmp_path, an_hour_later):
    before = inspect_images([str(photo)], cache_dir=tmp_path / "cache")[0]
    content = bytearray(photo.read_bytes())
    content[-20] ^= 1  # one bit of the pixels' checksum

    change(photo, bytes(content))
    after = inspect_images([str(photo)], cache_dir=tmp_path / "cache")[0]

    assert before.verdict == "good"
    assert after.sha256 != before.sha256


def test_a_file_that_did_not_change_is_not_read_again(photo, tmp_path, an_hour_later, monkeypatch):
    before = inspect_images([str(photo)], cache_dir=tmp_path / "cache")
    monkeypatch.setattr("builtins.open", None)

    assert inspect_images([str(photo)], cache_dir=tmp_path / "cache") == before


def test_a_name_that_is_not_utf8_is_remembered(photo, tmp_path, an_hour_later):
    odd = os.path.join(os.fsencode(tmp_path), b"gr\xe8ve.png")
    os.rename(photo, odd)

    assert remember(os.fsdecode(odd), tmp_path / "cache") == "ab"


# --- the database --------------------------------------------------------------------------------


def test_processes_that_write_at_a_time_lose_nothing_in_a_process_of_its_own_each(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tl_toolkit.images.verdicts import Verdicts\n"
        "for number in range(40):\n"
        "    verdicts = Verdicts(Path(sys.argv[1]), '1')\n"
        "    verdicts.add(f'{sys.argv[2]}-{number}', 'good', '')\n"
        "    verdicts.save()\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)])
        for number in range(3)
    ]

    assert [process.wait() for process in processes] == [0, 0, 0]
    stored = Verdicts(tmp_path, "1")
    for process in range(3):
        assert all(stored.get(f"{process}-{number}") for number in range(40))


@pytest.fixture
def read_only_cache():
    """A cache of another user, which may be read only; for root, who may write all, as nobody."""
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is closed to other users
        fill(Path(folder), 1)
        os.chmod(folder, 0o555)
        os.chmod(Path(folder, DATABASE), 0o444)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        yield Path(folder)
        os.seteuid(user)
        os.chmod(folder, 0o755)


def test_a_cache_that_cannot_be_written_is_still_read(read_only_cache):
    with pytest.raises(PermissionError):
        (read_only_cache / "file").write_text("")
    second = Verdicts(read_only_cache, "1")
    assert second.get(f"{0:064d}") == ("broken", "x" * 200)

    second.add("b", "good", "")
    second.save()

    assert Verdicts(read_only_cache, "1").get(f"{0:064d}") == ("broken", "x" * 200)
    assert Verdicts(read_only_cache, "1").get("b") is None


def fill(folder, count):
    first = Verdicts(folder, "1")
    for number in range(count):
        first.add(f"{number:064d}", "broken", "x" * 200)
    first.save()


def test_a_database_damaged_in_the_middle_is_put_aside_and_made_anew(tmp_path):
    fill(tmp_path, 400)
    content = bytearray((tmp_path / DATABASE).read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    (tmp_path / DATABASE).write_bytes(content)

    second = Verdicts(tmp_path, "1")
    assert second.get(f"{7:064d}") is None
    second.add("a", "good", "")
    second.save()

    assert Verdicts(tmp_path, "1").get("a") == ("good", "")
    assert (tmp_path / f"{DATABASE}.damaged").read_bytes() == bytes(content)


def test_a_database_that_another_process_mended_is_not_put_aside(tmp_path):
    fill(tmp_path, 1)
    (tmp_path / "intact").write_bytes((tmp_path / DATABASE).read_bytes())
    (tmp_path / DATABASE).write_bytes(b"no database, but as long as a header" * 30)
    second = Verdicts(tmp_path, "1")
    assert second.get("a") is None

    (tmp_path / "intact").rename(tmp_path / DATABASE)
    second.add("a", "good", "")
    second.save()

    assert Verdicts(tmp_path, "1").get(f"{0:064d}") == ("broken", "x" * 200)
    assert Verdicts(tmp_path, "1").get("a") == ("good", "")


def test_a_table_of_another_layout_is_put_aside(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as connection, connection:
        connection.execute("CREATE TABLE verdicts (sha256)")

    second = Verdicts(tmp_path, "1")
    assert second.get("a") is None
    second.add("a", "good", "")
    second.save()

    assert Verdicts(tmp_path, "1").get("a") == ("good", "")


def test_a_verdict_that_there_is_not_is_unknown(tmp_path):
    fill(tmp_path, 1)
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as connection, connection:
        connection.execute("UPDATE verdicts SET verdict = 'perfect'")

    assert Verdicts(tmp_path, "1").get(f"{0:064d}") is None


def test_verdicts_of_another_decoder_are_unknown(tmp_path):
    fill(tmp_path, 1)

    assert Verdicts(tmp_path, "2").get(f"{0:064d}") is None
