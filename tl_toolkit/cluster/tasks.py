"""Tasks on a Ray cluster: sent from one process, their results as they come.

The one process that sends them, the driver, decides everything; workers keep nothing that it needs.
A task whose worker or node dies runs again on another one. Ray is imported where it is used.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tl_toolkit.cluster.local import (
    PROXIES,
    replaced_environment,
    restore_environment,
    start_environment,
)
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.runs.locks import hold, is_abandoned

__all__ = ["LOCAL", "Cluster", "LostTask", "Resources", "open_cluster"]

LOCAL = "local"
"""The word for a cluster of this machine, which ends with the command."""

_FOLDER = "tltool-ray-"
_RETRIES = 3
_OBJECT_STORE = 128 << 20
"""Bytes of shared memory of a local cluster: what is sent is small, and images stay in files."""


@dataclass(frozen=True)
class Resources:
    """What a task takes of the node that it runs on.

    Attributes:
        cpus: CPU cores, which are its threads too.
        gpus: GPUs, or a part of one.
        memory_gb: Main memory in GB (10^9 bytes) that is set aside; None for none.
    """

    cpus: float = 1
    gpus: float = 0
    memory_gb: float | None = None

    def as_options(self) -> dict[str, Any]:
        """Returns them as Ray's options of a task."""
        options: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        if self.memory_gb is not None:
            options["memory"] = int(self.memory_gb * 1e9)
        return options


class LostTask(Exception):
    """A task's worker died, and so did the workers that tried it again."""


class Cluster:
    """Sends tasks to workers.

    Args:
        ray: The module, connected.
        workers: How many tasks run at a time.
        resources: What each takes.
        environment: Variables that a worker sets back, as `replaced_environment` yields them.
    """

    def __init__(
        self,
        ray: ModuleType,
        workers: int,
        resources: Resources,
        environment: Mapping[str, str | None],
    ) -> None:
        self.workers = workers
        self._ray = ray
        self._environment = dict(environment)
        # No retry of an error that the task itself raises: it would raise it again.
        options = {**resources.as_options(), "max_retries": _RETRIES, "retry_exceptions": False}
        self._run = ray.remote(_run_task).options(scheduling_strategy="SPREAD", **options)
        self._open: dict[Any, Hashable] = {}

    def __len__(self) -> int:
        return len(self._open)

    def share(self, value: Any) -> Any:
        """Returns a reference to a value that many tasks take; it travels to each node once.

        Args:
            value: What cloudpickle can hold.
        """
        return self._ray.put(value)

    def submit(self, key: Hashable, work: Callable[..., Any], *arguments: Any) -> None:
        """Sends a task.

        Args:
            key: Names its result.
            work: A function of a module, which workers import.
            *arguments: Its arguments; references are replaced by their values.
        """
        reference = self._run.remote(self._environment, work, *arguments)
        self._open[reference] = key

    def next(self) -> tuple[Hashable, Any]:
        """Waits for any task; returns its key and its result, or a LostTask.

        Raises:
            Exception: What the task raised.
        """
        (reference,), _ = self._ray.wait(list(self._open), num_returns=1)
        key = self._open.pop(reference)
        try:
            return key, self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            return key, LostTask(_first_line(error))

    def cancel(self) -> None:
        """Ends all tasks that are open, with their processes."""
        for reference in self._open:
            with contextlib.suppress(Exception):  # one that has ended, or a cluster that is gone
                self._ray.cancel(reference, force=True)
        self._open.clear()


def _run_task(
    environment: Mapping[str, str | None], work: Callable[..., Any], *arguments: Any
) -> Any:
    """Runs in a worker."""
    restore_environment(environment)
    return work(*arguments)


