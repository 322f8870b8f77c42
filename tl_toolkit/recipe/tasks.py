"""Tasks as recipes name them: a section with a kind of its own, defined in the task's folder.

Imports run downward, and tasks lie above recipes. A task's module with what a recipe must know (its
fields, its defaults, the names of its metrics) is therefore imported by name: `spec.py` in the
task's folder defines `SPEC`, a child of `TaskSection`, and imports no TensorFlow.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from tl_toolkit.recipe.fields import Conflict, Section
from tl_toolkit.recipe.kinds import KindSection

__all__ = [
    "DEFAULT_TASK",
    "TASKS",
    "Details",
    "TaskSection",
    "add_missing",
    "describe_tasks",
    "field_of",
    "find_task",
    "list_choices",
    "list_monitors",
    "list_remarks",
    "name_scores",
    "refuse_head",
    "require_table",
    "task_of",
]

TASKS = ("classification", "multilabel", "regression", "segmentation", "edges", "normals")
"""Every task, a folder of `tl_toolkit.tasks` each. A new task is a folder and a word here."""

DEFAULT_TASK = "classification"
"""The task of recipes that name none."""


_RIVALS = {"scratch": "same network from scratch"}
"""What a run is compared with beside predictions without a model: its baseline, by name."""


class Details(NamedTuple):
    """A table of figures that stands below the metrics of a split.

    Attributes:
        title: What it shows.
        columns: Names of the columns.
        rows: Rows, with a value for each column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class TaskSection(KindSection):
    """A task: its fields, and the checks of its recipes.

    Attributes:
        score: The metric that epochs are compared by, higher is better; `val_<score>` is its
            column.
        final_score: The metric that finished models are compared by, higher is better; the score
            if it is empty.
        is_dense: Whether there is one output per pixel; else there is one per image.
        ranks_classes: Whether a prediction gives each class a probability.
        has_class_outputs: Whether an output belongs to one class alone, so that it stands for the
            class of that name in another run.
        graded_columns: Columns of predictions.csv with the target of an image and its prediction,
            where a prediction is right or wrong; none where it is more or less so.
        hub_task: The Hugging Face Hub's word for the task, in model cards; "" where it has none.
        hub_metrics: The Hub's words for metrics that it calls otherwise.
        takes_teacher: Whether another run's probabilities of its classes can be learned.
        why_not_mirrored: Why a mirrored image may have another target; "" if it has the same.
        has_classes: Whether `data.classes` names the outputs.
        titles: How metrics are written in tables, by name; by default their name with spaces.
        aliases: What other tools call its metrics: the metric by its other name.
        headlines: The only metrics that a summary shows; all numbers if there are none.
        grouped_by: What metrics are grouped by beside their means: they hold `per_<grouped_by>`.
        baselines: Titles of predictions without a model, by the name of their metrics.
        lower_is_better: Metrics of which lower values are better.
        ungraded: Numbers in the metrics that no threshold can be set on.
        tunable: Its own fields that trials and a baseline may change, as its targets stay the same.
        absent: Fields of other tasks that it lacks, and why.
        choices: Values that the task takes for fields of `pixels`; the first is its default.
        remarks: What the descriptions of these fields say of the task.
        shared_modules: Modules of the task that are in another folder, by their name in its own.
        why_rgb: Why images must be RGB; "" if they may have any channels.
    """

    kind: str = Field(default="", description="Name of the task.")

    score: ClassVar[str]
    final_score: ClassVar[str] = ""
    is_dense: ClassVar[bool] = False
    ranks_classes: ClassVar[bool] = False
    has_class_outputs: ClassVar[bool] = False
    graded_columns: ClassVar[tuple[str, ...]] = ()
    hub_task: ClassVar[str] = ""
    hub_metrics: ClassVar[Mapping[str, str]] = {}
    takes_teacher: ClassVar[bool] = False
    why_not_mirrored: ClassVar[str] = ""
    has_classes: ClassVar[bool] = True
    titles: ClassVar[Mapping[str, str]] = {}
    aliases: ClassVar[Mapping[str, str]] = {}
    headlines: ClassVar[tuple[str, ...]] = ()
    grouped_by: ClassVar[str] = "class"
    baselines: ClassVar[Mapping[str, str]] = {}
    lower_is_better: ClassVar[frozenset[str]] = frozenset({"loss"})
    ungraded: ClassVar[frozenset[str]] = frozenset()
    tunable: ClassVar[tuple[str, ...]] = ()
    absent: ClassVar[Mapping[str, str]] = {}
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    remarks: ClassVar[Mapping[str, str]] = {}
    shared_modules: ClassVar[Mapping[str, str]] = {}
    why_rgb: ClassVar[str] = ""

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields a conflict for each field of other tasks that has no meaning here.

        Args:
            values: The fields of the section, before validation.
        """
        for name, reason in cls.absent.items():
            if values.get(name) is not None:
                yield Conflict((name,), f"expected none: {reason}", f"~task.{name}")

    def open(self, name: str) -> Any:
        """Imports a module of the task's folder.

        Args:
            name: `planning`, light, `outputs`, which imports numpy, or `task`, which imports
                TensorFlow.
        """
        own_module = f"tl_toolkit.tasks.{self.kind}.{name}"
        return import_module(self.shared_modules.get(name, own_module))

    @property
    def label_column(self) -> str:
        """Column of a table that labels an image, of a task that ranks classes."""
        return "label"

    def choose_balance(self, counts: Mapping[str, int]) -> tuple[str, str]:
        """Returns the word of `balance` that a preset chooses, and why; "" where it leaves it.

        Args:
            counts: Training images of each class, roughly where fractions decide.
        """
        return "", ""

    @classmethod
    def title_of(cls, metric: str) -> str:
        """Returns the title of a metric in tables.

        Args:
            metric: Its name in metrics.json, as "mean_iou".
        """
        return cls.titles.get(metric, metric.replace("_", " "))

    @classmethod
    def list_aliases(cls) -> dict[str, str]:
        """Returns metrics by their titles, and by what other tools call them."""
        return {title: name for name, title in cls.titles.items()} | dict(cls.aliases)

    @classmethod
    def select_headlines(cls, metrics: Mapping[str, Any]) -> list[str]:
        """Returns the numbers that a summary of a split's metrics shows.

        Args:
            metrics: Metrics of a split.
        """
        if cls.headlines and all(name in metrics for name in cls.headlines):
            return list(cls.headlines)
        return [name for name, value in metrics.items() if isinstance(value, int | float)]

    @classmethod
    def list_details(cls, metrics: Mapping[str, Any]) -> Iterable[Details]:
        """Returns tables that `evaluate` prints below the metrics; most tasks have none.

        Args:
            metrics: Metrics of a split.
        """
        return ()

    @classmethod
    def describe_certainty(cls, metrics: Mapping[str, Any]) -> str:
        """Returns how far the score of a split may be from that of new images, or "".

        Args:
            metrics: Metrics of the split; those of earlier versions have no intervals.
        """
        name = cls.final_score or cls.score
        interval = metrics.get("intervals", {}).get(name) or metrics.get(f"{name}_interval")
        if interval is None:
            return ""
        low, high = interval
        images = f"{metrics['images']:,} images" if metrics["images"] != 1 else "1 image"
        title = cls.title_of(name)
        return f"{title} on new images: {low:.2f} to {high:.2f} with 95 % confidence, by {images}"

    @classmethod
    def describe_comparisons(cls, metrics: Mapping[str, Any]) -> list[str]:
        """Returns a sentence on each predictor that the run was compared with on a split.

        Args:
            metrics: Metrics of the split.
        """
        return [
            cls.describe_comparison(
                f"the {cls.baselines.get(name) or _RIVALS.get(name, name)}", found
            )
            for name, found in metrics.get("against", {}).items()
        ]

    @classmethod
    def describe_comparison(cls, other: str, found: Mapping[str, Any]) -> str:
        """Returns the result of a test of two predictors on the same images, in words.

        Args:
            other: What the run was compared with, as "the baseline".
            found: From `tl_toolkit.tasks.resampling.compare_samples`.
        """
        verdict = f"{found['verdict']} than {other}"
        if found["verdict"] == "open":
            verdict = f"not to be told apart from {other}"
        if found["test"] == "mcnemar":
            images = "image" if found["only_other"] == 1 else "images"
            return (
                f"{verdict}: this run alone is right on {found['only_run']}, that alone on "
                f"{found['only_other']} {images} (McNemar's exact p = {found['p']:.2g})"
            )
        low, high = found["interval"]
        return (
            f"{verdict}: {cls.title_of(found['metric'])} {found['difference']:+.3f}, "
            f"{low:+.3f} to {high:+.3f} with 95 % confidence (paired bootstrap)"
        )

    @classmethod
    def describe_absent(cls, metrics: Mapping[str, Any]) -> str:
        """Returns a sentence on the classes that a split has nothing of, or "".

        Args:
            metrics: Metrics of the split.
        """
        absent = [name for name, row in metrics.get("per_class", {}).items() if not row["images"]]
        if not absent:
            return ""
        return f"no images of {', '.join(absent)}: the means are over the other classes"

    @classmethod
    def settle_recipe(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a recipe's values with the defaults that depend on the task.

        Args:
            values: The sections, before validation.
        """
        score = f"val_{cls.score}"
        search = add_missing(values.get("search"), {"objective": {}})
        if isinstance(search, Mapping):
            search = {**search, "objective": add_missing(search["objective"], {"name": score})}
        settled = {
            "early_stopping": add_missing(values.get("early_stopping"), {"monitor": score}),
            "search": search,
        }
        return {**values, **{name: value for name, value in settled.items() if value is not None}}

    @classmethod
    def find_recipe_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields a conflict for each setting of another section that the task does not have.

        Args:
            values: As in `settle_recipe`.
        """
        name = cls.model_fields["kind"].default
        score = f"val_{cls.score}"
        monitor = field_of(values.get("early_stopping"), "monitor")
        if str(monitor) in list_monitors() and monitor not in (score, "val_loss"):
            expected = f"expected {score} or val_loss for {name}, got {monitor!r}"
            yield Conflict(("early_stopping", "monitor"), expected, f"monitor: {score}")
        objective = field_of(values.get("search"), "objective")
        column = objective if isinstance(objective, str) else field_of(objective, "name")
        if str(column) in list_monitors() and column not in (score, "val_loss"):
            expected = f"expected {score} or val_loss for {name}, got {column!r}"
            yield Conflict(("search", "objective"), expected, f"objective: {score}")
        yield from cls._find_untunable(values)
        channels = field_of(values.get("data"), "channels")
        if cls.why_rgb and channels not in (None, 3):
            expected = f"expected 3 for {name}, got {channels!r}: {cls.why_rgb}"
            yield Conflict(("data", "channels"), expected, "~data.channels")
        if not cls.is_dense:
            yield from _refuse_dense_sections(name, values)

    @classmethod
    def _find_untunable(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields conflicts for fields of the task that a search changes and its targets depend on.

        The sections themselves refuse `kind`, and the task as a whole.
        """
        for path, changes in (
            (("search", "space"), field_of(values.get("search"), "space")),
            (("baseline",), values.get("baseline")),
        ):
            for key in changes if isinstance(changes, Mapping) else ():
                section, _, name = str(key).lstrip("~").partition(".")
                if section == "task" and name not in ("", "kind", *cls.tunable):
                    fields = " or ".join(f"task.{field}" for field in cls.tunable) or "none"
                    task = cls.model_fields["kind"].default
                    expected = f"expected a field of {task} that leaves the targets as they are"
                    yield Conflict((*path, str(key)), f"{expected} ({fields}), got {key!r}")


