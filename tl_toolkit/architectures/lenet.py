"""LeNet-5, the network that read cheques (LeCun et al., Proc. IEEE 86(11), 1998)."""

import keras
from keras import layers

__all__ = ["build_lenet5"]


def build_lenet5(
    inputs: keras.KerasTensor,
    *,
    activation: str = "tanh",
    pooling: str = "average",
    width: int = 1,
) -> keras.KerasTensor:
    """Draws LeNet-5 up to F6, in the all-connected form that is taught today.

    With a head of 10 classes it has 61,706 parameters at 32 x 32 x 1. It differs from the paper's
    network: C3 sees all maps of S2 instead of those of the paper's table, S2 and S4 have no
    trainable coefficient and bias, tanh is not scaled, and the output is a dense layer instead of
    distances to fixed bitmaps. On images above 32 pixels C5 gives a map, which is flattened.

    Args:
        inputs: float32 (batch, h, w, c), h, w >= 32; the paper has c = 1.
        activation: Name of a Keras activation.
        pooling: "average" as in the paper, or "max".
        width: Filters and units of each layer are the paper's times this.

    Returns:
        F6: (batch, 84 * width).
    """
    pool = {"average": layers.AveragePooling2D, "max": layers.MaxPooling2D}[pooling]
    x = layers.Conv2D(6 * width, 5, activation=activation, name="c1_conv")(inputs)
    x = pool(2, name="s2_pool")(x)
    x = layers.Conv2D(16 * width, 5, activation=activation, name="c3_conv")(x)
    x = pool(2, name="s4_pool")(x)
    x = layers.Conv2D(120 * width, 5, activation=activation, name="c5_conv")(x)
    x = layers.Flatten(name="c5_flatten")(x)  # (batch, 1, 1, 120) -> (batch, 120) at 32 pixels
    outputs: keras.KerasTensor = layers.Dense(84 * width, activation=activation, name="f6_dense")(x)
    return outputs
