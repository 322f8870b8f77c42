"""Layers of classic networks that Keras does not have: registered, and plain `keras.ops` inside.

Importing this module registers all of them for `keras.saving.load_model`, edge filters included.
A grouped convolution is `keras.layers.Conv2D(groups=...)`, L1 and L2 are `keras.regularizers`, and
all other building blocks are Keras's own.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tl_toolkit.architectures.edges import EDGE_KINDS, EdgeFilter, edge_kernels

__all__ = [
    "EDGE_KINDS",
    "EdgeFilter",
    "FanInUniform",
    "GeneralizedMeanPooling2D",
    "LocalResponseNormalization",
    "SumPooling2D",
    "TableConv2D",
    "edge_kernels",
    "scaled_tanh",
]

_register = keras.saving.register_keras_serializable(package="tl_toolkit")


def _wide(dtype: str) -> str:
    """Returns the dtype to compute in: squares of activations overflow half precision."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


@_register
def scaled_tanh(x: keras.KerasTensor) -> keras.KerasTensor:
    """Returns 1.7159 tanh(2x / 3), the squashing function of LeNet-5 (LeCun et al., 1998, app. A).

    It maps 1 to 1 and -1 to -1, where its second derivative is largest.

    Args:
        x: Any shape.
    """
    return 1.7159 * ops.tanh(2 / 3 * x)


@_register
class FanInUniform(keras.initializers.Initializer):
    """Samples weights uniformly in +-scale / fan-in, as for LeNet-5 (LeCun et al., 1998, app. A).

    Keras's lecun_uniform is another one: its limit is proportional to 1 / sqrt(fan-in).

    Args:
        scale: The paper's 2.4.
        fan_in: For each output its number of inputs, if it does not read all inputs of the kernel.
        seed: As in Keras's initializers.
    """

    def __init__(
        self,
        scale: float = 2.4,
        fan_in: Sequence[int] | None = None,
        seed: int | None = None,
    ) -> None:
        self.scale = scale
        self.fan_in = fan_in
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Returns the weights of a kernel (..., inputs, outputs)."""
        fan_in = np.array(math.prod(shape[:-1]) if self.fan_in is None else self.fan_in)
        sample = keras.initializers.RandomUniform(-1, 1, seed=self.seed)(shape, dtype)
        return sample * ops.cast(self.scale / fan_in, sample.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {"scale": self.scale, "fan_in": self.fan_in, "seed": self.seed}


@_register
class GeneralizedMeanPooling2D(keras.layers.Layer):
    """Pools a map by a generalized mean with a trainable exponent (Radenovic et al., 2019).

    mean(max(x, epsilon) ^ p) ^ (1 / p) of each channel: the average of what is positive at p = 1,
    nearer the maximum the greater p is. The paper begins at 3.

    Args:
        exponent: The initial p, at least 1.
        epsilon: The least activation; powers have no gradient at 0.
    """

    def __init__(self, exponent: float = 3.0, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.exponent = exponent
        self.epsilon = epsilon

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates the exponent, one for all channels, as in the paper.

        Args:
            input_shape: Not used.
        """
        self.p = self.add_weight(
            name="exponent", shape=(), initializer=keras.initializers.Constant(self.exponent)
        )
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Returns (batch, channels) of a map.

        Args:
            inputs: (batch, h, w, channels).
        """
        x = ops.maximum(ops.cast(inputs, _wide(self.compute_dtype)), self.epsilon)
        p = ops.cast(self.p, x.dtype)
        # The greatest value is taken out first: its power might overflow.
        greatest = ops.max(x, axis=(1, 2), keepdims=True)
        mean = ops.mean(ops.power(x / greatest, p), axis=(1, 2))
        pooled = greatest[:, 0, 0] * ops.power(mean, 1.0 / p)
        return ops.cast(pooled, self.compute_dtype)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Returns (batch, channels).

        Args:
            input_shape: (batch, h, w, channels).
        """
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "exponent": self.exponent, "epsilon": self.epsilon}