def _refuse_dense_sections(name: str, values: Mapping[str, Any]) -> Iterable[Conflict]:
    for path, section in (
        (("pixels",), values.get("pixels")),
        (("data", "masks"), field_of(values.get("data"), "masks")),
    ):
        if section is not None:
            dense = [kind for kind in TASKS if find_task(kind).is_dense]
            listed = ", ".join(sorted(dense))
            expected = f"expected no such section for {name}: it goes with the tasks {listed}"
            yield Conflict(path, expected, f"task: {dense[0]}")


@cache
def find_task(kind: str) -> type[TaskSection]:
    """Returns the section of a task.

    Args:
        kind: One of TASKS.
    """
    spec: type[TaskSection] = import_module(f"tl_toolkit.tasks.{kind}.spec").SPEC
    return spec


@cache
def list_monitors() -> tuple[str, ...]:
    """Returns the column of every task's score, and `val_loss`."""
    return (*dict.fromkeys(f"val_{find_task(kind).score}" for kind in TASKS), "val_loss")


@cache
def name_scores() -> str:
    """Returns the column of each task's score, for descriptions of fields that depend on it."""
    return ", ".join(f"val_{find_task(kind).score} for {kind}" for kind in TASKS)


@cache
def list_choices(field: str) -> tuple[Any, ...]:
    """Returns all choices of all tasks for a field of `pixels`, each value once.

    Args:
        field: Name of the field, as `loss`.
    """
    chosen = (value for kind in TASKS for value in find_task(kind).choices.get(field, ()))
    return tuple(dict.fromkeys(chosen))


