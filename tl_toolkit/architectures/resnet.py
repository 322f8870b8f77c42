"""ResNet: blocks that add their input to their output (He et al., 2015, arXiv:1512.03385).

Layers have the names of keras.applications, so that its weight files fit.
"""

from functools import partial

import keras
from keras import layers

__all__ = ["build_cifar_resnet", "build_resnet", "convolution_block", "identity_block"]

# Table 1 of the paper: blocks in conv2 to conv5.
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
FILTERS = (64, 128, 256, 512)
CIFAR_FILTERS = (16, 32, 64)

# Keras's files were trained with this odd value; the paper's code has 1e-5.
_EPSILON = 1.001e-5


def build_resnet(
    inputs: keras.KerasTensor, *, depth: int = 50, version: str = "v1", conv_bias: bool = True
) -> keras.KerasTensor:
    """Builds a ResNet for images of ImageNet's size, from its stem to conv5.

    With `version="v1"` and biases it is keras.applications' network, tensor for tensor. It differs
    from that one, and agrees with the paper, in what only training sees: He's initial weights
    (uniform, of the same variance as the paper's normal ones and sampled in a quarter of the time),
    and statistics with a momentum of 0.9 instead of 0.99. Shortcuts are the paper's option B:
    a projection where the size changes.

    Args:
        inputs: float32 (batch, h, w, c), preprocessed; h, w >= 32.
        depth: 18 or 34 (blocks of two 3 x 3 convolutions), 50, 101 or 152 (bottlenecks).
        version: "v1" halves the map in the first 1 x 1 convolution of a bottleneck, "v1.5" in its
            3 x 3 (torchvision). Without bottlenecks they are the same.
        conv_bias: Give the convolutions biases, as Keras does; the paper has none.

    Returns:
        (batch, h / 32, w / 32, 512 or 2048).
    """
    bottleneck = depth >= 50
    x = layers.ZeroPadding2D(3, name="conv1_pad")(inputs)
    x = _normalized_conv(x, 64, 7, strides=2, bias=conv_bias, padding="valid", name="conv1")
    x = layers.ReLU(name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for stage, (count, filters) in enumerate(zip(BLOCKS[depth], FILTERS, strict=True), start=2):
        for index in range(1, count + 1):
            name = f"conv{stage}_block{index}"
            strides = 2 if index == 1 and stage > 2 else 1
            # conv2 of the basic networks has its width from the stem: nothing to project.
            projects = index == 1 and (bottleneck or stage > 2)
            build = (
                partial(convolution_block, strides=strides, version=version)
                if projects
                else identity_block
            )
            x = build(x, filters, bottleneck=bottleneck, bias=conv_bias, name=name)
    return x


def identity_block(
    x: keras.KerasTensor,
    filters: int,
    *,
    bottleneck: bool = True,
    bias: bool = True,
    name: str,
) -> keras.KerasTensor:
    """Builds a residual block whose shortcut is its input as it is.

    Args:
        x: (batch, h, w, c); c is 4 * `filters` in a bottleneck, else `filters`.
        filters: Maps of its inner convolutions.
        bottleneck: 1 x 1, 3 x 3, 1 x 1 with four times the maps; else 3 x 3, 3 x 3.
        bias: Biases in the convolutions.
        name: Prefix of its layers.

    Returns:
        (batch, h, w, c).
    """
    branch = _build_branch(x, filters, 1, "v1", bottleneck=bottleneck, bias=bias, name=name)
    return _join(x, branch, name=name)


def convolution_block(
    x: keras.KerasTensor,
    filters: int,
    *,
    strides: int = 2,
    version: str = "v1",
    bottleneck: bool = True,
    bias: bool = True,
    name: str,
) -> keras.KerasTensor:
    """Builds a residual block whose shortcut is a 1 x 1 convolution, where the size changes.

    Args:
        x: (batch, h, w, c).
        filters: Maps of its inner convolutions.
        strides: Step of the shortcut and of one convolution of the branch.
        version: "v1" or "v1.5": which convolution of a bottleneck that is.
        bottleneck: As in `identity_block`.
        bias: Biases in the convolutions.
        name: Prefix of its layers.

    Returns:
        (batch, h / strides, w / strides, 4 * filters), or `filters` maps without a bottleneck.
    """
    maps = 4 * filters if bottleneck else filters
    shortcut = _normalized_conv(x, maps, 1, strides=strides, bias=bias, name=f"{name}_0")
    branch = _build_branch(
        x, filters, strides, version, bottleneck=bottleneck, bias=bias, name=name
    )
    return _join(shortcut, branch, name=name)


def _build_branch(
    x: keras.KerasTensor,
    filters: int,
    strides: int,
    version: str,
    *,
    bottleneck: bool,
    bias: bool,
    name: str,
) -> keras.KerasTensor:
    """Builds the convolutions of a block, up to the last normalization."""
    steps: tuple[tuple[int, int, int], ...] = ((filters, 3, strides), (filters, 3, 1))
    if bottleneck:
        first, second = {"v1": (strides, 1), "v1.5": (1, strides)}[version]
        steps = ((filters, 1, first), (filters, 3, second), (4 * filters, 1, 1))
    for index, (maps, size, step) in enumerate(steps, start=1):
        x = _normalized_conv(x, maps, size, strides=step, bias=bias, name=f"{name}_{index}")
        if index < len(steps):
            x = layers.ReLU(name=f"{name}_{index}_relu")(x)
    return x


def _normalized_conv(
    x: keras.KerasTensor,
    filters: int,
    size: int,
    *,
    strides: int = 1,
    bias: bool,
    name: str,
    padding: str = "same",
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding=padding,
        use_bias=bias,
        kernel_initializer="he_uniform",
        name=f"{name}_conv",
    )(x)
    outputs: keras.KerasTensor = layers.BatchNormalization(
        momentum=0.9, epsilon=_EPSILON, name=f"{name}_bn"
    )(x)
    return outputs


def _join(
    shortcut: keras.KerasTensor, branch: keras.KerasTensor, *, name: str
) -> keras.KerasTensor:
    x = layers.Add(name=f"{name}_add")([shortcut, branch])
    outputs: keras.KerasTensor = layers.ReLU(name=f"{name}_out")(x)
    return outputs


def build_cifar_resnet(inputs: keras.KerasTensor, *, depth: int = 20) -> keras.KerasTensor:
    """Builds the paper's ResNet for images of 32 pixels: three sizes of map, n blocks each.

    Shortcuts are option A, without weights: where the map is halved, every second pixel is taken,
    and the new maps are zeros. Convolutions have no bias.

    Args:
        inputs: float32 (batch, h, w, c), preprocessed; h, w >= 8.
        depth: 6n + 2, as 20, 32, 44, 56, 110. Keras walks a graph by recursion: for the paper's
            1202 raise `sys.setrecursionlimit` before making a model of it.

    Returns:
        (batch, h / 4, w / 4, 64).

    Raises:
        ValueError: `depth` is not 6n + 2.
    """
    count, rest = divmod(depth - 2, 6)
    if rest or count < 1:
        raise ValueError(f"Expected a depth of 6n + 2, as 20 or 110, got {depth}.")
    x = _normalized_conv(inputs, CIFAR_FILTERS[0], 3, bias=False, name="conv1")
    x = layers.ReLU(name="conv1_relu")(x)
    for stage, filters in enumerate(CIFAR_FILTERS, start=2):
        for index in range(1, count + 1):
            name = f"conv{stage}_block{index}"
            strides = 2 if index == 1 and stage > 2 else 1
            branch = _build_branch(
                x, filters, strides, "v1", bottleneck=False, bias=False, name=name
            )
            shortcut = x if strides == 1 else _subsample(x, filters, name=name)
            x = _join(shortcut, branch, name=name)
    return x


def _subsample(x: keras.KerasTensor, filters: int, *, name: str) -> keras.KerasTensor:
    """Takes every second pixel and adds maps of zeros, half of them before and half after."""
    x = layers.MaxPooling2D(1, strides=2, name=f"{name}_0_pool")(x)
    before = (filters - x.shape[-1]) // 2
    after = filters - x.shape[-1] - before
    # Keras pads rows and columns only; a permuted map has its channels there.
    x = layers.Permute((3, 1, 2), name=f"{name}_0_maps_first")(x)
    x = layers.ZeroPadding2D(((before, after), (0, 0)), name=f"{name}_0_pad")(x)
    outputs: keras.KerasTensor = layers.Permute((2, 3, 1), name=f"{name}_0_maps_last")(x)
    return outputs
