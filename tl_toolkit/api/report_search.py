"""The reports of a search, a sweep and a learning curve, from their files."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tl_toolkit.plan.values import describe_value
from tl_toolkit.printing.words import describe_refit
from tl_toolkit.recipe.schema import Objective
from tl_toolkit.runs.folder import InFolder, RunFolder
from tl_toolkit.runs.states import describe_absent

if TYPE_CHECKING:
    from tl_toolkit.reports.page import Report
    from tl_toolkit.reports.trials import Tried

__all__ = ["build_curve_report", "build_search_report"]


def build_search_report(run: InFolder) -> Report:
    """Returns the report of a search or a sweep, from its files.

    Args:
        run: The search.

    Raises:
        DataError: It has not ended, or its files cannot be read.
    """
    from tl_toolkit.reports.background import build_recipe, describe_origin
    from tl_toolkit.reports.page import Report, as_sentence
    from tl_toolkit.reports.trials import build_trials

    folder = run.folder
    summary, objective, tried = _read_search(folder)
    best = summary["best"]
    sentences = [f"{field} = {describe_value(value)}" for field, value in best["values"].items()]
    if summary.get("refit"):
        sentences.append(as_sentence(describe_refit(summary["refit"])))
    paths = [path for path in (folder.best_recipe, folder.recipe) if path.is_file()]
    files = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in paths}
    return Report(
        f"{folder.kind} {folder.path.parent.name}/{folder.path.name}",
        f"Best of {summary['trials']} trials: number {best['number']}, {objective} "
        f"{best['score']:.4f} on validation images, which chose it.",
        sentences,
        [*build_trials(tried), build_recipe(files, {})],
        describe_origin(folder.path, folder.read_status().get("started")),
    )


def _read_search(folder: RunFolder) -> tuple[dict[str, Any], str, Tried]:
    """Returns the summary of a search, the name of its score, and its trials."""
    from tl_toolkit.plan.space import resolve_space
    from tl_toolkit.recipe.load import load_recipe
    from tl_toolkit.reports.trials import Tried
    from tl_toolkit.tuning.journal import Journal

    if not folder.summary.is_file():
        raise describe_absent(folder, folder.summary)
    summary = folder.read_json(folder.summary)
    recipe = load_recipe(folder.recipe).recipe
    trials = [asdict(trial) for trial in Journal(folder).read()]
    scored = [trial for trial in trials if trial["score"] is not None]
    space = resolve_space(recipe)
    goal = recipe.search.objective if recipe.search else Objective(name=summary["objective"])
    tried = Tried(
        scored,
        [field for field, dimension in space.items() if dimension.sampling == "log"],
        summary["objective"],
        goal.is_max,
        summary["best"]["number"],
        len(trials) - len(scored),
    )
    return summary, summary["objective"], tried


def build_curve_report(run: InFolder) -> Report:
    """Returns the report of a learning curve, from its files.

    Args:
        run: The curve.

    Raises:
        DataError: It has not ended, or its files cannot be read.
    """
    from tl_toolkit.recipe.load import load_recipe
    from tl_toolkit.reports.background import build_recipe, describe_origin
    from tl_toolkit.reports.page import Report
    from tl_toolkit.reports.trials import build_curve

    folder = run.folder
    if not folder.curve.is_file():
        raise describe_absent(folder, folder.curve)
    found = folder.read_json(folder.curve)
    title = load_recipe(folder.recipe).recipe.task.title_of(found["score"])
    points = sorted(found["points"], key=lambda point: point["images"])
    last = max(points, key=lambda point: (point["images"], point["score"]))
    return Report(
        f"{folder.kind} {folder.path.parent.name}/{folder.path.name}",
        f"With all {last['images']:,} images: {last['method']}, {title} {last['score']:.3f} on "
        f"{found['split']} images.",
        [],
        [
            build_curve(points, title, found["split"]),
            build_recipe({folder.recipe.name: folder.recipe.read_text(encoding="utf-8")}, {}),
        ],
        describe_origin(folder.path, folder.read_status().get("started")),
    )
