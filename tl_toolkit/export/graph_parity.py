"""Compares a model in another format with the Keras model, on pixels of the model's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.architectures.batches import FixedBatch
from tl_toolkit.export.formats import Answer, FinishedModel
from tl_toolkit.export.graphs import run_graph
from tl_toolkit.images.pipeline import Images
from tl_toolkit.tasks.parity import Limits

__all__ = ["compare_graph", "measure_size"]

_NOISE = 16


def compare_graph(
    finished: FinishedModel, path: Path, *, runtime: str, limits: Limits, agreement: float
) -> dict[str, Any]:
    """Runs what was written in a fresh process, and returns the report.

    Args:
        finished: The model.
        path: What was written.
        runtime: A name of `graph_process.OPENERS`, which runs it.
        limits: The largest difference allowed, from pixels.
        agreement: The least share of equal answers.

    Returns:
        `holds`; `outputs` and `agreement` with their limits; `metrics` of both models where there
        are validation images; size in bytes, runtime, and the latency of one image.

    Raises:
        ParityError: The runtime cannot load the model, or run it.
    """
    model, task = finished.task.build_graph(finished.model), finished.task
    images = None if finished.load_images is None else finished.load_images()
    pixels = _read_pixels(images, model.input.shape[1:])
    expected = np.asarray(FixedBatch(model, batch_size=1)(pixels))
    answer = run_graph(runtime, path, pixels)
    outputs = answer.outputs.reshape(expected.shape)
    difference = float(np.max(task.measure_differences(outputs, expected)))
    share = _find_agreement(task.find_answers(outputs), task.find_answers(expected))
    measured = {}
    if images is not None and task.has_yardsticks:
        measured = {"keras": task.measure(expected, images.targets)[0],
                    "exported": task.measure(outputs, images.targets)[0]}  # fmt: skip
    equal = share is None or share >= agreement
    return {
        "holds": bool(difference <= limits.pixels and equal),
        "images": len(pixels),
        "outputs": {"largest_difference": difference, "limit": _as_json(limits.pixels)},
        "agreement": {"share": share, "limit": agreement},
        "metrics": measured,
        "bytes": measure_size(path),
        "runtime": answer.runtime,
        "latency": describe_latency(answer),
    }


def _read_pixels(images: Images | None, shape: tuple[int, ...]) -> np.ndarray:
    """Returns images as the model takes them, float32 (n, h, w, channels); noise for none."""
    if images is not None:
        return images.load(range(len(images))).astype(np.float32)
    noise = np.random.default_rng(0).uniform(0, 255, (_NOISE, *shape))
    return noise.astype(np.float32)


def _find_agreement(answers: np.ndarray | None, expected: np.ndarray | None) -> float | None:
    if answers is None or expected is None:
        return None
    return float(np.mean(answers == expected))


def describe_latency(answer: Answer) -> dict[str, Any]:
    """Returns the median and the 95th percentile of the calls, in milliseconds.

    Args:
        answer: What a model returned.
    """
    if not len(answer.milliseconds):
        return {}
    middle, slow = np.percentile(answer.milliseconds, [50, 95])
    return {"p50_ms": float(middle), "p95_ms": float(slow), "threads": answer.threads, "batch": 1}


def measure_size(path: Path) -> int:
    """Returns the bytes of a file, or of all files of a folder.

    Args:
        path: What was written.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _as_json(limit: float) -> float | None:
    """Returns a limit, None for none."""
    return limit if np.isfinite(limit) else None
