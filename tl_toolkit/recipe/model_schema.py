"""The section `model`: a base, its weights and a head."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from tl_toolkit.errors import nearest
from tl_toolkit.recipe.fields import (
    Arguments,
    Conflict,
    KerasFile,
    Listed,
    Rate,
    RegularizationFactor,
    RunPlace,
    Section,
    Settings,
    Text,
    Weights,
    expects,
    in_words,
    refuse_repeated,
)

__all__ = ["EdgeKind", "Head", "Hidden", "Model", "OwnBase"]


class Hidden(Section):
    """A dense layer between the pooled features and the output."""

    units: int = Field(
        ge=1, le=65536, description="Outputs of the layer, 1 to 65536.", examples=[128]
    )
    activation: Literal[
        "relu",
        "sigmoid",
        "tanh",
        "linear",
        "elu",
        "gelu",
        "hard_silu",
        "selu",
        "silu",
        "softmax",
    ] = Field(default="relu", description="Activation function of the layer.")
    dropout: Rate = Field(
        default=0.0, description="Fraction of outputs dropped while training, 0 to below 1."
    )
    l1: RegularizationFactor = Field(
        default=0.0, description="L1 regularization factor of the kernel, 0 or more."
    )
    l2: RegularizationFactor = Field(
        default=0.0, description="L2 regularization factor of the kernel, 0 or more."
    )


PoolingName = Literal[
    "average", "max", "sum", "flatten", "both", "statistics", "pyramid", "generalized_mean"
]


def _suggest_taps(value: object) -> str:
    near = nearest(value, ("all", "inner")) if isinstance(value, str) else ""
    return near and f"taps: {near}"


class Head(Section):
    """The classifier that is put on the base."""

    taps: Annotated[
        Literal["all", "inner"] | Annotated[tuple[Text, ...], Field(min_length=1), Listed] | None,
        expects("expected all, inner, or a list of units or layers of the base", _suggest_taps),
    ] = Field(
        default=None,
        examples=["all", ["conv_pw_11", "conv_pw_13"]],
        description="Maps of the base that the head reads, each pooled, then concatenated: all for "
        "the end of each unit; inner for these and the map that the last convolution of each unit "
        "reads (depthwise ones do not count), if another one comes before; or a list of units or "
        "layers. By default the base's output alone.",
    )
    pooling: PoolingName | None = Field(
        default=None,
        description="How a map becomes a vector; average by default. both is average and max; "
        "statistics is average and standard deviation; pyramid is these and the averages of 3 x 3 "
        "cells (He et al., 2015); generalized_mean has a trainable exponent (Radenovic et al., "
        "2019). Not for a base that gives a vector.",
    )
    normalize: bool = Field(
        default=False,
        description="Standardize the pooled features by mean and deviation over the training "
        "images, which the model keeps.",
    )
    solver: Literal["ridge", "logistic", "auto"] | None = Field(
        default=None,
        description="Solve the head as a convex problem before the phases, on features of the "
        "base as it is: ridge (closed form), logistic (L-BFGS), or auto, the mean of both; each "
        "penalty is chosen by cross-validation, and so is which of the last map, late and early "
        "ones, whole or as cells, have a part. The phases start from it.",
    )
    hidden: Annotated[tuple[Hidden, ...], Listed] = Field(
        default=(),
        examples=[[{"units": 128}]],
        description="Dense layers before the output, from input to output.",
    )
    dropout: Rate = Field(
        default=0.0, description="Fraction of features dropped before the output, 0 to below 1."
    )
    l1: RegularizationFactor = Field(
        default=0.0, description="L1 regularization factor of the output's kernel, 0 or more."
    )
    l2: RegularizationFactor = Field(
        default=0.0, description="L2 regularization factor of the output's kernel, 0 or more."
    )
    activation: Literal["softmax", "sigmoid"] = Field(
        default="softmax",
        description="softmax gives one output per class; sigmoid a single output for two classes.",
    )

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields a conflict for repeated taps, and for layers that make the solver's problem hard.

        Args:
            values: As in `Section.find_conflicts`.
        """
        yield from refuse_repeated(values.get("taps"), "taps")
        if values.get("solver") is None:
            return
        if values.get("hidden"):
            expected = "expected none beside a solver: with them the problem is not convex"
            yield Conflict(("hidden",), expected, "~model.head.hidden")
        for name in ("l1", "l2"):
            if values.get(name):
                expected = (
                    f"expected 0 beside a solver, which chooses its penalty, got {values[name]}"
                )
                yield Conflict((name,), expected, f"~model.head.{name}")
        if values.get("pooling") == "generalized_mean":
            expected = "expected another pooling beside a solver: its exponent is trained"
            yield Conflict(("pooling",), expected, "pooling: statistics")


EdgeKind = Literal[
    "prewitt",
    "prewitt_x",
    "prewitt_y",
    "sobel",
    "sobel_x",
    "sobel_y",
    "laplacian4",
    "laplacian8",
    "robinson",
    "kirsch",
]
"""The kinds of `tl_toolkit.architectures.layers.EdgeFilter`, which reads them here."""


def _as_head(head: object) -> object:
    if isinstance(head, str) and head != "paper":
        raise in_words(f"expected paper, or a section of the head's fields, got {head!r}")
    # Validated here: a union would name its members in the place of every problem.
    return Head.model_validate(head) if isinstance(head, Mapping) else head


