"""Changes of the examples that a suffix trains on: they are mixed, get noise, or have a teacher.

What is random depends on the seed, the epoch, the order of the examples and the batch size; not on
whether features are stored, nor on how many batches are read at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import Batch
from tl_toolkit.images.mixing import Mixer
from tl_toolkit.plan.training import PhaseSettings
from tl_toolkit.tasks.types import ExampleSource
from tl_toolkit.training.seeds import phase_seed

__all__ = [
    "MixedExamples",
    "MixedTargets",
    "NoisyExamples",
    "TaughtExamples",
    "TaughtTargets",
    "change_examples",
]


def change_examples(
    examples: ExampleSource,
    phase: PhaseSettings,
    mixer: Mixer | None,
    *,
    count: int,
    seed: int,
    index: int,
) -> ExampleSource:
    """Returns the training examples of a phase with its noise, mixed as it says.

    Args:
        examples: The examples.
        phase: The phase.
        mixer: What their images are mixed by already, if they are.
        count: How many tensors of the examples are features.
        seed: The recipe's.
        index: Place of the phase, from 0.
    """
    if phase.feature_noise:
        noise_seed = phase_seed(seed, "noise", index)
        examples = NoisyExamples(examples, phase.feature_noise, count=count, seed=noise_seed)
    if phase.feature_mixup:
        mixer = Mixer(phase_seed(seed, "mixing", index), mixup=phase.feature_mixup)
        return MixedExamples(examples, mixer, mixes_features=True)
    return examples if mixer is None else MixedExamples(examples, mixer)


@dataclass(frozen=True)
class MixedTargets:
    """The targets of mixed examples.

    Attributes:
        own: The targets of the examples themselves, (n, ...).
        others: Those of the examples that they are mixed with.
        shares: float32 (n,), the share of the example itself.
    """

    own: np.ndarray
    others: np.ndarray
    shares: np.ndarray

    def __len__(self) -> int:
        return len(self.shares)

    def __getitem__(self, part: slice) -> MixedTargets:
        return MixedTargets(self.own[part], self.others[part], self.shares[part])


class MixedExamples:
    """Examples with the targets of those that they are mixed with.

    Args:
        examples: The examples; their images may be mixed already.
        mixer: Samples who is mixed with whom.
        mixes_features: Whether the features are blended here, as in manifold MixUp (Verma et al.,
            2019) at this layer; else their images were mixed.
    """

    def __init__(
        self, examples: ExampleSource, mixer: Mixer, *, mixes_features: bool = False
    ) -> None:
        self._examples = examples
        self._mixer = mixer
        self._mixes_features = mixes_features

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, Any]]:
        """Yields inputs of the suffix, and their `MixedTargets`.

        Args:
            order: As in the examples.
            batch_size: As in the examples; the others are of the same batch.
            epoch: Decides what is mixed.
        """
        mixes = self._mixer.sample(len(order), batch_size, epoch)
        start = 0
        for features, targets in self._examples.chunks(order, batch_size, epoch=epoch):
            stop = start + len(targets)
            partners, shares = mixes.partners[start:stop] - start, mixes.shares[start:stop]
            if self._mixes_features:
                features = _blend(features, partners, shares)
            yield features, MixedTargets(targets, targets[partners], shares)
            start = stop


@dataclass(frozen=True)
class TaughtTargets:
    """The targets of examples, and what a teacher makes of their images.

    Attributes:
        own: The targets, (n, ...).
        taught: The teacher's probabilities, float32 (n, classes).
    """

    own: np.ndarray
    taught: np.ndarray

    def __len__(self) -> int:
        return len(self.taught)

    def __getitem__(self, part: slice) -> TaughtTargets:
        return TaughtTargets(self.own[part], self.taught[part])


class TaughtExamples:
    """Examples with a teacher's probabilities beside their targets.

    Args:
        examples: The examples, which are not mixed.
        taught: The teacher's probabilities of all images, by index, float32 (images, classes).
    """

    def __init__(self, examples: ExampleSource, taught: np.ndarray) -> None:
        self._examples = examples
        self._taught = taught

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, Any]]:
        """Yields inputs of the suffix, and their `TaughtTargets`.

        Args:
            order: As in the examples.
            batch_size: As in the examples.
            epoch: As in the examples.
        """
        start = 0
        for features, targets in self._examples.chunks(order, batch_size, epoch=epoch):
            stop = start + len(targets)
            yield features, TaughtTargets(targets, self._taught[order[start:stop]])
            start = stop


def _blend(features: Batch, partners: np.ndarray, shares: np.ndarray) -> Batch:
    def blend(tensor: tf.Tensor) -> tf.Tensor:
        tensor = tf.convert_to_tensor(tensor)
        weights = tf.reshape(shares, (-1,) + (1,) * (tensor.shape.rank - 1))
        return weights * tensor + (1 - weights) * tf.gather(tensor, partners)

    return tf.nest.map_structure(blend, features)


class NoisyExamples:
    """Examples whose features get channel-wise brightness noise (FroFA: Baer et al., 2024).

    One number is added to each channel of an image, sampled evenly from the noise's strength times
    the channel's range, either way; the sum stays in that range. The range of a map is that over
    its places, as in the paper (c2FroFA). A vector has none: a channel's is that over the batch.

    Args:
        examples: The examples.
        strength: The largest number, as a fraction of the range.
        count: How many tensors are features; those behind them are not changed.
        seed: With the epoch, it decides the noise.
    """

    def __init__(self, examples: ExampleSource, strength: float, *, count: int, seed: int) -> None:
        self._examples = examples
        self._strength = strength
        self._count = count
        self._seed = seed

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, Any]]:
        """Yields inputs of the suffix with noise, and their targets.

        Args:
            order: As in the examples.
            batch_size: As in the examples.
            epoch: Decides the noise.
        """
        # One stream for each tensor: its numbers do not depend on how many examples come at a time.
        streams = [np.random.default_rng((self._seed, epoch, k)) for k in range(self._count)]
        for features, targets in self._examples.chunks(order, batch_size, epoch=epoch):
            tensors = features if isinstance(features, list | tuple) else [features]
            noisy = [
                self._add_noise(tf.convert_to_tensor(tensor), random, batch_size)
                for tensor, random in zip(tensors, streams, strict=False)
            ]
            several = [*noisy, *tensors[self._count :]]
            yield several if isinstance(features, list | tuple) else several[0], targets

    def _add_noise(
        self, tensor: tf.Tensor, random: np.random.Generator, batch_size: int
    ) -> tf.Tensor:
        count, channels = tensor.shape[0], tensor.shape[-1]
        sampled = random.uniform(-self._strength, self._strength, (count, channels))
        shape = (count, *[1] * (tensor.shape.rank - 2), channels)
        noise = sampled.astype(np.float32).reshape(shape)
        if tensor.shape.rank > 2:
            return _shift(tensor, noise, list(range(1, tensor.shape.rank - 1)))
        parts = [slice(start, start + batch_size) for start in range(0, count, batch_size)]
        return tf.concat([_shift(tensor[part], noise[part], [0]) for part in parts], axis=0)


def _shift(tensor: tf.Tensor, noise: np.ndarray, axes: Sequence[int]) -> tf.Tensor:
    low = tf.reduce_min(tensor, axes, keepdims=True)
    high = tf.reduce_max(tensor, axes, keepdims=True)
    return tf.clip_by_value(tensor + noise * (high - low), low, high)
