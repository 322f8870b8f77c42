"""Tasks on a Ray cluster: sent from one process, their results as they come.

The one process that sends them, the driver, decides everything; workers keep nothing that it needs.
A task whose worker or node dies runs again on another one. Ray is imported where it is used.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
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
from tl_toolkit.events import Handler, ignore, warning
from tl_toolkit.runs.locks import hold, is_abandoned

__all__ = ["LOCAL", "Cluster", "LostTask", "Resources", "open_cluster"]

LOCAL = "local"
"""The word for a cluster of this machine, which ends with the command."""

_FOLDER = "tltool-ray-"
_RETRIES = 3
_TURN_SECONDS = 30.0  # between two looks at whether there are nodes at all
_OBJECT_STORE = 128 << 20
"""Bytes of shared memory of a local cluster: what is sent is small, and images stay in files."""


@dataclass(frozen=True)
class Resources:
    """What a task takes of the node that it runs on.

    Attributes:
        cpus: CPU cores, which are its threads too.
        gpus: GPUs, or a part of one; a task of 0 sees none.
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

    Attributes:
        workers: As below.
        resources: As below.

    Args:
        ray: The module, connected.
        workers: How many tasks run at a time.
        resources: What each takes.
        environment: Variables that a worker sets back, as `replaced_environment` yields them.
        progress: Receives a warning when no node is left that has room for a task.
    """

    def __init__(
        self,
        ray: ModuleType,
        workers: int,
        resources: Resources,
        environment: Mapping[str, str | None],
        progress: Handler = ignore,
    ) -> None:
        self.workers = workers
        self._ray = ray
        self.resources = resources
        self._progress = progress
        self._is_warned = False
        self._environment = dict(environment)
        if not resources.gpus:  # Ray itself hides none from a task that asks for none
            self._environment["CUDA_VISIBLE_DEVICES"] = ""
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
        reference = self._wait()
        key = self._open.pop(reference)
        try:
            return key, self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            return key, LostTask(_first_line(error))

    def run_all(
        self, work: Callable[..., Any], tasks: Iterable[tuple[Hashable, Sequence[Any]]]
    ) -> Iterator[tuple[Any, Any]]:
        """Yields what `next` returns for each task, as they end; `workers` of them run at a time.

        Args:
            work: As in `submit`.
            tasks: Keys and arguments; those of later tasks are not asked for before there is room.
        """
        for key, arguments in tasks:
            if len(self) >= self.workers:
                yield self.next()
            self.submit(key, work, *arguments)
        while len(self):
            yield self.next()

    def _wait(self) -> Any:
        """Waits for any task, however long; warns once when there is no node for it."""
        while True:
            ended, _ = self._ray.wait(list(self._open), num_returns=1, timeout=_TURN_SECONDS)
            if ended:
                return ended[0]
            if not self._is_warned and not _count_room(self._ray, self.resources):
                self._is_warned = True
                text = "no node of the cluster is left that has room for a task: waiting for one"
                self._progress(warning(f"{text} (Ctrl-C ends; what is done is kept)"))

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
    address: str,
    *,
    workers: int | None = None,
    resources: Resources | None = None,
    progress: Handler = ignore,
) -> Iterator[Cluster]:
    """Connects to a cluster for the block, or starts one on this machine.

    Args:
        address: `local`, `auto`, or the address of a cluster's head, as `host:6379`.
        workers: How many tasks run at a time; by default as many as there is room for.
        resources: What each takes.
        progress: As in `Cluster`.

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
        room = _count_room(ray, resources)
        if not room:
            raise _refuse_room(resources, address)
        cluster = Cluster(ray, min(workers or room, room), resources, environment, progress)
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
    """Returns the first line of an error's text that is not empty, or its name."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def _list_needs(resources: Resources) -> dict[str, float]:
    """Returns what a task takes, by Ray's names, without what it takes none of."""
    memory = (resources.memory_gb or 0) * 1e9
    needed = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": memory}
    return {name: amount for name, amount in needed.items() if amount}


def _count_room(ray: ModuleType, resources: Resources) -> int:
    """Returns how many tasks fit on the nodes that live."""
    wanted = _list_needs(resources).items()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        min((int(node.get(name, 0) / amount + 1e-9) for name, amount in wanted), default=1)
        for node in nodes
    )


def _refuse_room(resources: Resources, address: str) -> RecipeError:
    words = ", ".join(f"{amount:g} {name}" for name, amount in _list_needs(resources).items())
    what = f"no node has room for a task, which takes {words}"
    hint = "search.resources.cpus=1 search.resources.gpus=0, or larger nodes"
    return RecipeError(Problem(f"--ray {address}", what, "", hint))
