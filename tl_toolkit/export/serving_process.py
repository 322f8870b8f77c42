"""Runs an exported model in a process of its own, as a script that imports TensorFlow only.

    python -I serving_process.py SAVED_MODEL INPUTS.npz OUTPUTS.npz [SETTINGS]

INPUTS holds batches of images, `image/0`, `image/1`, ..., (n, h, w, channels), and `bytes`, uint8:
the files one after the other, whose sizes are in `lengths`. OUTPUTS holds each output of the model
by its name, for each batch as `pixels/0/NAME` and for each file as `bytes/0/NAME`; outputs that are
PNG files are decoded. SETTINGS is a JSON object: `path` is the search path for modules,
the rest is the arithmetic of the calling process (`export.asking.read_numerics`).

Model and inputs are read after a line of standard input, or its end, so that the caller may write
them while TensorFlow is imported.

Whatever the path holds, neither the toolkit nor Keras can be imported here: the model must work
without them.
"""

import gc
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

PNG = b"\x89PNG"


ABSENT = ("tl_toolkit", "keras", "sklearn", "matplotlib")
"""What the model must work without; TensorFlow imports the second where it is installed, and that
the others, which takes 1.3 of 3.3 s."""


def hide_packages() -> None:
    """Has the import of what is absent fail, as if it were not installed."""
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(ABSENT))  # None is Python's own mark for them


def set_numerics(settings: Mapping[str, Any]) -> None:
    """Makes TensorFlow compute as in the calling process; call it before the first operation.

    Args:
        settings: The result of `read_numerics` there; missing settings are not changed.
    """
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        # The calling process holds memory already, and by default this process reserves all.
        tf.config.experimental.set_memory_growth(gpu, True)
    if "tf32" in settings:
        tf.config.experimental.enable_tensor_float_32_execution(settings["tf32"])
    if settings.get("op_determinism"):
        tf.config.experimental.enable_op_determinism()
    if "intra_op_threads" in settings:
        tf.config.threading.set_intra_op_parallelism_threads(settings["intra_op_threads"])
        tf.config.threading.set_inter_op_parallelism_threads(settings["inter_op_threads"])


def get_numerics() -> dict[str, Any]:
    """Returns TensorFlow's settings of its arithmetic."""
    import tensorflow as tf

    return {
        "tf32": bool(tf.config.experimental.tensor_float_32_execution_enabled()),
        "op_determinism": is_deterministic(),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
    }


def is_deterministic() -> bool:
    """Returns whether op determinism is on; TensorFlow's own function for this is private."""
    import tensorflow as tf

    try:
        tf.random.uniform(())
    except RuntimeError:  # a random operation without a seed
        return True
    return False


def main(model_path: str, inputs_path: str, outputs_path: str, settings: str = "{}") -> None:
    """Writes the outputs of both signatures, and the class names.

    Args:
        model_path: Folder of the SavedModel.
        inputs_path: File with the inputs.
        outputs_path: File to write.
        settings: Search path and arithmetic, as JSON.
    """
    numerics: dict[str, Any] = json.loads(settings)
    sys.path[:] = numerics.pop("path", sys.path)
    hide_packages()
    import numpy as np
    import tensorflow as tf

    set_numerics(numerics)
    sys.stdin.readline()
    model = tf.saved_model.load(model_path)
    inputs = np.load(inputs_path, allow_pickle=False)
    outputs = {}
    for key in inputs.files:
        if key.startswith("image/"):
            batch = model.signatures["serving_default"](image=tf.constant(inputs[key]))
            for name, values in batch.items():
                outputs[f"pixels/{key.removeprefix('image/')}/{name}"] = read(values.numpy())
    ends = np.cumsum(inputs["lengths"])
    encoded = [
        inputs["bytes"][end - length : end].tobytes()
        for end, length in zip(ends, inputs["lengths"], strict=True)
    ]
    for name, values in model.signatures["serve_bytes"](bytes=tf.constant(encoded)).items():
        for number, value in enumerate(values.numpy()):
            outputs[f"bytes/{number}/{name}"] = read(value)
    np.savez(
        outputs_path,
        **outputs,
        class_names=read(model.signatures["class_names"]()["class_names"].numpy()),
        numerics=json.dumps(get_numerics()),
    )


def read(value: Any) -> Any:
    """Returns numbers as they are, text as text, and the pixels of a PNG file, (h, w, channels).

    Args:
        value: An output, or the output for one file.
    """
    import numpy as np
    import tensorflow as tf

    if isinstance(value, bytes) and value.startswith(PNG):
        depth = tf.uint16 if value[24] == 16 else tf.uint8  # the header says how many bits
        return tf.io.decode_png(value, dtype=depth).numpy()
    if isinstance(value, bytes):
        return np.array(value.decode())
    if isinstance(value, np.ndarray) and value.dtype == object:
        return np.array([text.decode() for text in value])
    return value


if __name__ == "__main__":
    gc.disable()  # a sixth of TensorFlow's import goes into a search that finds next to nothing
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # TensorFlow takes a second to end, and nothing is lost
