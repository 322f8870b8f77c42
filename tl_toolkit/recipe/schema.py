"""The recipe: everything that decides a run, as frozen and validated sections.

The descriptions of the fields are the reference documentation and feed the JSON Schema. What a
field means against the catalog and the file system (names, ranges, files) is checked by
`tl_toolkit.plan.check`.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from tl_toolkit.recipe.data_schema import Augment, Data, Features, RandAugment
from tl_toolkit.recipe.fields import (
    Arguments,
    Changes,
    Conflict,
    FileName,
    Listed,
    PhaseName,
    Section,
    Seed,
    Settings,
    Text,
    Weights,
    expects,
    in_words,
    refuse_repeated,
)
from tl_toolkit.recipe.pixels import Masks, Pixels
from tl_toolkit.recipe.search_schema import Search
from tl_toolkit.recipe.task_types import AnyTask, Monitor
from tl_toolkit.recipe.tasks import field_of, find_task, name_scores, task_of

__all__ = [
    "Augment",
    "Data",
    "EarlyStopping",
    "Export",
    "Features",
    "Head",
    "Hidden",
    "Masks",
    "Model",
    "Phase",
    "Pixels",
    "RandAugment",
    "Recipe",
    "Search",
    "UnfreezeFrom",
]

_Rate = Annotated[float, Field(ge=0, lt=1)]
_Penalty = Annotated[float, Field(ge=0)]
_BASELINE_SECTIONS = ("seed", "augment", "model", "phases", "early_stopping")


def _as_version(value: object) -> object:
    # For Python True == 1 == 1.0, so that Literal[1] alone would let them pass.
    return value if type(value) is int else repr(value)


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
    dropout: _Rate = Field(
        default=0.0, description="Fraction of outputs dropped while training, 0 to below 1."
    )
    l1: _Penalty = Field(default=0.0, description="L1 penalty on the kernel, 0 or more.")
    l2: _Penalty = Field(default=0.0, description="L2 penalty on the kernel, 0 or more.")


class Head(Section):
    """The classifier that is put on the base."""

    pooling: Literal["average", "max", "sum", "flatten"] | None = Field(
        default=None,
        description="How the feature map becomes a vector; average by default. Not for a base that "
        "gives a vector.",
    )
    hidden: Annotated[tuple[Hidden, ...], Listed] = Field(
        default=(), description="Dense layers before the output, from input to output."
    )
    dropout: _Rate = Field(
        default=0.0, description="Fraction of features dropped before the output, 0 to below 1."
    )
    l1: _Penalty = Field(default=0.0, description="L1 penalty on the output's kernel, 0 or more.")
    l2: _Penalty = Field(default=0.0, description="L2 penalty on the output's kernel, 0 or more.")
    activation: Literal["softmax", "sigmoid"] = Field(
        default="softmax",
        description="softmax gives one output per class; sigmoid one for both of two classes.",
    )


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
"""The kinds of `tl_toolkit.architectures.layers.EdgeFilter`."""


def _as_head(head: object) -> object:
    if isinstance(head, str) and head != "paper":
        raise in_words(f"expected paper, or a section of the head's fields, got {head!r}")
    # Validated here, as a union would name its members in the place of every problem.
    return Head.model_validate(head) if isinstance(head, Mapping) else head


class Model(Section):
    """The network: a base, its weights, and a head."""

    base: str = Field(
        description="Name of the architecture; `tltool models list` shows them.",
        examples=["mobilenet"],
    )
    arguments: Arguments = Field(
        default_factory=Settings,
        description="Arguments of the architecture, as {alpha: 0.25}; `tltool models show BASE` "
        "shows them.",
    )
    weights: Weights = Field(
        description="imagenet (the official file), random, or the path of a weight file.",
        examples=["imagenet"],
    )
    l1: _Penalty = Field(
        default=0.0, description="L1 penalty on each kernel of the base that trains, 0 or more."
    )
    l2: _Penalty = Field(
        default=0.0, description="L2 penalty on each kernel of the base that trains, 0 or more."
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

    @property
    def classifier(self) -> Head:
        """The head's fields.

        Raises:
            ValueError: The head is still the word paper, which `tl_toolkit.plan` replaces.
        """
        if not isinstance(self.head, Head):
            raise ValueError("model.head = 'paper': expected a head that a plan has resolved")
        return self.head


class UnfreezeFrom(Section):
    """The unit that training begins at; it and everything after it trains."""

    model_config = ConfigDict(
        validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    unit: Text = Field(
        alias="from",
        description="Name of the first unit that trains; `tltool models show BASE` lists them.",
        examples=["conv_dw_12"],
    )


class Phase(Section):
    """One stretch of training: what trains, for how long, at what rate."""

    name: PhaseName = Field(
        description="Name of the phase: a letter, then letters, digits, - and _; unique.",
        examples=["head"],
    )
    epochs: int = Field(
        ge=0, le=100_000, description="Passes over the training images, 0 or more.", examples=[10]
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field(
        default="adam", description="Optimizer, fresh at the start of the phase."
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Learning rate, above 0.")
    momentum: _Rate = Field(default=0.0, description="Momentum of sgd, 0 to below 1.")
    weight_decay: _Penalty | None = Field(
        default=None, description="Weight decay of adamw, 0 or more; 0.004 by default, as in Keras."
    )
    unfreeze: Annotated[
        Annotated[int, Field(ge=0)]
        | UnfreezeFrom
        | Annotated[tuple[Text, ...], Field(min_length=1), Listed],
        expects("expected a number of blocks (0 or more), {from: UNIT}, or a list of block names"),
    ] = Field(
        default=0,
        description="What of the base trains besides the head: a number of blocks counted from the "
        "output, {from: UNIT}, or a list of block names.",
        examples=[2, {"from": "conv_dw_12"}, ["block4", "block5"]],
    )
    batch_norm: Literal["frozen", "train"] = Field(
        default="frozen",
        description="Whether BatchNormalization in unfrozen blocks stays frozen or trains.",
    )
    batch_norm_momentum: _Rate | None = Field(
        default=None,
        description="Momentum of the moving statistics of BatchNormalization that trains in the "
        "base; by default each layer's own. With Keras's 0.99 a tenth of the first values is left "
        "after 230 steps, and a base of random weights cannot be validated before; with 0.9, 22.",
    )

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields settings that would change nothing, and blocks named twice."""
        if values.get("batch_norm_momentum") is not None and values.get("batch_norm") != "train":
            expected = "expected none without batch_norm: train"
            yield Conflict(("batch_norm_momentum",), expected, "batch_norm: train")
        optimizer = values.get("optimizer", "adam")
        for name, owner in (("momentum", "sgd"), ("weight_decay", "adamw")):
            if values.get(name) not in (None, 0) and optimizer != owner:
                expected = (
                    f"expected 0.0 or optimizer: {owner}, got {values[name]!r} with {optimizer!r}"
                )
                yield Conflict((name,), expected, f"optimizer: {owner}")
        yield from refuse_repeated(values.get("unfreeze"), "unfreeze")


