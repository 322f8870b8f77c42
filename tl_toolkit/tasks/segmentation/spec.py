"""The section of recipes for segmentation."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from tl_toolkit.tasks.dense.spec import DenseSection

__all__ = ["SegmentationSection"]


class SegmentationSection(DenseSection):
    """One class for each pixel."""

    kind: Literal["segmentation"] = Field(default="segmentation", description="The task.")

    score: ClassVar[str] = "mean_iou"
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "loss": ("cross_entropy", "dice", "focal"),
        "sampling": ("uniform", "balanced", "edges"),
    }
    titles: ClassVar[Mapping[str, str]] = {
        "iou": "IoU",
        "mean_iou": "mean IoU",
        "frequency_weighted_iou": "weighted IoU",
    }
    baselines: ClassVar[Mapping[str, str]] = {"majority": "majority class"}


SPEC = SegmentationSection
