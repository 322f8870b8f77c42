"""The statistics that normalize bands: measured, taken over from a run, and kept."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tl_toolkit.catalog.bands import BandStatistics
from tl_toolkit.events import Handler, message, warning
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.statistics import measure_bands
from tl_toolkit.plan.plan import Plan
from tl_toolkit.runs.files import write_json
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.base import Task
from tl_toolkit.training.prepare import scan_images

__all__ = ["scan_bands", "settle_bands"]


def settle_bands(
    plan: Plan, examples: Sequence[Example], progress: Handler, folder: RunFolder | None = None
) -> Plan:
    """Returns a plan with the statistics of its bands, where its base needs them.

    A run that starts from another keeps the statistics that its weights were trained with.

    Args:
        plan: The plan.
        examples: Its training images.
        progress: Receives the statistics as a message, and a warning of a band that is constant.
        folder: Receives bands.json; None writes none.

    Raises:
        DataError: An image cannot be read any more, or the run to start from has no statistics.
    """
    channels = plan.recipe.data.channels
    if not plan.needs_bands or plan.bands is not None:
        return plan
    if plan.start is not None:
        before = RunFolder(plan.start.run)
        bands = BandStatistics.from_values(before.read_json(before.bands))
        source = "of the run that training starts from"
    else:
        bands = measure_bands(examples, channels)
        source = f"over {bands.images:,} training images"
    each = ", ".join(
        f"{m:.4g} +- {d:.4g}" for m, d in zip(bands.mean, bands.deviation, strict=True)
    )
    progress(message(f"bands: mean and deviation {source} normalize them: {each}"))
    constant = [str(band) for band, deviation in enumerate(bands.deviation, 1) if not deviation]
    if constant:
        progress(warning(f"band {', '.join(constant)} is the same in all pixels: it tells nothing"))
    if folder is not None:
        write_json(folder.bands, bands.as_json())
    return replace(plan, bands=bands)


def scan_bands(plan: Plan, task: Task, progress: Handler) -> Plan:
    """Returns a plan with the statistics of its bands, for a model that is built without a run.

    Args:
        plan: Says which images there are.
        task: Inspects files of targets.
        progress: As in `settle_bands`, and receives the number of images inspected.

    Raises:
        DataError: Images cannot be used.
    """
    if not plan.needs_bands:
        return plan
    with tempfile.TemporaryDirectory(prefix="tltool-") as folder:
        manifest = scan_images(plan, task, RunFolder(Path(folder)), progress)
        return settle_bands(plan, manifest.of("train"), progress)
