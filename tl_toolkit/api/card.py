"""`card`: the model card of a run, from its files; no model is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tl_toolkit.api.card_text import Loading, describe_loading, describe_phase, list_limits
from tl_toolkit.api.listing import read_json
from tl_toolkit.catalog.published import find_licence
from tl_toolkit.errors import Problem, RecipeError, ToolkitError
from tl_toolkit.plan.bases import find_base
from tl_toolkit.printing.markdown import escape_markdown, write_front_matter, write_table
from tl_toolkit.printing.tables import numbers_of
from tl_toolkit.recipe.load import dump_recipe, load_recipe
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.folder import InFolder, RunFolder
from tl_toolkit.runs.places import find_run
from tl_toolkit.runs.results import refuse_damaged
from tl_toolkit.runs.states import describe_absent

__all__ = ["card", "write_card"]

_NOT_STATED = "not stated"
_UNKNOWN = "unknown"
_MOST_CLASSES = 50
_SPLITS = ("test", "validation")  # the first that was measured is what the card claims
_LEFT_OUT = ("images", "loss")


def card(
    run: str | Path | InFolder,
    *,
    root: str | Path = "runs",
    license: str = _UNKNOWN,
    data_license: str = _NOT_STATED,
) -> str:
    """Returns the model card of a run: Markdown with the metadata that the Hugging Face Hub reads.

    It says what the model was trained on, how, what it reaches with intervals, what it was compared
    with, what it cannot know, the licences of base and data, and how to load it. All figures are
    the run's own. The lines that load the model run as they stand in the folder that holds the card
    and the run's files. No place on this machine is named.

    Args:
        run: As in `load_run`, or what it returns.
        root: Folder of all runs.
        license: Of the model, as the Hub spells it: apache-2.0, mit, cc-by-4.0, other.
        data_license: Of the images, in words.

    Raises:
        DataError: There is no such run, or it lacks a file.
        RecipeError: It is a search or a curve.
    """
    folder = RunFolder(run.path) if isinstance(run, InFolder) else find_run(run, root=Path(root))
    return write_card(folder, license=license, data_license=data_license)


def write_card(
    folder: RunFolder,
    *,
    license: str,
    data_license: str,
    place: str = "",
    is_foreign: bool = False,
    has_saved_model: bool = True,
) -> str:
    """Returns the card of a run, which may lie beside its model alone.

    Args:
        folder: The run.
        license: As in `card`.
        data_license: As in `card`.
        place: Where Keras loads the model from, as in `Loading`.
        is_foreign: As in `Loading`.
        has_saved_model: Whether the SavedModel lies below the card, if the run has one.

    Raises:
        DataError: The run lacks a file.
        RecipeError: It is a search or a curve.
    """
    if folder.kind != "run":
        expected = "A card describes one model."
        hint = "the run of its winner, by tltool finetune"
        raise RecipeError(Problem(str(folder.path), f"is a {folder.kind}", expected, hint))
    for file in (folder.recipe, folder.metrics, folder.manifest, folder.classes):
        if not file.is_file():
            raise describe_absent(folder, file)
    refuse_damaged(folder, folder.metrics, *folder.phases.glob("*/history.csv"))
    return _Card(folder, license, data_license, place, is_foreign, has_saved_model).write()


@dataclass(frozen=True)
class _Card:
    folder: RunFolder
    license: str
    data_license: str
    place: str = ""
    is_foreign: bool = False
    has_saved_model: bool = True

    @cached_property
    def recipe(self) -> Recipe:
        return load_recipe(self.folder.recipe).recipe

    @cached_property
    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = self.folder.read_json(self.folder.metrics)
        return metrics

    @cached_property
    def classes(self) -> list[str]:
        return list(map(str, self.folder.read_json(self.folder.classes)))

    @property
    def split(self) -> str:
        """The split that the card's claims are of; "" where none was measured."""
        return next((name for name in _SPLITS if name in self.metrics), "")

    @cached_property
    def lock(self) -> dict[str, Any]:
        return read_json(self.folder.lock)

    @cached_property
    def versions(self) -> dict[str, str]:
        """Versions that trained the run, by the names of their packages."""
        return dict(self.lock.get("numerics", {}).get("versions", {}))

    @property
    def data_name(self) -> str:
        return self.recipe.data.source_name

    def write(self) -> str:
        parts = [
            write_front_matter(self._list_metadata()),
            f"# {escape_markdown(self.recipe.name)}",
            self._introduce(),
            *self._describe_results(),
            *self._describe_data(),
            *self._describe_training(),
            "## Limits",
            "\n".join(f"- {line}" for line in self._list_limits()),
            "## Licences",
            self._describe_licences(),
            "## How to load it",
            describe_loading(self._loading()),
        ]
        return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"

    # ------------------------------------------------------------------------------------ metadata

    def _list_metadata(self) -> dict[str, Any]:
        recipe = self.recipe
        names = self._list_claims()
        own = recipe.model.own_file
        base = "own-base" if own else str(recipe.model.base)
        hub_task = recipe.task.hub_task
        values: dict[str, Any] = {
            "license": self.license,
            "library_name": "keras",
            "tags": ["tl-toolkit", "transfer-learning", recipe.task.kind, base],
            **({"pipeline_tag": hub_task} if hub_task else {}),
            "datasets": [self.data_name],
            "metrics": list(dict.fromkeys(map(self._name_metric, names))),
        }
        if names:
            values["model-index"] = [{"name": recipe.name, "results": [self._index(names)]}]
        return values

    def _list_claims(self) -> list[str]:
        """Returns the metrics that the card claims."""
        if not self.split:
            return []
        numbers = numbers_of(self.metrics[self.split])
        ungraded = self.recipe.task.ungraded
        return [name for name in numbers if name not in _LEFT_OUT and name not in ungraded]

    def _name_metric(self, name: str) -> str:
        return self.recipe.task.hub_metrics.get(name, name)

    def _index(self, names: list[str]) -> dict[str, Any]:
        metrics, task = self.metrics[self.split], self.recipe.task
        intervals = metrics.get("intervals", {})
        return {
            "task": {"type": task.hub_task or task.kind, "name": task.kind},
            "dataset": {"name": self.data_name, "type": self.data_name, "split": self.split},
            "metrics": [
                {
                    "type": self._name_metric(name),
                    "name": f"{task.title_of(name)} ({self.split})",
                    "value": metrics[name],
                    **({"args": {"interval_95": intervals[name]}} if name in intervals else {}),
                }
                for name in names
            ],
        }

    # -------------------------------------------------------------------------------------- results

    def _introduce(self) -> str:
        recipe = self.recipe
        base = recipe.model.base if recipe.model.own_file is None else "a base of its own"
        outputs = "classes" if recipe.task.has_classes else "outputs"
        count = f", {len(self.classes)} {outputs}" if self.classes else ""
        version = self.versions.get("tl-toolkit")
        toolkit = f"tl_toolkit {version}" if version else "tl_toolkit"
        certainty = recipe.task.describe_certainty(self.metrics.get(self.split, {}))
        return (
            f"A Keras 3 model for {recipe.task.kind}{count}, fine-tuned from {base} on "
            f"{escape_markdown(self.data_name)} with {toolkit}."
            + (f" {certainty[0].upper()}{certainty[1:]}." if certainty else "")
        )

    def _describe_results(self) -> Iterator[str]:
        yield "## Results"
        task = self.recipe.task
        for split in (name for name in _SPLITS if name in self.metrics):
            metrics = self.metrics[split]
            intervals = metrics.get("intervals", {})
            baselines = {title: metrics[key] for key, title in task.baselines.items()
                         if key in metrics}  # fmt: skip
            rows = [
                [
                    task.title_of(name),
                    value,
                    *intervals.get(name, (None, None)),
                    *(row.get(name) for row in baselines.values()),
                ]
                for name, value in numbers_of(metrics).items()
                if name not in task.ungraded
            ]
            chosen = ", which chose the epoch" if split == "validation" else ""
            yield f"On {metrics['images']:,} {split} images{chosen}:"
            columns = ["metric", "value", "95 % from", "to", *baselines]
            yield write_table(columns, rows)
            sentences = task.describe_comparisons(metrics)
            if sentences:
                yield "\n".join(f"- {sentence}" for sentence in sentences)

    # ----------------------------------------------------------------------------------------- data

    def _describe_data(self) -> Iterator[str]:
        from tl_toolkit.images.manifest import Manifest

        yield "## Data"
        manifest = Manifest.load(self.folder.manifest, classes=self.classes)
        has_labels = "label" in manifest.columns
        counts = manifest.count("label" if has_labels else "")
        data = self.recipe.data
        height, width = data.image_size
        digest = self.lock.get("data_sha256")
        yield (
            f"{escape_markdown(self.data_name)}, resized to {height} x {width} pixels "
            f"({data.resize}), {data.channels} channels"
            + (f"; SHA-256 of content and labels: `{digest}`." if digest else ".")
        )
        splits = list(counts)
        if has_labels and len(self.classes) <= _MOST_CLASSES:
            rows = [[name, *(counts[split].get(name, 0) for split in splits)]
                    for name in self.classes]  # fmt: skip
            yield write_table(["class", *splits], rows)
        else:
            totals: list[Any] = ["images", *(sum(counts[split].values()) for split in splits)]
            yield write_table(["", *splits], [totals])
            if self.classes:
                yield f"Outputs: {', '.join(map(escape_markdown, self.classes))}"

    # ------------------------------------------------------------------------------------- training

    def _describe_training(self) -> Iterator[str]:
        yield "## Training"
        recipe = self.recipe
        rows = [
            [name, *describe_phase(self.folder.history(index, name))]
            for index, name in enumerate(recipe.phase_names)
        ]
        yield write_table(["phase", "epochs", "last learning rate", "last loss"], rows)
        named = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        yield f"Seed {recipe.seed}" + (f"; {named}." if named else ".")
        text = dump_recipe(_without_places(recipe))
        yield f"<details><summary>The whole recipe</summary>\n\n```yaml\n{text}```\n\n</details>"

    def _list_limits(self) -> list[str]:
        return list_limits(
            self.recipe.task, self.metrics, self.split, image_size=self.recipe.data.image_size
        )

    # ------------------------------------------------------------------------- licences and loading

    def _describe_licences(self) -> str:
        return write_table(
            ["of", "licence"],
            [
                ["this model", self.license],
                [f"the base, {self._name_weights()}", self._find_base_licence()],
                ["the images", self.data_license],
            ],
        )

    def _name_weights(self) -> str:
        model = self.recipe.model
        if model.own_file is not None:
            return "a Keras model of its own"
        weights = self.lock.get("weights") or str(model.weights)
        return f"{model.base} with weights {Path(str(weights)).name}"

    def _find_base_licence(self) -> str:
        model = self.recipe.model
        if model.own_file is not None:
            return _NOT_STATED
        if str(model.weights) == "random":
            return "none: its weights began at random"
        try:
            architecture = find_base(self.recipe)
        except ToolkitError:
            return _NOT_STATED
        weights = self.lock.get("weights") or str(model.weights)
        names = {file.name for file in architecture.weight_files}
        is_published = Path(str(weights)).name in names or str(model.weights) == "imagenet"
        return (find_licence(architecture) if is_published else "") or _NOT_STATED

    def _loading(self) -> Loading:
        recipe = self.recipe
        exported = self.folder.export / "saved_model" / "1"
        return Loading(
            image_size=recipe.data.image_size,
            channels=recipe.data.channels,
            is_dense=recipe.task.is_dense,
            saved_model=str(exported.relative_to(self.folder.path))
            if self.has_saved_model and exported.is_dir()
            else "",
            place=self.place,
            is_foreign=self.is_foreign,
        )


def _without_places(recipe: Recipe) -> Recipe:
    """Returns the recipe with names of files and folders alone: a card goes elsewhere."""

    def shorten(value: Any) -> Any:
        if isinstance(value, Path):
            return Path(value.name)
        if isinstance(value, str):
            return Path(value).name if os.path.isabs(value) else value
        if isinstance(value, Mapping):
            return {key: shorten(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(shorten(part) for part in value)
        if hasattr(value, "model_copy"):
            fields = type(value).model_fields
            return value.model_copy(update={name: shorten(getattr(value, name)) for name in fields})
        return value

    shortened: Recipe = shorten(recipe)
    return shortened
