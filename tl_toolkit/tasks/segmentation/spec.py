"""The section of recipes for segmentation."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from tl_toolkit.tasks.dense.spec import DenseSection

__all__ = ["SegmentationSection"]


class SegmentationSection(DenseSection):
    """One class for each pixel."""

    kind: Literal["segmentation"] = Field(default="segmentation", description="The task.")
    balance: Literal["class_weights", "focal", "dice"] | None = Field(
        default=None,
        description="What training does about classes of few pixels, short for fields of pixels: "
        "class_weights for class_weights: balanced, focal and dice for that loss.",
    )
    calibrate: bool = Field(
        default=False,
        description="Divide the logits by a temperature that is fitted to pixels of the validation "
        "images (Guo et al., 2017), so that of pixels with a probability of 0.8 about 0.8 are "
        "right. No class of a pixel changes.",
    )

    hub_task: ClassVar[str] = "image-segmentation"
    absent: ClassVar[Mapping[str, str]] = {
        "coverage": "sets of labels are of tasks with one class for each image",
        "ood": "distances are of whole images",
    }
    score: ClassVar[str] = "mean_iou"
    tunable: ClassVar[tuple[str, ...]] = ("balance", "calibrate")
    balances: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "class_weights": {"class_weights": "balanced"},
        "focal": {"loss": "focal"},
        "dice": {"loss": "dice"},
    }
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "loss": ("cross_entropy", "dice", "focal"),
        "sampling": ("uniform", "balanced", "edges"),
    }
    titles: ClassVar[Mapping[str, str]] = {
        "iou": "IoU",
        "mean_iou": "mean IoU",
        "frequency_weighted_iou": "weighted IoU",
        "ece": "ECE",
    }
    ungraded: ClassVar[frozenset[str]] = frozenset({"temperature"})
    lower_is_better: ClassVar[frozenset[str]] = frozenset({"loss", "ece"})
    aliases: ClassVar[Mapping[str, str]] = {"iou": "mean_iou", "miou": "mean_iou"}
    baselines: ClassVar[Mapping[str, str]] = {"majority": "majority class"}

    @classmethod
    def describe_absent(cls, metrics: Mapping[str, Any]) -> str:
        """Returns a sentence on the classes that no mask of a split has, or "".

        Args:
            metrics: Of the split.
        """
        absent = [name for name, row in metrics.get("per_class", {}).items() if not row["pixels"]]
        if not absent:
            return ""
        return (
            f"no pixel of {', '.join(absent)} in the masks: mean accuracy leaves it out; mean IoU "
            "counts it where it was predicted"
        )


SPEC = SegmentationSection