@cache
def list_remarks(field: str) -> tuple[str, ...]:
    """Returns what the description of a field of `pixels` says of single tasks.

    Args:
        field: As `loss`.
    """
    remarks = (find_task(kind).remarks.get(field) for kind in TASKS)
    return tuple(remark for remark in remarks if remark)


@cache
def describe_tasks() -> str:
    """Returns every task with what it learns, for the description of the field `task`."""
    first = {kind: (find_task(kind).__doc__ or "").split("\n")[0].rstrip(".") for kind in TASKS}
    return "; ".join(f"{kind}, {text[:1].lower()}{text[1:]}" for kind, text in first.items())


def task_of(value: object) -> type[TaskSection] | None:
    """Returns the section class of a recipe's task; None for a value that is no task.

    Args:
        value: A word, a section not yet validated, a validated one, or None for the default.
    """
    kind = DEFAULT_TASK if value is None else field_of(value, "kind") or value
    return find_task(kind) if isinstance(kind, str) and kind in TASKS else None


def field_of(section: object, name: str) -> Any:
    """Returns a field of a section that may not be validated yet, None where it has none.

    Args:
        section: Values, or a validated section.
        name: Name of the field.
    """
    return section.get(name) if isinstance(section, Mapping) else getattr(section, name, None)


def add_missing(section: object, defaults: Mapping[str, object]) -> Any:
    """Returns a section with defaults for its missing fields; other values as they are.

    Args:
        section: Values, a section that was built in Python, or anything else.
        defaults: Values by field.
    """
    if isinstance(section, Section):  # built in Python, where its task was not known
        section = {name: getattr(section, name) for name in section.model_fields_set}
    return {**defaults, **section} if isinstance(section, Mapping) else section


def require_table(task: str, data: object) -> Iterable[Conflict]:
    """Yields a conflict for other sources than a table, for a task whose targets are in a table.

    Args:
        task: Its name.
        data: The section, before validation.
    """
    for field in ("train", "builtin", "examples_per_class"):
        if field_of(data, field) is not None:
            expected = f"expected data.csv, a table of images and targets, for {task}"
            yield Conflict(("data", field), expected, f"~data.{field}")


def refuse_head(task: str, head: object) -> Iterable[Conflict]:
    """Yields a conflict for an activation of a head whose task has one of its own.

    Args:
        task: Its name.
        head: The section, before validation.
    """
    activation = field_of(head, "activation")
    if activation not in (None, "softmax"):
        expected = f"expected none for {task}, which has its own, got {activation!r}"
        yield Conflict(("model", "head", "activation"), expected, "~model.head.activation")
