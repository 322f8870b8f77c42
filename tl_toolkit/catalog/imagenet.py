"""The ImageNet bases of `keras.applications` as one table, and the records made from it.

Names, sizes, addresses and digests are those of the sources of Keras 3.15; no Keras is imported.
Architectures that the toolkit builds itself (VGG, ResNet v1, DenseNet) are in `registry` and take
their files from here.
"""

from collections.abc import Iterator
from typing import Any

from tl_toolkit.catalog.records import (
    EACH_UNIT_A_BLOCK,
    Architecture,
    Argument,
    NameRules,
    WeightFile,
)

__all__ = ["APPLICATION_RECORDS", "UNIT_NAMES", "keras_file"]

_KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications"
_SHA256_DIGITS = 64


def keras_file(
    path: str, digest: str | None, image_size: int, *, name: str = "", **when: bool | float
) -> WeightFile:
    """Returns the record of a file that Keras publishes.

    Args:
        path: Its address below the host of `keras.applications`, or a whole address.
        digest: Its MD5 or, with 64 digits, its SHA-256; None where Keras gives none.
        image_size: Side of the images that it was trained on.
        name: Its name in the cache, where that is not the last part of `path`.
        **when: Values of the builder's arguments that it was trained with.
    """
    url = path if path.startswith("https:") else f"{_KERAS_FILES}/{path}"
    is_sha256 = digest is not None and len(digest) == _SHA256_DIGITS
    return WeightFile(
        name=name or path.rpartition("/")[2],
        url=url,
        when=when,
        image_size=image_size,
        sha256=digest if is_sha256 else None,
        md5=None if is_sha256 else digest,
    )


# ---------------------------------------------------------------------------------- names of units

