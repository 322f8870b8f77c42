"""Compares a fine-tune with the bare loops that it cannot do without.

    python benchmarks/limit.py                1,000 and 5,000 images
    python benchmarks/limit.py --images 200   fewer

MobileNet 0.25 on the clothing photos, 10 head epochs and 5 with the units from conv_dw_12 on. The
bare loops decode each image once, send it through the frozen part once, and take the same steps and
evaluations on the arrays in plain tf.function loops. Both sides run in this process, from the end
of all imports, with the files in the page cache and nothing compiled yet on either side; ours with
an empty store. To get more images the photos are repeated as distinct files (a byte more at the end
of each), so that nothing is found by content.

`without the scan` leaves out the time to inspect every image before training: ours then decodes the
images when the frozen part runs, as it would have to anyway.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clock import MOBILENET, folders, write_recipe

EPOCHS = (10, 5)
SIZE = 224
BATCH = 32


def repeat_photos(target: Path, total: int) -> None:
    """Fills folders of training and validation photos, four to one, with distinct files."""
    for split, place, share in zip(("train", "validation"), folders("clothing"), (0.8, 0.2),
                                   strict=True):  # fmt: skip
        photos = sorted(path for path in place.glob("*/*") if path.is_file())
        for number in range(int(total * share)):
            photo = photos[number % len(photos)]
            copy = target / split / photo.parent.name / f"{number:05d}.jpg"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(photo.read_bytes() + bytes(number // len(photos)))


def run_bare(data: Path) -> float:
    """Returns seconds of the bare loops."""
    import keras
    import numpy as np
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    began = time.perf_counter()
    base = keras.applications.MobileNet(
        input_shape=(SIZE, SIZE, 3), alpha=0.25, include_top=False, weights=str(MOBILENET)
    )
    pool = keras.layers.GlobalAveragePooling2D()
    cut = base.get_layer("conv_pw_11_relu").output
    trunk = keras.Model(base.input, [cut, pool(base.output)])
    suffix = keras.Model(cut, pool(base.output))
    for layer in base.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)

    @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3), tf.uint8)])
    def prefix(pixels: tf.Tensor) -> list[tf.Tensor]:
        return trunk(tf.cast(pixels, tf.float32) / 127.5 - 1.0, training=False)

    def decode(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(path), 3, dct_method="INTEGER_ACCURATE")
        image = tf.image.resize(image, (SIZE, SIZE), antialias=True)
        return tf.saturate_cast(tf.round(image), tf.uint8)

    prefixed, labels = {}, {}
    names = sorted(path.name for path in (data / "train").iterdir())
    for split in ("train", "validation"):
        paths = sorted((data / split).glob("*/*"))
        labels[split] = np.array([names.index(path.parent.name) for path in paths], np.int32)
        images = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
        images = images.map(decode, num_parallel_calls=2).batch(BATCH).prefetch(1)
        measured = [[part.numpy() for part in prefix(batch)] for batch in images]
        prefixed[split] = [np.concatenate(part) for part in zip(*measured, strict=True)]

    dense = keras.layers.Dense(len(names), activation="softmax")
    dropout = keras.layers.Dropout(0.2, seed=0)
    dense.build((None, 256))
    for model, part, epochs, rate in (
        (lambda x, training: x, 1, EPOCHS[0], 3e-3),
        (lambda x, training: suffix(x, training=training), 0, EPOCHS[1], 3e-4),
    ):
        body = list(suffix.trainable_variables) if part == 0 else []
        _train(model, body + dense.trainable_variables, dropout, dense,
               {split: parts[part] for split, parts in prefixed.items()},
               labels, epochs, rate)  # fmt: skip
    return time.perf_counter() - began


def _train(model, variables, dropout, dense, prefixed, labels, epochs, rate) -> None:  # type: ignore[no-untyped-def]
    import keras
    import numpy as np
    import tensorflow as tf

    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(variables)
    shape = (None, *prefixed["train"].shape[1:])
    signature = [tf.TensorSpec(shape, tf.float32), tf.TensorSpec((None,), tf.int32)]

    @tf.function(input_signature=signature)
    def train(features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        total = tf.shape(labels)[0]
        loss = tf.constant(0.0)
        for start in tf.range(0, total, BATCH):
            x, y = features[start : start + BATCH], labels[start : start + BATCH]
            with tf.GradientTape() as tape:
                outputs = dense(dropout(model(x, training=True), training=True))
                loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, outputs))
            optimizer.apply(
                tape.gradient(loss, [variable.value for variable in variables]), variables
            )
        return loss

    @tf.function(input_signature=signature)
    def evaluate(features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        right = tf.constant(0)
        for start in tf.range(0, tf.shape(labels)[0], BATCH):
            outputs = dense(model(features[start : start + BATCH], training=False))
            measured = tf.argmax(outputs, -1, tf.int32) == labels[start : start + BATCH]
            right += tf.reduce_sum(tf.cast(measured, tf.int32))
        return right

    random = np.random.default_rng(0)
    evaluate(prefixed["validation"], labels["validation"])
    for _ in range(epochs):
        order = random.permutation(len(labels["train"]))
        train(prefixed["train"][order], labels["train"][order])
        evaluate(prefixed["validation"], labels["validation"])


def run_ours(data: Path, folder: Path, *, scanned: bool) -> float:
    """Returns seconds of tl.finetune; with `scanned`, every file was inspected before."""
    os.environ["TL_TOOLKIT_CACHE"] = str(folder / "cache")
    import tl_toolkit as tl
    from tl_toolkit.images import scan
    from tl_toolkit.runtime import start_tensorflow

    start_tensorflow()
    import tl_toolkit.training.loop  # noqa: F401  (imports are no part of this)
    import tl_toolkit.tuning.engine

    phases = [
        {"name": "head", "epochs": EPOCHS[0], "learning_rate": 3e-3},
        {"name": "tune", "epochs": EPOCHS[1], "learning_rate": 3e-4,
         "unfreeze": {"from": "conv_dw_12"}},
    ]  # fmt: skip
    recipe = write_recipe(
        folder / "recipe.yaml",
        data={
            "train": str(data / "train"),
            "validation": str(data / "validation"),
            "image_size": SIZE,
        },
        model={
            "base": "mobilenet",
            "arguments": {"alpha": 0.25},
            "weights": str(MOBILENET),
            "head": {"dropout": 0.2},
        },
        phases=phases,
    )
    if scanned:
        time.sleep(3)  # a file that changed a moment ago is never known
        scan.scan(tl.validate(recipe).listing, scan.ScanSettings())
    began = time.perf_counter()
    tl.finetune(recipe, out=folder / "run")
    return time.perf_counter() - began


def main() -> None:
    """Prints a table of both sides, each run in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        side, data, folder = args.side
        paths = Path(data), Path(folder)
        seconds = (
            run_bare(paths[0]) if side == "bare" else run_ours(*paths, scanned=side == "known")
        )
        print(json.dumps(seconds))
        return
    print(f"{'images':>7}{'bare':>8}{'ours':>8}{'ratio':>7}{'without the scan':>18}{'ratio':>7}")
    for images in args.images:
        measured: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory() as place:
            data = Path(place) / "photos"
            repeat_photos(data, images)
            for repeat in range(args.repeats):
                for side in ("bare", "ours", "known"):
                    folder = Path(place) / f"{side}{repeat}"
                    command = [sys.executable, __file__, "--side", side, data, folder]
                    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
                    if done.returncode:
                        raise RuntimeError(done.stderr[-2000:])
                    measured.setdefault(side, []).append(float(done.stdout.splitlines()[-1]))
                    print(f"  {images}, {side}: {measured[side][-1]:.1f} s", file=sys.stderr)
        bare, ours, known = (
            statistics.median(measured[side]) for side in ("bare", "ours", "known")
        )
        print(f"{images:>7}{bare:>8.1f}{ours:>8.1f}{ours / bare:>7.2f}{known:>18.1f}"
              f"{known / bare:>7.2f}", flush=True)  # fmt: skip
    print("goal: at most 1.5 for 5,000 images without the scan (aim 1.2)")


if __name__ == "__main__":
    main()
