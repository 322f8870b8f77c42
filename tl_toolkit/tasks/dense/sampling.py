"""Pixels sampled for training: which ones, and how they join the features of their images."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tl_toolkit.architectures.batches import Batch, as_list
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.dense.targets import Targets
from tl_toolkit.tasks.types import Features, Transform

__all__ = ["SampledPixels", "sample_pixels"]

_BORDER = 2
"""Pixels up to this far from another class count as beside a border."""


class SampledPixels:
    """Features of images, with the pixels that are sampled of each and their targets.

    Args:
        features: The tensors that cross the cut, by image.
        targets: Targets of the same images.
        settings: How many pixels of an image are sampled, and how.
        seed: With the epoch and the image's place, it decides which pixels are sampled. The pixels
            of epoch 0, by which epochs of all phases are compared, depend on the place alone.
        augment: The geometric transforms of the images, which are applied to their targets too; by
            default none. Epoch 0 has none.
    """

    def __init__(
        self,
        features: Features,
        targets: Targets,
        settings: PixelSettings,
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
        """Yields features, and the targets of the sampled pixels, in the order of `order`.

        Args:
            order: Indices of images.
            batch_size: As in the features.
            epoch: Each epoch samples other pixels; epoch 0, of evaluation, samples uniformly.

        Yields:
            The features and float32 (n, pixels, 2), the sampled places, in one list; their
            targets (n, pixels, ...), of the reader's type.
        """
        for batch, indices in self._features.chunks(order, batch_size, epoch=epoch):
            with ThreadPoolExecutor(2) as pool:
                sampled = list(pool.map(lambda index: self._sample(int(index), epoch), indices))
            places = np.stack([place for place, _ in sampled])
            yield [*as_list(batch), places], np.stack([targets for _, targets in sampled])

    def _sample(self, index: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        target, reader = self._targets.resized(index), self._targets.reader
        if epoch and self._augment is not None:
            transform = self._augment(index, epoch)
            target = reader.turn(transform.move(target, reader.ignored), transform.turn)
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
    """Samples pixels of one image from those that are of a class.

    Pixels are not repeated while there are enough of them; else each is sampled once before any
    repeats.

    Args:
        mask: uint8 (h, w), classes or IGNORE.
        count: How many, at least 1.
        random: The generator of the samples.
        sampling: "uniform"; "balanced", equally many of each class; "edges", half of them within 2
            pixels of another class.

    Returns:
        int64 (count,), indices into the flat mask; of any pixels where no pixel is of a class.
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
    # The remainder of the division goes to groups that are sampled anew for each image.
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

    Args:
        mask: uint8 (h, w), classes or IGNORE.
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
            seen = np.moveaxis(border, axis, 0)  # a view: it writes to `border`
            seen[step:] |= differs
            seen[:-step] |= differs
    return border
