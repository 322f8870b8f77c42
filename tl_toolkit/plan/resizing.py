"""How `init` lets images be resized, by the proportions that they have."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import DataError
from tl_toolkit.recipe.remote import is_address, name_object
from tl_toolkit.sources.arrays import find_channels
from tl_toolkit.sources.class_folders import prefers_folders
from tl_toolkit.sources.listing import ARRAY_SUFFIXES, suffixes_of
from tl_toolkit.sources.objects import ObjectPath
from tl_toolkit.sources.proportions import measure_proportions
from tl_toolkit.sources.survey import list_images
from tl_toolkit.sources.tables import is_table, list_paths

__all__ = ["choose_channels", "choose_resize", "list_files"]

_ALIKE = 1.25
"""Spread of proportions up to which a stretch changes the shapes of all images about alike."""

_MOST_CUT = 0.35  # a square of a photo of 3 : 2 cuts off a third
"""Share of an image above which a crop of its centre is no longer most of it."""


def choose_resize(source: Path, *, is_centred: bool, channels: int = RGB) -> tuple[str, str] | None:
    """Chooses how the images of a folder or table are resized to a square.

    Where their proportions differ, a probe on cropped photos had a lower loss than on stretched
    ones (benchmarks/resizing.py). A crop may lose what lies at the border, though.

    Args:
        source: A folder with images somewhere below it, or a table with the column path.
        is_centred: Whether what an image is labelled for is in its centre.
        channels: Channels of the images.

    Returns:
        A word for `data.resize`, and the reason; None where too few images can be read.
    """
    measured = measure_proportions(list_files(source, suffixes_of(channels)))
    if measured is None:
        return None
    low, high = f"{measured.low:.2f}", f"{measured.high:.2f}"
    sides = f"width / height {low}" + (f" to {high}" if high != low else "")
    if measured.spread <= _ALIKE:
        return "stretch", f"the images have about the same proportions, {sides}"
    if is_centred and measured.cut <= _MOST_CUT:
        return "crop", f"proportions differ, {sides}; cuts off {measured.cut:.0%}, pad nothing"
    return "pad", f"proportions differ, {sides}; nothing is cut off, shapes stay"


def choose_channels(source: Path) -> tuple[int, str] | None:
    """Returns the channels of images that are arrays or TIFF files of bands, and the reason.

    Args:
        source: A folder with images somewhere below it, or a table with the column path.
    """
    try:
        return find_channels(list_files(source, ARRAY_SUFFIXES))
    except DataError:  # no images: who asked says what is expected
        return None


def list_files(source: Path, suffixes: Set[str]) -> list[Path]:
    """Returns the images below a folder, or those that a table names.

    Args:
        source: The folder or table.
        suffixes: Endings of the images' names in a folder.

    Raises:
        DataError: There are none.
    """
    if not is_table(source) or prefers_folders(source, "label", "labels"):
        images = list_images(source, suffixes=suffixes)
        return [_as_image(name_object(str(path))) for path in images]
    return [_as_image(path) for path in list_paths(source)]


def _as_image(name: str) -> Path:
    return ObjectPath(name) if is_address(name) else Path(name)
