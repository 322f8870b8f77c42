"""The table of architectures: one record each. Blocks and counts are added by the generator.

Run `python -m tl_toolkit.architectures.generate` after a change here.
"""

from collections.abc import Iterator, Mapping

from tl_toolkit.catalog.imagenet import APPLICATION_RECORDS, keras_file
from tl_toolkit.catalog.records import (
    EACH_UNIT_A_BLOCK,
    Architecture,
    Argument,
    NameRules,
    PixelRule,
    WeightFile,
)

__all__ = ["IMAGENET_DEVIATION", "IMAGENET_MEAN", "PIXEL_RULES", "RECORDS"]

# Mean and deviation of ImageNet's training images, RGB in 0..1, as torchvision has them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

PIXEL_RULES = {
    rule.name: rule
    for rule in (
        PixelRule("raw", "rgb", (1.0,), (0.0,), "RGB in 0..255; the base rescales by itself"),
        PixelRule("unit", "rgb", (1 / 255,), (0.0,), "RGB in 0..1"),
        PixelRule("tf", "rgb", (1 / 127.5,), (-1.0,), "RGB in -1..1"),
        PixelRule(
            "torch",
            "rgb",
            tuple(1 / (255 * deviation) for deviation in IMAGENET_DEVIATION),
            tuple(-m / d for m, d in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)),
            "RGB in 0..1, minus ImageNet's mean, divided by its deviation",
        ),
        PixelRule(
            "caffe",
            "bgr",
            (1.0,),
            (-103.939, -116.779, -123.68),
            "BGR in 0..255, minus ImageNet's mean",
        ),
        PixelRule("grey", "grey", (1.0,), (0.0,), "one grey channel in 0..255"),
        PixelRule("grey_unit", "grey", (1 / 255,), (0.0,), "one grey channel in 0..1"),
        PixelRule("grey_tf", "grey", (1 / 127.5,), (-1.0,), "one grey channel in -1..1"),
    )
}

_FC_4096 = {
    "pooling": "flatten",
    "hidden": [{"units": 4096, "dropout": 0.5}, {"units": 4096, "dropout": 0.5}],
}
"""The classifier of AlexNet and VGG: two dense layers, each with a dropout of one half."""


# ------------------------------------------------------------------------------------------ LeNet-5


def _lenet5(
    name: str, title: str, *, activation: str, pooling: str, connections: str
) -> Architecture:
    return Architecture(
        name=name,
        title=title,
        paper="LeCun et al., Proc. IEEE 86(11), 1998",
        builder="tl_toolkit.architectures.lenet:build_lenet5",
        family="lenet",
        minimum_size=32,
        default_size=32,
        pixels="grey_unit",
        arguments={
            "activation": Argument(
                str,
                activation,
                "Nonlinearity after each convolution and dense layer.",
                choices=(
                    "tanh",
                    "scaled_tanh",
                    "relu",
                    "sigmoid",
                    "linear",
                    "elu",
                    "gelu",
                    "silu",
                ),
                alike=("tanh", "scaled_tanh", "relu", "sigmoid", "linear", "elu", "gelu", "silu"),
            ),
            "pooling": Argument(
                str,
                pooling,
                "Pooling of S2 and S4; sum is the paper's, with a trainable coefficient and bias.",
                choices=("average", "max", "sum"),
                alike=() if pooling == "sum" else ("average", "max"),
            ),
            "connections": Argument(
                str,
                connections,
                "Whether C3 sees all maps of S2, or those of the paper's table.",
                choices=("full", "table"),
            ),
            "width": Argument(int, 1, "Filters and units of each layer x width.", low=1, high=64),
        },
        unit_names=(
            (r"c1_conv|s2_\w+", "c1"),
            (r"c3_conv|s4_\w+", "c3"),
            (r"(c5|f6)_\w+", r"\1"),
        ),
        block_names=EACH_UNIT_A_BLOCK,
    )


