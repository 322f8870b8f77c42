"""Files that an export predicts without TensorFlow, and why it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tl_toolkit.images.plain import NotPlain, read_plain

__all__ = ["NotQuick", "read_all_quick", "read_quick"]


class NotQuick(Exception):
    """Why an export does not predict.

    Args:
        reason: Why, in words.
        is_plain: Whether there is nothing to say of it: no export, or no runtime for it.
        hint: What makes it predict.
    """

    def __init__(self, reason: str, *, is_plain: bool = False, hint: str = "") -> None:
        super().__init__(reason)
        self.is_plain = is_plain
        self.hint = hint


def read_all_quick(
    files: Sequence[Path],
    arrays: Mapping[Path, np.ndarray],
    refused: Mapping[Path, str],
    *,
    most: int | None = None,
) -> None:
    """Refuses files that take the decoder, before the first picture is written.

    Args:
        files: Image files.
        arrays: Pixels of those that are no files.
        refused: Why some hold no image.
        most: The most pixels of all; None for any number.

    Raises:
        NotQuick: A file takes the decoder, or there are more pixels.
    """
    count = 0
    for path in files:
        if path not in refused:
            height, width = (arrays[path] if path in arrays else read_quick(path)).shape[:2]
            count += height * width
        if most is not None and count > most:
            raise NotQuick(f"the images have more than {most:,} pixels", is_plain=True)


def read_quick(path: Path) -> np.ndarray:
    """Returns the pixels of a file, uint8 (h, w, 3).

    Args:
        path: The file.

    Raises:
        NotQuick: It takes the decoder.
    """
    try:
        return read_plain(path)
    except NotPlain as error:
        raise NotQuick(f"{path} takes the decoder of TensorFlow: {error}") from error
