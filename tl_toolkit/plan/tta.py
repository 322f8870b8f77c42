"""Test-time augmentation: the views of an image that predictions are averaged over."""

from __future__ import annotations

from collections.abc import Sequence

from tl_toolkit.errors import Problem, RecipeError, nearest
from tl_toolkit.recipe.schema import Recipe

__all__ = ["TTA_VIEWS", "choose_tta"]

TTA_VIEWS = {
    "flip": "the mirror image",
    "flip_vertical": "the image upside down",
    "crops": "five crops, each 7/8 as high and as wide as the image",
}
"""What can be averaged with the image itself; crops are mirrored too where the image is."""

_FLIPS = {
    "horizontal": ("flip",),
    "vertical": ("flip_vertical",),
    "both": ("flip", "flip_vertical"),
}


def choose_tta(recipe: Recipe, asked: bool | str | Sequence[str]) -> tuple[str, ...]:
    """Returns which words of TTA_VIEWS a recipe's model is asked for.

    Args:
        recipe: The recipe that the model was trained by.
        asked: Words, or one with commas between; True for the flips that the recipe trains with,
            else the mirror image; False for none.

    Raises:
        RecipeError: A word is unknown, the task has an output per pixel and no crop has them all,
            or the mirror image may have another target than the image and the recipe does not train
            with it.
    """
    if asked is False or asked is None:
        return ()
    task = recipe.task
    trained = _FLIPS.get(recipe.augment.flip or "", ()) if recipe.augment else ()
    words = (trained or ("flip",)) if asked is True else _split(asked)
    problems = [_describe_unknown(word) for word in words if word not in TTA_VIEWS]
    reason = task.why_not_mirrored
    if recipe.data.builtin is not None:
        reason = f"the mirror image of a sign of {recipe.data.builtin} is another sign"
    problems += [
        Problem(
            where=f"--tta: {word}",
            what=reason,
            expected="Expected a recipe that trains with it, by augment.flip.",
            hint="--tta-views crops",
        )
        for word in words
        if reason and word.startswith("flip") and word in TTA_VIEWS and word not in trained
    ]
    if task.is_dense and "crops" in words:
        what = f"a crop lacks pixels of the image, and {task.kind} has an output for each"
        problems.append(Problem("--tta: crops", what, "", "--tta-views flip"))
    if problems:
        raise RecipeError(problems)
    return tuple(word for word in TTA_VIEWS if word in words)


def _split(asked: str | Sequence[str]) -> list[str]:
    texts = [asked] if isinstance(asked, str) else list(asked)
    return [word.strip() for text in texts for word in str(text).split(",") if word.strip()]


def _describe_unknown(word: str) -> Problem:
    expected = f"Expected some of {', '.join(TTA_VIEWS)}."
    near = nearest(word, TTA_VIEWS)
    hint = f"--tta-views {near}" if near else ""
    return Problem("--tta-views", f"{word!r} is no view", expected, hint)
