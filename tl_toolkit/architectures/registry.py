"""The table of architectures: one record each. Blocks and counts are added by the generator.

Run `python -m tl_toolkit.architectures.generate` after a change here.
"""

from tl_toolkit.architectures.records import (
    Architecture,
    Argument,
    NameRules,
    PixelRule,
    WeightFile,
)

__all__ = ["PIXEL_RULES", "RECORDS"]

# Mean and deviation of ImageNet's training images, RGB in 0..1, as torchvision has them.
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_DEVIATION = (0.229, 0.224, 0.225)

PIXEL_RULES = {
    rule.name: rule
    for rule in (
        PixelRule("raw", "rgb", (1.0,), (0.0,), "RGB in 0..255; the base rescales by itself"),
        PixelRule("unit", "rgb", (1 / 255,), (0.0,), "RGB in 0..1"),
        PixelRule("tf", "rgb", (1 / 127.5,), (-1.0,), "RGB in -1..1"),
        PixelRule(
            "torch",
            "rgb",
            tuple(1 / (255 * deviation) for deviation in _TORCH_DEVIATION),
            tuple(-m / d for m, d in zip(_TORCH_MEAN, _TORCH_DEVIATION, strict=True)),
            "RGB in 0..1, minus ImageNet's mean, divided by its deviation",
        ),
        PixelRule(
            "caffe",
            "bgr",
            (1.0,),
            (-103.939, -116.779, -123.68),
            "BGR in 0..255, minus ImageNet's mean",
        ),
        PixelRule("grey_unit", "grey", (1 / 255,), (0.0,), "one grey channel in 0..1"),
    )
}

_KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications"


def _mobilenet_files() -> tuple[WeightFile, ...]:
    """Names of keras/src/applications/mobilenet.py; Keras publishes no digest of any of them."""
    # The one file of which the original was at hand: measured, 2,108,140 bytes.
    measured = {
        "mobilenet_2_5_224_tf_no_top.h5": (
            "dbdb03ee2a22fd895301636cd328b234bb3a9952358f436d82f46b81e0d5b0bf",
            2_108_140,
        )
    }
    files = []
    for alpha, text in ((0.25, "2_5"), (0.5, "5_0"), (0.75, "7_5"), (1.0, "1_0")):
        for size in (128, 160, 192, 224):
            name = f"mobilenet_{text}_{size}_tf_no_top.h5"
            url = f"{_KERAS_FILES}/mobilenet/{name}"
            files.append(
                WeightFile(name, url, {"alpha": alpha}, size, *measured.get(name, (None, None)))
            )
    return tuple(files)


def _mobilenet_v2_files() -> tuple[WeightFile, ...]:
    """Names of keras/src/applications/mobilenet_v2.py; Keras publishes no digest of any of them."""
    files = []
    for alpha in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4):
        for size in (96, 128, 160, 192, 224):
            name = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{size}_no_top.h5"
            url = f"{_KERAS_FILES}/mobilenet_v2/{name}"
            files.append(WeightFile(name, url, {"alpha": alpha}, size))
    return tuple(files)


# Below 1/32 the first convolution of MobileNet would have no filter left.
_ALPHA = Argument(
    float, 1.0, "Width multiplier: filters of each layer x alpha.", low=1 / 32, high=4.0
)

_EACH_UNIT_A_BLOCK: NameRules = ((r"(.+)", r"\1"),)

_LENET5 = Architecture(
    name="lenet5",
    title="LeNet-5 (all-connected form)",
    paper="LeCun et al., Proc. IEEE 86(11), 1998",
    builder="tl_toolkit.architectures.lenet:build_lenet5",
    minimum_size=32,
    default_size=32,
    pixels="grey_unit",
    arguments={
        "activation": Argument(
            str,
            "tanh",
            "Nonlinearity after each convolution and dense layer.",
            choices=("tanh", "relu", "sigmoid", "linear", "elu", "gelu", "silu"),
        ),
        "pooling": Argument(str, "average", "Pooling of S2 and S4.", choices=("average", "max")),
        "width": Argument(int, 1, "Filters and units of each layer x width.", low=1, high=64),
    },
    unit_names=(
        (r"c1_conv|s2_pool", "c1"),
        (r"c3_conv|s4_pool", "c3"),
        (r"(c5|f6)_\w+", r"\1"),
    ),
    block_names=_EACH_UNIT_A_BLOCK,
)

_VGG_TINY = Architecture(
    name="vgg_tiny",
    title="VGG in small, with batch normalization",
    paper="after Simonyan & Zisserman, ICLR 2015, arXiv:1409.1556",
    builder="tl_toolkit.architectures.vgg:build_vgg_tiny",
    minimum_size=8,
    default_size=32,
    pixels="grey_unit",
    unit_names=((r"(block\d+)_\w+", r"\1"),),
    block_names=_EACH_UNIT_A_BLOCK,
)

_MOBILENET = Architecture(
    name="mobilenet",
    title="MobileNet",
    paper="Howard et al., 2017, arXiv:1704.04861",
    builder="tl_toolkit.architectures.applications:build_mobilenet",
    minimum_size=32,
    default_size=224,
    pixels="tf",
    arguments={"alpha": _ALPHA},
    unit_names=(
        (r"conv1(?:_bn|_relu)?", "conv1"),
        (r"conv_(?:pad|dw|pw)_(\d+)(?:_bn|_relu)?", r"conv_dw_\1"),
    ),
    block_names=(
        (r"conv1|conv_dw_1", "block1"),
        (r"conv_dw_[23]", "block2"),
        (r"conv_dw_[45]", "block3"),
        (r"conv_dw_(?:[6-9]|1[01])", "block4"),
        (r"conv_dw_1[23]", "block5"),
    ),
    weight_files=_mobilenet_files(),
)

_MOBILENET_V2 = Architecture(
    name="mobilenet_v2",
    title="MobileNetV2",
    paper="Sandler et al., CVPR 2018, arXiv:1801.04381",
    builder="tl_toolkit.architectures.applications:build_mobilenet_v2",
    minimum_size=32,
    default_size=224,
    pixels="tf",
    arguments={"alpha": _ALPHA},
    unit_names=(
        (r"(?:bn_)?Conv1(?:_relu)?", "Conv1"),
        (r"(expanded_conv|block_\d+)_\w+", r"\1"),
        (r"Conv_1(?:_bn)?|out_relu", "Conv_1"),
    ),
    block_names=(
        (r"Conv1|expanded_conv", "block1"),
        (r"block_[12]", "block2"),
        (r"block_[345]", "block3"),
        (r"block_(?:[6-9]|1[012])", "block4"),
        (r"block_1[3456]|Conv_1", "block5"),
    ),
    weight_files=_mobilenet_v2_files(),
)

RECORDS: tuple[Architecture, ...] = (_LENET5, _VGG_TINY, _MOBILENET, _MOBILENET_V2)
"""Every architecture, in the order in which people read of them."""
