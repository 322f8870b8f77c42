"""The verb `curve`: what a recipe reaches by the number of its training images."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.base import keep_base, reading_recipe
from tl_toolkit.api.progress import handling, naming_what_is_kept
from tl_toolkit.api.search import open_search
from tl_toolkit.api.start import refuse_replaced_runs
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.events import Event, Handler, message, warning
from tl_toolkit.plan.check import check_recipe, plan_baseline
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import describe_training
from tl_toolkit.plan.values import find_differences
from tl_toolkit.recipe.load import RecipeSource, dump_recipe
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.runs.files import hash_file, write_atomically, write_json
from tl_toolkit.runs.folder import InFolder, RunFolder
from tl_toolkit.runtime import describe_threads, numerics, refuse_dtype_policy

if TYPE_CHECKING:
    import keras

    from tl_toolkit.evaluation.curve import CurvePoint

_MOST_NAMED = 4

FRACTIONS = (0.05, 0.1, 0.2, 0.5, 1.0)


class CurveRun(InFolder):
    """A finished curve: its folder, and the score of each method at each number of images."""

    @property
    def summary(self) -> dict[str, Any]:
        """What curve.json holds: the score's name, its split, the points, and what they are of."""
        summary: dict[str, Any] = self.folder.read_json(self.folder.curve)
        return summary

    @property
    def points(self) -> list[dict[str, Any]]:
        """The points: fraction, images, method, score, interval and seconds of each."""
        return list(self.summary["points"])


def curve(
    recipe: RecipeSource,
    *,
    overrides: Overrides = (),
    base: keras.Model | None = None,
    fractions: Sequence[float] = FRACTIONS,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    root: str | Path = "runs",
    threads: int | None = None,
    progress: Handler | bool = False,
) -> CurveRun:
    """Trains a recipe on parts of its training images: with transfer, as a probe, from scratch.

    The parts are stratified by class and nested, and follow from the recipe's seed. Each is trained
    from the same weights for as many steps as all images take, which are more epochs of fewer
    images, and measured on the same images: those of the test, or of validation if there are none.
    Features of the frozen part are computed once. Writes curve.csv, curve.json and curve.svg.

    Args:
        recipe: As in `finetune`.
        overrides: As in `finetune`.
        base: As in `finetune`; a model of your own is not trained from scratch.
        fractions: Shares of the training images, above 0 to 1.
        out: Folder of the curve; by default the next number under `root`/<recipe name>-curve.
        resume: Resume the curve in `out`, by default as in `search`: shares whose methods have all
            been measured are not trained again. It may have other fractions.
        overwrite: Replace the curve that `out` holds.
        root: Folder of all runs.
        threads: As in `finetune`.
        progress: As in `finetune`; epochs are not reported.

    Returns:
        The curve.

    Raises:
        RecipeError: A fraction is out of range, for `data.folds` and `precision: auto`, there is
            nothing to resume or it began with another recipe, images or weights, and as for
            `finetune`.
    """
    _check_fractions(fractions)
    with contextlib.ExitStack() as stack:
        loaded = stack.enter_context(
            reading_recipe(recipe, overrides, base=base, replaced=out, threads=threads)
        )
        plan = check_recipe(loaded)
        _check_plan(plan)
        refuse_replaced_runs(plan, out)
        refuse_dtype_policy()
        handle = stack.enter_context(handling(progress))
        folder = stack.enter_context(
            open_search(
                plan.recipe.name, Path(root), out, resume=resume, overwrite=overwrite, kind="curve"
            )
        )
        stack.enter_context(naming_what_is_kept(folder, progress, handle))
        handle(Event("run_began", facts={"folder": folder.path, "task": plan.recipe.task}))
        plan = keep_base(plan, folder)
        with numerics(deterministic=plan.recipe.deterministic, threads=threads):
            for text in filter(None, [describe_threads(threads), *plan.warnings]):
                handle(warning(text))
            _measure(plan, folder, fractions, handle)
    return CurveRun(folder)


def _check_fractions(fractions: Sequence[float]) -> None:
    wrong = [fraction for fraction in fractions if not 0 < fraction <= 1]
    if wrong or not fractions:
        what = f"got {', '.join(map(str, wrong)) or 'none'}"
        expected = "expected shares of the training images, above 0 to 1."
        raise RecipeError(Problem("--fractions", what, expected, "--fractions 0.1,0.5,1"))


