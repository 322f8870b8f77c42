"""Compares a fine-tune with the script of the Keras guide: the same network, rates and steps.

    python benchmarks/finetune.py                       all workloads, 3 repeats with seeds 0 to 2
    python benchmarks/finetune.py --only clothing --repeats 1

Both sides run in fresh processes, one after the other, by turns. The time is from the start of
the process to its metrics, with TensorFlow's import and the scan of the images, without export.
`cold` begins with an empty store; `warm` trains with another dropout on the store that `cold` left.
The peer is run as it is and, for MobileNet, with its decoded images cached in memory.

The bound of a workload with the whole base in the peer's every pass is what multiply-accumulates
allow: the peer computes the base in each of E training and E validation passes, ours once; both
compute the suffix in them, and three times in a training pass, where gradients are as much work as
two more forward passes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from clock import MOBILENET, TLTOOL, Timing, count_images, folders, run, write_recipe

PEER = Path(__file__).parent / "peers" / "finetune.py"


@dataclass(frozen=True)
class Workload:
    """A training, and how many times less than the peer it should take."""

    photos: str
    base: str
    epochs: tuple[int, int]
    unfreeze: str
    goal: float | None


WORKLOADS = {
    "clothing": Workload("clothing", "mobilenet", (10, 5), "conv_dw_12", 4),
    "hymenoptera": Workload("hymenoptera", "mobilenet", (10, 5), "conv_dw_12", None),
    "resnet50": Workload("hymenoptera", "resnet50", (10, 5), "conv5_block2", 5),
    "resnet50-head": Workload("hymenoptera", "resnet50", (15, 0), "conv5_block2", 8),
}
SIDES = ("peer", "cold", "peer, cached", "warm")
FIRST_LAYERS = {"conv_dw_12": "conv_dw_12", "conv5_block2": "conv5_block2_1_conv"}


def run_peer(work: Workload, folder: Path, seed: int, *, cache: bool, size: int) -> tuple:
    """Returns timing and validation accuracy of the plain script."""
    train, validation = folders(work.photos)
    out = folder / "peer" / "metrics.json"
    out.parent.mkdir(parents=True)
    command = [sys.executable, PEER, "--train", train, "--validation", validation]
    command += ["--base", work.base, "--epochs", *work.epochs, "--size", size, "--seed", seed]
    command += ["--unfreeze", FIRST_LAYERS[work.unfreeze], "--out", out]
    if work.base == "mobilenet":
        command += ["--weights", MOBILENET]
    if cache:
        command += ["--cache"]
    return run(command, out), json.loads(out.read_text())["val_accuracy"]


def run_ours(work: Workload, folder: Path, seed: int, *, warm: bool, size: int) -> tuple:
    """Returns timing and validation accuracy of tltool finetune."""
    train, validation = folders(work.photos)
    is_mobilenet = work.base == "mobilenet"
    head = {"name": "head", "epochs": work.epochs[0], "learning_rate": 3e-3}
    tune = {
        "name": "tune",
        "epochs": work.epochs[1],
        "learning_rate": 3e-4,
        "unfreeze": {"from": work.unfreeze},
    }
    recipe = write_recipe(
        folder / "recipe.yaml",
        seed=seed,
        data={"train": str(train), "validation": str(validation), "image_size": size},
        model={
            "base": work.base,
            "arguments": {"alpha": 0.25} if is_mobilenet else {},
            "weights": str(MOBILENET) if is_mobilenet else "random",
            "head": {"dropout": 0.3 if warm else 0.2},
        },
        phases=[head, tune] if work.epochs[1] else [head],
    )
    out = folder / ("warm" if warm else "cold")
    timing = run(
        [TLTOOL, "finetune", recipe, "--out", out],
        out / "metrics.json",
        TL_TOOLKIT_CACHE=str(folder / "cache"),
    )
    return timing, json.loads((out / "metrics.json").read_text())["best"]["val_accuracy"]


def run_side(side: str, work: Workload, folder: Path, seed: int, size: int) -> tuple:
    """Runs one of SIDES; `warm` finds the store that `cold` left."""
    if side.startswith("peer"):
        return run_peer(work, folder / side, seed, cache=side != "peer", size=size)
    return run_ours(work, folder / "ours", seed, warm=side == "warm", size=size)


def stored_bytes(folder: Path) -> int:
    """Returns the size of the store that a run left."""
    return sum(path.stat().st_size for path in (folder / "cache" / "features").rglob("*.npy"))


def bound(work: Workload, size: int) -> float:
    """Returns how many times less ours could take if only multiply-accumulates took time."""
    import tl_toolkit as tl

    arguments = {"alpha": 0.25} if work.base == "mobilenet" else {}
    units = tl.describe_architecture(work.base, arguments=arguments, image_size=(size, size)).units
    names = [row.unit for row in units]
    whole = sum(row.multiply_accumulates for row in units)
    suffix = sum(row.multiply_accumulates for row in units[names.index(work.unfreeze) :])
    train, validation = (count_images(place) for place in folders(work.photos))
    head, tune = work.epochs
    passes = (head + tune) * (train + validation)
    tuned = tune * (3 * train + validation) * suffix  # the peer's passes hold one of the three
    peer = passes * whole + tune * train * 2 * suffix
    return peer / ((train + validation) * whole + tuned)


def main() -> None:
    """Prints a table for each workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=WORKLOADS, action="append")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=224, help="pixels; smaller for a quick try")
    args = parser.parse_args()
    subprocess.run([TLTOOL, "env"], check=True)
    for name in args.only or WORKLOADS:
        measure(name, WORKLOADS[name], args.repeats, args.size)


def measure(name: str, work: Workload, repeats: int, size: int) -> None:
    """Runs all sides of a workload by turns and prints medians."""
    measured: dict[str, list[tuple[Timing, float]]] = {}
    stored = 0
    for seed in range(repeats):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for side in SIDES:
                if side == "peer, cached" and work.base == "resnet50":
                    continue  # decoding takes a negligible part of its time
                timing, score = run_side(side, work, folder, seed, size)
                measured.setdefault(side, []).append((timing, score))
                line = f"  {name}, seed {seed}, {side}: {timing.seconds:.1f} s"
                print(line, file=sys.stderr)
            stored = stored_bytes(folder / "ours")
    images = count_images(*folders(work.photos))
    goal = f", goal 1/{work.goal}" if work.goal else ""
    epochs = " + ".join(map(str, work.epochs))
    print(f"\n{name}: {work.base}, {images} images, {epochs} epochs{goal}; medians of {repeats}")
    print(f"{'':<14}{'seconds':>8}{'of peer':>9}{'peak MB':>9}  validation accuracy")
    peer = statistics.median(timing.seconds for timing, _ in measured["peer"])
    for side, runs in measured.items():
        seconds = statistics.median(timing.seconds for timing, _ in runs)
        memory = statistics.median(timing.peak_mb for timing, _ in runs)
        scores = [score for _, score in runs]
        ratio = f"1/{peer / seconds:.1f}"
        accuracy = f"{statistics.fmean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})"
        print(f"{side:<14}{seconds:>8.1f}{ratio:>9}{memory:>9.0f}  {accuracy}")
    print(f"store: {stored / images / 1e3:.1f} kB an image")
    print(f"bound by multiply-accumulates: 1/{bound(work, size):.1f}")


if __name__ == "__main__":
    main()
