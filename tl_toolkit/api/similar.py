"""`similar`: the images of a folder that are most like one, by features from the store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tl_toolkit.api.embedding import embed
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.events import Handler
from tl_toolkit.runs.folder import InFolder
from tl_toolkit.sources.objects import as_path, is_address

__all__ = ["SimilarImage", "render_similar", "similar"]

_SIDE = 144  # pixels of a picture's longer side


@dataclass(frozen=True)
class SimilarImage:
    """An image, and how like another one it is.

    Attributes:
        path: The file.
        similarity: The cosine of the features of both, in -1..1.
    """

    path: str
    similarity: float


def similar(
    source: str | Path | InFolder,
    image: str | Path,
    folder: str | Path | Iterable[str | Path],
    *,
    n: int = 12,
    block: str | None = None,
    weights: str = "imagenet",
    root: str | Path = "runs",
    progress: Handler | bool = False,
) -> list[SimilarImage]:
    """Returns the images that are most like one, the most similar first.

    Features are kept in the feature store: a second question about the same folder opens no image
    but a new one.

    Args:
        source: A run or a base, as for `embed`.
        image: The image that others are compared with.
        folder: A folder of images, or several files and folders. The image itself is left out, by
            whatever path it is found again; copies of it are not.
        n: How many, at least 1.
        block: As for `embed`: early blocks see colours and textures, late ones what it shows.
        weights: As for `embed`.
        root: Folder of all runs.
        progress: As in `tl.finetune`.

    Raises:
        DataError: The image cannot be decoded, or no other one can.
        RecipeError: There is no such block.
        WeightsError: The weights are missing, damaged, or of another network.
    """
    others = [folder] if isinstance(folder, str | Path) else list(folder)
    features = embed(
        source, [image, *others], block=block, weights=weights, root=root, progress=progress
    )
    from tl_toolkit.evaluation.choosing import find_nearest

    own = str(as_path(image).absolute())
    if own not in features.paths:
        reason = features.skipped.get(own) or features.skipped.get(str(image), "is no image")
        raise DataError(Problem(str(image), reason, "Expected an image that can be decoded."))
    place, itself = features.paths.index(own), _resolve(own)
    rest = [index for index, path in enumerate(features.paths) if _resolve(path) != itself]
    if not rest:
        raise DataError(Problem(", ".join(map(str, others)), "holds no other image"))
    nearest, similarity = find_nearest(features.vectors[rest], features.vectors[place], n)
    return [
        SimilarImage(features.paths[rest[index]], float(value))
        for index, value in zip(nearest, similarity, strict=True)
    ]


def _resolve(path: str) -> str:
    return path if is_address(path) else os.path.realpath(path)


def render_similar(image: str | Path, found: Sequence[SimilarImage]) -> str:
    """Renders an image and those that are like it as a page in one HTML file.

    Args:
        image: The image.
        found: From `similar`.
    """
    from tl_toolkit.images.thumbnails import make_thumbnail
    from tl_toolkit.printing.page import render_page

    tiles = [
        {"path": f"{each.path}: {each.similarity:.3f}", "picture": make_thumbnail(each.path, _SIDE)}
        for each in found
    ]
    own = {"path": str(image), "picture": make_thumbnail(str(as_path(image).absolute()), _SIDE)}
    return render_page(
        "printing/similar.html.jinja",
        maker="tltool similar",
        side=_SIDE,
        title=str(image),
        image=own,
        tiles=tiles,
    )
