"""`embed`: a vector of features for each image, from the feature store where they are known."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.inputs import list_inputs
from tl_toolkit.api.progress import handling
from tl_toolkit.api.run import Run
from tl_toolkit.catalog.lookup import ARCHITECTURES
from tl_toolkit.errors import DataError, Problem, RecipeError, closest
from tl_toolkit.events import Handler, report_counts, warning
from tl_toolkit.plan.embedding import (
    plan_features_of_base,
    plan_features_of_run,
    write_base_recipe,
)
from tl_toolkit.plan.plan import Plan
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.runs.folder import InFolder
from tl_toolkit.runs.places import find_run
from tl_toolkit.runs.states import describe_absent
from tl_toolkit.runtime import numerics

if TYPE_CHECKING:
    import numpy as np

    from tl_toolkit.images.manifest import Example
    from tl_toolkit.training.embedding import Embedded

__all__ = [
    "Features",
    "check_features_file",
    "embed",
    "embed_examples",
    "list_examples",
    "open_run",
]

_ENDINGS = (".parquet", ".npz")
_NO_PARQUET = "pip install 'tl-toolkit[parquet]'"


@dataclass(frozen=True)
class Features:
    """A vector for each image.

    Attributes:
        paths: The files.
        digests: SHA-256 of the content of each.
        vectors: float32 (n, features), in the same order.
        skipped: Why a file has none, by its path.
    """

    paths: tuple[str, ...]
    digests: tuple[str, ...]
    vectors: np.ndarray
    skipped: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Writes path, sha256 and vector of each image.

        Args:
            path: A file that ends in .npz, with the arrays path, sha256 and features; or in
                .parquet, with these columns, features as lists of one length, which takes pyarrow.

        Raises:
            OutputError: It cannot be written.
            RecipeError: It ends otherwise, or pyarrow is not here.
        """
        place = Path(path)
        check_features_file(place)
        write = _write_parquet if place.suffix.lower() == ".parquet" else _write_npz
        write_atomically(place, write(self))

    def as_json(self) -> dict[str, Any]:
        """Returns what a machine is told: counts, and what was skipped."""
        return {
            "images": len(self.paths),
            "features": int(self.vectors.shape[1]),
            "skipped": dict(self.skipped),
        }


def check_features_file(path: Path) -> None:
    """Refuses a file that features are not written to, before anything is computed.

    Args:
        path: The file.

    Raises:
        RecipeError: It ends otherwise than in .parquet or .npz, or pyarrow is not here.
    """
    ending = path.suffix.lower()
    if ending not in _ENDINGS:
        expected = f"Expected a file that ends in {' or '.join(_ENDINGS)}."
        raise RecipeError(Problem(str(path), "is no file of features", expected, "-o features.npz"))
    if ending == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            what = "is written by the package pyarrow, which is not here"
            hint = f"{_NO_PARQUET}, or -o {path.with_suffix('.npz')}"
            raise RecipeError(Problem(str(path), what, "", hint)) from error


def _write_npz(features: Features) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.savez(
        buffer,
        path=np.array([_as_utf8(path) for path in features.paths], np.str_),
        sha256=np.array(features.digests, np.str_),
        features=features.vectors,
    )
    return buffer.getvalue()


def _write_parquet(features: Features) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    flat = pa.array(features.vectors.ravel(), pa.float32())
    table = pa.table(
        {
            "path": pa.array([_as_utf8(path) for path in features.paths], pa.string()),
            "sha256": pa.array(features.digests, pa.string()),
            "features": pa.FixedSizeListArray.from_arrays(flat, features.vectors.shape[1]),
        }
    )
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def _as_utf8(path: str) -> str:
    """Returns a path that may hold bytes which are no UTF-8, with escapes in their place."""
    return path.encode("utf-8", "backslashreplace").decode()


def embed(
    source: str | Path | InFolder,
    paths: str | Path | Iterable[str | Path],
    *,
    block: str | None = None,
    pooling: str | None = None,
    weights: str = "imagenet",
    image_size: int | tuple[int, int] | None = None,
    arguments: Mapping[str, Any] | None = None,
    root: str | Path = "runs",
    progress: Handler | bool = False,
) -> Features:
    """Returns a vector of features for each image, by the model of a run or by a base.

    Features are read from the feature store, and kept there: a second call for the same images runs
    no network and opens no image.

    Args:
        source: A run, as in `load_run`, or what it returns; or the name of an architecture, or a
            Keras model by its file, .keras.
        paths: Files, and folders of images.
        block: The block, unit or layer whose map is read. By default the last one: of a run what
            its head reads last, as the run trained it.
        pooling: How the map becomes a vector: average, max, both, statistics (average and
            deviation), pyramid (these, and averages of 3 x 3 cells), sum or flatten. By default
            as the run's head pools it, else average.
        weights: Of an architecture: "imagenet", "random", or a file or the address of one.
        image_size: Side of the images, or (height, width); of an architecture, by default its own.
        arguments: Of an architecture, as `{"alpha": 0.25}`.
        root: Folder of all runs.
        progress: As in `tl.finetune`.

    Raises:
        DataError: There is no such run or base, or no image that can be decoded.
        RecipeError: There is no such block, or a value is wrong.
        WeightsError: The weights are missing, damaged, or of another network.
    """
    plan, run = _plan(source, block, pooling, weights, image_size, arguments or {}, Path(root))
    with handling(progress) as handle, numerics(deterministic=plan.recipe.deterministic):
        examples, skipped = list_examples(plan, paths, handle, run=run)
        embedded = embed_examples(plan, examples, handle, first_map=block is not None)
        return Features(
            tuple(example.path for example in examples),
            tuple(example.sha256 for example in examples),
            embedded.vectors,
            skipped,
        )


