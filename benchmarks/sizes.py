"""Measures how time and memory grow with the number of images: 10,000 and 100,000 small ones.

    python benchmarks/sizes.py                        both, and their ratio
    python benchmarks/sizes.py --counts 1000 10000    fewer

Images of 32 x 32 pixels in ten class folders are made in a temporary folder, of about 1 kB each as
PNG, and removed at the end. Each stage is a process of its own, with one cache for all of a set, so
that a stage finds what those before it left: `data check` (nothing known), `data split` (contents
known), `validate` of the table of splits, a fine-tune with `preset: fast` on a small VGG (scan,
features of four depths stored, a head that is solved up to 20,000 images and trained above), the
same again (all known), and one epoch of a head on the last map. Seconds are those on the wall and
those of processors, which other work on the machine changes less; the start of TensorFlow is in
both. Memory is the largest of any process, in MB (10^6 bytes). The last column holds the ratios of
processor seconds and of memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from clock import ROOT, write_recipe
from PIL import Image

CLASSES = 10
SIDE = 32
WEIGHTS = ROOT / "models/digits_vgg_tiny.weights.h5"


def make_images(folder: Path, count: int) -> None:
    """Writes the images: noise around a mean of the class, so that no two are alike."""
    for name in range(CLASSES):
        (folder / f"class{name}").mkdir(parents=True)

    def write(part: range) -> None:
        random = np.random.default_rng(part.start)
        for number in part:
            label = number % CLASSES
            coarse = random.normal(60 + 14 * label, 40, (8, 8, 3)).repeat(4, 0).repeat(4, 1)
            pixels = np.clip(coarse, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{number:06d}.png")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, [range(start, min(start + 1000, count))
                              for start in range(0, count, 1000)]))  # fmt: skip


class Cost(NamedTuple):
    """What a stage took."""

    seconds: float
    processor: float
    megabytes: float

    def __str__(self) -> str:
        """Returns a cell of the table."""
        return f"{self.seconds:.0f} s ({self.processor:.0f}), {self.megabytes:,.0f} MB"


def run_stage(arguments: Sequence[object], place: Path) -> Cost:
    """Runs a command to its end."""
    measuring = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
        "it = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(it.ru_utime + it.ru_stime, it.ru_maxrss); sys.exit(code)"
    )
    command = [sys.executable, "-c", measuring, sys.executable, "-m", "tl_toolkit", *arguments]
    environment = {
        **os.environ, "TL_TOOLKIT_CACHE": str(place / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    began = time.perf_counter()
    done = subprocess.run(
        list(map(str, command)), cwd=place, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    *_, processor, pages = done.stdout.split()
    return Cost(seconds, float(processor), int(pages) * 1024 / 1e6)


def measure(place: Path, count: int) -> dict[str, Cost]:
    """Returns what each stage took, by its name."""
    make_images(place / "images", count)
    found = {}
    data = {"csv": "splits.csv", "image_size": SIDE, "batch_size": 64}
    model = {"base": "vgg_tiny", "weights": str(WEIGHTS)}
    fast = write_recipe(place / "fast.yaml", data=data, model=model, preset="fast")
    head = [{"name": "head", "epochs": 1, "learning_rate": 1e-3}]
    epoch = write_recipe(place / "epoch.yaml", data=data, model=model, phases=head)
    stages: Mapping[str, Sequence[object]] = {
        "data check": ["data", "check", "images"],
        "data split": ["data", "split", "images", "-o", "splits.csv"],
        "validate": ["validate", fast],
        "finetune, preset fast": ["finetune", fast],
        "finetune again, all known": ["finetune", fast],
        "finetune, one epoch of the head": ["finetune", epoch],
    }
    for name, arguments in stages.items():
        found[name] = run_stage(arguments, place)
        print(f"{count:,} images: {name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    args = parser.parse_args()
    found = {}
    for count in args.counts:
        place = Path(tempfile.mkdtemp(prefix="sizes-"))
        try:
            found[count] = measure(place, count)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    first, last = min(args.counts), max(args.counts)
    print(f"| stage | {' | '.join(f'{count:,} images' for count in args.counts)} | ratios |")
    print(f"| --- |{' --- |' * (len(args.counts) + 1)}")
    for stage in found[first]:
        cells = [str(found[count][stage]) for count in args.counts]
        few, many = found[first][stage], found[last][stage]
        ratios = f"{many.processor / few.processor:.1f}, {many.megabytes / few.megabytes:.1f}"
        print(f"| {stage} | {' | '.join(cells)} | {ratios} |")


if __name__ == "__main__":
    main()
