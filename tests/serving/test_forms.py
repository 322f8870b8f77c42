"""Requests and responses in the forms of TensorFlow Serving and of the Open Inference Protocol."""

import base64
import json

import numpy as np
import pytest
import tensorflow as tf

import tl_toolkit as tl
from tests.serving.models import NAMES, draw_image
from tl_toolkit.errors import DataError
from tl_toolkit.serving.rest import write_predict
from tl_toolkit.serving.saved_model import ServedModel
from tl_toolkit.serving.tensors import Refusal, TensorSpec, count_bytes, shape_array, to_json

PREDICT = "/v1/models/photos:predict"
INFER = "/v2/models/photos/infer"
RED = {"label": NAMES[1], "probabilities": [0.0, 1.0], "version": 1}
BLACK = {"label": NAMES[0], "probabilities": [1.0, 0.0], "version": 1}
RED_PIXELS = np.full((2, 3, 3), (255, 0, 0)).tolist()


@pytest.mark.parametrize("path", [PREDICT, "/v1/models/photos/versions/1:predict"])
def test_rows_are_answered_in_rows(client, encode, path):
    images = [encode(draw_image(255)), encode(draw_image(0))]
    named = {"signature_name": "serve_bytes", "instances": [{"bytes": each} for each in images]}
    plain = {"signature_name": "serve_bytes", "instances": images}

    for request in (named, plain):
        response = client.post(path, json=request)

        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        assert response.json() == {"predictions": [RED, BLACK]}


def test_columns_are_answered_in_columns(client, encode):
    images = [encode(draw_image(255)), encode(draw_image(0))]
    named = {"signature_name": "serve_bytes", "inputs": {"bytes": images}}
    plain = {"signature_name": "serve_bytes", "inputs": images}
    expected = {key: [RED[key], BLACK[key]] for key in RED}

    assert client.post(PREDICT, json=named).json() == {"outputs": expected}
    assert client.post(PREDICT, json=plain).json() == {"outputs": expected}


def test_pixels_go_to_the_default_signature(client):
    rows = client.post(PREDICT, json={"instances": [RED_PIXELS]})
    named = client.post(PREDICT, json={"instances": [{"image": RED_PIXELS}]})
    columns = client.post(PREDICT, json={"inputs": [RED_PIXELS], "signature_name": ""})

    assert rows.json() == named.json() == {"predictions": [RED]}
    assert columns.json()["outputs"]["label"] == [NAMES[1]]


