"""The plan of a valid recipe: computed once, before training, and used by every later step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os.path import exists  # unlike Path.exists it raises for no path
from pathlib import Path
from typing import Any

from tl_toolkit.catalog.bands import BandStatistics, build_band_rule, without_color
from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.catalog.published import spell_size
from tl_toolkit.catalog.records import RGB, PixelRule, WeightFile
from tl_toolkit.plan.space import count_trials, resolve_space
from tl_toolkit.plan.start import Start
from tl_toolkit.plan.tasks import Survey
from tl_toolkit.recipe.anchors import INTERPOLATE
from tl_toolkit.recipe.phase_schema import PROBE, EarlyStopping
from tl_toolkit.recipe.remote import find_address, name_object
from tl_toolkit.recipe.schedules import DecaySchedule, PlateauSchedule
from tl_toolkit.recipe.schema import Phase, Recipe, UnfreezeOnly
from tl_toolkit.sources.leaks import Leak, describe_leaks
from tl_toolkit.sources.listing import Listing

__all__ = ["OPEN", "Plan"]

OPEN = "to be split"
"""The key for the number of images whose split is not sampled yet."""

_NAMED_CLASSES = 10


@dataclass(frozen=True, repr=False)
class Plan:
    """The plan of a valid recipe.

    Attributes:
        recipe: The recipe, resolved: its head is a section.
        survey: The images that it names, and their problems.
        architecture: The catalog's record of the base.
        units: For each phase, or each part of one that unfreezes block by block, the units of the
            base that train, input to output.
        weights_file: The weight file; None for random weights, or the base's own.
        published: The record of the weight file, if it is one that can be fetched.
        start: The run that training starts from; None where there is none.
        reasons: For each value that a preset chose, what it is and why.
        bands: Statistics of the training images' bands, where the base needs them; None until they
            are measured, and for RGB.
        near_leaks: Images that look like one of another split, as an earlier check found them.
    """

    recipe: Recipe
    survey: Survey
    architecture: Architecture
    units: Mapping[str, tuple[str, ...]]
    weights_file: Path | None
    published: WeightFile | None
    start: Start | None = None
    reasons: tuple[str, ...] = ()
    bands: BandStatistics | None = None
    near_leaks: tuple[Leak, ...] = ()

    def __repr__(self) -> str:
        """Returns name, images and phases: the fields hold every image of the data."""
        images = ", ".join(f"{sum(n.values()):,} {split}" for split, n in self.images.items())
        phases = "; ".join(self._list_phases())
        return (
            f"Plan({self.recipe.name!r}, base={self.architecture.reference!r}, {images}; {phases})"
        )

    @cached_property
    def listing(self) -> Listing:
        """The images, listed once."""
        return self.survey.list_files()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the outputs; none where pixels have no class."""
        return self.survey.classes

    @property
    def images(self) -> dict[str, Mapping[str, int]]:
        """Images by class for each split, and for those still "to be split" by fractions."""
        return {split or OPEN: counts for split, counts in self.survey.counts.items()}

    @property
    def needs_bands(self) -> bool:
        """Whether the base reads bands, which statistics bring to the range that it expects."""
        return self.recipe.data.channels != RGB and self.recipe.model.own_file is None

    @property
    def pixels(self) -> PixelRule | None:
        """The rule of the pixels where it is not the record's, which is for RGB.

        Raises:
            ValueError: The bands are not measured yet.
        """
        if self.recipe.data.channels == RGB:
            return None
        if not self.needs_bands:
            return without_color(self.architecture.pixels)
        if self.bands is None:
            raise ValueError("expected the statistics of the bands")
        is_random = self.weights_file is None
        return build_band_rule(self.bands, self.architecture, is_random=is_random)

    @property
    def is_fetched(self) -> bool:
        """Whether the weight file is on this machine."""
        return self.weights_file is None or exists(self.weights_file)

    @property
    def ignored(self) -> str:
        """Files that are no images, as "3 files ignored: 2 .txt", or ""."""
        return "" if self.recipe.data.builtin else self.listing.describe_ignored()

    @property
    def excluded(self) -> str:
        """Images that are left out by name, as "3 images left out by exclude.csv", or ""."""
        return self.listing.excluded.describe() if self.recipe.data.exclude else ""

    @property
    def warnings(self) -> list[str]:
        """Sentences on what will work, but probably not as it is meant."""
        stopping = self.recipe.early_stopping
        doubts = [self.architecture.doubt, self._describe_dropped(), self._describe_unmixed()]
        doubts += [self._describe_joined(), self._describe_near(), self._describe_memory()]
        for phase in self.recipe.phases:
            doubts += [_describe_warmup(phase), _describe_plateau(phase, stopping)]
        return [text for text in doubts if text]

    def _describe_unmixed(self) -> str:
        """Describes mixed images that no phase would train on."""
        augment = self.recipe.augment
        is_mixed = augment is not None and (augment.mixup or augment.cutmix)
        if not is_mixed or any(phase.epochs for phase in self.recipe.phases):
            return ""
        return (
            "augment.mixup and cutmix change nothing: the head is solved on images as they are, "
            "and no phase trains by steps"
        )

    def _describe_joined(self) -> str:
        """Describes widened weights that no phase trains: bands stay one sum."""
        first = self.architecture.blocks[0].units[0].name
        is_widened = self.published is not None and self.recipe.data.channels not in (1, RGB)
        if not is_widened or any(first in units for units in self.units.values()):
            return ""
        count = len(self.architecture.blocks)
        return (
            f"no phase trains {first}, which weights of RGB let see the sum of the bands alone: "
            f"what one of them tells is lost. Try: a phase with unfreeze={count}"
        )

    def _describe_near(self) -> str:
        """Describes near duplicates in two splits, which an earlier check of the data found."""
        if not self.near_leaks:
            return ""
        return (
            f"{describe_leaks(self.near_leaks)}\n  They flatter what is measured. Try: tltool data "
            "check RECIPE --exclude near_leak --exclusions exclude.csv; or data.leakage=refuse_near"
        )

    def _describe_memory(self) -> str:
        """Describes a feature store that ends with the process."""
        features = self.recipe.features
        address = "" if features.location is None else find_address(features.location)
        if features.store == "never" or not address.startswith("memory://"):
            return ""
        return (
            f"features.location: {address} lives in this process alone, and ends with it. Try: a "
            "folder, or the address of an object store"
        )

    def _describe_dropped(self) -> str:
        """Describes regularizers of a user's own base that train without effect."""
        names, model = self.architecture.regularized, self.recipe.model
        if not names or model.l1 or model.l2 or not any(self.units.values()):
            return ""
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return (
            f"the base's own kernel_regularizer is left out ({names[0]}{more}): the recipe's l1 "
            "and l2 are 0. Try: model.l2=1e-4"
        )

    def as_json(self) -> dict[str, Any]:
        """Returns the plan as plain values."""
        model = self.recipe.model
        return {
            "name": self.recipe.name,
            "base": self._name_base(),
            "arguments": dict(model.arguments),
            "weights": model.weights,
            "weights_file": str(self.weights_file) if self.weights_file else None,
            "weights_fetched": self.is_fetched,
            "start": None if self.start is None else self.start.as_json(),
            "classes": list(self.classes),
            "images": {split: dict(counts) for split, counts in self.images.items()},
            "channels": self.recipe.data.channels,
            "ignored": self.ignored,
            "excluded": self.excluded,
            "warnings": self.warnings,
            "reasons": list(self.reasons),
            "phases": [
                {"name": stage.name, "epochs": stage.epochs, "units": list(self.units[stage.name])}
                for phase in self.recipe.phases
                for stage in phase.stages
            ],
        }

    def _name_base(self) -> Any:
        """Returns the base as in the recipe; a model that was given in Python by its name."""
        is_given = self.recipe.model.own_file is not None and not self.architecture.file
        base = self.recipe.model.model_dump(mode="json")["base"]
        return {**base, "model": self.architecture.name} if is_given else base

    def describe(self) -> str:
        """Returns the plan as lines to read."""
        model = self.recipe.model
        arguments = "".join(f", {key} {value}" for key, value in model.arguments.items())
        weights = name_object(str(self.weights_file or model.weights or "its own"))
        fetch = " (is here)" if self.published else ""
        if self.published and not self.is_fetched:
            megabytes = spell_size(self.architecture, self.published)
            fetch = f" (is not here: will be fetched, {megabytes}, which takes a network)"
        names = ", ".join(self.classes[:_NAMED_CLASSES])
        more = ", ..." if len(self.classes) > _NAMED_CLASSES else ""
        images = ", ".join(f"{sum(n.values()):,} {split}" for split, n in self.images.items())
        outputs = "classes" if self.recipe.task.has_classes else "targets"
        base = self.architecture.file or self.architecture.name
        return "\n".join(
            (
                f"base     {base}{arguments}; weights {weights}{fetch}",
                *([f"start    {self.start.describe()}"] if self.start else []),
                *([f"{outputs}  {len(self.classes)}: {names}{more}"] if self.classes else []),
                f"images   {images}{self._describe_channels()}",
                *([f"folds    {self._describe_folds()}"] if self.recipe.data.folds else []),
                f"phases   {'; '.join(self._list_phases())}",
                *(f"chosen   {reason}" for reason in self.reasons),
                *([f"search   {self._describe_search()}"] if self.recipe.search else []),
                *(f"note     {text}" for text in (self.ignored, self.excluded) if text),
                *(f"warning  {text}" for text in self.warnings),
            )
        )

    def _describe_channels(self) -> str:
        channels = self.recipe.data.channels
        how = ", normalized by those to train from" if self.needs_bands else ""
        return f"; {channels} channel{'s' if channels > 1 else ''}{how}" if channels != RGB else ""

    def _describe_folds(self) -> str:
        group = self.recipe.data.group
        together = f", images of one {group} together" if group else ""
        return f"{self.recipe.data.folds}{together}; then the model is trained on all images"

    def _describe_search(self) -> str:
        fields = ", ".join(resolve_space(self.recipe))
        return f"{count_trials(self.recipe)} trials over {fields}"

    def _describe_phase(self, phase: Phase) -> str:
        units = self.units[phase.stages[-1].name]
        count = "1 unit" if len(units) == 1 else f"{len(units)} units"
        trained = f"head and {count} from {units[0]}" if units else "head"
        if isinstance(phase.unfreeze, UnfreezeOnly):
            trained = f"head and {', '.join(phase.unfreeze.only)}"
        if len(phase.stages) > 1:
            trained += f", block by block in {len(phase.stages)} parts"
        return f"{phase.name} {phase.epochs} epochs ({trained})"

    def _list_phases(self) -> list[str]:
        solver = self.recipe.model.classifier.solver
        solved = [f"{PROBE} (head, {solver})"] if solver else []
        mixed = self.recipe.interpolate
        mixtures = [f"{INTERPOLATE} ({mixed.steps} mixtures)"] if mixed else []
        return [*solved, *map(self._describe_phase, self.recipe.phases), *mixtures]


