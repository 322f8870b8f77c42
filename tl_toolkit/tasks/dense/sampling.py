"""Pixels drawn for training: which ones, and how they join the features of their images."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tl_toolkit.architectures.batches import Batch, as_list
from tl_toolkit.recipe.schema import Pixels
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.dense.targets import Targets
from tl_toolkit.tasks.types import Features, Transform

__all__ = ["SampledPixels", "sample_pixels"]

_BORDER = 2
"""Pixels up to this far from another class count as beside a border."""


class SampledPixels:
    """Features of images, with the pixels that were drawn of each and their right answers.

    Args:
        features: What crosses the cut, by image.
        targets: The right answers of the same images.
        settings: The recipe's section.
        seed: Which pixels are drawn hangs on it, the epoch and the image's place; those of epoch 0,
            by which epochs of all phases are compared, on the place alone.
        augment: How the images were moved that the features are of, which their right answers then
            are too; by default not at all. In epoch 0 none is.
    """

    def __init__(
        self,
        features: Features,
        targets: Targets,
        settings: Pixels,
        *,
        seed: int,
        augment: Transform | None = None,
    ) -> None:
        self._features = features
        self._targets = targets
        self._settings = settings
        self._seed = seed
        self._augment = augment

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yields features, and the right answers of the pixels drawn, in the given order.

        Args:
            order: Indices of images.
            batch_size: As of the features.
            epoch: Other epochs draw other pixels; epoch 0, of evaluation, draws uniformly.

        Yields:
            The features and float32 (n, pixels, 2), the places drawn, in one list; their
            right answers (n, pixels, ...), of the reader's type.
        """
        for batch, indices in self._features.chunks(order, batch_size, epoch=epoch):
            with ThreadPoolExecutor(2) as pool:
                sampled = list(pool.map(lambda index: self._sample(int(index), epoch), indices))
            places = np.stack([place for place, _ in sampled])
            yield [*as_list(batch), places], np.stack([targets for _, targets in sampled])

    def _sample(self, index: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        target, reader = self._targets.resized(index), self._targets.reader
        if epoch and self._augment is not None:
            motion = self._augment(index, epoch)
            target = reader.turn(motion.move(target, reader.ignored), motion.turn)
        sampling = self._settings.sampling if epoch else "uniform"
        random = np.random.default_rng((self._seed if epoch else 0, epoch, index))
        flat = sample_pixels(
            reader.sampling_groups(target), self._settings.per_image, random, sampling
        )
        places = np.unravel_index(flat, target.shape[:2])
        return np.stack(places, axis=-1).astype(np.float32), target[places].astype(reader.dtype)


def sample_pixels(
    mask: np.ndarray, count: int, random: np.random.Generator, sampling: str = "uniform"
) -> np.ndarray:
    """Draws pixels of one image from those that are of a class.

    Without repeats while there are enough of them; if not, each of them once before any repeats.

    Args:
        mask: uint8 (h, w), classes or IGNORE.
        count: How many, at least 1.
        random: Draws them.
        sampling: "uniform"; "balanced", as many of each class as of every other; "edges", half of
            them within 2 pixels of another class.

    Returns:
        int64 (count,), indices into the flat mask. If no pixel is of a class, of any.
    """
    flat = mask.reshape(-1)
    counted = np.flatnonzero(flat != IGNORE)
    if not len(counted):
        return random.integers(0, flat.size, count)
    if sampling == "balanced":
        values = flat[counted]
        groups = [counted[values == value] for value in np.flatnonzero(np.bincount(values))]
    elif sampling == "edges":
        beside = find_borders(mask).reshape(-1)[counted]
        groups = [group for group in (counted[beside], counted[~beside]) if len(group)]
    else:
        groups = [counted]
    # What does not divide evenly goes to groups drawn anew for each image.
    quotas = np.full(len(groups), count // len(groups))
    quotas[random.permutation(len(groups))[: count % len(groups)]] += 1
    return np.concatenate(
        [_sample(group, quota, random) for group, quota in zip(groups, quotas, strict=True)]
    )


def _sample(group: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    if count <= len(group):
        return random.choice(group, count, replace=False)
    return np.concatenate([group, random.choice(group, count - len(group))])


def find_borders(mask: np.ndarray) -> np.ndarray:
    """Returns bool (h, w): which pixels of a class have one of another class within 2 pixels.

    Pixels of no class make no border.
    """
    border = np.zeros(mask.shape, bool)
    for step in range(1, _BORDER + 1):
        for axis in (0, 1):
            first = np.moveaxis(mask, axis, 0)
            differs = (
                (first[step:] != first[:-step])
                & (first[step:] != IGNORE)
                & (first[:-step] != IGNORE)
            )
            seen = np.moveaxis(border, axis, 0)  # a view: what is set here is set in `border`
            seen[step:] |= differs
            seen[:-step] |= differs
    return border
