"""Sentences and lines of code of a model card."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_toolkit.catalog.records import RGB
from tl_toolkit.recipe.tasks import TaskSection

__all__ = ["Loading", "describe_loading", "describe_phase", "list_limits"]

_FEW_IMAGES = 100


@dataclass(frozen=True)
class Loading:
    """What the lines depend on that load a model.

    Attributes:
        image_size: (height, width) of the model's images.
        channels: Channels of its images.
        is_dense: Whether it has an output per pixel.
        saved_model: Where its SavedModel is, below the card; "" where there is none.
        place: Where Keras loads it from, where the card lies beside the model alone: `hf://...`, or
            a dot for the card's folder; "" where it lies beside the files of the run.
        is_foreign: Whether the model has layers of this package.
    """

    image_size: tuple[int, int]
    channels: int
    is_dense: bool
    saved_model: str
    place: str = ""
    is_foreign: bool = False


def describe_loading(loading: Loading) -> str:
    """Returns how a run's model is loaded, with lines that run in the folder of the card.

    Args:
        loading: What they depend on.
    """
    height, width = loading.image_size
    dtype = "uint8" if loading.channels == RGB else "float32"
    shape = f"({height}, {width}, {loading.channels})"
    takes = f"float32 (batch, {height}, {width}, {loading.channels})"
    takes = f"[{takes}, pixels]" if loading.is_dense else takes
    if loading.place:
        return "\n\n".join([_load_by_keras(loading), *_load_by_tensorflow(loading, shape, dtype)])
    parts = [
        "The lines run as they stand in the folder that holds this card and the files of the run: "
        "`model.keras`, `recipe.yaml`, `classes.json`, `status.json`, and `task.json` and "
        "`bands.json` where they are there. `pip install tl-toolkit` brings what they need.",
        f"""```python
import numpy as np
import tl_toolkit as tl

run = tl.load_run(".")
image = np.zeros({shape}, "{dtype}")  # or the path of a file or folder
for prediction in run.predict([image]):
    print(prediction.as_record())

model = tl.load_model("model.keras")  # a keras.Model of {takes}
print(model.output_shape)
```""",
    ]
    return "\n\n".join([*parts, *_load_by_tensorflow(loading, shape, dtype)])


def _load_by_keras(loading: Loading) -> str:
    """Returns lines that load a model where it was pushed to."""
    height, width = loading.image_size
    images = f'np.zeros((1, {height}, {width}, {loading.channels}), "float32")'
    inputs = f'[{images}, np.zeros((1, 4, 2), "float32")]' if loading.is_dense else images
    registers = (
        "import tl_toolkit.transfer.saved  # layers that Keras lacks: pip install tl-toolkit"
    )
    return f"""`classes.json` names the outputs. Images are RGB in 0..255, upright and resized.

```python
import keras
import numpy as np
{registers if loading.is_foreign else ""}
model = keras.saving.load_model("{loading.place}")
print(model.predict({inputs}, verbose=0))
```"""


def _load_by_tensorflow(loading: Loading, shape: str, dtype: str) -> list[str]:
    """Returns lines that load the SavedModel, if there is one."""
    if not loading.saved_model:
        return []
    return [
        "With TensorFlow alone, in a folder of these files:",
        f"""```python
import tensorflow as tf

served = tf.saved_model.load("{loading.saved_model}")
outputs = served.signatures["serving_default"](image=tf.zeros((1, *{shape}), tf.{dtype}))
print({{name: values.shape for name, values in outputs.items()}})
```""",
    ]


def describe_phase(history: Path) -> tuple[int, float | None, float | None]:
    """Returns the epochs of a phase, its last learning rate and its last loss.

    Args:
        history: Its history.csv, which need not be there.
    """
    rows: list[dict[str, str]] = []
    with contextlib.suppress(OSError, csv.Error), open(history, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    last = rows[-1] if rows else {}
    values = [float(last[name]) if last.get(name) else None for name in ("learning_rate", "loss")]
    return max((int(row["epoch"]) for row in rows), default=0), values[0], values[1]


def list_limits(
    task: TaskSection, metrics: Mapping[str, Any], split: str, *, image_size: tuple[int, int]
) -> list[str]:
    """Returns what the figures of a card do not say.

    Args:
        task: The run's task.
        metrics: As in metrics.json.
        split: The split that is claimed; "" for none.
        image_size: (height, width) of the model's images.
    """
    measured = metrics.get(split, {})
    limits = [
        f"Images of another kind than those it was trained on are not measured; all are resized to "
        f"{image_size[0]} x {image_size[1]} pixels, and what is smaller than a pixel then is lost.",
        "Intervals are about new images of the same kind. They know nothing of another training "
        "with another seed.",
    ]
    if split == "validation":
        limits.append("There are no test images: validation images chose the epoch, and flatter.")
    if split and measured.get("images", 0) < _FEW_IMAGES:
        limits.append(f"Only {measured['images']} images were measured.")
    if task.ranks_classes:
        limits.append(
            "It knows its own classes alone: an image of none of them gets one of them, or a "
            "probability of each, all the same."
        )
    if leaks := len(metrics.get("leaks", [])):
        limits.append(f"{leaks} images are in two splits, or twice with other targets.")
    if absent := task.describe_absent(measured):
        limits.append(f"{absent[0].upper()}{absent[1:]}.")
    limits.append("Intended use, consent and bias are not measured: who publishes it knows them.")
    return limits
