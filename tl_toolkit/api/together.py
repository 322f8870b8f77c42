"""A run on several hosts: the first one writes it, the others train beside it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.events import Event, Handler
from tl_toolkit.plan.devices import DeviceChoice
from tl_toolkit.plan.hosts import Hosts
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import describe_training, training_settings
from tl_toolkit.recipe.remote import is_address
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import start_tensorflow
from tl_toolkit.training.meeting import Meeting, meet

__all__ = ["Place", "Together", "joining"]

_NOT_SENT = {"export", "report", "logs", ".writing"}
"""Of a run's folder, what no host needs to resume it, beside its model."""

_UNPACKING: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python before 3.11.4 knows no filter of archives; hosts of one meeting trust each other."""


@dataclass(frozen=True)
class Place:
    """What the first host says of its run.

    Attributes:
        path: Its folder there.
        is_resumed: Whether it goes on.
        is_done: Whether it is finished, so that nothing is trained.
    """

    path: str
    is_resumed: bool
    is_done: bool = False


class Together:
    """This host among those that train one run.

    Args:
        meeting: Their connection.
        devices: Those of all hosts.
        scratch: A folder for what a host other than the first writes, removed afterwards.
    """

    def __init__(self, meeting: Meeting, devices: Any, scratch: Path) -> None:
        self.meeting = meeting
        self.devices = devices
        self.scratch = scratch

    @property
    def is_first(self) -> bool:
        """Whether this host writes the run."""
        return self.meeting.hosts.is_first

    def naming_lost_hosts(self) -> contextlib.AbstractContextManager[None]:
        """Raises a `HostError` for TensorFlow's own error in the block, when a host is gone."""
        from tl_toolkit.training.hosts import naming_lost_hosts

        return naming_lost_hosts(self.meeting)

    def noticing(self, handle: Handler) -> Handler:
        """Returns a handler that ends the filling of the feature store too, once a host is gone.

        Else this one would compute the share of that host, and end at the first step.

        Args:
            handle: Receives the events.
        """

        def notice(event: Event) -> None:
            if event.kind == "features_computed":
                self.meeting.refuse_loss()
            handle(event)

        return notice

    def send(self, folder: RunFolder, *, is_resumed: bool, is_done: bool = False) -> None:
        """Tells the others of the run, and gives them its state if it goes on.

        Args:
            folder: The run.
            is_resumed: As in `Place`.
            is_done: As in `Place`.
        """
        place = Place(str(folder.path), is_resumed, is_done)
        self.meeting.share(json.dumps(vars(place)).encode())
        self.meeting.share(_pack(folder.path) if is_resumed and not is_done else b"")

    def receive(self) -> tuple[Place, Path]:
        """Returns what the first host says, and the folder where this one may write."""
        place = Place(**json.loads(self.meeting.share()))
        out = self.scratch / "run"
        if state := self.meeting.share():
            out.mkdir()
            with tarfile.open(fileobj=io.BytesIO(state), mode="r:") as archive:
                archive.extractall(out, **_UNPACKING)
        return place, out

    def check_equal(self, plan: Plan, lock: Mapping[str, Any]) -> None:
        """Refuses to train what is not the same on all hosts.

        Args:
            plan: What this host is about to train.
            lock: Its lock.

        Raises:
            HostError: Another host is about to train something else.
        """
        recipe = _drop_places(describe_training(plan.recipe))
        self.meeting.check_equal(
            {
                "recipe": hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest(),
                "set of images": lock["data_sha256"],
                "weight file": lock["weights_sha256"],
                "TensorFlow, Keras or numpy": lock["numerics"]["versions"],
            }
        )


def _drop_places(values: Any) -> Any:
    """Returns values without places: hosts may have the same images elsewhere, as on a store."""
    if isinstance(values, Mapping):
        return {name: _drop_places(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_drop_places(value) for value in values]
    is_place = isinstance(values, str) and (os.path.isabs(values) or is_address(values))
    return "" if is_place else values


def _pack(folder: Path) -> bytes:
    buffer, model = io.BytesIO(), RunFolder(folder).model
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            if path.name not in _NOT_SENT and path != model:
                archive.add(path, path.name)
    return buffer.getvalue()


@contextlib.contextmanager
def joining(
    hosts: Hosts, choice: DeviceChoice | None, plan: Plan, *, threads: int | None
) -> Iterator[Together]:
    """Meets the other hosts, and connects TensorFlow with theirs.

    Args:
        hosts: The hosts.
        choice: Of each host, the GPUs that train; None for all of them.
        plan: What is trained.
        threads: As `start_tensorflow` takes them.

    Yields:
        This host among them.

    Raises:
        RecipeError: The recipe lets each host choose for itself, or has too small batches.
        HostError: A host did not come, is gone, or trains something else.
    """
    if plan.recipe.precision == "auto":
        expected = "Each host would measure which one is faster, and they might not agree."
        problem = Problem("precision", "auto on several hosts", expected, "precision=float32")
        raise RecipeError(problem)
    with contextlib.ExitStack() as stack:
        meeting = stack.enter_context(meet(hosts))
        start_tensorflow(threads=threads)
        from tl_toolkit.training.devices import refuse_small_batch
        from tl_toolkit.training.hosts import connect

        devices = connect(hosts, meeting, choice)
        refuse_small_batch(devices, training_settings(plan).batch_size)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tltool-host-")))
        yield Together(meeting, devices, scratch)
