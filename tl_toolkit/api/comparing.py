"""`compare`: how recipes and scores differ, and whether two runs can be told apart."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.listing import RunInfo, read_info, read_json, read_recipe_of
from tl_toolkit.errors import DataError, Problem, RecipeError
from tl_toolkit.plan.values import describe_value, find_differences
from tl_toolkit.printing.tables import numbers_of
from tl_toolkit.recipe.load import list_values
from tl_toolkit.recipe.tasks import DEFAULT_TASK, TaskSection, find_task
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.runs.folder import InFolder, RunFolder
from tl_toolkit.runs.places import find_run
from tl_toolkit.runs.results import describe_damage, list_damaged

if TYPE_CHECKING:
    from tl_toolkit.evaluation.pairing import SavedPredictions
    from tl_toolkit.recipe.schema import Recipe
    from tl_toolkit.tasks.predictions import Columns
    from tl_toolkit.tasks.resampling import Sample

__all__ = ["Difference", "PairedTest", "RunComparison", "compare", "list_conditions"]

_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Difference:
    """An image that one of two runs predicts right, and the other wrong.

    Attributes:
        path: The file, as the run knows it.
        target: What it is labelled.
        predicted: What the run predicts.
        other: What the other run predicts.
        is_right: Whether the run is right; else the other one is.
    """

    path: str
    target: str
    predicted: str
    other: str
    is_right: bool


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
        differing: The images that one of them alone predicts right; none where a prediction is
            more or less right.
    """

    run: str
    other: str
    split: str
    images: int
    result: Mapping[str, Any]
    differing: Sequence[Difference] = ()


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

    def tabulate_scores(self) -> tuple[list[str], list[list[Any]]]:
        """Returns columns and rows: each metric of each split, with its interval in each run."""
        rows: list[list[Any]] = []
        for split, measured in self.splits.items():
            names = dict.fromkeys(name for metrics in measured for name in numbers_of(metrics))
            for name in names:
                if name not in self._task.ungraded:
                    cells = [_describe_metric(metrics, name) for metrics in measured]
                    rows.append([split, self._task.title_of(name), *cells])
        return ["split", "metric", *(info.name for info in self.infos)], rows

    def tabulate_differences(self) -> Iterator[tuple[list[str], list[list[str]]]]:
        """Yields columns and rows of the recipes' fields that differ, then of other conditions."""
        for title, found in (
            ("field of the recipe", self.fields),
            ("in lock.json", self.conditions),
        ):
            rows = [[field, *_describe_values(values)] for field, values in found.items()]
            if rows:
                yield [title, *(info.name for info in self.infos)], rows

    def describe_verdicts(self) -> list[str]:
        """Returns a sentence on each test, and on each pair of runs without one."""
        verdicts = [
            f"{test.run} on {test.images:,} images ({test.split}): "
            f"{self._task.describe_comparison(test.other, test.result)}"
            for test in self.tests
        ]
        return verdicts + [f"not tested: {reason}" for reason in self.untested]

    def format_page(self) -> str:
        """Returns the comparison as a page in one HTML file, with the images that differ."""
        from tl_toolkit.api.comparison_page import render_comparison

        return render_comparison(self)

    def write_page(self, path: str | Path) -> None:
        """Writes the comparison as a page in one HTML file, with the images that differ.

        Args:
            path: The file; one that exists is replaced.

        Raises:
            OutputError: It cannot be written.
        """
        write_atomically(Path(path), self.format_page())

    @property
    def _task(self) -> type[TaskSection]:
        return find_task(self.infos[0].task or DEFAULT_TASK)


def _describe_metric(metrics: Mapping[str, Any], name: str) -> str:
    """Returns a metric and its interval, as 0.9300 (0.902 to 0.951); "" for one that is missing."""
    value = metrics.get(name)
    if not isinstance(value, float):
        return "" if value is None else f"{value:,}"
    interval = metrics.get("intervals", {}).get(name)
    return f"{value:.4f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _describe_values(values: Sequence[Any]) -> list[str]:
    """Returns values that differ in words which differ; a digest by its first digits."""
    texts = ["" if value is None else _shorten(describe_value(value)) for value in values]
    return texts if len(set(texts)) > 1 else [repr(value) for value in values]


def _shorten(text: str) -> str:
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text


def compare(runs: Sequence[str | Path | InFolder], *, root: str | Path = "runs") -> RunComparison:
    """Compares runs: what differs in their recipes, versions and data, and their scores.

    The first run is tested against each other one on the images of a split that both predicted,
    which have the same content and the same targets: by McNemar's exact test where a prediction is
    right or wrong, else by a paired bootstrap of the task's metric. For a dense task that is the
    mean of the images' scores. No model is opened, and TensorFlow is not started.

    `tests` also hold the images that one run predicts right and the other wrong, and
    `write_page(path)` writes all of it as HTML, with these images.

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
    _refuse_damaged(folders)
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


def _refuse_damaged(folders: Sequence[RunFolder]) -> None:
    problems = [
        describe_damage(folder, file)
        for folder in folders
        for file in list_damaged(folder, folder.metrics, folder.predictions)
    ]
    if problems:
        raise DataError(problems)


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
                tests.append(PairedTest(infos[0].name, info.name, split, *result))
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


def _test(
    first: _Tested, other: _Tested, split: str
) -> tuple[int, dict[str, Any], list[Difference]] | str | None:
    """Returns images, result and what differs, or why there is no test; None without the split."""
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
    differing = _list_differing(pair, samples, task.graded_columns)
    return images, compare_samples(*samples, metric), differing


def _list_differing(
    pair: tuple[Columns, Columns], samples: tuple[Sample, Sample], columns: tuple[str, ...]
) -> list[Difference]:
    hits = [sample.hits for sample in samples]
    if hits[0] is None or hits[1] is None or not columns:
        return []
    run, other = pair
    target, predicted = columns
    return [
        Difference(
            run["path"][place],
            run[target][place],
            run[predicted][place],
            other[predicted][place],
            bool(hits[0][place]),
        )
        for place in (hits[0] != hits[1]).nonzero()[0]
    ]
