"""What every task says of its outputs, its loss and its score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeGuard

import numpy as np
import tensorflow as tf
from PIL import Image

from tl_toolkit.images.targets import TargetReader
from tl_toolkit.recipe.data_schema import Data

__all__ = ["PixelTally", "PixelTask", "Task", "answers_pixels"]


class Task(Protocol):
    """How outputs are compared with the right answers.

    A score need not be a mean over images (a mean IoU is none), so that each image gives a tally:
    numbers that add up over images, and that the score is worked out from.

    Attributes:
        name: The word in recipes.
        score: Name of what epochs are compared by, in [0, 1]; more is better.
        units: Outputs of the last layer.
        activation: Of the last layer.
        answers_pixels: Whether each pixel has an answer; else each image has.
        targets: Shape and type of the right answers for a batch of images.
    """

    name: str
    score: str
    units: int
    activation: str
    answers_pixels: bool
    targets: tf.TensorSpec

    def compare(self, outputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Compares a batch with its right answers, inside a compiled function.

        Args:
            outputs: What the model gives, as its last layer's output so that Keras finds the
                logits behind it: (batch, units) or (batch, pixels, units).
            targets: As `targets` says.

        Returns:
            float32 (batch,), the loss of each image; int32 (batch, m), its tally.
        """

    def weigh(self, count: Callable[[], np.ndarray]) -> None:
        """Is asked before the first step.

        Args:
            count: Counts the pixels of each stratum in the training images, in a pass over all of
                their files.
        """

    def score_of(self, tally: np.ndarray) -> float:
        """Returns the score of images whose tallies were added up to this one."""


class PixelTask(Task, Protocol):
    """A task with an answer for each pixel.

    Attributes:
        picture: What an answer drawn as an image is called, in names of files.
    """

    picture: str

    @staticmethod
    def reader(data: Data) -> TargetReader:
        """Returns what reads the right answers that a recipe's `data` section names."""

    def keep(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns, by name, what an answer for whole images keeps of outputs (..., units)."""

    def measure(self) -> PixelTally:
        """Returns what compares whole answers with whole right answers."""

    def draw(self, answer: Mapping[str, np.ndarray], palette: np.ndarray) -> Image.Image:
        """Returns an answer for one image as an image to save.

        Args:
            answer: What `keep` named, (h, w, ...).
            palette: uint8 (classes, 3), a colour for each class; of use where there are classes.
        """


class PixelTally(Protocol):
    """Compares answers with right answers, image by image."""

    def add(self, answer: Mapping[str, np.ndarray], truth: np.ndarray) -> dict[str, float]:
        """Takes in an image, and returns the scores of it alone."""

    def result(self) -> dict[str, Any]:
        """Returns the metrics over all images."""


def answers_pixels(task: Task) -> TypeGuard[PixelTask]:
    """Tells whether each pixel has an answer."""
    return task.answers_pixels
