"""Tests PixelNet's two claims: few pixels train as well, and predicting every pixel is cheap.

    python benchmarks/pixelnet.py               all of it
    python benchmarks/pixelnet.py --only dense  the second half alone

Training: CamVid at 128 x 128, MobileNet 0.75, a predictor of 512-512, the units from conv_dw_12 on
and the head. Each row is a process of its own, of 80 steps. The time of a step is the median over
the epochs after the first; it includes the sampling of pixels, but not the frozen part, which ran
before.

Prediction: the hypercolumn of VGG-16 at 224 x 224 (random weights), all 50,176 pixels, the first
dense layer after interpolation (gather first) or before it (project first). The base's own time,
the same for both, is not included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from clock import ASSETS, run, write_recipe

CAMVID = ASSETS / "pixels" / "camvid"
WEIGHTS = ASSETS / "weights" / "mobilenet_7_5_224_tf_no_top.h5"
CLASSES = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car",
           "pedestrian", "bicyclist"]  # fmt: skip
SIZE = 128
IMAGES = 80
STEPS = 80
SAMPLES = (50, 200, 500, 2000, SIZE * SIZE)
PRODUCT = ((1, 10_000), (2, 5_000), (5, 2_000), (10, 1_000))


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["training", "dense"])
    parser.add_argument("--repeats", type=int, default=1, help="seeds of each row of training")
    args = parser.parse_args()
    if args.only != "dense":
        print_training(args.repeats)
    if args.only != "training":
        print_dense()


def print_training(repeats: int) -> None:
    """Trains with each number of pixels, and with each share of images at a constant product."""
    print(f"{'images x pixels':<18}{'ms a step':>10}{'of all':>8}{'peak MB':>9}  "
          "mean IoU of whole masks, after 80 steps")  # fmt: skip
    whole = None
    for batch, pixels in [(5, count) for count in reversed(SAMPLES)] + list(PRODUCT):
        measured = [train(batch, pixels, seed) for seed in range(repeats)]
        step = statistics.median(run["step"] for run in measured)
        whole = whole or step
        peak = statistics.median(run["peak_mb"] for run in measured)
        scores = [run["mean_iou"] for run in measured]
        print(f"{f'{batch} x {pixels:,}':<18}{1000 * step:>10.0f}{step / whole:>8.2f}{peak:>9.0f}  "
              f"{statistics.fmean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})",
              flush=True)  # fmt: skip
    print("goal: 2,000 pixels take at most 1/5 of the step with all 16,384")


def train(batch: int, pixels: int, seed: int) -> dict[str, float]:
    """Returns seconds of a step, peak memory, and the mean IoU of validation."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        recipe = write_recipe(
            folder / "recipe.yaml",
            task="segmentation",
            seed=seed,
            data={
                "train": str(CAMVID / "train"),
                "validation": str(CAMVID / "val"),
                "classes": CLASSES,
                "masks": {"ignore": 11},
                "image_size": SIZE,
                "batch_size": batch,
            },
            model={
                "base": "mobilenet",
                "arguments": {"alpha": 0.75},
                "weights": str(WEIGHTS),
                "head": {"hidden": [{"units": 512}, {"units": 512}]},
            },
            pixels={"per_image": pixels},
            phases=[
                {
                    "name": "tune",
                    "epochs": STEPS * batch // IMAGES,
                    "learning_rate": 3e-4,
                    "unfreeze": {"from": "conv_dw_12"},
                }
            ],
        )
        out = folder / "runs" / "run"
        command = [sys.executable, __file__, "one", recipe, out]
        timing = run(command, out / "steps.json", TL_TOOLKIT_CACHE=str(folder / "cache"))
        return {**json.loads((out / "steps.json").read_text()), "peak_mb": timing.peak_mb}


