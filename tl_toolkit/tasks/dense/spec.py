"""The section of recipes whose task has one output per pixel."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from tl_toolkit.recipe.fields import Conflict
from tl_toolkit.recipe.tasks import TaskSection, add_missing, field_of, list_choices

__all__ = ["BATCH_SIZE", "IGNORE", "DenseSection"]

BATCH_SIZE = 5
"""Images in a training step, if the recipe has no number: each image has many pixels."""

_IMAGE_FIELDS = {
    "pooling": None,
    "activation": "softmax",
    "taps": None,
    "normalize": False,
    "solver": None,
}
"""Fields of a head that goes with one output per image, and the values that mean none."""

_PIXEL_FIELDS = {"taps": "pixels.taps", "normalize": "pixels.normalize"}

IGNORE = 255
"""The index of pixels of no class, in masks that have been read."""


class DenseSection(TaskSection):
    """A task with one output per pixel: images with maps of targets beside them.

    Attributes:
        ignores_colors: Whether `data.masks.ignore` may be a colour.
        balances: The fields of `pixels` that each word of `balance` stands for.
    """

    is_dense: ClassVar[bool] = True
    ignores_colors: ClassVar[bool] = True
    balances: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    shared_modules: ClassVar[Mapping[str, str]] = {
        "outputs": "tl_toolkit.tasks.dense.outputs",
        "planning": "tl_toolkit.tasks.dense.planning",
        "metrics": "tl_toolkit.tasks.dense.metrics",
    }

    @property
    def balanced_pixels(self) -> Mapping[str, Any]:
        """The fields of `pixels` that `balance` stands for."""
        return self.balances.get(str(getattr(self, "balance", None)), {})

    @classmethod
    def settle_recipe(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a recipe's values with the defaults of `pixels`, `data` and the monitors.

        Args:
            values: The sections, before validation.
        """
        values = super().settle_recipe(values)
        pixels = {} if values.get("pixels") is None else values["pixels"]
        data = add_missing(values.get("data"), {"batch_size": BATCH_SIZE})
        if isinstance(data, Mapping) and data.get("masks") is None:
            data = {**data, "masks": {}}
        defaults = {name: choices[0] for name, choices in cls.choices.items()}
        settled = {"pixels": add_missing(pixels, defaults), "data": data}
        return {**values, **{name: value for name, value in settled.items() if value is not None}}

    @classmethod
    def find_recipe_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields conflicts for sources, classes, heads and choices that the task does not have.

        Args:
            values: As in `settle_recipe`.
        """
        yield from super().find_recipe_conflicts(values)
        name = cls.model_fields["kind"].default
        data = values.get("data")
        for field in ("csv", "table", "builtin", "examples_per_class"):
            if field_of(data, field) is not None:
                expected = f"expected data.train, a folder of images and masks, for {name}"
                yield Conflict(("data", field), expected, f"~data.{field}")
        if field_of(data, "class_folders") == "all":
            expected = f"expected none for {name}: folders are no classes"
            yield Conflict(("data", "class_folders"), expected, "~data.class_folders")
        classes = field_of(data, "classes")
        if not cls.has_classes and classes is not None:
            expected = f"expected none for {name}: no pixel has a class"
            yield Conflict(("data", "classes"), expected, "~data.classes")
        if cls.has_classes and data is not None and not classes:
            expected = f"expected the classes for {name}, in the order of their ids, got none"
            yield Conflict(("data", "classes"), expected, "classes: [background, cat]")
        yield from cls._find_conflicts_of_pixels(values.get("pixels"))
        yield from cls._find_conflicts_of_balance(values.get("task"), values.get("pixels"))
        yield from cls._find_conflicts_of_masks(field_of(data, "masks"), classes)
        head = field_of(values.get("model"), "head")
        for field, plain in _IMAGE_FIELDS.items():
            if field_of(head, field) not in (None, plain):
                expected = f"expected none for {name}: each pixel has an output of its own"
                hint = _PIXEL_FIELDS.get(field, f"~model.head.{field}")
                yield Conflict(("model", "head", field), expected, hint)

    @classmethod
    def _find_conflicts_of_pixels(cls, pixels: object) -> Iterable[Conflict]:
        name = cls.model_fields["kind"].default
        for field, choices in cls.choices.items():
            value = field_of(pixels, field)
            # The field itself refuses choices that no task has.
            is_known = isinstance(value, Mapping) or value in list_choices(field)
            if is_known and value not in (None, *choices):
                words = " or ".join("null" if word is None else str(word) for word in choices)
                hint = f"{field}: {'null' if choices[0] is None else choices[0]}"
                expected = f"expected {words} for {name}, got {value!r}"
                yield Conflict(("pixels", field), expected, hint)

    @classmethod
    def _find_conflicts_of_balance(cls, task: object, pixels: object) -> Iterable[Conflict]:
        """Yields a conflict for a field of `pixels` that says otherwise than the task's balance."""
        balance = field_of(task, "balance")
        meant = cls.balances.get(balance, {}) if isinstance(balance, str) else {}
        for field, value in meant.items():
            stated = field_of(pixels, field)
            default = cls.choices.get(field, (None,))[0]
            if stated not in (None, default, value):
                expected = f"expected none beside task.balance: {balance}, got {stated!r}"
                yield Conflict(("pixels", field), expected, f"~pixels.{field}, or ~task.balance")

    @classmethod
    def _find_conflicts_of_masks(cls, masks: object, classes: object) -> Iterable[Conflict]:
        name = cls.model_fields["kind"].default
        if cls.has_classes:
            number = len(classes) if isinstance(classes, list | tuple) else 0
            if number > IGNORE:
                expected = f"expected at most {IGNORE} classes for {name}, got {number}"
                yield Conflict(("data", "classes"), f"{expected}: a mask has 8 bits")
            yield from _find_conflicts_of_ignored(masks, number)
            return
        for field in ("ids", "colors"):
            if field_of(masks, field) is not None:
                expected = f"expected none for {name}: no pixel has a class"
                yield Conflict(("data", "masks", field), expected, f"~data.masks.{field}")
        ignore = field_of(masks, "ignore")
        if not cls.ignores_colors and isinstance(ignore, list | tuple):
            expected = f"expected a value from 0 to 255 for {name}, got {ignore!r}"
            yield Conflict(("data", "masks", "ignore"), expected)


def _find_conflicts_of_ignored(masks: object, num_classes: int) -> Iterable[Conflict]:
    """Yields a conflict if the ignored value or colour is a class, or masks cannot hold it."""
    ignore, colors = field_of(masks, "ignore"), field_of(masks, "colors")
    path = ("data", "masks", "ignore")
    if isinstance(ignore, list | tuple) and colors is None:
        expected = f"expected a value from 0 to 255, or data.masks.colors too, got {list(ignore)!r}"
        yield Conflict(path, expected, "ignore: 255")
    elif isinstance(colors, list | tuple):
        color = list(ignore) if isinstance(ignore, list | tuple) else [ignore] * 3
        if color in [list(entry) for entry in colors if isinstance(entry, list | tuple)]:
            expected = f"expected another colour than those of the classes, got {ignore!r}"
            yield Conflict(path, expected, "~data.masks.ignore")
    else:
        listed = field_of(masks, "ids")
        ids = listed if isinstance(listed, list | tuple) else range(num_classes)
        if ignore is not None and ignore in ids:
            expected = f"expected another value than those of the classes, got {ignore!r}"
            default = " (0, 1, 2, ... without data.masks.ids)" if listed is None else ""
            yield Conflict(path, expected + default, "~data.masks.ignore")
