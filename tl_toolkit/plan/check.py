"""What a recipe means: its names, ranges and files held against the catalog and the file system.

Everything that can be known without TensorFlow and without opening an image, so that
`tltool validate` answers at once and nothing is trained on a recipe that cannot end well.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import exists  # unlike Path.exists it raises for no path
from pathlib import Path
from typing import Any

from tl_toolkit.catalog.lookup import (
    Architecture,
    check_arguments,
    check_image_size,
    describe_unpublished,
    find_architecture,
    find_weight_file,
    resolve_unfreeze,
)
from tl_toolkit.catalog.taps import is_no_layer, units_read
from tl_toolkit.catalog.weight_files import cache_path, recall_weights
from tl_toolkit.catalog.weight_matching import describe_misfit
from tl_toolkit.errors import (
    DataError,
    Problem,
    RecipeError,
    ToolkitError,
    WeightsError,
    closest,
    nearest,
)
from tl_toolkit.plan.space import (
    count_points,
    count_trials,
    plan_brackets,
    probe_space,
    resolve_space,
    trial_recipe,
)
from tl_toolkit.recipe.load import LoadedRecipe, build_baseline
from tl_toolkit.recipe.messages import in_order
from tl_toolkit.recipe.schema import Data, Phase, Pixels, Recipe, UnfreezeFrom
from tl_toolkit.recipe.tree import FieldPath
from tl_toolkit.sources.listing import name_some
from tl_toolkit.sources.survey import check_sources, count_sources, list_sources

__all__ = ["Summary", "check_recipe"]

_WORDS = ("imagenet", "random")
_OPEN = "to be split"  # images that fractions will give to a split
_NAMED_CLASSES = 10


@dataclass(frozen=True)
class _Finding:
    """A problem, the field it lies at, and the kind of error it makes."""

    path: FieldPath
    problem: Problem
    kind: type[ToolkitError] = RecipeError


_Findings = Iterator[_Finding]


@dataclass(frozen=True)
class Summary:
    """What a valid recipe will do.

    Attributes:
        recipe: The recipe.
        classes: Names in the order of the outputs.
        images: Images per class, for each split and for those still "to be split" by fractions.
        weights_file: The weight file; None for random weights.
        is_fetched: Whether that file is on this machine.
        units: For each phase the units of the base that train, input to output.
        ignored: What was not taken for an image, as "3 files ignored: 2 .txt", or "".
    """

    recipe: Recipe
    classes: tuple[str, ...]
    images: Mapping[str, Mapping[str, int]]
    weights_file: Path | None
    is_fetched: bool
    units: Mapping[str, tuple[str, ...]]
    ignored: str = ""

    def as_json(self) -> dict[str, Any]:
        """Returns the summary as plain values."""
        model = self.recipe.model
        return {
            "name": self.recipe.name,
            "base": model.base,
            "arguments": dict(model.arguments),
            "weights": model.weights,
            "weights_file": str(self.weights_file) if self.weights_file else None,
            "weights_fetched": self.is_fetched,
            "classes": list(self.classes),
            "images": {split: dict(counts) for split, counts in self.images.items()},
            "ignored": self.ignored,
            "phases": [
                {"name": phase.name, "epochs": phase.epochs, "units": list(self.units[phase.name])}
                for phase in self.recipe.phases
            ],
        }

    def describe(self) -> str:
        """Returns the summary as lines to read."""
        model = self.recipe.model
        arguments = "".join(f", {key} {value}" for key, value in model.arguments.items())
        weights = str(self.weights_file or model.weights)
        fetch = "" if self.is_fetched else " (will be fetched)"
        names = ", ".join(self.classes[:_NAMED_CLASSES])
        more = ", ..." if len(self.classes) > _NAMED_CLASSES else ""
        images = ", ".join(f"{sum(n.values()):,} {split}" for split, n in self.images.items())
        return "\n".join(
            (
                f"base     {model.base}{arguments}; weights {weights}{fetch}",
                f"classes  {len(self.classes)}: {names}{more}",
                f"images   {images}",
                f"phases   {'; '.join(map(self._describe_phase, self.recipe.phases))}",
                *([f"search   {self._describe_search()}"] if self.recipe.search else []),
                *([f"note     {self.ignored}"] if self.ignored else []),
            )
        )

    def _describe_search(self) -> str:
        fields = ", ".join(resolve_space(self.recipe))
        return f"{count_trials(self.recipe)} trials over {fields}"

    def _describe_phase(self, phase: Phase) -> str:
        units = self.units[phase.name]
        trained = f"head and {len(units)} units from {units[0]}" if units else "head"
        return f"{phase.name} {phase.epochs} epochs ({trained})"


def check_recipe(loaded: LoadedRecipe) -> Summary:
    """Returns what a recipe will do, after everything is checked that can be known before training.

    Reads names, sizes and headers of files; opens no image and no network connection.

    Raises:
        RecipeError: With all problems, if one of them is a matter of the recipe alone.
        DataError: With all problems, if they are of the data (or of the data and the weights).
        WeightsError: With all problems, if they are of the weights.
    """
    recipe = loaded.recipe
    counts, findings = _survey_data(recipe.data)
    classes = _class_names(recipe.data, counts)
    findings += _check_network(recipe, classes)
    findings += _check_baseline(recipe, classes, findings)
    if recipe.search is not None:
        findings += _check_search(recipe, classes, findings)
    if findings:
        raise _as_error(findings, loaded.locate)
    return _summarize(recipe, classes, counts)


def _as_error(findings: list[_Finding], locate: Callable[[FieldPath], str]) -> ToolkitError:
    kinds = {finding.kind for finding in findings}
    kind = next(kind for kind in (RecipeError, DataError, WeightsError) if kind in kinds)
    problems = [replace(finding.problem, where=locate(finding.path)) for finding in findings]
    return kind(in_order(problems))


# ------------------------------------------------------------------------------------------- data


def _survey_data(data: Data) -> tuple[dict[str, dict[str, int]], list[_Finding]]:
    """Returns images per split and class (none if they cannot be listed), and what is wrong."""
    try:
        counts = count_sources(data)
    except DataError:
        return {}, [
            _Finding(("data", field), _name_field(problem), DataError)
            for field, problem in check_sources(data)
        ]
    named = {split or _OPEN: number for split, number in counts.items()}
    return named, list(_check_fractions(data, named))


def _check_fractions(data: Data, counts: Mapping[str, Mapping[str, int]]) -> _Findings:
    """Refuses classes that have not one image for each split that fractions draw."""
    values = {"validation": data.validation, "test": data.test}
    drawn = [
        name for name, value in values.items() if isinstance(value, float) and name not in counts
    ]
    few = {name: count for name, count in counts.get(_OPEN, {}).items() if count <= len(drawn)}
    if few:
        field = next(
            name for name in ("train", "csv", "builtin") if getattr(data, name) is not None
        )
        what = (
            f"data.{field}: too few images of {name_some(f'{n!r} ({c})' for n, c in few.items())}"
        )
        splits = " and ".join(("train", *drawn))
        expected = f"expected at least {len(drawn) + 1} of each class, for {splits}."
        yield _Finding(("data", field), Problem("", what, expected), DataError)


def _name_field(problem: Problem) -> Problem:
    """Puts the field, which the place in the recipe takes the room of, before what was found."""
    if problem.what.startswith(problem.where):
        return problem
    return replace(problem, what=f"{problem.where}: {problem.what}")


def _class_names(data: Data, counts: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """Returns the classes, () where the data is too wrong to tell."""
    return data.classes or tuple(next(iter(counts.values()), ()))


# ---------------------------------------------------------------------------------------- network


def _check_network(recipe: Recipe, classes: tuple[str, ...]) -> list[_Finding]:
    """Holds model, head and phases against the record of the base."""
    findings = list(_check_output(recipe, classes))
    try:
        architecture = find_architecture(recipe.model.base)
    except RecipeError as error:
        return [*findings, _Finding(("model", "base"), error.problems[0])]
    arguments = check_arguments(architecture, recipe.model.arguments)
    for name, problem in arguments.items():
        findings.append(_Finding(("model", "arguments", name), problem))
    if problem_of_size := check_image_size(architecture, recipe.data.image_size):
        findings.append(_Finding(("data", "image_size"), problem_of_size))
    findings += _check_pooling(recipe, architecture)
    if recipe.pixels is not None:
        findings += _check_pixels(recipe.pixels, architecture, classes)
    for index, phase in enumerate(recipe.phases):
        findings += _check_unfreeze(phase, index, architecture, recipe.pixels)
    if not arguments:
        findings += _check_weights(recipe, architecture)
    return findings


def _check_output(recipe: Recipe, classes: tuple[str, ...]) -> _Findings:
    if recipe.model.head.activation == "sigmoid" and classes and len(classes) != 2:
        yield _Finding(
            ("model", "head", "activation"),
            Problem(
                where="",
                what="model.head.activation = 'sigmoid'",
                expected=f"expected exactly 2 classes for a sigmoid, got {len(classes)}.",
                hint="activation: softmax, or name two classes in data.classes",
            ),
        )


def _check_pooling(recipe: Recipe, architecture: Architecture) -> _Findings:
    pooling = recipe.model.head.pooling
    if pooling is not None and architecture.output == "vector":
        expected = f"{architecture.name} ends in a vector: expected no pooling, got {pooling!r}."
        what = f"model.head.pooling = {pooling!r}"
        problem = Problem("", what, expected, "~model.head.pooling")
        yield _Finding(("model", "head", "pooling"), problem)


def _check_pixels(
    pixels: Pixels, architecture: Architecture, classes: tuple[str, ...]
) -> _Findings:
    """Refuses maps that the base does not have, and weights of classes that there are not."""
    if pixels.taps is None and not architecture.taps:
        what = f"model.base = {architecture.name!r}"
        expected = "expected a base whose maps cover the image in whole cells, or pixels.taps."
        yield _Finding(("model", "base"), Problem("", what, expected, "base: mobilenet"))
    units = [unit.name for block in architecture.blocks for unit in block.units]
    for index, name in enumerate(pixels.taps or ()):
        if is_no_layer(architecture, name):
            what = f"pixels.taps[{index}] = {name!r}"
            near = closest(name, [*units, *architecture.taps])
            expected = f"{architecture.name} has no such layer or unit. {near}".rstrip()
            hint = f"tltool models show {architecture.name} --layers"
            yield _Finding(("pixels", "taps", index), Problem("", what, expected, hint))
    if isinstance(pixels.class_weights, Mapping):
        for name in pixels.class_weights:
            if classes and name not in classes:
                what = f"pixels.class_weights: {name!r} is no class"
                problem = Problem("", what, closest(name, classes))
                yield _Finding(("pixels", "class_weights", name), problem)


def _check_unfreeze(
    phase: Phase, index: int, architecture: Architecture, pixels: Pixels | None
) -> _Findings:
    below = ("from",) if isinstance(phase.unfreeze, UnfreezeFrom) else ()
    path = ("phases", index, "unfreeze", *below)
    try:
        units = resolve_unfreeze(architecture, phase.unfreeze)
    except RecipeError as error:
        for problem in error.problems:
            yield _Finding(path, replace(problem, what=f"phases[{index}].{problem.what}"))
        return
    read = units_read(architecture, pixels.taps) if pixels is not None else None
    if units and read is not None and not set(units) & set(read):
        what = f"phases[{index}].unfreeze: {name_some(units)} would train"
        expected = f"expected {read[-1]} or a unit before it: pixels are read from none behind it."
        yield _Finding(path, Problem("", what, expected, f"unfreeze: {{from: {read[-1]}}}"))


# ---------------------------------------------------------------------------------------- weights


def _check_weights(recipe: Recipe, architecture: Architecture) -> _Findings:
    path = _find_weights(recipe, architecture)
    if path is None and recipe.model.weights == "imagenet":
        yield _Finding(
            ("model", "weights"), describe_unpublished(architecture, recipe.model.arguments)
        )
    if path is None or (recipe.model.weights == "imagenet" and not exists(path)):
        return
    what, expected, hint = "", "", ""
    try:
        info = recall_weights(path)
    except WeightsError as error:
        problem = error.problems[0]
        what, expected, hint = problem.what, problem.expected, problem.hint
        if not exists(path) and (word := nearest(path.name, _WORDS)):
            hint = f"weights: {word}"
    else:
        misfit = describe_misfit(
            architecture, recipe.model.arguments, info, image_size=recipe.data.image_size
        )
        what = misfit or ""
    if what:
        problem = Problem("", f"model.weights: {str(path)!r} {what}", expected, hint)
        yield _Finding(("model", "weights"), problem, WeightsError)


def _find_weights(recipe: Recipe, architecture: Architecture) -> Path | None:
    model = recipe.model
    if model.weights == "random":
        return None
    if model.weights != "imagenet":
        return Path(model.weights)
    file = find_weight_file(architecture, model.arguments, recipe.data.image_size)
    return cache_path(file) if file else None


# --------------------------------------------------------------------------------------- baseline


def _check_baseline(
    recipe: Recipe, classes: tuple[str, ...], known: list[_Finding]
) -> list[_Finding]:
    """Checks the recipe that the baseline makes; what is wrong in both is told once."""
    baseline = build_baseline(recipe)
    if baseline is None:
        return []
    findings = _check_network(baseline, classes)
    told = {finding.problem for finding in known}
    return [
        _Finding(
            _find_change(recipe, baseline, finding.path),
            replace(finding.problem, what=f"with its baseline, {finding.problem.what}"),
            finding.kind,
        )
        for finding in findings
        if finding.problem not in told
    ]


def _find_change(recipe: Recipe, baseline: Recipe, path: FieldPath) -> FieldPath:
    """Returns the baseline's entry that changed the field at `path`, else the baseline."""
    names = [str(part) for part in path]
    if path[0] == "phases" and isinstance(path[1], int):
        names[1] = baseline.phases[path[1]].name
    spellings = (".".join(map(str, path)), ".".join(names))
    for key in recipe.baseline or ():
        if any(f"{spelling}.".startswith(f"{key}.") for spelling in spellings):
            return ("baseline", key)
    return ("baseline",)


