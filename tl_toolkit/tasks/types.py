"""Types of tasks: targets, features, splits as a model sees them, tables, predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import Batch
from tl_toolkit.images.geometry import GeometricTransform, Resize
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.pipeline import read_tensor
from tl_toolkit.images.tta import View
from tl_toolkit.tasks.parity import Outputs
from tl_toolkit.tasks.predictions import Prediction, Table, name_columns
from tl_toolkit.tasks.resampling import Sample

__all__ = [
    "Ask",
    "Endpoints",
    "Evaluation",
    "ExampleSource",
    "Features",
    "Lines",
    "Prediction",
    "PredictionOptions",
    "Resize",
    "SplitView",
    "Table",
    "Targets",
    "Transform",
    "name_columns",
]

Transform = Callable[[int, int], GeometricTransform]
"""Returns the geometric transform of the image at an index in an epoch (from 1); several threads
call it."""

Ask = Callable[[Sequence[np.ndarray], Sequence[bytes]], Callable[[], Outputs]]
"""Has an exported model run, in a process of its own, on batches of pixels and encoded files. What
it returns waits for the outputs."""


@dataclass(frozen=True)
class Lines:
    """The outputs of a dense model where rows and columns of one image cross.

    Attributes:
        model: The model, which holds the weights.
        build: Builds them into a graph: images float32 (1, h, w, channels), rows and columns
            float32 (n,) and (m,), in pixels of the model's image, to (n, m, units).
    """

    model: keras.Model
    build: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


class Targets(Protocol):
    """The targets of one split, in the order of its examples."""

    def __len__(self) -> int:
        """Returns the number of examples."""


class Features(Protocol):
    """The tensors that cross a cut, for the images of a split."""

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yields features, and the indices of their images, in the order of `order`.

        Args:
            order: Indices of images.
            batch_size: Each chunk has a multiple of this number; the last one may have any number.
            epoch: Decides augmentation; 0 has none.
        """


class ExampleSource(Protocol):
    """The examples that a suffix trains on: inputs and targets."""

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yields inputs of the suffix, and their targets.

        Args:
            order: As in `Features.chunks`.
            batch_size: As in `Features.chunks`.
            epoch: As in `Features.chunks`; targets are transformed with their images.
        """


class SplitView(Protocol):
    """A split as a model sees it: through the features it was trained on, or from its images.

    Attributes:
        examples: The images.
        model: The whole model.
        source: Tensors of the model's graph that `features` are of; None for images.
        features: Values of these tensors.
        views: The views that outputs of a dense task are averaged over; none for the image alone.
    """

    examples: Sequence[Example]
    model: keras.Model
    source: Any
    features: Features
    views: Sequence[View] = ()

    def assess(self, inputs: ExampleSource) -> tuple[np.ndarray, np.ndarray]:
        """Runs the rest of the model.

        Args:
            inputs: The features joined with targets.

        Returns:
            The loss of each example, float32 (n,), from logits where there are any, and its
            outputs, float32 (n, ...).
        """


@dataclass(frozen=True)
class Evaluation:
    """Metrics and predictions of a split.

    Attributes:
        metrics: By name; numbers, and tables of them as `per_class`.
        predictions: A row for each image, with the columns of its task.
        sample: The images as the metrics are computed from them; None where that is not possible.
    """

    metrics: dict[str, Any]
    predictions: Table
    sample: Sample | None = None


@dataclass(frozen=True)
class PredictionOptions:
    """How files are predicted.

    Attributes:
        image_size: (height, width) that the model takes.
        resize: How images are resized to that size.
        out: Folder that receives pictures, for tasks that make some.
        native: Run on images at their own size, where the task can.
        report: Receives messages.
        done: Receives the number of files predicted so far.
        read: Returns the pixels of a file, (h, w, channels), an array or a tensor; raises DataError
            where it cannot.
        views: The views of each image that outputs are averaged over; none for the image alone.
    """

    image_size: tuple[int, int]
    resize: Resize = "stretch"
    out: Path | None = None
    native: bool = False
    report: Callable[[str], None] = field(default=lambda text: None)
    done: Callable[[int], None] = field(default=lambda count: None)
    read: Callable[[Path], np.ndarray | tf.Tensor] = read_tensor
    views: Sequence[View] = ()


@dataclass(frozen=True)
class Endpoints:
    """The functions of an exported model.

    Attributes:
        serve_images: From uint8 RGB, or float32 bands, (batch, h, w, channels) of any size to named
            outputs.
        serve_bytes: From encoded images, string (batch,), to the same outputs.
    """

    serve_images: Callable[[tf.Tensor], Mapping[str, tf.Tensor]]
    serve_bytes: Callable[[tf.Tensor], Mapping[str, tf.Tensor]]
