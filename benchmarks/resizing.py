"""Compares the ways to resize photos of mixed proportions: stretched, cropped, padded.

    python benchmarks/resizing.py

Ants and bees, and clothing: portraits and landscapes of 4 : 3 and 3 : 2. A probe on MobileNet of
two widths at 224 pixels, `preset: fast`, without tuning; there is nothing random in it but the
initial weights, which the solver does not read.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from clock import ASSETS, folders

import tl_toolkit as tl

_WEIGHTS = {
    0.25: "mobilenet_2_5_224_tf_no_top.h5",
    0.75: "mobilenet_7_5_224_tf_no_top.h5",
}


def main() -> None:
    """Prints accuracy and loss on validation images for each set, width and way."""
    for name in ("hymenoptera", "clothing"):
        train, validation = folders(name)
        for alpha, weights in _WEIGHTS.items():
            for resize in ("stretch", "crop", "pad"):
                recipe = {
                    "version": 1,
                    "name": name,
                    "data": {
                        "train": str(train),
                        "validation": str(validation),
                        "image_size": 224,
                        "resize": resize,
                        "broken": "skip",
                    },
                    "model": {
                        "base": "mobilenet",
                        "arguments": {"alpha": alpha},
                        "weights": str(ASSETS / "weights" / weights),
                    },
                    "preset": "fast",
                    "export": False,
                }
                with tempfile.TemporaryDirectory() as root:
                    metrics = tl.finetune(recipe, root=Path(root)).metrics["validation"]
                accuracy, loss = metrics["accuracy"], metrics["loss"]
                print(f"{name} {alpha} {resize:<7} {accuracy:.4f} {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
