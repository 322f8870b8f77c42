"""What a suffix is trained on: the prefix's outputs, computed live or kept in the feature store.

Both give the same rows in the same order, bit for bit: every row was computed by the one prefix
function of one fixed batch size, whoever asked for it first.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import (
    Batch,
    FixedBatch,
    as_list,
    connect,
    join_batches,
    take_examples,
)
from tl_toolkit.architectures.costs import count_graph
from tl_toolkit.events import Event, Handler, message
from tl_toolkit.features.fingerprint import Digests, PrefixKeys
from tl_toolkit.features.store import Entry, FeatureCache, ShardWriter, StoredExamples
from tl_toolkit.images.augment import GeometricTransform, build_augment, build_geometric_transform
from tl_toolkit.images.decoder import DECODER_VERSION
from tl_toolkit.images.pipeline import Images
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runtime import describe_arithmetic
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.freezing import Cut, Split, find_cut

CHUNK_BYTES = 64 << 20
"""Stored rows that are handed over at a time."""

# What is assumed to tell which is cheaper, reading a row or computing it. Both are rough.
_MULTIPLY_ACCUMULATES_PER_SECOND = 20e9
_BYTES_PER_SECOND = 1e9
_SPARE_DISK = 1e9  # bytes that the store leaves free

Augmentation: TypeAlias = Callable[[np.ndarray, np.ndarray, int], tf.Tensor]
"""Turns uint8 images (n, h, w, 3), their indices and the epoch (from 1) into float32 images."""


class LiveFeatures:
    """Prefix outputs computed from images, in whole prefix batches whatever the training batch is.

    Args:
        images: The images of one split.
        prefix: The compiled prefix.
        augment: What is done to the images before; by default nothing.
        dtype: float16 rounds the outputs as a store of that precision does.
    """

    def __init__(
        self,
        images: Images,
        prefix: FixedBatch,
        *,
        augment: Augmentation | None = None,
        dtype: str = "float32",
    ) -> None:
        self._images = images
        self._prefix = prefix
        self._augment = augment
        self._dtype = dtype

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yields features, and the indices of their images, in the given order.

        Args:
            order: Indices of images, each read once in this order.
            batch_size: Each chunk has a multiple of so many rows; the last one may have any number.
            epoch: Decides the augmentation.

        Yields:
            float32 features (n, ...), a list where several tensors cross the cut, and indices
            (n,).
        """
        waiting: list[Batch] = []
        start = rows = 0
        for pixels, indices in self._images.batches(order, self._prefix.batch_size):
            images = pixels if self._augment is None else self._augment(pixels, indices, epoch)
            waiting.append(self._round(self._prefix(images)))
            rows += len(indices)
            while rows >= batch_size or (rows and start + rows == len(order)):
                ready = join_batches(waiting)
                size = min(batch_size, rows)
                yield take_examples(ready, 0, size), order[start : start + size]
                waiting = [take_examples(ready, size)]
                start += size
                rows -= size

    def _round(self, rows: Batch) -> Batch:
        if self._dtype == "float32":
            return rows
        return tf.nest.map_structure(lambda x: tf.cast(tf.cast(x, self._dtype), tf.float32), rows)


