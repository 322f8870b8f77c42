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
from tl_toolkit.runtime import count_threads, describe_arithmetic, numerics
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.training.prepare import load_images
from tl_toolkit.tuning.jobs import Job, Outcome
from tl_toolkit.tuning.trial_runner import TrialRunner

__all__ = ["ClusterExecutor", "SearchContext", "compare_arithmetic", "run_job"]


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
        threads: The driver's, as `count_threads` returns them.
    """

    key: str
    plan: Plan
    search: Search
    space: Space
    folder: RunFolder
    manifest: Manifest
    arithmetic: Mapping[str, Any]
    threads: int

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
        arithmetic, threads = describe_arithmetic(), count_threads()
        return cls(key, plan, search, space, folder, manifest, arithmetic, threads)


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
    """The runner of one search in a worker's process, and the events that it reports."""

    def __init__(self, context: SearchContext) -> None:
        self.key = context.key
        self._events: list[Event] = []
        plan = context.plan
        task = build_task(plan.recipe, plan.classes)
        images = load_images(plan, task, context.manifest)
        self.runner = TrialRunner(
            plan, context.search, context.space, context.folder,
            progress=self._keep, images=images,
        )  # fmt: skip
        self._events += map(warning, compare_arithmetic(context.arithmetic, context.threads))

    def _keep(self, event: Event) -> None:
        if event.text:
            self._events.append(event)

    def take_events(self) -> list[Event]:
        """Returns the events since the last call."""
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


def compare_arithmetic(expected: Mapping[str, Any], threads: int) -> list[str]:
    """Returns what of this process's arithmetic is not the driver's, and what follows.

    Args:
        expected: The driver's, as `describe_arithmetic` returns it.
        threads: The driver's, as `count_threads` returns them.
    """
    texts = []
    if names := sorted(find_differences([dict(expected), describe_arithmetic()])):
        text = f"a worker has another {', '.join(names)} than this process: scores may differ"
        texts.append(f"{text} in their last digits, and so in all that follows")
    own = count_threads()
    if own != threads:
        texts.append(
            f"workers compute with {own} threads, and this process with {threads}: scores may "
            "differ in their last digits from those of a search without --ray. "
            f"Try: --threads {own}, or search.resources.cpus={threads}"
        )
    return texts
