"""Runs model.lines.tflite in a process of its own, as `tltool predict` runs it.

    python -I lines_process.py MODEL INPUTS.npz OUTPUTS.npz SETTINGS

INPUTS holds `images`, float32 (n, h, w, channels), and places in pixels of them, `ys` (n, rows) and
`xs` (n, columns). OUTPUTS receives `outputs`, (n, rows, columns, units). SETTINGS is a JSON object:
`path` is the search path for modules. Model and inputs are read after a line of standard input, or
its end.
"""

import json
import sys
from typing import Any


def main(model: str, inputs: str, outputs: str, settings: str) -> None:
    """Writes the outputs of a model.

    Args:
        model: The file.
        inputs: File with the images and places.
        outputs: File to write.
        settings: As above, JSON.
    """
    sys.path[:] = json.loads(settings)["path"]
    import numpy as np

    sys.stdin.readline()
    from tl_toolkit.export.quick_lines import build_lines_call

    call = build_lines_call(_find_interpreter()(model, num_threads=2))
    with np.load(inputs, allow_pickle=False) as file:
        asked = zip(file["images"], file["ys"], file["xs"], strict=True)
        parts = [call(image[np.newaxis], ys, xs) for image, ys, xs in asked]
    np.savez(outputs, outputs=np.stack(parts))


def _find_interpreter() -> Any:
    """Returns the class of LiteRT, or the one inside TensorFlow."""
    from tl_toolkit.export.graph_process import import_litert

    try:
        return import_litert()[0]
    except ImportError:
        import tensorflow as tf

        return tf.lite.Interpreter


if __name__ == "__main__":
    main(*sys.argv[1:])
