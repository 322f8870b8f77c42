"""Compares a search with the plain KerasTuner script, and with one plain fine-tune.

    python benchmarks/search.py                     5 search seeds of ours, 1 run of each peer
    python benchmarks/search.py --peer-repeats 5    and 5 seeds of the peer, to compare scores

Twelve random trials over the head's dropout (0 to 0.6) and the last 0 to 3 units of MobileNet 0.25,
8 head epochs and 4 of tuning each, on the ants and bees. All sides run in fresh processes; the
time is from the start of the process to the best score on disk. Ours begins with an empty store for
each seed, and is measured again on the store that it left (`warm`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from clock import MOBILENET, TLTOOL, Timing, folders, run, write_recipe

PEERS = Path(__file__).parent / "peers"


def run_peer(script: str, folder: Path, seed: int, *more: object) -> tuple[Timing, float]:
    """Returns timing and best validation accuracy of a plain script."""
    train, validation = folders("hymenoptera")
    out = folder / "peer" / "metrics.json"
    out.parent.mkdir(parents=True)
    command = [sys.executable, PEERS / script, "--train", train, "--validation", validation]
    command += ["--weights", MOBILENET, "--seed", seed, "--out", out, *more]
    return run(command, out), json.loads(out.read_text())["val_accuracy"]


def run_ours(folder: Path, seed: int, out: str, *, size: int) -> tuple[Timing, float]:
    """Returns timing and best score of tltool search."""
    train, validation = folders("hymenoptera")
    units = ("conv_dw_13", "conv_dw_12", "conv_dw_11")
    recipe = write_recipe(
        folder / "recipe.yaml",
        data={
            "train": str(train),
            "validation": str(validation),
            "image_size": size,
            "broken": "skip",
        },
        model={"base": "mobilenet", "arguments": {"alpha": 0.25}, "weights": str(MOBILENET)},
        phases=[
            {"name": "head", "epochs": 8, "learning_rate": 3e-3},
            {"name": "tune", "epochs": 4, "learning_rate": 3e-4},
        ],
        search={
            "trials": 12,
            "seed": seed,
            "space": {
                "model.head.dropout": {"min": 0, "max": 0.6, "step": 0.1},
                "phases.tune.unfreeze": {"choices": [0, *({"from": unit} for unit in units)]},
            },
        },
        seed=seed,
    )
    place = folder / out
    timing = run(
        [TLTOOL, "search", recipe, "--out", place],
        place / "summary.json",
        TL_TOOLKIT_CACHE=str(folder / "cache"),
    )
    return timing, json.loads((place / "summary.json").read_text())["best"]["score"]


def main() -> None:
    """Runs all sides by turns and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="search seeds of ours")
    parser.add_argument("--peer-repeats", type=int, default=1)
    parser.add_argument("--size", type=int, default=224, help="pixels; smaller for a quick try")
    args = parser.parse_args()
    timings: dict[str, list[tuple[Timing, float]]] = {}
    for seed in range(max(args.repeats, args.peer_repeats)):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            size = ("--size", args.size)
            if seed < args.peer_repeats:
                search = run_peer("search.py", folder / "search", seed, *size)
                timings.setdefault("KerasTuner, 12 trials", []).append(search)
                single = run_peer("finetune.py", folder / "finetune", seed, *size)
                timings.setdefault("Keras, one fine-tune", []).append(single)
            if seed < args.repeats:
                for name in ("cold", "warm"):
                    timing = run_ours(folder / "ours", seed, name, size=args.size)
                    timings.setdefault(f"tltool search, {name}", []).append(timing)
        print(f"  seed {seed} done", file=sys.stderr)
    print_table(timings)


def print_table(timings: dict[str, list[tuple[Timing, float]]]) -> None:
    """Prints medians of seconds and memory, and mean and range of the best scores."""
    seconds = {side: statistics.median(timing.seconds for timing, _ in runs)
               for side, runs in timings.items()}  # fmt: skip
    search, single = seconds["KerasTuner, 12 trials"], seconds["Keras, one fine-tune"]
    print(f"{'':<24}{'runs':>5}{'seconds':>9}{'of search':>11}{'of fine-tune':>14}{'peak MB':>9}"
          "  best validation accuracy")  # fmt: skip
    for side, runs in timings.items():
        memory = statistics.median(timing.peak_mb for timing, _ in runs)
        scores = [score for _, score in runs]
        now = seconds[side]
        print(f"{side:<24}{len(runs):>5}{now:>9.1f}{'1/' + format(search / now, '.1f'):>11}"
              f"{now / single:>14.2f}{memory:>9.0f}  {statistics.fmean(scores):.3f} "
              f"({min(scores):.3f} to {max(scores):.3f})")  # fmt: skip
    print("goals: at most 1/10 of the search, and below one fine-tune (aim 0.5)")


if __name__ == "__main__":
    main()
