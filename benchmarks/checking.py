"""Measures `tl.check_data` by the number of images: seconds of a first and of a second look.

    python benchmarks/checking.py

Draws small images in code, a twentieth of which are copies of another size. The time must grow with
their number, not with its square; the last column is the time of an image, and should stay. On two
busy cores 1,250 to 10,000 images took 1.9 to 2.9 ms each, and 0.1 to 0.3 at the second look
(2026-11-29).
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import tl_toolkit as tl

COUNTS = (1_250, 2_500, 5_000, 10_000)
CLASSES = 10
SIDE = 64


def draw(folder: Path, count: int) -> None:
    """Draws `count` images of coloured blocks, in class folders."""
    random = np.random.default_rng(count)
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
    for number in range(count):
        path = folder / str(number % CLASSES) / f"{number}.jpg"
        if number % 20 == 19:
            earlier = folder / str((number - 1) % CLASSES) / f"{number - 1}.jpg"
            Image.open(earlier).resize((48, 48)).save(path, quality=80)
            continue
        blocks = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(np.kron(blocks, np.ones((SIDE // 8, SIDE // 8, 1), np.uint8))).save(path)


def main() -> None:
    """Prints a row for each number of images."""
    print("images   first   second   near pairs   ms an image, first and second")
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as place:
            os.environ["TL_TOOLKIT_CACHE"] = str(Path(place) / "cache")
            draw(Path(place) / "photos", count)
            time.sleep(2)  # younger files are read again, as they could still change
            seconds = []
            for _ in range(2):
                began = time.perf_counter()
                report = tl.check_data(Path(place) / "photos")
                seconds.append(time.perf_counter() - began)
            near = len(report.of("near_label_conflict"))
            each = "   ".join(f"{1000 * value / count:.2f}" for value in seconds)
            print(f"{count:6,} {seconds[0]:7.1f} {seconds[1]:8.2f} {near:12,}   {each}", flush=True)


if __name__ == "__main__":
    main()
