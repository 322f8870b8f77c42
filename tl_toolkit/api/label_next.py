"""`label_next`: the images without labels whose labels would teach a run's model most."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tl_toolkit.api.embedding import embed_examples, list_examples, open_run
from tl_toolkit.api.progress import handling
from tl_toolkit.api.run import Run
from tl_toolkit.errors import DataError, Problem, RecipeError
from tl_toolkit.events import Handler, message
from tl_toolkit.plan.embedding import plan_features_of_run
from tl_toolkit.recipe.tasks import TASKS, find_task
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.runs.folder import InFolder
from tl_toolkit.runtime import numerics
from tl_toolkit.sources.objects import is_address

if TYPE_CHECKING:
    from tl_toolkit.images.manifest import Example
    from tl_toolkit.training.embedding import Embedded

__all__ = ["ToLabel", "UnlabelledImage", "label_next"]


@dataclass(frozen=True)
class UnlabelledImage:
    """An image that is worth a label.

    Attributes:
        path: The file.
        predicted: What the run predicts.
        uncertainty: How uncertain it is, 0 to 1: the entropy of its probabilities, of the most that
            it could be; of several labels the mean of theirs.
    """

    path: str
    predicted: str
    uncertainty: float


@dataclass(frozen=True)
class ToLabel:
    """The images to label next.

    Attributes:
        column: The column of the labels in the table.
        images: The images, the most uncertain first.
        looked_at: Images without labels that these were chosen from.
    """

    column: str
    images: Sequence[UnlabelledImage]
    looked_at: int

    def format(self, folder: Path) -> str:
        """Returns a table to fill in, which `data.csv` of a recipe reads: path, and no label yet.

        Args:
            folder: Where the table will be, to which paths of files are relative.
        """
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(("path", self.column, "predicted", "uncertainty"))
        for image in self.images:
            path = image.path
            if not is_address(path):
                path = os.path.relpath(path, folder.absolute())
            writer.writerow((path, "", image.predicted, f"{image.uncertainty:.4f}"))
        return buffer.getvalue()

    def save(self, path: str | Path) -> None:
        """Writes the table.

        Args:
            path: The file, CSV; one that exists is replaced.

        Raises:
            OutputError: It cannot be written.
        """
        place = Path(path)
        text = self.format(place.absolute().parent)
        write_atomically(place, text.encode("utf-8", "surrogateescape"))


def label_next(
    run: str | Path | InFolder,
    folder: str | Path | Iterable[str | Path],
    *,
    n: int = 50,
    root: str | Path = "runs",
    progress: Handler | bool = False,
) -> ToLabel:
    """Chooses images to label: those that the run's model is uncertain of, unlike each other.

    The most uncertain images are clustered by their features, and each cluster gives one: fifty
    images of one doubt would teach little more than one (Zhdanov, 2019). Images of the run itself
    are left out, by their content. Features are kept in the feature store.

    Args:
        run: As in `load_run`, or what it returns; of a task that gives classes probabilities.
        folder: A folder of images, or several files and folders.
        n: How many, at least 1.
        root: Folder of all runs.
        progress: As in `tl.finetune`.

    Raises:
        DataError: There is no such run, or no image that it does not know yet.
        RecipeError: The task gives no class a probability.
    """
    opened = open_run(run, Path(root))
    recipe = opened.recipe
    if not recipe.task.ranks_classes:
        kinds = " and ".join(kind for kind in TASKS if find_task(kind).ranks_classes)
        what = f"is a run of {recipe.task.kind}, which gives no class a probability"
        expected = f"What is uncertain is known of {kinds}."
        raise RecipeError(Problem(str(opened.path), what, expected, "tltool similar, by features"))
    plan = plan_features_of_run(opened.folder, recipe, opened.classes)
    with handling(progress) as handle, numerics(deterministic=recipe.deterministic):
        examples, _ = list_examples(plan, folder, handle, run=opened)
        unknown = _leave_out_known(opened, examples)
        if len(unknown) < len(examples):
            handle(message(f"left out: {len(examples) - len(unknown):,} images that the run knows"))
        embedded = embed_examples(plan, unknown, handle, with_outputs=True)
        images = _choose(opened, unknown, embedded, n)
    return ToLabel(recipe.task.label_column, images, len(unknown))


def _leave_out_known(run: Run, examples: Sequence[Example]) -> list[Example]:
    """Returns each image once that is none of the run's own, by content."""
    from tl_toolkit.images.manifest import Manifest

    known = {entry.sha256 for entry in Manifest.load(run.folder.manifest).examples}
    unknown = {entry.sha256: entry for entry in examples if entry.sha256 not in known}
    if not unknown:
        what = f"the run knows all {len(examples):,} images"
        raise DataError(Problem(str(run.path), what, "Images that it has not seen are labelled."))
    return list(unknown.values())


def _choose(
    run: Run, examples: Sequence[Example], embedded: Embedded, count: int
) -> list[UnlabelledImage]:
    from tl_toolkit.evaluation.choosing import choose_images
    from tl_toolkit.tasks.registry import build_task

    task = build_task(run.recipe, run.classes)
    if run.folder.task_state.is_file():
        task.restore(run.folder.read_json(run.folder.task_state))
    vectors, outputs = embedded
    uncertainty = task.measure_uncertainty(outputs)
    places = choose_images(vectors, uncertainty, count)
    described = (
        task.describe(Path(examples[place].path), outputs[place], None) for place in places
    )
    rows = task.tabulate([prediction.as_record() for prediction in described]).rows
    return [
        UnlabelledImage(examples[place].path, str(row[1]), float(uncertainty[place]))
        for place, row in zip(places, rows, strict=True)
    ]
