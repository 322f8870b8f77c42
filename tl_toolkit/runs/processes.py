"""Processes, as files name them: by host, boot, process id and start time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["describe_process", "find_age", "find_boot_time", "is_gone", "shares_kernel"]


def describe_process() -> dict[str, Any]:
    """Returns what identifies this process: host, boot, process id and start time."""
    return {
        "host": socket.gethostname(),
        "boot": _read_boot(),
        "pid": os.getpid(),
        "process_started": _read_start(os.getpid()),
    }


def shares_kernel(holder: Mapping[str, Any]) -> bool:
    """Returns whether a process runs under this kernel, be it in another container.

    Args:
        holder: What `describe_process` returned in that process.
    """
    boot = _read_boot()
    if boot is None:  # not Linux
        return bool(holder["host"] == socket.gethostname())
    return bool(holder.get("boot") == boot)


def is_gone(holder: Mapping[str, Any]) -> bool:
    """Returns whether a process has surely ended; False for a process of another host.

    Args:
        holder: What `describe_process` returned in that process.
    """
    here = describe_process()
    if holder["host"] != here["host"]:
        return False
    if holder.get("boot") != here["boot"]:
        return True
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:  # it exists, and belongs to another user
        pass
    return bool(_read_start(holder["pid"]) != holder.get("process_started"))


def find_age() -> float:
    """Returns the seconds since this process began; 0 where that is unknown."""
    started, clock = _read_start(os.getpid()), getattr(time, "CLOCK_BOOTTIME", None)
    if started is None or clock is None:
        return 0.0
    return max(time.clock_gettime(clock) - started / os.sysconf("SC_CLK_TCK"), 0.0)


def find_boot_time() -> float:
    """Returns when this kernel started, in seconds since 1970; 0 where that is unknown."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux's
    return 0.0 if clock is None else time.time() - time.clock_gettime(clock)


def _read_boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return None


def _read_start(pid: int) -> int | None:
    """Returns when a process started, in clock ticks since the boot; None where that is unknown."""
    try:
        # Its second field is the program's name, which may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19])  # field 22 of proc(5)
