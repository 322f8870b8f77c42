"""What can be explained: the model of a run, or a base without a head."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.inputs import Inputs
from tl_toolkit.api.inspect import find_architecture_and_size
from tl_toolkit.api.run import Run, load_run
from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import DataError, Problem, RecipeError, closest
from tl_toolkit.plan.bases import find_base
from tl_toolkit.runs.states import describe_absent, name_run
from tl_toolkit.runtime import numerics, start_tensorflow

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tl_toolkit.images.geometry import Resize

__all__ = ["Base", "Explained", "Subject", "has_pair", "open_subject"]

FEATURES = "features"
"""The one output of a base without a head."""


@dataclass(frozen=True)
class Base:
    """A base without a head, to look inside: `tl.explain`, `tl.render_activations`.

    Its one output is `features`: half the sum of its squared features, averaged over positions.

    Attributes:
        name: Its name in the catalog, or a model of your own: a path that ends in .keras.
        arguments: Arguments of the builder that differ from their defaults.
        image_size: (height, width) in pixels, or one number for both; None for its default size.
        weights: "random", "imagenet" or the path of a weight file.
        seed: Random weights follow from it.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    image_size: int | tuple[int, int] | None = None
    weights: str = "random"
    seed: int = 0


Subject = Run | str | Path | Base
"""A run, as `tl.load_run` takes it, or a base."""


@dataclass(frozen=True)
class Explained:
    """A model to explain, and how images get into it.

    Attributes:
        title: What it is, in words.
        model: The model.
        architecture: The record of its base.
        outputs: Names of its outputs.
        resize: How images are resized to its size.
        channels: Channels of the images.
        convert: Whether images that only Pillow reads are read.
        has_classes: Whether an output that is the greatest is predicted.
        is_pair: Whether its one output is the probability of the second of two classes.
        deterministic: The arithmetic that it was trained with.
    """

    title: str
    model: keras.Model
    architecture: Architecture
    outputs: tuple[str, ...]
    resize: Resize
    channels: int = RGB
    convert: bool = False
    has_classes: bool = True
    is_pair: bool = False
    deterministic: bool = True

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) that the model takes."""
        height, width = self.model.inputs[0].shape[1:3]
        return height, width

    def numerics(self) -> AbstractContextManager[None]:
        """Sets the arithmetic that it was trained with, for a `with` block."""
        return numerics(deterministic=self.deterministic)

    def read(self, inputs: Inputs, path: Path) -> np.ndarray | str:
        """Returns an image as the model takes it, (h, w, channels), or why it cannot be read.

        Args:
            inputs: The images of the call.
            path: One of its files.
        """
        from tl_toolkit.images.pipeline import read_pixels, resize_pixels

        if path in inputs.missing:
            return inputs.missing[path].what
        pixels = inputs.arrays.get(path)
        if pixels is None:
            try:
                pixels = read_pixels(path, convert=self.convert, channels=self.channels)
            except DataError as error:
                return error.problems[0].what
        return resize_pixels(pixels, self.image_size, self.resize)

    def find_map(self, block: str, *, option: str = "--block") -> str:
        """Returns the layer whose map ends a block or a unit.

        Args:
            block: A block, unit or layer.
            option: What names it in a command, for an error.

        Raises:
            RecipeError: There is no such block, or it has no map.
        """
        from tl_toolkit.inspect.blocks import find_map

        return find_map(self.model, self.architecture, block, option=option)

    def find_output(self, name: str | None) -> int | None:
        """Returns the place of an output; None for the one that is predicted.

        Args:
            name: A class or column; None for the predicted class, and for the first output where
                outputs are no classes.

        Raises:
            RecipeError: There is no such output.
        """
        if name is None:
            return None if self.has_classes else 0
        if name in self.outputs:
            return self.outputs.index(name)
        known = ", ".join(self.outputs[:10]) + (", ..." if len(self.outputs) > 10 else "")
        guess = closest(name, self.outputs)
        expected = f"Expected one of {known}; {guess}" if guess else f"Expected one of {known}."
        raise RecipeError(Problem("--class", f"{name!r} is no output of {self.title}", expected))


def open_subject(subject: Subject) -> Explained:
    """Opens the model of a run, or builds a base.

    Args:
        subject: A run, as `tl.load_run` takes it, or a base.

    Raises:
        DataError: There is no such run, or it has no model.
        RecipeError: A name, an argument or the size does not fit the architecture.
        WeightsError: The weight file is missing, damaged, or of another network.
    """
    if isinstance(subject, Base):
        return _build(subject)
    return _open(subject if isinstance(subject, Run) else load_run(subject))


def _open(run: Run) -> Explained:
    from tl_toolkit.images.geometry import build_resize

    if not run.folder.model.is_file():
        raise describe_absent(run.folder, run.folder.model)
    recipe, model = run.recipe, run.model
    data, units = recipe.data, model.outputs[0].shape[-1]
    kind = recipe.task.kind
    numbered = (kind,) if units == 1 else tuple(f"{kind}[{place}]" for place in range(units))
    is_pair = has_pair(run)
    return Explained(
        title=name_run(run.path),
        model=model,
        architecture=find_base(recipe),
        outputs=run.classes if is_pair or len(run.classes) == units else numbered,
        resize=build_resize(data.resize, data.pad_color, data.channels),
        channels=data.channels,
        convert=data.convert,
        # A single output of a pixel is a class that it is of or not, as an edge.
        has_classes=recipe.task.has_classes or (recipe.task.is_dense and units == 1),
        is_pair=is_pair,
        deterministic=recipe.deterministic,
    )


def has_pair(run: Run) -> bool:
    """Returns whether a run's model has one output, the probability of the second of two classes.

    Args:
        run: The run.
    """
    units = run.model.outputs[0].shape[-1]
    return run.recipe.task.has_classes and units == 1 and len(run.classes) == 2


def _build(base: Base) -> Explained:
    record, size = find_architecture_and_size(base.name, base.image_size)
    start_tensorflow()
    with numerics(deterministic=True):
        from tl_toolkit.inspect.blocks import build_feature_model, build_loaded_base

        image, features, _ = build_loaded_base(
            record, base.arguments, size, weights=base.weights, seed=base.seed
        )
        model = build_feature_model(image, features)
    title = f"{record.name}, {'its own' if record.file else base.weights} weights"
    return Explained(title, model, record, (FEATURES,), "stretch")
