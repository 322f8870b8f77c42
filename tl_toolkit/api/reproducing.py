"""`reproduce`: a finished run, trained again from its own folder and compared with what it was."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tl_toolkit.api.comparing import list_conditions
from tl_toolkit.api.finetune import finetune
from tl_toolkit.api.listing import read_json
from tl_toolkit.api.run import Run, load_run
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.events import Handler
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.plan.devices import DeviceNames
from tl_toolkit.plan.values import find_differences
from tl_toolkit.runs.folder import InFolder, RunFolder
from tl_toolkit.runs.listing import judge_state
from tl_toolkit.runs.places import create_numbered
from tl_toolkit.runs.results import list_damaged
from tl_toolkit.runs.states import name_run

__all__ = ["ComparedPart", "Reproduction", "compare_results", "reproduce"]

_NOT_RESULTS = ("seconds", "seconds_by_precision", "cost", "leaks")
"""Of metrics.json: times, memory and paths."""


@dataclass(frozen=True)
class ComparedPart:
    """A part of what a run has measured or written, beside that of its repetition.

    Attributes:
        name: weights, history, metrics, predictions, or what the task learned from data.
        is_equal: Whether both are equal to the last bit.
        text: What differs, in words; "" where nothing does.
    """

    name: str
    is_equal: bool
    text: str = ""


@dataclass(frozen=True)
class Reproduction:
    """A run beside its repetition.

    Attributes:
        original: Folder of the run.
        again: Folder of its repetition.
        parts: What was compared.
        conditions: What differs in lock.json (digests of data and weights, versions, machine,
            threads), with both values.
        data: How many images were added, removed, changed in content or target, or moved (the
            same in another split or fold), if any were.
        damaged: Files of the run that were changed after it was done, by status.json.
    """

    original: Path
    again: Path
    parts: Sequence[ComparedPart]
    conditions: Mapping[str, tuple[Any, ...]]
    data: Mapping[str, int]
    damaged: Sequence[str] = ()

    @property
    def is_equal(self) -> bool:
        """Whether weights, history, metrics and predictions are equal to the last bit."""
        return all(part.is_equal for part in self.parts)

    @property
    def run(self) -> Run:
        """The repetition, a run of its own."""
        return Run(RunFolder(self.again))

    def explain(self) -> str:
        """Returns a sentence on what may explain a difference, "" where there is none."""
        if self.is_equal:
            return ""
        if self.damaged:
            return f"changed after the run was done: {', '.join(self.damaged)}"
        if self.data:
            return self._explain_data()
        if self.conditions:
            return f"what differs beside it: {', '.join(self.conditions)}"
        return (
            "data, weights, versions and machine are those of the run: deterministic=false, or "
            "callbacks or a handler in Python, may explain it"
        )

    def _explain_data(self) -> str:
        counts = {name: count for name, count in self.data.items() if count}
        moved = counts.pop("moved", 0)
        texts = [f"{count} {name}" for name, count in counts.items()]
        texts += [f"{moved} in another split"] if moved else []
        if not counts and moved:
            return f"the images are those of the run, {texts[0]}"
        return f"the images are not those of the run: {', '.join(texts)}"

    def as_json(self) -> dict[str, Any]:
        """Returns plain values, which JSON can hold."""
        places = {"original": str(self.original), "again": str(self.again)}
        return {**asdict(self), **places, "equal": self.is_equal, "explanation": self.explain()}


def reproduce(
    run: str | Path | InFolder,
    *,
    out: str | Path | None = None,
    root: str | Path = "runs",
    threads: int | None = None,
    devices: DeviceNames | None = None,
    progress: Handler | bool = False,
) -> Reproduction:
    """Trains a finished run again from its recipe and lock, and compares the two bit for bit.

    Exports and the report are left out. `latest` stays what it is. A difference is no error: it is
    told, and what differs in data, weights, versions and machine beside it.

    Args:
        run: As in `load_run`, or what it returns; it is finished and stays as it is.
        out: Folder of the repetition; by default the next number under
            `root`/<recipe name>-reproduced.
        root: Folder of all runs.
        threads: Size of TensorFlow's thread pools; by default that of the run.
        devices: As in `finetune`; by default as many as the run had, on all of its hosts together.
        progress: As in `finetune`.

    Raises:
        DataError: There is no such run.
        RecipeError: It is not finished, or holds no lock.json.
        ToolkitError: As for `finetune`, as where its images are gone.
    """
    original = run.path if isinstance(run, InFolder) else load_run(run, root=root).path
    folder = RunFolder(original)
    _check(folder)
    recipe = Run(folder).recipe
    overrides: dict[str, Any] = {"export": False, "report": False}
    if recipe.model.own_file is not None:  # the copy in the run, wherever that is by now
        overrides["model.base.model"] = str(folder.base)
    numerics = read_json(folder.lock).get("numerics", {})
    pools = numerics.get("intra_op_threads")
    count = numerics.get("device_count")
    with (
        _choosing(out, Path(root), f"{recipe.name}-reproduced") as place,
        _naming_count(folder, count if devices is None else None),
    ):
        again = finetune(
            folder.recipe,
            overrides=overrides,
            out=place,
            root=root,
            threads=threads or pools or None,
            devices=count if devices is None else devices,
            progress=progress,
        )
    return compare_results(folder, again.folder)


def _check(folder: RunFolder) -> None:
    """Refuses what cannot be trained again, or compared with what is."""
    name, state = name_run(folder.path), judge_state(folder)
    if folder.kind != "run":
        what, hint = f"is a {folder.kind}", f"tltool {folder.kind} {folder.recipe}"
        raise RecipeError(Problem(name, what, "A run is reproduced.", hint))
    if state != "done" or not folder.lock.is_file():
        what = f"is {state}" if state != "done" else "holds no lock.json"
        expected = "Only what a finished run has measured can be compared with a second time."
        raise RecipeError(Problem(name, what, expected, f"tltool finetune {folder.recipe}"))


@contextlib.contextmanager
def _naming_count(folder: RunFolder, count: int | None) -> Iterator[None]:
    """Says where a number of devices is from that nobody typed, if there are fewer of them."""
    try:
        yield
    except RecipeError as error:
        if count is None or error.problems[0].where != "--devices":
            raise
        what = f"was trained on {count} devices (lock.json, numerics.device_count)"
        expected = f"{error.problems[0].what}. With another number the last digits differ."
        problem = Problem(name_run(folder.path), what, expected, "--devices 1")
        raise RecipeError(problem) from error


@contextlib.contextmanager
def _choosing(out: str | Path | None, root: Path, name: str) -> Iterator[Path]:
    """Yields the folder of the repetition; a numbered one that stays empty is removed again."""
    if out is not None:
        yield Path(out)
        return
    folder = create_numbered(root.absolute(), name)
    try:
        yield folder.path
    finally:
        with contextlib.suppress(OSError):  # it holds the repetition
            folder.path.rmdir()
            folder.path.parent.rmdir()


def compare_results(original: RunFolder, again: RunFolder) -> Reproduction:
    """Compares what two runs of one recipe have written.

    Args:
        original: The run.
        again: Its repetition.
    """
    conditions = find_differences([list_conditions(original), list_conditions(again)])
    return Reproduction(
        original.path,
        again.path,
        parts=list(_compare_parts(original, again)),
        conditions=conditions,
        data=_compare_images(original, again) if "data_sha256" in conditions else {},
        damaged=[str(file.relative_to(original.path)) for file in list_damaged(original)],
    )


def _compare_parts(original: RunFolder, again: RunFolder) -> Iterator[ComparedPart]:
    metrics = [_read_results(folder) for folder in (original, again)]
    digests = [each.pop("weights_sha256", None) for each in metrics]
    text = "" if digests[0] == digests[1] else "other SHA-256 of the kept weights"
    yield ComparedPart("weights", not text, text)
    yield _compare_history(original, again)
    found = _flatten(find_differences(metrics))
    yield ComparedPart("metrics", not found, _describe(found, "figures") if found else "")
    if original.task_state.is_file() or again.task_state.is_file():
        states = find_differences([read_json(original.task_state), read_json(again.task_state)])
        text = _describe(_flatten(states), "values") if states else ""
        yield ComparedPart("learned from data", not states, text)
    if original.predictions.is_file() or again.predictions.is_file():
        yield _compare_tables("predictions", original.predictions, again.predictions)


def _read_results(folder: RunFolder) -> dict[str, Any]:
    metrics = read_json(folder.metrics)
    if isinstance(baseline := metrics.get("baseline"), dict):
        metrics["baseline"] = {k: v for k, v in baseline.items() if k not in _NOT_RESULTS}
    return {name: value for name, value in metrics.items() if name not in _NOT_RESULTS}


def _compare_history(original: RunFolder, again: RunFolder) -> ComparedPart:
    paths = sorted(
        {
            path.relative_to(folder.path)
            for folder in (original, again)
            for path in folder.phases.glob("*/history.csv")
        }
    )
    parts = [
        _compare_tables(path.parent.name, original.path / path, again.path / path) for path in paths
    ]
    texts = [f"{part.name}: {part.text}" for part in parts if not part.is_equal]
    return ComparedPart("history", not texts, "; ".join(texts))


def _compare_tables(name: str, first: Path, second: Path) -> ComparedPart:
    """Compares two CSV files, row by row."""
    tables = [_read_table(path) for path in (first, second)]
    if tables[0] == tables[1]:
        return ComparedPart(name, True)
    if len(tables[0]) != len(tables[1]):
        return ComparedPart(name, False, f"{len(tables[0])} rows, and {len(tables[1])} again")
    rows = [pair for pair in zip(*tables, strict=True) if pair[0] != pair[1]]
    cells = [cell for pair in rows for cell in zip(*pair, strict=False) if cell[0] != cell[1]]
    share = f"{len(rows)} of {len(tables[0]) - 1} rows differ"  # one is the head
    return ComparedPart(name, False, share + _describe_largest(cells))


def _read_table(path: Path) -> list[list[str]]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return list(csv.reader(file))
    except OSError:
        return []


def _flatten(found: Mapping[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """Returns single figures in place of lists of equal shape, as a confusion matrix is one."""
    flat: dict[str, tuple[Any, ...]] = {}
    for name, (first, second) in found.items():
        if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
            pairs = enumerate(zip(first, second, strict=True))
            flat |= _flatten({f"{name}.{i}": pair for i, pair in pairs if pair[0] != pair[1]})
        else:
            flat[name] = (first, second)
    return flat


def _describe(found: Mapping[str, tuple[Any, ...]], word: str) -> str:
    names = list(found)
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {word} differ ({listed})" + _describe_largest(list(found.values()))


def _describe_largest(pairs: Sequence[tuple[Any, ...]]) -> str:
    """Returns by how much numbers differ at most."""
    gaps = []
    for first, second in pairs:
        with contextlib.suppress(TypeError, ValueError):
            gaps.append(abs(float(first) - float(second)))
    return f", by {max(gaps):.2g} at most" if gaps else ""


def _compare_images(original: RunFolder, again: RunFolder) -> dict[str, int]:
    """Returns how many images came, went, have other content or targets, or moved."""
    before, after = (
        {example.path: example for example in Manifest.load(folder.manifest).examples}
        for folder in (original, again)
    )
    both = before.keys() & after.keys()
    placed = {path: replace(after[path], split=before[path].split, fold=before[path].fold)
              for path in both}  # fmt: skip
    changed = {path for path in both if before[path] != placed[path]}
    return {
        "added": len(after.keys() - both),
        "removed": len(before.keys() - both),
        "changed": len(changed),
        "moved": sum(before[path] != after[path] for path in both - changed),
    }
