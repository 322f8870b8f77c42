"""A teacher's outputs for the training images: computed once, and stored as features are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tl_toolkit.architectures.batches import FixedBatch
from tl_toolkit.events import Handler, message
from tl_toolkit.features.store import Entry, FeatureCache
from tl_toolkit.images.bands import describe_pixels
from tl_toolkit.images.geometry import Resize
from tl_toolkit.images.pipeline import MEMORY_BUDGET, Images
from tl_toolkit.runs.files import hash_file
from tl_toolkit.runtime import describe_arithmetic
from tl_toolkit.sources.objects import name_object
from tl_toolkit.transfer.saved import load_saved_model

__all__ = ["find_outputs"]


def find_outputs(
    path: Path,
    images: Images,
    *,
    image_size: tuple[int, int],
    resize: Resize,
    is_stored: bool,
    progress: Handler,
) -> np.ndarray:
    """Returns the outputs of a whole model for images as they are, without augmentation.

    Args:
        path: The file of the model.
        images: The images; their own size does not matter.
        image_size: (height, width) of the model's images.
        resize: How images are resized to that size.
        is_stored: Whether outputs are kept for later runs, and read if they are there.
        progress: Receives a message.

    Returns:
        float32 (n, outputs).

    Raises:
        DataError: The model is damaged, or an image is gone.
    """
    name = name_object(str(path.parent))
    contents = [bytes.fromhex(example.sha256) for example in images.examples]
    context = {
        "teacher": hash_file(path),
        "image_size": list(image_size),
        "resize": str(resize),
        **describe_pixels(images.channels),
        **describe_arithmetic(),
    }
    key = hashlib.sha256(json.dumps(context, sort_keys=True).encode()).hexdigest()[:32]
    entry = FeatureCache().entry(key)
    stored = entry.read(contents) if is_stored else None
    if stored is not None:
        progress(message(f"teacher: outputs of {name} are read from the store"))
        return np.asarray(stored.take(np.arange(len(contents)))[0])
    resized = Images(
        images.examples,
        image_size=image_size,
        resize=resize,
        channels=images.channels,
        memory_budget=MEMORY_BUDGET // 3,
    )
    outputs = np.concatenate(list(_compute(path, resized)))
    progress(message(f"teacher: outputs of {name} for {len(outputs)} images are computed"))
    if is_stored:
        with contextlib.suppress(OSError):  # a full disk costs the next run a pass
            _store(entry, contents, outputs, made_by=f"{os.path.basename(name)} before its end")
    return outputs


def _compute(path: Path, images: Images) -> Iterator[np.ndarray]:
    model = FixedBatch(load_saved_model(path))
    for pixels, _ in images.batches(np.arange(len(images)), model.batch_size):
        yield np.asarray(model(pixels))


def _store(entry: Entry, contents: list[bytes], outputs: np.ndarray, *, made_by: str) -> None:
    missing = entry.missing(contents)
    places = {image: place for place, image in enumerate(contents)}
    with entry.write(missing, [outputs.shape[1:]], "float32", made_by) as writer:
        writer.add([outputs[[places[image] for image in missing]]])
