"""Runs whole commands against the clock: seconds until a file appears, and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("TL_TOOLKIT_ASSETS", ROOT.parent / "shared" / "assets"))
MOBILENET = ASSETS / "weights" / "mobilenet_2_5_224_tf_no_top.h5"
TLTOOL = Path(sys.executable).with_name("tltool")


@dataclass(frozen=True)
class Timing:
    """Times of one command.

    Attributes:
        seconds: Seconds from the start of the process until the file existed.
        whole: Seconds until the process had ended.
        peak_mb: Its largest resident memory in MB (10^6 bytes).
    """

    seconds: float
    whole: float
    peak_mb: float


def run(command: Sequence[object], awaited: Path, **environment: str) -> Timing:
    """Runs a command in a fresh process and waits for its last file.

    Raises:
        RuntimeError: The command failed; the text has the end of its output.
    """
    log = awaited.parent.parent / f"{awaited.parent.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    with open(log, "wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=output, env={**os.environ, **quiet}
        )
        seconds = None
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if seconds is None and awaited.exists():
                seconds = time.perf_counter() - began
            if done:
                break
            time.sleep(0.005)
        whole = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or seconds is None:
        raise RuntimeError(f"{command} ended with {process.returncode}: {log.read_text()[-2000:]}")
    return Timing(seconds, whole, usage.ru_maxrss * 1024 / 1e6)


def write_recipe(path: Path, **sections: Any) -> Path:
    """Writes a recipe; JSON is YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": 1, "name": "benchmark", "export": False, **sections}))
    return path


def folders(name: str) -> tuple[Path, Path]:
    """Returns the folders of training and validation photos of `clothing` or `hymenoptera`."""
    images = ASSETS / "images" / name
    return images / "train", images / ("val" if name == "hymenoptera" else "validation")


def count_images(*places: Path) -> int:
    """Returns how many files lie in folders of classes."""
    return sum(1 for place in places for path in place.glob("*/*") if path.is_file())
