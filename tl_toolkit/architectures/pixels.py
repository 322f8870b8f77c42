"""Raw pixels on their way into a base: the rule that its weights were trained with."""

import keras

from tl_toolkit.catalog.lookup import PIXEL_RULES, PixelRule
from tl_toolkit.keras_private import producer_of

__all__ = ["apply_pixel_rule"]


def apply_pixel_rule(image: keras.KerasTensor, rule: str | PixelRule) -> keras.KerasTensor:
    """Turns raw pixels into what a base expects, with plain Keras layers and operations.

    The result loads with `keras.saving.load_model` without this package. The operations are called
    `pixels_bgr`, `pixels_grey` and `pixels_rescale`; what a rule does not need is left out.

    Args:
        image: float32 (batch, h, w, 3), RGB in 0..255; or (batch, h, w, c) for a rule of bands.
        rule: A rule, or its name in `PIXEL_RULES`.

    Returns:
        float32 (batch, h, w, c), or (batch, h, w, 1) for a grey rule, in the range that the
        rule's `help` says.
    """
    rule = PIXEL_RULES[rule] if isinstance(rule, str) else rule
    x = image
    if rule.color == "bgr":
        x = _name_operation(keras.ops.flip(x, axis=-1), "pixels_bgr")
    elif rule.color == "grey":
        x = keras.ops.image.rgb_to_grayscale(x, data_format="channels_last")
        x = _name_operation(x, "pixels_grey")
    if rule.scale == (1.0,) and rule.offset == (0.0,):
        return x
    rescale = keras.layers.Rescaling(
        _scalar_or_list(rule.scale), offset=_scalar_or_list(rule.offset), name="pixels_rescale"
    )
    return rescale(x)


def _name_operation(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    # Functions of keras.ops take no name and number their nodes by a counter of the process.
    producer_of(tensor).name = name
    return tensor


def _scalar_or_list(values: tuple[float, ...]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)