_MOBILENET_UNITS: NameRules = (
    (r"conv1(?:_bn|_relu)?", "conv1"),
    (r"conv_(?:pad|dw|pw)_(\d+)(?:_bn|_relu)?", r"conv_dw_\1"),
)
_MOBILENET_BLOCKS: NameRules = (
    (r"conv1|conv_dw_1", "block1"),
    (r"conv_dw_[23]", "block2"),
    (r"conv_dw_[45]", "block3"),
    (r"conv_dw_(?:[6-9]|1[01])", "block4"),
    (r"conv_dw_1[23]", "block5"),
)
_MOBILENET_V2_UNITS: NameRules = (
    (r"(?:bn_)?Conv1(?:_relu)?", "Conv1"),
    (r"(expanded_conv|block_\d+)_\w+", r"\1"),
    (r"Conv_1(?:_bn)?|out_relu", "Conv_1"),
)
_MOBILENET_V2_BLOCKS: NameRules = (
    (r"Conv1|expanded_conv", "block1"),
    (r"block_[12]", "block2"),
    (r"block_[345]", "block3"),
    (r"block_(?:[6-9]|1[012])", "block4"),
    (r"block_1[3456]|Conv_1", "block5"),
)
_MOBILENET_V3_UNITS: NameRules = (
    (r"(expanded_conv_\d+)_\w+", r"\1"),
    (r"(expanded_conv)_\w+", r"\1"),
    (r"(conv_1)(?:_\w+)?", r"\1"),
    (r"(conv)(?:_\w+)?", r"\1"),
)
_MOBILENET_V3_SMALL_BLOCKS: NameRules = (
    (r"conv", "block1"),
    (r"expanded_conv", "block2"),
    (r"expanded_conv_[12]", "block3"),
    (r"expanded_conv_[3-7]", "block4"),
    (r"expanded_conv_(?:8|9|10)|conv_1", "block5"),
)
_MOBILENET_V3_LARGE_BLOCKS: NameRules = (
    (r"conv|expanded_conv", "block1"),
    (r"expanded_conv_[12]", "block2"),
    (r"expanded_conv_[3-5]", "block3"),
    (r"expanded_conv_(?:[6-9]|1[01])", "block4"),
    (r"expanded_conv_1[234]|conv_1", "block5"),
)
_EFFICIENTNET_UNITS: NameRules = ((r"(stem|top|block\d[a-z])_\w+", r"\1"),)
_EFFICIENTNET_BLOCKS: NameRules = ((r"(stem|top|block\d)[a-z]?", r"\1"),)
_RESNET_V2_UNITS: NameRules = (
    (r"(?:conv1|pool1)_\w+", "stem"),
    (r"(conv\d_block\d+)_\w+", r"\1"),
    (r"(post)_\w+", r"\1"),
)
_RESNET_V2_BLOCKS: NameRules = ((r"(stem|post)", r"\1"), (r"(conv\d)_block\d+", r"\1"))
_INCEPTION_V3_UNITS: NameRules = (
    ("mixed9_1", "mixed10"),  # Keras counts this inner concatenation from 0
    (r"(stem|mixed\d+)(?:_\w+)?", r"\1"),
)
_INCEPTION_RESNET_V2_UNITS: NameRules = (
    (r"(stem)_\w+", r"\1"),
    (r"(mixed_[567][ab])(?:_\w+)?", r"\1"),
    (r"(block(?:35|17|8)_\d+)_\w+", r"\1"),
    (r"(conv_7b)(?:_\w+)?", r"\1"),
)
_INCEPTION_RESNET_V2_BLOCKS: NameRules = (
    (r"(block(?:35|17|8))_\d+", r"\1"),
    *EACH_UNIT_A_BLOCK,
)
_XCEPTION_UNITS: NameRules = ((r"(block\d+)_\w+", r"\1"),)
_CONVNEXT_UNITS: NameRules = (
    (r"convnext_[a-z]+_(?:prestem_normalization|stem)", "stem"),
    (r"convnext_[a-z]+_downsampling_block_(\d)", r"downsampling_\1"),
    (r"(?:convnext_[a-z]+_)?(stage_\d_block_\d+)_\w+", r"\1"),
)
_CONVNEXT_BLOCKS: NameRules = (
    (r"stem", "stem"),
    (r"(stage_\d)_block_\d+", r"\1"),
    *((f"downsampling_{index}", f"stage_{index + 1}") for index in range(3)),
)
_NASNET_UNITS: NameRules = (
    (r"((?:stem|reduce|normal)_\d+)_[a-z]\w*", r"\1"),  # what the builder named
    (r"stem_(?:conv|bn)1", "stem"),
    (r"\w+_((?:stem|reduce)_\d+)", r"\1"),
    (r"\w+_(\d+)", r"normal_\1"),
)


def _nasnet_blocks(cells: int) -> NameRules:
    """Names the runs of cells of one feature-map size, as the builder counts its cells."""
    second = "|".join(str(cells + 1 + index) for index in range(cells))
    third = "|".join(str(2 * cells + 1 + index) for index in range(cells))
    return (
        (r"stem(?:_\d)?", "stem"),
        (rf"reduce_{cells}|normal_(?:{second})", "cells2"),
        (rf"reduce_{2 * cells}|normal_(?:{third})", "cells3"),
        (r"normal_\d+", "cells1"),
    )


# --------------------------------------------------------------------------------------- arguments

# Below 1/32 the first convolution of MobileNet would have no filter left.
_ALPHA = Argument(
    float, 1.0, "Width multiplier: filters of each layer x alpha.", low=1 / 32, high=4.0
)
_V3_ARGUMENTS = {
    "alpha": _ALPHA,
    "minimalistic": Argument(
        bool, False, "Without squeeze-and-excitation, hard swish and 5 x 5 kernels."
    ),
}


# ----------------------------------------------------------------------------------------- files


