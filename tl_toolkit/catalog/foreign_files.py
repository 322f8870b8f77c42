"""Recognizes, by its first bytes, a file that should hold weights but is no HDF5 file."""

import re
from pathlib import Path

__all__ = ["HEAD_BYTES", "describe_foreign_file", "quote"]

HEAD_BYTES = 4096
"""How much of a file is read to recognize it."""


def describe_foreign_file(path: Path, head: bytes) -> tuple[str, str]:
    """Returns what a file without an HDF5 header is, and what to do about that.

    Args:
        path: The file.
        head: Its first HEAD_BYTES bytes.
    """
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return _describe_lfs_pointer(head), "git lfs pull"
    if head.startswith(b"PK\x03\x04"):
        return _describe_zip(path)
    if head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "is a Python pickle, which can run code and is never opened", ""
    if head.startswith(b"\x1f\x8b"):
        return "is compressed with gzip", f"gunzip {path.name}"
    if _is_safetensors(path, head):
        return "is a safetensors file", "load it into the Keras model and model.save('weights.h5')"
    text = _as_text(head)
    if text is None:
        return f"is of an unknown kind (it begins with {head[:8].hex(' ')})", ""
    if re.match(r"(?i)\s*<(!doctype|html|\?xml|error)", text):
        return f"is an error page saved as weights: {quote(_page_text(text))}", "fetch it again"
    return f"is a text file: {quote(text)}", "fetch the file that it speaks of"


def _describe_lfs_pointer(head: bytes) -> str:
    size = re.search(rb"^size (\d{1,15})$", head, flags=re.MULTILINE)
    real = f" of {int(size.group(1)):,} bytes" if size else ""
    return f"is a Git LFS pointer: the file{real} that it stands for was never fetched"


def _describe_zip(path: Path) -> tuple[str, str]:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "is a damaged zip archive", "fetch it again"
    if "config.json" in names and any(name.startswith("model.weights") for name in names):
        hint = f"keras.saving.load_model({path.name!r}).save_weights('{path.stem}.weights.h5')"
        return "is a whole Keras model (.keras) whose weights are in several files", hint
    if any(name.endswith("/data.pkl") for name in names):
        return "is a PyTorch file", ""
    return f"is a zip archive (of {quote(', '.join(names))})", f"unzip {path.name}"


def _is_safetensors(path: Path, head: bytes) -> bool:
    if len(head) < 10 or head[8:9] != b"{":
        return False
    return int.from_bytes(head[:8], "little") <= path.stat().st_size


def _as_text(head: bytes) -> str | None:
    """Returns the head as text, None when it is not."""
    try:
        # A character may be cut in two where the head ends.
        text = head.decode("utf-8", errors="strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    return text if all(char.isprintable() or char.isspace() for char in text) else None


def _page_text(text: str) -> str:
    """Returns the message or the title of a page, else all its words."""
    for tag in ("Message", "title", "h1"):
        match = re.search(rf"(?is)<{tag}[^>]*>(.*?)</{tag}>", text)
        if match:
            return match.group(1)
    return re.sub(r"<[^>]*>", " ", text)


def quote(text: str) -> str:
    """Returns the beginning of a text, on one line and in quotes.

    Args:
        text: Anything.
    """
    words = " ".join(text.split())
    return repr(words if len(words) <= 80 else words[:77] + "...")