def _check_plan(plan: Plan) -> None:
    problems = []
    if (folds := plan.recipe.data.folds) is not None:
        what = f"data.folds = {folds}: a curve is measured on the same images for each method"
        expected = "expected none: images of data.validation choose the epochs."
        problems.append(Problem("curve", what, expected, "~data.folds"))
    if plan.recipe.precision == "auto":
        what = "precision = 'auto': measured for one model, and not for those of a curve"
        expected = "expected float32 or bfloat16."
        problems.append(Problem("curve", what, expected, "precision=bfloat16"))
    if problems:
        raise RecipeError(problems)


def _measure(plan: Plan, folder: RunFolder, fractions: Sequence[float], progress: Handler) -> None:
    from tl_toolkit.evaluation.curve import measure_curve
    from tl_toolkit.tasks.registry import build_task
    from tl_toolkit.training.bands import settle_bands
    from tl_toolkit.training.prepare import survey_images, write_manifest

    task = build_task(plan.recipe, plan.classes)
    write_atomically(folder.recipe, dump_recipe(plan.recipe))
    manifest, _ = survey_images(plan, task, folder, progress)
    plan = settle_bands(plan, manifest.of("train"), progress, folder)
    write_manifest(manifest, folder)
    split = "test" if manifest.of("test") else "validation"
    score = task.final_score or task.score
    identity = {
        "recipe": describe_training(plan.recipe),
        "images": manifest.digest,
        "weights": hash_file(plan.weights_file) if plan.weights_file else None,
    }
    points = _read_points(folder, identity)
    if points:
        progress(message(f"resuming after {len(points)} points that are measured"))
    curve = measure_curve(
        plan, _plan_scratch(plan), task, manifest, fractions, progress, known=tuple(points)
    )
    for point in curve:
        points = [it for it in points if (it.images, it.method) != (point.images, point.method)]
        points.append(point)
        _write(folder, points, identity, score, split, plan)
        progress(
            message(f"{point.images:,} images, {point.method}: {point.score:.4f}, "
                    f"{point.seconds:.0f} s")
        )  # fmt: skip


def _read_points(folder: RunFolder, identity: Mapping[str, Any]) -> list[CurvePoint]:
    """Returns the points that are measured; those of a curve of something else are refused."""
    from tl_toolkit.evaluation.curve import CurvePoint

    now = json.loads(json.dumps(identity))  # as it will be read again: tuples become lists
    if not folder.curve.is_file():
        return []
    before = folder.read_json(folder.curve)
    if names := sorted(find_differences([before.get("of") or {}, now])):
        what = f"the curve was begun with another {', '.join(names[:_MOST_NAMED])}"
        expected = "Scores of a curve can be compared only if all else stays the same."
        hint = "without --resume for a new curve, or undo the changes"
        raise RecipeError(Problem(f"--resume {folder.path}", what, expected, hint))
    return [CurvePoint(**point) for point in before["points"]]


def _plan_scratch(plan: Plan) -> Plan | None:
    """Returns the plan of the same network from scratch; None for a base of the user's own."""
    if plan.recipe.model.own_file is not None:
        return None
    recipe = plan.recipe.model_copy(update={"baseline": "scratch"})
    return plan_baseline(replace(plan, recipe=recipe))


def _write(
    folder: RunFolder,
    points: Sequence[CurvePoint],
    identity: Mapping[str, Any],
    score: str,
    split: str,
    plan: Plan,
) -> None:
    from tl_toolkit.evaluation.curve import plot_curve

    ordered = sorted(points, key=lambda point: point.images)
    records = [point.as_record() for point in ordered]
    write_json(folder.curve, {"score": score, "split": split, "points": records, "of": identity})
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["fraction", "images", "method", score, "from", "to", "seconds"])
    for point in ordered:
        bounds: Sequence[Any] = point.interval or ("", "")
        writer.writerow(
            [point.fraction, point.images, point.method, point.score, *bounds, point.seconds]
        )
    write_atomically(folder.curve_table, buffer.getvalue())
    plot_curve(folder.curve_plot, ordered, f"{plan.recipe.task.title_of(score)} ({split})")
