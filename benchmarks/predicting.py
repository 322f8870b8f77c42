"""Measures `predict` over a folder beside bare loops: seconds of each, and their ratio.

    python benchmarks/predicting.py [IMAGES]

The bare loops are what a script would have: two threads decode and resize a batch of 32 JPEG files
by TensorFlow, and the compiled model gets it. Both are warm, take turns in one process, and have
the same model: a MobileNet (0.25) of 224 pixels with random weights. The aim is a ratio of 1.2 at
1,000 photos of 640 x 480 pixels. Their predictions are compared too.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from clock import write_recipe
from PIL import Image

import tl_toolkit as tl

ROUNDS = 5
BATCH = 32


def draw(folder: Path, count: int) -> list[Path]:
    """Draws photos, smooth with some grain, into two classes."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        rough = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(rough.resize((640, 480), Image.Resampling.BICUBIC), np.int16)
        grain = random.integers(-12, 13, smooth.shape)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return sorted(paths)


def build_bare(run: tl.Run) -> Callable[[list[Path]], np.ndarray]:
    """Returns bare loops over files, for the run's model."""
    import tensorflow as tf

    model = run.model
    height, width = run.recipe.data.image_size
    forward = tf.function(
        lambda x: model(tf.cast(x, tf.float32), training=False),
        input_signature=[tf.TensorSpec((BATCH, height, width, 3), tf.uint8)],
    )

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def decode(data: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        resized = tf.image.resize(image, (height, width), antialias=True)
        return tf.cast(tf.round(resized), tf.uint8)

    def read(path: Path) -> np.ndarray:
        pixels: np.ndarray = decode(path.read_bytes()).numpy()
        return pixels

    def predict(paths: list[Path]) -> np.ndarray:
        outputs = []
        with ThreadPoolExecutor(2) as pool:
            for start in range(0, len(paths), BATCH):
                images = np.stack(list(pool.map(read, paths[start : start + BATCH])))
                padded = np.zeros((BATCH, *images.shape[1:]), np.uint8)
                padded[: len(images)] = images
                outputs.append(forward(padded).numpy()[: len(images)])
        return np.concatenate(outputs)

    return predict


def time_once(call: Callable[[], object]) -> tuple[float, float]:
    """Returns the seconds of a call, and its processor seconds."""
    began, used = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - began, time.process_time() - used


def main() -> None:
    """Prints the seconds of both, and their ratio."""
    count = int(sys.argv[1]) if sys.argv[1:] else 1000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = draw(folder / "photos", count)
        draw(folder / "few", 16)
        recipe = write_recipe(
            folder / "recipe.yaml",
            data={"train": str(folder / "few"), "validation": 0.25, "image_size": 224},
            model={"base": "mobilenet", "arguments": {"alpha": 0.25}, "weights": "random"},
            phases=[{"name": "head", "epochs": 1}],
            report=False,
        )
        run = tl.finetune(recipe, root=folder / "runs")
        bare = build_bare(run)
        own = run.predict(paths[:BATCH], engine="keras")
        expected = bare(paths[:BATCH])
        predicted = np.array([[*item.probabilities.values()] for item in own])
        print(f"largest difference of predictions: {np.abs(predicted - expected).max():.1e}")
        seconds: dict[str, list[tuple[float, float]]] = {"tl_toolkit": [], "bare loops": []}
        for _ in range(ROUNDS):
            seconds["bare loops"].append(time_once(lambda: bare(paths)))
            seconds["tl_toolkit"].append(
                time_once(lambda: run.predict(folder / "photos", engine="keras"))
            )
        for place, of in enumerate(("seconds", "processor seconds")):
            print(f"{of}, median of {ROUNDS} rounds (least to most)")
            columns = {who: [pair[place] for pair in pairs] for who, pairs in seconds.items()}
            columns["ratio"] = [own / loop for own, loop in zip(*columns.values(), strict=True)]
            for who, times in columns.items():
                spread = f"({min(times):.2f} to {max(times):.2f})"
                print(f"  {who:11} {statistics.median(times):6.2f} {spread}")


if __name__ == "__main__":
    main()
