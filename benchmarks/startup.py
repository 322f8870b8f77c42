"""Measures how fast the command line answers: seconds of whole commands, as processes.

    python benchmarks/startup.py

`--help`, `validate`, and `predict` of one photo where a LiteRT export lies in the run, import no
TensorFlow, which `tests/cli/test_verbs.py` and `tests/export/test_quick.py` test. The aims are 0.2,
0.5 and 1.5 s. Beside them the same answer by Keras. The run is a MobileNet (0.25) of 224 pixels
with random weights, trained for an epoch on photos of noise.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from clock import ROOT, TLTOOL, write_recipe
from PIL import Image

REPEATS = 9


def measure(*arguments: object) -> list[float]:
    """Returns the seconds of each repeat; a first one, which reads the files, is left out."""
    times = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        subprocess.run([TLTOOL, *map(str, arguments)], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return times[1:]


def train(folder: Path) -> tuple[Path, Path]:
    """Returns a run with a LiteRT export, and a photo of 640 x 480 pixels."""
    random = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(8):
            pixels = random.integers(0, 256, (480, 640, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / label / f"{number}.jpg")
    recipe = write_recipe(
        folder / "recipe.yaml",
        data={"train": str(folder / "photos"), "validation": 0.25, "image_size": 224},
        model={"base": "mobilenet", "arguments": {"alpha": 0.25}, "weights": "random"},
        phases=[{"name": "head", "epochs": 1}],
        export={"formats": ["litert"]},
        report=False,
    )
    run = folder / "run"
    words = [TLTOOL, "finetune", str(recipe), "--out", str(run)]
    subprocess.run(words, check=True, capture_output=True)
    return run, folder / "photos" / "a" / "0.jpg"


def main() -> None:
    """Prints a row for each command."""
    with tempfile.TemporaryDirectory() as folder:
        run, photo = train(Path(folder))
        commands = {
            "tltool --help": ("--help",),
            "tltool validate": ("validate", ROOT / "recipes" / "quickstart.yaml"),
            "tltool predict": ("predict", run, photo),
            "  --engine keras": ("predict", run, photo, "--engine", "keras"),
        }
        print(f"{'':17} median     least to most seconds")
        medians = []
        for name, arguments in commands.items():
            times = measure(*arguments)
            medians.append(statistics.median(times))
            print(f"{name:17} {medians[-1]:6.2f}     {min(times):.2f} to {max(times):.2f}")
        print(f"predict by Keras takes {medians[-1] / medians[-2]:.1f} times as long")


if __name__ == "__main__":
    main()
