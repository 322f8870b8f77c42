"""Awkward names of files and folders, as bytes: what file systems of Linux let people type."""

import os
import unicodedata

__all__ = ["NAMES"]

NAMES = {
    "spaces": b"my  photos 2",
    "space at both ends": b" photos ",
    "single quote": b"o'brien",
    "double quotes": b'12" "prints"',
    "backslash": b"a\\b\\n",
    "emoji": "🦊🏳️‍🌈".encode(),
    "right to left": "תמונות‮gpj".encode(),
    "composed": unicodedata.normalize("NFC", "é ö").encode(),
    "decomposed": unicodedata.normalize("NFD", "é ö").encode(),
    "newline": b"line\nbreak",
    "tab and return": b"a\tb\rc",
    "escape sequence": b"\x1b[31mred\x1b[0m",
    "braces": b"{train} {0}",
    "format fields": b"{epoch:02d}-{val_loss:.2f}",
    "percent": b"100%s %(x)s %20",
    "dollar": b"$HOME ${HOME} $(touch canary)",
    "backticks": b"`touch canary`; touch canary",
    "leading dash": b"-rf",
    "option": b"--help",
    "stars": b"*?[a-z]",
    "markup": b"<img src=x onerror=alert(1)> [bold]",
    "tilde": b"~root",
    "equals and commas": b"a.b=c, [1]: #2 & *x",
    "255 bytes": b"x" * 240 + b" " + b"y" * 14,
    "not UTF-8": b"gr\xe8ve \xff",
    "a null word": b"null",
}


def text_of(name):
    """Returns a name as Python's functions for files take it."""
    return os.fsdecode(NAMES[name])