# ----------------------------------------------------------------------------------------- search


def _check_search(
    recipe: Recipe, classes: tuple[str, ...], known: list[_Finding]
) -> list[_Finding]:
    """Checks the recipes that each value of the space makes, the other fields being as they are."""
    told = {finding.problem for finding in known}
    if any(finding.path == ("model", "base") for finding in known):
        return []  # the default space is made of its blocks
    findings = list(_check_hyperband(recipe))
    for field, value in probe_space(resolve_space(recipe)):
        for problem in _find_problems(recipe, classes, {field: value}):
            if problem not in told:
                what = f"with {field} = {value!r}, {problem.what}"
                findings.append(_Finding(("search", "space", field), replace(problem, what=what)))
    return findings


def _check_hyperband(recipe: Recipe) -> _Findings:
    """Refuses a hyperband that would bring no trial to its end."""
    search, epochs = recipe.search, recipe.phases[-1].epochs
    if search is None or search.algorithm != "hyperband":
        return
    if epochs < search.factor:
        yield _refuse_search(
            "algorithm",
            "search.algorithm = 'hyperband'",
            f"expected a last phase of at least {search.factor} epochs (search.factor) to pause "
            f"in, got {epochs}.",
            "algorithm: random",
        )
        return
    first = plan_brackets(epochs, search.factor)[0]
    needed, (most, _) = sum(trials for trials, _ in first), first[0]
    if search.trials is not None and search.trials < needed:
        yield _refuse_search(
            "trials",
            f"search.trials = {search.trials}",
            f"expected at least {needed}: hyperband begins with {_name_rungs(first)}, and with "
            "fewer none would come to its end.",
            "a greater search.factor, fewer epochs, or algorithm: random",
        )
    points = count_points(resolve_space(recipe))
    if points is not None and points < most:
        yield _refuse_search(
            "space",
            f"search.space: {points} combinations",
            f"expected at least {most}: hyperband begins with {_name_rungs(first)}.",
            "algorithm: grid",
        )


