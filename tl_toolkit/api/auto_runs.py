"""The finished runs of `auto`, and which one it chooses."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.auto_record import FinishedRun, describe_score, slug
from tl_toolkit.api.auto_work import AutoWork
from tl_toolkit.api.base_choices import BaseChoice
from tl_toolkit.api.comparing import compare
from tl_toolkit.api.finetune import finetune
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.events import message
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.plan.automatic import with_base
from tl_toolkit.recipe.load import LoadedRecipe
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tuning.budget import MARGIN, READING, TimeIsUp

if TYPE_CHECKING:
    from tl_toolkit.api.run import Run

__all__ = ["AutoRuns", "name_head"]

_EXCESS = 0.1
"""By which part of the budget a first run may exceed it before its training."""


class AutoRuns:
    """Trains recipes as finished runs, and chooses one of them.

    Args:
        work: Record, time and recipe.
    """

    def __init__(self, work: AutoWork) -> None:
        self.work = work

    def train_head(self, choice: BaseChoice) -> None:
        """Trains a head on a base as a finished run.

        Args:
            choice: The base.
        """
        recipe = with_base(self.work.recipe, _list_model(choice))
        name = name_head(choice.name)
        if self.work.record.find(name) is None:
            self.train(recipe, name, choice.name, "a head alone")

    def train_first(self, choice: BaseChoice) -> None:
        """Trains the first run, however long the training itself takes.

        Args:
            choice: Its base.

        Raises:
            RecipeError: The time ran out before its images were read.
        """
        budget, reading = self.work.budget, self.work.reading

        def exceed() -> float:  # a later phase reads features too
            return -math.inf if reading.is_over else -_EXCESS * budget.seconds

        try:
            with budget.keeping(exceed, kinds=READING):
                self.train_head(choice)
        except TimeIsUp:
            shutil.rmtree(self.work.folder.path / name_head(choice.name), ignore_errors=True)
            raise self._describe_late() from None

    def _describe_late(self) -> RecipeError:
        """Returns the error that the first run does not fit, with the minutes that it would."""
        seconds = MARGIN * (self.work.budget.spent + self.work.reading.left)
        minutes = math.ceil(seconds / 60)
        what = f"ran out before the first run could be trained: {self.work.reading.describe()}"
        expected = "A first run needs all of them, and the time to train a head."
        hint = f"--minutes {minutes} --resume, which inspects no image again; or a folder of "
        hint += "fewer images, or a smaller data.image_size"
        return RecipeError(Problem(f"--minutes {self.work.record.minutes:g}", what, expected, hint))

    def try_head(self, choice: BaseChoice) -> None:
        """Trains a head on the chosen base, if a run still fits.

        Args:
            choice: The base.
        """
        if self.work.pace.estimate_final(self.work.pace.judging) > self.work.budget.left:
            self.work.say("head", f"no run with {choice.name} fits any more")
            return
        self.train_if_time(lambda: self.train_head(choice), name_head(choice.name))

    def train_if_time(self, train: Callable[[], object], name: str) -> bool:
        """Trains, and removes what is left of a run that takes too long.

        Args:
            train: Trains it.
            name: Its folder, below that of `auto`.
        """
        try:
            with self.work.budget.keeping(lambda: self.work.pace.around / 2):
                train()
        except TimeIsUp:
            shutil.rmtree(self.work.folder.path / name, ignore_errors=True)
            self.work.say("late", f"{name} took longer than was left, and was given up")
            return False
        return True

    def train(
        self, recipe: LoadedRecipe | Recipe, name: str, base: str, about: str, *, trained: int = 0
    ) -> None:
        """Trains a recipe as a finished run, and notes it.

        Args:
            recipe: The recipe.
            name: Its folder, below that of `auto`.
            base: Its base, as `rank_bases` names it.
            about: What it is, in words.
            trained: Weights of the base that are trained.
        """
        began = self.work.clock()
        place = self.work.folder.path / name
        run = finetune(recipe, out=place, resume=True, progress=self.work.handle)
        seconds = self.work.clock() - began
        metrics = run.metrics
        operations = metrics["cost"]["multiply_accumulates"]
        images = _count_images(run)
        self.work.pace.learn(operations, images=sum(images.values()))
        self.work.pace.around = max(
            self.work.pace.around, seconds - metrics["seconds"].get("train", 0.0)
        )
        measured = metrics["validation"]
        interval = measured.get("intervals", {}).get(self.work.record.metric)
        finished = FinishedRun(
            name, base, about, float(measured[self.work.record.metric]),
            None if interval is None else (interval[0], interval[1]),
            images["validation"], images["train"], operations, trained,
            round(seconds, 3), float(metrics["best"][f"val_{self.work.recipe.task.score}"]),
        )  # fmt: skip
        self.work.record.add_run(finished)
        self.work.progress(
            message(
                f"run {name}: {about} on {base}, "
                f"{describe_score(finished.score, finished.interval)}, {seconds:.1f} s"
            )
        )
        self.choose()
        self.work.save()

    def choose(self) -> None:
        """Chooses the best of the finished runs, or the cheapest of those that equal it."""
        if not self.work.record.runs:
            return
        best = max(self.work.record.runs, key=lambda run: (run.score, *(-it for it in run.cost)))
        tied = [run for run in self.work.record.runs if run is not best and self._equals(best, run)]
        chosen = min([best, *tied], key=lambda run: run.cost)
        others = [run for run in [best, *tied] if run is not chosen]
        why = f"{chosen.name} has the best score"
        if others:
            names = " and ".join(run.name for run in others)
            why = f"{chosen.name} is not to be told apart from {names}, and is the cheapest of them"
        self.work.record.choose(chosen, others)
        self.work.record.why.pop("choice", None)  # it comes last
        self.work.record.why["choice"] = why
        recipe = (self.work.folder.path / chosen.name / RunFolder.recipe.relative).read_text(
            "utf-8"
        )
        remarks = [f"# auto: {text}\n" for text in self.work.record.why.values()]
        write_atomically(self.work.folder.recipe, "".join([*remarks, recipe]))

    def _equals(self, best: FinishedRun, other: FinishedRun) -> bool:
        """Returns whether two runs are not to be told apart on the validation images."""
        paths = [self.work.folder.path / run.name for run in (best, other)]
        for test in compare(paths).tests:
            if test.split == "validation":
                return bool(test.result["verdict"] == "open")
        return False


def name_head(base: str) -> str:
    """Returns the folder of the run with a head alone, below that of `auto`.

    Args:
        base: Name of its base.
    """
    return f"{RunFolder.models.relative}/head-{slug(base)}"


def _list_model(choice: BaseChoice) -> dict[str, Any]:
    """Returns the fields of a `model` section that name a base."""
    return {"base": choice.base, "arguments": dict(choice.arguments), "weights": choice.weights}


def _count_images(run: Run) -> dict[str, int]:
    """Returns the images of each split that a run used."""
    manifest = Manifest.load(run.folder.manifest, classes=run.classes)
    return {split: len(manifest.of(split)) for split in ("train", "validation", "test")}
