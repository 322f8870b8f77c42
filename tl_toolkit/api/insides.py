"""Shows what is inside a model: activation maps, filters, and classical edge filters.

    import tl_toolkit as tl

    tl.render_activations("latest", "photo.jpg", "conv4", "conv4.png")
    tl.render_filters(tl.Base("mobilenet", weights="imagenet"), "first", "filters.png")

Importing this module costs no TensorFlow; the functions start it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tl_toolkit.api.inputs import Image, list_inputs
from tl_toolkit.api.progress import handling
from tl_toolkit.api.subjects import Subject, open_subject
from tl_toolkit.errors import DataError
from tl_toolkit.events import Handler
from tl_toolkit.runs.files import check_folder
from tl_toolkit.runtime import start_tensorflow

if TYPE_CHECKING:
    from tl_toolkit.inspect.filters import FilterMatch

__all__ = ["render_activations", "render_edge_filters", "render_filters"]


def render_activations(
    run: Subject, image: Image, block: str, path: str | Path, *, progress: Handler | bool = False
) -> str:
    """Writes the activation maps of a block as a contact sheet.

    The 64 channels with the greatest values are shown, each with its number and greatest value, on
    one scale: black is 0 or below, white the greatest value of all.

    Args:
        run: A run, as `tl.load_run` takes it or returns it, or a `tl.Base`.
        image: A file, an array or an image of Pillow, as `Run.predict` takes it.
        block: A block, unit or layer, whose map is shown.
        path: The PNG; one that exists is replaced.
        progress: As in `Run.predict`.

    Returns:
        The layer that the map comes from.

    Raises:
        DataError: The image is missing or cannot be decoded; there is no such run.
        RecipeError: There is no such block.
        OutputError: The file cannot be written.
    """
    check_folder(Path(path).parent)
    with handling(progress) as handle:
        subject = open_subject(run)
        inputs = list_inputs(image, None, handle, channels=subject.channels)
        content = subject.read(inputs, inputs.files[0])
        if isinstance(content, str):
            raise DataError(f"{inputs.files[0]}: {content}")
        with subject.numerics():
            import numpy as np

            from tl_toolkit.inspect.filters import draw_activations
            from tl_toolkit.inspect.gallery import write_sheet
            from tl_toolkit.inspect.scores import ScoredModel

            layer = subject.find_map(block)
            maps = ScoredModel(subject.model, layer).read(content[np.newaxis].astype(np.float32))
            write_sheet(draw_activations(np.asarray(maps[0], np.float32)), Path(path))
    return layer


def render_filters(
    run: Subject, layer: str, path: str | Path, *, progress: Handler | bool = False
) -> list[FilterMatch]:
    """Writes the filters of a convolution as a contact sheet.

    Filters of the first convolution are shown beside the classical edge filters that they resemble
    most (Prewitt, Sobel, Laplacian, Robinson, Kirsch), with the cosine of the two.

    Args:
        run: A run, as `tl.load_run` takes it or returns it, or a `tl.Base`.
        layer: Name of the convolution; "first" for the first one.
        path: The PNG; one that exists is replaced.
        progress: As in `Run.predict`.

    Returns:
        The classical filter of each filter; [] for another layer than the first, and for filters of
        1 x 1.

    Raises:
        DataError: There is no such run.
        RecipeError: There is no such convolution.
        OutputError: The file cannot be written.
    """
    check_folder(Path(path).parent)
    with handling(progress):
        model = open_subject(run).model
        from tl_toolkit.inspect.filters import FIRST, draw_filters, find_kernel, match_filters
        from tl_toolkit.inspect.gallery import write_sheet

        name, kernel = find_kernel(model, layer)
        is_first = name == find_kernel(model, FIRST)[0] and min(kernel.shape[:2]) > 1
        matches = match_filters(kernel) if is_first else []
        write_sheet(draw_filters(kernel, matches), Path(path))
    return matches


def render_edge_filters(image: Image, path: str | Path) -> None:
    """Writes what each classical edge filter responds to in a photo, as a contact sheet.

    Args:
        image: A file, an array or an image of Pillow.
        path: The PNG; one that exists is replaced.

    Raises:
        DataError: The image is missing or cannot be decoded.
        OutputError: The file cannot be written.
    """
    check_folder(Path(path).parent)
    with handling(False) as handle:
        inputs = list_inputs(image, None, handle)
        start_tensorflow()
        from tl_toolkit.images.pipeline import read_pixels
        from tl_toolkit.inspect.filters import draw_edges
        from tl_toolkit.inspect.gallery import shrink, write_sheet

        first = inputs.files[0]
        pixels = inputs.arrays[first] if first in inputs.arrays else read_pixels(first)
        write_sheet(draw_edges(shrink(pixels)), Path(path))
