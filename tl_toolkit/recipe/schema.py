"""The recipe: everything that decides a run, as frozen and validated sections.

The descriptions of the fields are the reference documentation and feed the JSON Schema.
`tl_toolkit.plan.check` compares the fields with the catalog and the file system (names, ranges,
files).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tl_toolkit.recipe.anchors import (
    INTERPOLATE,
    L2SP,
    Interpolate,
    Interpolation,
    Teacher,
    TeacherField,
    find_interpolation_conflicts,
)
from tl_toolkit.recipe.bands import find_conflicts_of_bands
from tl_toolkit.recipe.checkpoint import Checkpoint, CheckpointField
from tl_toolkit.recipe.data_schema import Augment, Columns, Data, Features, RandAugment
from tl_toolkit.recipe.export_formats import FormatName, MinTensorflow, describe_formats
from tl_toolkit.recipe.fields import (
    Changes,
    Conflict,
    FileName,
    Listed,
    Section,
    Seed,
    expects,
    in_words,
    refuse_repeated,
)
from tl_toolkit.recipe.mixing import (
    find_conflicts_of_mixing,
    refuse_mixing,
    refuse_teacher_of_mixes,
)
from tl_toolkit.recipe.model_schema import Head, Hidden, Model, OwnBase
from tl_toolkit.recipe.phase_schema import AUTO_RGN, PROBE, EarlyStopping, Phase
from tl_toolkit.recipe.pixels import Masks, Pixels
from tl_toolkit.recipe.search_schema import (
    Dimension,
    Objective,
    Resources,
    Search,
    Soup,
    suggest_space,
)
from tl_toolkit.recipe.task_types import AnyTask
from tl_toolkit.recipe.tasks import DEFAULT_TASK, describe_tasks, field_of, find_task, task_of
from tl_toolkit.recipe.unfreeze_schema import UnfreezeFrom, UnfreezeGradual, UnfreezeOnly

__all__ = [
    "Augment",
    "Columns",
    "Checkpoint",
    "Data",
    "Dimension",
    "EarlyStopping",
    "Export",
    "Features",
    "Head",
    "Hidden",
    "Interpolation",
    "L2SP",
    "Masks",
    "Model",
    "Objective",
    "OwnBase",
    "Phase",
    "Pixels",
    "RandAugment",
    "Recipe",
    "Resources",
    "Search",
    "Soup",
    "Teacher",
    "UnfreezeFrom",
    "UnfreezeGradual",
    "UnfreezeOnly",
]

_BASELINE_SECTIONS = (
    "seed",
    "augment",
    "model",
    "phases",
    "early_stopping",
    "interpolate",
    "teacher",
)


def _as_version(value: object) -> object:
    # For Python True == 1 == 1.0, so that Literal[1] alone would let them pass.
    return value if type(value) is int else repr(value)


def _as_release(value: object) -> object:
    # YAML reads 2.20 as a number.
    return f"{value:.2f}" if isinstance(value, float) else value


class Export(Section):
    """The formats that are exported when training ends."""

    formats: Annotated[tuple[FormatName, ...], Field(min_length=1), Listed] = Field(
        default=("saved_model",), description=f"{describe_formats()}."
    )
    min_tensorflow: Annotated[MinTensorflow, BeforeValidator(_as_release)] = Field(
        default="2.15",
        description="The oldest TensorFlow that loads the SavedModel. WebP from bytes takes 2.20.",
        examples=["2.20"],
    )

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields a conflict for each repeated format.

        Args:
            values: As in `Section.find_conflicts`.
        """
        yield from refuse_repeated(values.get("formats"), "formats")


def _as_export(value: object) -> object:
    # Validated here: a union would name its members in the place of every problem.
    if value is True or isinstance(value, Mapping):
        return Export.model_validate({} if value is True else value)
    if value is False or isinstance(value, Export):
        return value
    raise in_words("expected true, false or a section with formats")


