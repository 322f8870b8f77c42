"""The source of the features that a suffix is trained on: computed live, or stored."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from tl_toolkit.architectures.batches import FixedBatch
from tl_toolkit.architectures.costs import count_graph
from tl_toolkit.events import Event, Handler, message
from tl_toolkit.features.fingerprint import Digests
from tl_toolkit.features.parts import Part
from tl_toolkit.features.prefix_store import Gap, PrefixStore, count_images
from tl_toolkit.features.sets import FeatureSet, LiveFeatures
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.features.store import SPARE_DISK
from tl_toolkit.features.teacher import find_outputs
from tl_toolkit.features.views import TrainingViews
from tl_toolkit.images.augment import GeometricTransform
from tl_toolkit.images.geometry import Resize
from tl_toolkit.images.mixing import Mixer
from tl_toolkit.images.pipeline import Images
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.freezing import Cut, Split

__all__ = ["FeatureSet", "FeatureSource"]

# Both are rough: they decide whether reading an example is cheaper than computing it.
_MULTIPLY_ACCUMULATES_PER_SECOND = 20e9
_BYTES_PER_SECOND = 1e9


class FeatureSource:
    """Returns the features at the cut of each phase, and computes those that are not stored.

    Args:
        transfer: The model.
        settings: The settings of its features, and whether they are stored.
        images: Images by split.
        progress: Receives the number of images computed, and where features come from.
    """

    def __init__(
        self,
        transfer: TransferModel,
        settings: FeatureSettings,
        images: Mapping[str, Images],
        progress: Handler,
    ) -> None:
        self._transfer = transfer
        self._settings = settings
        self._images = images
        self._progress = progress
        augment = settings.augment
        self._views = None
        if augment is not None and settings.changes_images:
            self._views = TrainingViews(settings, augment, images["train"].keys)
        self._store = PrefixStore(transfer, settings, images, self._views)
        self._reported: set[str] = set()
        self._work: dict[str, int] = {}
        self._roomy: set[tuple[str, ...]] = set()

    def at(
        self,
        split: Split,
        digests: Digests,
        *,
        passes: int,
        phase_seed: int = 0,
        also: Sequence[Cut] = (),
        mixer: Mixer | None = None,
        only: str | None = None,
    ) -> dict[str, FeatureSet]:
        """Returns the features of every split of the images at a cut.

        Args:
            split: The model, cut; its prefix computes features that are not stored.
            digests: Digests of all weights as they are now.
            passes: How often the features will be read; decides whether to store them.
            phase_seed: Decides the new views of training images in each epoch; other splits, and
                views that are stored, do not depend on it.
            also: Later cuts whose prefixes will not have changed by then: their features are
                computed in the same pass, if there is one.
            mixer: Mixes the training images, which are then new ones in each epoch.
            only: The one split whose features are read, and stored; None for all.
        """
        if mixer is not None:
            self._report_once(
                "features: the frozen layers run in every epoch: augment mixes images anew in each "
                "(phases.*.feature_mixup would mix what is stored)"
            )
            return self._compute_live(split, phase_seed, mixer)
        features = None
        if self._may_read(split.cut):
            features = self._store.read(split.cut, digests, only=only)
        if features is not None:
            self._report_once(f"features: read from the store before {split.cut.name}")
            return features
        reason = self._refuse(split.cut, passes)
        if reason is None:
            reason = self._fill_all(split.cut, digests, passes=passes, also=also, only=only)
        if reason is None:
            features = self._store.read(split.cut, digests, only=only)
            if features is not None:
                return features
            reason = "what was stored is gone: another process deleted it, or memory ran out"
        self._report_once(f"features: the frozen layers run in every epoch: {reason}")
        return self._compute_live(split, phase_seed)

    def fill(
        self,
        cut: Cut,
        digests: Digests,
        *,
        passes: int,
        also: Sequence[Cut] = (),
        part: Part | None = None,
    ) -> str | None:
        """Stores the features of a cut without reading them; returns the reason if it cannot.

        Args:
            cut: The cut.
            digests: As in `at`.
            passes: As in `at`.
            also: As in `at`.
            part: The one part that is filled; None for all.
        """
        reason = self._refuse(cut, passes)
        if reason is None:
            reason = self._fill_all(cut, digests, passes=passes, also=also, only=None, part=part)
        return reason

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self._settings.channels

    def find_outputs(
        self, path: Path, *, image_size: tuple[int, int], resize: Resize
    ) -> np.ndarray:
        """Returns the outputs of another whole model for the training images, as they are.

        They are stored unless the store is never used.

        Args:
            path: The file of the model.
            image_size: (height, width) of the model's images.
            resize: How images are resized to that size.
        """
        return find_outputs(
            path, self._images["train"], image_size=image_size, resize=resize,
            is_stored=self._settings.store != "never", progress=self._progress,
        )  # fmt: skip

    def read_plain(self, cut: Cut, digests: Digests) -> dict[str, FeatureSet] | None:
        """Returns stored features of the images as they are; None where there are none.

        Args:
            cut: Where the features leave the prefix.
            digests: Digests of the weights that have computed them.
        """
        if self._views is not None or not self._may_read(cut):
            return None
        return self._store.read(cut, digests)

    def compute_plain(self, cut: Cut) -> dict[str, FeatureSet]:
        """Returns features of the images as they are, which are computed when they are read.

        Args:
            cut: As in `read_plain`.
        """
        model = keras.Model(self._transfer.image, cut.tensors, name="prefix")
        prefix = FixedBatch(model, batch_size=self._transfer.batch_size)
        return {
            name: LiveFeatures(images, prefix, dtype=self._settings.dtype)
            for name, images in self._images.items()
        }

    def geometric_transform(
        self, phase_seed: int
    ) -> Callable[[int, int], GeometricTransform] | None:
        """Returns how the training image at an index moves in an epoch (from 1), live or stored.

        None without augmentation.

        Args:
            phase_seed: As in `at`.
        """
        if self._views is None:
            return None
        return functools.partial(self._views.geometric_transform, phase_seed=phase_seed)

    def build_mixer(self, phase_seed: int) -> Mixer | None:
        """Returns what mixes the training images of a phase; None where none are mixed.

        Args:
            phase_seed: Decides what is mixed in each epoch.
        """
        augment = self._settings.augment
        if augment is None or not (augment.mixup or augment.cutmix):
            return None
        return Mixer(
            phase_seed, mixup=augment.mixup, cutmix=augment.cutmix,
            image_size=self._settings.image_size,
        )  # fmt: skip

    def _compute_live(
        self, split: Split, phase_seed: int, mixer: Mixer | None = None
    ) -> dict[str, FeatureSet]:
        augment = None
        if self._views is not None:
            augment = functools.partial(self._views.augment, phase_seed=phase_seed)
        prefix = split.prefix
        if self._settings.folded:
            prefix = FixedBatch(prefix.model, batch_size=prefix.batch_size, constant_folded=True)
        return {
            name: LiveFeatures(
                images,
                prefix,
                augment=augment if name == "train" else None,
                dtype=self._settings.dtype,
                mixer=mixer if name == "train" else None,
            )
            for name, images in self._images.items()
        }

    def _may_read(self, cut: Cut) -> bool:
        """Returns whether stored features are read, even if storing them would not save time."""
        if self._settings.store == "never" or self._settings.has_endless_views:
            return False
        return not self._store.find_unreadable(cut)

    def _refuse(self, cut: Cut, passes: int) -> str | None:
        """Returns why a cut is not stored; None if it is."""
        if self._settings.store == "never":
            return "features.store is never"
        if self._settings.has_endless_views:
            return "each epoch augments the images anew (features.views would keep some views)"
        if unreadable := self._store.find_unreadable(cut):
            return f"{unreadable}, and a change of it would not be noticed"
        if cut.name not in self._work:
            self._work[cut.name] = count_graph(self._transfer.image, cut.tensors)
        work = self._work[cut.name]
        if not work:
            return "none of them has weights, so that storing their outputs saves nothing"
        if self._settings.store == "always":
            return None
        size = self._store.example_bytes(cut)
        reading = size / _BYTES_PER_SECOND
        computing = work / _MULTIPLY_ACCUMULATES_PER_SECOND
        if computing + reading * passes >= computing * passes:
            return f"reading stored outputs ({size:,} bytes an image) would not be faster"
        return None

    def _fill_all(
        self,
        cut: Cut,
        digests: Digests,
        *,
        passes: int,
        also: Sequence[Cut],
        only: str | None,
        part: Part | None = None,
    ) -> str | None:
        """Stores a cut, and those of `also` that save time; returns the reason if it cannot."""
        worthy = [later for later in also if self._refuse(later, passes) is None]
        cuts = list({chosen.name: chosen for chosen in [cut, *worthy]}.values())
        try:
            reason = self._fill(cuts, digests, only, part)
            if reason is not None and len(cuts) > 1:
                # If there is no room for all cuts, there may be room for the first one.
                reason = self._fill([cut], digests, only, part)
        except OSError as error:
            return f"the store cannot be written: {error.strerror or error}"
        return reason

    def _fill(
        self, cuts: Sequence[Cut], digests: Digests, only: str | None, part: Part | None
    ) -> str | None:
        """Computes missing features at these cuts; returns the reason if there is no room for them.

        Raises:
            OSError: The store cannot be written.
        """
        names = tuple(cut.name for cut in cuts)
        if part is None or names not in self._roomy:
            gaps = self._store.find_gaps(cuts, digests, only=only)
            needed = sum(len(gap.images) * self._store.example_bytes(gap.cut) for gap in gaps)
            # Complete entries stay too: they are read together with those that are computed now.
            if gaps and not self._make_room(needed, self._store.keys(cuts, digests)):
                return self._describe_full(needed)
        if part is not None:
            # Of thousands of parts, each asks for its own images alone from here on.
            self._roomy.add(names)
            gaps = self._store.find_gaps(cuts, digests, part=part)
        if gaps:
            self._fill_gaps(gaps, digests)
            self._reported.update(
                _without_numbers(f"features: read from the store before {name}") for name in names
            )
        return None

    def _fill_gaps(self, gaps: Sequence[Gap], digests: Digests) -> None:
        """Computes missing features, and reports how many."""
        total = count_images(gaps)
        needed = sum(len(gap.images) * self._store.example_bytes(gap.cut) for gap in gaps)
        done, before = 0, self._store.computed

        def report_wait(lessee: str) -> None:
            self._progress(
                message(f"waiting for {lessee}, which computes features of these images")
            )

        for count in self._store.fill(gaps, digests, report_wait=report_wait):
            done += count
            self._progress(Event("features_computed", done=done, total=total))
        names = ", ".join(dict.fromkeys(gap.cut.name for gap in gaps))
        own = self._store.computed - before
        here = "" if own == total else f", for {own} of them in this process"
        self._report_once(
            f"features: the frozen part before {names} ran once for {total} images{here}, and not "
            f"in each epoch; {needed / 1e6:.1f} MB are kept"
        )

    def _describe_full(self, needed: int) -> str:
        text = f"{needed / 1e9:.2f} GB do not fit into features.max_gb or on the disk"
        if unsent := self._store.cache.measure_unsent():
            text += f", where {unsent / 1e9:.2f} GB wait until their runs send them to the store"
        return text

    def _make_room(self, needed: int, keep: Sequence[str]) -> bool:
        cache = self._store.cache
        cache.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache.root).free - SPARE_DISK
        budget = int(self._settings.max_gb * 1e9)
        return needed <= free and cache.make_room(needed, budget, keep=keep)

    def _report_once(self, text: str) -> None:
        """Reports a sentence, once for all cuts that differ in numbers alone."""
        kind = _without_numbers(text)
        if kind not in self._reported:
            self._reported.add(kind)
            self._progress(message(text))


def _without_numbers(text: str) -> str:
    return re.sub(r"[\d.,]+", "0", text)
