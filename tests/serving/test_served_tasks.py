"""The SavedModel of each task, served: what it gives for files is what it gives for pixels."""

import base64
import io

import httpx
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tl_toolkit as tl
from tests.export.test_export import build_model as build_image_model
from tests.tasks.dense.test_export_pixels import build_model as build_dense_model
from tl_toolkit.export.formats import FinishedModel
from tl_toolkit.export.saved_model import write_saved_model
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.dense.task import DenseTask
from tl_toolkit.tasks.edges.task import Edges
from tl_toolkit.tasks.multilabel.task import Multilabel
from tl_toolkit.tasks.normals.task import Normals
from tl_toolkit.tasks.regression.task import Regression
from tl_toolkit.tasks.segmentation.task import Segmentation

CLASSES = ("bee", "fourmi é")
TASKS = [
    Classification(CLASSES), Multilabel(CLASSES), Regression(CLASSES), Segmentation(CLASSES),
    Edges(), Normals(),
]  # fmt: skip
SIZE = (24, 32)


def draw_files():
    """Encoded images of the model's size, and their pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    files = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files, pixels


def read_map(encoded):
    """The values of a PNG file that a response holds, from 0 to 1; of a mask its classes."""
    data = base64.b64decode(encoded["b64"])
    if data[24] == 16:
        return tf.io.decode_png(data, dtype=tf.uint16).numpy().squeeze() / 65535
    return tf.io.decode_png(data).numpy().squeeze()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_files_and_pixels_are_answered_alike(tmp_path, encode, task):
    is_dense = isinstance(task, DenseTask)
    model = build_dense_model(units=task.units) if is_dense else build_image_model()
    write_saved_model(FinishedModel(model, task, "stretch"), tmp_path / "model" / "1")
    files, pixels = draw_files()

    with tl.serve(tmp_path / "model", port=0, progress=False) as server:
        with httpx.Client(base_url=server.url, timeout=300) as client:

            def predict(**request):
                response = client.post("/v1/models/model:predict", json=request)
                assert response.status_code == 200, response.text
                return response.json()["predictions"]

            by_file = predict(signature_name="serve_bytes", instances=list(map(encode, files)))
            by_pixels = predict(instances=pixels.tolist())
            page = client.get("/").text

    single = {"Regression": "values", "Edges": "probability", "Normals": "normal"}
    if name := single.get(type(task).__name__):  # the name of a single output is left out
        by_pixels = [{name: values} for values in by_pixels]
        by_file = [each if isinstance(each, dict) else {name: each} for each in by_file]
    for first, second in zip(by_file, by_pixels, strict=True):
        for name, values in second.items():
            found = read_map(first[f"{name}_bytes"]) if f"{name}_bytes" in first else first[name]
            expected = (np.array(values) + 1) / 2 if name == "normal" else values
            if isinstance(values, str):
                assert found == values
            else:
                np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert "data-model" in page