def open_run(run: str | Path | InFolder, root: Path) -> Run:
    """Returns a run that holds a model.

    Args:
        run: As in `load_run`, or what it returns.
        root: Folder of all runs.

    Raises:
        DataError: There is no such run, or it has no model.
    """
    opened = Run(run.folder if isinstance(run, InFolder) else find_run(run, root=root))
    if not opened.folder.model.is_file():
        raise describe_absent(opened.folder, opened.folder.model)
    return opened


def _plan(
    source: str | Path | InFolder,
    block: str | None,
    pooling: str | None,
    weights: str,
    image_size: int | tuple[int, int] | None,
    arguments: Mapping[str, Any],
    root: Path,
) -> tuple[Plan, Run | None]:
    name = "" if isinstance(source, InFolder) else str(source)
    if name in ARCHITECTURES or name.endswith(".keras"):
        recipe = write_base_recipe(
            name, weights=weights, image_size=image_size, arguments=arguments
        )
        return plan_features_of_base(recipe, block, pooling), None
    try:
        run = open_run(source, root)
    except DataError as error:
        near = closest(name, ARCHITECTURES)
        if near and "/" not in name:
            raise DataError([*error.problems, Problem(name, f"is no base: {near}")]) from error
        raise
    if image_size is not None or arguments:
        what = "image_size and arguments go with a base: a run has its own"
        raise RecipeError(Problem(name or str(run.path), what, "", "leave them out"))
    plan = plan_features_of_run(run.folder, run.recipe, run.classes, block=block, pooling=pooling)
    return plan, run


def list_examples(
    plan: Plan,
    paths: str | Path | Iterable[str | Path],
    progress: Handler,
    *,
    run: Run | None = None,
) -> tuple[list[Example], dict[str, str]]:
    """Lists and inspects images; those that were inspected before are not opened.

    Args:
        plan: Says how many channels they have.
        paths: Files and folders.
        progress: Receives the number of images inspected, and a warning of each that is skipped.
        run: The run that keeps converted images, where its recipe converts.

    Returns:
        The usable images, and why each other file is none, by its path.

    Raises:
        DataError: None is usable.
    """
    from tl_toolkit.images.manifest import Example
    from tl_toolkit.images.scan import inspect_images

    data = plan.recipe.data
    inputs = list_inputs(paths, None, progress, data.channels)
    if inputs.arrays:
        raise DataError(Problem("paths", "holds arrays", "Expected files and folders."))
    converts = run is not None and data.convert
    files = [str(file.absolute()) for file in inputs.files if file not in inputs.missing]
    inspections = inspect_images(
        files,
        convert_dir=run.folder.converted if run is not None and converts else None,
        progress=report_counts(progress, "images_inspected"),
        channels=data.channels,
    )
    skipped = {str(path): problem.what for path, problem in inputs.missing.items()}
    examples = []
    for inspection in inspections:
        example = Example(*inspection[:2], "train", (), *inspection[2:])
        if example.usable:
            examples.append(example)
        else:
            skipped[example.path] = example.reason
    for path, reason in skipped.items():
        progress(warning(f"skipped {path}: {reason}"))
    if not examples:
        raise DataError([Problem(path, reason) for path, reason in skipped.items()])
    return examples, skipped


def embed_examples(
    plan: Plan,
    examples: list[Example],
    progress: Handler,
    *,
    first_map: bool = False,
    with_outputs: bool = False,
) -> Embedded:
    """Returns vectors of images, and keeps their features.

    Args:
        plan: As the functions of `tl_toolkit.plan.embedding` return it.
        examples: Usable images.
        progress: Receives the images computed, and where features come from.
        first_map: As in `tl_toolkit.training.embedding.embed_images`: a block was named.
        with_outputs: Run the head too.
    """
    from tl_toolkit.training.embedding import embed_images

    return embed_images(
        plan, examples, progress, is_kept=True, first_map=first_map, with_outputs=with_outputs
    )