_ALEXNET = Architecture(
    name="alexnet",
    title="AlexNet",
    paper="Krizhevsky et al., NIPS 2012",
    builder="tl_toolkit.architectures.alexnet:build_alexnet",
    family="alexnet",
    minimum_size=67,
    default_size=227,
    pixels="caffe",
    arguments={
        "groups": Argument(
            int, 1, "1 for one tower; 2 for the paper's, split over two GPUs.", low=1, high=2
        ),
        "normalization": Argument(
            str,
            "lrn",
            "Local response normalization after conv1 and conv2, or none.",
            choices=("lrn", "none"),
            alike=("none",),
        ),
    },
    unit_names=((r"(conv\d)_\w+", r"\1"),),
    block_names=EACH_UNIT_A_BLOCK,
    head=_FC_4096,
)


# ---------------------------------------------------------------------------------------------- VGG

_VGG_TINY = Architecture(
    name="vgg_tiny",
    title="VGG in small, with batch normalization",
    paper="after Simonyan & Zisserman, ICLR 2015, arXiv:1409.1556",
    builder="tl_toolkit.architectures.vgg:build_vgg_tiny",
    family="vgg_tiny",
    minimum_size=8,
    default_size=32,
    pixels="grey_unit",
    unit_names=((r"(block\d+)_\w+", r"\1"),),
    block_names=EACH_UNIT_A_BLOCK,
)

# Depth, convolutions of each block, MD5 of the published file.
_VGGS = (
    (11, (1, 1, 2, 2, 2), None),
    (13, (2, 2, 2, 2, 2), None),
    (16, (2, 2, 3, 3, 3), "6d6bbae143d832006294945121d1f1fc"),
    (19, (2, 2, 4, 4, 4), "253f8cb515780f3b799900260a226db6"),
)


def _vggs() -> Iterator[Architecture]:
    for depth, convolutions, digest in _VGGS:
        name = f"vgg{depth}"
        yield Architecture(
            name=name,
            title=f"VGG-{depth}",
            paper="Simonyan & Zisserman, ICLR 2015, arXiv:1409.1556",
            builder="tl_toolkit.architectures.vgg:build_vgg",
            settings={"depth": depth},
            family="vgg",
            minimum_size=32,
            default_size=224,
            pixels="caffe",
            arguments={
                "batch_norm": Argument(
                    bool, False, "Normalize after each convolution, as torchvision's vgg_bn do."
                )
            },
            unit_names=(
                (r"(block\d_conv\d)(?:_bn|_relu)?", r"\1"),
                # A pool belongs to the convolution before it.
                *(
                    (f"block{block}_pool", f"block{block}_conv{count}")
                    for block, count in enumerate(convolutions, start=1)
                ),
            ),
            block_names=((r"(block\d)_conv\d", r"\1"),),
            weight_files=_kernels_file(name, digest, folder=name),
            head=_FC_4096,
        )


def _kernels_file(name: str, digest: str | None, *, folder: str) -> tuple[WeightFile, ...]:
    if digest is None:
        return ()
    file = f"{folder}/{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return (keras_file(file, digest, 224),)


# ------------------------------------------------------------------------------------------- ResNet

_RESIDUAL_UNITS: NameRules = (
    (r"(?:conv1|pool1)_\w+", "stem"),
    (r"(conv\d_block\d+)_\w+", r"\1"),
)
_RESIDUAL_BLOCKS: NameRules = (("stem", "stem"), (r"(conv\d)_block\d+", r"\1"))

# Depth, MD5 of the published file.
_RESNETS = (
    (18, None),
    (34, None),
    (50, "4d473c1dd8becc155b73f8504c6f6626"),
    (101, "88cf7a10940856eca736dc7b7e228a21"),
    (152, "ee4c566cf9a93f14d82f913c2dc6dd0c"),
)
_CIFAR_RESNETS = (20, 32, 44, 56, 110)


