"""The base class of tasks with one output per pixel: hypercolumns, sampled pixels, whole maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from tl_toolkit.architectures.heads import HeadLayers
from tl_toolkit.architectures.sampling import AllPixels
from tl_toolkit.architectures.taps import pad_to_cells
from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.dense.heads import build_pixel_head, find_named_maps
from tl_toolkit.tasks.dense.inspection import inspect_targets
from tl_toolkit.tasks.dense.outputs import MapReader
from tl_toolkit.tasks.dense.sampling import SampledPixels
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.dense.targets import TargetReader, Targets
from tl_toolkit.tasks.parity import Limits
from tl_toolkit.tasks.resampling import Sample, compare_samples
from tl_toolkit.tasks.types import (
    Ask,
    Endpoints,
    Evaluation,
    ExampleSource,
    Features,
    Lines,
    Prediction,
    PredictionOptions,
    Resize,
    SplitView,
    Table,
    Transform,
)

__all__ = ["PREFIX_BATCH", "DenseTask", "MapMetric"]

PREFIX_BATCH = 4
"""Images per call of a prefix whose outputs are whole maps: some 10 MB for each image."""

_CHECKED_PIXELS = 64


class MapMetric(Protocol):
    """Compares predicted maps with targets, image by image."""

    def add(self, prediction: Mapping[str, np.ndarray], target: np.ndarray) -> dict[str, float]:
        """Adds an image, and returns its own scores.

        Args:
            prediction: Maps from `postprocess`, (h, w, ...).
            target: Target of the same pixels, as its reader returns it.
        """

    def result(self) -> dict[str, Any]:
        """Returns the metrics over all images."""

    def sample(self) -> Sample:
        """Returns the images as the metrics are computed from them."""


class DenseTask(Task):
    """A task with one output per pixel: the model takes [images, pixels].

    Args:
        classes: Class names in the order of the outputs; none where pixels are of no class.
        pixels: How pixels are read, sampled and compared.
        reader: The reader of the files of targets.
        head: Hidden layers and dropout of the predictor.
        palette: Colours of the classes, for pictures; None for a palette of our own.

    Attributes:
        picture: Name of a prediction that is rendered as an image, in names of files.
        yardstick: Name in the metrics of what `predict_plainly` predicts; "" for none.
    """

    picture: ClassVar[str]
    yardstick: str = ""
    prefix_batch_size = PREFIX_BATCH
    probes_pixels = True

    def __init__(
        self,
        classes: Sequence[str],
        pixels: PixelSettings,
        reader: TargetReader,
        head: HeadLayers = HeadLayers(),  # noqa: B008  (frozen)
        palette: np.ndarray | None = None,
    ) -> None:
        super().__init__(classes)
        self.pixels = pixels
        self.reader = reader
        self.palette = palette
        self._head = head

    # ------------------------------------------------------------------- what each task defines

    def postprocess(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the maps, by name, that are computed from outputs.

        Args:
            outputs: float32 (..., units).
        """
        raise NotImplementedError

    def build_metric(self) -> MapMetric:
        """Builds the metric that compares whole maps with whole maps of targets."""
        raise NotImplementedError

    def predict_plainly(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Returns maps as of `postprocess`, from an image alone, for tasks with a yardstick.

        Args:
            image: uint8 (h, w, 3), RGB, at the size of its file.

        Raises:
            TypeError: The task has none.
        """
        raise TypeError(f"{type(self).__name__}: predicts nothing without a model")

    def as_numbers(self, targets: np.ndarray) -> np.ndarray:
        """Returns what a linear probe learns of pixels, (pixels, units).

        Args:
            targets: (pixels, ...), all of which count.
        """
        raise NotImplementedError

    def render(self, prediction: Mapping[str, np.ndarray], palette: np.ndarray) -> Image.Image:
        """Returns a prediction for one image as an image to save.

        Args:
            prediction: Maps from `postprocess`, (h, w, ...).
            palette: uint8 (classes, 3), a colour for each class.
        """
        raise NotImplementedError

    def list_colors(self, palette: np.ndarray) -> Mapping[str, Sequence[int]]:
        """Returns the colours that `render` gives to what a legend names.

        Args:
            palette: As in `render`.
        """
        return dict(zip(self.classes, palette.tolist(), strict=True))

    # --------------------------------------------------------------------------- what they share

    def inspect_targets(
        self,
        manifest: Manifest,
        *,
        size: tuple[int, int] | None = None,
        resize: Resize = "stretch",
        progress: Callable[[int, int], None] | None = None,
    ) -> Manifest:
        """Opens the target of every image once.

        Args:
            manifest: Images with the target `mask`, a path.
            size: (height, width) that images are resized to; None for their own.
            resize: How they are resized to that size.
            progress: As in `Task.inspect_targets`.

        Raises:
            DataError: Targets cannot be read, have another size than their images, or hold
                something else; all of them at once. Or all pixels to train from are of one class.
        """
        groups = min(2, self.reader.num_sampling_groups)
        return inspect_targets(
            manifest, self.reader, num_groups=groups, image_size=size, resize=resize,
            progress=progress,
        )  # fmt: skip

    def load_targets(
        self, examples: Sequence[Example], size: tuple[int, int], resize: Resize
    ) -> Targets:
        """Returns the maps of targets of a split, read when they are first asked for.

        Args:
            examples: Images with the target `mask`.
            size: (height, width) of the images.
            resize: How they are resized to that size.
        """
        return Targets(examples, self.reader, image_size=size, resize=resize)

    def join_targets(
        self, features: Features, targets: Targets, *, seed: int, transform: Transform | None = None
    ) -> ExampleSource:
        """Returns the features with the pixels that are sampled of each image, and their targets.

        Args:
            features: The tensors that cross the cut.
            targets: Targets of the same images.
            seed: With the epoch and the image's place, it decides which pixels are sampled.
            transform: The geometric transforms of the images, which are applied to their targets.
        """
        return SampledPixels(features, targets, self.pixels, seed=seed, augment=transform)

    def read_pixels(
        self,
        model: keras.Model,
        tensors: Sequence[keras.KerasTensor],
        features: Features,
        targets: Targets,
        *,
        order: np.ndarray,
        count: int,
        report: Callable[[int], None],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the hypercolumns of pixels that are sampled uniformly, and their targets.

        Args:
            model: As in `Task.read_pixels`.
            tensors: As in `Task.read_pixels`.
            features: As in `Task.read_pixels`.
            targets: As in `Task.read_pixels`.
            order: As in `Task.read_pixels`.
            count: As in `Task.read_pixels`.
            report: As in `Task.read_pixels`.
        """
        from tl_toolkit.tasks.dense.probing import find_hypercolumn, read_hypercolumns

        columns = keras.Model([*tensors, *model.inputs[1:]], find_hypercolumn(model))
        settings = replace(self.pixels, per_image=count)
        sampled = SampledPixels(features, targets, settings, seed=0)
        return read_hypercolumns(columns, sampled, order, self.prefix_batch_size, report)

    def fit_yardsticks(
        self, features: np.ndarray, targets: np.ndarray, *, names: Sequence[str] = ("probe",)
    ) -> Mapping[str, Callable[[np.ndarray], np.ndarray]]:
        """Fits a linear probe to hypercolumns, by ridge regression of what `as_numbers` returns.

        Args:
            features: (n, pixels, channels).
            targets: (n, pixels, ...); pixels without a target count nowhere.
            names: Those that are fitted; nothing but the probe is.
        """
        if "probe" not in names:
            return {}
        from tl_toolkit.tasks.dense.probing import fit_probe

        counted = self.reader.sampling_groups(targets) != IGNORE
        images = np.nonzero(counted)[0]
        probe = fit_probe(features[counted], self.as_numbers(targets[counted]), images)
        return {"probe": probe}

    def measure(
        self, outputs: np.ndarray, targets: np.ndarray, *, losses: np.ndarray | None = None
    ) -> tuple[dict[str, Any], Sample]:
        """Returns the score of single pixels, and the images as it is computed from them.

        Args:
            outputs: (n, pixels, units).
            targets: (n, pixels, ...).
            losses: Not used.
        """
        compared = self.compare(tf.constant(outputs), tf.constant(targets))
        states = np.asarray(compared[1], np.float64)

        def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
            return {self.score: np.array([self.score_of(state) for state in counts @ states])}

        return {self.score: self.score_of(states.sum(axis=0))}, Sample(len(states), measure)

    def prepare_input(self, image: keras.KerasTensor) -> keras.KerasTensor:
        """Pads images to whole cells of every map.

        Args:
            image: float32 (batch, h, w, 3).
        """
        return pad_to_cells(image)

    def find_maps(
        self,
        architecture: Architecture,
        image: keras.KerasTensor,
        features: keras.KerasTensor,
    ) -> tuple[keras.KerasTensor, ...]:
        """Returns the maps that pixels are read from: `pixels.taps`, or the base's own.

        Args:
            architecture: The record of the base.
            image: The input of the base.
            features: Its output.

        Raises:
            RecipeError: A tap is no map of the base, or the base has none.
        """
        return find_named_maps(architecture, self.pixels.taps, image, features)

    def build_outputs(
        self, maps: Sequence[keras.KerasTensor], image: keras.KerasTensor
    ) -> tuple[list[keras.KerasTensor], keras.KerasTensor]:
        """Builds the hypercolumn and the predictor on it.

        Args:
            maps: Maps from `find_maps`.
            image: The input of the base.

        Returns:
            The input `pixels`, float32 (batch, n, 2), y and x of the sampled pixels, and float32
            outputs (batch, n, units).
        """
        places = keras.Input((None, 2), dtype="float32", name="pixels")
        outputs = build_pixel_head(
            maps, image, places, self._head, units=self.units, activation=self.activation,
            normalize=self.pixels.normalize,
        )  # fmt: skip
        return [places], outputs

    def sample_inputs(
        self, random: np.random.Generator, count: int, size: tuple[int, int]
    ) -> list[np.ndarray]:
        """Samples places for the input `pixels`.

        Args:
            random: The generator of the samples.
            count: Images.
            size: (height, width) of the images.
        """
        places = random.uniform(0, 1, (count, _CHECKED_PIXELS, 2)) * size
        return [places.astype(np.float32)]

    def evaluate(self, view: SplitView, targets: Targets) -> Evaluation:
        """Compares predicted maps with the targets, each at the size of its own file.

        Args:
            view: The split as the model sees it.
            targets: Targets of the same images.
        """
        from tl_toolkit.tasks.dense.evaluation import measure_maps

        metric, plain, scores = measure_maps(view, targets, self)
        names = max(map(list, scores), key=len)  # an image that cannot be measured has no score
        table = Table(names, [list(map(row.get, names)) for row in scores])
        metrics = metric.result()
        if not metrics["images"]:
            return Evaluation(metrics, table)
        sample = metric.sample()
        if plain is not None:
            figures = plain.result()
            metrics[self.yardstick] = {key: figures[key] for key in figures if key != "images"}
            found = compare_samples(sample, plain.sample(), self.final_score or self.score)
            metrics["against"] = {self.yardstick: found}
        return Evaluation(metrics, table, sample)

    def predict(
        self, model: keras.Model, paths: Sequence[Path], options: PredictionOptions
    ) -> Iterator[Prediction]:
        """Yields the maps of each file, in order, at the file's own size.

        Args:
            model: [images, pixels] to outputs.
            paths: Image files.
            options: How they are read, and where pictures are written.

        Raises:
            OutputError: The folder cannot be written, or a file in it would be replaced that no
                earlier call wrote.
        """
        from tl_toolkit.tasks.dense.evaluation import predict_maps

        yield from predict_maps(model, paths, self, options)

    @property
    def output_reader(self) -> MapReader:
        """How predictions are shown."""
        return MapReader(self.classes)

    def build_endpoints(
        self, model: keras.Model, resize: Resize, *, webp: bool = True
    ) -> Endpoints:
        """Returns the functions of an exported model, which compute maps of the images' size.

        Args:
            model: [images, pixels] to outputs.
            resize: How images are resized to the model's size.
            webp: Whether encoded images may be WebP, which takes TensorFlow 2.20.
        """
        from tl_toolkit.tasks.dense.serving import build_endpoints

        return build_endpoints(model, self, resize, webp=webp)

    def build_graph(self, model: keras.Model) -> keras.Model:
        """Returns images to the outputs of all their pixels, float32 (n, h, w, units).

        The whole hypercolumn of an image is in memory at once, where a SavedModel works in tiles.

        Args:
            model: [images, pixels] to outputs.
        """
        model = self.scale_outputs(model)
        height, width, channels = model.inputs[0].shape[1:]
        image = keras.Input((height, width, channels), name="image")
        outputs = model([image, AllPixels(name="all_pixels")(image)])
        shaped = keras.layers.Reshape((height, width, outputs.shape[-1]), name="as_image")(outputs)
        return keras.Model(image, shaped, name=f"{model.name}_of_images")

    def scale_outputs(self, model: keras.Model) -> keras.Model:
        """Returns the model with outputs that are scaled as the task has learned.

        Args:
            model: [images, pixels] to outputs.
        """
        return model

    def build_lines(self, model: keras.Model) -> Lines:
        """Returns the outputs of a model where rows and columns of an image cross.

        Args:
            model: [images, pixels] to outputs.
        """
        from tl_toolkit.tasks.dense.predictor import DensePredictor

        scaled = self.scale_outputs(model)
        return Lines(scaled, DensePredictor(scaled).build_lines)

    def measure_graph(self, outputs: np.ndarray, targets: Targets) -> dict[str, Any]:
        """Measures the outputs of whole images by the task's own metric.

        Args:
            outputs: Outputs of `build_graph`, (n, h, w, units).
            targets: Targets of the same images.
        """
        from tl_toolkit.tasks.dense.evaluation import measure_outputs

        return measure_outputs(outputs, targets, self)

    def compare_served(
        self,
        model: keras.Model,
        files: Mapping[str, bytes],
        resize: Resize,
        ask: Ask,
        limits: Limits,
    ) -> dict[str, Any]:
        """Compares an exported model, in a process of its own, with the Keras model in this one.

        Args:
            model: The Keras model.
            files: Encoded images by name; may be empty, as probes are added.
            resize: How images are resized to the model's size.
            ask: Runs the exported model.
            limits: The largest differences allowed.
        """
        from tl_toolkit.tasks.dense.parity import compare_maps

        return compare_maps(model, files, self, resize, ask=ask, limits=limits)
