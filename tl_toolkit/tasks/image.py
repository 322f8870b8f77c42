"""The base class of tasks with one vector of outputs per image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import PREFIX_BATCH, Batch, FixedBatch, as_list
from tl_toolkit.architectures.heads import HeadLayers, build_head, find_head_maps
from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.errors import DataError
from tl_toolkit.images.bands import dtype_of, find_decoder
from tl_toolkit.images.decoder import resize_image
from tl_toolkit.images.pipeline import resize_pixels
from tl_toolkit.images.tta import View, build_views, find_sizes
from tl_toolkit.tasks.base import YARDSTICKS, Task
from tl_toolkit.tasks.neighbors import fit_neighbors
from tl_toolkit.tasks.parity import (
    Limits,
    add_probes,
    compare_further,
    make_report,
    read_otherwise,
)
from tl_toolkit.tasks.standardized import Standardized
from tl_toolkit.tasks.types import (
    Ask,
    Endpoints,
    ExampleSource,
    Features,
    Prediction,
    PredictionOptions,
    Resize,
    Transform,
)

__all__ = ["ImageTask", "average_views"]


class ImageTask(Task):
    """A task with one vector of outputs per image; its targets are an array (n, ...).

    Args:
        classes: Names of the outputs, in their order.
        head: Layers between the features and the outputs.

    Attributes:
        derived: Outputs of `serve` that follow from `served`, and are not compared themselves.
    """

    served = "probabilities"
    derived: frozenset[str] = frozenset()
    has_yardsticks = True

    def __init__(self, classes: Sequence[str], head: HeadLayers) -> None:
        super().__init__(classes)
        self._head = head
        self._compiled: FixedBatch | None = None

    # ------------------------------------------------------------------- what each task defines

    def read_outputs(self, outputs: np.ndarray) -> np.ndarray:
        """Returns outputs as an export gives them: calibrated, where the task does that.

        Args:
            outputs: Of the model, float (n, units).
        """
        return outputs

    def find_served_features(self, model: keras.Model) -> keras.KerasTensor | None:
        """Returns a vector of the model that `serve_features` takes; None for most tasks.

        Args:
            model: The whole model.
        """
        return None

    def serve_features(
        self, served: dict[str, tf.Tensor], features: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Returns what an exported model returns, with what follows from its features.

        Args:
            served: From `serve`.
            features: float32 (batch, features), from `find_served_features`.
        """
        return served

    def serve(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what an exported model returns, by name.

        Args:
            outputs: float32 (batch, units).
        """
        raise NotImplementedError

    def are_equal(self, outputs: Mapping[str, np.ndarray], expected: np.ndarray) -> bool:
        """Returns whether an exported model predicts the same class, where the class is clear.

        Args:
            outputs: Its outputs for an image.
            expected: The expected value of `served`.
        """
        return True

    def spread(self, targets: Any) -> np.ndarray:
        """Returns targets as numbers whose mean over images predicts them, float64 (n, m).

        Args:
            targets: Targets from `load_targets`.
        """
        raise NotImplementedError

    def judge(self, predictions: np.ndarray, values: np.ndarray) -> float:
        """Returns the error of a mean over images: the squared one, unless a task has another.

        Args:
            predictions: float64 (n, m).
            values: From `spread`, of the same images.
        """
        return float(np.mean((predictions - values) ** 2))

    def as_outputs(self, means: np.ndarray) -> np.ndarray:
        """Returns means of what `spread` returns as outputs of the model, (n, units).

        Args:
            means: float64 (n, m).
        """
        return means

    def activate(self, scores: np.ndarray) -> np.ndarray:
        """Returns the outputs (n, units) of a solved head.

        Args:
            scores: What its last layer computes before the activation, (n, units).
        """
        raise NotImplementedError

    # --------------------------------------------------------------------------- what they share

    def fit_yardsticks(
        self, features: np.ndarray, targets: Any, *, names: Sequence[str] = YARDSTICKS
    ) -> Mapping[str, Callable[[np.ndarray], np.ndarray]]:
        """Fits nearest neighbours by cosine, and a linear probe by ridge regression.

        Args:
            features: (n, features).
            targets: An array (n, ...).
            names: Those that are fitted.
        """
        fitted: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
        if "neighbors" in names:
            neighbors = fit_neighbors(features, self.spread(targets), self.judge)
            fitted["neighbors"] = lambda x: self.as_outputs(neighbors.predict(x))
        if "probe" in names:
            probe = self.solve(Standardized(features), targets, "ridge")
            fitted["probe"] = lambda x: self.activate(x @ probe.kernel + probe.bias)
        return fitted

    def join_targets(
        self, features: Features, targets: Any, *, seed: int, transform: Transform | None = None
    ) -> ExampleSource:
        """Returns the features of a split with their targets, which no transform changes.

        Args:
            features: The tensors that cross the cut.
            targets: An array (n, ...).
            seed: Not used.
            transform: Not used.
        """
        return _WithTargets(features, targets)

    def find_maps(
        self,
        architecture: Architecture,
        image: keras.KerasTensor,
        features: keras.KerasTensor,
    ) -> tuple[keras.KerasTensor, ...]:
        """Returns the base's output, or the taps of the head.

        Args:
            architecture: The record of the base.
            image: The input of the base.
            features: Its output.

        Raises:
            RecipeError: A tap is no map of the base.
        """
        return find_head_maps(architecture, self._head.taps, image, features)

    def build_outputs(
        self, maps: Sequence[keras.KerasTensor], image: keras.KerasTensor
    ) -> tuple[list[keras.KerasTensor], keras.KerasTensor]:
        """Builds pooling, hidden layers and the output.

        Args:
            maps: What the head reads: the base's output, or its taps.
            image: Not used.

        Returns:
            No further inputs, and float32 outputs (batch, units).
        """
        outputs = build_head(maps, self._head, units=self.units, activation=self.activation)
        return [], outputs

    def describe(self, path: Path, output: np.ndarray | None, error: str | None) -> Prediction:
        """Returns the prediction for a file.

        Args:
            path: The file.
            output: Of the model, float32 (units,); None for a file that was refused.
            error: Why the file was refused; None otherwise.
        """
        row = None if output is None else self.read_outputs(output[np.newaxis])[0]
        return self.output_reader.describe(path, row, error)

    def predict(
        self, model: keras.Model, paths: Sequence[Path], options: PredictionOptions
    ) -> Iterator[Prediction]:
        """Yields a prediction for each file, in order, with an error if it cannot be decoded.

        Args:
            model: float32 (batch, h, w, channels), RGB in 0..255 or bands, to outputs.
            paths: Image files.
            options: How they are read, and the views that outputs are averaged over; `out` and
                `native` are not used.
        """
        run = self._compile(model)
        views = options.views or (View("whole"),)

        def read(path: Path) -> np.ndarray | str:
            try:
                pixels = options.read(path)
            except DataError as error:
                return error.problems[0].what
            resized = {
                size: resize_pixels(pixels, size, options.resize)[np.newaxis]
                for size in find_sizes(options.image_size, views)
            }
            seen: np.ndarray = build_views(resized, options.image_size, views)[0]
            return seen

        count = 0
        for chunk, contents in _read_ahead(paths, read):
            pixels = [content for content in contents if not isinstance(content, str)]
            outputs = iter(average_views(run, np.stack(pixels)) if pixels else ())
            for path, content in zip(chunk, contents, strict=True):
                if isinstance(content, str):
                    yield self.describe(path, None, content)
                else:
                    yield self.describe(path, next(outputs), None)
            count += len(chunk)
            options.done(count)

    def _compile(self, model: keras.Model) -> FixedBatch:
        """Returns the compiled model, which is kept for the next call: that takes half a second."""
        if self._compiled is None or self._compiled.model is not model:
            self._compiled = FixedBatch(model)
        return self._compiled

    def build_endpoints(
        self, model: keras.Model, resize: Resize, *, webp: bool = True
    ) -> Endpoints:
        """Returns the functions of an exported model: `serve` of the model's outputs.

        Args:
            model: float32 (batch, h, w, channels), RGB in 0..255 or bands, to outputs.
            resize: How images are resized to the model's size.
            webp: Whether encoded images may be WebP, which takes TensorFlow 2.20.
        """
        size, channels = tuple(model.input.shape[1:3]), model.input.shape[-1]
        decode = find_decoder(channels, webp=webp)
        spec = tf.TensorSpec((*size, channels), tf.as_dtype(dtype_of(channels)))

        both = self._with_features(model)

        # Compiled by itself, so that both signatures call one function, which is traced and saved
        # once.
        @tf.function(
            input_signature=[tf.TensorSpec((None, *spec.shape), spec.dtype)], autograph=False
        )
        def predict(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._serve_all(*as_list(both(tf.cast(pixels, tf.float32), training=False)))

        def serve_images(image: tf.Tensor) -> dict[str, tf.Tensor]:
            served: dict[str, tf.Tensor] = predict(resize_image(image, size, resize))
            return served

        def serve_bytes(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
            pixels = tf.map_fn(
                lambda data: resize_image(decode(data), size, resize),
                encoded,
                fn_output_signature=spec,
            )
            served: dict[str, tf.Tensor] = predict(pixels)
            return served

        return Endpoints(serve_images, serve_bytes)

    def measure_graph(self, outputs: np.ndarray, targets: Any) -> dict[str, Any]:
        """Measures the outputs of a graph.

        Args:
            outputs: Outputs of `build_graph`, (n, units); of several, `served`.
            targets: An array (n, ...).
        """
        return self.measure(outputs, targets)[0]

    def _with_features(self, model: keras.Model) -> keras.Model:
        """Returns a model of its outputs, and of the features that are served, if there are any."""
        features = self.find_served_features(model)
        further = [] if features is None else [features]
        return keras.Model(model.input, [model.output, *further])

    def _serve_all(self, outputs: tf.Tensor, *features: tf.Tensor) -> dict[str, tf.Tensor]:
        served = self.serve(outputs)
        return self.serve_features(served, features[0]) if features else served

    def compare_served(
        self,
        model: keras.Model,
        files: Mapping[str, bytes],
        resize: Resize,
        ask: Ask,
        limits: Limits,
    ) -> dict[str, Any]:
        """Compares an exported model, in a process of its own, with the Keras model in this one.

        The Keras model gets pixels that Pillow decoded and turned, as a second opinion on the
        decoder inside the exported model. Probes (turned by EXIF, grey, CMYK) are added.

        Args:
            model: The Keras model.
            files: Encoded images by name; may be empty, as probes are added.
            resize: How images are resized to the model's size.
            ask: Runs the exported model.
            limits: The largest differences allowed.

        Returns:
            Largest differences, limits, a row for each image, and whether it holds.
        """
        size, channels = tuple(model.input.shape[1:3]), model.input.shape[-1]
        files = add_probes(files, channels)
        read = [read_otherwise(data, channels) for data in files.values()]
        pixels = np.stack([resize_image(image, size, resize).numpy() for image in read])
        wait = ask([pixels], list(files.values()))
        run = FixedBatch(self._with_features(model))
        values = {
            name: value.numpy() for name, value in self._serve_all(*as_list(run(pixels))).items()
        }
        expected = values[self.served]
        served = wait()
        encoded = np.stack([outputs[self.served] for outputs in served.encoded])
        pixels_served = served.pixels[0][self.served]
        from_pixels = self.measure_differences(pixels_served, expected).max(axis=1)
        from_bytes = self.measure_differences(encoded, expected).max(axis=1)
        clear = self.find_clear(values, limits.pixels)
        further = {
            name: array for name, array in values.items()
            if name in clear
            or (array.dtype.kind == "f" and name not in {self.served, *self.derived})
        }  # fmt: skip
        return make_report(
            list(zip(files, from_pixels, from_bytes, strict=True)),
            labels_equal=all(map(self.are_equal, served.encoded, expected)),
            class_names_equal=served.class_names == self.classes,
            limits=limits,
            further=compare_further(served.pixels[0], further, clear, limits.pixels),
        )


def average_views(run: FixedBatch, images: np.ndarray) -> np.ndarray:
    """Returns a model's outputs, averaged over the views of each image.

    Args:
        run: The model.
        images: (n, views, h, w, channels).

    Returns:
        float32 (n, units).
    """
    outputs = [np.asarray(run(images[:, place])) for place in range(images.shape[1])]
    return outputs[0] if len(outputs) == 1 else np.mean(outputs, axis=0)


def _read_ahead(
    paths: Sequence[Path], read: Callable[[Path], np.ndarray | str]
) -> Iterator[tuple[Sequence[Path], list[np.ndarray | str]]]:
    """Yields what files hold, a batch at a time; two threads read the next one meanwhile."""
    chunks = [paths[start : start + PREFIX_BATCH] for start in range(0, len(paths), PREFIX_BATCH)]
    with ThreadPoolExecutor(max_workers=2) as pool:

        def begin(chunk: Sequence[Path]) -> list[Future[np.ndarray | str]]:
            return [pool.submit(read, path) for path in chunk]

        waiting = begin(chunks[0]) if chunks else []
        for chunk, following in zip_longest(chunks, chunks[1:], fillvalue=()):
            contents = [future.result() for future in waiting]
            waiting = begin(following)
            yield chunk, contents


class _WithTargets:
    """Features with the targets of their images."""

    def __init__(self, features: Features, targets: np.ndarray) -> None:
        self._features = features
        self._targets = targets

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        for batch, indices in self._features.chunks(order, batch_size, epoch=epoch):
            yield batch, self._targets[indices]
