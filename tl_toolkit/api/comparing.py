"""`compare_runs`: how recipes and scores differ, and whether two runs can be told apart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.listing import RunInfo, read_info, read_json, read_recipe_of
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.plan.values import find_differences
from tl_toolkit.recipe.load import list_values
from tl_toolkit.runs.folder import InFolder, RunFolder
from tl_toolkit.runs.places import find_run

if TYPE_CHECKING:
    from tl_toolkit.evaluation.pairing import SavedPredictions
    from tl_toolkit.recipe.schema import Recipe
    from tl_toolkit.tasks.resampling import Sample

__all__ = ["PairedTest", "RunComparison", "compare_runs", "list_conditions"]

_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class PairedTest:
    """Whether a run is better than another one on the images that both predicted.

    Attributes:
        run: Name of the run.
        other: Name of the other one.
        split: Of the images.
        images: Their number: those of the split in both runs, with the same content and targets.
        result: `verdict` (better, worse or open) and `test`: mcnemar with `only_run`, `only_other`
            and `p`, or bootstrap with `metric`, `difference` and `interval`.
    """

    run: str
    other: str
    split: str
    images: int
    result: Mapping[str, Any]


@dataclass(frozen=True)
class RunComparison:
    """Two or more runs beside each other.

    Attributes:
        infos: The runs.
        fields: Dotted fields of the recipes that differ, with the value in each run, None where it
            is not set.
        conditions: The same for lock.json: digests of data and weights, versions, machine.
        splits: The metrics of each run, by split; {} for a run that lacks the split.
        tests: The first run against each other one.
        untested: Why there is no test of two runs, in a sentence for each pair and split.
    """

    infos: Sequence[RunInfo]
    fields: Mapping[str, tuple[Any, ...]]
    conditions: Mapping[str, tuple[Any, ...]]
    splits: Mapping[str, Sequence[Mapping[str, Any]]]
    tests: Sequence[PairedTest]
    untested: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Returns plain values, which JSON can hold."""
        return {**asdict(self), "infos": [info.as_json() for info in self.infos]}


def compare_runs(
    runs: Sequence[str | Path | InFolder], *, root: str | Path = "runs"
) -> RunComparison:
    """Compares runs: what differs in their recipes, versions and data, and their scores.

    The first run is tested against each other one on the images of a split that both predicted,
    which have the same content and the same targets: by McNemar's exact test where a prediction is
    right or wrong, else by a paired bootstrap of the task's metric. For a dense task that is the
    mean of the images' scores. No model is opened, and TensorFlow is not started.

    Args:
        runs: At least two, each as in `load_run`, or what it returns.
        root: Folder of all runs.

    Raises:
        DataError: One is no run, or its files cannot be read.
        RecipeError: There are fewer than two, or one is a search or curve.
    """
    folders = [
        RunFolder(run.path) if isinstance(run, InFolder) else
        find_run(run, root=Path(root), unfinished=True)
        for run in runs
    ]  # fmt: skip
    _check(folders)
    top = Path(os.path.abspath(root))
    infos = [read_info(folder, top) for folder in folders]
    recipes = [read_recipe_of(folder) for folder in folders]
    metrics = [read_json(folder.metrics) for folder in folders]
    tests, untested = _test_all(folders, infos, recipes)
    return RunComparison(
        infos=infos,
        fields=find_differences(list(map(_list_fields, recipes, folders))),
        conditions=find_differences(list(map(list_conditions, folders))),
        splits={
            split: [each.get(split, {}) for each in metrics]
            for split in _SPLITS
            if any(split in each for each in metrics)
        },
        tests=tests,
        untested=untested,
    )


def _check(folders: Sequence[RunFolder]) -> None:
    if len(folders) < 2:
        expected = "expected at least two runs, of which the first is compared with each other."
        raise RecipeError(Problem("compare", f"got {len(folders)}", expected, "tltool runs list"))
    wrong = [
        Problem(
            str(folder.path),
            f"is a {folder.kind}",
            "Only runs of one model are compared.",
            "the run of its winner, by tltool finetune",
        )
        for folder in folders
        if folder.kind != "run"
    ]
    if wrong:
        raise RecipeError(wrong)


def _list_fields(recipe: Recipe | None, folder: RunFolder) -> dict[str, Any]:
    if recipe is None:
        return {}
    if recipe.model.own_file == folder.base:  # a copy in each run: its digest tells what it is
        recipe = recipe.with_base(Path(RunFolder.base.relative))
    return list_values(recipe)


def list_conditions(folder: RunFolder) -> dict[str, Any]:
    """Returns what lock.json says of data, weights, versions and machine.

    Args:
        folder: The run.
    """
    lock = read_json(folder.lock)
    digests = {name: lock.get(name) for name in ("data_sha256", "weights_sha256")}
    if teacher := lock.get("teacher"):
        digests["teacher_sha256"] = teacher.get("sha256")
    return {**digests, **lock.get("numerics", {})}


def _test_all(
    folders: Sequence[RunFolder], infos: Sequence[RunInfo], recipes: Sequence[Recipe | None]
) -> tuple[list[PairedTest], list[str]]:
    """Returns the tests of the first run against each other one, and why some cannot be."""
    from tl_toolkit.evaluation.pairing import read_predictions

    first, *others = map(_Tested, folders, recipes, map(read_predictions, folders))
    tests, untested = [], []
    for info, other in zip(infos[1:], others, strict=True):
        for split in _SPLITS:
            result = _test(first, other, split)
            if isinstance(result, str):
                untested.append(f"{infos[0].name} and {info.name}, {split}: {result}")
            elif result is not None:
                images, found = result
                tests.append(PairedTest(infos[0].name, info.name, split, images, found))
    return tests, untested


@dataclass(frozen=True)
class _Tested:
    folder: RunFolder
    recipe: Recipe | None
    predictions: Mapping[str, SavedPredictions]

    def sample(self, columns: Mapping[str, Sequence[str]]) -> Sample:
        """Returns images of predictions.csv as the task's metrics are computed from them."""
        if self.recipe is None:
            raise TypeError("a run is tested by its recipe")
        task = self.recipe.task
        classes = self.folder.read_json(self.folder.classes)
        sample: Sample = task.open("metrics").sample_predictions(
            columns, classes, read_json(self.folder.task_state), task
        )
        return sample


def _test(first: _Tested, other: _Tested, split: str) -> tuple[int, dict[str, Any]] | str | None:
    """Returns the images and the result of a test, or why there is none; None without the split."""
    import numpy as np

    from tl_toolkit.evaluation.pairing import pair_predictions
    from tl_toolkit.tasks.resampling import compare_samples

    if first.recipe is None or other.recipe is None:
        return "a recipe cannot be read"
    if first.recipe.task.kind != other.recipe.task.kind:
        return "the tasks differ"
    if split not in first.predictions or split not in other.predictions:
        return None
    pair = pair_predictions(first.predictions[split], other.predictions[split])
    images = len(pair[0].get("path", ()))
    if images < 2:
        return "they predicted no images in common"
    samples = first.sample(pair[0]), other.sample(pair[1])
    task = first.recipe.task
    measured = samples[0].measure(np.ones((1, images)))
    metric = next(name for name in (task.final_score, task.score) if name in measured)
    return images, compare_samples(*samples, metric)
