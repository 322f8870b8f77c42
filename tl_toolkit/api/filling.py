"""The verb `fill_features`: outputs of a recipe's frozen part, computed before it is trained."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.base import reading_recipe
from tl_toolkit.api.progress import handling
from tl_toolkit.api.search import open_workers
from tl_toolkit.catalog.published import is_offline
from tl_toolkit.cluster.tasks import LOCAL, Cluster, LostTask
from tl_toolkit.errors import OutputError, Problem, RecipeError
from tl_toolkit.events import Event, Handler
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.space import find_unfrozen, resolve_space
from tl_toolkit.recipe.load import RecipeSource
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.recipe.remote import find_address, name_objects
from tl_toolkit.runs.files import reporting_unwritable
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import numerics

if TYPE_CHECKING:
    from tl_toolkit.training.filling import FillContext

__all__ = ["fill_features"]


def fill_features(
    recipe: RecipeSource,
    *,
    overrides: Overrides = (),
    threads: int | None = None,
    ray: str | None = None,
    workers: int | None = None,
    progress: Handler | bool = False,
) -> dict[str, Any]:
    """Stores the outputs of a recipe's frozen part, which `finetune` and `search` then read.

    On a cluster each worker computes other parts of `features.part` images. What is stored already
    is not computed again; a part that a process was killed in is computed by the next one.

    Args:
        recipe: As in `finetune`.
        overrides: As in `finetune`.
        threads: As in `finetune`. A worker of a cluster has `search.resources.cpus`.
        ray: As in `search`; hosts share the folder `features.location`.
        workers: As in `search`.
        progress: As in `finetune`: receives counts of images.

    Returns:
        `folder` of the store, the number of `images`, `parts` and `seconds`. Offline nothing is
        sent to an object store: `folder` is then that of this host, and `unsent_to` the address
        that the next run of the recipe with a connection sends it to; else it is "".

    Raises:
        RecipeError: Features cannot be stored, and why; no cluster answers; or its hosts would not
            see images that are converted.
        OutputError: Workers died again and again.
        ToolkitError: As `finetune` does before its first epoch.
    """
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        plan = check_recipe(stack.enter_context(reading_recipe(recipe, overrides, threads=threads)))
        if plan.recipe.precision == "auto":
            what = "precision = 'auto': measured by each run, and features depend on it"
            raise RecipeError(Problem("", what, "", "precision=float32"))
        handle = stack.enter_context(handling(progress))
        cluster = stack.enter_context(open_workers(plan.recipe, ray, workers, handle))
        scanned = stack.enter_context(_open_aside(plan.recipe.features.location))
        with numerics(deterministic=plan.recipe.deterministic, threads=threads):
            context = _survey(plan, Path(scanned), threads, handle)
            if cluster is not None and ray != LOCAL:
                _refuse_own_images(context)
            reason = _fill(context, cluster, handle)
    if reason is not None:
        hint = "features.store=always, a greater features.max_gb, or no fill: runs compute them"
        raise RecipeError(Problem("", f"features are not stored: {reason}", "", hint))
    from tl_toolkit.features.store import FeatureCache

    root = FeatureCache(plan.recipe.features.location).root
    unsent_to = find_address(root) if is_offline() else ""
    return {
        "folder": str(root) if unsent_to else name_objects(str(root)),
        "unsent_to": unsent_to,
        "images": len({example.sha256 for example in context.manifest.examples if example.usable}),
        "parts": len(context.list_parts()),
        "seconds": round(time.perf_counter() - began, 1),
    }


@contextlib.contextmanager
def _open_aside(location: Path | None) -> Iterator[str]:
    """Yields a folder for images that are converted, which workers of other hosts read too."""
    if location is not None:
        with reporting_unwritable(location):
            location.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".scan-", dir=location) as folder:
        yield folder


def _survey(plan: Plan, folder: Path, threads: int | None, progress: Handler) -> FillContext:
    from tl_toolkit.tasks.registry import build_task
    from tl_toolkit.training.bands import settle_bands
    from tl_toolkit.training.filling import FillContext
    from tl_toolkit.training.prepare import survey_images

    task = build_task(plan.recipe, plan.classes)
    manifest, _ = survey_images(plan, task, RunFolder(folder), progress)
    plan = settle_bands(plan, manifest.of("train"), progress)
    ahead = (
        find_unfrozen(resolve_space(plan.recipe), plan.architecture) if plan.recipe.search else ()
    )
    return FillContext.of(plan, manifest, ahead, threads)


def _refuse_own_images(context: FillContext) -> None:
    """Refuses converted images in a folder of this host alone, which workers cannot read."""
    converted = [image for image in context.manifest.examples if image.verdict == "converted"]
    location = context.plan.recipe.features.location
    if converted and (location is None or find_address(location)):
        what = f"{len(converted)} images are converted, into a folder of this host alone"
        expected = "Workers of other hosts read them from features.location, which hosts share."
        raise RecipeError(Problem("data.convert", what, expected, "features.location=/shared/dir"))


def _fill(context: FillContext, cluster: Cluster | None, progress: Handler) -> str | None:
    """Fills all parts, here or on the cluster; returns the reason if it cannot."""
    from tl_toolkit.training.filling import fill_part

    if cluster is None:
        return fill_part(context, None, progress)
    parts = context.list_parts()
    shared = cluster.share(replace(context, threads=max(1, int(cluster.resources.cpus))))
    results = cluster.run_all(fill_part, ((part, (shared, part)) for part in parts))
    done, total = 0, sum(part.images for part in parts)
    for part, reason in results:
        if isinstance(reason, LostTask):
            what = f"{part}: its worker died, and so did those that tried it again: {reason}"
            hint = "search.resources.memory_gb, or a smaller features.part"
            raise OutputError(Problem("features", what, "", hint))
        if reason is not None:
            return str(reason)
        done += part.images
        progress(Event("features_computed", done=done, total=total))
    return None
