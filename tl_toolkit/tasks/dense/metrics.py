"""Metrics of whole maps, by the scores of single images that predictions.csv holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tl_toolkit.tasks.dense.spec import DenseSection
from tl_toolkit.tasks.predictions import Columns, read_numbers
from tl_toolkit.tasks.resampling import Sample

__all__ = ["sample_predictions"]


def sample_predictions(
    columns: Columns, classes: Sequence[str], state: Mapping[str, Any], section: DenseSection
) -> Sample:
    """Returns images with the task's score of each, whose mean is compared.

    The score of a split counts pixels of all its images together, and is another number: the maps
    themselves are not kept.

    Args:
        columns: As in `tl_toolkit.tasks.predictions`.
        classes: Not used.
        state: Not used.
        section: The task's section.
    """
    name = section.score
    cells = columns.get(name, [""] * len(columns["path"]))  # of a split without any score
    scores = read_numbers({name: [cell or "nan" for cell in cells]}, [name])[:, 0]
    scored = np.isfinite(scores)  # an image of which a crop left nothing has none
    values = np.where(scored, scores, 0.0).astype(np.float64)

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        return {name: counts @ values / np.maximum(counts @ scored.astype(np.float64), 1)}

    return Sample(len(values), measure)
