"""The recipe's `search` section: fields, the values they are tried with, and how to choose."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tl_toolkit.recipe.fields import (
    Conflict,
    Listed,
    Section,
    Seed,
    in_words,
    refuse_repeated,
)
from tl_toolkit.recipe.kinds import read_switch
from tl_toolkit.recipe.task_types import Monitor
from tl_toolkit.recipe.tasks import name_scores

__all__ = ["Dimension", "Objective", "Resources", "Search", "Soup", "suggest_space"]

_Number = int | float
DEFAULT_FACTOR = 3
"""As in the paper (Li et al., 2018) and in KerasTuner."""

_IN_BATCHES = ("bayesian", "tpe")
"""Algorithms that choose from a model of the scores so far."""


_FORM = "expected {choices: [...]}, a list, or {min: ..., max: ...}"


def _as_dimension(value: object) -> object:
    """Takes a list as choices, and refuses what is no section in words."""
    if isinstance(value, list | tuple):
        return {"choices": list(value)}
    if value is None or isinstance(value, bool | int | float | str):
        example = f"{value}, ..." if isinstance(value, int | float) else "0, 1, 2"
        raise in_words(_FORM, hint=f"{{choices: [{example}]}}")
    return value


class Dimension(Section):
    """The values of one field: choices, or a range."""

    choices: Annotated[tuple[Any, ...], Field(min_length=1), Listed] | None = Field(
        default=None, description="The values themselves, of any kind.", examples=[[0, 1, 2]]
    )
    min: _Number | None = Field(default=None, examples=[0], description="Least value of a range.")
    max: _Number | None = Field(
        default=None, examples=[0.6], description="Greatest value of a range."
    )
    step: _Number | None = Field(
        default=None,
        gt=0,
        examples=[0.1],
        description="Distance between values, with sampling: log their ratio; 1 by default between "
        "integers, and any value between other numbers.",
    )
    sampling: Literal["linear", "log"] = Field(
        default="linear", description="Whether steps or ratios are equally likely."
    )

    @property
    def is_whole(self) -> bool:
        """Whether it is a range of integers."""
        return all(isinstance(number, int) for number in (self.min, self.max, self.step or 1))

    @property
    def values(self) -> tuple[Any, ...] | None:
        """All values in order; None for a range without steps."""
        if self.choices is not None:
            return self.choices
        if self.min is None or self.max is None or (self.step is None and not self.is_whole):
            return None
        values: list[_Number] = [self.min if self.is_whole else float(self.min)]
        while (following := self._follow(values)) <= self.max:
            values.append(following)
        return tuple(values)

    @property
    def probes(self) -> tuple[Any, ...]:
        """All choices; of a range both ends and the second value, without listing the rest."""
        if self.choices is not None:
            return self.choices
        if self.min is None or self.max is None:
            return ()
        steps = self.step is not None or self.is_whole
        second = (self._follow([self.min]),) if steps else ()
        return tuple(
            dict.fromkeys((self.min, *(value for value in second if value < self.max), self.max))
        )

    def _follow(self, values: list[_Number]) -> _Number:
        """Returns the next value of a range, without rounding errors as in 0.30000000000000004."""
        if self.sampling == "log" and self.step is not None:
            following = values[-1] * self.step
        else:
            following = values[0] + len(values) * (self.step or 1)
        return following if self.is_whole else float(f"{following:.12g}")

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields conflicts if the values are neither choices nor a valid range.

        Args:
            values: As in `Section.find_conflicts`.
        """
        low: Any = values.get("min")
        high: Any = values.get("max")
        step: Any = values.get("step")
        if (values.get("choices") is None) == (low is None and high is None):
            yield Conflict((), "expected either choices, or min and max", "{min: 0, max: 0.5}")
            return
        if values.get("choices") is not None:
            yield from refuse_repeated(values.get("choices"), "choices")
            return
        if not _is_number(low) or not _is_number(high):
            if low is None or high is None:
                yield Conflict((), "expected both min and max")
            return
        if low >= high:
            yield Conflict(("max",), f"expected more than min, which is {low!r}, got {high!r}")
        if values.get("sampling") == "log":
            if low <= 0:
                expected = f"expected a min above 0 for sampling: log, got {low!r}"
                yield Conflict(("min",), expected)
            if _is_number(step) and step <= 1:
                yield Conflict(("step",), f"expected a ratio above 1, got {step!r}")
        elif _is_number(step) and step > high - low:
            expected = f"expected at most {high - low:g}, from min to max, got {step!r}"
            yield Conflict(("step",), expected)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_Values = Annotated[
    Dimension, BeforeValidator(_as_dimension, json_schema_input_type=Dimension | list[Any])
]


