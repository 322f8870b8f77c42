"""Times a model in the formats that are there: latency and throughput by batch and threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_toolkit.export.formats import find_format
from tl_toolkit.export.graphs import run_graph
from tl_toolkit.runs.listing import measure_size

__all__ = ["PREDICT", "Timing", "plot_timings", "time_formats"]

PREDICT = "keras predict"
"""The name of `keras.Model.predict` on the run's model, which all else stands beside."""


@dataclass(frozen=True)
class Timing:
    """How long a format takes.

    Attributes:
        format: Its name.
        runtime: What ran it.
        batch: Images of a call.
        threads: Threads of a call.
        p50_ms: Median of the calls, in milliseconds.
        p95_ms: 95th percentile.
        images_per_second: By the median.
        bytes: Size on disk.
    """

    format: str
    runtime: str
    batch: int
    threads: int
    p50_ms: float
    p95_ms: float
    images_per_second: float
    bytes: int


def time_formats(
    paths: Mapping[str, Path],
    shape: Sequence[int],
    *,
    batches: Sequence[int],
    threads: Sequence[int],
    calls: int,
    began: Callable[[str], None],
    done: Callable[[Timing], None],
) -> list[Timing]:
    """Times each format in fresh processes, one after the other, on noise of the model's size.

    Args:
        paths: Where each format lies; PREDICT names the run's .keras file.
        shape: Height, width and channels that the model takes.
        batches: Images of a call.
        threads: Threads of a call.
        calls: Calls of each kind.
        began: Receives the name of each format when its first process starts.
        done: Receives each timing.

    Raises:
        ParityError: A runtime cannot load a model, or run it.
    """
    image = np.random.default_rng(0).uniform(0, 255, (1, *shape)).astype(np.float32)
    timings = []
    for name, path in paths.items():
        began(name)
        for count, batch in _pairs(threads, batches):
            runtime = "keras-predict" if name == PREDICT else find_format(name).runtime
            answer = run_graph(
                runtime, path, image, threads=count, calls=calls, batch=batch,
                consequence="No figure was written.",
            )  # fmt: skip
            middle, slow = np.percentile(answer.milliseconds, [50, 95])
            timing = Timing(
                name, answer.runtime, batch, count, float(middle), float(slow),
                float(1000 * batch / middle), measure_size(path),
            )  # fmt: skip
            timings.append(timing)
            done(timing)
    return timings


def _pairs(threads: Sequence[int], batches: Sequence[int]) -> Iterator[tuple[int, int]]:
    for count in threads:
        for batch in batches:
            yield count, batch


def plot_timings(path: Path, timings: Sequence[Timing]) -> None:
    """Draws the time of an image in each format as SVG, by batch and threads.

    Args:
        path: File to write.
        timings: At least one.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(timing.format for timing in timings))
    kinds = list(dict.fromkeys((timing.batch, timing.threads) for timing in timings))
    figure = Figure(figsize=(6.4, 1.2 + 0.3 * len(names) * len(kinds)), layout="constrained")
    axis = figure.subplots()
    height = 0.8 / len(kinds)
    for place, (batch, threads) in enumerate(kinds):
        rows = {timing.format: timing for timing in timings
                if (timing.batch, timing.threads) == (batch, threads)}  # fmt: skip
        milliseconds = [1000 / rows[name].images_per_second for name in names]
        bars = axis.barh(
            [index + place * height for index in range(len(names))], milliseconds, height,
            label=f"batch {batch}, {threads} thread{'s' * (threads > 1)}",
        )  # fmt: skip
        axis.bar_label(bars, fmt="%.2g", padding=2, fontsize=8)
    axis.set_yticks([index + 0.4 - height / 2 for index in range(len(names))], names)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("milliseconds an image, median")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8)
    figure.savefig(path, format="svg")
