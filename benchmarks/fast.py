"""Compares a whole `preset: fast` run with the import of Keras, which it cannot do without.

    python benchmarks/fast.py                 3 rounds: import, run with an export, run without

Fresh processes that take turns, on the 244 training photos of ants and bees, a fifth of them for
validation, MobileNet 0.25, an empty store each time; seconds are from start to end of a process.
The aim is a run without an export in twice the time of `import keras`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from clock import MOBILENET, TLTOOL, folders, write_recipe


def time_command(command: Sequence[object], **environment: str) -> float:
    """Returns the seconds of a command from start to end."""
    began = time.perf_counter()
    words = [str(word) for word in command]
    subprocess.run(words, check=True, capture_output=True, env=os.environ | environment)
    return time.perf_counter() - began


def time_run(folder: Path, *, export: bool) -> float:
    """Returns the seconds of a run."""
    recipe = write_recipe(
        folder / "recipe.yaml",
        data={
            "train": str(folders("hymenoptera")[0]),
            "validation": 0.2,
            "image_size": 224,
            "broken": "skip",
        },
        model={"base": "mobilenet", "arguments": {"alpha": 0.25}, "weights": str(MOBILENET)},
        preset="fast",
        report=False,
        export=export,
    )
    command = [TLTOOL, "finetune", recipe, "--out", folder / "run"]
    return time_command(command, TL_TOOLKIT_CACHE=str(folder / "cache"))


def main() -> None:
    """Prints a row for each round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print("| import keras | run | times as long | with an export | times as long |")
    print("| --- | --- | --- | --- | --- |")
    for _ in range(args.rounds):
        imported = time_command([sys.executable, "-c", "import keras"])
        cells = [f"{imported:.1f} s"]
        for export in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                seconds = time_run(Path(folder), export=export)
            cells += [f"{seconds:.1f} s", f"{seconds / imported:.1f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
