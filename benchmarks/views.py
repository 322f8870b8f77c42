"""Compares augmentation live with stored views: accuracy and training time.

    python benchmarks/views.py

The ants and bees, MobileNet 0.25, 10 head epochs and 5 with the units from conv_dw_12 on; mirrored,
turned and zoomed. `live` samples every epoch anew, `views: 4` cycles through four stored views of
each image, `none` trains on the images as they are. Each run begins with an empty store; seconds
are those of training, without the scan.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from clock import MOBILENET, TLTOOL, folders, run, write_recipe

AUGMENT = {"flip": "horizontal", "rotation": 0.05, "zoom": 0.2}
SIDES = {
    "none": {},
    "live": {"augment": AUGMENT},
    "views: 4": {"augment": AUGMENT, "features": {"views": 4}},
}


def main() -> None:
    """Prints mean and range of validation accuracy, and the median of seconds, for each side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="seeds")
    args = parser.parse_args()
    train, validation = folders("hymenoptera")
    measured: dict[str, list[tuple[float, float]]] = {}
    for seed in range(args.repeats):
        for side, sections in SIDES.items():
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                recipe = write_recipe(
                    folder / "recipe.yaml",
                    seed=seed,
                    data={
                        "train": str(train),
                        "validation": str(validation),
                        "image_size": 224,
                        "broken": "skip",
                    },
                    model={
                        "base": "mobilenet",
                        "arguments": {"alpha": 0.25},
                        "weights": str(MOBILENET),
                        "head": {"dropout": 0.2},
                    },
                    phases=[
                        {"name": "head", "epochs": 10, "learning_rate": 3e-3},
                        {
                            "name": "tune",
                            "epochs": 5,
                            "learning_rate": 3e-4,
                            "unfreeze": {"from": "conv_dw_12"},
                        },
                    ],
                    **sections,
                )
                out = folder / "runs" / "run"
                run(
                    [TLTOOL, "finetune", recipe, "--out", out],
                    out / "metrics.json",
                    TL_TOOLKIT_CACHE=str(folder / "cache"),
                )
                metrics = json.loads((out / "metrics.json").read_text())
                score = metrics["best"]["val_accuracy"], metrics["seconds"]["train"]
                measured.setdefault(side, []).append(score)
    print(f"{'augmentation':<14}{'seconds':>8}  validation accuracy")
    for side, runs in measured.items():
        scores = [score for score, _ in runs]
        seconds = statistics.median(seconds for _, seconds in runs)
        print(f"{side:<14}{seconds:>8.1f}  {statistics.fmean(scores):.3f} "
              f"({min(scores):.3f} to {max(scores):.3f})")  # fmt: skip


if __name__ == "__main__":
    main()
