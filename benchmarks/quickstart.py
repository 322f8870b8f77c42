"""Measures whether the embedded base wins: quickstart and baseline over seeds, and a grid of rates.

    python benchmarks/quickstart.py            seeds 0 to 4: the table of the base's card
    python benchmarks/quickstart.py --grid     the rates of the baseline, on seeds 100 to 104
    python benchmarks/quickstart.py preset=fast     with overrides

A seed decides the split, the training images, initial weights and order, equally on both sides.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import tl_toolkit as tl

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "quickstart.yaml"
RATES = (3e-4, 1e-3, 3e-3)


def run(seed: int, *overrides: str) -> dict[str, tuple[float, float, float]]:
    """Returns (validation accuracy, test accuracy, seconds) of `transfer` and `scratch`."""
    seeds = (f"seed={seed}", f"data.split_seed={seed}", "export=false")
    with tempfile.TemporaryDirectory() as folder:
        metrics = tl.finetune(RECIPE, overrides=[*seeds, *overrides], root=folder).metrics
    measured = {"transfer": metrics, "scratch": metrics["baseline"]}
    seconds = {"transfer": metrics["seconds"]["train"], "scratch": metrics["seconds"]["baseline"]}
    return {
        side: (splits["validation"]["accuracy"], splits["test"]["accuracy"], seconds[side])
        for side, splits in measured.items()
    }


def print_grid(seeds: range, overrides: list[str]) -> None:
    """Prints mean validation and test accuracy of the baseline at each of its learning rates."""
    print(f"mean validation / test accuracy of seeds {seeds[0]} to {seeds[-1]}")
    for rate in RATES:
        phase = (
            f"{{name: train, epochs: 40, unfreeze: 4, batch_norm: train, learning_rate: {rate}}}"
        )
        changed = f"baseline.phases=[{phase}]"
        measured = [run(seed, changed, *overrides)["scratch"] for seed in seeds]
        validation, test, seconds = np.array(measured).mean(axis=0)
        each = " ".join(f"{row[1]:.3f}" for row in measured)
        print(f"scratch {rate:<6g} {validation:.3f} / {test:.3f}  test {each}  "
              f"{seconds:.1f} s each", flush=True)  # fmt: skip


def print_seeds(seeds: range, overrides: list[str]) -> None:
    """Prints test accuracy of both sides for each seed, and the spreads."""
    print("seed  transfer  scratch  difference  seconds")
    rows = []
    for seed in seeds:
        measured = run(seed, *overrides)
        transfer, scratch = measured["transfer"][1], measured["scratch"][1]
        rows.append((transfer, scratch))
        seconds = f"{measured['transfer'][2]:.1f} / {measured['scratch'][2]:.1f}"
        accuracies = f"{transfer:.3f}     {scratch:.3f}    {transfer - scratch:+.3f}"
        print(f"{seed:<4}  {accuracies}      {seconds}", flush=True)
    transfer, scratch = np.array(rows).T
    difference = transfer - scratch
    for name, values in (("transfer", transfer), ("scratch", scratch), ("difference", difference)):
        print(f"{name:<10}  mean {values.mean():.3f}  range {np.ptp(values):.3f}  "
              f"standard deviation {values.std(ddof=1):.3f}  least {values.min():.3f}")  # fmt: skip


def main() -> None:
    """Prints one of the two tables."""
    overrides = [argument for argument in sys.argv[1:] if argument != "--grid"]
    started = time.perf_counter()
    if "--grid" in sys.argv:
        print_grid(range(100, 105), overrides)
    else:
        print_seeds(range(5), overrides)
    print(f"{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