@_register
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each activation by the energy of its neighbours in channel (Krizhevsky et al., 2012).

    b_c = a_c / (bias + alpha * sum of a_j^2 over |j - c| <= depth_radius) ^ beta

    Caffe and PyTorch divide alpha by the number of channels summed and take a bias of 1: to port a
    network from there, pass alpha / (2 * depth_radius + 1) and bias=1.

    Args:
        depth_radius: Channels on each side that count; the paper's n of 5 is a radius of 2.
        bias: The paper's k.
        alpha: Weight of the energy.
        beta: The exponent.
    """

    def __init__(
        self,
        depth_radius: int = 2,
        bias: float = 2.0,
        alpha: float = 1e-4,
        beta: float = 0.75,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.depth_radius = depth_radius
        self.bias = bias
        self.alpha = alpha
        self.beta = beta

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Normalizes activations; the shape stays.

        Args:
            inputs: (..., channels).
        """
        channels = inputs.shape[-1]
        x = ops.cast(inputs, _wide(self.compute_dtype))
        edges = [[0, 0]] * (len(inputs.shape) - 1) + [[self.depth_radius, self.depth_radius]]
        squares = ops.pad(ops.square(x), edges)
        energy = sum(
            squares[..., shift : shift + channels] for shift in range(2 * self.depth_radius + 1)
        )
        outputs = x / ops.power(self.bias + self.alpha * energy, self.beta)
        return ops.cast(outputs, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input.

        Args:
            input_shape: Of any rank.
        """
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        own = {"depth_radius": self.depth_radius, "bias": self.bias}
        return {**super().get_config(), **own, "alpha": self.alpha, "beta": self.beta}


@_register
class SumPooling2D(keras.layers.Layer):
    """Sums each window, times a trainable coefficient, plus a trainable bias; one pair a channel.

    The layers S2 and S4 of LeNet-5 (LeCun et al., 1998, section II.B), before their squashing. It
    begins as the average: coefficient 1 / window area, bias 0.

    Args:
        pool_size: Side of the windows, which do not overlap.
    """

    def __init__(self, pool_size: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pool_size = pool_size

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Adds the coefficient and the bias of each channel.

        Args:
            input_shape: (batch, h, w, c).
        """
        channels = (input_shape[-1],)
        start = keras.initializers.Constant(1 / self.pool_size**2)
        self.coefficient = self.add_weight(shape=channels, initializer=start, name="coefficient")
        self.bias = self.add_weight(shape=channels, initializer="zeros", name="bias")

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Pools (batch, h, w, c) to (batch, h // pool_size, w // pool_size, c).

        Args:
            inputs: (batch, h, w, c).
        """
        mean = ops.average_pool(inputs, self.pool_size, self.pool_size, data_format="channels_last")
        return mean * self.pool_size**2 * self.coefficient + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns (batch, h // pool_size, w // pool_size, c).

        Args:
            input_shape: (batch, h, w, c).
        """
        batch, height, width, channels = input_shape
        rows, columns = (n if n is None else n // self.pool_size for n in (height, width))
        return (batch, rows, columns, channels)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "pool_size": self.pool_size}


@_register
class TableConv2D(keras.layers.Layer):
    """A valid convolution in which output map j sees only the input maps that a table lists for it.

    C3 of LeNet-5 (LeCun et al., 1998, table I). Only links that exist have weights, so the number
    of parameters is the paper's; for the convolution the weights are written into a dense kernel
    with zeros elsewhere.

    Args:
        filters: Number of output maps.
        kernel_size: Side of the kernels.
        table: For each output map the indices of the input maps that it sees.
        activation: Name of a Keras activation, or a function; none by default.
        kernel_initializer: Name or object. It samples a dense kernel, of which the links are used.

    Raises:
        ValueError: The table does not have a row for each output map, or a row repeats an index;
            or, when the layer is built, the table names a map that the input lacks.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        table: Sequence[Sequence[int]],
        activation: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.table = tuple(tuple(sources) for sources in table)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        if len(self.table) != filters:
            raise ValueError(f"table: expected {filters} rows, one a filter, got {len(self.table)}")
        twice = [row for row in self.table if len(set(row)) < len(row)]
        if twice:
            raise ValueError(f"table: expected different maps in each row, got {twice[0]!r}")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Adds a kernel for each link and a bias for each output map.

        Args:
            input_shape: (batch, h, w, c).
        """
        channels = int(input_shape[-1] or 0)
        named = sorted({source for row in self.table for source in row})
        if named and not 0 <= named[0] <= named[-1] < channels:
            raise ValueError(f"table: expected maps from 0 to {channels - 1}, got {named!r}")
        places = [
            source * self.filters + output
            for output, sources in enumerate(self.table)
            for source in sources
        ]

        def render_links(shape: tuple[int, ...], dtype: Any) -> Any:
            dense = self.kernel_initializer((*shape[:2], channels, self.filters), dtype=dtype)
            dense = ops.reshape(dense, (*shape[:2], channels * self.filters))
            return ops.take(dense, np.array(places, dtype="int32"), axis=-1)

        size = self.kernel_size
        self.kernel = self.add_weight(
            shape=(size, size, len(places)), initializer=render_links, name="kernel"
        )
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")
        # (links, input maps * output maps): where in the dense kernel each link lies.
        self._scatter = np.eye(channels * self.filters, dtype="float32")[places]

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Convolves (batch, h, w, c) to (batch, h - k + 1, w - k + 1, filters).

        Args:
            inputs: (batch, h, w, c).
        """
        size = self.kernel_size
        dense = ops.matmul(self.kernel, ops.cast(self._scatter, self.compute_dtype))
        dense = ops.reshape(dense, (size, size, -1, self.filters))
        outputs = ops.conv(inputs, dense, padding="valid", data_format="channels_last")
        return self.activation(outputs + self.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns (batch, h - k + 1, w - k + 1, filters).

        Args:
            input_shape: (batch, h, w, c).
        """
        batch, height, width, _ = input_shape
        less = self.kernel_size - 1
        rows, columns = (n if n is None else n - less for n in (height, width))
        return (batch, rows, columns, self.filters)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "table": [list(sources) for sources in self.table],
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
