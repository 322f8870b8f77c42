"""The verbs, for the command line and for scripts: each is a whole job from recipe to product."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.check import check_recipe
from tl_toolkit.data.manifest import Manifest
from tl_toolkit.errors import NonFiniteError, Problem, RecipeError
from tl_toolkit.progress import Progress
from tl_toolkit.recipe.load import LoadedRecipe, build_recipe, dump_recipe, load_recipe
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs import RunFolder, create_run, find_run, staged, write_atomically, write_json
from tl_toolkit.runtime import describe_numerics, start_tensorflow

if TYPE_CHECKING:
    import keras

    from tl_toolkit.data.pipeline import Images
    from tl_toolkit.evaluation.predict import Prediction
    from tl_toolkit.training.loop import Training
    from tl_toolkit.transfer.assemble import TransferModel


PARITY_IMAGES = 16
"""Validation images that an export is compared on, spread over the classes."""


class Run:
    """A finished run: its folder, its model, and what can be done with it.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return load_recipe(self.folder.recipe).recipe

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        return tuple(self.folder.read_json(self.folder.classes))

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds: the kept epoch, metrics by split, the baseline, seconds."""
        return self.folder.read_json(self.folder.metrics)

    @cached_property
    def model(self) -> keras.Model:
        """The kept model: float32 RGB (batch, h, w, 3) in 0..255 to probabilities."""
        start_tensorflow()
        import keras

        if not self.folder.model.is_file():
            state = self.folder.read_json(self.folder.status).get("state")
            raise RecipeError(
                Problem(
                    where=str(self.folder.model),
                    what=f"is missing: the run is {state}",
                    expected="A run that got through its first evaluation holds a model.",
                    hint=f"tltool finetune {self.folder.recipe}",
                )
            )
        return keras.saving.load_model(self.folder.model, compile=False)

    def evaluate(self, data: str | Path | None = None) -> dict[str, Any]:
        """Measures the kept model.

        Args:
            data: A folder per class, of some or all of the run's classes. By default the run's own
                test images, or its validation images if it has no test images.

        Returns:
            The metrics of `tl_toolkit.evaluation.metrics.measure`, with the `split` or folder.

        Raises:
            DataError: Images are missing, broken, or of a class that the run does not know.
        """
        start_tensorflow()
        from tl_toolkit.data.pipeline import Images
        from tl_toolkit.data.scan import scan_files
        from tl_toolkit.data.sources import list_folder
        from tl_toolkit.evaluation.metrics import measure
        from tl_toolkit.evaluation.predict import predict_images

        if data is None:
            manifest = Manifest.load(self.folder.manifest, classes=self.classes)
            name = "test" if manifest.of("test") else "validation"
        else:
            files = list_folder(data, classes=self.classes).files
            manifest = Manifest(tuple(scan_files(files)), self.classes)
            name = "test"
        images = Images(
            manifest.of(name),
            self.classes,
            image_size=self.recipe.data.image_size,
            resize=self.recipe.data.resize,
        )
        found = measure(images.labels, predict_images(self.model, images), self.classes)
        return {"split": name if data is None else str(data), **found}

    def predict(
        self, paths: Sequence[str | Path], *, progress: Progress | None = None
    ) -> list[Prediction]:
        """Asks the kept model about image files, and about folders with all images inside.

        Args:
            paths: Files and folders.
            progress: Is told of the files answered.

        Returns:
            An answer for each file; a file that cannot be decoded carries its `error`.

        Raises:
            DataError: A path does not exist, or a folder holds no image.
        """
        from tl_toolkit.data.sources import list_images

        files = [file for path in paths for file in list_images(Path(path))]
        start_tensorflow()
        from tl_toolkit.evaluation.predict import predict_files

        teller = progress or Progress()
        return list(
            predict_files(
                self.model,
                files,
                classes=self.classes,
                resize=self.recipe.data.resize,
                done=lambda count: teller.scanned(count, len(files)),
            )
        )

    def export(self, formats: Sequence[str] = ("saved_model",)) -> dict[str, Path]:
        """Exports the kept model; a SavedModel is published only if it proves equal.

        Args:
            formats: `saved_model`, and `weights` for the base alone as a weight file.

        Returns:
            The path of each format.

        Raises:
            ParityError: The SavedModel does not answer as the Keras model does.
        """
        start_tensorflow()
        from tl_toolkit.data.pipeline import read_encoded
        from tl_toolkit.export.publish import publish

        manifest = Manifest.load(self.folder.manifest, classes=self.classes)
        examples = manifest.of("validation")
        chosen = examples[:: max(1, len(examples) // PARITY_IMAGES)][:PARITY_IMAGES]
        return publish(
            self.model,
            self.folder,
            self.recipe,
            classes=self.classes,
            files={example.path: read_encoded(example) for example in chosen},
            formats=formats,
        )


def load_run(run: str | Path, *, root: Path = Path("runs")) -> Run:
    """Opens a finished run.

    Args:
        run: Its folder, `<name>/<NNN>`, `<name>/latest` or `latest`.
        root: Folder of all runs.

    Raises:
        DataError: There is no such run.
    """
    return Run(find_run(run, root=root))


def finetune(
    recipe: str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
    root: str | Path = "runs",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Run:
    """Turns a recipe into a fine-tuned, evaluated and exported model.

    Args:
        recipe: Path of a recipe, or its contents.
        overrides: Fields to replace: `["phases.head.epochs=3"]` or `{"phases.head.epochs": 3}`.
        out: Folder of the run; by default the next number under `root`/<recipe name>.
        overwrite: Replace the run that `out` holds.
        root: Folder of all runs.
        threads: Size of TensorFlow's thread pools, if it has not started yet.
        progress: Is told what happens; nothing is printed by default.

    Raises:
        ToolkitError: A child of it for whatever can be mended: recipe, data, weights, output.
    """
    if isinstance(recipe, Mapping):
        loaded = build_recipe(recipe, overrides)
    else:
        loaded = load_recipe(recipe, overrides)
    check_recipe(loaded)
    folder = create_run(
        loaded.recipe.name, root=Path(root), out=Path(out) if out else None, overwrite=overwrite
    )
    folder.write_status("running", phase=None, epoch=None)
    progress = progress or Progress()
    try:
        progress.began(folder.path)
        start_tensorflow(threads=threads, deterministic=loaded.recipe.deterministic)
        run = _Finetuning(loaded, folder, progress).run()
    except KeyboardInterrupt:
        folder.write_status("interrupted")
        raise
    except BaseException as error:
        folder.write_status("failed", error=str(error) or type(error).__name__)
        raise
    folder.write_status("done")
    return run


class _Finetuning:
    """The steps of `finetune` after the folder is made, in order."""

    def __init__(self, loaded: LoadedRecipe, folder: RunFolder, progress: Progress) -> None:
        self.recipe = loaded.recipe
        self.folder = folder
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self._clock = time.perf_counter()

    def run(self) -> Run:
        write_atomically(self.folder.recipe, dump_recipe(self.recipe))
        manifest = self._scan()
        images = self._load(manifest)
        transfer = self._assemble(manifest)
        self._lap("prepare")
        training = self._train(transfer, images)
        self._lap("train")
        metrics = self._evaluate(transfer, images, manifest, training)
        self._lap("evaluate")
        if self.recipe.baseline:
            metrics["baseline"] = self._train_baseline(images, manifest.classes)
            self._lap("baseline")
        write_json(self.folder.metrics, metrics | {"seconds": self.seconds})
        run = Run(self.folder)
        run.model = transfer.model  # saves reading it back from model.keras
        exported = {}
        if self.recipe.export:
            self.progress.said("exporting, and comparing the export in a fresh process")
            exported = run.export(self.recipe.export.formats)
            self._lap("export")
            write_json(self.folder.metrics, metrics | {"seconds": self.seconds})
        self.progress.finished(metrics, exported)
        return run

    def _lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._clock, 3)
        self._clock = now

    def _scan(self) -> Manifest:
        from tl_toolkit.data.scan import scan

        manifest = scan(self.recipe.data, progress=self.progress.scanned)
        manifest.save(self.folder.manifest)
        write_json(self.folder.classes, list(manifest.classes))
        for example in manifest.examples:
            if example.verdict == "broken":
                self.progress.said(f"skipped {example.path}: {example.reason}")
        return manifest

    def _load(self, manifest: Manifest) -> dict[str, Images]:
        from tl_toolkit.data.pipeline import Images

        data = self.recipe.data
        return {
            split: Images(
                examples, manifest.classes, image_size=data.image_size, resize=data.resize
            )
            for split in ("train", "validation", "test")
            if (examples := manifest.of(split))
        }

    def _assemble(self, manifest: Manifest) -> TransferModel:
        from tl_toolkit.training.loop import plan_phases
        from tl_toolkit.transfer.assemble import assemble
        from tl_toolkit.transfer.weights import hash_file

        recipe = self.recipe
        transfer = assemble(
            recipe.model,
            image_size=recipe.data.image_size,
            num_classes=len(manifest.classes),
            seed=recipe.seed,
        )
        path = transfer.weights_path
        write_json(
            self.folder.lock,
            {
                "seed": recipe.seed,
                "split_seed": recipe.data.split_seed,
                "data_sha256": manifest.digest,
                "weights": str(path) if path else recipe.model.weights,
                "weights_sha256": hash_file(path) if path else None,
                "numerics": describe_numerics(),
            },
        )
        self.progress.planned(plan_phases(transfer, recipe.phases))
        return transfer

    def _train(self, transfer: TransferModel, images: Mapping[str, Images]) -> Training:
        from tl_toolkit.training.loop import train_phases

        try:
            training = train_phases(
                transfer, self.recipe, images, self.folder, progress=self.progress
            )
        except (NonFiniteError, KeyboardInterrupt):
            self._save(transfer)  # the best weights from before, restored by train_phases
            raise
        self._save(transfer)
        return training

    def _save(self, transfer: TransferModel) -> None:
        with staged(self.folder.model) as stage:
            transfer.model.save(stage)

    def _evaluate(
        self,
        transfer: TransferModel,
        images: Mapping[str, Images],
        manifest: Manifest,
        training: Training,
    ) -> dict[str, Any]:
        from tl_toolkit.evaluation.metrics import measure
        from tl_toolkit.evaluation.predict import predict_images, write_predictions

        metrics: dict[str, Any] = {"best": training.best.as_row()}
        rows = []
        for split in ("validation", "test"):
            if split not in images:
                continue
            found = predict_images(transfer.model, images[split])
            metrics[split] = measure(images[split].labels, found, manifest.classes)
            rows += [
                (example.path, split, str(example.label), row)
                for example, row in zip(manifest.of(split), found, strict=True)
            ]
        write_predictions(self.folder.predictions, rows, manifest.classes)
        return metrics

    def _train_baseline(
        self, images: Mapping[str, Images], classes: tuple[str, ...]
    ) -> dict[str, Any]:
        from tl_toolkit.evaluation.baselines import train_baseline

        self.progress.said("training the baseline beside it")
        return train_baseline(self.recipe, images, classes, self.folder, progress=self.progress)