class StoredFeatures:
    """Prefix outputs read from the store, without a look at the images.

    Args:
        views: The rows of all images, once for each view.
        several: Whether several tensors cross the cut.
    """

    def __init__(self, views: Sequence[StoredExamples], *, several: bool) -> None:
        self._views = views
        self._several = several

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yields what `LiveFeatures.chunks` does, in larger chunks; epoch 1 has the first view."""
        rows = self._views[(epoch - 1) % len(self._views)]
        size = max(1, CHUNK_BYTES // (rows.row_bytes * batch_size)) * batch_size
        for start in range(0, len(order), size):
            part = order[start : start + size]
            found = rows.take(part)
            yield found if self._several else found[0], part


FeatureSet: TypeAlias = LiveFeatures | StoredFeatures


@dataclass(frozen=True)
class _Pass:
    """Images of one split, seen one way: as they are, or as one of their augmented views."""

    split: str
    view: int | None


@dataclass(frozen=True)
class _Gap:
    """Images whose rows at a cut are not stored."""

    of: _Pass
    cut: Cut
    entry: Entry
    images: list[bytes]


class FeatureSource:
    """Gives each phase the features at its cut, and computes what the store does not have.

    Args:
        transfer: The model.
        recipe: The sections `features`, `augment`, `data` and the seed are read.
        images: By split.
        progress: Is told of the images computed, and what was chosen.
    """

    def __init__(
        self,
        transfer: TransferModel,
        recipe: Recipe,
        images: Mapping[str, Images],
        progress: Handler,
    ) -> None:
        self._transfer = transfer
        self._settings = recipe.features
        self._images = images
        self._progress = progress
        self._cache = FeatureCache()
        self._keys = PrefixKeys(transfer, self._context(recipe))
        self._contents = {
            split: [bytes.fromhex(entry.sha256) for entry in one.examples]
            for split, one in images.items()
        }
        self._seed = recipe.seed
        self._image_size = recipe.data.image_size
        self._augmentation = recipe.augment
        self._augment = self._build_augmentation()
        self._said: set[str] = set()
        self._work: dict[str, int] = {}
        self._trunks: dict[Any, Callable[[Batch], list[tf.Tensor]]] = {}

    def at(
        self, split: Split, digests: Digests, *, passes: int, also: Sequence[Cut] = ()
    ) -> dict[str, FeatureSet]:
        """Returns the features of every split of the images at a cut.

        Args:
            split: The model, cut; its prefix computes what is not stored.
            digests: Of all weights as they are now.
            passes: How often the features will be gone through, to tell what is worth storing.
            also: Later cuts whose prefixes will not have changed by then: if anything has to be
                computed, theirs is in the same pass.
        """
        found = self._read(split.cut, digests)
        if found is not None:
            self._say(f"features: read from the store before {split.cut.name}")
            return found
        reason = self._refuse(split.cut, passes)
        if reason is None:
            worthy = [cut for cut in also if self._refuse(cut, passes) is None]
            cuts = list({cut.name: cut for cut in [split.cut, *worthy]}.values())
            reason = self._store(cuts, digests)
            if reason is not None and len(cuts) > 1:
                # If there is no room for all of them, perhaps there is for the first one.
                reason = self._store(cuts[:1], digests)
        if reason is None and (found := self._read(split.cut, digests)) is not None:
            return found
        self._say(f"features: computed in each epoch before {split.cut.name}: {reason}")
        prefix = split.prefix
        if self._settings.folded:
            prefix = FixedBatch(split.prefix.model, batch_size=split.prefix.batch_size, folded=True)
        return {
            name: LiveFeatures(
                images,
                prefix,
                augment=self._augment if name == "train" else None,
                dtype=self._settings.dtype,
            )
            for name, images in self._images.items()
        }

    def _store(self, cuts: Sequence[Cut], digests: Digests) -> str | None:
        try:
            return self._fill(cuts, digests)
        except OSError as error:
            return f"the store cannot be written: {error.strerror or error}"

    def _context(self, recipe: Recipe) -> dict[str, Any]:
        return {
            "image_size": list(recipe.data.image_size),
            "resize": recipe.data.resize,
            "decoder": DECODER_VERSION,
            "batch": self._transfer.batch_size,
            "folded": recipe.features.folded,
            "dtype": recipe.features.dtype,
            **describe_arithmetic(),
        }

    def _build_augmentation(self) -> Augmentation | None:
        if self._augmentation is None:
            return None
        run = build_augment(self._augmentation)
        keys = self._images["train"].keys

        def augment(pixels: np.ndarray, indices: np.ndarray, epoch: int) -> tf.Tensor:
            return run(pixels, self._seed, self._view(epoch), keys[indices])

        return augment

    def _view(self, epoch: int) -> int:
        """The number that the images of an epoch are augmented with."""
        views = self._settings.views
        return epoch if views is None else (epoch - 1) % views + 1

    @functools.cached_property
    def movement(self) -> Callable[[int, int], GeometricTransform] | None:
        """Tells how the training image at an index is moved in an epoch (from 1), live or stored.

        None without augmentation.
        """
        if self._augmentation is None:
            return None
        run = build_geometric_transform(self._augmentation, self._image_size)
        keys = self._images["train"].keys
        return lambda index, epoch: run(self._seed, self._view(epoch), keys[index])

    @property
    def _is_endless(self) -> bool:
        """Whether every epoch sees new views of the images."""
        return self._augment is not None and self._settings.views is None

    def _refuse(self, cut: Cut, passes: int) -> str | None:
        """Says why a cut is not stored; None if it is."""
        if self._settings.store == "never":
            return "features.store is never"
        if self._is_endless:
            return "each epoch augments the images anew (features.views would keep some views)"
        if cut.name not in self._work:
            self._work[cut.name] = count_graph(self._transfer.image, cut.tensors)
        work = self._work[cut.name]
        if not work:
            return "nothing before it has weights"
        if self._settings.store == "always":
            return None
        reading = self._row_bytes(cut) / _BYTES_PER_SECOND
        computing = work / _MULTIPLY_ACCUMULATES_PER_SECOND
        if computing + reading * passes >= computing * passes:
            return f"reading {self._row_bytes(cut):,} bytes an image would not be faster"
        return None

    def _all_passes(self) -> list[_Pass]:
        views = range(1, (self._settings.views or 0) + 1) if self._augment is not None else [None]
        return [
            _Pass(split, view)
            for split in self._images
            for view in (views if split == "train" else [None])
        ]

    def _shelf(self, cut: Cut, digests: Digests, view: int | None) -> Entry:
        more = {}
        if view is not None and self._augmentation is not None:
            augment = self._augmentation.model_dump(mode="json")
            more = {"augment": augment, "seed": self._seed, "view": view}
        return self._cache.entry(self._keys.key(cut.tensors, digests, **more))

    def _read(self, cut: Cut, digests: Digests) -> dict[str, FeatureSet] | None:
        """Returns the features of all splits if all of them are stored and may be."""
        if self._settings.store == "never" or self._is_endless:
            return None
        rows: dict[str, list[StoredExamples]] = {}
        for one in self._all_passes():
            found = self._shelf(cut, digests, one.view).read(self._contents[one.split])
            if found is None:
                return None
            rows.setdefault(one.split, []).append(found)
        several = isinstance(cut.tensors, list)
        return {split: StoredFeatures(views, several=several) for split, views in rows.items()}

    def _fill(self, cuts: Sequence[Cut], digests: Digests) -> str | None:
        """Computes what is missing at these cuts; returns why not if there is no room for it.

        Raises:
            OSError: The store cannot be written.
        """
        gaps = [gap for one in self._all_passes() for gap in self._gaps(one, cuts, digests)]
        if not gaps:
            return None
        needed = sum(len(gap.images) * self._row_bytes(gap.cut) for gap in gaps)
        if not self._make_room(needed, [gap.entry.folder.name for gap in gaps]):
            return f"{needed / 1e9:.2f} GB do not fit into features.max_gb or on the disk"
        passes = [list(same) for _, same in itertools.groupby(gaps, key=lambda gap: gap.of)]
        total = sum(len(_union(one)) for one in passes)
        done = 0
        for one in passes:
            for count in self._compute(one, digests):
                done += count
                self._progress(Event("features_computed", done=done, total=total))
        names = ", ".join(dict.fromkeys(gap.cut.name for gap in gaps))
        self._say(
            f"features: the frozen part before {names} ran once for {total} images, and not in "
            f"each epoch; {needed / 1e6:.1f} MB are kept"
        )
        self._said.update(f"features: read from the store before {cut.name}" for cut in cuts)
        return None

    def _gaps(self, one: _Pass, cuts: Sequence[Cut], digests: Digests) -> Iterator[_Gap]:
        for cut in sorted(cuts, key=lambda cut: cut.position):
            entry = self._shelf(cut, digests, one.view)
            missing = entry.missing(self._contents[one.split])
            if missing:
                yield _Gap(one, cut, entry, missing)

    def _compute(self, gaps: Sequence[_Gap], digests: Digests) -> Iterator[int]:
        """Fills the gaps of one pass; yields the number of images of each step."""
        one = gaps[0].of
        wanted = _union(gaps)
        source, stored = self._find_source(one, gaps[0].cut, wanted, digests)
        trunk = self._trunk(source, [gap.cut for gap in gaps], digests)
        holes = [set(gap.images) for gap in gaps]
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(self._write(gap)) for gap in gaps]
            for inputs, images in self._inputs(one, wanted, stored):
                outputs = trunk(inputs)
                for writer, hole, rows in zip(writers, holes, outputs, strict=True):
                    kept = [place for place, image in enumerate(images) if image in hole]
                    writer.add([tensor.numpy()[kept] for tensor in rows])
                yield len(images)

    def _write(self, gap: _Gap) -> contextlib.AbstractContextManager[ShardWriter]:
        shapes = [tuple(tensor.shape[1:]) for tensor in as_list(gap.cut.tensors)]
        made_by = f"{self._transfer.model.name} before {gap.cut.name}"
        return gap.entry.write(gap.images, shapes, self._settings.dtype, made_by)

    def _find_source(
        self, one: _Pass, cut: Cut, wanted: Sequence[bytes], digests: Digests
    ) -> tuple[Any, StoredExamples | None]:
        """Finds the deepest tensors before a cut that are stored; the images if there are none."""
        image = self._transfer.image
        if self._settings.dtype != "float32" or self._settings.folded:
            return image, None  # what is rounded, or folded elsewhere, would differ by its way
        for part in self._transfer.parts[cut.position - 1 : 0 : -1]:
            earlier = find_cut(self._transfer, (part.name,))
            rows = self._shelf(earlier, digests, one.view).read(wanted)
            if rows is not None:
                return earlier.tensors, rows
        return image, None

    def _trunk(
        self, source: Any, cuts: Sequence[Cut], digests: Digests
    ) -> Callable[[Batch], list[list[tf.Tensor]]]:
        """Returns the function from the source to the tensors of several cuts, compiled once."""
        flat = [tensor for cut in cuts for tensor in as_list(cut.tensors)]
        # By weights too: once folded in, they stay as they were.
        key = tuple(map(id, as_list(source))), self._keys.key(flat, digests)
        if key not in self._trunks:
            self._trunks[key] = connect(
                source,
                flat,
                batch_size=self._transfer.batch_size,
                folded=self._settings.folded,
            )
        run = self._trunks[key]

        def compute(inputs: Batch) -> list[list[tf.Tensor]]:
            found = iter(run(inputs))
            return [[next(found) for _ in as_list(cut.tensors)] for cut in cuts]

        return compute

    def _inputs(
        self, one: _Pass, wanted: Sequence[bytes], stored: StoredExamples | None
    ) -> Iterator[tuple[Batch, list[bytes]]]:
        """Yields what enters the trunk, in prefix batches, and the images that it is of."""
        size = self._transfer.batch_size
        if stored is not None:
            for start in range(0, len(wanted), size):
                part = np.arange(start, min(start + size, len(wanted)))
                rows = stored.take(part)
                yield rows[0] if len(rows) == 1 else rows, [wanted[place] for place in part]
            return
        places = {image: place for place, image in enumerate(self._contents[one.split])}
        order = np.array([places[image] for image in wanted])
        for pixels, indices in self._images[one.split].batches(order, size):
            images = [self._contents[one.split][index] for index in indices]
            if one.view is None or self._augment is None:
                yield pixels, images
            else:
                yield self._augment(pixels, indices, one.view), images

    def _row_bytes(self, cut: Cut) -> int:
        size = np.dtype(self._settings.dtype).itemsize
        return size * sum(math.prod(tensor.shape[1:]) for tensor in as_list(cut.tensors))

    def _make_room(self, needed: int, keep: Sequence[str]) -> bool:
        self._cache.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._cache.root).free - _SPARE_DISK
        budget = int(self._settings.max_gb * 1e9)
        return needed <= free and self._cache.make_room(needed, budget, keep=keep)

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._progress(message(text))


def _union(gaps: Sequence[_Gap]) -> list[bytes]:
    return list(dict.fromkeys(image for gap in gaps for image in gap.images))
