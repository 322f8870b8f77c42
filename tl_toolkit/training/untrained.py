"""What a base makes of the images before any training: a vector for each, of its last map."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import keras
import numpy as np

from tl_toolkit.architectures.batches import Batch, as_list
from tl_toolkit.architectures.heads import CELLS_OF_LAST_MAP, LAST_MAP, group_features
from tl_toolkit.features.fingerprint import Digests
from tl_toolkit.features.sets import FeatureSet
from tl_toolkit.features.source import FeatureSource
from tl_toolkit.training.checkpoint import BestState
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.freezing import find_cut

__all__ = ["pool_features", "read_untrained"]


def read_untrained(
    transfer: TransferModel,
    source: FeatureSource,
    digests: Digests,
    initial: BestState,
    *,
    sizes: Mapping[str, int],
    most_images: int,
) -> dict[str, np.ndarray] | None:
    """Returns the last map that a head reads, as the untrained base computes it, pooled.

    It is pooled as the head pools it, without cells, where the vectors that it reads are stored,
    else averaged.
    Stored features cost no pass over the images. Without them the base runs once for each image.

    Args:
        transfer: The model, after a training.
        source: Gives the features.
        digests: Digests of all weights as they were before the training.
        initial: The weights that the training changed, as they were before.
        sizes: Images in each split.
        most_images: Of how many images the base may run.

    Returns:
        float32 (n, features) of each split; None where there are too many images.
    """
    cut = find_cut(transfer, ())
    places = _find_places(transfer, LAST_MAP)
    stored = source.read_plain(cut, digests)
    if stored is not None:
        return _pool_all(stored, sizes, places)
    if sum(sizes.values()) > most_images:
        return None
    with _as_before(transfer, initial):
        return _pool_all(source.compute_plain(cut), sizes, places)


def pool_features(
    transfer: TransferModel,
    features: Mapping[str, FeatureSet],
    sizes: Mapping[str, int],
    *,
    whole: bool = False,
) -> dict[str, np.ndarray]:
    """Returns the last map that a head reads as a vector for each image.

    It is as `read_untrained` returns it, and has the cells of a pyramid too.

    Args:
        transfer: The model.
        features: Features before its head, by split.
        sizes: Images in each split.
        whole: Return the vectors of all maps that the head joins, not of the last one alone.

    Returns:
        float32 (n, features) of each split.
    """
    places = None if whole else _find_places(transfer, LAST_MAP, CELLS_OF_LAST_MAP)
    return _pool_all(features, sizes, places)


def _find_places(transfer: TransferModel, *names: str) -> np.ndarray | None:
    """Returns which features at the head are of groups; None for all, where it pools no map."""
    groups = group_features(transfer.parts[-1].layers, transfer.inner_maps)
    places = [groups[name] for name in names if name in groups]
    return np.concatenate(places) if places else None


def _pool_all(
    features: Mapping[str, FeatureSet], sizes: Mapping[str, int], places: np.ndarray | None
) -> dict[str, np.ndarray]:
    pooled = {}
    for split, count in sizes.items():
        chunks = features[split].chunks(np.arange(count), 1, epoch=1)
        pooled[split] = np.concatenate([_pool(batch, places) for batch, _ in chunks])
    return pooled


def _pool(batch: Batch, places: np.ndarray | None) -> np.ndarray:
    maps = as_list(batch)
    last = np.asarray(maps[-1])
    if last.ndim == 4:
        return np.asarray(last.mean(axis=(1, 2)))
    # Of a head that pools by weights, which train, the maps themselves are stored.
    return last if places is None or len(maps) > 1 else last[:, places]


@contextlib.contextmanager
def _as_before(transfer: TransferModel, initial: BestState) -> Iterator[None]:
    """Gives a model the weights that it had before a training, for a `with` block."""
    kept: list[tuple[keras.Variable, np.ndarray]] = [
        (variable, variable.numpy())
        for _, name, variable in transfer.variables()
        if name in initial.names
    ]
    initial.restore(transfer)
    try:
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)