def train_recipe(recipe: str, out: str) -> None:
    """Trains a recipe in this process, and writes the seconds of its steps."""
    import tl_toolkit as tl

    class Clock:
        """Records how long the steps of each epoch take, sampling of pixels included."""

        def __init__(self) -> None:
            self.steps: list[float] = []
            self._began = self._ended = 0.0
            self._taken = 0

        def handle(self, event: tl.Event) -> None:
            if event.kind == "step_ended":
                self._ended = time.perf_counter()
                self._taken = event.done
            elif event.kind == "epoch_ended":
                if event.facts["epoch"]:
                    self.steps.append((self._ended - self._began) / self._taken)
                self._began = time.perf_counter()

    clock = Clock()
    measured = tl.finetune(recipe, out=out, progress=clock.handle).metrics["validation"]["mean_iou"]
    step = statistics.median(clock.steps[1:] or clock.steps)
    (Path(out) / "steps.json").write_text(json.dumps({"step": step, "mean_iou": measured}))


def print_dense() -> None:
    """Predicts every pixel of an image with PixelNet, both ways."""
    measured = json.loads(
        subprocess.run(
            [sys.executable, __file__, "dense"], capture_output=True, text=True, check=True
        ).stdout.splitlines()[-1]
    )
    print(f"\n{'VGG-16 hypercolumn, 224 x 224':<36}{'gather first':>13}{'project first':>14}"
          f"{'ratio':>7}  largest difference")  # fmt: skip
    for name, (gather, project, difference) in measured.items():
        print(f"{name:<36}{gather:>12.2f}s{project:>13.2f}s{gather / project:>7.1f}"
              f"  {difference:.1e}")  # fmt: skip
    print("goals: the first layer alone 8, the whole predictor 1.5 (arithmetic allows 44 and 2.3)")


def ask_densely() -> None:
    """Prints seconds of both ways for each predictor, and their largest difference, as JSON."""
    import keras
    import numpy as np

    from tl_toolkit.architectures.heads import HeadLayers, HiddenLayer
    from tl_toolkit.tasks.dense.predictor import DensePredictor
    from tl_toolkit.tasks.segmentation.task import Segmentation
    from tl_toolkit.transfer.assemble import BaseSettings, assemble

    hidden = (HiddenLayer(4096), HiddenLayer(4096))
    predictors = {
        "first layer alone, 4,096 units": ((), 4096),
        "published predictor, 4096-4096-21": (hidden, 21),
        "linear predictor, 21": ((), 21),
    }
    size = (224, 224)
    ys, xs = (np.arange(side, dtype=np.float32) for side in size)
    image = np.random.default_rng(0).uniform(0, 255, (1, *size, 3)).astype(np.float32)
    measured = {}
    for name, (layers, units) in predictors.items():
        keras.backend.clear_session()
        classes = [str(number) for number in range(units)]
        task = Segmentation(classes, head=HeadLayers(hidden=layers))
        model = assemble(BaseSettings("pixelnet"), task, image_size=size).model
        _scale(model, image, alone=name.startswith("first"))
        seconds, predictions = [], []
        for mode in ("gather_first", "project_first"):
            predictor = DensePredictor(model, mode=mode)
            maps = [tensor[0] for tensor in predictor.read_maps(image)]
            predictor.predict(maps, ys[:8], xs, _highest)  # compiles
            began = time.perf_counter()
            predictions.append(predictor.predict(maps, ys, xs, _highest)["highest"])
            seconds.append(time.perf_counter() - began)
        measured[name] = [*seconds, float(np.abs(predictions[0] - predictions[1]).max())]
        del model, predictor, maps
    print(json.dumps(measured), file=sys.stdout)


def _scale(model: Any, image: Any, *, alone: bool) -> None:
    """Scales the outputs of random weights to a standard deviation of 1.

    Args:
        model: [images, pixels] to outputs.
        image: One image.
        alone: Whether the last layer stands for the first of a predictor, with a ReLU behind it.
    """
    import keras
    import numpy as np

    layer = model.get_layer("predictions")
    layer.activation = keras.activations.linear
    places = np.random.default_rng(1).uniform(0, 224, (1, 100, 2)).astype(np.float32)
    layer.kernel.assign(layer.kernel / np.std(model([image, places], training=False)))
    layer.activation = keras.activations.relu if alone else keras.activations.softmax


def _highest(outputs: Any) -> dict[str, Any]:
    import tensorflow as tf

    return {"highest": tf.reduce_max(outputs, axis=-1)}


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        train_recipe(*sys.argv[2:])
    elif sys.argv[1:2] == ["dense"]:
        ask_densely()
    else:
        main()
