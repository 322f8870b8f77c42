"""Measures how fast the command line answers: seconds of `--help` and `validate`, as processes.

    python benchmarks/startup.py

Neither imports TensorFlow, which `tests/cli/test_verbs.py` tests. The aims are 0.2 s and 0.5 s.
"""

from __future__ import annotations

import statistics
import subprocess
import time

from clock import ROOT, TLTOOL

REPEATS = 9
COMMANDS = {
    "tltool --help": ("--help",),
    "tltool validate": ("validate", str(ROOT / "recipes" / "quickstart.yaml")),
}


def measure(*arguments: str) -> list[float]:
    """Returns the seconds of each repeat; a first one, which reads the files, is left out."""
    times = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        subprocess.run([TLTOOL, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return times[1:]


def main() -> None:
    """Prints a row for each command."""
    print(f"{'':16} median     least to most seconds")
    for name, arguments in COMMANDS.items():
        times = measure(*arguments)
        median = statistics.median(times)
        print(f"{name:16} {median:6.2f}     {min(times):.2f} to {max(times):.2f}")


if __name__ == "__main__":
    main()
