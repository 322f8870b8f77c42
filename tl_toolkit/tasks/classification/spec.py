"""The section of recipes for classification."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from tl_toolkit.recipe.tasks import TaskSection

__all__ = ["ClassificationSection"]


class ClassificationSection(TaskSection):
    """One class for each image."""

    kind: Literal["classification"] = Field(default="classification", description="The task.")

    ranks_classes: ClassVar[bool] = True
    score: ClassVar[str] = "accuracy"
    headlines: ClassVar[tuple[str, ...]] = ("images", "accuracy", "loss")
    titles: ClassVar[Mapping[str, str]] = {
        "balanced_accuracy": "balanced",
        "macro_f1": "macro F1",
        "f1": "F1",
    }


SPEC = ClassificationSection