def _resnets() -> Iterator[Architecture]:
    for depth, digest in _RESNETS:
        version = Argument(
            str,
            "v1",
            "Where a block halves the map: in its first convolution (v1), or in the 3 x 3 (v1.5).",
            choices=("v1", "v1.5"),
            alike=("v1.5",),
        )
        yield Architecture(
            name=f"resnet{depth}",
            title=f"ResNet-{depth}",
            paper="He et al., CVPR 2016, arXiv:1512.03385",
            builder="tl_toolkit.architectures.resnet:build_resnet",
            settings={"depth": depth},
            family="resnet",
            minimum_size=32,
            default_size=224,
            pixels="caffe",
            arguments={
                # 18 and 34 have no 1 x 1 convolution to put the stride in: one form only.
                **({"version": version} if depth >= 50 else {}),
                "conv_bias": Argument(
                    bool,
                    digest is not None,
                    "Biases in the convolutions: the paper has none, Keras's files have; "
                    "true where there is such a file.",
                ),
            },
            unit_names=_RESIDUAL_UNITS,
            block_names=_RESIDUAL_BLOCKS,
            weight_files=_kernels_file(f"resnet{depth}", digest, folder="resnet"),
        )
    for depth in _CIFAR_RESNETS:
        yield Architecture(
            name=f"resnet{depth}",
            title=f"ResNet-{depth} for CIFAR",
            paper="He et al., CVPR 2016, arXiv:1512.03385, section 4.2",
            builder="tl_toolkit.architectures.resnet:build_cifar_resnet",
            settings={"depth": depth},
            family="cifar_resnet",
            minimum_size=8,
            default_size=32,
            pixels="torch",
            unit_names=_RESIDUAL_UNITS,
            block_names=_RESIDUAL_BLOCKS,
        )


# ----------------------------------------------------------------------------------------- DenseNet

_DENSE_UNITS: NameRules = (
    (r"(?:conv1|pool1)_\w+", "stem"),
    (r"(conv\d_block\d+)_\w+", r"\1"),
    (r"(pool[234])_\w+", r"\1"),
    (r"bn|relu", "norm"),
)


def _dense_blocks(last: int) -> NameRules:
    """Names blocks by map size: a transition closes the block before it."""
    return (
        ("stem", "stem"),
        (r"(conv\d)_block\d+", r"\1"),
        (r"pool(\d)", r"conv\1"),
        ("norm", f"conv{last}"),
    )


def _dense_arguments(growth_rate: int, compression: float) -> Mapping[str, Argument]:
    return {
        "growth_rate": Argument(
            int, growth_rate, "Maps that each dense layer adds.", low=1, high=512
        ),
        "compression": Argument(
            float, compression, "Share of the maps that a transition keeps.", low=0.01, high=1.0
        ),
        "transition_pool": Argument(
            str,
            "average",
            "Pooling of the transitions: average as in the paper, or max.",
            choices=("average", "max"),
            alike=("max",),
        ),
        "dropout": Argument(
            float,
            0.0,
            "Fraction dropped after each convolution of a dense layer.",
            low=0,
            high=0.95,
            weightless=True,
        ),
    }


# Depth, growth rate, MD5 of the published file.
_DENSENETS = (
    (121, 32, "30ee3e1110167f948a6b9946edeeb738"),
    (169, 32, "b8c4d4c20dd625c148057b9ff1c1176b"),
    (201, 32, "c13680b51ded0fb44dff2d8f86ac8bb1"),
    (264, 32, None),
    (161, 48, None),
)
# Name, depth, growth rate, whether with bottlenecks and compression (BC).
_CIFAR_DENSENETS = (
    ("densenet40", 40, 12, False),
    ("densenet100", 100, 12, False),
    ("densenet_bc40", 40, 36, True),
    ("densenet_bc100", 100, 12, True),
    ("densenet_bc190", 190, 40, True),
    ("densenet_bc250", 250, 24, True),
)


def _densenets() -> Iterator[Architecture]:
    for depth, growth_rate, digest in _DENSENETS:
        yield Architecture(
            name=f"densenet{depth}",
            title=f"DenseNet-{depth}",
            paper="Huang et al., CVPR 2017, arXiv:1608.06993",
            builder="tl_toolkit.architectures.densenet:build_densenet",
            settings={"depth": depth},
            family="densenet",
            minimum_size=32,
            default_size=224,
            pixels="torch",
            arguments=_dense_arguments(growth_rate, 0.5),
            unit_names=_DENSE_UNITS,
            block_names=_dense_blocks(5),
            weight_files=_kernels_file(f"densenet{depth}", digest, folder="densenet"),
        )
    for name, depth, growth_rate, bottleneck in _CIFAR_DENSENETS:
        form = "-BC" if bottleneck else ""
        yield Architecture(
            name=name,
            title=f"DenseNet{form} (L={depth}, k={growth_rate}) for CIFAR",
            paper="Huang et al., CVPR 2017, arXiv:1608.06993",
            builder="tl_toolkit.architectures.densenet:build_cifar_densenet",
            settings={"depth": depth, "bottleneck": bottleneck},
            family="cifar_densenet",
            minimum_size=8,
            default_size=32,
            pixels="torch",
            arguments=_dense_arguments(growth_rate, 0.5 if bottleneck else 1.0),
            unit_names=_DENSE_UNITS,
            block_names=_dense_blocks(4),
        )


