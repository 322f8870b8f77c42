"""Images of a run that look like one of another split: measured, and remembered by content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tl_toolkit.audit.inspect import InspectedFile, inspect_files
from tl_toolkit.audit.near import group_pairs, pair_near
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.runs.files import default_cache_dir
from tl_toolkit.sources.listing import SourceFile
from tl_toolkit.sources.near_leaks import NearPairs

__all__ = ["find_near_leaks", "pair_files", "remember_pairs"]


def pair_files(files: Sequence[InspectedFile]) -> np.ndarray:
    """Returns pairs of usable images that look the same, int64 (pairs, 2), as `pair_near`.

    Args:
        files: The images.
    """
    hashes = [file.content.hash if file.is_usable else "" for file in files]
    return pair_near(hashes, [file.content.signature for file in files])


def remember_pairs(
    files: Sequence[InspectedFile], pairs: np.ndarray, *, cache_dir: Path | None = None
) -> None:
    """Keeps pairs of images by the digests of their bytes, for a later look without reading them.

    As few are kept as connect each group: all of it look the same, as `data check` has it.

    Args:
        files: The images.
        pairs: Of `pair_files`.
        cache_dir: Keeps them; by default TL_TOOLKIT_CACHE or the user's cache.
    """
    table = NearPairs(cache_dir or default_cache_dir())
    for group in group_pairs(pairs, len(files)):
        first, *others = sorted({files[index].sha256 for index in group})
        for other in others:
            table.add(first, other)
    table.save()


def find_near_leaks(
    manifest: Manifest, progress: Callable[[int, int], None] | None = None
) -> list[tuple[Example, Example]]:
    """Returns pairs of usable images that look the same, in different splits or folds.

    Images are read by Pillow where they are not known by content.

    Args:
        manifest: The images.
        progress: Receives how many images are done, and how many there are.
    """
    examples = [example for example in manifest.examples if example.usable]
    listed = [SourceFile(example.path, example.split) for example in examples]
    files = inspect_files(listed, [""] * len(listed), progress=progress)
    pairs = pair_files(files)
    remember_pairs(files, pairs)
    found = [(examples[first], examples[second]) for first, second in pairs.tolist()]
    return [
        (one, other) for one, other in found if (one.split, one.fold) != (other.split, other.fold)
    ]
