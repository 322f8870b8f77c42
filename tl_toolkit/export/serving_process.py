"""Asks an exported model in a process of its own. Run as a script: it imports TensorFlow only.

    python serving_process.py SAVED_MODEL INPUTS.npz OUTPUTS.npz

INPUTS holds `image`, uint8 (n, h, w, 3), and `bytes`, one row of uint8 per file with `lengths`.
"""

import sys

import numpy as np
import tensorflow as tf


def main(model_path: str, inputs_path: str, outputs_path: str) -> None:
    """Writes the answers of both signatures, and the class names."""
    model = tf.saved_model.load(model_path)
    inputs = np.load(inputs_path, allow_pickle=False)
    ends = np.cumsum(inputs["lengths"])
    encoded = [
        inputs["bytes"][end - length : end].tobytes()
        for end, length in zip(ends, inputs["lengths"], strict=True)
    ]
    from_pixels = model.signatures["serving_default"](image=tf.constant(inputs["image"]))
    from_bytes = model.signatures["serve_bytes"](bytes=tf.constant(encoded))
    np.savez(
        outputs_path,
        pixels=from_pixels["probabilities"].numpy(),
        bytes=from_bytes["probabilities"].numpy(),
        labels=np.array([name.decode() for name in from_bytes["label"].numpy()]),
        class_names=np.array(
            [name.decode() for name in model.signatures["class_names"]()["class_names"].numpy()]
        ),
        imported_toolkit="tl_toolkit" in sys.modules,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
