"""LeNet-5, the network that read cheques (LeCun et al., Proc. IEEE 86(11), 1998)."""

from typing import Any

import keras
from keras import layers

from tl_toolkit.architectures.layers import FanInUniform, SumPooling2D, TableConv2D, scaled_tanh

__all__ = ["build_lenet5"]

# Table I of the paper: the maps of S2 that each map of C3 sees.
C3_TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip


def build_lenet5(
    inputs: keras.KerasTensor,
    *,
    activation: str = "tanh",
    pooling: str = "average",
    connections: str = "full",
    width: int = 1,
) -> keras.KerasTensor:
    """Builds LeNet-5 up to F6: by default in the all-connected form that is taught today.

    With a head of 10 classes that form has 61,706 parameters at 32 x 32 x 1. The paper's network,
    60,000 parameters, is `activation="scaled_tanh", pooling="sum", connections="table"`; its
    output, distances to fixed bitmaps, is replaced by the head's dense layer. On images above 32
    pixels C5 gives a map, which is flattened.

    Args:
        inputs: float32 (batch, h, w, c), h, w >= 32; the paper has c = 1.
        activation: Name of a Keras activation, or "scaled_tanh": the paper's, with its initial
            weights, uniform in +-2.4 / fan-in.
        pooling: "average", "max", or the paper's "sum" with a trainable coefficient and bias,
            followed by the activation.
        connections: "full", or "table" for the paper's choice of maps that C3 sees.
        width: Filters and units of each layer are the paper's times this; each further 16 maps of
            C3 see 6 further maps of S2, by the same table.

    Returns:
        F6: (batch, 84 * width).

    Raises:
        ValueError: There is no such pooling, or there are no such connections.
    """
    squash = scaled_tanh if activation == "scaled_tanh" else activation
    style = {"activation": squash}
    if squash is scaled_tanh:
        style["kernel_initializer"] = FanInUniform()
    x = layers.Conv2D(6 * width, 5, name="c1_conv", **style)(inputs)
    x = _pool(x, pooling, squash, name="s2")
    x = _build_c3(x, connections, style, width=width)
    x = _pool(x, pooling, squash, name="s4")
    x = layers.Conv2D(120 * width, 5, name="c5_conv", **style)(x)
    x = layers.Flatten(name="c5_flatten")(x)  # (batch, 1, 1, 120) -> (batch, 120) at 32 pixels
    outputs: keras.KerasTensor = layers.Dense(84 * width, name="f6_dense", **style)(x)
    return outputs


def _build_c3(
    x: keras.KerasTensor, connections: str, style: dict[str, Any], *, width: int
) -> keras.KerasTensor:
    if connections == "full":
        return layers.Conv2D(16 * width, 5, name="c3_conv", **style)(x)
    if connections != "table":
        raise ValueError(f"connections: expected 'full' or 'table', got {connections!r}")
    table = [[source + 6 * copy for source in row] for copy in range(width) for row in C3_TABLE]
    if "kernel_initializer" in style:
        fan_in = [25 * len(row) for row in table]
        style = {**style, "kernel_initializer": FanInUniform(fan_in=fan_in)}
    return TableConv2D(16 * width, 5, table, name="c3_conv", **style)(x)


def _pool(x: keras.KerasTensor, pooling: str, squash: Any, *, name: str) -> keras.KerasTensor:
    if pooling == "sum":
        x = SumPooling2D(2, name=f"{name}_pool")(x)
        return layers.Activation(squash, name=f"{name}_squash")(x)
    kinds = {"average": layers.AveragePooling2D, "max": layers.MaxPooling2D}
    if pooling not in kinds:
        raise ValueError(f"pooling: expected 'average', 'max' or 'sum', got {pooling!r}")
    return kinds[pooling](2, name=f"{name}_pool")(x)
