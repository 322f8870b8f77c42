"""Compares a recipe without phases with the guide's script and with logistic regression.

    python benchmarks/accuracy.py                     6 workloads, 3 seeds and splits each
    python benchmarks/accuracy.py --only clothing --bases mobilenet-0.25 --seeds 1

The test parts are the photos that the sets hold back (372 of clothing, 153 of hymenoptera). For
each seed a fifth of the others, of each class, is sampled for validation; the guide's script and
logistic regression do not use it (the side logistic-all trains on these photos too), ours chooses
the epoch by it. No side exports. Sides run in fresh processes, one after the other; seconds are
from the start of a process to its metrics, from an empty store.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from clock import ASSETS, TLTOOL, folders, run, write_recipe

PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Base:
    """A base, its weight file, and the first layer that the guide's script tunes."""

    name: str
    alpha: float
    file: str
    first: str

    @property
    def weights(self) -> Path:
        """The weight file."""
        return ASSETS / "weights" / self.file


BASES = {
    "mobilenet-0.25": Base("mobilenet", 0.25, "mobilenet_2_5_224_tf_no_top.h5", "conv_dw_12"),
    "mobilenet-0.75": Base("mobilenet", 0.75, "mobilenet_7_5_224_tf_no_top.h5", "conv_dw_12"),
    "mobilenet_v2-0.35": Base(
        "mobilenet_v2",
        0.35,
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5",
        "block_15_expand",
    ),
}
SIDES = ("guide", "logistic", "logistic-all", "auto", "fast")


def make_split(photos: str, folder: Path, seed: int) -> dict[str, Path]:
    """Copies photos into folders for training, validation and test."""
    train, held_back = folders(photos)
    if photos == "clothing":
        sources, test = [train, held_back], train.parent / "test"
    else:
        sources, test = [train], held_back
    for name in sorted({path.name for source in sources for path in source.iterdir()}):
        files = sorted(
            path
            for source in sources
            for path in (source / name).glob("*")
            if path.suffix.lower() in (".jpg", ".jpeg")  # a stray GIF is no ant
        )
        random.Random(f"{seed} {name}").shuffle(files)
        count = max(1, round(0.2 * len(files)))
        for split, members in (("validation", files[:count]), ("train", files[count:])):
            for split_name in (split, "all"):
                place = folder / split_name / name
                place.mkdir(parents=True, exist_ok=True)
                for number, path in enumerate(members):
                    shutil.copy(path, place / f"{split}-{number}-{path.name}")
    return {name: folder / name for name in ("train", "validation", "all")} | {"test": test}


def run_side(side: str, base: Base, split: dict[str, Path], folder: Path, seed: int) -> tuple:
    """Returns accuracy on the test photos, and seconds."""
    if side not in ("auto", "fast"):
        out = folder / side / "metrics.json"
        out.parent.mkdir(parents=True)
        command = [sys.executable, PEERS / ("finetune.py" if side == "guide" else "probe.py")]
        command += ["--base", base.name, "--alpha", base.alpha, "--weights", base.weights]
        command += ["--test", split["test"], "--out", out]
        if side == "guide":
            command += ["--train", split["train"], "--validation", split["validation"]]
            command += ["--unfreeze", base.first, "--seed", seed]
        else:
            command += ["--train", split["train" if side == "logistic" else "all"]]
        timing = run(command, out)
        return json.loads(out.read_text())["test_accuracy"], timing.seconds
    recipe = write_recipe(
        folder / side / "recipe.yaml",
        seed=seed,
        preset=side,
        data={name: str(split[name]) for name in ("train", "validation", "test")}
        | {"image_size": 224},
        model={
            "base": base.name,
            "arguments": {"alpha": base.alpha},
            "weights": str(base.weights),
        },
    )
    out = folder / side / "run"
    timing = run(
        [TLTOOL, "finetune", recipe, "--out", out],
        out / "metrics.json",
        TL_TOOLKIT_CACHE=str(folder / side / "cache"),
    )
    metrics = json.loads((out / "metrics.json").read_text())
    return metrics["test"]["accuracy"], timing.seconds


def describe(values: list[float]) -> str:
    """Returns mean and range."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    """Prints a row for each workload, and the mean lead over the peers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["clothing", "hymenoptera"])
    parser.add_argument("--bases", nargs="+", choices=BASES, default=list(BASES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    args = parser.parse_args()
    print("| data, base | " + " | ".join(f"{side}, seconds" for side in args.sides) + " |")
    print("| --- " * (len(args.sides) + 1) + "|", flush=True)
    leads: dict[str, list[float]] = {"guide": [], "better": []}
    for photos in [args.only] if args.only else ["hymenoptera", "clothing"]:
        for name in args.bases:
            scores: dict[str, list[float]] = {side: [] for side in args.sides}
            seconds: dict[str, list[float]] = {side: [] for side in args.sides}
            for seed in range(args.seeds):
                with tempfile.TemporaryDirectory() as place:
                    split = make_split(photos, Path(place) / "photos", seed)
                    for side in args.sides:
                        score, taken = run_side(side, BASES[name], split, Path(place), seed)
                        scores[side].append(score)
                        seconds[side].append(taken)
            cells = [
                f"{describe(scores[side])}, {statistics.median(seconds[side]):.0f} s"
                for side in args.sides
            ]
            print(f"| {photos}, {name} | " + " | ".join(cells) + " |", flush=True)
            if {"guide", "logistic", "auto"} <= set(args.sides):
                means = {side: statistics.fmean(scores[side]) for side in args.sides}
                leads["guide"].append(means["auto"] - means["guide"])
                leads["better"].append(means["auto"] - max(means["guide"], means["logistic"]))
    for peer, values in leads.items():
        if values:
            words = {"guide": "the guide's script", "better": "the better of the two"}[peer]
            low, high = min(values), max(values)
            mean = statistics.fmean(values)
            print(f"auto is ahead of {words} by {mean:+.3f} ({low:+.3f} to {high:+.3f})")


if __name__ == "__main__":
    main()
