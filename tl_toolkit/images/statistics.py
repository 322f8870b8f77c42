"""Mean and deviation of each band over the training images, whatever their order and number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tl_toolkit.catalog.bands import BandStatistics
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.pipeline import decode_example
from tl_toolkit.sources.listing import count_threads

__all__ = ["measure_bands"]


def measure_bands(examples: Sequence[Example], channels: int) -> BandStatistics:
    """Returns the statistics of all pixels of images, at the sizes of their files.

    They do not depend on the size that images are resized to, nor on the order of the images:
    sums over images are rounded once (`math.fsum`).

    Args:
        examples: The training images.
        channels: Channels of the images.

    Raises:
        DataError: A file is gone, or is not the one that was scanned.
    """

    def measure(example: Example) -> tuple[int, np.ndarray, np.ndarray]:
        pixels = decode_example(example, channels).numpy().reshape(-1, channels)
        mean = pixels.mean(axis=0, dtype=np.float64)
        return len(pixels), mean, np.square(pixels - mean).sum(axis=0)

    with ThreadPoolExecutor(count_threads()) as pool:
        counts, means, squares = zip(*pool.map(measure, examples), strict=True)
    total = sum(counts)
    mean, deviation = [], []
    for band in range(channels):
        own = math.fsum(n * m[band] for n, m in zip(counts, means, strict=True)) / total
        between = [n * (m[band] - own) ** 2 for n, m in zip(counts, means, strict=True)]
        mean.append(own)
        deviation.append(
            math.sqrt(math.fsum([*(part[band] for part in squares), *between]) / total)
        )
    return BandStatistics(tuple(mean), tuple(deviation), len(examples))
