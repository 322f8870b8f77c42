"""Measures how many wrong labels `tl.check_data` finds: a twentieth of the labels are changed.

    TL_TOOLKIT_ASSETS=ASSETS python benchmarks/doubts.py

MobileNetV2 0.35 with ImageNet weights looks at two sets of real photos. On 2026-11-29:

    set          images  changed  doubted  changed among doubted  among as many gravest
    hymenoptera     398       19       17                      9                      9
    clothing      1,374       68      136                     46                     39

Labels that were wrong, or hard, before any was changed are doubted too.
"""

from __future__ import annotations

import csv
import os
import tempfile
from pathlib import Path

import numpy as np

import tl_toolkit as tl

ASSETS = Path(os.environ.get("TL_TOOLKIT_ASSETS", "../shared/assets"))
WEIGHTS = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
SHARE = 0.05


def write_table(table: Path, folder: Path) -> tuple[int, set[str]]:
    """Writes a table of a folder's images with changed labels; returns their number and paths."""
    files = sorted(path for path in folder.glob("*/*/*") if path.is_file())
    labels = [path.parent.name for path in files]
    names = sorted(set(labels))
    random = np.random.default_rng(0)
    changed = random.choice(len(files), int(SHARE * len(files)), replace=False).tolist()
    for index in changed:
        others = [name for name in names if name != labels[index]]
        labels[index] = str(random.choice(others))
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        writer.writerows(zip(map(str, files), labels, strict=True))
    return len(files), {str(files[index]) for index in changed}


def main() -> None:
    """Prints a row for each set."""
    print("set          images  changed  doubted  changed among doubted  among as many gravest")
    for name in ("hymenoptera", "clothing"):
        with tempfile.TemporaryDirectory() as place:
            table = Path(place) / "table.csv"
            images, changed = write_table(table, ASSETS / "images" / name)
            report = tl.check_data(
                table,
                {"model.arguments": {"alpha": 0.35}},
                base="mobilenet_v2",
                weights=str(ASSETS / "weights" / WEIGHTS),
            )
        doubted = [finding.paths[0] for finding in report.of("label_error")]
        found = len(changed.intersection(doubted))
        first = len(changed.intersection(doubted[: len(changed)]))
        print(f"{name:11} {images:7,} {len(changed):8} {len(doubted):8} {found:22} {first:22}")


if __name__ == "__main__":
    main()
