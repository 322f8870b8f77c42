"""Filling the feature store part by part, in whichever process, before anything is trained."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tl_toolkit.events import Handler, ignore
from tl_toolkit.features.parts import Part, list_parts
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.plan.bases import find_base
from tl_toolkit.plan.network import resolve_network
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import feature_values, training_settings
from tl_toolkit.runtime import numerics
from tl_toolkit.sources.addresses import find_model_file
from tl_toolkit.sources.objects import is_address, name_object
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.loop import Trainer
from tl_toolkit.training.prepare import assemble_model, build_trainer, load_images

__all__ = ["FillContext", "fill_part"]


@dataclass(frozen=True)
class FillContext:
    """What a process needs to fill parts of the store; it travels to each node once.

    Attributes:
        key: Names it among those that a worker has seen.
        plan: Plan of the recipe.
        ahead: Units of trainings whose features are stored too, as those of a search.
        manifest: The images.
        threads: Size of TensorFlow's thread pools; None leaves them to TensorFlow.
        base: Address of the file of its own base on an object store; "" for none.
    """

    key: str
    plan: Plan
    ahead: Sequence[Sequence[str]]
    manifest: Manifest
    threads: int | None = None
    base: str = ""

    @classmethod
    def of(
        cls,
        plan: Plan,
        manifest: Manifest,
        ahead: Sequence[Sequence[str]],
        threads: int | None = None,
    ) -> FillContext:
        """Returns a context of its own name.

        Args:
            plan: As above.
            manifest: As above.
            ahead: As above.
            threads: As above.
        """
        base = name_object(str(plan.recipe.model.own_file or ""))
        return cls(
            secrets.token_hex(8), plan, ahead, manifest, threads, base if is_address(base) else ""
        )

    def list_parts(self) -> list[Part]:
        """Returns the parts of all images that train or validate."""
        counts = {
            split: len({example.sha256 for example in examples})
            for split in ("train", "validation")
            if (examples := self.manifest.of(split))
        }
        settings = FeatureSettings.from_values(feature_values(self.plan.recipe))
        return list_parts(
            counts, settings.views if settings.changes_images else None, settings.part
        )


def _build(context: FillContext, progress: Handler) -> Trainer:
    plan = context.plan
    if context.base:  # plan and recipe name copies of the host that made them
        place = find_model_file(context.base)
        plan = replace(plan, recipe=plan.recipe.with_base(place))
        plan = replace(plan, architecture=find_base(plan.recipe))
    plan = replace(plan, weights_file=resolve_network(plan.recipe, again=False).weights_file)
    task = build_task(plan.recipe, plan.classes)
    images = load_images(plan, task, context.manifest)
    images = {split: images[split] for split in ("train", "validation") if split in images}
    compiled = CompiledPhases(assemble_model(plan, task, progress), plan.recipe.precision)
    settings = FeatureSettings.from_values(feature_values(plan.recipe))
    return build_trainer(compiled, settings, images, progress=progress, ahead=context.ahead)


_trainers: dict[str, Trainer] = {}
"""Of the latest context of this process."""


def fill_part(
    context: FillContext, part: Part | None = None, progress: Handler = ignore
) -> str | None:
    """Stores the features of a part, unless they are stored; waits where another one does so.

    Args:
        context: Model and images.
        part: The part; None for all.
        progress: Receives counts of images.

    Returns:
        Why they cannot be stored; None if they are.
    """
    with numerics(deterministic=context.plan.recipe.deterministic, threads=context.threads):
        if context.key not in _trainers:
            _trainers.clear()
            _trainers[context.key] = _build(context, progress)
        return _trainers[context.key].fill(training_settings(context.plan), part)
