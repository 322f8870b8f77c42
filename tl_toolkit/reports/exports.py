"""The section of a report on exported formats: their proofs, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tl_toolkit.reports.sections import DataTable, Section

__all__ = ["build_exports"]


def build_exports(
    proofs: Mapping[str, Mapping[str, Any]], *, title_of: Callable[[str], str]
) -> Section:
    """Returns a row for each format that was compared with the Keras model.

    Args:
        proofs: What parity.json and the proofs of other formats hold, by format.
        title_of: Returns the title of a metric.
    """
    if not proofs:
        return Section("exports", "Exported formats", [])
    scores = [proof.get("score") or {} for proof in proofs.values()]
    names = [score["name"] for score in scores if score]
    title = title_of(names[0]) if names else "score"
    columns = ["format", "runtime", "images", "largest difference", "equal answers", title,
               f"{title} in Keras", "ms an image, median", "95 % within", "MB"]  # fmt: skip
    rows = [
        [name, *_describe(proof, score)]
        for (name, proof), score in zip(proofs.items(), scores, strict=True)
    ]
    caption = "Formats that were published, each in its own runtime beside the Keras model"
    return Section("exports", "Exported formats", [DataTable(caption, columns, rows)])


def _describe(proof: Mapping[str, Any], score: Mapping[str, Any]) -> list[Any]:
    if "outputs" not in proof:  # a SavedModel takes whole images, and is not timed
        images, largest = len(proof["images"]), proof["pixels"]["largest_difference"]
        return ["TensorFlow", images, largest, None, None, None, None, None, None]
    times = proof.get("latency", {})
    return [
        proof["runtime"],
        proof["images"],
        proof["outputs"]["largest_difference"],
        proof["agreement"]["share"],
        score.get("exported"),
        score.get("keras"),
        times.get("p50_ms"),
        times.get("p95_ms"),
        proof["bytes"] / 1e6,
    ]
