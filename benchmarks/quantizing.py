"""Measures what `litert-int8` loses with real weights and photos, beside `litert`.

    python benchmarks/quantizing.py                    all nets and sets
    python benchmarks/quantizing.py hymenoptera        one set
    python benchmarks/quantizing.py clothing --net "MobileNet 0.25" --net "MobileNet 0.75"

The last two give the rows of docs/export.md.

Each run trains by a recipe of recipes/, on another base where a row names one, and is exported to
both formats; a row has what its proofs hold: the score of the Keras model and of each export, the
share of equal answers, and the differences of probabilities, on up to 200 validation images. Street
scenes are half as large as in their recipe. It takes TL_TOOLKIT_ASSETS.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clock import ASSETS, ROOT, folders

import tl_toolkit as tl
from tl_toolkit.errors import ParityError

V2 = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
NETS = {
    "MobileNet 0.25": ("mobilenet", 0.25, "mobilenet_2_5_224_tf_no_top.h5", "conv_dw_12"),
    "MobileNet 0.75": ("mobilenet", 0.75, "mobilenet_7_5_224_tf_no_top.h5", "conv_dw_12"),
    "MobileNetV2 0.35": ("mobilenet_v2", 0.35, V2, "block_16"),
}
SETS = ("hymenoptera", "clothing", "camvid")
FORMATS = ("litert", "litert-int8")


def override(data: str, net: str) -> tuple[Path, dict[str, Any]]:
    """Returns a recipe, and what is another in it."""
    base, alpha, weights, unit = NETS[net]
    changes: dict[str, Any] = {
        "model.base": base,
        "model.arguments": {"alpha": alpha},
        "model.weights": str(ASSETS / "weights" / weights),
        "phases.tune.unfreeze": {"from": unit},
        "export": False,
        "report": False,
    }
    if data == "camvid":
        splits = {"train": "train", "validation": "val", "test": "test"}
        places = {f"data.{key}": ASSETS / "pixels" / data / name for key, name in splits.items()}
        changes |= {"data.image_size": [180, 240], "baseline": None}
    else:
        places = dict(zip(("data.train", "data.validation"), folders(data), strict=True))
        if data == "clothing":
            places["data.test"] = places["data.train"].parent / "test"
    name = "camvid_pixelnet" if data == "camvid" else f"{data}_mobilenet"
    return ROOT / "recipes" / f"{name}.yaml", changes | {k: str(v) for k, v in places.items()}


def describe(name: str, report: Mapping[str, Any]) -> str:
    """Returns the row of a format."""
    score, outputs = report["score"], report["outputs"]
    return (
        f"  {name:11}  {score['name']} {score['exported']:.3f} (Keras {score['keras']:.3f})  "
        f"{report['agreement']['share']:.1%} equal  largest difference "
        f"{outputs['largest_difference']:.1e}, mean {outputs['mean_difference']:.1e}  "
        f"{report['bytes'] / 1e6:.2f} MB  {report['images']} images"
    )


def main() -> None:
    """Prints the rows of each run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--net", choices=NETS, action="append")
    options = parser.parse_args()
    if unknown := set(options.sets) - set(SETS):  # argparse refuses no words at all, with choices
        parser.error(f"no sets: {', '.join(sorted(unknown))}")
    for data in options.sets or SETS:
        for net in options.net or NETS:
            recipe, changes = override(data, net)
            with tempfile.TemporaryDirectory() as folder:
                run = tl.finetune(recipe, overrides=changes, out=Path(folder) / "run")
                print(f"{data}, {net}", flush=True)
                for name in FORMATS:  # one by one: an export that is refused leaves the other
                    try:
                        run.export([name])
                        proof = run.path / "export" / f"parity.{name}.json"
                    except ParityError:
                        proof = run.path / "export" / f"parity.{name}.failed.json"
                    print(describe(name, run.folder.read_json(proof)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
