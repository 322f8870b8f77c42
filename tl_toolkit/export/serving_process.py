"""Asks an exported model in a process of its own. Run as a script: it imports TensorFlow only.

    python serving_process.py SAVED_MODEL INPUTS.npz OUTPUTS.npz

INPUTS holds batches of images, `image/0`, `image/1`, ..., uint8 (n, h, w, 3), and `bytes`, uint8,
the files one after the other, of as many bytes as `lengths` says. OUTPUTS holds by the names of the
model's outputs what each batch was answered, `pixels/0/NAME`, and each file, `bytes/0/NAME`;
answers that are PNG files are decoded.
"""

import sys

import numpy as np
import tensorflow as tf

PNG = b"\x89PNG"


def main(model_path: str, inputs_path: str, outputs_path: str) -> None:
    """Writes the answers of both signatures, and the class names."""
    model = tf.saved_model.load(model_path)
    inputs = np.load(inputs_path, allow_pickle=False)
    answers = {}
    for key in inputs.files:
        if key.startswith("image/"):
            found = model.signatures["serving_default"](image=tf.constant(inputs[key]))
            for name, values in found.items():
                answers[f"pixels/{key.removeprefix('image/')}/{name}"] = read(values.numpy())
    ends = np.cumsum(inputs["lengths"])
    encoded = [
        inputs["bytes"][end - length : end].tobytes()
        for end, length in zip(ends, inputs["lengths"], strict=True)
    ]
    for name, values in model.signatures["serve_bytes"](bytes=tf.constant(encoded)).items():
        for number, value in enumerate(values.numpy()):
            answers[f"bytes/{number}/{name}"] = read(value)
    np.savez(
        outputs_path,
        **answers,
        class_names=read(model.signatures["class_names"]()["class_names"].numpy()),
        imported_toolkit="tl_toolkit" in sys.modules,
    )


def read(value):
    """Returns numbers as they are, text as text, and the pixels of a PNG file, (h, w, channels)."""
    if isinstance(value, bytes) and value.startswith(PNG):
        depth = tf.uint16 if value[24] == 16 else tf.uint8  # the header says how many bits
        return tf.io.decode_png(value, dtype=depth).numpy()
    if isinstance(value, bytes):
        return np.array(value.decode())
    if isinstance(value, np.ndarray) and value.dtype == object:
        return np.array([text.decode() for text in value])
    return value


if __name__ == "__main__":
    main(*sys.argv[1:])
