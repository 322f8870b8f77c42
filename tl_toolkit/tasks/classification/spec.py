"""The section of recipes for classification."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from tl_toolkit.recipe.fields import Conflict
from tl_toolkit.recipe.tasks import Details, TaskSection, field_of

__all__ = ["ClassificationSection", "is_imbalanced"]

_MOST_IMAGES = 3  # of a class for each image of another, before accuracy says little
_MOST_CLASSES = 20  # of a table of confusions
_MOST_PAIRS = 10


def is_imbalanced(counts: Mapping[str, int]) -> bool:
    """Returns whether classes differ so much that accuracy alone misleads.

    Args:
        counts: Images of each class.
    """
    return max(counts.values(), default=0) > _MOST_IMAGES * min(counts.values(), default=0)


class ClassificationSection(TaskSection):
    """One class for each image."""

    kind: Literal["classification"] = Field(default="classification", description="The task.")
    balance: Literal["class_weights", "oversample", "focal", "logit_adjust"] | None = Field(
        default=None,
        description="What training does about classes of unequal size: class_weights weighs each "
        "image by the inverse of its class's share, oversample shows each class equally often in "
        "an epoch, which has as many steps, focal (Lin et al., 2017) weighs down what is "
        "predicted well, logit_adjust (Menon et al., 2021) takes the classes' shares out of the "
        "logits, so that rare ones are predicted more often. Losses that are shown are without it.",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of each target that training spreads evenly over all classes, 0 to "
        "below 1 (Szegedy et al., 2016).",
        examples=[0.1],
    )

    calibrate: bool = Field(
        default=False,
        description="Divide the logits by a temperature that is fitted to the validation images "
        "(Guo et al., 2017), so that of images with a probability of 0.8 about 0.8 are right. No "
        "label changes.",
    )
    coverage: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        examples=[0.9],
        description="Give each image a set of labels that holds its own with this probability "
        "(split-conformal, by the validation images); none by default.",
    )
    ood: bool = Field(
        default=False,
        description="Give the exported model an output ood_score: how far the features that "
        "the head reads are from those of the nearest class in the validation images, 0 to 2.",
    )

    tunable: ClassVar[tuple[str, ...]] = (
        "balance",
        "label_smoothing",
        "calibrate",
        "coverage",
        "ood",
    )
    ungraded: ClassVar[frozenset[str]] = frozenset({"temperature", "set_size"})
    has_class_outputs: ClassVar[bool] = True
    graded_columns: ClassVar[tuple[str, ...]] = ("label", "predicted")
    hub_task: ClassVar[str] = "image-classification"
    hub_metrics: ClassVar[Mapping[str, str]] = {"macro_f1": "f1"}
    takes_teacher: ClassVar[bool] = True
    ranks_classes: ClassVar[bool] = True
    score: ClassVar[str] = "accuracy"
    headlines: ClassVar[tuple[str, ...]] = ("images", "accuracy", "loss")
    titles: ClassVar[Mapping[str, str]] = {
        "balanced_accuracy": "balanced accuracy",
        "macro_f1": "macro F1",
        "f1": "F1",
        "set_size": "labels in a set",
    }
    aliases: ClassVar[Mapping[str, str]] = {"acc": "accuracy"}
    baselines: ClassVar[Mapping[str, str]] = {
        "majority": "majority class",
        "neighbors": "nearest neighbours",
        "probe": "linear probe",
    }

    def choose_balance(self, counts: Mapping[str, int]) -> tuple[str, str]:
        """Returns class_weights and why, where classes differ so much that accuracy misleads.

        Args:
            counts: As in `TaskSection.choose_balance`.
        """
        if "balance" in self.model_fields_set or not is_imbalanced(counts):
            return "", ""
        why = f"one class has over {_MOST_IMAGES} times the images of another: each counts alike"
        return "class_weights", why

    @classmethod
    def find_recipe_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields a conflict for distances of features beside folds, whose models differ.

        Args:
            values: The recipe's sections, before validation.
        """
        yield from super().find_recipe_conflicts(values)
        if field_of(values.get("task"), "ood") and field_of(values.get("data"), "folds"):
            expected = "expected none beside data.folds: each fold has features of its own model"
            yield Conflict(("task", "ood"), expected, "~task.ood")

    @classmethod
    def select_headlines(cls, metrics: Mapping[str, Any]) -> list[str]:
        """Returns the numbers of a summary, with means over classes where these are imbalanced.

        Args:
            metrics: Metrics of a split.
        """
        counts = {name: row["images"] for name, row in metrics.get("per_class", {}).items()}
        names = super().select_headlines(metrics)
        if not is_imbalanced(counts):
            return names
        means = [name for name in ("balanced_accuracy", "macro_f1") if name in metrics]
        return [*names[:-1], *means, *names[-1:]] if names == list(cls.headlines) else names

    @classmethod
    def list_details(cls, metrics: Mapping[str, Any]) -> Iterator[Details]:
        """Yields the confusions: a table of up to 20 classes, else the most frequent ones.

        Args:
            metrics: Metrics of a split.
        """
        confusion = metrics.get("confusion")
        names = list(metrics.get("per_class", {}))
        if not confusion:
            return
        if len(names) <= _MOST_CLASSES:
            yield Details(
                "images of each class (a row) by prediction (a column)",
                ["class", *names],
                [[name, *row] for name, row in zip(names, confusion, strict=True)],
            )
            return
        pairs = sorted(
            (-count, label, predicted)
            for label, row in enumerate(confusion)
            for predicted, count in enumerate(row)
            if count and label != predicted
        )[:_MOST_PAIRS]
        if pairs:
            yield Details(
                "the most frequent confusions",
                ["class", "predicted", "images", "of the class"],
                [
                    [
                        names[label],
                        names[predicted],
                        -count,
                        f"{-count / sum(confusion[label]):.1%}",
                    ]
                    for count, label, predicted in pairs
                ],
            )


SPEC = ClassificationSection