class Recipe(Section):
    """A whole run: data, model, phases of training, and exports."""

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
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="What the layers of the base compute in while they train; weights, head, loss "
        "and what is kept and exported are float32. auto measures a few batches on this machine, "
        "and takes bfloat16 if it is faster by a tenth. float16, for GPUs without bfloat16, scales "
        "losses.",
    )
    task: AnyTask = Field(
        default=find_task(DEFAULT_TASK)(),
        description="What the model learns, as a word or as a section of the task's own fields: "
        f"{describe_tasks()}.",
        examples=["segmentation", {"kind": "regression", "columns": ["age"]}],
    )
    data: Data = Field(
        examples=[{"train": "photos", "image_size": 224}],
        description="Where the images are and how they are split and resized.",
    )
    augment: Augment | None = Field(
        default=None, description="Random changes to training images; none by default."
    )
    features: Features = Field(
        default=Features(), description="Whether outputs of the frozen part are kept."
    )
    model: Model = Field(
        examples=[{"base": "mobilenet", "weights": "imagenet"}],
        description="The network: base, weights and head.",
    )
    pixels: Pixels | None = Field(
        default=None,
        description="How single pixels are read, sampled and compared, for dense tasks (an output "
        "per pixel).",
    )
    preset: Literal["auto", "fast"] | None = Field(
        default=None,
        description="What decides head and phases where the recipe has no phases: auto solves a "
        "head on maps of all depths, then tunes half of the units, and keeps what is better on "
        "validation images; fast only solves the head. The run's recipe.yaml holds what it chose, "
        "and why. auto is the default of a recipe without phases.",
        examples=["fast"],
    )
    phases: Annotated[tuple[Phase, ...], Listed] = Field(
        default=(),
        examples=[[{"name": "head", "epochs": 10, "learning_rate": 0.001}]],
        description="Phases of training, in order; usually the head alone first. Beside "
        "preset or model.head.solver there may be none.",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="When to end a phase early; never by default."
    )
    interpolate: Interpolate = Field(
        default=False,
        description="Whether to mix the weights from before tuning with the tuned ones after the "
        "last phase, and to keep the mixture that is better on validation images than every epoch, "
        "if there is one (WiSE-FT): true for ten mixtures, or a section with steps.",
        examples=[True, {"steps": 20}],
    )
    teacher: TeacherField = Field(
        default=None,
        description="A run whose outputs for the training images, computed once, are learned "
        "beside the labels, in each phase of steps: its folder, or a section with run, "
        "temperature and weight.",
        examples=[{"run": "runs/large/001", "temperature": 4.0, "weight": 0.9}],
    )
    export: Annotated[
        Export | Literal[False], BeforeValidator(_as_export, json_schema_input_type=Export | bool)
    ] = Field(default=Export(), description="Exports at the end of the run; false for none.")
    checkpoint: CheckpointField = Field(
        default=Checkpoint(),
        description="How often the exact state of training is written, which `--resume` goes on "
        "from after a kill or an interrupt, bit for bit; false for never.",
    )
    report: bool = Field(
        default=True,
        description="Write report/index.html at the end of the run; `tltool report` writes it "
        "later.",
    )
    search: Search | None = Field(
        default=None, description="What `tltool search` tries; finetune does not read it."
    )
    yardsticks: bool = Field(
        default=True,
        description="Measure simple predictors on the same images beside the run: for tasks with "
        "one output per image nearest neighbours and a linear probe on the last map of the base "
        "before any training, for edges Sobel's filter. The map is left out where it would take "
        "another pass over the images that is no small part of the training.",
    )
    baseline: (
        Annotated[
            Changes | Literal["scratch"],
            expects("expected scratch, or a section of `key: value` lines"),
        ]
        | None
    ) = Field(
        default=None,
        description="A second recipe, trained beside this one and printed next to it. scratch is "
        "the same network from random weights, all of it trained for as many epochs as the phases "
        "have together. Changes are dotted fields (of seed, augment, model, phases, "
        "early_stopping, interpolate, teacher, data.batch_size and the task's own that leave its "
        "targets as they are, as task.loss) and their values.",
        examples=["scratch", {"phases.head.learning_rate": 0.001}],
    )

    @property
    def phase_names(self) -> tuple[str, ...]:
        """Names of all phases or their parts in order, with those of solver and mixtures."""
        solved = isinstance(self.model.head, Head) and self.model.head.solver is not None
        mixed = (INTERPOLATE,) if self.interpolate else ()
        stages = [stage.name for phase in self.phases for stage in phase.stages]
        return (*((PROBE,) if solved else ()), *stages, *mixed)

    def with_base(self, path: Path) -> "Recipe":
        """Returns the recipe with the model of its own base in another file.

        Args:
            path: The file, which holds the same model.

        Raises:
            ValueError: The base is an architecture.
        """
        base = self.model.base
        if not isinstance(base, OwnBase):
            raise ValueError(f"model.base = {base!r}: expected a model of the user's own")
        base = base.model_copy(update={"model": path.absolute()})
        return self.model_copy(update={"model": self.model.model_copy(update={"base": base})})

    @classmethod
    def settle(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the values with the defaults that depend on the task.

        Args:
            values: The sections, before validation.
        """
        task = task_of(values.get("task"))
        if task is None:
            return values
        if not task.is_dense and values.get("phases") is None and values.get("preset") is None:
            values = {**values, "preset": "auto"}
        return task.settle_recipe(
            {name: value for name, value in values.items() if name != "phases" or value is not None}
        )

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields conflicts for repeated phases, a reserved name, and fields no baseline may change.

        Args:
            values: As in `Section.find_conflicts`.
        """
        task = task_of(values.get("task"))
        if task is not None:  # its field refuses an unknown task
            yield from task.find_recipe_conflicts(values)
            if task.is_dense:
                yield from refuse_mixing(task.model_fields["kind"].default, values)
        solver = field_of(field_of(values.get("model"), "head"), "solver")
        phases, preset = values.get("phases", ()), values.get("preset")
        has_phases = not isinstance(phases, list | tuple) or bool(phases)
        is_dense = task is not None and task.is_dense
        if preset is not None and is_dense:
            expected = "expected phases: a preset is for tasks with one output per image"
            yield Conflict(("preset",), expected, "~preset")
        elif preset is not None and has_phases:
            expected = f"expected none beside phases, which it would choose, got {preset!r}"
            yield Conflict(("preset",), expected, "~preset or ~phases")
        elif not has_phases and preset is None and solver is None:
            choices = "" if is_dense else ", or preset, or model.head.solver, which needs none"
            hint = "phases: [{name: head, epochs: 10}]" if is_dense else "preset: auto"
            yield Conflict(("phases",), f"expected at least one phase{choices}", hint)
        search = values.get("search")
        has_space = field_of(search, "space") is not None  # as that of a solved head has
        is_solved = not has_phases and (preset == "fast" or (preset is None and solver is not None))
        if is_solved and search is not None and not has_space:
            expected = "expected a space of its own: the recipe has no phase, whose unfreezing the "
            expected += "default space searches"
            hint = suggest_space(task is None or task.has_classes)
            yield Conflict(("search",), expected, hint)
        if values.get("teacher") is not None and not has_phases and preset != "auto":
            expected = "expected none without phases: a head that is solved learns labels alone"
            yield Conflict(("teacher",), expected, "phases: [{name: head, epochs: 10}]")
        if solver is not None:
            for index, phase in enumerate(phases if isinstance(phases, list | tuple) else ()):
                if field_of(phase, "name") == PROBE:
                    expected = f"expected another name: {PROBE} is the phase of model.head.solver"
                    yield Conflict(("phases", index, "name"), expected)
        yield from find_interpolation_conflicts(values)
        yield from find_conflicts_of_bands(values)
        base = field_of(values.get("model"), "base")
        if values.get("precision") not in (None, "float32") and not isinstance(base, str):
            expected = "expected float32 with a base of your own: its layers may need it"
            yield Conflict(("precision",), expected, "~precision")
        if values.get("precision") == "float16":
            phases = values.get("phases")
            for index, phase in enumerate(phases if isinstance(phases, list | tuple) else ()):
                if field_of(phase, "learning_rates") == AUTO_RGN:
                    expected = f"expected other rates than {AUTO_RGN} with precision: float16, in "
                    expected += "which gradients that are only measured may not be finite"
                    path = ("phases", index, "learning_rates")
                    yield Conflict(path, expected, "precision: bfloat16")
        if values.get("name") == "latest":
            yield Conflict(("name",), "expected another name: latest stands for the newest run")
        features = values.get("features")
        if not values.get("augment") and field_of(features, "views"):
            expected = "expected a section augment: without it, all views of an image are the same"
            yield Conflict(("features", "views"), expected, "~features.views")
        yield from refuse_teacher_of_mixes(values)
        mixed = list(find_conflicts_of_mixing(values))
        yield from mixed
        if values.get("augment") and field_of(features, "store") == "always" and not mixed:
            if not field_of(features, "views"):
                expected = "expected a number of views: each epoch augments images anew"
                yield Conflict(("features",), expected, "features.views=4")
        baseline = values.get("baseline")
        if baseline == "scratch" and field_of(field_of(values.get("model"), "base"), "model"):
            expected = "expected changes: a model of your own has no random weights to start from"
            yield Conflict(("baseline",), expected, "~baseline")
        for key in baseline if isinstance(baseline, Mapping) else ():
            field = key.lstrip("~") if isinstance(key, str) else ""
            section, _, rest = field.partition(".")
            if section == "task" and rest not in ("", "kind"):
                continue  # the task knows which of its fields may change
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
