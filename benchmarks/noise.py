"""Compares changes of stored features: noise, blends, and none.

    python benchmarks/noise.py

A head on MobileNet 0.25 at 224 pixels, trained on 20 photos of each class for 60 epochs, all on the
features of one pass: ants and bees, and clothing. Printed are means over seeds, which sample the
photos' order, and the range: of the last epoch, as the best one would be chosen on what is printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from clock import MOBILENET, folders

import tl_toolkit as tl

SIDES = {
    "none": {},
    "feature_noise: 0.2": {"feature_noise": 0.2},
    "feature_noise: 0.5": {"feature_noise": 0.5},
    "feature_noise: 1": {"feature_noise": 1.0},
    "feature_mixup: 0.2": {"feature_mixup": 0.2},
    "feature_mixup: 1": {"feature_mixup": 1.0},
}


def main() -> None:
    """Prints accuracy and loss on validation images for each set and side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=4, help="seeds")
    args = parser.parse_args()
    for name in ("hymenoptera", "clothing"):
        for side, changes in SIDES.items():
            ends = [_train(name, seed, changes) for seed in range(args.repeats)]
            accuracies = [end["val_accuracy"] for end in ends]
            loss = statistics.mean(end["val_loss"] for end in ends)
            print(
                f"{name:<12} {side:<19} accuracy {statistics.mean(accuracies):.3f} "
                f"({min(accuracies):.3f} to {max(accuracies):.3f}) loss {loss:.3f}",
                flush=True,
            )


def _train(name: str, seed: int, changes: dict[str, float]) -> dict[str, float]:
    """Trains a head and returns its last epoch."""
    train, validation = folders(name)
    recipe = {
        "version": 1,
        "name": name,
        "seed": seed,
        "data": {
            "train": str(train),
            "validation": str(validation),
            "image_size": 224,
            "resize": "crop",
            "examples_per_class": 20,
            "broken": "skip",
        },
        "model": {
            "base": "mobilenet",
            "arguments": {"alpha": 0.25},
            "weights": str(MOBILENET),
            "head": {"dropout": 0.0},
        },
        "features": {"store": "always"},
        "phases": [{"name": "head", "epochs": 60, "learning_rate": 3e-3, **changes}],
        "export": False,
    }
    with tempfile.TemporaryDirectory() as root:
        return tl.finetune(recipe, root=Path(root)).history[-1]


if __name__ == "__main__":
    main()
