"""MixUp and CutMix: which training examples are mixed, how much of each, and mixed images.

An example is mixed with another one of its batch. The loss is that of both targets, each times the
share of its image, so that any loss of an image can be mixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Mixer", "Mixes", "mix_images"]


@dataclass(frozen=True)
class Mixes:
    """How the examples of an epoch are mixed, in their order.

    Attributes:
        partners: int (n,), the place of the example that each is mixed with.
        shares: float32 (n,), the share of the example itself, from 0 to 1.
        boxes: int (n, 4), what is pasted from the other image: the first row and column, and those
            after the last ones; zeros where two images are blended.
    """

    partners: np.ndarray
    shares: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.partners)


class Mixer:
    """Samples how examples are mixed, the same for each epoch at equal seed and batch size.

    Args:
        seed: With the epoch, it decides everything that is sampled.
        mixup: Shares are of Beta(mixup, mixup) where examples are blended (Zhang et al., 2018).
        cutmix: Shares are of Beta(cutmix, cutmix) where a box is pasted (Yun et al., 2019). With
            both, each example gets one of the two, by even chances.
        image_size: Height and width of the images that boxes are pasted into.
    """

    def __init__(
        self,
        seed: int,
        *,
        mixup: float | None = None,
        cutmix: float | None = None,
        image_size: tuple[int, int] = (1, 1),
    ) -> None:
        self._seed = seed
        self._mixup = mixup
        self._cutmix = cutmix
        self._size = image_size

    def sample(self, count: int, batch_size: int, epoch: int) -> Mixes:
        """Returns how the examples of an epoch are mixed.

        Args:
            count: Examples of the epoch.
            batch_size: Examples in a step; the last step may have fewer.
            epoch: Counts from 1.
        """
        random = np.random.default_rng((self._seed, epoch))
        partners = np.concatenate(
            [
                start + random.permutation(min(batch_size, count - start))
                for start in range(0, count, batch_size)
            ]
        )
        blended = random.beta(self._mixup or 1, self._mixup or 1, count)
        kept = random.beta(self._cutmix or 1, self._cutmix or 1, count)
        centers = random.uniform(size=(count, 2))
        is_pasted = random.uniform(size=count) < _share_of_pasting(self._mixup, self._cutmix)
        boxes = self._find_boxes(kept, centers) * is_pasted[:, np.newaxis]
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        shares = np.where(is_pasted, 1 - areas / np.prod(self._size), blended)
        return Mixes(partners, shares.astype(np.float32), boxes)

    def _find_boxes(self, kept: np.ndarray, centers: np.ndarray) -> np.ndarray:
        """Returns boxes around centers, cut at the border of the image, as the paper has them."""
        size = np.array(self._size)
        sides = np.sqrt(1 - kept)[:, np.newaxis] * size
        middles = centers * size
        corners = [middles - sides / 2, middles + sides / 2]
        return np.concatenate(
            [np.clip(np.round(corner), 0, size).astype(np.int64) for corner in corners], axis=1
        )


def _share_of_pasting(mixup: float | None, cutmix: float | None) -> float:
    return 0.0 if not cutmix else 0.5 if mixup else 1.0


def mix_images(
    images: np.ndarray, others: np.ndarray, shares: np.ndarray, boxes: np.ndarray
) -> np.ndarray:
    """Returns images that are mixed with others.

    Args:
        images: (n, h, w, channels), RGB in 0..255.
        others: The images that they are mixed with, likewise.
        shares: float32 (n,), as in `Mixes`.
        boxes: int (n, 4), as in `Mixes`.

    Returns:
        float32 (n, h, w, channels).
    """
    own, other = np.asarray(images, np.float32), np.asarray(others, np.float32)
    weights = shares[:, np.newaxis, np.newaxis, np.newaxis]
    mixed: np.ndarray = weights * own + (1 - weights) * other
    for place, (top, left, bottom, right) in enumerate(boxes):
        if bottom > top and right > left:
            mixed[place] = own[place]
            mixed[place, top:bottom, left:right] = other[place, top:bottom, left:right]
    return mixed
