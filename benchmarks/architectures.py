"""Compares the cost of our own builders with keras.applications, by turns in one process.

    python benchmarks/architectures.py                              all networks with a twin
    python benchmarks/architectures.py --names vgg16 resnet50       some of them
    python benchmarks/architectures.py --repeats 31 --image-size 96

Each network has two copies of the twin and one of ours, with the same weights. Each repeat times
all three, in another order every time, and gives two ratios: ours / twin, and second twin / twin,
which shows the noise of the machine between equal sides. The table holds medians.

    build    from nothing to a built model with initial weights
    forward  a compiled call in inference mode
    step     a compiled training step: forward, gradient and plain SGD of all weights
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial

import keras
import numpy as np
import tensorflow as tf
from keras import applications

from tl_toolkit.architectures.densenet import build_densenet
from tl_toolkit.architectures.resnet import build_resnet
from tl_toolkit.architectures.vgg import build_vgg

PAIRS = {
    "vgg16": (applications.VGG16, partial(build_vgg, depth=16)),
    "vgg19": (applications.VGG19, partial(build_vgg, depth=19)),
    "resnet50": (applications.ResNet50, partial(build_resnet, depth=50)),
    "resnet101": (applications.ResNet101, partial(build_resnet, depth=101)),
    "resnet152": (applications.ResNet152, partial(build_resnet, depth=152)),
    "densenet121": (applications.DenseNet121, partial(build_densenet, depth=121)),
    "densenet169": (applications.DenseNet169, partial(build_densenet, depth=169)),
    "densenet201": (applications.DenseNet201, partial(build_densenet, depth=201)),
}
LIMIT = 1.05  # the median of ours / twin must not be larger
REPEATS = 15
# The scheduler disturbs shorter samples, so several quick calls are timed together.
SAMPLE_SECONDS = 0.1
# So small that the weights hardly change: numbers that overflow or vanish take other times.
LEARNING_RATE = 1e-6

Measured = tuple[float, float, float, float]


def time_in_turns(
    calls: Sequence[Callable[[], object]],
    repeats: int,
    *,
    each: int = 1,
    prepare: Callable[[], object] | None = None,
) -> Measured:
    """Times twin, second twin and ours in rotating order.

    Args:
        calls: One function per side.
        repeats: Samples of each side.
        each: Calls in one sample.
        prepare: Called before each sample, untimed.

    Returns:
        Medians: seconds of one call of the twin and of ours, ours / twin, second twin / twin.
    """
    seconds = np.zeros((repeats, len(calls)))
    for repeat in range(repeats):
        for turn in range(len(calls)):
            side = (repeat + turn) % len(calls)
            if prepare:
                prepare()
            seconds[repeat, side] = _time_sample(calls[side], each)
    twin, second, ours = seconds.T
    columns = (twin, ours, ours / twin, second / twin)
    return tuple(float(np.median(column)) for column in columns)


def _time_sample(call: Callable[[], object], each: int) -> float:
    gc.disable()
    try:
        started = time.perf_counter()
        for _ in range(each):
            measured = call()  # noqa: F841  (freeing a model is no part of building it)
        return (time.perf_counter() - started) / each
    finally:
        gc.enable()


def time_calls(calls: Sequence[Callable[[], object]], repeats: int) -> Measured:
    """Times compiled functions, after calls that trace them and find how many fill a sample."""
    for call in calls:
        call()
        call()
    once = min(_time_sample(calls[0], 1) for _ in range(3))
    return time_in_turns(calls, repeats, each=max(1, math.ceil(SAMPLE_SECONDS / once)))


def pair_builders(name: str, image_size: int) -> list[Callable[[], keras.Model]]:
    """Returns a function for each side that builds its model."""
    twin, builder = PAIRS[name]
    shape = (image_size, image_size, 3)
    build_twin = partial(twin, include_top=False, weights=None, input_shape=shape)

    def build_ours() -> keras.Model:
        inputs = keras.Input(shape)
        return keras.Model(inputs, builder(inputs))

    return [build_twin, build_twin, build_ours]


def equalize(models: Sequence[keras.Model], images: tf.Tensor) -> None:
    """Sets the weights of all models to those of the last one, by layer name.

    Raises:
        ValueError: The models compute different features nevertheless.
    """
    *others, source = models
    expected = source(images, training=False).numpy()
    for model in others:
        for layer in model.layers:
            if layer.weights:
                layer.set_weights(source.get_layer(layer.name).get_weights())
        measured = model(images, training=False).numpy()
        difference = np.abs(measured - expected).max() / np.abs(expected).max()
        if not difference < 1e-4:
            raise ValueError(f"{model.name} is no twin: features differ by {difference:.1e}")


def compile_forward(model: keras.Model, images: tf.Tensor) -> Callable[[], object]:
    """Returns a call of the model in inference mode, one graph."""
    forward = tf.function(partial(model, training=False))
    return lambda: forward(images).numpy()


def compile_step(model: keras.Model, images: tf.Tensor) -> Callable[[], object]:
    """Returns a training step of the model on the mean square of its features, one graph."""
    variables = [variable.value for variable in model.trainable_variables]

    @tf.function
    def step(images: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(images, training=True)))
        gradients = tape.gradient(loss, variables)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(LEARNING_RATE * gradient)
        return loss

    return lambda: step(images).numpy()


def measure(name: str, *, repeats: int, image_size: int, batch_size: int) -> dict[str, Measured]:
    """Measures build, forward and step of one network beside its twin."""
    builders = pair_builders(name, image_size)
    for build in builders[1:]:
        build()  # the first call loads code and kernels
    measured = {"build": time_in_turns(builders, repeats, prepare=keras.backend.clear_session)}
    models = [build() for build in builders]
    images = tf.random.stateless_normal((batch_size, image_size, image_size, 3), seed=(0, 0))
    equalize(models, images)
    for part, compiled in (("forward", compile_forward), ("step", compile_step)):
        measured[part] = time_calls([compiled(model, images) for model in models], repeats)
    return measured


def read_arguments() -> argparse.Namespace:
    """Reads the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--names", nargs="+", choices=PAIRS, default=list(PAIRS), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--image-size", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--batch-size", type=int, default=4)
    return parser.parse_args()


def main() -> None:
    """Prints the table, and whether our times are within the limit."""
    options = read_arguments()
    started = time.perf_counter()
    print(f"batch of {options.batch_size}, {options.image_size} pixels, medians of "
          f"{options.repeats} repeats, {os.cpu_count()} cores, TensorFlow {tf.__version__}, "
          f"Keras {keras.__version__}")  # fmt: skip
    print("network      part     twin ms   ours ms  ours / twin  twin / twin", flush=True)
    beyond = []
    for name in options.names:
        measured = measure(
            name,
            repeats=options.repeats,
            image_size=options.image_size,
            batch_size=options.batch_size,
        )
        for part, (twin, ours, ratio, noise) in measured.items():
            print(f"{name:<11}  {part:<7}  {twin * 1e3:>7.1f}   {ours * 1e3:>7.1f}  "
                  f"{ratio:>11.3f}  {noise:>11.3f}", flush=True)  # fmt: skip
            if ratio > LIMIT:
                beyond.append(f"{name} {part} {ratio:.3f}")
        keras.backend.clear_session()
    verdict = f"beyond it: {', '.join(beyond)}" if beyond else "all are"
    command = " ".join(["python", *sys.argv])
    seconds = time.perf_counter() - started
    print(f"{date.today()}  {command}  {seconds:.0f} s  ours / twin at most {LIMIT}: {verdict}")


if __name__ == "__main__":
    main()
