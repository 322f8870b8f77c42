"""Says what each technique is worth: a recipe, and the same recipe with one thing changed.

    python benchmarks/ablations.py                         both sets, 3 splits
    python benchmarks/ablations.py --only ema mixup        some changes

Photos are those of the training parts; held-back ones are not opened. For each seed they are split
by class into training (60 percent), validation, which chooses the epoch, and test. Differences are
in points of test accuracy, each image beside itself; intervals (95 percent) are by 2,000 bootstrap
samples of images, of all seeds and both sets together. The base is a MobileNet 0.25.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from clock import MOBILENET, folders

import tl_toolkit as tl

PROBE = {"taps": "all", "pooling": "statistics", "normalize": True, "solver": "auto"}
TUNE = {
    "name": "tune",
    "epochs": 8,
    "learning_rate": {"kind": "cosine", "initial": 3e-4},
    "unfreeze": {"from": "conv_dw_12"},
}
START = {
    "model": {"head": {**PROBE, "dropout": 0.5}},
    "phases": [TUNE],
}
HEAD = {"name": "head", "epochs": 10, "learning_rate": 3e-3}


def tune(**fields: Any) -> dict[str, Any]:
    """Returns the phases with other fields of the tuning."""
    return {"phases": [{**TUNE, **fields}]}


def head(**fields: Any) -> dict[str, Any]:
    """Returns a model with other fields of its head."""
    return {"model": {"head": {**START["model"]["head"], **fields}}}


def classification(**fields: Any) -> dict[str, Any]:
    """Returns fields of the task."""
    return {"task": {"kind": "classification", **fields}}


CHANGES: dict[str, dict[str, Any]] = {
    "probe alone": {"phases": []},
    "probe alone, ridge": {"phases": [], **head(solver="ridge")},
    "probe alone, logistic": {"phases": [], **head(solver="logistic")},
    "probe alone, average pooling": {"phases": [], **head(pooling="average")},
    "probe alone, last map": {"phases": [], **head(taps=None, pooling="average")},
    "probe alone, pyramid": {"phases": [], **head(pooling="pyramid")},
    "probe alone, pyramid, inner maps": {"phases": [], **head(pooling="pyramid", taps="inner")},
    "probe alone, pyramid, class weights": {
        "phases": [],
        **head(pooling="pyramid"),
        **classification(balance="class_weights"),
    },
    "pyramid, from conv_dw_6": {
        **head(pooling="pyramid"),
        **tune(unfreeze={"from": "conv_dw_6"}),
    },
    "no dropout": head(dropout=0.0),
    "new head of the last map, trained, then tuning": {
        "model": {"head": {"dropout": 0.2}},
        "phases": [HEAD, TUNE],
    },
    "tuning from conv_dw_6": tune(unfreeze={"from": "conv_dw_6"}),
    "rate 1e-3": tune(learning_rate={"kind": "cosine", "initial": 1e-3}),
    "rate 1e-4": tune(learning_rate={"kind": "cosine", "initial": 1e-4}),
    "constant rate": tune(learning_rate=3e-4),
    "one_cycle": tune(learning_rate={"kind": "one_cycle", "peak": 1e-3}),
    "plateau": tune(learning_rate={"kind": "plateau", "initial": 3e-4, "patience": 2}),
    "learning_rate: auto": tune(learning_rate="auto"),
    "layer_decay 0.7, from conv_dw_6": tune(unfreeze={"from": "conv_dw_6"}, layer_decay=0.7),
    "auto_rgn, from conv_dw_6": tune(
        unfreeze={"from": "conv_dw_6"}, learning_rates="auto_rgn", learning_rate=3e-4
    ),
    "gradual": tune(unfreeze={"gradual": 2, "every": 4}),
    "only conv_dw_12": tune(unfreeze={"only": "conv_dw_12"}),
    "accumulate 4": tune(optimizer={"kind": "adam", "accumulate": 4}),
    "clip_norm 1": tune(optimizer={"kind": "adam", "clip_norm": 1.0}),
    "ema 0.95": tune(optimizer={"kind": "adam", "ema": 0.95}),
    "ema 0.95, from conv_dw_6": tune(
        unfreeze={"from": "conv_dw_6"}, optimizer={"kind": "adam", "ema": 0.95}
    ),
    "weight decay 0.01": tune(optimizer={"kind": "adamw", "weight_decay": 0.01}),
    "l2_sp": tune(l2_sp={"base": 0.1, "head": 0.001}),
    "interpolate": {"interpolate": True},
    "label_smoothing 0.1": classification(label_smoothing=0.1),
    "balance: class_weights": classification(balance="class_weights"),
    "balance: focal": classification(balance="focal"),
    "balance: logit_adjust": classification(balance="logit_adjust"),
    "feature_noise 0.1": tune(feature_noise=0.1),
    "feature_mixup 0.2": tune(feature_mixup=0.2),
    "mixup 0.2": {"augment": {"mixup": 0.2}},
    "cutmix 1": {"augment": {"cutmix": 1.0}},
    "flips and rotation": {"augment": {"flip": "horizontal", "rotation": 0.05}},
    "flips and colours": {
        "augment": {"flip": "horizontal", "brightness": 0.2, "saturation": 0.2, "contrast": 0.2}
    },
    "flips and erasing": {"augment": {"flip": "horizontal", "erasing": 0.5}},
    "resize: crop": {"data": {"resize": "crop"}},
    "resize: pad": {"data": {"resize": "pad"}},
    "image_size 288": {"data": {"image_size": 288}},
}


def split_photos(name: str, seed: int, folder: Path) -> dict[str, str]:
    """Links the training photos of a set into folders for training, validation and test."""
    train, validation = folders(name)
    for source in [train] if name == "hymenoptera" else [train, validation]:
        for label in sorted(path for path in source.iterdir() if path.is_dir()):
            files = sorted(path for path in label.glob("*") if path.suffix.lower() == ".jpg")
            random.Random(f"{seed} {label}").shuffle(files)
            for number, path in enumerate(files):
                split = ("train", "train", "train", "validation", "test")[number % 5]
                place = folder / split / label.name
                place.mkdir(parents=True, exist_ok=True)
                os.symlink(path, place / f"{source.name}-{path.name}")
    return {split: str(folder / split) for split in ("train", "validation", "test")}


def compose(data: Mapping[str, str], seed: int, change: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe with a change."""
    model = {"base": "mobilenet", "arguments": {"alpha": 0.25}, "weights": str(MOBILENET)}
    recipe = {**START, **change, "version": 1, "name": "ablation", "seed": seed, "export": False}
    recipe["model"] = {**model, **recipe["model"]}
    recipe["data"] = {**data, "image_size": 224, "links": "follow", **change.get("data", {})}
    recipe["early_stopping"] = None
    return {name: value for name, value in recipe.items() if value is not None}


