"""Which engine predicts: Keras, or the LiteRT export without TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tl_toolkit.api.inputs import Inputs
from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import Problem, RecipeError, closest
from tl_toolkit.events import Event, Handler, message
from tl_toolkit.runs.states import name_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tl_toolkit.api.run import Run
    from tl_toolkit.tasks.predictions import Prediction

__all__ = ["ENGINES", "Engine", "predict_by_export", "check_engine", "list_keras_needs"]

Engine = Literal["auto", "keras", "litert"]
ENGINES = ("auto", "keras", "litert")


def check_engine(engine: str) -> None:
    """Refuses an engine that there is not.

    Args:
        engine: Its word.

    Raises:
        RecipeError: It is none of ENGINES.
    """
    if engine not in ENGINES:
        near = closest(engine, ENGINES)
        what = f"{engine!r} is no engine" + (f"; {near}" if near else "")
        raise RecipeError(Problem("engine", what, f"Expected {', '.join(ENGINES)}."))


def predict_by_export(
    run: Run,
    inputs: Inputs,
    engine: Engine,
    *,
    needs: Sequence[str],
    out: Path | None,
    report: Handler,
) -> list[Prediction] | None:
    """Returns the predictions of the run's LiteRT export, or None where Keras has to predict.

    Args:
        run: The run.
        inputs: The images.
        engine: auto leaves to Keras what the export cannot predict, and says why if there is one.
        needs: What the caller asks for that only Keras does.
        out: A folder that receives pictures of dense tasks; None for none.
        report: Receives what predicts, or why Keras does, and the count of images.

    Raises:
        RecipeError: `engine` is litert, and the export cannot predict this.
    """
    if engine == "keras" or (engine == "auto" and "model" in vars(run)):
        return None
    if engine == "auto" and not (run.folder.export / "model.tflite").is_file():
        return None
    from tl_toolkit.export.quick import MOST_FILES
    from tl_toolkit.export.quick_files import NotQuick

    if engine == "auto" and len(inputs.files) > MOST_FILES:
        return None
    try:
        if needs:
            raise NotQuick(
                f"the LiteRT export has no {' and no '.join(needs)}",
                hint="predict without --engine",
            )
        if run.recipe.task.is_dense:
            predictions, runtime = _predict_maps(run, inputs, engine, out, report)
        else:
            predictions, runtime = _predict(run, inputs)
    except NotQuick as reason:
        if engine == "litert":
            hint = reason.hint.replace("RUN", name_run(run.path))
            raise RecipeError(Problem("--engine litert", str(reason), hint=hint)) from reason
        if not reason.is_plain:
            report(message(f"predicted by Keras: {reason}"))
        return None
    report(message(f"predicted by {runtime}, without TensorFlow"))
    report(Event("images_inspected", done=len(predictions), total=len(predictions)))
    return predictions


def _predict(run: Run, inputs: Inputs) -> tuple[list[Prediction], str]:
    """Returns the predictions of an export with one output for each image, and its runtime."""
    from tl_toolkit.export.quick import open_quick

    size = run.recipe.data.image_size
    model = open_quick(run.folder, size, run.resize, threads=_count_threads())
    predictions = model.predict(
        inputs.files, run.output_reader, arrays=inputs.arrays, refused=_list_refused(inputs)
    )
    return list(predictions), model.runtime


def _predict_maps(
    run: Run, inputs: Inputs, engine: Engine, out: Path | None, report: Handler
) -> tuple[list[Prediction], str]:
    """Returns the maps of an export with an output for each pixel, and its runtime."""
    from tl_toolkit.export.quick import MOST_PIXELS, open_quick_maps
    from tl_toolkit.export.quick_files import read_all_quick, read_quick

    data, arrays, refused = run.recipe.data, inputs.arrays, _list_refused(inputs)
    form = run.recipe.task.open("maps").build(run.recipe, run.classes)
    call, runtime = open_quick_maps(run.folder, threads=_count_threads())
    most = MOST_PIXELS if engine == "auto" else None
    read_all_quick(inputs.files, arrays, refused, most=most)
    predictions = form.predict(
        call,
        inputs.files,
        lambda path: arrays[path] if path in arrays else read_quick(path),
        size=data.image_size,
        resize=run.resize,
        out=out,
        refused=refused,
        report=lambda text: report(message(text)),
    )
    return list(predictions), runtime


def _count_threads() -> int:
    return min(4, os.cpu_count() or 1)


def _list_refused(inputs: Inputs) -> dict[Path, str]:
    return {path: problem.what for path, problem in inputs.missing.items()}


def list_keras_needs(run: Run, *, native: bool, tta: bool) -> list[str]:
    """Returns what a call of `predict` asks for that takes Keras, in words.

    Args:
        run: The run.
        native: Whether images are predicted at their own size.
        tta: Whether outputs are averaged over views.
    """
    channels = run.recipe.data.channels
    words = {
        "--native": native,
        "--tta": tta,
        f"images of {channels} channels": channels != RGB,
    }
    return [word for word, is_asked in words.items() if is_asked]
