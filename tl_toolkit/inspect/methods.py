"""The words for methods of heat maps; importing this module costs no TensorFlow."""

from tl_toolkit.errors import Problem, RecipeError, closest

__all__ = ["HEAT_METHODS", "check_method"]

HEAT_METHODS = ("gradcam", "gradcam++", "layercam", "integrated_gradients", "occlusion")
"""The methods of heat maps, the default first."""


def check_method(method: str, layer: str | None = None) -> None:
    """Refuses a method that there is not, and a layer where the method takes none.

    Args:
        method: A word.
        layer: The block or layer whose map is to be explained, if one is named.

    Raises:
        RecipeError: It is none of `HEAT_METHODS`, or takes no layer.
    """
    if method not in HEAT_METHODS:
        guess = closest(method, HEAT_METHODS)
        expected = f"Expected one of {', '.join(HEAT_METHODS)}"
        expected = f"{expected}; {guess}" if guess else f"{expected}."
        raise RecipeError(Problem("--method", f"{method!r} is no method of heat maps", expected))
    if method == "occlusion" and layer is not None:
        what = f"{layer!r} goes with methods of gradients: occlusion changes the image itself"
        raise RecipeError(Problem("--block", what, "", "--method gradcam"))
