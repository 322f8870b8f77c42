"""Digests that a weight file must have: the published one, or the one of its first use.

A pin is a file beside the weight file, `NAME.sha256`, as `sha256sum` writes and checks it. Where
the folder is read-only, by its mode also for root, it lies in the toolkit's cache.
"""

import contextlib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from tl_toolkit.catalog.records import WeightFile
from tl_toolkit.errors import OutputError
from tl_toolkit.runs.files import default_cache_dir, hash_file, write_atomically

__all__ = ["Digest", "find_digest", "find_pin", "pin_file", "remove_pin"]

_NAMES = {"sha256": "SHA-256", "md5": "MD5"}


@dataclass(frozen=True)
class Digest:
    """A digest that a file must have.

    Attributes:
        algorithm: "sha256" or "md5".
        digits: Hexadecimal.
        pin: The file that it is pinned by; None for a published digest.
    """

    algorithm: str
    digits: str
    pin: Path | None = None

    def __str__(self) -> str:
        """Returns what is expected, a sentence."""
        first = "" if self.pin is None else " as on its first use"
        return f"Expected a file with {_NAMES[self.algorithm]} {self.digits}{first}."

    def fits(self, path: Path) -> bool:
        """Returns whether a file has the digest; reads all of it.

        Args:
            path: The file.
        """
        return hash_file(path, self.algorithm) == self.digits


def find_digest(file: WeightFile | None, path: Path) -> Digest | None:
    """Returns the digest that a file must have, None if none is known yet.

    Args:
        file: Its record; None for a file of the user's own.
        path: Where it lies, or will lie.
    """
    if file is not None and file.digest is not None:
        return Digest(*file.digest)
    pin = find_pin(path)
    digits = None if pin is None else _read_pin(pin)
    return None if digits is None else Digest("sha256", digits, pin)


def find_pin(path: Path) -> Path | None:
    """Returns the pin of a file, None where there is none.

    Args:
        path: Where the file lies, or will lie.
    """
    return next((pin for pin in _list_places(path) if _read_pin(pin)), None)


def pin_file(path: Path) -> Digest:
    """Writes down the digest of a file, and returns it.

    Args:
        path: The file.
    """
    digits = hash_file(path)
    beside, elsewhere = _list_places(path)
    is_read_only = not path.parent.stat().st_mode & 0o222
    for pin in (elsewhere,) if is_read_only else (beside, elsewhere):
        # Without any place for it the file is used all the same, and is not checked.
        with contextlib.suppress(OutputError):
            write_atomically(pin, f"{digits}  {path.name}\n")
            return Digest("sha256", digits, pin)
    return Digest("sha256", digits)


def remove_pin(path: Path) -> None:
    """Removes the pins of a file, as far as there are any that can be removed.

    Args:
        path: Where the file lies.
    """
    for pin in _list_places(path):
        with contextlib.suppress(OSError):
            pin.unlink()


def _list_places(path: Path) -> tuple[Path, Path]:
    name = f"{path.name}.sha256"
    folder = hashlib.sha256(str(path.resolve().parent).encode()).hexdigest()[:16]
    return path.with_name(name), default_cache_dir() / "pins" / folder / name


def _read_pin(pin: Path) -> str | None:
    try:
        match = re.match(r"([0-9a-f]{64})\b", pin.read_text(errors="replace"))
    except OSError:
        return None
    return match[1] if match else None
