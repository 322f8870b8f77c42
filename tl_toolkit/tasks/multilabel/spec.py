"""The section of recipes for multi-label classification."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tl_toolkit.recipe.fields import Conflict, Text, expects
from tl_toolkit.recipe.tasks import TaskSection, field_of, refuse_head, require_table

__all__ = ["DEFAULT_THRESHOLD", "MultilabelSection"]

DEFAULT_THRESHOLD = 0.5


class MultilabelSection(TaskSection):
    """Any number of classes for each image, from a table: the column `labels`, or one a class."""

    kind: Literal["multilabel"] = Field(default="multilabel", description="The task.")
    labels: Text = Field(
        default="labels",
        description="Column of the table that names the classes of an image. A table without it "
        "has a column of 0 and 1, or of True and False, for each class.",
    )
    separator: Text = Field(default="|", description="What stands between names in that column.")
    threshold: Annotated[
        Literal["validation"] | Annotated[float, Field(gt=0, lt=1)],
        expects("expected validation, or a probability above 0 and below 1"),
    ] = Field(
        default="validation",
        description="Probability from which on a class is predicted: validation, for each class "
        "the one with the best F1 on the validation images; or one number for all.",
    )

    balance: Literal["class_weights", "focal"] | None = Field(
        default=None,
        description="What training does about labels that few images have: class_weights weighs "
        "the images with and without a label so that both weigh as much together, focal (Lin et "
        "al., 2017) weighs down what is predicted well. Losses that are shown are without it.",
    )

    calibrate: bool = Field(
        default=False,
        description="Divide all logits by one temperature that is fitted to the validation images "
        "(Guo et al., 2017), so that of labels with a probability of 0.8 about 0.8 are right. The "
        "order of images stays, and with threshold: validation each prediction.",
    )

    hub_task: ClassVar[str] = "image-classification"
    hub_metrics: ClassVar[Mapping[str, str]] = {
        "macro_f1": "f1",
        "micro_f1": "f1",
        "mean_average_precision": "average_precision",
    }
    absent: ClassVar[Mapping[str, str]] = {
        "coverage": "any number of labels may be right; threshold decides each",
        "ood": "distances are from the means of classes that exclude each other",
    }
    ranks_classes: ClassVar[bool] = True
    has_class_outputs: ClassVar[bool] = True
    score: ClassVar[str] = "mean_average_precision"
    titles: ClassVar[Mapping[str, str]] = {
        "mean_average_precision": "mAP",
        "average_precision": "AP",
        "micro_f1": "micro F1",
        "macro_f1": "macro F1",
        "f1": "F1",
    }
    baselines: ClassVar[Mapping[str, str]] = {
        "neighbors": "nearest neighbours",
        "probe": "linear probe",
    }
    ungraded: ClassVar[frozenset[str]] = frozenset({"threshold", "temperature"})
    tunable: ClassVar[tuple[str, ...]] = ("threshold", "balance", "calibrate")

    @property
    def label_column(self) -> str:
        """Column of a table that names the classes of an image."""
        return self.labels

    @classmethod
    def find_recipe_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields conflicts for sources without a column of labels, and heads for a single class.

        Args:
            values: The recipe's sections, before validation.
        """
        yield from super().find_recipe_conflicts(values)
        yield from require_table("multilabel", values.get("data"))
        yield from refuse_head("multilabel", field_of(values.get("model"), "head"))


SPEC = MultilabelSection