def assess(recipe: Mapping[str, Any], folder: Path) -> np.ndarray:
    """Returns for each test image whether its class is predicted."""
    run = tl.finetune(recipe, out=folder, overwrite=True)
    with open(run.path / "predictions.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return np.array([row["label"] == row["predicted"] for row in rows], float)


def describe(differences: list[np.ndarray]) -> str:
    """Returns the mean difference in points, and its interval."""
    values = np.concatenate(differences)
    random_images = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    low, high = np.percentile(values[random_images].mean(axis=1), [2.5, 97.5])
    return f"{100 * values.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def main() -> None:
    """Prints a row for each change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", help="Parts of the names of changes.")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    sets = ("hymenoptera", "clothing")
    chosen = {
        name: change
        for name, change in CHANGES.items()
        if not args.only or any(part in name for part in args.only)
    }
    with tempfile.TemporaryDirectory() as place:
        os.environ["TL_TOOLKIT_CACHE"] = str(Path(place) / "cache")
        photos = {
            (name, seed): split_photos(name, seed, Path(place) / f"{name}{seed}")
            for name in sets
            for seed in range(args.seeds)
        }

        def assess_all(change: Mapping[str, Any]) -> dict[str, list[np.ndarray]]:
            return {
                name: [
                    assess(compose(photos[name, seed], seed, change), Path(place) / "run")
                    for seed in range(args.seeds)
                ]
                for name in sets
            }

        start = assess_all({})
        print("| change | hymenoptera | clothing | both, points |\n| --- | --- | --- | --- |")
        means = [f"{np.mean(np.concatenate(start[name])):.3f}" for name in sets]
        print(f"| none | {' | '.join(means)} | |", flush=True)
        for title, change in chosen.items():
            try:
                changed = assess_all(change)
            except tl.errors.ToolkitError as error:
                print(f"{title}: {error}", file=sys.stderr)
                continue
            differences = {
                name: [new - old for new, old in zip(changed[name], start[name], strict=True)]
                for name in sets
            }
            cells = [f"{100 * np.mean(np.concatenate(differences[name])):+.1f}" for name in sets]
            both = describe([*differences["hymenoptera"], *differences["clothing"]])
            print(f"| {title} | {' | '.join(cells)} | {both} |", flush=True)


if __name__ == "__main__":
    main()