# -------------------------------------------------------------------------------------------- U-Net


def _unet(
    name: str, title: str, padding: str, *, minimum_size: int, default_size: int
) -> Architecture:
    return Architecture(
        name=name,
        title=title,
        paper="Ronneberger et al., MICCAI 2015, arXiv:1505.04597",
        builder="tl_toolkit.architectures.unet:build_unet",
        settings={"padding": padding},
        family=name,
        size_step=16,  # each of four poolings must halve an even size
        head=None,
        pixels="unit",
        # The last output and the four skips.
        cut_width=5,
        arguments={
            "filters": Argument(int, 64, "Maps of the first level.", low=1, high=512),
            "batch_norm": Argument(bool, False, "Normalize after each 3 x 3 convolution."),
            "dropout": Argument(
                float,
                0.5,
                "Fraction dropped at the end of the contracting path.",
                low=0,
                high=0.95,
                weightless=True,
            ),
        },
        unit_names=((r"(down\d|bottom|up\d)_\w+", r"\1"),),
        block_names=EACH_UNIT_A_BLOCK,
        minimum_size=minimum_size,
        default_size=default_size,
    )


# ----------------------------------------------------------------------------------------- PixelNet


def _pixelnet(name: str, title: str, *, conv7: bool) -> Architecture:
    taps = tuple(f"block{block}_conv{count}" for block, count in enumerate(_VGGS[2][1], start=1))
    # The first file has the dense layers that conv6 and conv7 are made of.
    top = "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5"
    whole = keras_file(top, "64373286793e3c8b2b4e3219cbf3544b", 224)
    return Architecture(
        name=name,
        title=title,
        paper="Bansal et al., 2016, arXiv:1609.06694; 2017, arXiv:1702.06506",
        builder="tl_toolkit.architectures.pixelnet:build_pixelnet",
        settings={"conv7": conv7},
        family="pixelnet",
        minimum_size=32,
        default_size=224,
        pixels="caffe",
        arguments={
            "batch_norm": Argument(
                bool, False, "Normalize after each convolution: the form trained from scratch."
            ),
            "dropout": Argument(
                float,
                0.0,
                "Fraction dropped after conv6 and conv7.",
                low=0,
                high=0.95,
                weightless=True,
            ),
        },
        # A pool belongs to the convolution after it: the taps are not pooled.
        unit_names=(
            (r"(block\d_conv\d)(?:_bn|_relu)?", r"\1"),
            (r"fc1(?:_\w+)?", "conv6"),
            (r"fc2(?:_\w+)?", "conv7"),
        ),
        block_names=((r"(block\d)_conv\d", r"\1"), (r"(conv\d)", r"\1")),
        weight_files=(whole,) if conv7 else _kernels_file("vgg16", _VGGS[2][2], folder="vgg16"),
        head=_FC_4096 | {"pooling": None},
        tap_units=(*taps, "conv7") if conv7 else taps,
    )


RECORDS: tuple[Architecture, ...] = (
    _lenet5(
        "lenet5",
        "LeNet-5 (all-connected form)",
        activation="tanh",
        pooling="average",
        connections="full",
    ),
    _lenet5(
        "lenet5_1998",
        "LeNet-5 (as published)",
        activation="scaled_tanh",
        pooling="sum",
        connections="table",
    ),
    _ALEXNET,
    *_vggs(),
    _VGG_TINY,
    *_resnets(),
    *_densenets(),
    _unet("unet", "U-Net (same padding)", "same", minimum_size=16, default_size=256),
    _unet("unet_valid", "U-Net (as published)", "valid", minimum_size=188, default_size=572),
    _pixelnet("pixelnet", "PixelNet on VGG-16", conv7=True),
    _pixelnet("pixelnet_c12345", "PixelNet on VGG-16, without conv7", conv7=False),
    *APPLICATION_RECORDS,
)
"""Every architecture, in the order in which people read of them."""
