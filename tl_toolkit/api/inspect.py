"""Inspects an architecture: in numbers, as a diagram, and by experiment.

    import tl_toolkit as tl

    tl.describe_architecture("resnet50", unfreeze=1).trainable
    tl.render_architecture("unet", "unet.svg")
    tl.probe_architecture("vgg16").blocks[0].difference

Importing this module costs no TensorFlow; the functions start it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.progress import log_warnings
from tl_toolkit.catalog.lookup import ARCHITECTURES, Architecture, check_image_size
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.events import warning
from tl_toolkit.plan.bases import find_record
from tl_toolkit.recipe.phase_schema import Phase
from tl_toolkit.recipe.unfreeze_schema import UnfreezeFrom, UnfreezeOnly
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.runtime import start_tensorflow

if TYPE_CHECKING:
    from tl_toolkit.inspect.describe import Description
    from tl_toolkit.inspect.probe import Probe

__all__ = [
    "describe_architecture",
    "render_architecture",
    "probe_architecture",
    "list_architectures",
]


def list_architectures() -> list[str]:
    """Returns the names that a recipe's `model.base` may have; starts no TensorFlow."""
    return list(ARCHITECTURES)


def describe_architecture(
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    unfreeze: int | UnfreezeFrom | UnfreezeOnly | Mapping[str, Any] | Sequence[str] = 0,
) -> Description:
    """Counts an architecture: parameters, multiply-accumulates, receptive field, activations.

    Args:
        name: Its name in the catalog, or a model of your own: a path that ends in .keras.
        arguments: Arguments of the builder that differ from their defaults.
        image_size: (height, width) in pixels, or one number for both; None for its default size.
        num_classes: Adds the paper's classifier for so many classes; None counts the base alone.
        unfreeze: As in a recipe's phase: how many blocks train, {"from": unit}, or which blocks.

    Returns:
        The counts of each block, unit and layer, and their sums.

    Raises:
        RecipeError: A name, an argument, the size or `unfreeze` does not fit the architecture.
    """
    values: dict[str, Any] = {"name": "any", "epochs": 0, "unfreeze": unfreeze}
    chosen = Phase(**values).unfreeze
    record, size = find_architecture_and_size(name, image_size)
    start_tensorflow()
    from tl_toolkit.inspect.describe import describe_base

    return describe_base(record, arguments or {}, size, chosen, num_classes=num_classes)


def render_architecture(
    name: str,
    path: str | Path,
    arguments: Mapping[str, Any] | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    unfreeze: int | UnfreezeFrom | UnfreezeOnly | Mapping[str, Any] | Sequence[str] = 0,
) -> Path:
    """Writes the block diagram of an architecture as SVG: shapes, costs, what would train.

    Args:
        name: Its name in the catalog, or a model of your own: a path that ends in .keras.
        path: The file; it is written beside its place and renamed. One that exists is replaced.
        arguments: Arguments of the builder that differ from their defaults.
        image_size: (height, width) in pixels, or one number for both; None for its default size.
        num_classes: Adds the paper's classifier for so many classes; None renders the base alone.
        unfreeze: As in a recipe's phase: how many blocks train, {"from": unit}, or which blocks.

    Returns:
        The file's path.

    Raises:
        RecipeError: A name, an argument, the size or `unfreeze` does not fit the architecture.
        OutputError: The file cannot be written.
    """
    diagram = render_diagram_of(
        name, arguments, image_size=image_size, num_classes=num_classes, unfreeze=unfreeze
    )
    write_atomically(Path(path), diagram)
    return Path(path)


def render_diagram_of(
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    unfreeze: int | UnfreezeFrom | UnfreezeOnly | Mapping[str, Any] | Sequence[str] = 0,
) -> str:
    """Returns what `render_architecture` writes: SVG.

    Args:
        name: As in `render_architecture`.
        arguments: As in `render_architecture`.
        image_size: As in `render_architecture`.
        num_classes: As in `render_architecture`.
        unfreeze: As in `render_architecture`.

    Raises:
        RecipeError: As in `render_architecture`.
    """
    description = describe_architecture(
        name, arguments, image_size=image_size, num_classes=num_classes, unfreeze=unfreeze
    )
    from tl_toolkit.inspect.diagram import Box, render_diagram

    boxes = [
        Box(
            block=row.block,
            name=row.unit or row.block,
            kind=row.kind,
            shape=row.shape,
            parameters=row.parameters,
            trainable=row.trainable,
            multiply_accumulates=row.multiply_accumulates,
            receptive_field=row.receptive_field,
            reads=row.reads,
        )
        for row in description.units
    ]
    return render_diagram(boxes, title=description.heading, image_size=description.image_size)


def probe_architecture(
    name: str,
    images: Sequence[str | Path] = (),
    arguments: Mapping[str, Any] | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    weights: str = "random",
    seed: int = 0,
) -> Probe:
    """Measures translation equivariance of the blocks, and channels that are always zero.

    Args:
        name: Its name in the catalog, or a model of your own: a path that ends in .keras.
        images: Image files, and folders with all images inside; without any, four images are
            rendered in code.
        arguments: Arguments of the builder that differ from their defaults.
        image_size: (height, width) in pixels, or one number for both; None for its default size.
            Images are stretched.
        weights: "random", "imagenet", or the path or the address of a weight file.
        seed: Random weights and synthetic images follow from it.

    Returns:
        The measurements of each block.

    Raises:
        RecipeError: A name, an argument or the size does not fit the architecture.
        DataError: A path does not exist, a folder holds no image, or a file cannot be decoded.
        WeightsError: The weight file is missing, damaged, or of another network.
    """
    record, size = find_architecture_and_size(name, image_size)
    start_tensorflow()
    from tl_toolkit.inspect.probe import probe_base
    from tl_toolkit.sources.listing import name_some
    from tl_toolkit.sources.survey import list_images

    lost: list[str] = []
    files = [file for path in images for file in list_images(path, left_out=lost)]
    if lost:
        log_warnings(warning(f"left out: {name_some(lost)}"))
    return probe_base(record, arguments or {}, size, files, weights=weights, seed=seed)


def find_architecture_and_size(
    name: str, image_size: int | tuple[int, int] | None
) -> tuple[Architecture, tuple[int, int]]:
    """Returns the record of an architecture, and the size of its images.

    Args:
        name: Its name in the catalog, or the path of a .keras file.
        image_size: (height, width) in pixels, or one number for both; None for its default size.

    Raises:
        RecipeError: The name or the size does not fit.
    """
    if not isinstance(name, str | Path):
        what = f"name: expected a name or the path of a .keras file, got a {type(name).__name__}"
        raise RecipeError(Problem("", what, "", "model.save('base.keras'), and 'base.keras'"))
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    record = find_record(str(name), sides)
    usual = record.fixed_size or (record.default_size, record.default_size)
    height, width = sides or usual
    problem = check_image_size(record, (height, width))
    if problem is not None:
        raise RecipeError(problem)
    return record, (height, width)
