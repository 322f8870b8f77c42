"""Runs a model of any format in a process of its own, which imports its runtime alone.

    python -I graph_process.py RUNTIME MODEL INPUTS.npz OUTPUTS.npz [SETTINGS]

RUNTIME is a name of OPENERS, as litert. INPUTS holds `images`, float32 (n, h, w, channels), in the
numbers and of the size that the model takes. OUTPUTS holds its outputs (n, ...) as `outputs/NAME`,
`milliseconds` of calls with one image, and the `runtime` with its version; a single output is
`outputs/outputs`, whatever a runtime calls it. SETTINGS is a JSON object: `path` is the search path
for modules, `threads` how many a call uses, `calls` how many are timed, `batch` the images of a
timed call, `toolkit` whether the package may be imported (a .keras file may hold layers of it).
Model and inputs are read after a line of standard input, or its end.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[[Any], dict[str, Any]]
WARM_UP = 3
SINGLE = "outputs"


def name_outputs(names: list[str], values: Any) -> dict[str, Any]:
    """Returns outputs by name; the name of a single one says nothing.

    Args:
        names: As the runtime has them.
        values: In the same order.
    """
    return dict(zip(names if len(names) > 1 else [SINGLE], values, strict=True))


def import_litert() -> tuple[Any, str]:
    """Returns the LiteRT runtime's class of interpreters, and its name with the version.

    Raises:
        ImportError: It is not installed, or cannot be loaded.
    """
    import ai_edge_litert as litert
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter, f"LiteRT {getattr(litert, '__version__', '')}".strip()


def open_litert(path: str, threads: int) -> tuple[Call, str]:
    """Opens a .tflite file by the LiteRT runtime, or by the one inside TensorFlow.

    Args:
        path: The file.
        threads: Threads of a call.
    """
    try:
        interpreter, name = import_litert()
    except ImportError:
        import tensorflow as tf

        interpreter, name = tf.lite.Interpreter, f"LiteRT of TensorFlow {tf.__version__}"
    return build_call(interpreter(path, num_threads=threads)), name


def build_call(interpreter: Any) -> Call:
    """Returns a function that calls a .tflite file.

    Args:
        interpreter: Has the file open.
    """
    (source,) = interpreter.get_input_details()
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    details = runner.get_output_details().items()
    places = {name: output["index"] for name, output in details}
    shape = [tuple(source["shape"])]

    def call(images: Any) -> Any:
        if images.shape != shape[0]:
            interpreter.resize_tensor_input(source["index"], images.shape)
            interpreter.allocate_tensors()
            shape[0] = images.shape
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return name_outputs([*places], map(interpreter.get_tensor, places.values()))

    return call


def open_onnx(path: str, threads: int) -> tuple[Call, str]:
    """Opens an .onnx file by ONNX Runtime, on the CPU.

    Args:
        path: The file.
        threads: Threads of a call.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs()]

    def call(images: Any) -> dict[str, Any]:
        return name_outputs(names, session.run(None, {name: images}))

    return call, f"ONNX Runtime {onnxruntime.__version__}"


def open_openvino(path: str, threads: int) -> tuple[Call, str]:
    """Opens a folder with model.xml by OpenVINO, on the CPU and in float32.

    Args:
        path: The folder.
        threads: Threads of a call.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it calls its maker
    import openvino

    # Where a CPU has bfloat16, OpenVINO would compute in it: 3e-4 from the model's probabilities.
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(f"{path}/model.xml", "CPU", config)
    names = [output.any_name if output.names else SINGLE for output in compiled.outputs]

    def call(images: Any) -> dict[str, Any]:
        results = compiled([images])
        return name_outputs(names, [results[output].copy() for output in compiled.outputs])

    return call, f"OpenVINO {openvino.__version__.split('-')[0]}"


def set_threads(count: int) -> None:
    """Sets both of TensorFlow's thread pools, before its first operation.

    Args:
        count: Threads of each.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


