"""The words for methods of heat maps; importing this module costs no TensorFlow."""

from tl_toolkit.errors import Problem, RecipeError, closest

__all__ = ["HEAT_METHODS", "check_method"]

HEAT_METHODS = ("gradcam", "gradcam++", "layercam", "integrated_gradients", "occlusion")
"""The methods of heat maps, the default first."""


def check_method(method: str) -> None:
    """Refuses a method that there is not.

    Args:
        method: A word.

    Raises:
        RecipeError: It is none of `HEAT_METHODS`.
    """
    if method not in HEAT_METHODS:
        guess = closest(method, HEAT_METHODS)
        expected = f"Expected one of {', '.join(HEAT_METHODS)}"
        expected = f"{expected}; {guess}" if guess else f"{expected}."
        raise RecipeError(Problem("--method", f"{method!r} is no method of heat maps", expected))
