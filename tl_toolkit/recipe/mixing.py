"""What mixed examples (MixUp, CutMix) do not go with in a recipe."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tl_toolkit.recipe.fields import Conflict
from tl_toolkit.recipe.tasks import field_of

__all__ = ["find_conflicts_of_mixing", "refuse_mixing", "refuse_teacher_of_mixes"]

_IN_IMAGES = ("mixup", "cutmix")


def _list_mixed_phases(values: Mapping[str, Any]) -> Iterator[int]:
    phases = values.get("phases")
    for index, phase in enumerate(phases if isinstance(phases, list | tuple) else ()):
        if field_of(phase, "feature_mixup"):
            yield index


def refuse_mixing(task: str, values: Mapping[str, Any]) -> Iterable[Conflict]:
    """Yields a conflict for each field that mixes examples, for a task with an output per pixel.

    Args:
        task: Its name.
        values: The recipe's sections, before validation.
    """
    expected = f"expected none for {task}: each pixel has a target of its own"
    for name in _IN_IMAGES:
        if field_of(values.get("augment"), name):
            yield Conflict(("augment", name), expected, f"~augment.{name}")
    for index in _list_mixed_phases(values):
        hint = f"~phases.{index}.feature_mixup"
        yield Conflict(("phases", index, "feature_mixup"), expected, hint)


def refuse_teacher_of_mixes(values: Mapping[str, Any]) -> Iterable[Conflict]:
    """Yields a conflict of a teacher with the first field that mixes examples.

    Args:
        values: The recipe's sections, before validation.
    """
    if values.get("teacher") is None:
        return
    fields = [f"augment.{name}" for name in _IN_IMAGES if field_of(values.get("augment"), name)]
    fields += [f"phases.{index}.feature_mixup" for index in _list_mixed_phases(values)]
    if fields:
        expected = f"expected none with {fields[0]}: a teacher's outputs are of whole images"
        yield Conflict(("teacher",), expected, f"~{fields[0]}, or ~teacher")


def find_conflicts_of_mixing(values: Mapping[str, Any]) -> Iterable[Conflict]:
    """Yields conflicts of mixed images with stored features, and with features that are mixed too.

    Args:
        values: The recipe's sections, before validation.
    """
    name = next((name for name in _IN_IMAGES if field_of(values.get("augment"), name)), None)
    if name is None:
        return
    features = values.get("features")
    expected = f"expected none with augment.{name}: each epoch mixes images anew, and mixes are "
    for field, value in (("store", "always"), ("views", field_of(features, "views"))):
        if value is not None and field_of(features, field) == value:
            hint = f"~features.{field}, or phases.NAME.feature_mixup in place of augment.{name}"
            yield Conflict(("features", field), f"{expected}not stored", hint)
    for index in _list_mixed_phases(values):
        expected = f"expected none with augment.{name}: an example is mixed once"
        hint = f"~augment.{name}, or ~phases.{index}.feature_mixup"
        yield Conflict(("phases", index, "feature_mixup"), expected, hint)
