"""A small SavedModel with the signatures of an exported one, whose outputs are known by hand."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

NAMES = ("bee", "<b>fourmi</b> é")


class Small(tf.Module):
    """Gives the share of red in an image, and its version."""

    def __init__(self, version):
        super().__init__()
        self.version = tf.constant(version)

    def predict(self, pixels):
        colours = tf.reduce_mean(tf.cast(pixels, tf.float32), axis=(1, 2)) / 255
        red = colours[:, 0]
        return {
            "label": tf.where(red >= 0.5, NAMES[1], NAMES[0]),
            "probabilities": tf.stack([1 - red, red], axis=1),
            "version": tf.fill([tf.shape(pixels)[0]], self.version),
        }

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")])
    def serve_images(self, image):
        return self.predict(image)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="bytes")])
    def serve_bytes(self, data):
        def decode(encoded):
            return tf.ensure_shape(tf.io.decode_png(encoded, channels=3), (8, 8, 3))

        spec = tf.TensorSpec((8, 8, 3), tf.uint8)
        return self.predict(tf.map_fn(decode, data, fn_output_signature=spec))

    @tf.function(input_signature=[])
    def class_names(self):
        return {"class_names": tf.constant(NAMES)}


class Doubtful(Small):
    """Says how sure it is, as a classifier that knows its limits."""

    def predict(self, pixels):
        found = super().predict(pixels)
        return found | {
            "label_set": found["probabilities"] >= 0.3,
            "abstain": found["probabilities"][:, 1] == 0.4,
            "ood_score": found["probabilities"][:, 0],
        }


class Masks(Small):
    """Finds class 0 in the left half of an image and 1 in the right; it has not seen the last row.

    It is the surer the further down a pixel is.
    """

    def predict(self, pixels):
        count, height, width = tf.unstack(tf.shape(pixels)[:3])
        row = tf.cast(tf.range(width) >= width // 2, tf.uint8)
        unseen = tf.cast(tf.fill([1, width], 255), tf.uint8)
        mask = tf.concat([tf.tile(row[None], [height - 1, 1]), unseen], 0)
        sure = tf.cast(tf.tile(tf.range(height)[:, None] * 8000, [1, width]), tf.uint16)
        files = {"mask_bytes": mask, "probability_bytes": sure}
        encoded = {key: tf.io.encode_png(values[..., None]) for key, values in files.items()}
        sides = {"height": height, "width": width}
        return {key: tf.fill([count], value) for key, value in (encoded | sides).items()}


class Values(Small):
    """Gives two numbers alone, as a regression does."""

    def predict(self, pixels):
        red = tf.reduce_mean(tf.cast(pixels, tf.float32), axis=(1, 2))[:, 0]
        return {"values": tf.stack([red, red / 2], axis=1)}


def write_model(folder, version=1, kind=Small):
    """Writes a version of it into a folder; returns the folder of all versions."""
    model = kind(version)
    signatures = {
        "serving_default": model.serve_images,
        "serve_bytes": model.serve_bytes,
        "class_names": model.class_names,
    }
    tf.saved_model.save(model, str(folder / str(version)), signatures=signatures)
    return folder


def draw_image(red=0, *, side=8, kind="PNG"):
    """Returns an encoded image of one colour."""
    pixels = np.full((side, side, 3), (red, 0, 0), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()
