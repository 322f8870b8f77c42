"""The section of recipes for edges."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from tl_toolkit.tasks.dense.spec import DenseSection

__all__ = ["EdgesSection"]


class EdgesSection(DenseSection):
    """The probability of an edge at each pixel."""

    kind: Literal["edges"] = Field(default="edges", description="The task.")
    balance: Literal["class_weights", "focal"] | None = Field(
        default=None,
        description="What training does about edges being few pixels, short for fields of pixels: "
        "class_weights, which is the default, for class_weights: balanced, as in HED (Xie and Tu, "
        "2015); focal for loss: focal without class weights.",
    )
    thin: bool = Field(
        default=False,
        description="Learn edges one pixel wide, thinned as they are measured: predictions are "
        "sharper, and lie where the target's line is. Best without class weights.",
    )

    hub_task: ClassVar[str] = "image-to-image"
    score: ClassVar[str] = "f_score"
    final_score: ClassVar[str] = "ods"
    has_classes: ClassVar[bool] = False
    absent: ClassVar[Mapping[str, str]] = {
        "calibrate": "edges are measured at every threshold, which a temperature would only move",
        "coverage": "sets of labels are of tasks with one class for each image",
        "ood": "distances are of whole images",
    }
    why_rgb: ClassVar[str] = "Sobel's filter, which edges are compared with, is of RGB"
    ignores_colors: ClassVar[bool] = False
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "loss": ("cross_entropy", "focal"),
        "sampling": ("uniform", "balanced", "edges"),
        "class_weights": ("balanced", None),
    }
    tunable: ClassVar[tuple[str, ...]] = ("balance",)
    balances: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "class_weights": {"class_weights": "balanced"},
        "focal": {"loss": "focal", "class_weights": None},
    }
    remarks: ClassVar[Mapping[str, str]] = {
        "loss": "Edges have no dice.",
        "class_weights": "For edges balanced is the default, and null turns it off: edges of an "
        "image have as much weight together as its other pixels.",
    }
    titles: ClassVar[Mapping[str, str]] = {
        "f_score": "F score",
        "average_precision": "AP",
        "ods": "ODS",
        "ods_threshold": "ODS threshold",
        "ods_precision": "ODS precision",
        "ods_recall": "ODS recall",
        "ois": "OIS",
    }
    baselines: ClassVar[Mapping[str, str]] = {"sobel": "Sobel filter"}
    ungraded: ClassVar[frozenset[str]] = frozenset({"ods_threshold"})


SPEC = EdgesSection
