"""Compares a model in another format with the Keras model, on pixels of the model's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_toolkit.architectures.batches import FixedBatch, as_list
from tl_toolkit.export.formats import Answer, FinishedModel, Format
from tl_toolkit.export.graph_process import SINGLE
from tl_toolkit.export.graphs import run_graph
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.pipeline import Images
from tl_toolkit.runs.listing import measure_size
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.parity import compare_further

__all__ = ["compare_graph"]

_NOISE = 16
_MOST_OUTPUTS = 32_000_000  # numbers that are compared at once, 128 MB


def compare_graph(finished: FinishedModel, form: Format, path: Path) -> dict[str, Any]:
    """Runs what was written in a fresh process, and returns the report.

    Args:
        finished: The model.
        form: Its format, which has a runtime.
        path: What was written.

    Returns:
        `holds`; `outputs`, `further_outputs` and `agreement` with their limits; `score` and
        `metrics` of both models where there are validation images; size in bytes, runtime, and the
        latency of one image.

    Raises:
        ParityError: The runtime cannot load the model, or run it.
    """
    model, task = finished.task.build_graph(finished.model), finished.task
    images = None if finished.load_images is None else finished.load_images()
    pixels, examples = _read_pixels(images, model)
    expected = _run_keras(model, pixels)
    answer = run_graph(form.runtime, path, pixels, consequence="Nothing was published.")
    name = SINGLE if len(expected) == 1 else task.served
    right = expected.pop(name)
    outputs = answer.outputs[name].reshape(right.shape)
    differences = task.measure_differences(outputs, right)
    largest, mean = float(np.max(differences)), float(np.mean(differences))
    share = _find_agreement(task.find_answers(outputs), task.find_answers(right))
    clear = task.find_clear({task.served: right, **expected}, form.limits.pixels)
    further = compare_further(answer.outputs, expected, clear, form.limits.pixels)
    metrics = _measure(finished, examples, {"keras": right, "exported": outputs})
    says_the_same = mean <= form.mean if share is None else share >= form.agreement
    return {
        "holds": bool(
            largest <= form.limits.pixels
            and says_the_same
            and all(output["holds"] for output in further.values())
        ),
        "images": len(pixels),
        "outputs": {
            "largest_difference": largest,
            "limit": _as_json(form.limits.pixels),
            "mean_difference": mean,
            "mean_limit": _as_json(form.mean) if share is None else None,
        },
        "further_outputs": further,
        "agreement": {"share": share, "limit": form.agreement or None},
        "score": _find_score(task, metrics),
        "metrics": metrics,
        "bytes": measure_size(path),
        "runtime": answer.runtime,
        "latency": describe_latency(answer),
    }


def _run_keras(model: keras.Model, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the outputs of the Keras model by name."""
    named = model.output if isinstance(model.output, dict) else {SINGLE: model.output}
    outputs = FixedBatch(keras.Model(model.input, [*named.values()]), batch_size=1)(pixels)
    return {
        name: np.asarray(value).astype(tensor.dtype)
        for (name, tensor), value in zip(named.items(), as_list(outputs), strict=True)
    }


def _measure(
    finished: FinishedModel, examples: Sequence[Example], outputs: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Returns the metrics of both models on the images that they are compared on."""
    if not examples:
        return {}
    height, width = finished.task.build_graph(finished.model).input.shape[1:3]
    targets = finished.task.load_targets(examples, (height, width), finished.resize)
    measured = {
        side: finished.task.measure_graph(array, targets) for side, array in outputs.items()
    }
    return measured if all(measured.values()) else {}


def _find_score(task: Task, metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the score that finished models are compared by, of both; {} where it is none."""
    for name in (task.final_score, task.score):
        scores = {side: measured.get(name) for side, measured in metrics.items()}
        if scores and None not in scores.values():
            return {"name": name, **scores}
    return {}


def _read_pixels(images: Images | None, model: keras.Model) -> tuple[np.ndarray, Sequence[Example]]:
    """Returns images as the model takes them, float32 (n, h, w, channels), and what they are.

    Without images it is noise, of no examples.

    Of a model with large outputs, as one for each pixel, there are fewer.
    """
    output = model.output
    several = output.values() if isinstance(output, dict) else [output]
    numbers = sum(int(np.prod(tensor.shape[1:])) for tensor in several)
    most = max(1, _MOST_OUTPUTS // max(1, numbers))
    if images is not None:
        count = min(most, len(images))
        places = [index * len(images) // count for index in range(count)]
        examples = [images.examples[place] for place in places]
        return images.load(places).astype(np.float32), examples
    shape = (min(most, _NOISE), *model.input.shape[1:])
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32), ()


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


def _as_json(limit: float) -> float | None:
    """Returns a limit, None for none."""
    return limit if np.isfinite(limit) else None
