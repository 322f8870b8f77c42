"""The sections of a recipe that are about tasks with an answer for each pixel."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field

from tl_toolkit.recipe.fields import Conflict, Listed, Section, Text, expects, refuse_repeated

__all__ = [
    "CLASS_TASKS",
    "IGNORE",
    "MONITORS",
    "PIXEL_TASKS",
    "TASKS",
    "Masks",
    "Monitor",
    "Pixels",
    "TaskName",
    "TaskRules",
    "find_conflicts_of_pixels",
]


@dataclass(frozen=True)
class TaskRules:
    """What recipes are checked by, before a task's own module and TensorFlow are there.

    Attributes:
        score: What epochs are compared by; more is better.
        has_classes: Whether answers are classes.
        choices: Fields of `pixels` that the task has a choice of its own for; the first one is its
            default. Empty for a task with one answer for each image.
        ignores_colors: Whether data.masks.ignore may be a colour.
    """

    score: str
    has_classes: bool = False
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    ignores_colors: bool = True


TASKS = {
    "classification": TaskRules("accuracy", has_classes=True),
    "segmentation": TaskRules(
        "mean_iou",
        has_classes=True,
        choices={
            "loss": ("cross_entropy", "dice", "focal"),
            "sampling": ("uniform", "balanced", "edges"),
        },
    ),
    "edges": TaskRules(
        "f_score",
        choices={
            "loss": ("cross_entropy",),
            "sampling": ("uniform", "balanced", "edges"),
            "class_weights": ("balanced", None),
        },
        ignores_colors=False,
    ),
    "normals": TaskRules(
        "within_22_5",
        choices={"loss": ("angular",), "sampling": ("uniform",), "class_weights": (None,)},
    ),
}
"""The tasks by the word in recipes; `tl_toolkit.tasks.registry` has what they do."""

PIXEL_TASKS = frozenset(name for name, rules in TASKS.items() if rules.choices)
"""The tasks with an answer for each pixel."""

CLASS_TASKS = frozenset(name for name, rules in TASKS.items() if rules.has_classes)
"""The tasks whose answers are classes."""

MONITORS = tuple(f"val_{rules.score}" for rules in TASKS.values())


def _all_choices(name: str) -> tuple[Any, ...]:
    """Returns what any task may choose for a field, each once."""
    return tuple(dict.fromkeys(one for rules in TASKS.values()
                               for one in rules.choices.get(name, ())))  # fmt: skip


# Read off the table, which a checker of types cannot.
if TYPE_CHECKING:
    TaskName: TypeAlias = str
    Monitor: TypeAlias = str
    Sampling: TypeAlias = str
    Loss: TypeAlias = str
else:
    TaskName = Literal[tuple(TASKS)]
    Monitor = Literal[(*MONITORS, "val_loss")]
    Sampling = Literal[_all_choices("sampling")]
    Loss = Literal[_all_choices("loss")]

IGNORE = 255
"""The class of pixels that are of none, in masks that have been read."""

_Id = Annotated[int, Field(ge=0, le=255)]
_Color = Annotated[tuple[_Id, _Id, _Id], Listed]


class Masks(Section):
    """Where the masks of images lie, and what their values mean.

    Maps of edges and of normals are called masks too.
    """

    images: Text = Field(
        default="images", description="Folder of the images in the folder of each split."
    )
    masks: Text = Field(
        default="masks",
        description="Folder of the masks beside it; a mask has the name of its image, and any "
        "suffix.",
    )
    ending: str = Field(
        default="",
        description="What the name of a mask has more than its image's, before the suffix: _mask "
        "for cat_mask.png and cat.jpg.",
    )
    ids: Annotated[tuple[_Id, ...], Listed] | None = Field(
        default=None,
        description="The value of each class in masks of one channel, in the order of "
        "data.classes; 0, 1, 2, ... by default.",
    )
    colors: Annotated[tuple[_Color, ...], Listed] | None = Field(
        default=None,
        description="The colour [red, green, blue] of each class in masks of RGB, in the order of "
        "data.classes.",
    )
    ignore: Annotated[
        _Id | _Color | None,
        expects("expected a value from 0 to 255, or a colour [red, green, blue]"),
    ] = Field(
        default=None,
        description="Value, or colour, of pixels without a right answer (of no class, without a "
        "normal); they count nowhere. Of 8 bits: in maps of 16 bits it is 257 times as much.",
    )

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields values told twice, and values and colours together."""
        if values.get("ids") is not None and values.get("colors") is not None:
            yield Conflict(("colors",), "expected ids or colors, got both")
        yield from refuse_repeated(values.get("ids"), "ids")
        colors = values.get("colors")
        if isinstance(colors, list | tuple):
            yield from refuse_repeated([str(list(color)) for color in colors
                                        if isinstance(color, list | tuple)], "colors")  # fmt: skip


