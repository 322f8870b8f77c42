"""Which hosts a run trains on together, as they are typed or as TF_CONFIG says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tl_toolkit.errors import Problem, RecipeError

__all__ = ["WAIT_SECONDS", "Hosts", "parse_hosts"]

WAIT_SECONDS = 300.0
"""How long hosts wait for one another: people start them by hand, schedulers one by one."""

_VARIABLE = "TF_CONFIG"
_ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\]):([1-9]\d{0,4})")


@dataclass(frozen=True)
class Hosts:
    """Processes that train one model, each on a host of its own.

    Attributes:
        addresses: HOST:PORT of each, the same list in the same order on all of them.
        index: The place of this process.
        wait_seconds: How long it waits for the others before the first step: until they come, and
            again until their connections stand.
    """

    addresses: tuple[str, ...]
    index: int
    wait_seconds: float = WAIT_SECONDS

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run."""
        return self.index == 0

    def describe(self, index: int) -> str:
        """Returns the name of a host in messages.

        Args:
            index: Its place.
        """
        return f"host {index} ({self.addresses[index]})"

    def split(self, index: int) -> tuple[str, int]:
        """Returns the name and the port of a host.

        Args:
            index: Its place.
        """
        name, _, port = self.addresses[index].rpartition(":")
        return name.strip("[]"), int(port)


def parse_hosts(
    hosts: str | Sequence[str] | None,
    index: int | None,
    environment: Mapping[str, str],
    *,
    wait_seconds: float | None = None,
) -> Hosts | None:
    """Returns the hosts that are meant; None for this one alone.

    Args:
        hosts: HOST:PORT of each, as a list or with commas between; None for those of TF_CONFIG.
        index: The place of this process; None for that of TF_CONFIG.
        environment: Variables by name.
        wait_seconds: As in `Hosts`; None for five minutes.

    Raises:
        RecipeError: They are no hosts, or this is none of them.
    """
    group: Hosts | None
    if hosts is not None:
        addresses = hosts.split(",") if isinstance(hosts, str) else list(hosts)
        group = _check("--hosts", [address.strip() for address in addresses], index)
    elif index is not None:
        raise _refuse("--host-index", str(index), "It goes with --hosts.")
    else:
        group = _read_cluster(environment)
    if wait_seconds is None:
        return group
    if group is None:
        raise _refuse("--host-wait", f"{wait_seconds:g}", "It goes with --hosts.")
    if not 1 <= wait_seconds <= 86_400:
        raise _refuse("--host-wait", f"{wait_seconds:g}", "expected seconds, 1 to 86400.")
    return replace(group, wait_seconds=wait_seconds)


def _check(where: str, addresses: Sequence[str], index: int | None) -> Hosts:
    for address in addresses:
        matched = _ADDRESS.fullmatch(address)
        if matched is None or int(matched[1]) > 65535:
            raise _refuse(where, repr(address), "expected HOST:PORT, as 10.0.0.1:4000.")
    if len(set(addresses)) < max(2, len(addresses)):
        raise _refuse(where, ",".join(addresses), "expected two hosts or more, each once.")
    if index is None or not 0 <= index < len(addresses):
        what = "none is given" if index is None else str(index)
        expected = f"expected the place of this process in {where}: 0 to {len(addresses) - 1}."
        raise _refuse("--host-index", what, expected)
    return Hosts(tuple(addresses), index)


def _read_cluster(environment: Mapping[str, str]) -> Hosts | None:
    """Returns the hosts of TF_CONFIG, the chief first; None for no cluster, or one of one host."""
    text = environment.get(_VARIABLE, "")
    if not text:
        return None
    try:
        settings = json.loads(text)
        cluster, task = settings.get("cluster") or {}, settings.get("task") or {}
        chiefs, workers = list(cluster.get("chief", [])), list(cluster.get("worker", []))
        kind, place = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise _refuse(_VARIABLE, str(error), "expected JSON with cluster and task.") from error
    if others := sorted(set(cluster) - {"chief", "worker"}):
        expected = "A run trains on workers alone, and perhaps a chief."
        raise _refuse(_VARIABLE, f"has {', '.join(others)}", expected)
    if kind not in ("chief", "worker"):
        raise _refuse(_VARIABLE, f"the task is of type {kind!r}", "expected chief or worker.")
    if len(chiefs) + len(workers) < 2:
        return None
    return _check(_VARIABLE, chiefs + workers, place + (len(chiefs) if kind == "worker" else 0))


def _refuse(where: str, what: str, expected: str) -> RecipeError:
    hint = "--hosts 10.0.0.1:4000,10.0.0.2:4000 --host-index 0"
    return RecipeError(Problem(where, what, expected, "" if where == _VARIABLE else hint))
