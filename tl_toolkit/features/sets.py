"""The features of one split, computed from its images or read from the store.

Both give the same examples in the same order, bit for bit: one prefix function of one fixed batch
size computes all examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import Batch, FixedBatch, join_batches, take_examples
from tl_toolkit.features.shards import StoredExamples
from tl_toolkit.images.mixing import Mixer, Mixes, mix_images
from tl_toolkit.images.pipeline import Images

__all__ = ["CHUNK_BYTES", "Augmentation", "FeatureSet", "LiveFeatures", "StoredFeatures"]

CHUNK_BYTES = 64 << 20
"""Number of stored examples that are yielded at a time."""

Augmentation: TypeAlias = Callable[[np.ndarray, np.ndarray, int], tf.Tensor]
"""Turns images (n, h, w, channels), their indices and the epoch (from 1) into float32 images."""


class LiveFeatures:
    """Computes prefix outputs from images, in whole prefix batches for any training batch size.

    Args:
        images: The images of one split.
        prefix: The compiled prefix.
        augment: Changes the images before the prefix; by default they are not changed.
        dtype: float16 rounds the outputs as a store of that precision does.
        mixer: Mixes each image with another of its batch before the prefix; by default none is.
    """

    def __init__(
        self,
        images: Images,
        prefix: FixedBatch,
        *,
        augment: Augmentation | None = None,
        dtype: str = "float32",
        mixer: Mixer | None = None,
    ) -> None:
        self._mixer = mixer
        self._images = images
        self._prefix = prefix
        self._augment = augment
        self._dtype = dtype

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yields features, and the indices of their images, in an order.

        Args:
            order: Indices of images, in the order that they are read; one may come several times.
            batch_size: Each chunk has a multiple of so many examples; the last one may have any
                number.
            epoch: Decides the augmentation.

        Yields:
            float32 features (n, ...), a list where several tensors cross the cut, and indices
            (n,).
        """
        waiting: list[Batch] = []
        start = count = 0
        images = self._read(order, epoch)
        if self._mixer is not None:
            mixes = self._mixer.sample(len(order), batch_size, epoch)
            images = _mix(images, self._read(order[mixes.partners], epoch), mixes)
        for pixels in images:
            waiting.append(self._round(self._prefix(pixels)))
            count += len(pixels)
            while count >= batch_size or (count and start + count == len(order)):
                ready = join_batches(waiting)
                size = min(batch_size, count)
                yield take_examples(ready, 0, size), order[start : start + size]
                waiting = [take_examples(ready, size)]
                start += size
                count -= size

    def _read(self, order: np.ndarray, epoch: int) -> Iterator[Batch]:
        """Yields prefix batches of images, augmented."""
        for pixels, indices in self._images.batches(order, self._prefix.batch_size):
            yield pixels if self._augment is None else self._augment(pixels, indices, epoch)

    def _round(self, features: Batch) -> Batch:
        if self._dtype == "float32":
            return features
        return tf.nest.map_structure(
            lambda tensor: tf.cast(tf.cast(tensor, self._dtype), tf.float32), features
        )


def _mix(images: Iterator[Batch], others: Iterator[Batch], mixes: Mixes) -> Iterator[Batch]:
    start = 0
    for own, other in zip(images, others, strict=True):
        part = slice(start, start + len(own))
        yield mix_images(np.asarray(own), np.asarray(other), mixes.shares[part], mixes.boxes[part])
        start = part.stop


class StoredFeatures:
    """Reads prefix outputs from the store; the images stay closed.

    Args:
        views: The features of all images, once for each view.
        several: Whether several tensors cross the cut.
    """

    def __init__(self, views: Sequence[StoredExamples], *, several: bool) -> None:
        self._views = views
        self._several = several

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yields the same as `LiveFeatures.chunks`, in larger chunks.

        Args:
            order: As in `LiveFeatures.chunks`.
            batch_size: As in `LiveFeatures.chunks`.
            epoch: Decides the view; epoch 1 has the first view.
        """
        examples = self._views[(epoch - 1) % len(self._views)]
        size = max(1, CHUNK_BYTES // (examples.example_bytes * batch_size)) * batch_size
        for start in range(0, len(order), size):
            part = order[start : start + size]
            tensors = examples.take(part)
            yield tensors if self._several else tensors[0], part


FeatureSet: TypeAlias = LiveFeatures | StoredFeatures
