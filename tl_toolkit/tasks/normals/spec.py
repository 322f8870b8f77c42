"""The section of recipes for surface normals."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from tl_toolkit.tasks.dense.spec import DenseSection

__all__ = ["NormalsSection"]


class NormalsSection(DenseSection):
    """The direction that the surface faces at each pixel."""

    kind: Literal["normals"] = Field(default="normals", description="The task.")

    hub_task: ClassVar[str] = "image-to-image"
    score: ClassVar[str] = "within_22_5"
    has_classes: ClassVar[bool] = False
    absent: ClassVar[Mapping[str, str]] = {
        "balance": "directions have no classes of unequal size",
        "calibrate": "directions are no probabilities",
        "coverage": "sets of labels are of tasks with one class for each image",
        "ood": "distances are of whole images",
    }
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "loss": ("angular",),
        "sampling": ("uniform",),
        "class_weights": (None,),
    }
    remarks: ClassVar[Mapping[str, str]] = {
        "loss": "Normals have angular, 1 minus the cosine of the angle, which is their default.",
    }
    titles: ClassVar[Mapping[str, str]] = {
        "rmse_angle": "RMSE angle",
        "within_11_25": "within 11.25",
        "within_22_5": "within 22.5",
        "within_30": "within 30",
    }
    baselines: ClassVar[Mapping[str, str]] = {"facing": "facing the viewer"}
    lower_is_better: ClassVar[frozenset[str]] = frozenset(
        {"loss", "mean_angle", "median_angle", "rmse_angle"}
    )


SPEC = NormalsSection
