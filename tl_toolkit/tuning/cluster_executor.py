"""Trials as tasks on a cluster: each worker keeps a runner, and reads features from the store."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tl_toolkit.cluster.tasks import Cluster, LostTask
from tl_toolkit.events import Event, warning
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.space import Space
from tl_toolkit.plan.values import find_differences
from tl_toolkit.recipe.search_schema import Search
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import describe_arithmetic, numerics
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.training.prepare import load_images
from tl_toolkit.tuning.jobs import Job, Outcome
from tl_toolkit.tuning.trial_runner import TrialRunner

__all__ = ["ClusterExecutor", "SearchContext", "run_job"]


@dataclass(frozen=True)
class SearchContext:
    """What a worker needs of a search; it travels to each node once.

    Attributes:
        key: Names the search among those that a worker has seen.
        plan: Plan of the recipe that is searched.
        search: Its section, or the default one.
        space: The fields that trials differ in.
        folder: The search's folder, on a disk that workers share.
        manifest: The images.
        arithmetic: That of the driver, as `describe_arithmetic` returns it.
    """

    key: str
    plan: Plan
    search: Search
    space: Space
    folder: RunFolder
    manifest: Manifest
    arithmetic: Mapping[str, Any]

    @classmethod
    def of(
        cls, plan: Plan, search: Search, space: Space, folder: RunFolder, manifest: Manifest
    ) -> SearchContext:
        """Returns the context of a search that this process drives.

        Args:
            plan: As above.
            search: As above.
            space: As above.
            folder: As above.
            manifest: As above.
        """
        key = secrets.token_hex(8)
        return cls(key, plan, search, space, folder, manifest, describe_arithmetic())


class ClusterExecutor:
    """Runs jobs on a cluster.

    Args:
        cluster: The cluster.
        context: What workers need of the search.
    """

    def __init__(self, cluster: Cluster, context: SearchContext) -> None:
        self.slots = cluster.workers
        self._cluster = cluster
        self._context = cluster.share(context)

    def submit(self, job: Job) -> None:
        """Sends a job to a worker.

        Args:
            job: The job.
        """
        self._cluster.submit(job.number, run_job, self._context, job)

    def next(self) -> Outcome:
        """Waits for any outcome; a job whose workers died again and again has failed."""
        key, result = self._cluster.next()
        if isinstance(result, LostTask):
            error = f"its worker died, and so did those that tried it again: {result}"
            return Outcome(int(str(key)), "failed", None, None, None, 0.0, error=error)
        outcome: Outcome = result
        return outcome


class _Worker:
    """The runner of one search in a worker's process, and what it has to tell."""

    def __init__(self, context: SearchContext) -> None:
        self.key = context.key
        self._events: list[Event] = []
        plan = context.plan
        task = build_task(plan.recipe, plan.classes)
        images = load_images(plan, task, context.manifest)
        self.runner = TrialRunner(
            plan, context.search, context.space, context.folder,
            progress=self._hear, images=images,
        )  # fmt: skip
        if names := _compare_arithmetic(context.arithmetic):
            text = f"a worker has another {', '.join(names)} than this process: scores may differ"
            self._events.append(warning(f"{text} in their last digits, and so in all that follows"))

    def _hear(self, event: Event) -> None:
        if event.text:
            self._events.append(event)

    def take_events(self) -> list[Event]:
        """Returns what was heard since the last call."""
        events, self._events = self._events, []
        return events


_worker: list[_Worker] = []
"""Of the latest search of this process, if it is a worker."""


def run_job(context: SearchContext, job: Job) -> Outcome:
    """Trains a job in a worker.

    Args:
        context: The search.
        job: The job.

    Raises:
        ToolkitError: What every further job would raise too.
    """
    recipe = context.plan.recipe
    threads = context.search.resources.cpus
    with numerics(deterministic=recipe.deterministic, threads=threads):
        if not _worker or _worker[0].key != context.key:
            _worker[:] = [_Worker(context)]
        worker = _worker[0]
        outcome = worker.runner.run(job)
    return replace(outcome, events=tuple(worker.take_events()))


def _compare_arithmetic(expected: Mapping[str, Any]) -> list[str]:
    """Returns what of the arithmetic of this process is another than the driver's."""
    return sorted(find_differences([dict(expected), describe_arithmetic()]))
