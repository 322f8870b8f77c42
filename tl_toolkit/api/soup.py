"""The run that a search makes of the mean of its best trials' weights."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tl_toolkit.printing.words import describe_soup
from tl_toolkit.recipe.load import dump_recipe
from tl_toolkit.runs.files import write_atomically, write_json
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.results import finish

if TYPE_CHECKING:
    from tl_toolkit.images.manifest import Manifest
    from tl_toolkit.images.pipeline import Images
    from tl_toolkit.tuning.engine import Engine
    from tl_toolkit.tuning.journal import Trial


def make_soup(
    engine: Engine,
    trials: Sequence[Trial],
    folder: RunFolder,
    *,
    manifest: Manifest,
    images: Mapping[str, Images],
) -> dict[str, Any] | None:
    """Averages the weights of the best trials, and writes the mean as a run of its own.

    Its recipe is that of the best trial, and its model, metrics and predictions are those of the
    mean. A soup that an earlier call made is replaced.

    Args:
        engine: Has trained the trials.
        trials: All trials.
        folder: The search.
        manifest: Its images.
        images: Its images by split.

    Returns:
        Folder, members, score, and the candidates; None where the search keeps no weights.
    """
    from tl_toolkit.evaluation.splits import evaluate_trained, write_predictions
    from tl_toolkit.training.lock import describe_lock
    from tl_toolkit.training.prepare import save_model, write_manifest

    place = RunFolder(folder.soup)
    began = time.perf_counter()
    if place.path.is_dir():
        place.remove_artifacts()
    averaged = engine.average(trials, place)
    if averaged is None:
        return None
    place.write_status("running", kind="run")
    transfer, plan = averaged.trainer.transfer, averaged.plan
    facts = averaged.as_summary()
    model = describe_soup(facts)
    remark = f"soup: the recipe of trial {averaged.members[0]}; model.keras is {model}"
    write_atomically(place.recipe, dump_recipe(plan.recipe, [remark]))
    write_manifest(manifest, place)
    write_json(place.lock, describe_lock(plan, transfer, manifest))
    measured = evaluate_trained(averaged.trainer, transfer.task, images)
    write_predictions(place.predictions, measured.predictions)
    save_model(transfer, place)
    metrics = {
        "best": averaged.soup.best.as_row(),
        "weights_sha256": averaged.soup.weights_sha256,
        **measured.metrics,
        "leaks": manifest.describe_leaks(),
        "soup": facts,
        "seconds": {"soup": round(time.perf_counter() - began, 3)},
    }
    write_json(place.metrics, metrics)
    finish(place)
    return {"run": str(place.path), **facts}
