"""Explains what a model sees: which parts of an image speak for an output.

    import tl_toolkit as tl

    for explanation in tl.explain("latest", "photos", block="conv4", out="explanations"):
        print(explanation.path, explanation.label, explanation.value)

Importing this module costs no TensorFlow; the function starts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.inputs import Image, Inputs, list_inputs
from tl_toolkit.api.progress import handling
from tl_toolkit.api.subjects import Explained, Subject, open_subject
from tl_toolkit.events import Event, Handler
from tl_toolkit.inspect.methods import check_method
from tl_toolkit.runs.files import check_folder

if TYPE_CHECKING:
    import numpy as np

    from tl_toolkit.inspect.gallery import Gallery
    from tl_toolkit.inspect.heatmaps import HeatMaps

__all__ = ["Explanation", "explain"]

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


@dataclass(frozen=True)
class _Request:
    method: str
    output: int | None
    layer: str | None


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
        output = subject.find_output(target)
        layer = None if block is None else subject.find_map(block)
        with subject.numerics():
            return _explain(subject, inputs, _Request(method, output, layer), folder, handle)


def _explain(
    subject: Explained,
    inputs: Inputs,
    request: _Request,
    folder: Path | None,
    report: Handler,
) -> list[Explanation]:
    from tl_toolkit.inspect.gallery import Gallery

    gallery = None if folder is None else Gallery(folder, inputs.files, request.method)
    explanations: list[Explanation] = []
    for start in range(0, len(inputs.files), _CHUNK):
        chunk = inputs.files[start : start + _CHUNK]
        contents = [subject.read(inputs, path) for path in chunk]
        explanations += _explain_chunk(subject, chunk, contents, request, gallery)
        report(Event("images_inspected", done=start + len(chunk), total=len(inputs.files)))
    if gallery is not None:
        gallery.write_index(subject.title)
    return explanations


def _explain_chunk(
    subject: Explained,
    chunk: Sequence[Path],
    contents: Sequence[np.ndarray | str],
    request: _Request,
    gallery: Gallery | None,
) -> list[Explanation]:
    """Explains some images; a content is pixels, or why the file was refused."""
    import numpy as np

    from tl_toolkit.inspect.heatmaps import explain_images

    images = [content for content in contents if not isinstance(content, str)]
    maps = None
    if images:
        maps = explain_images(
            subject.model,
            np.stack(images),
            request.method,
            targets=None if request.output is None else [request.output] * len(images),
            layer=request.layer,
            everywhere=not subject.has_classes,
            is_pair=subject.is_pair,
        )
    explanations: list[Explanation] = []
    place = 0
    for path, content in zip(chunk, contents, strict=True):
        if isinstance(content, str) or maps is None:
            explanations.append(Explanation(str(path), error=str(content)))
            continue
        item = _describe(subject, path, request.method, maps, place)
        if gallery is not None and item.heat is not None:
            picture = gallery.write(path, content, item.heat, f"{item.label} {item.value:.3g}")
            item = replace(item, heat=None, file=str(picture))
        explanations.append(item)
        place += 1
    return explanations


def _describe(
    subject: Explained, path: Path, method: str, maps: HeatMaps, place: int
) -> Explanation:
    from tl_toolkit.inspect.blocks import find_block_of

    is_dense = len(subject.model.outputs[0].shape) > 2
    return Explanation(
        path=str(path),
        label=subject.outputs[maps.outputs[place]],
        value=float(maps.values[place]),
        share=float(maps.shares[place]) if is_dense else None,
        method=method,
        block=find_block_of(subject.architecture, maps.layer),
        layer=maps.layer,
        heat=maps.heat[place],
    )
