"""Explains what a model sees: heat maps, activation maps, filters.

    import tl_toolkit as tl

    for explanation in tl.explain("latest", "photos", block="conv4", out="explanations"):
        print(explanation.path, explanation.label, explanation.value)
    tl.render_filters(tl.Base("mobilenet", weights="imagenet"), "first", "filters.png")

Importing this module costs no TensorFlow; the functions start it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.inputs import Image, Inputs, list_inputs
from tl_toolkit.api.progress import handling
from tl_toolkit.api.subjects import Explained, Subject, open_subject
from tl_toolkit.errors import DataError
from tl_toolkit.events import Event, Handler
from tl_toolkit.inspect.methods import check_method
from tl_toolkit.runs.files import check_folder
from tl_toolkit.runtime import start_tensorflow

if TYPE_CHECKING:
    import numpy as np

    from tl_toolkit.inspect.filters import FilterMatch
    from tl_toolkit.inspect.gallery import Gallery

__all__ = [
    "Explanation",
    "explain",
    "render_activations",
    "render_edge_filters",
    "render_filters",
]

_CHUNK = 16
"""Images in memory at once."""


@dataclass(frozen=True)
class Explanation:
    """What speaks for an output of a model in one image.

    Attributes:
        path: The file, or `array[0]` and so on.
        label: The explained output: a class or column; "" when refused.
        value: What the model gives for it, as a probability; of pixels the mean over those where it
            is predicted. None when refused.
        share: The share of the pixels where it is predicted; None where an image has one vector of
            outputs.
        method: The method.
        block: The block whose map is explained.
        layer: The layer that this map comes from.
        heat: float32 (h, w) in [0, 1], of the model's image size; None when refused, and when it
            was written instead.
        file: The picture that was written, if any.
        error: Why the file was refused; None when it was not.
    """

    path: str
    label: str = ""
    value: float | None = None
    share: float | None = None
    method: str = ""
    block: str = ""
    layer: str = ""
    heat: np.ndarray | None = field(default=None, repr=False, compare=False)
    file: str | None = None
    error: str | None = None

    def as_record(self) -> dict[str, Any]:
        """Returns what `--json` prints of it: all but the heat itself."""
        return {name: value for name, value in vars(self).items() if name != "heat"}


def explain(
    run: Subject,
    paths: Image | Iterable[Image],
    *,
    method: str = "gradcam",
    target: str | None = None,
    block: str | None = None,
    out: str | Path | None = None,
    progress: Handler | bool = False,
) -> list[Explanation]:
    """Computes heat maps: which parts of an image speak for an output of a model.

    Args:
        run: A run, as `tl.load_run` takes it or returns it, or a `tl.Base`. A model that was
            changed (`run.model`) is explained as it is.
        paths: Files, folders and arrays, as `Run.predict` takes them.
        method: "gradcam", "gradcam++", "layercam", "integrated_gradients" or "occlusion".
        target: The class or column to explain; by default the predicted class of each image, of
            pixels the class of most of them, and the first column of a regression.
        block: A block, unit or layer whose map is explained; by default the last one of the base
            with more than one position, and for integrated gradients the image. Occlusion takes
            none.
        out: A folder that receives a picture of each image, the heat over the photo in grey, and
            index.html, which shows all of them. Only files of an earlier call are replaced. Heat
            is returned only without it, as that of all images would be in memory.
        progress: As in `Run.predict`.

    Returns:
        An explanation for each image, in order.

    Raises:
        DataError: No path exists, or holds an image; there is no such run, or it has no model.
        RecipeError: There is no such method, output or block.
        OutputError: `out` cannot be written, or holds files that would be lost.
        WeightsError: The weight file of a base is missing, damaged, or of another network.
    """
    check_method(method, block)
    folder = None if out is None else Path(out)
    if folder is not None:
        check_folder(folder)
    with handling(progress) as handle:
        subject = open_subject(run)
        inputs = list_inputs(paths, folder, handle, channels=subject.channels)
        with subject.numerics():
            return _explain(subject, inputs, method, target, block, folder, handle)


def _explain(
    subject: Explained,
    inputs: Inputs,
    method: str,
    target: str | None,
    block: str | None,
    folder: Path | None,
    report: Handler,
) -> list[Explanation]:
    from tl_toolkit.inspect.blocks import find_map
    from tl_toolkit.inspect.gallery import Gallery

    output = subject.find_output(target)
    layer = None if block is None else find_map(subject.model, subject.architecture, block)
    gallery = None if folder is None else Gallery(folder, inputs.files, method)
    explanations: list[Explanation] = []
    for start in range(0, len(inputs.files), _CHUNK):
        chunk = inputs.files[start : start + _CHUNK]
        explanations += _explain_chunk(subject, inputs, chunk, method, output, layer, gallery)
        report(Event("images_inspected", done=start + len(chunk), total=len(inputs.files)))
    if gallery is not None:
        gallery.write_index(subject.title)
    return explanations


def _explain_chunk(
    subject: Explained,
    inputs: Inputs,
    chunk: Sequence[Path],
    method: str,
    output: int | None,
    layer: str | None,
    gallery: Gallery | None,
) -> list[Explanation]:
    import numpy as np

    from tl_toolkit.inspect.blocks import find_block_of
    from tl_toolkit.inspect.heatmaps import explain_images

    contents = [_read(subject, inputs, path) for path in chunk]
    images = [content for content in contents if not isinstance(content, str)]
    if not images:
        return [
            Explanation(str(path), error=str(content))
            for path, content in zip(chunk, contents, strict=True)
        ]
    maps = explain_images(
        subject.model,
        np.stack(images),
        method,
        targets=None if output is None else [output] * len(images),
        layer=layer,
        everywhere=not subject.has_classes,
    )
    shown = find_block_of(subject.architecture, maps.layer)
    is_dense = len(subject.model.outputs[0].shape) > 2
    explanations: list[Explanation] = []
    place = 0
    for path, content in zip(chunk, contents, strict=True):
        if isinstance(content, str):
            explanations.append(Explanation(str(path), error=content))
            continue
        label, heat = subject.outputs[maps.outputs[place]], maps.heat[place]
        value, share = float(maps.values[place]), float(maps.shares[place])
        file = None
        if gallery is not None:
            file = str(gallery.write(path, content, heat, f"{label} {value:.3g}"))
        explanations.append(
            Explanation(
                path=str(path),
                label=label,
                value=value,
                share=share if is_dense else None,
                method=method,
                block=shown,
                layer=maps.layer,
                heat=heat if gallery is None else None,
                file=file,
            )
        )
        place += 1
    return explanations


def _read(subject: Explained, inputs: Inputs, path: Path) -> np.ndarray | str:
    """Returns an image as the model takes it, or why it cannot be read."""
    from tl_toolkit.images.pipeline import read_pixels, resize_pixels

    if path in inputs.missing:
        return inputs.missing[path].what
    pixels = inputs.arrays.get(path)
    if pixels is None:
        try:
            pixels = read_pixels(path, convert=subject.convert, channels=subject.channels)
        except DataError as error:
            return error.problems[0].what
    return resize_pixels(pixels, subject.image_size, subject.resize)


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
        content = _read(subject, inputs, inputs.files[0])
        if isinstance(content, str):
            raise DataError(f"{inputs.files[0]}: {content}")
        with subject.numerics():
            import numpy as np

            from tl_toolkit.inspect.blocks import find_map
            from tl_toolkit.inspect.filters import draw_activations
            from tl_toolkit.inspect.gallery import write_sheet
            from tl_toolkit.inspect.scores import ScoredModel

            layer = find_map(subject.model, subject.architecture, block)
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