def _mobilenet_files() -> Iterator[WeightFile]:
    """Yields the files of mobilenet.py; Keras publishes no digest of any of them."""
    for alpha, text in ((0.25, "2_5"), (0.5, "5_0"), (0.75, "7_5"), (1.0, "1_0")):
        for size in (128, 160, 192, 224):
            name = f"mobilenet_{text}_{size}_tf_no_top.h5"
            url = f"{_KERAS_FILES}/mobilenet/{name}"
            # The original of this file was at hand, so its digest is measured.
            known = name == "mobilenet_2_5_224_tf_no_top.h5"
            sha256 = "dbdb03ee2a22fd895301636cd328b234bb3a9952358f436d82f46b81e0d5b0bf"
            yield WeightFile(
                name,
                url,
                {"alpha": alpha},
                size,
                sha256 if known else None,
                2_108_140 if known else None,
            )


def _mobilenet_v2_files() -> Iterator[WeightFile]:
    """Yields the files of mobilenet_v2.py; Keras publishes no digest of any of them."""
    for alpha in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4):
        for size in (96, 128, 160, 192, 224):
            name = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{size}_no_top.h5"
            yield keras_file(f"mobilenet_v2/{name}", None, size, alpha=alpha)


_V3_DIGESTS = {
    "large_224_0.75_float": "40af19a13ebea4e2ee0c676887f69a2e",
    "large_224_1.0_float": "07fb09a5933dd0c8eaafa16978110389",
    "large_minimalistic_224_1.0_float": "ec5221f64a2f6d1ef965a614bdae7973",
    "small_224_0.75_float": "ebdb5cc8e0b497cd13a7c275d475c819",
    "small_224_1.0_float": "d3e8ec802a04aa4fc771ee12a9a9b836",
    "small_minimalistic_224_1.0_float": "cde8136e733e811080d9fcd8a252f7e4",
}


def _mobilenet_v3_files(size: str) -> Iterator[WeightFile]:
    for name, digest in _V3_DIGESTS.items():
        if name.startswith(size):
            yield keras_file(
                f"mobilenet_v3/weights_mobilenet_v3_{name}_no_top_v2.h5",
                digest,
                224,
                alpha=float(name.split("_")[-2]),
                minimalistic="minimalistic" in name,
            )


# --------------------------------------------------------------------------------------- the table


def _application(application: str, **fields: Any) -> Architecture:
    """Returns the record of a base by the name of its function in keras.applications."""
    return Architecture(
        builder="tl_toolkit.architectures.applications:build_application",
        settings={"application": application},
        **{"minimum_size": 32, "default_size": 224, **fields},
    )


def _mobilenets() -> Iterator[Architecture]:
    yield _application(
        "MobileNet",
        name="mobilenet",
        title="MobileNet",
        paper="Howard et al., 2017, arXiv:1704.04861",
        family="mobilenet",
        pixels="tf",
        arguments={"alpha": _ALPHA},
        unit_names=_MOBILENET_UNITS,
        block_names=_MOBILENET_BLOCKS,
        weight_files=tuple(_mobilenet_files()),
    )
    yield _application(
        "MobileNetV2",
        name="mobilenet_v2",
        title="MobileNetV2",
        paper="Sandler et al., CVPR 2018, arXiv:1801.04381",
        family="mobilenet_v2",
        pixels="tf",
        arguments={"alpha": _ALPHA},
        unit_names=_MOBILENET_V2_UNITS,
        block_names=_MOBILENET_V2_BLOCKS,
        weight_files=tuple(_mobilenet_v2_files()),
    )
    for size, units, blocks in (
        ("Small", 1024, _MOBILENET_V3_SMALL_BLOCKS),
        ("Large", 1280, _MOBILENET_V3_LARGE_BLOCKS),
    ):
        yield _application(
            f"MobileNetV3{size}",
            name=f"mobilenet_v3_{size.lower()}",
            title=f"MobileNetV3-{size}",
            paper="Howard et al., ICCV 2019, arXiv:1905.02244",
            family="mobilenet_v3",
            pixels="raw",
            bands="tf",
            arguments=_V3_ARGUMENTS,
            unit_names=_MOBILENET_V3_UNITS,
            block_names=blocks,
            weight_files=tuple(_mobilenet_v3_files(size.lower())),
            head={"hidden": [{"units": units, "activation": "hard_silu", "dropout": 0.2}]},
        )