@contextlib.contextmanager
def open_cluster(
    address: str, *, workers: int | None = None, resources: Resources | None = None
) -> Iterator[Cluster]:
    """Connects to a cluster for the block, or starts one on this machine.

    Args:
        address: `local`, `auto`, or the address of a cluster's head, as `host:6379`.
        workers: How many tasks run at a time; by default as many as there is room for.
        resources: What each takes.

    Raises:
        RecipeError: Ray is not installed, no cluster answers, or it has no room for a task.
    """
    ray = _import_ray(address)
    resources = resources or Resources()
    with contextlib.ExitStack() as stack:
        environment: dict[str, str | None] = {}
        if not ray.is_initialized():
            if address == LOCAL:
                environment = stack.enter_context(_starting(ray, workers, resources))
            else:
                _connect(ray, address)
                stack.callback(ray.shutdown)
        room = _count_room(ray, resources, address)
        cluster = Cluster(ray, min(workers or room, room), resources, environment)
        try:
            yield cluster
        finally:
            cluster.cancel()


def _import_ray(address: str) -> ModuleType:
    own = start_environment() if address == LOCAL else {"RAY_USAGE_STATS_ENABLED": "0"}
    try:
        with replaced_environment(own):  # some of it is read when Ray is imported
            import ray
            import ray.exceptions
    except ImportError as error:
        what = f"takes Ray, which cannot be imported: {error}"
        hint = "pip install 'tl-toolkit[distributed]'"
        raise RecipeError(Problem(f"--ray {address}", what, "", hint)) from error
    module: ModuleType = ray
    return module


@contextlib.contextmanager
def _starting(
    ray: ModuleType, workers: int | None, resources: Resources
) -> Iterator[dict[str, str | None]]:
    """Starts a cluster of this machine's, and ends all its processes after the block."""
    count = workers or max(1, int((os.cpu_count() or 1) // max(resources.cpus, 1)))
    # In /tmp whatever TMPDIR says: the names of sockets may have 107 letters.
    place = "/tmp" if os.path.isdir("/tmp") else None  # noqa: S108
    _sweep(Path(place or tempfile.gettempdir()))
    with (
        tempfile.TemporaryDirectory(prefix=_FOLDER, dir=place) as folder,
        hold(Path(folder)),
    ):
        try:
            with replaced_environment(start_environment()) as before:
                ray.init(
                    num_cpus=count * resources.cpus,
                    object_store_memory=_OBJECT_STORE,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="error",
                    _temp_dir=folder,
                )
        except Exception as error:  # Ray's has no kind of its own
            ray.shutdown()
            what = f"no cluster could be started here: {_first_line(error)}"
            hint = "the same again when the machine is less busy, or without --ray"
            raise RecipeError(Problem(f"--ray {LOCAL}", what, "", hint)) from error
        try:
            yield {name: before[name] for name in PROXIES}
        finally:
            ray.shutdown()


def _sweep(place: Path) -> None:
    """Removes the folders of clusters whose driver was killed."""
    for folder in place.glob(f"{_FOLDER}*"):
        if is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _connect(ray: ModuleType, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except Exception as error:  # of many kinds, as ConnectionError and RuntimeError
        what = f"no cluster of Ray answers: {_first_line(error)}"
        expected = "Expected local, auto, or the address of a head, as 10.0.0.1:6379."
        hint = "ray start --head, or --ray local"
        raise RecipeError(Problem(f"--ray {address}", what, expected, hint)) from error


def _first_line(error: Exception) -> str:
    """Returns the first line that an error has to say, or its name."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def _count_room(ray: ModuleType, resources: Resources, address: str) -> int:
    """Returns how many tasks fit on the nodes that there are."""
    needed = {"CPU": resources.cpus, "GPU": resources.gpus}
    needed["memory"] = (resources.memory_gb or 0) * 1e9
    wanted = {name: amount for name, amount in needed.items() if amount}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(
        min((int(node.get(name, 0) / amount + 1e-9) for name, amount in wanted.items()), default=1)
        for node in nodes
    )
    if not room:
        words = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
        what = f"no node has room for a task, which takes {words}"
        hint = "search.resources.cpus=1 search.resources.gpus=0, or larger nodes"
        raise RecipeError(Problem(f"--ray {address}", what, "", hint))
    return room
