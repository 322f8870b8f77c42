"""The environment in which Ray starts on this machine, and workers of Ray run.

A head of Ray asks the addresses of three clouds where it runs, and tells a server of Ray's that
reports of usage are off. Neither is asked for here: its processes reach loopback alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from collections.abc import Iterator, Mapping

__all__ = ["PROXIES", "replaced_environment", "restore_environment", "start_environment"]

_NOWHERE = "http://127.0.0.1:9"  # the port `discard`: nobody listens, and a request ends at once
_HERE = "127.0.0.1,localhost"

PROXIES = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), _NOWHERE),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), _HERE),
}
"""Variables that keep requests of Ray's own processes here; workers set them back."""


@functools.cache
def _choose_token() -> str:
    """Returns the word that connects to the ports of a local cluster; it is kept in no file."""
    return os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)


def start_environment() -> dict[str, str]:
    """Returns the variables under which processes of Ray start on this machine alone."""
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_USAGE_STATS_REPORT_URL": _NOWHERE,
        # Nodes have the address of loopback, as Ray's on a Mac.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_TOKEN": _choose_token(),
        "RAY_raylet_start_wait_time_s": "120",  # of a machine that is busy
        # By default workers stand back behind every other process of the machine.
        "RAY_worker_niceness": "0",
        **PROXIES,
    }


@contextlib.contextmanager
def replaced_environment(values: Mapping[str, str]) -> Iterator[dict[str, str | None]]:
    """Sets variables of the environment for the block; yields what they were before.

    Args:
        values: The variables.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield before
    finally:
        restore_environment(before)


def restore_environment(before: Mapping[str, str | None]) -> None:
    """Sets variables back to what they were.

    Args:
        before: As `replaced_environment` yields it; None for those that were not set.
    """
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