def test_curl_sends_no_word_of_json(client):
    """`curl -d` says that its body is a form."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = json.dumps({"instances": [RED_PIXELS]})

    assert client.post(PREDICT, content=body, headers=form).json() == {"predictions": [RED]}


def test_the_name_of_a_single_output_is_left_out(client):
    response = client.post(PREDICT, json={"signature_name": "class_names", "inputs": {}})

    assert response.json() == {"outputs": list(NAMES)}


def test_floats_have_the_digits_that_tell_them_apart():
    assert to_json("x", np.float32([[0.1], [1 / 3]])) == [[0.1], [0.33333334]]
    assert to_json("x", np.float64([0.1, 1 / 3])) == [0.1, 1 / 3]


def test_strings_have_the_bytes_that_they_hold():
    assert count_bytes(np.array([[b"four"], [b"five!"]], object)) == 9
    assert count_bytes(np.zeros((2, 3), np.float32)) == 24


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({"mean": np.float32(1)}, "mean has no shape information"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "b has inconsistent batch size: 3 expecting"),
    ],
)
def test_outputs_that_are_no_rows_are_refused_as_rows(outputs, reason):
    with pytest.raises(Refusal, match=reason) as caught:
        write_predict(outputs, "rows")

    assert caught.value.status == 400
    assert write_predict(outputs, "columns")


@pytest.mark.parametrize("shape", [[1] * 66, [0, 1 << 63]])
def test_a_shape_that_no_array_has_is_refused(shape):
    values = np.zeros(0 if 0 in shape else 1, np.uint8)

    with pytest.raises(Refusal, match="input x: "):
        shape_array(values, shape, TensorSpec("x", "uint8", None))


BAD = {
    "no JSON": (b"{", "JSON Parse error: "),
    "nothing": (b"", "JSON Parse error: The document is empty"),
    "a list": (b"[]", "Is not object"),
    "bytes that are no text": (b"\xff\xfe\x00", "JSON Parse error"),
    "deep lists": (b'{"instances":' + b"[" * 5000 + b"]" * 5000 + b"}", "JSON Parse error"),
    "neither key": (b"{}", "Missing 'inputs' or 'instances' key"),
    "both keys": (b'{"inputs":[1],"instances":[1]}', "expecting only one of"),
    "no instance": (b'{"instances":[]}', "No values in 'instances' array"),
    "no list": (b'{"instances":1}', "to be an list/array"),
    "an unknown signature": (
        b'{"instances":[1],"signature_name":"x"}',
        'Serving signature name: "x" not found in signature def',
    ),
    "a signature that is no text": (b'{"instances":[1],"signature_name":1}', "must be a string"),
    "another input": (b'{"instances":[{"x":1}]}', "keys must be equal to: image"),
    "a missing input": (b'{"inputs":{"x":1}}', "Missing named input: image"),
    "rows of two kinds": (b'{"instances":[{"image":1},2]}', "Expecting object but got list"),
    "lists of different lengths": (b'{"instances":[[[[1,2,3]]],[[[1,2]]]]}', "unexpected size"),
    "lists of different depths": (b'{"instances":[[[[1,2,3]]],[[1]]]}', "unexpected level"),
    "text for a number": (b'{"instances":[[[["a",2,3]]]]}', "Type: String is not of expected type"),
    "a number with a point": (b'{"instances":[[[[1.5,2,3]]]]}', "is not of expected type: uint8"),
    "nothing for a number": (b'{"instances":[[[[null,2,3]]]]}', "Type: Null is not of"),
    "a number out of range": (b'{"instances":[[[[256,2,3]]]]}', "out of the range of uint8"),
    "a negative number": (b'{"instances":[[[[-1,2,3]]]]}', "out of the range of uint8"),
    "a huge number": (b'{"instances":[[[[' + b"9" * 300 + b",2,3]]]]}", "out of the range"),
    "a number of 5000 digits": (b'{"instances":[[[[' + b"9" * 5000 + b",2,3]]]]}", "JSON Parse"),
    "another rank": (b'{"instances":[1]}', "expected shape [-1, -1, -1, 3], got [1]"),
    "lists of 66 depths": (
        b'{"instances":' + b"[" * 66 + b"1" + b"]" * 66 + b"}",
        "expected shape [-1, -1, -1, 3], got 66 sides",
    ),
    "four channels": (b'{"instances":[[[[1,2,3,4]]]]}', "expected shape [-1, -1, -1, 3]"),
    "no base64": (
        b'{"signature_name":"serve_bytes","instances":[{"b64":"***"}]}',
        "Unable to base64 decode",
    ),
    "no image": (
        b'{"signature_name":"serve_bytes","instances":[{"b64":"aGVsbG8="}]}',
        "The model refuses",
    ),
    "a number for bytes": (b'{"signature_name":"serve_bytes","instances":[1]}', "Number is not of"),
    "no image at all": (b'{"signature_name":"serve_bytes","inputs":[]}', "at least one image"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_request_is_refused_with_the_reason(client, case):
    body, reason = BAD[case]

    response = client.post(PREDICT, content=body)

    assert response.status_code == 400
    assert list(response.json()) == ["error"]
    assert reason in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("POST", "/v1/models/other:predict", 404, "Servable not found for request: Latest(other)"),
        (
            "POST",
            "/v1/models/photos/versions/3:predict",
            404,
            "Servable not found for request: Specific(photos, 3)",
        ),
        ("GET", "/v1/models/other", 404, "Could not find any versions of model other"),
        ("GET", "/v1/models/photos/versions/3", 404, "Could not find version 3 of model photos"),
        ("GET", "/v1/models/photos/versions/x", 400, "Failed to convert version: x to numeric."),
        ("POST", "/v1/models/photos:classify", 400, "classify: expected predict"),
        (
            "POST",
            "/v1/models/photos:predictx",
            400,
            "Malformed request: POST /v1/models/photos:predictx",
        ),
        ("GET", PREDICT, 405, f"Malformed request: GET {PREDICT}"),
        ("GET", "/v1/models/photos/", 404, "Malformed request: GET /v1/models/photos/"),
        (
            "POST",
            "/v1/models/photos/labels/stable:predict",
            404,
            "versions have no labels here: name one by its number, versions/N",
        ),
        ("GET", "/v3", 404, "Malformed request: GET /v3"),
        ("GET", "/v2/models/other", 404, "there is no model Latest(other)"),
        ("GET", "/v2/models/photos/versions/9/ready", 404, "there is no model Specific(photos, 9)"),
    ],
)
def test_another_path_is_refused_with_the_reason(client, method, path, status, error):
    response = client.request(method, path)

    assert (response.status_code, response.json()) == (status, {"error": error})


def test_the_status_is_that_of_tensorflow_serving(client):
    status = {"error_code": "OK", "error_message": ""}
    expected = {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": status}]}

    assert client.get("/v1/models/photos").json() == expected
    assert client.get("/v1/models/photos/versions/1").json() == expected


def test_the_metadata_are_those_of_tensorflow_serving(client):
    metadata = client.get("/v1/models/photos/metadata").json()
    definition = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]

    assert metadata["model_spec"] == {"name": "photos", "signature_name": "", "version": "1"}
    assert definition["method_name"] == "tensorflow/serving/predict"
    image = definition["inputs"]["image"]
    assert image["dtype"] == "DT_UINT8" and image["name"].startswith("serving_default_image")
    sides = [{"size": size, "name": ""} for size in ("-1", "-1", "-1", "3")]
    assert image["tensor_shape"] == {"dim": sides, "unknown_rank": False}
    assert set(definition["outputs"]) == set(RED)


# ------------------------------------------------------------------ the Open Inference Protocol


def tensors_of(response):
    return {tensor["name"]: tensor for tensor in response.json()["outputs"]}


def test_pixels_are_inferred_as_flat_or_as_nested_data(client):
    tensor = {"name": "image", "shape": [1, 2, 3, 3], "datatype": "UINT8"}
    flat = {**tensor, "data": np.ravel(RED_PIXELS).tolist()}
    nested = {**tensor, "data": [RED_PIXELS]}

    first = client.post(INFER, json={"id": "42", "inputs": [flat]})
    second = client.post("/v2/models/photos/versions/1/infer", json={"inputs": [nested]})

    assert first.status_code == 200, first.text
    named = {"model_name": "photos", "model_version": "1"}
    assert first.json() == {**named, "id": "42", "outputs": second.json()["outputs"]}
    assert list(second.json()) == [*named, "outputs"]
    assert tensors_of(first) == {
        "label": {"name": "label", "datatype": "BYTES", "shape": [1], "data": [NAMES[1]]},
        "probabilities": {
            "name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.0, 1.0],
        },
        "version": {"name": "version", "datatype": "INT32", "shape": [1], "data": [1]},
    }  # fmt: skip


def test_encoded_images_are_inferred_by_the_name_of_their_input(client):
    data = [base64.b64encode(draw_image(red)).decode() for red in (0, 255)]
    tensor = {"name": "bytes", "shape": [2], "datatype": "BYTES"}
    declared = {**tensor, "parameters": {"content_type": "base64"}, "data": data}
    wrapped = {**tensor, "data": [{"b64": each} for each in data]}
    wanted = [{"name": "label"}]

    for given in (declared, wrapped):
        response = client.post(INFER, json={"inputs": [given], "outputs": wanted})

        assert list(tensors_of(response)) == ["label"], response.text
        assert tensors_of(response)["label"]["data"] == list(NAMES)


def test_a_signature_can_be_named(client):
    request = {"inputs": [], "parameters": {"signature_name": "class_names"}}

    assert tensors_of(client.post(INFER, json=request))["class_names"]["data"] == list(NAMES)


def test_servers_and_models_describe_themselves(client):
    assert client.get("/v2").json() == {
        "name": "tl_toolkit", "version": tl.__version__, "extensions": [],
    }  # fmt: skip
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/photos", "/v2/models/photos/versions/1"):
        assert client.get(f"{path}/ready").json() == {"name": "photos", "ready": True}
        described = client.get(path).json()
        assert described["name"] == "photos" and described["versions"] == ["1"]
        assert described["inputs"] == [
            {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}
        ]
        assert {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]} in described[
            "outputs"
        ]


IMAGE = {"name": "image", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [1, 2, 3]}


@pytest.mark.parametrize(
    ("request_body", "reason"),
    [
        ({}, "inputs: expected a list of objects"),
        ({"inputs": [1]}, "inputs: expected a list of objects"),
        ({"inputs": [{"shape": []}]}, "each tensor needs a name"),
        ({"inputs": [IMAGE, IMAGE]}, "two have the same name"),
        ({"inputs": [{**IMAGE, "name": "x"}]}, "inputs: expected image, got x"),
        ({"inputs": [{**IMAGE, "datatype": "FP32"}]}, "expected datatype UINT8, got 'FP32'"),
        ({"inputs": [{**IMAGE, "shape": [1, 1, 3]}]}, "expected shape [-1, -1, -1, 3]"),
        ({"inputs": [{**IMAGE, "shape": [9, 1, 1, 3]}]}, "has 27 values, data has 3"),
        ({"inputs": [{**IMAGE, "shape": [-1, -1, 1, 3]}]}, "at most 16 numbers"),
        ({"inputs": [{**IMAGE, "shape": [1 << 63, 1, 1, 3]}]}, "values, data has 3"),
        ({"inputs": [{**IMAGE, "shape": [10**4000] * 4}]}, "at most 16 numbers"),
        ({"inputs": [{**IMAGE, "shape": [1] * 17}]}, "at most 16 numbers"),
        ({"inputs": [{**IMAGE, "shape": [0, 1 << 63, 1, 3], "data": []}]}, "input image: "),
        ({"inputs": [{**IMAGE, "shape": "x"}]}, "at most 16 numbers"),
        ({"inputs": [{**IMAGE, "data": [1, 2, 300]}]}, "out of the range of uint8"),
        ({"inputs": [{**IMAGE, "data": [1, 2, True]}]}, "Type: Boolean is not of"),
        ({"inputs": [{"name": "image", "shape": [0], "datatype": "UINT8"}]}, "it has no data"),
        ({"inputs": [IMAGE], "outputs": [{"name": "x"}]}, "'x' is none of label"),
        ({"inputs": [IMAGE], "id": 1}, "id: expected a string"),
        ({"inputs": [IMAGE], "parameters": 1}, "parameters: expected an object"),
    ],
)  # fmt: skip
def test_a_wrong_inference_is_refused_with_the_reason(client, request_body, reason):
    response = client.post(INFER, json=request_body)

    assert response.status_code == 400
    assert reason in response.json()["error"]


def test_a_signature_of_tensors_that_json_cannot_hold_is_left_out(tmp_path):
    model = tf.Module()
    spec = tf.TensorSpec((None,), tf.complex64, name="x")
    model.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[spec])
    model.negate = tf.function(
        lambda x: {"y": -x}, input_signature=[tf.TensorSpec((None,), tf.float32, name="x")]
    )
    signatures = {"serving_default": model.negate, "double": model.double}
    tf.saved_model.save(model, str(tmp_path / "1"), signatures=signatures)
    tf.saved_model.save(model, str(tmp_path / "2"), signatures={"double": model.double})

    served = ServedModel(tmp_path / "1", 1)

    assert list(served.signatures) == ["serving_default"] and not served.is_export
    with pytest.raises(Refusal, match="double.*x: tensors of complex64 cannot be served"):
        served.find("double")
    with pytest.raises(DataError, match=r"cannot be loaded: x: tensors of complex64 cannot"):
        tl.serve(tmp_path, port=0, progress=False)
