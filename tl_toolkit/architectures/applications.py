"""Bases that `keras.applications` draws, into the caller's graph instead of a nested model."""

import keras

__all__ = ["build_mobilenet", "build_mobilenet_v2"]


def build_mobilenet(inputs: keras.KerasTensor, *, alpha: float = 1.0) -> keras.KerasTensor:
    """Draws MobileNet without its classifier (Howard et al., 2017).

    Units are `conv1` and the depthwise-separable pairs `conv_dw_1` to `conv_dw_13`. The paper names
    no blocks: `block1` to `block5` are the runs of units with one size of feature map, 1/2 to 1/32
    of the image.

    Args:
        inputs: float32 (batch, h, w, 3) in -1..1; h, w >= 32.
        alpha: Width multiplier; the number of filters is rounded down.

    Returns:
        (batch, h/32, w/32, 1024 * alpha).
    """
    return _draw(keras.applications.MobileNet, inputs, alpha=alpha)


def build_mobilenet_v2(inputs: keras.KerasTensor, *, alpha: float = 1.0) -> keras.KerasTensor:
    """Draws MobileNetV2 without its classifier (Sandler et al., 2018).

    Units are `Conv1`, `expanded_conv`, the inverted residuals `block_1` to `block_16`, `Conv_1`.
    Blocks `block1` to `block5` are the runs of units with one size of feature map, 1/2 to 1/32 of
    the image; mind the underscore: `block_5` is a unit of `block3`.

    Args:
        inputs: float32 (batch, h, w, 3) in -1..1; h, w >= 32.
        alpha: Width multiplier; filters are rounded to multiples of 8.

    Returns:
        (batch, h/32, w/32, 1280), or 1280 * alpha channels for alpha > 1.
    """
    return _draw(keras.applications.MobileNetV2, inputs, alpha=alpha)


def _draw(
    application: type[keras.Model], inputs: keras.KerasTensor, **arguments: float
) -> keras.KerasTensor:
    model = application(input_tensor=inputs, include_top=False, weights=None, **arguments)
    outputs: keras.KerasTensor = model.output
    return outputs