def _describe_warmup(phase: Phase) -> str:
    """Returns a warning if a phase ends before its warm-up does, else ""."""
    rate = phase.learning_rate
    if not isinstance(rate, DecaySchedule) or not 0 < phase.epochs < rate.warmup_epochs:
        return ""
    field = f"phases.{phase.name}.learning_rate.warmup_epochs"
    return (
        f"the warm-up of phase {phase.name} takes {rate.warmup_epochs:g} epochs, the phase has "
        f"{phase.epochs}: the rate never reaches {rate.initial}. Try: {field}=1, or more epochs"
    )


def _describe_plateau(phase: Phase, stopping: EarlyStopping | None) -> str:
    """Returns a warning if a phase stops before its rate can fall, else ""."""
    rate = phase.learning_rate
    if not isinstance(rate, PlateauSchedule):
        return ""
    field = f"phases.{phase.name}.learning_rate.patience"
    end, what = phase.epochs, f"phase {phase.name} has {phase.epochs}"
    if stopping is not None and stopping.patience <= end:
        end, what = stopping.patience, f"early_stopping ends it after {stopping.patience}"
    if not 0 < end <= rate.patience:
        return ""
    return (
        f"the rate of phase {phase.name} falls after {rate.patience} epochs without a better "
        f"result, and {what}: it never falls. Try: {field}={max(1, end // 2)}"
    )
