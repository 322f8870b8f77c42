"""Addresses on object stores, and the folder or file of this machine that stands for each."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from tl_toolkit.errors import nearest
from tl_toolkit.runs.files import default_cache_dir

__all__ = [
    "find_address",
    "find_address_fault",
    "find_object_fault",
    "find_source_fault",
    "hide_credentials",
    "is_address",
    "mirror_of",
    "mirror_of_file",
    "mirror_of_source",
    "mirrors",
    "name_object",
    "name_objects",
    "name_source",
    "suggest_address",
]

_STORES = ("s3", "gs", "gcs", "abfs", "az")
_SCHEMES = (*_STORES, "file", "memory")
_ADDRESS = re.compile(rf"(?:{'|'.join(_SCHEMES)})://")
_FILE = re.compile(r"(?i)(\.(csv|json|jsonl|parquet|tfrecords?(\.gz)?)|-\d{5}-of-\d{5}(\.gz)?)$")
"""What the names of files end in that hold or list images; a folder is named with a slash then."""

_MIRRORS = "remote"
_MOST_BYTES = 240  # of a file's name


def is_address(text: str) -> bool:
    """Returns whether a text is the address of a folder on an object store.

    Args:
        text: As it was written.
    """
    return bool(_ADDRESS.match(text))


def find_address_fault(address: str) -> str:
    """Returns why an address is unusable, or "". What may be a secret is not repeated.

    Args:
        address: As it was written.
    """
    parts = urlsplit(address)
    if "@" in address or parts.query or parts.fragment or "?" in address or "#" in address:
        return (
            f"expected an address without credentials or options after {parts.scheme}://, got one "
            "with @, ? or #: credentials come from the environment"
        )
    is_plain = address.isprintable() and "::" not in address  # fsspec would chain two addresses
    if not is_plain or any(part in (".", "..") for part in address.split("/")):
        return f"expected an address of plain folders, got {address!r}"
    if not (parts.netloc + parts.path).strip("/"):
        return f"expected {parts.scheme}://BUCKET/FOLDER, got {address!r}"
    if len(quote(address, safe="")) > _MOST_BYTES:
        return f"expected an address of at most {_MOST_BYTES} bytes, got {address!r}"
    return ""


def find_object_fault(address: str) -> str:
    """Returns why an address cannot be that of a file, or "", as `find_address_fault`.

    Args:
        address: As it was written.
    """
    if fault := find_address_fault(address):
        return fault
    folder, _, name = address.rpartition("/")
    if not name or name.startswith(".") or folder.endswith("/"):  # hidden files are never listed
        scheme = urlsplit(address).scheme
        return f"expected {scheme}://BUCKET/FILE, no hidden one, got {address!r}"
    return ""


def find_source_fault(address: str) -> str:
    """Returns why an address cannot be that of images, or "": of a file, or of a folder.

    Args:
        address: As it was written.
    """
    return find_object_fault(address) if _FILE.search(address) else find_address_fault(address)


def suggest_address(text: str) -> str:
    """Returns the address that a text probably means which is none; "" where none is near.

    As of `S3://photos/x`, `s3:/photos/x` and `s4://photos/x`.

    Args:
        text: As it was written.
    """
    scheme, colon, rest = text.partition(":")
    likeness = 0.5 if len(scheme) == 2 else 0.7  # of two letters one may be wrong
    near = nearest(scheme, _STORES, likeness=likeness)
    if not (colon and near) or near[0] != scheme[0].lower():
        return ""
    address = f"{near}://{rest.lstrip('/')}"
    return "" if find_address_fault(address) else address


def hide_credentials(text: str) -> str:
    """Returns a text without what addresses in it hold before an @, and after a ? or #.

    Args:
        text: A message, or a value as it was typed.
    """
    text = re.sub(r"(\w[\w+.-]*:/+)[^\s'\"]*@", r"\1...@", text)
    return re.sub(r"(\w[\w+.-]*:/+[^\s'\"?#]*)[?#][^\s'\"]*", r"\1?...", text)


def mirror_of(address: str) -> Path:
    """Returns the folder that lists a folder on an object store; its name is the address.

    Args:
        address: Without a fault.
    """
    return mirrors() / quote(address.rstrip("/"), safe="")


def mirror_of_file(address: str) -> Path:
    """Returns the file that one on an object store is copied to, where its folder is listed.

    Args:
        address: Without a fault.
    """
    folder, _, name = address.rpartition("/")
    return mirror_of(folder) / name


def mirror_of_source(address: str) -> Path:
    """Returns what stands for images on an object store: a file by its ending, else a folder.

    Args:
        address: Without a fault; with a slash at its end it is a folder.
    """
    return mirror_of_file(address) if _FILE.search(address) else mirror_of(address)


def find_address(path: Path) -> str:
    """Returns the address that a folder lists, "" if it lists none.

    Args:
        path: Any path.
    """
    return unquote(path.name) if path.parent == mirrors() else ""


def name_object(path: str) -> str:
    """Returns the address of the object that a file of this machine stands for; else the path.

    Args:
        path: Any path.
    """
    if _MIRRORS not in path:  # the cache folder is asked for once for each image otherwise
        return path
    root = f"{mirrors()}{os.sep}"
    if not path.startswith(root):
        return path
    folder, slash, name = path[len(root) :].partition(os.sep)
    return f"{unquote(folder)}{slash}{name}"


def name_source(path: str) -> str:
    """Returns the address of images that a path stands for, so that it is read as it is; or a path.

    Args:
        path: As `mirror_of_source` returns it, or any other.
    """
    address = find_address(Path(path))
    return f"{address}/" if _FILE.search(address) else name_object(path)


def name_objects(text: str) -> str:
    """Returns a text with addresses in the place of paths that stand for them.

    Args:
        text: A message.
    """
    place = rf"{re.escape(str(mirrors()))}{re.escape(os.sep)}([\w.%+~-]+)"
    return re.sub(place, lambda match: unquote(match[1]), text)


def mirrors() -> Path:
    """Returns the folder of the cache that holds what stands for addresses."""
    return default_cache_dir() / _MIRRORS
