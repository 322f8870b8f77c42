"""The report of `auto`, from its files."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tl_toolkit.api.auto_record import AutoRecord
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.plan.space import resolve_space
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import load_recipe
from tl_toolkit.runs.folder import InFolder, RunFolder

if TYPE_CHECKING:
    from tl_toolkit.recipe.schema import Recipe
    from tl_toolkit.reports.page import Report
    from tl_toolkit.reports.sections import Section
    from tl_toolkit.reports.trials import Tried

__all__ = ["build_auto_report"]


def build_auto_report(run: InFolder) -> Report:
    """Returns the report of `auto`, from its files.

    Args:
        run: Its folder.

    Raises:
        DataError: Its files cannot be read.
        RecipeError: It has no finished run.
    """
    from tl_toolkit.reports.automatic import build_bases, build_runs, build_time, describe_choice
    from tl_toolkit.reports.background import build_recipe, describe_origin
    from tl_toolkit.reports.page import Report, as_sentence

    folder = run.folder
    record = AutoRecord.read(folder)
    if not record.chosen:
        command = ["tltool", "auto", str(record.asked.get("data", "FOLDER")), "--resume", "--out"]
        what, expected = "has no finished run yet", "A report tells of one at least."
        hint = shlex.join([*command, str(folder.path)])
        raise RecipeError(Problem(str(folder.path), what, expected, hint))
    recipe = load_recipe(folder.recipe).recipe
    values, title = record.as_json(), recipe.task.title_of(record.metric)
    ranked_by = recipe.task.title_of(plan_task(recipe).ranking_score)
    texts = [as_sentence(_begin(text)) for text in record.why.values()]
    texts.append("The same images chose epoch, trial and run: the score is a little too good.")
    return Report(
        f"{folder.kind} {folder.path.parent.name}/{folder.path.name}",
        describe_choice(values, title),
        texts,
        [
            build_runs(values, title, _find_pages(folder, record)),
            build_time(values),
            build_bases(values, ranked_by, record.tuned),
            *_build_trials(folder, record, recipe),
            build_recipe({folder.recipe.name: folder.recipe.read_text(encoding="utf-8")}, {}),
        ],
        describe_origin(folder.path, folder.read_status().get("started")),
    )


def _begin(text: str) -> str:
    """Returns a sentence that begins with a word, where it would begin with a run's name."""
    return f"run {text}" if text.startswith(f"{RunFolder.models.relative}/") else text


def _find_pages(folder: RunFolder, record: AutoRecord) -> dict[str, str]:
    """Returns the page of each finished run that has one, relative to the page of `auto`."""
    pages = {run.name: RunFolder(folder.path / run.name).report / "index.html"
             for run in record.runs}  # fmt: skip
    return {name: Path(os.path.relpath(page, folder.report)).as_posix()
            for name, page in pages.items() if page.is_file()}  # fmt: skip


def _build_trials(folder: RunFolder, record: AutoRecord, recipe: Recipe) -> list[Section]:
    """Returns the sections of the search, or the reason why there was none."""
    from tl_toolkit.reports.page import as_sentence
    from tl_toolkit.reports.sections import Section, Text
    from tl_toolkit.reports.trials import build_trials

    why = record.why.get("search", "no search was begun")
    tried = _read_trials(folder, record, recipe)
    if tried is None:
        return [Section("trials", "Trials", [Text(as_sentence(why))])]
    return build_trials(tried)


def _read_trials(folder: RunFolder, record: AutoRecord, recipe: Recipe) -> Tried | None:
    """Returns the trials that have a score; None without any."""
    from tl_toolkit.reports.trials import Tried

    scored = [trial for trial in record.trials if trial["score"] is not None]
    if not scored:
        return None
    best = max(scored, key=lambda trial: trial["score"])
    space = resolve_space(load_recipe(record.find_search(folder).recipe).recipe)
    return Tried(
        scored,
        [field for field, dimension in space.items() if dimension.sampling == "log"],
        f"val_{recipe.task.score}",
        is_max=True,
        best=best["number"],
        failed=len(record.trials) - len(scored),
    )
