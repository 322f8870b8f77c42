"""The child process of `loading`: builds a model within limits, and says what stopped it.

Run as a script. It has no network where the system lets it leave that; it may write no file, start
no process, and use no more memory and processor time than a model of this size needs.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import sys
from typing import Any

__all__ = ["main"]

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # from <sched.h>
_BASE_BYTES = 1 << 30
_FACTOR = 8  # weights in the file, in memory as read, as variables, and what building them takes
_REFUSED_EVENTS = (
    "ctypes.",
    "os.exec",
    "os.fork",
    "os.kill",
    "os.link",
    "os.mkdir",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.spawn",
    "os.symlink",
    "os.system",
    "pty.spawn",
    "shutil.",
    "socket.",
    "subprocess.Popen",
    "webbrowser.",
)


def main(path: str, settings: str) -> None:
    """Loads a model, and prints as JSON why it cannot be loaded; {} if it can.

    Args:
        path: The file, which has passed `catalog.foreign_models.scan_model`.
        settings: The parent's search path and the limit of processor seconds, as JSON.
    """
    values = json.loads(settings)
    sys.path[:] = values["path"]
    _leave_network()
    import keras
    import tensorflow as tf

    import tl_toolkit.architectures.affine
    import tl_toolkit.architectures.layers
    import tl_toolkit.architectures.sampling  # noqa: F401
    from tl_toolkit.keras_private import explain_load

    tf.zeros(())  # starts the threads, whose stacks are no part of the model
    _limit(os.path.getsize(path), values["seconds"])
    sys.addaudithook(_refuse)
    answer: dict[str, Any] = {}
    try:
        keras.saving.load_model(path, compile=False, safe_mode=True)
    except MemoryError:
        answer = {"memory": True}
    except Exception as error:  # the first part that fails may raise any error
        cause, unknown = explain_load(error)
        is_memory = isinstance(error, tf.errors.ResourceExhaustedError) or "OOM" in cause
        answer = {"memory": True} if is_memory else {"cause": cause, "unknown": unknown}
    print(json.dumps(answer), flush=True)


def _leave_network() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(AttributeError):  # Linux alone has it
        if libc.unshare(_NEW_NET) != 0:
            libc.unshare(_NEW_USER | _NEW_NET)


def _limit(size: int, seconds: int) -> None:
    with contextlib.suppress(OSError, ValueError):  # a system without /proc has no limit of memory
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        limit = used + _BASE_BYTES + _FACTOR * size
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    used_seconds = int(resource.getrusage(resource.RUSAGE_SELF).ru_utime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used_seconds + seconds, used_seconds + seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: building a model takes none of these."""
    if event.startswith(_REFUSED_EVENTS):
        raise PermissionError(f"{event} is not allowed while a model is loaded")
    if event == "open" and isinstance(arguments[2], int):
        if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and arguments[0] != os.devnull:
            raise PermissionError("a file was to be written while a model is loaded")


if __name__ == "__main__":
    main(*sys.argv[1:])
