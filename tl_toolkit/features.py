"""What a suffix is trained on: the prefix's outputs for each image of an epoch.

For now they are always computed live. A stored form has the same `batches`, and must give the same
bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from tl_toolkit.data.pipeline import Images
from tl_toolkit.transfer.batches import FixedBatch, Rows, join_rows, take_rows

Augmentation = Callable[[np.ndarray, np.ndarray], tf.Tensor]


class LiveFeatures:
    """Prefix outputs computed from images, in whole prefix batches whatever the training batch is.

    Args:
        images: The images of one split.
        prefix: The compiled prefix.
    """

    def __init__(self, images: Images, prefix: FixedBatch) -> None:
        self._images = images
        self._prefix = prefix

    def batches(
        self, order: np.ndarray, batch_size: int, *, augment: Augmentation | None = None
    ) -> Iterator[tuple[Rows, tf.Tensor]]:
        """Yields (features, labels) in the given order.

        Args:
            order: Indices of images, each read once in this order.
            batch_size: Rows in each batch; the last one may be shorter.
            augment: Turns uint8 images and their indices into float32 images in 0..255.

        Yields:
            float32 features (n, ...), a list where several tensors cross the cut, and int32 labels
            (n,).
        """
        waiting: list[Rows] = []
        labels = tf.constant(self._images.labels[order])
        start = rows = 0
        for pixels, _, indices in self._images.batches(order, self._prefix.batch_size):
            images = pixels if augment is None else augment(pixels, indices)
            waiting.append(self._prefix(images))
            rows += len(indices)
            while rows >= batch_size or (rows and start + rows == len(order)):
                ready = join_rows(waiting)
                size = min(batch_size, rows)
                yield take_rows(ready, 0, size), labels[start : start + size]
                waiting = [take_rows(ready, size)]
                start += size
                rows -= size