# Application, image size, dropout of its classifier, MD5 of its file.
_EFFICIENTNETS = (
    ("B0", 224, 0.2, "50bc09e76180e00e4465e1a485ddc09d"),
    ("B1", 240, 0.2, "74c4e6b3e1f6a1eea24c589628592432"),
    ("B2", 260, 0.3, "111f8e2ac8aa800a7a99e3239f7bfb39"),
    ("B3", 300, 0.3, "af6d107764bb5b1abb91932881670226"),
    ("B4", 380, 0.4, "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    ("B5", 456, 0.4, "38879255a25d3c92d5e44e04ae6cec6f"),
    ("B6", 528, 0.5, "9ecce42647a20130c1f39a5d4cb75743"),
    ("B7", 600, 0.5, "cbcfe4450ddf6f3ad90b1b398090fe4a"),
)
_EFFICIENTNETS_V2 = (
    ("B0", 224, "893217f2bb855e2983157299931e43ff"),
    ("B1", 240, "0e80663031ca32d657f9caa404b6ec37"),
    ("B2", 260, "1dfe2e7a5d45b6632553a8961ea609eb"),
    ("B3", 300, "f6abf7b5849ac99a89b50dd3fd532856"),
    ("S", 384, "af0682fb74e8c54910f2d4393339c070"),
    ("M", 480, "1b8dc055df72dde80d614482840fe342"),
    ("L", 480, "b0b66b5c863aef5b46e8608fe1711615"),
)
_CONVNEXTS = (
    ("Tiny", "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
    ("Small", "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
    ("Base", "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
    ("Large", "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
    ("XLarge", "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05"),
)
_RESNETS_V2 = (
    (50, "fac2f116257151a9d068a22e544a4917"),
    (101, "c0ed64b8031c3730f411d2eb4eea35b5"),
    (152, "ed17cf2e0169df9d443503ef94b23b33"),
)
# Application, name, title, paper, minimum size, dropout of its classifier, units, blocks, MD5.
_INCEPTIONS = (
    ("InceptionV3", "inception_v3", "Inception v3", "Szegedy et al., CVPR 2016, arXiv:1512.00567",
     75, None, _INCEPTION_V3_UNITS, EACH_UNIT_A_BLOCK, "bcbd6486424b2319ff4ef7d526e38f63"),
    ("InceptionResNetV2", "inception_resnet_v2", "Inception-ResNet v2",
     "Szegedy et al., AAAI 2017, arXiv:1602.07261", 75, 0.2,
     _INCEPTION_RESNET_V2_UNITS, _INCEPTION_RESNET_V2_BLOCKS, "d19885ff4a710c122648d3b5c3b684e4"),
    ("Xception", "xception", "Xception", "Chollet, CVPR 2017, arXiv:1610.02357",
     71, 0.5, _XCEPTION_UNITS, EACH_UNIT_A_BLOCK, "b0042744bf5b25fce3cb969f33bebb97"),
)  # fmt: skip
# Application, image size, normal cells in a row, file, MD5.
_NASNETS = (
    ("Mobile", 224, 4, "NASNet-mobile-no-top.h5", "1ed92395b5b598bdda52abe5c0dbfd63"),
    ("Large", 331, 6, "NASNet-large-no-top.h5", "d81d89dc07e6e56530c4e77faddd61b5"),
)


def _efficientnets() -> Iterator[Architecture]:
    for size, side, dropout, digest in _EFFICIENTNETS:
        file = f"efficientnet{size.lower()}_notop.h5"
        yield _application(
            f"EfficientNet{size}",
            name=f"efficientnet_{size.lower()}",
            title=f"EfficientNet-{size}",
            paper="Tan & Le, ICML 2019, arXiv:1905.11946",
            family="efficientnet",
            default_size=side,
            pixels="raw",
            bands="torch",
            unit_names=_EFFICIENTNET_UNITS,
            block_names=_EFFICIENTNET_BLOCKS,
            weight_files=(
                keras_file(
                    f"https://storage.googleapis.com/keras-applications/{file}",
                    digest,
                    side,
                    imagenet_rescaling=True,
                ),
            ),
            arguments={
                "imagenet_rescaling": Argument(
                    bool,
                    True,
                    "The second rescaling that Keras builds for its own files alone: false for a "
                    "file of a model that was built with weights=None.",
                    alike=(False,),
                )
            },
            head={"dropout": dropout},
        )
    for size, side, digest in _EFFICIENTNETS_V2:
        yield _application(
            f"EfficientNetV2{size}",
            name=f"efficientnet_v2_{size.lower()}",
            title=f"EfficientNetV2-{size}",
            paper="Tan & Le, ICML 2021, arXiv:2104.00298",
            family="efficientnet_v2",
            default_size=side,
            pixels="raw",
            bands="torch" if size.startswith("B") else "tf",
            unit_names=_EFFICIENTNET_UNITS,
            block_names=_EFFICIENTNET_BLOCKS,
            weight_files=(
                keras_file(f"efficientnet_v2/efficientnetv2-{size.lower()}_notop.h5", digest, side),
            ),
            head={"dropout": 0.2},
        )


def _residuals() -> Iterator[Architecture]:
    for depth, digest in _RESNETS_V2:
        name = f"resnet{depth}v2"
        yield _application(
            f"ResNet{depth}V2",
            name=f"resnet{depth}_v2",
            title=f"ResNet-{depth} V2",
            paper="He et al., ECCV 2016, arXiv:1603.05027",
            family="resnet_v2",
            pixels="tf",
            unit_names=_RESNET_V2_UNITS,
            block_names=_RESNET_V2_BLOCKS,
            weight_files=(
                keras_file(
                    f"resnet/{name}_weights_tf_dim_ordering_tf_kernels_notop.h5", digest, 224
                ),
            ),
        )
    for size, digest in _CONVNEXTS:
        yield _application(
            f"ConvNeXt{size}",
            name=f"convnext_{size.lower()}",
            title=f"ConvNeXt-{size}",
            paper="Liu et al., CVPR 2022, arXiv:2201.03545",
            family="convnext",
            pixels="raw",
            bands="torch",
            unit_names=_CONVNEXT_UNITS,
            block_names=_CONVNEXT_BLOCKS,
            weight_files=(keras_file(f"convnext/convnext_{size.lower()}_notop.h5", digest, 224),),
        )


def _inceptions() -> Iterator[Architecture]:
    for application, name, title, paper, minimum, dropout, units, blocks, digest in _INCEPTIONS:
        file = f"{name}/{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
        yield _application(
            application,
            name=name,
            title=title,
            paper=paper,
            family=name,
            minimum_size=minimum,
            default_size=299,
            pixels="tf",
            unit_names=units,
            block_names=blocks,
            weight_files=(keras_file(file, digest, 299),),
            head={"dropout": dropout} if dropout else {},
        )
    for size, side, cells, file, digest in _NASNETS:
        yield _application(
            f"NASNet{size}",
            name=f"nasnet_{size.lower()}",
            title=f"NASNet-A {size}",
            paper="Zoph et al., CVPR 2018, arXiv:1707.07012",
            family="nasnet",
            default_size=side,
            pixels="tf",
            # A cell reads the outputs of the last two.
            cut_width=2,
            unit_names=_NASNET_UNITS,
            block_names=_nasnet_blocks(cells),
            weight_files=(
                keras_file(f"nasnet/{file}", digest, side, name=f"nasnet_{size.lower()}_no_top.h5"),
            ),
        )


APPLICATION_RECORDS: tuple[Architecture, ...] = (
    *_mobilenets(),
    *_efficientnets(),
    *_residuals(),
    *_inceptions(),
)
"""A record for each base that `keras.applications` builds."""

UNIT_NAMES = {
    str(record.settings["application"]): record.unit_names for record in APPLICATION_RECORDS
}
"""The rules from layer names to unit names, by the name of the function in keras.applications."""
