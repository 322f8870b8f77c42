"""The feature store of one model and its images: read at a cut, and filled in one pass."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import Batch, as_list, connect
from tl_toolkit.features.fingerprint import Digests, PrefixKeys
from tl_toolkit.features.leases import describe_lessee, leased
from tl_toolkit.features.parts import Part, cut_parts, limit_part
from tl_toolkit.features.sets import FeatureSet, StoredFeatures
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.features.shards import ShardWriter, StoredExamples
from tl_toolkit.features.store import Entry, FeatureCache
from tl_toolkit.features.views import TrainingViews
from tl_toolkit.images.bands import describe_pixels
from tl_toolkit.images.pipeline import Images
from tl_toolkit.runtime import describe_arithmetic
from tl_toolkit.sources.builtin import BUILTIN
from tl_toolkit.sources.objects import common_folder
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.freezing import Cut, find_cut
from tl_toolkit.transfer.precision import precision_of

__all__ = ["Gap", "PrefixStore", "count_images"]


_WAIT_SECONDS = 0.2  # between two looks at parts that other processes compute


@dataclass(frozen=True)
class _Pass:
    """Images of one split, seen one way: as they are, or as one of their augmented views."""

    split: str
    view: int | None


@dataclass(frozen=True)
class Gap:
    """Images whose features at a cut are not stored.

    Attributes:
        of: The split and the view.
        cut: The cut.
        entry: Where the features belong.
        images: SHA-256 of each image's content.
    """

    of: _Pass
    cut: Cut
    entry: Entry
    images: list[bytes]


def count_images(gaps: Sequence[Gap]) -> int:
    """Returns how many images have to be computed; once for all cuts, but for each view.

    Args:
        gaps: All missing features.
    """
    return sum(len(_union(group)) for _, group in itertools.groupby(gaps, key=lambda gap: gap.of))


def _name_data(images: Mapping[str, Images]) -> str:
    """Returns the folder that holds all images, or the name of a built-in set."""
    examples = [example for members in images.values() for example in members.examples]
    if any(example.path.startswith(BUILTIN) for example in examples):
        return examples[0].path.rpartition("/")[0]
    # Converted images lie in the folder of a run.
    return common_folder(example.path for example in examples if example.verdict == "good")


class PrefixStore:
    """Reads and writes the outputs of a model's prefixes for its images.

    Args:
        transfer: The model.
        settings: The settings of its features.
        images: Images by split.
        views: The random views of the training images; None without augmentation.

    Attributes:
        cache: The store on disk.
        computed: Images that this process has computed, one for each view.
    """

    def __init__(
        self,
        transfer: TransferModel,
        settings: FeatureSettings,
        images: Mapping[str, Images],
        views: TrainingViews | None,
    ) -> None:
        self.cache = FeatureCache(settings.location, budget=int(settings.max_gb * 1e9))
        self.computed = 0
        self._transfer = transfer
        self._settings = settings
        self._images = images
        self._views = views
        self._keys = PrefixKeys(transfer, self._describe_context())
        self._contents = {
            split: [bytes.fromhex(example.sha256) for example in members.examples]
            for split, members in images.items()
        }
        self._distinct = {
            split: list(dict.fromkeys(contents)) for split, contents in self._contents.items()
        }
        self._functions: dict[Any, Callable[[Batch], list[tf.Tensor]]] = {}
        self._entries: dict[str, Entry] | None = None

    @functools.cached_property
    def _data(self) -> str:
        return _name_data(self._images)

    @functools.cached_property
    def _orders(self) -> dict[str, dict[bytes, int]]:
        """The place of each image among the different ones of its split."""
        return {split: _number(distinct) for split, distinct in self._distinct.items()}

    @functools.cached_property
    def _places(self) -> dict[str, dict[bytes, int]]:
        """The place of each image in its split, the last one of several."""
        return {split: _number(contents) for split, contents in self._contents.items()}

    def _describe_context(self) -> dict[str, Any]:
        return {
            "image_size": list(self._settings.image_size),
            "resize": str(self._settings.resize),
            **describe_pixels(self._settings.channels),
            "batch": self._transfer.batch_size,
            "constant_folded": self._settings.folded,
            "dtype": self._settings.dtype,
            **describe_arithmetic(),
            # Of layers, whose keys leave out the names of their policies.
            "precision": precision_of(self._transfer),
        }

    def example_bytes(self, cut: Cut) -> int:
        """Returns how many bytes the features of one image take.

        Args:
            cut: The cut where they leave the prefix.
        """
        count: int = sum(math.prod(tensor.shape[1:]) for tensor in as_list(cut.tensors))
        return count * np.dtype(self._settings.dtype).itemsize

    def _passes(self, only: str | None = None) -> list[_Pass]:
        views = range(1, (self._settings.views or 0) + 1) if self._views is not None else [None]
        return [
            _Pass(split, view)
            for split in self._images
            if only in (None, split)
            for view in (views if split == "train" else [None])
        ]

    def _entry(self, cut: Cut, digests: Digests, view: int | None) -> Entry:
        facts = {}
        if view is not None and self._views is not None:
            facts = self._views.describe(view)
        key = self._keys.key(cut.tensors, digests, **facts)
        if self._entries is None:
            return self.cache.entry(key)
        return self._entries.setdefault(key, self.cache.entry(key))

    def find_unreadable(self, cut: Cut) -> str:
        """Returns why nothing can be kept at a cut: code that its key needs; else "".

        Args:
            cut: Where features leave the prefix.
        """
        return self._keys.find_unreadable(cut.tensors)

    def read(
        self, cut: Cut, digests: Digests, *, only: str | None = None
    ) -> dict[str, FeatureSet] | None:
        """Returns the features of every split; None unless all of them are stored.

        Args:
            cut: The cut where they leave the prefix.
            digests: Digests of all weights as they are now.
            only: The one split that is read; None for all.
        """
        stored: dict[str, list[StoredExamples]] = {}
        for image_pass in self._passes(only):
            entry = self._entry(cut, digests, image_pass.view)
            examples = entry.read(self._contents[image_pass.split])
            if examples is None:
                return None
            stored.setdefault(image_pass.split, []).append(examples)
        several = isinstance(cut.tensors, list)
        return {split: StoredFeatures(views, several=several) for split, views in stored.items()}

    def keys(self, cuts: Sequence[Cut], digests: Digests) -> list[str]:
        """Returns the keys of all entries that hold features of these cuts, complete or not.

        Args:
            cuts: The cuts.
            digests: Digests of all weights as they are now.
        """
        return [
            self._entry(cut, digests, image_pass.view).folder.name
            for image_pass in self._passes()
            for cut in cuts
        ]

    def find_gaps(
        self,
        cuts: Sequence[Cut],
        digests: Digests,
        *,
        only: str | None = None,
        part: Part | None = None,
    ) -> list[Gap]:
        """Returns the missing features at these cuts, by split and view, shallower cuts first.

        Args:
            cuts: The cuts.
            digests: Digests of all weights as they are now.
            only: The one split that is searched; None for all.
            part: The one part that is searched; None for all.
        """
        if part is not None and self._entries is None:
            # Parts follow each other, of few keys: each would read all shards again.
            self._entries = {}
        gaps = []
        for image_pass in self._passes(part.split if part else only):
            if part is not None and image_pass.view != part.view:
                continue
            members = self._distinct[image_pass.split]
            if part is not None:
                start = part.number * self._settings.part
                members = members[start : start + self._settings.part]
            for cut in sorted(cuts, key=lambda cut: cut.position):
                entry = self._entry(cut, digests, image_pass.view)
                if images := entry.missing(members):
                    gaps.append(Gap(image_pass, cut, entry, images))
        return gaps

    def fill(
        self,
        gaps: Sequence[Gap],
        digests: Digests,
        *,
        report_wait: Callable[[str], None] = lambda lessee: None,
    ) -> Iterator[int]:
        """Computes and stores missing features, in one pass for each split and view.

        Parts that another process computes are waited for, and are computed here if it ends first.

        Args:
            gaps: The missing features, as `find_gaps` returns them.
            digests: Digests of all weights as they are now.
            report_wait: Receives who computes what is waited for, once for each pass.

        Yields:
            The number of images of each step; 0 at each turn of a wait.

        Raises:
            OSError: The store cannot be written.
        """
        for _, group in itertools.groupby(gaps, key=lambda gap: gap.of):
            yield from self._fill_pass(list(group), digests, report_wait)

    def _fill_pass(
        self, gaps: Sequence[Gap], digests: Digests, report_wait: Callable[[str], None]
    ) -> Iterator[int]:
        order = self._orders[gaps[0].of.split]
        size = limit_part(
            self._settings.part, len(order),
            shares=self._settings.shares, batch_size=self._transfer.batch_size,
        )  # fmt: skip
        waiting = cut_parts(_union(gaps), order, size)
        wanted = [set(gap.images) for gap in gaps]
        entries = [gap.entry.leases for gap in gaps]
        is_reported = False
        while waiting:
            held = []
            for part in waiting:
                with leased(entries, part) as is_ours:
                    if is_ours:
                        yield from self._fill_part(gaps, wanted, part, digests)
                    else:
                        held.append(part)
            if len(held) == len(waiting):
                if not is_reported:
                    report_wait(describe_lessee(entries, held[0]))
                    is_reported = True
                yield 0  # so that the caller may report that it waits, or end
                time.sleep(_WAIT_SECONDS)
            waiting = held

    def _fill_part(
        self,
        gaps: Sequence[Gap],
        wanted: Sequence[set[bytes]],
        part: Sequence[bytes],
        digests: Digests,
    ) -> Iterator[int]:
        """Computes what is missing of a part, unless another process has done so by now."""
        own = [[image for image in part if image in images] for images in wanted]
        lacking = [
            replace(gap, images=gap.entry.missing(images))
            for gap, images in zip(gaps, own, strict=True)
        ]
        lacking = [gap for gap in lacking if gap.images]
        count = 0
        if lacking:
            for done in self._compute(lacking, digests):
                yield done
                count += done
        if count < len(part):  # another process has computed them
            yield len(part) - count

    def _compute(self, gaps: Sequence[Gap], digests: Digests) -> Iterator[int]:
        images = self._order(gaps)
        source, stored = self._find_source(gaps[0], images, digests)
        compute = self._build_function(source, [gap.cut for gap in gaps], digests)
        missing = [set(gap.images) for gap in gaps]
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(self._write(gap)) for gap in gaps]
            for inputs, batch in self._batches(gaps[0].of, images, stored):
                outputs = compute(inputs)
                for writer, wanted, tensors in zip(writers, missing, outputs, strict=True):
                    places = [place for place, image in enumerate(batch) if image in wanted]
                    writer.add([tensor.numpy()[places] for tensor in tensors])
                self.computed += len(batch)
                yield len(batch)

    def _order(self, gaps: Sequence[Gap]) -> list[bytes]:
        """Returns the images of all gaps as their split has them: each gap's are in that order."""
        return sorted(_union(gaps), key=self._orders[gaps[0].of.split].__getitem__)

    def _write(self, gap: Gap) -> contextlib.AbstractContextManager[ShardWriter]:
        shapes = [tuple(tensor.shape[1:]) for tensor in as_list(gap.cut.tensors)]
        made_by = f"{self._transfer.model.name} before {gap.cut.name}"
        return gap.entry.write(gap.images, shapes, self._settings.dtype, made_by, data=self._data)

    def _find_source(
        self, gap: Gap, images: Sequence[bytes], digests: Digests
    ) -> tuple[Any, StoredExamples | None]:
        """Finds the deepest tensors before a cut that are stored; the images if there are none."""
        image = self._transfer.image
        is_mixed = precision_of(self._transfer) != "float32"
        if self._settings.dtype != "float32" or self._settings.folded or is_mixed:
            # A value that was rounded, or constant-folded at another cut, would differ.
            return image, None
        for part in self._transfer.parts[gap.cut.position - 1 : 0 : -1]:
            earlier = find_cut(self._transfer, (part.name,))
            stored = self._entry(earlier, digests, gap.of.view).read(images)
            if stored is not None:
                return earlier.tensors, stored
        return image, None

    def _build_function(
        self, source: Any, cuts: Sequence[Cut], digests: Digests
    ) -> Callable[[Batch], list[list[tf.Tensor]]]:
        """Returns the function from the source to the tensors of several cuts, compiled once."""
        flat = [tensor for cut in cuts for tensor in as_list(cut.tensors)]
        # The key has the weights too: a constant-folded function keeps those that it was built
        # with.
        key = tuple(map(id, as_list(source))), self._keys.key(flat, digests)
        if key not in self._functions:
            self._functions[key] = connect(
                source,
                flat,
                batch_size=self._transfer.batch_size,
                constant_folded=self._settings.folded,
            )
        run = self._functions[key]

        def compute(inputs: Batch) -> list[list[tf.Tensor]]:
            tensors = iter(run(inputs))
            return [[next(tensors) for _ in as_list(cut.tensors)] for cut in cuts]

        return compute

    def _batches(
        self, image_pass: _Pass, images: Sequence[bytes], stored: StoredExamples | None
    ) -> Iterator[tuple[Batch, list[bytes]]]:
        """Yields prefix batches of images, or of their stored features, and the images' digests."""
        size = self._transfer.batch_size
        if stored is not None:
            for start in range(0, len(images), size):
                batch = list(images[start : start + size])
                tensors = stored.take(np.arange(start, start + len(batch)))
                yield tensors[0] if len(tensors) == 1 else tensors, batch
            return
        contents, places = self._contents[image_pass.split], self._places[image_pass.split]
        order = np.array([places[image] for image in images])
        for pixels, indices in self._images[image_pass.split].batches(order, size):
            batch = [contents[index] for index in indices]
            if image_pass.view is None or self._views is None:
                yield pixels, batch
            else:
                yield self._views.augment(pixels, indices, image_pass.view), batch


def _number(images: Sequence[bytes]) -> dict[bytes, int]:
    return {image: place for place, image in enumerate(images)}


def _union(gaps: Iterator[Gap] | Sequence[Gap]) -> list[bytes]:
    return list(dict.fromkeys(image for gap in gaps for image in gap.images))