def _name_rungs(rungs: Sequence[tuple[int, int]]) -> str:
    (trials, epochs), *rest = rungs
    later = ", ".join(f"{count} up to {end}" for count, end in rest)
    return f"{trials} trials of {epochs} epochs, then {later}"


def _refuse_search(field: str, what: str, expected: str, hint: str) -> _Finding:
    return _Finding(("search", field), Problem("", what, expected, hint))


def _find_problems(
    recipe: Recipe, classes: tuple[str, ...], values: Mapping[str, Any]
) -> list[Problem]:
    try:
        trial = trial_recipe(recipe, values)
    except RecipeError as error:
        return list(error.problems)
    epochs = trial.phases[-1].epochs
    halves = recipe.search is not None and recipe.search.algorithm == "hyperband"
    if halves and epochs != recipe.phases[-1].epochs:
        expected = "expected another field: hyperband itself decides how long the last phase is."
        return [Problem("", f"the last phase has {epochs} epochs", expected, "algorithm: random")]
    return [finding.problem for finding in _check_network(trial, classes)]


# ---------------------------------------------------------------------------------------- summary


def _summarize(
    recipe: Recipe, classes: tuple[str, ...], counts: Mapping[str, Mapping[str, int]]
) -> Summary:
    architecture = find_architecture(recipe.model.base)
    path = _find_weights(recipe, architecture)
    return Summary(
        recipe=recipe,
        classes=classes,
        images=counts,
        weights_file=path,
        is_fetched=path is None or exists(path),
        units={
            phase.name: resolve_unfreeze(architecture, phase.unfreeze) for phase in recipe.phases
        },
        ignored="" if recipe.data.builtin else list_sources(recipe.data).describe_ignored(),
    )