class EarlyStopping(Section):
    """Ends a phase when the validation result no longer gets better."""

    monitor: Monitor = Field(
        default="val_accuracy",
        description="The result that is watched: val_loss, or the score of the task, which is the "
        f"default ({name_scores()}).",
    )
    patience: int = Field(
        default=5, ge=1, description="Epochs without a better result before the phase ends."
    )
    min_delta: float = Field(
        default=0.0, ge=0, description="A change up to this size does not count as better."
    )


class Export(Section):
    """What is written for use elsewhere when training is done."""

    formats: Annotated[
        tuple[Literal["saved_model", "weights"], ...], Field(min_length=1), Listed
    ] = Field(
        default=("saved_model",),
        description="saved_model (for TensorFlow Serving; published only if it answers as the "
        "model does) and weights (the base, as a weight file).",
    )

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields formats named twice."""
        yield from refuse_repeated(values.get("formats"), "formats")


def _as_export(value: object) -> object:
    # Validated here, as a union would name its members in the place of every problem.
    if value is True or isinstance(value, Mapping):
        return Export.model_validate({} if value is True else value)
    if value is False or isinstance(value, Export):
        return value
    raise in_words("expected true, false or a section with formats")


class Recipe(Section):
    """A whole run: data, model, phases of training, and what is made of the result."""

    version: Annotated[Literal[1], expects("expected 1"), BeforeValidator(_as_version)] = Field(
        description="Version of the recipe format: 1.", examples=[1]
    )
    name: FileName = Field(
        description="Names the folder of the runs: letters, digits, ., - and _, at most 64.",
        examples=["flowers"],
    )
    seed: Seed = Field(
        default=0, description="Seed of new weights, order of images, augmentation and dropout."
    )
    deterministic: bool = Field(
        default=True, description="The same recipe gives the same result on the same machine."
    )
    task: AnyTask = Field(
        default=find_task("classification")(),
        description="What the model learns, as a word or as a section of the task's own fields: "
        "classification, one class per image; multilabel, any number of classes per image; "
        "regression, numbers; segmentation, one class per pixel; edges, the probability of an edge "
        "at each pixel; normals, the direction that the surface faces there.",
        examples=["segmentation", {"kind": "regression", "columns": ["age"]}],
    )
    data: Data = Field(description="Where the images are and how they are split and resized.")
    augment: Augment | None = Field(
        default=None, description="Random changes to training images; none by default."
    )
    features: Features = Field(
        default=Features(), description="Whether outputs of the frozen part are kept."
    )
    model: Model = Field(description="The network: base, weights and head.")
    pixels: Pixels | None = Field(
        default=None,
        description="How single pixels are read, drawn and compared, for tasks that answer each.",
    )
    phases: Annotated[tuple[Phase, ...], Field(min_length=1), Listed] = Field(
        description="Phases of training, one after the other; usually the head alone first.",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="When to end a phase early; never by default."
    )
    export: Annotated[
        Export | Literal[False], BeforeValidator(_as_export, json_schema_input_type=Export | bool)
    ] = Field(default=Export(), description="What is exported at the end; false for nothing.")
    search: Search | None = Field(
        default=None, description="What `tltool search` tries; finetune does not read it."
    )
    baseline: Changes | None = Field(
        default=None,
        description="Changes that make a second recipe, trained beside this one and printed "
        "next to it: dotted fields (of seed, augment, model, phases, early_stopping, "
        "data.batch_size and the task's own that leave its targets as they are, as task.loss) "
        "and their values.",
        examples=[{"model.weights": "random"}],
    )

    @classmethod
    def settle(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Gives fields that depend on the task the default that theirs has."""
        task = task_of(values.get("task"))
        return values if task is None else task.settle_recipe(values)

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields names given to two phases, a name kept for commands, a baseline of a baseline."""
        task = task_of(values.get("task"))
        if task is not None:  # what is no task, the field itself refuses
            yield from task.find_recipe_conflicts(values)
        if values.get("name") == "latest":
            yield Conflict(("name",), "expected another name: latest stands for the newest run")
        features = values.get("features")
        if not values.get("augment") and field_of(features, "views"):
            expected = "expected a section augment: without it, all views of an image are the same"
            yield Conflict(("features", "views"), expected, "~features.views")
        if values.get("augment") and field_of(features, "store") == "always":
            if not field_of(features, "views"):
                expected = "expected a number of views: each epoch augments images anew"
                yield Conflict(("features",), expected, "features.views=4")
        baseline = values.get("baseline")
        for key in baseline if isinstance(baseline, Mapping) else ():
            field = key.lstrip("~") if isinstance(key, str) else ""
            section, _, rest = field.partition(".")
            if section == "task" and rest not in ("", "kind"):
                continue  # which of its fields may change, the task itself says
            if field != "data.batch_size" and section not in _BASELINE_SECTIONS:
                sections = ", ".join(_BASELINE_SECTIONS)
                expected = f"expected a change to {sections} or data.batch_size, got {key!r}"
                yield Conflict(("baseline", str(key)), f"{expected}: it uses the same images")
        phases = values.get("phases")
        names: list[object] = []
        for index, phase in enumerate(phases if isinstance(phases, list | tuple) else ()):
            name = field_of(phase, "name")
            if isinstance(name, str) and name in names:
                expected = f"expected a name of its own, got that of phases[{names.index(name)}]"
                yield Conflict(("phases", index, "name"), expected)
            names.append(name)