class Objective(Section):
    """The objective of a trial: a column of the epoch whose weights it keeps."""

    name: Monitor = Field(
        default="val_accuracy",
        description="The column: val_loss, or the score of the task, which is the default.",
    )
    direction: Literal["max", "min"] | None = Field(
        default=None, description="Which end is better; by default min for loss, max for a score."
    )

    @property
    def is_max(self) -> bool:
        """Whether more is better."""
        if self.direction is None:
            return self.name != "val_loss"
        return self.direction == "max"


class Soup(Section):
    """A mean of the weights of several trials (Wortsman et al., 2022, Model soups)."""

    candidates: int = Field(
        default=8,
        ge=2,
        le=100,
        description="Of so many trials, the best that were completed, the weights are kept on disk "
        "and tried for the mean. Each costs one pass over the validation images' features.",
        examples=[4],
    )


class Resources(Section):
    """What a trial takes of the node that it runs on, where a search is on a cluster."""

    cpus: Annotated[int, Field(ge=1)] = Field(
        default=1,
        description="CPU cores, and the size of TensorFlow's thread pools in its worker.",
        examples=[4],
    )
    gpus: float = Field(
        default=0,
        ge=0,
        description="GPUs, or a part of one: 0.5 for two trials on each. 0 hides all GPUs.",
        examples=[1],
    )
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Main memory in GB (10^9 bytes) that is set aside on the node.",
        examples=[8],
    )


def _as_soup(value: object) -> object:
    return read_switch(value, Soup, field="candidates")


def _check_fields(space: Mapping[str, Dimension] | None) -> Mapping[str, Dimension] | None:
    return None if space is None else dict(space)