class OwnBase(Section):
    """A Keras model of the user's own as the base, with the weights that it was saved with."""

    model: KerasFile = Field(
        description="A file that `model.save` wrote, .keras: a functional model, or a Sequential "
        "one with an input, from one image to one map or vector. It is used whole: leave a "
        "classifier out before it is saved. Or its address on an object store, of which there is a "
        "copy in the cache.",
        examples=["base.keras", "s3://photos/base.keras"],
    )
    preprocessing: Text = Field(
        default="raw",
        description="How RGB pixels enter it: raw (0..255), unit (0..1), tf (-1..1), torch "
        "(ImageNet's mean and deviation, RGB), caffe (ImageNet's mean, BGR). A model of one "
        "channel takes grey pixels, raw, unit or tf.",
        examples=["tf"],
    )


_ITS_OWN = object()
"""Stands for the weights that a base of the user's own brings, while a model is validated."""


def _as_base(base: object) -> object:
    # Validated here: a union would name its members in the place of every problem.
    return OwnBase.model_validate(base) if isinstance(base, Mapping) else base


def _as_weights(weights: object) -> object:
    if weights is None:
        raise PydanticCustomError("missing", "Field required")
    return None if weights is _ITS_OWN else weights


class Model(Section):
    """The network: a base, its weights, and a head."""

    base: Annotated[
        str | OwnBase,
        expects("expected the name of an architecture, or {model: FILE.keras}"),
        BeforeValidator(_as_base, json_schema_input_type=str | OwnBase),
    ] = Field(
        description="Name of the architecture, which `tltool models list` shows, or a Keras model "
        "of your own: {model: FILE.keras}.",
        examples=["mobilenet"],
    )
    arguments: Arguments = Field(
        default_factory=Settings,
        examples=[{"alpha": 0.25}],
        description="Arguments of the architecture, as {alpha: 0.25}; `tltool models show BASE` "
        "shows them.",
    )
    weights: Annotated[
        Weights | None, BeforeValidator(_as_weights, json_schema_input_type=Weights)
    ] = Field(
        default=None,
        validate_default=True,
        description="imagenet (the official file), random, or the path of a weight file (.h5, "
        ".weights.h5) or of a whole model (.keras), of Keras 2 or 3; or its address on an object "
        "store, as s3://BUCKET/FILE.weights.h5, of which there is a copy in the cache. Only a "
        "model of your own needs none: it brings its weights.",
        examples=["imagenet", "s3://photos/mobilenet.weights.h5"],
    )
    start: RunPlace | None = Field(
        default=None,
        description="Folder of a finished run whose weights training starts from, in place of "
        "`weights`: base and head, of which the outputs of equal classes are kept and those of new "
        "classes begin with the means of their features. Or its address on an object store, of "
        "which there is a copy in the cache. `tltool finetune RECIPE --from RUN` sets it.",
        examples=["runs/photos/001", "s3://photos/runs/photos/001"],
    )
    l1: RegularizationFactor = Field(
        default=0.0,
        description="L1 regularization factor of each kernel of the base that trains, 0 or more.",
    )
    l2: RegularizationFactor = Field(
        default=0.0,
        description="L2 regularization factor of each kernel of the base that trains, 0 or more.",
    )
    edge_filter: EdgeKind | None = Field(
        default=None,
        description="Fixed edge filter between the pixels and the base: its response, channel by "
        "channel, is what the base sees.",
    )
    head: Annotated[
        Head | Literal["paper"],
        BeforeValidator(_as_head, json_schema_input_type=Head | Literal["paper"]),
    ] = Field(
        default=Head(),
        description="The classifier on the base; paper for the one that its paper has, as the "
        "dense layers of VGG. The resolved recipe holds its layers in place of the word.",
    )

    @classmethod
    def settle(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Notes that a base of the user's own, and a run to start from, need no weights.

        Args:
            values: The fields, before validation.
        """
        brought = isinstance(values.get("base"), Mapping) or values.get("start") is not None
        if brought and values.get("weights") is None:
            return {**values, "weights": _ITS_OWN}
        return values

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields a conflict for weights or arguments beside a base of the user's own.

        Args:
            values: As in `Section.find_conflicts`.
        """
        if not isinstance(values.get("base"), Mapping):
            return
        weights = values.get("weights")
        if weights is not _ITS_OWN:
            expected = "expected none beside a model of your own, which brings its weights"
            yield Conflict(("weights",), f"{expected}, got {weights!r}", "~model.weights")
        if values.get("arguments"):
            expected = "expected none beside a model of your own, got some"
            yield Conflict(("arguments",), expected, "~model.arguments")

    @property
    def is_random(self) -> bool:
        """Whether the base begins with random weights."""
        return self.weights == "random" and self.start is None

    @property
    def own_file(self) -> Path | None:
        """The file of a base of the user's own, None for an architecture."""
        return self.base.model if isinstance(self.base, OwnBase) else None

    @property
    def classifier(self) -> Head:
        """The head's fields.

        Raises:
            ValueError: The head is still the word paper, which `tl_toolkit.plan` replaces.
        """
        if not isinstance(self.head, Head):
            raise ValueError("model.head = 'paper': expected a head that a plan has resolved")
        return self.head