def open_keras(path: str, threads: int) -> tuple[Call, str]:
    """Opens a .keras file by Keras.

    Args:
        path: The file.
        threads: Threads of a call.
    """
    import keras
    import tensorflow as tf

    set_threads(threads)
    from tl_toolkit.transfer.saved import load_saved_model  # scans the file, and has its layers

    model = load_saved_model(Path(path))
    function = tf.function(
        lambda x: model(x, training=False), reduce_retracing=True, autograph=False
    )

    def call(images: Any) -> dict[str, Any]:
        outputs = function(tf.constant(images))
        named = outputs if isinstance(outputs, dict) else {SINGLE: outputs}
        return {name: value.numpy() for name, value in named.items()}

    return call, f"Keras {keras.__version__}"


def open_keras_predict(path: str, threads: int) -> tuple[Call, str]:
    """Opens a .keras file by Keras, and calls `Model.predict`, as most scripts do.

    Args:
        path: The file.
        threads: Threads of a call.
    """
    import keras

    set_threads(threads)
    from tl_toolkit.transfer.saved import load_saved_model  # scans the file, and has its layers

    model = load_saved_model(Path(path))
    return (
        lambda x: {SINGLE: model.predict(x, verbose=0)},
        f"Keras {keras.__version__}, predict",
    )


def open_saved_model(path: str, threads: int) -> tuple[Call, str]:
    """Opens a SavedModel by TensorFlow, and calls `serving_default`; of its outputs numbers stay.

    Args:
        path: The folder.
        threads: Threads of a call.
    """
    import tensorflow as tf

    set_threads(threads)
    model = tf.saved_model.load(path)  # kept by `serve`: its variables end with it
    signature = model.signatures["serving_default"]
    dtype = signature.structured_input_signature[1]["image"].dtype

    def serve(images: Any, model: Any = model) -> Any:
        outputs = signature(image=tf.cast(images, dtype))
        numbers = {name: value for name, value in outputs.items() if value.dtype != tf.string}
        return {name: value.numpy() for name, value in numbers.items()}

    return serve, f"TensorFlow {tf.__version__}"


OPENERS = {
    "keras": open_keras,
    "keras-predict": open_keras_predict,
    "saved_model": open_saved_model,
    "litert": open_litert,
    "onnx": open_onnx,
    "openvino": open_openvino,
}


def time_calls(call: Call, images: Any, count: int) -> Any:
    """Returns the milliseconds of `count` calls, after some that are not counted.

    Args:
        call: The model.
        images: Its input.
        count: Number of calls.
    """
    import numpy as np

    for _ in range(WARM_UP if count else 0):
        call(images)
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        call(images)
        seconds.append(time.perf_counter() - began)
    return 1000 * np.array(seconds)


def main(runtime: str, model_path: str, inputs: str, outputs: str, settings: str = "{}") -> None:
    """Writes the outputs of a model and the times of its calls.

    Args:
        runtime: A name of OPENERS.
        model_path: The model.
        inputs: File with the images.
        outputs: File to write.
        settings: As above, JSON.
    """
    options: dict[str, Any] = json.loads(settings)
    sys.path[:] = options.get("path", sys.path)
    if not options.get("toolkit", False):
        sys.modules["tl_toolkit"] = None  # type: ignore[assignment]  # its import is an ImportError
    import numpy as np

    sys.stdin.readline()
    images = np.load(inputs, allow_pickle=False)["images"]
    call, name = OPENERS[runtime](model_path, options.get("threads", 2))
    calls = [call(images[index : index + 1]) for index in range(len(images))]
    batch = np.repeat(images[:1], options.get("batch", 1), axis=0)
    arrays: dict[str, Any] = {
        f"outputs/{key}": np.concatenate([np.asarray(named[key]) for named in calls])
        for key in calls[0]
    }
    np.savez(
        outputs,
        **arrays,
        milliseconds=time_calls(call, batch, options.get("calls", 0)),
        runtime=name,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