class Search(Section):
    """Trials of the recipe with some fields replaced; the best becomes a recipe."""

    algorithm: Literal["random", "grid", "bayesian", "tpe", "hyperband"] = Field(
        default="random",
        description="How values are chosen: at random, each combination once, where a model of "
        "the scores so far expects the best (bayesian: KerasTuner's Gaussian process; tpe: "
        "Optuna's tree-structured Parzen estimator, which takes the extra optuna), or (hyperband) "
        "at random with many trials paused after a few epochs of the last phase, of which the best "
        "resume from where they were.",
    )
    factor: int = Field(
        default=DEFAULT_FACTOR,
        ge=2,
        le=100,
        description="Of hyperband: about one trial in so many resumes, up to so many times the "
        "epochs of the last phase.",
    )
    batch: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Of bayesian and tpe: so many trials are chosen together, before any of them "
        "has a score, and can run at a time on a cluster. Which they are depends on this number, "
        "and not on that of the workers.",
        examples=[4],
    )
    resources: Resources = Field(
        default=Resources(), description="What each trial takes on a cluster; changes no score."
    )
    trials: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        default=None,
        description="Trials at most; by default 12, every combination of a grid, and one round of "
        "hyperband, where a trial that resumes counts again.",
        examples=[12],
    )
    objective: Annotated[
        Objective,
        BeforeValidator(
            lambda value: {"name": value} if isinstance(value, str) else value,
            json_schema_input_type=Objective | Monitor,
        ),
    ] = Field(
        default=Objective(),
        description="What trials are judged by: val_loss, the score of the task (the default: "
        f"{name_scores()}), or a section.",
    )
    seed: Seed = Field(
        default=0, description="Seed of the choices; that of training stays the recipe's."
    )
    vary_seed: bool = Field(
        default=False,
        description="Whether each trial has a seed of its own. By default all have the recipe's: "
        "they start from the same head and see the same order, and differ by their values alone.",
    )
    refit: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Repeats of the winner with other seeds: the best of many trials is partly "
        "luck, and their mean shows how much.",
    )
    soup: Annotated[
        Soup | Literal[False], BeforeValidator(_as_soup, json_schema_input_type=Soup | bool)
    ] = Field(
        default=False,
        description="Whether to average the weights of the best trials too, one after the other, "
        "where the mean is not worse on validation images (a greedy soup): the folder soup becomes "
        "a run beside best.yaml. Trials must share their first phase. True for the 8 best trials, "
        "or a section with candidates.",
        examples=[True, {"candidates": 4}],
    )
    space: Annotated[Mapping[str, _Values], AfterValidator(_check_fields)] | None = Field(
        default=None,
        description="Dotted fields of the recipe and their values, a list or a section; by default "
        "the head's dropout and how many blocks the last phase unfreezes.",
        examples=[{"model.head.dropout": {"min": 0, "max": 0.6, "step": 0.1}}],
    )

    @property
    def reads_scores(self) -> bool:
        """Whether the algorithm chooses by the scores of earlier trials."""
        return self.algorithm in (*_IN_BATCHES, "hyperband")

    @property
    def library(self) -> str:
        """The library that chooses the values."""
        return "Optuna" if self.algorithm == "tpe" else "KerasTuner"

    @property
    def count(self) -> int | None:
        """Trials at most; None for a whole grid, and for a round of hyperband."""
        return self.trials or (None if self.algorithm in ("grid", "hyperband") else 12)

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields conflicts for settings of another algorithm, and fields that no trial may change.

        Args:
            values: As in `Section.find_conflicts`.
        """
        algorithm = values.get("algorithm", "random")
        if values.get("factor") not in (None, DEFAULT_FACTOR) and algorithm != "hyperband":
            expected = (
                f"expected {DEFAULT_FACTOR} or algorithm: hyperband, got {values['factor']!r} with "
                f"{algorithm!r}"
            )
            yield Conflict(("factor",), expected, "algorithm: hyperband")
        if values.get("batch") not in (None, 1) and algorithm not in _IN_BATCHES:
            expected = (
                f"expected 1 or algorithm: {' or '.join(_IN_BATCHES)}, got {values['batch']!r} "
                f"with {algorithm!r}, whose trials run together without it"
            )
            yield Conflict(("batch",), expected, "~search.batch")
        if values.get("soup") and values.get("vary_seed"):
            expected = "expected false with vary_seed: trials would begin with heads of their own, "
            expected += "and the mean of these is none"
            yield Conflict(("soup",), expected, "vary_seed: false")
        space = values.get("space")
        for field, dimension in space.items() if isinstance(space, Mapping) else ():
            path = ("space", str(field))
            reason = _refuse_field(str(field))
            if reason:
                yield Conflict(path, f"expected a field that trials may differ in: {reason}")
            if str(field) == "precision" and "auto" in str(dimension):
                yield Conflict(path, "expected float32, bfloat16 and float16: auto stands for one")
            if values.get("algorithm") == "grid" and isinstance(dimension, Mapping):
                ends = [dimension.get(name) for name in ("min", "max")]
                if any(isinstance(end, float) for end in ends) and not dimension.get("step"):
                    yield Conflict(path, "expected a step: a grid goes through every value")
        if isinstance(space, Mapping) and not space:
            yield Conflict(("space",), "expected at least one field, or no space for the default")


_FIXED_DATA = (
    "train", "csv", "table", "columns", "builtin", "validation", "test", "folds", "group",
    "classes", "split_seed", "broken", "channels",
)  # fmt: skip


def _refuse_field(field: str) -> str:
    """Returns why trials cannot differ in a field; "" if they can."""
    section, _, rest = field.lstrip("~").partition(".")
    if field.startswith("~"):
        return "write null among its choices instead of removing it"
    if section == "task" and rest in ("", "kind"):
        return "scores of other tasks cannot be compared"
    if section in (
        "version",
        "name",
        "search",
        "export",
        "baseline",
        "yardsticks",
        "deterministic",
    ):
        return f"{section} does not decide what is learnt"
    if section == "data" and rest.partition(".")[0] in ("", *_FIXED_DATA):
        return "scores on other images cannot be compared"
    return ""


def suggest_space(has_classes: bool) -> str:
    """Returns a space to type for a head that is solved and has no phase after it.

    Args:
        has_classes: Whether the task has classes, which a logistic regression needs.
    """
    values = "solver: [ridge, logistic]" if has_classes else "normalize: [true, false]"
    return shlex.quote(f"search.space={{model.head.{values}}}")