class Pixels(Section):
    """How single pixels are read from the base, drawn for training, and compared."""

    per_image: int = Field(
        default=2000,
        ge=1,
        le=1 << 22,
        description="Pixels of each image in a training step (PixelNet's 2,000).",
    )
    sampling: Sampling = Field(
        default="uniform",
        description="How they are drawn, from those that count: uniform, all alike; balanced, as "
        "many of each class that the image has (or of edges and others); edges, half of them "
        "beside a border of classes (or an edge).",
    )
    taps: Annotated[tuple[Text, ...], Field(min_length=1), Listed] | None = Field(
        default=None,
        description="Layers, or units, of the base whose maps are read; by default its paper's, or "
        "the last map of each size. `tltool models show BASE --layers` lists them.",
    )
    normalize: bool = Field(
        default=False,
        description="Normalize each map by its own batch statistics before it is read: predictors "
        "learn better by it, linear ones above all.",
    )
    loss: Loss = Field(
        default="cross_entropy",
        description="cross_entropy; dice, 1 minus the overlap of each class; focal, cross-entropy "
        "times (1 - p)^2, less for what is easy. Edges have cross_entropy alone; normals angular, "
        "1 minus the cosine of the angle, which is their default.",
    )
    class_weights: Literal["balanced"] | dict[Text, Annotated[float, Field(gt=0)]] | None = Field(
        default=None,
        description="Weight of each class in the loss, a mean over pixels: balanced, the median of "
        "the classes' frequencies over each one's, at most 50; or a weight for each class by name, "
        "1 where none is told. "
        "For edges balanced is the default, and null turns it off: edges of an image weigh as much "
        "as its other pixels.",
    )

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields taps named twice."""
        yield from refuse_repeated(values.get("taps"), "taps")


def find_conflicts_of_pixels(
    task: str, pixels: Mapping[str, Any], masks: Mapping[str, Any], classes: object
) -> Iterable[Conflict]:
    """Yields settings that a task with an answer for each pixel does not have.

    Args:
        task: One of PIXEL_TASKS.
        pixels: What was given of that section, None for what was not; not yet validated.
        masks: Likewise.
        classes: Likewise, the names of the classes.
    """
    rules = TASKS[task]
    for name, choices in rules.choices.items():
        given = pixels.get(name)
        # What no task has is told by the field itself.
        known = given in _all_choices(name) or isinstance(given, Mapping)
        if given not in (None, *choices) and known:
            words = " or ".join("null" if one is None else str(one) for one in choices)
            hint = f"{name}: {'null' if choices[0] is None else choices[0]}"
            expected = f"expected {words} for {task}, got {given!r}"
            yield Conflict(("pixels", name), expected, hint)
    if rules.has_classes:
        number = len(classes) if isinstance(classes, list | tuple) else 0
        if number > IGNORE:
            expected = f"expected at most {IGNORE} classes for {task}, got {number}"
            yield Conflict(("data", "classes"), f"{expected}: a mask has 8 bits")
        yield from _find_conflicts_of_ignored(masks, number)
        return
    for name in ("ids", "colors"):
        if masks.get(name) is not None:
            expected = f"expected none for {task}: no pixel has a class"
            yield Conflict(("data", "masks", name), expected, f"~data.masks.{name}")
    if not rules.ignores_colors and isinstance(masks.get("ignore"), list | tuple):
        expected = f"expected a value from 0 to 255 for {task}, got {masks['ignore']!r}"
        yield Conflict(("data", "masks", "ignore"), expected)


def _find_conflicts_of_ignored(masks: Mapping[str, Any], num_classes: int) -> Iterable[Conflict]:
    """Yields a value or colour to ignore that stands for a class, or that masks cannot hold."""
    ignore, colors = masks.get("ignore"), masks.get("colors")
    path = ("data", "masks", "ignore")
    if isinstance(ignore, list | tuple) and colors is None:
        expected = f"expected a value from 0 to 255, or data.masks.colors too, got {list(ignore)!r}"
        yield Conflict(path, expected, "ignore: 255")
    elif isinstance(colors, list | tuple):
        color = list(ignore) if isinstance(ignore, list | tuple) else [ignore] * 3
        if color in [list(one) for one in colors if isinstance(one, list | tuple)]:
            expected = f"expected another colour than those of the classes, got {ignore!r}"
            yield Conflict(path, expected, "~data.masks.ignore")
    else:
        given = masks.get("ids")
        ids = given if isinstance(given, list | tuple) else range(num_classes)
        if ignore is not None and ignore in ids:
            expected = f"expected another value than those of the classes, got {ignore!r}"
            told = " (0, 1, 2, ... as data.masks.ids tells none)" if given is None else ""
            yield Conflict(path, expected + told, "~data.masks.ignore")
