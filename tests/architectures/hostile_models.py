"""Generates hostile model files: each tries to write a canary, read a secret, or take all memory.

`CORPUS` maps a name to (a function that writes the file, the reason that it is refused with). The
writers take a folder, and return the file; `folder/canary` must not appear, `folder/secret` must
not be read. Classes are those of public advisories on Keras, named where there is one.
"""

import base64
import copy
import io
import json
import marshal
import os
import pickle
import stat
import zipfile
import zlib

import h5py
import numpy as np

__all__ = ["CORPUS", "write_archive", "write_weights"]

DENSE = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {"name": "dense", "units": 2},
    "registered_name": None,
    "build_config": {"input_shape": [None, 4, 4, 3]},
}
INPUT = {
    "module": "keras.layers",
    "class_name": "InputLayer",
    "config": {"batch_shape": [None, 4, 4, 3], "dtype": "float32", "name": "input"},
    "registered_name": None,
}
CORPUS = {}


def describe_model(*layers):
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "hostile", "layers": [INPUT, *(copy.deepcopy(x) for x in layers)]},
        "registered_name": None,
        "build_config": {"input_shape": [None, 4, 4, 3]},
        "compile_config": None,
    }


def write_weights(shape=(3, 2), **options):
    """Returns an HDF5 file as Keras writes one for DENSE."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        group = file.create_group("layers/dense/vars")
        group.create_dataset("0", data=np.zeros(shape, "float32"), **options)
        group.create_dataset("1", data=np.zeros(2, "float32"))
    return buffer.getvalue()


def write_archive(path, config=None, weights=None, more=(), compress=zipfile.ZIP_STORED):
    config = describe_model(DENSE) if config is None else config
    text = config if isinstance(config, str | bytes) else json.dumps(config)
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
        archive.writestr("config.json", text)
        archive.writestr("model.weights.h5", write_weights() if weights is None else weights)
        for name, content in more:
            archive.writestr(name, content)
    return path


def case(reason, name=None):
    def add(function):
        CORPUS[name or function.__name__] = function, reason
        return function

    return add


# ------------------------------------------------------------------ configs that name what to build


def write_canary_code(folder):
    source = f"open({str(folder / 'canary')!r}, 'w').close()"
    code = compile(f"lambda x: ({source}, x)[1]", "<hostile>", "eval").co_consts[0]
    return base64.b64encode(marshal.dumps(code)).decode()


def lambda_value(folder):
    code = write_canary_code(folder)
    return {"class_name": "__lambda__", "config": {"code": code, "defaults": None, "closure": None}}


def lambda_layer(folder):
    return layer("Lambda", function=lambda_value(folder), output_shape=[4, 4, 3])


def layer(kind, module="keras.layers", registered_name=None, **config):
    return {
        "module": module,
        "class_name": kind,
        "config": {"name": "x", **config},
        "registered_name": registered_name,
    }


def function(name, module, registered_name="same"):
    return {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": name if registered_name == "same" else registered_name,
    }


def with_activation(value):
    return layer("Activation", activation=value)


def list_configs():
    """Yields (name, function of the folder that returns a layer, reason)."""
    a_lambda, a_function = "a Lambda layer, which is Python code", "which is no activation of Keras"
    unlisted = "which is not among the layers that are loaded"
    yield "lambda layer (CVE-2024-3660)", lambda_layer, a_lambda
    yield (
        "lambda layer in a wrapper",
        lambda folder: layer("TimeDistributed", layer=lambda_layer(folder)),
        a_lambda,
    )
    yield (
        "lambda layer in a model in the model",
        lambda folder: describe_model(lambda_layer(folder)),
        a_lambda,
    )
    yield (
        "lambda layer without a module (CVE-2026-12481)",
        lambda folder: {**lambda_layer(folder), "module": None},
        a_lambda,
    )
    yield (
        "lambda function as an activation",
        lambda folder: with_activation(lambda_value(folder)),
        "a lambda function, which is Python code",
    )
    yield (
        "lambda function as an initializer of a compiled model in the model",
        lambda folder: {
            **describe_model(DENSE),
            "compile_config": {"optimizer": "sgd", "loss": lambda_value(folder)},
        },
        "a lambda function",
    )
    yield (
        "SavedModel from a path (CVE-2026-1462)",
        lambda folder: layer("TFSMLayer", filepath=str(folder)),
        "a TFSMLayer, which runs a SavedModel",
    )
    yield (
        "pickle of a module (CVE-2025-49655)",
        lambda folder: layer("TorchModuleWrapper", module=pickle_canary(folder)),
        "a TorchModuleWrapper, which holds a Python pickle",
    )
    yield "JAX code", lambda folder: layer("JaxLayer", call_fn=lambda_value(folder)), "a JaxLayer"
    yield "Flax code", lambda folder: layer("FlaxLayer", module=1), "a FlaxLayer"
    for kind in ("StringLookup", "IntegerLookup", "TextVectorization"):
        yield (
            f"{kind} of a local file (CVE-2025-12058)",
            lambda folder, kind=kind: layer(kind, vocabulary=str(folder / "secret")),
            unlisted,
        )
    yield (
        "download (CVE-2025-8747)",
        lambda folder: with_activation(function("get_file", "keras.utils")),
        a_function,
    )
    yield (
        "StringLookup from an address",
        lambda folder: layer("StringLookup", vocabulary="http://127.0.0.1:9/x"),
        unlisted,
    )
    for name, module in (
        ("load_model", "keras.models"),
        ("load_img", "keras.utils"),
        ("set_random_seed", "keras.utils"),
        ("plot_model", "keras.utils"),
        ("img_to_array", "keras.utils"),
        ("enable_unsafe_deserialization", "keras.config"),
        ("deserialize_keras_object", "keras.saving"),
        ("system", "os"),
        ("eval", "builtins"),
        ("get", "keras.activations"),
        ("import_module", "importlib"),
    ):
        yield (
            f"function {module}.{name}",
            lambda folder, name=name, module=module: with_activation(function(name, module)),
            a_function,
        )
    yield (
        "function under another name",
        lambda folder: with_activation(function("relu", "builtins", "posix>system")),
        a_function,
    )
    yield (
        "class of any module (CVE-2025-1550)",
        lambda folder: layer("Popen", "subprocess", args=["touch", str(folder / "canary")]),
        "'Popen', which is not a part of Keras",
    )
    yield (
        "safe mode off in the config (CVE-2025-9906)",
        lambda folder: layer("enable_unsafe_deserialization", "keras.config"),
        unlisted,
    )
    yield (
        "private class of Keras",
        lambda folder: layer("DiskIOStore", "keras.src.saving.saving_lib", root_path="/"),
        unlisted,
    )
    yield (
        "loop over a function",
        lambda folder: layer("Map", "keras.src.ops.core", f=lambda_value(folder)),
        unlisted,
    )
    yield (
        "another module of Keras imported",
        lambda folder: layer("Layer", "keras.src.backend.torch"),
        unlisted,
    )
    yield (
        "known class under the name of another",
        lambda folder: layer("Dense", registered_name="posix>system", units=2),
        "which is not a part of Keras",
    )
    yield (
        "type of another package",
        lambda folder: {
            "class_name": "__typespec__",
            "spec_name": "Popen",
            "registered_name": "Popen",
            "module": "subprocess",
            "config": [],
        },
        "which is not a part of Keras",
    )
    yield "class that is no text", lambda folder: {**DENSE, "class_name": ["Dense"]}, "no text"
    yield "module that is no text", lambda folder: {**DENSE, "module": {"a": 1}}, "no text"
    yield (
        "tensor of objects",
        lambda folder: with_activation(
            {"class_name": "__numpy__", "config": {"value": [1], "dtype": "object"}}
        ),
        "no type of numbers",
    )
    yield (
        "layer with a path for a name (CVE-2026-12479)",
        lambda folder: {**DENSE, "config": {"name": "../canary", "units": 2}},
        r"which is a path",
    )
    yield (
        "layer with another path for a name",
        lambda folder: {**DENSE, "name": str(folder / "canary")},
        "which is a path",
    )


def pickle_canary(folder):
    class Payload:
        def __reduce__(self):
            return open, (str(folder / "canary"), "w")

    return base64.b64encode(pickle.dumps(Payload())).decode()


for _name, _build, _reason in list_configs():
    CORPUS[_name] = (
        lambda folder, build=_build: write_archive(
            folder / "x.keras", describe_model(build(folder))
        ),
        _reason,
    )


@case("nests its config.json")
def json_200000_levels_deep(folder):
    return write_archive(folder / "x.keras", "[" * 200_000)


@case("more than 100 levels")
def json_500_levels_deep(folder):
    return write_archive(folder / "x.keras", '{"a":' * 500 + "1" + "}" * 500)


@case("more than 1,000,000 values")
def json_of_two_million_values(folder):
    return write_archive(folder / "x.keras", "[" + "[]," * 2_000_000 + "[]]")


@case("is no JSON")
def json_cut_off(folder):
    return write_archive(folder / "x.keras", '{"class_name": "Sequential", "config"')


@case("is no JSON")
def number_of_a_million_digits(folder):
    return write_archive(folder / "x.keras", '{"units": ' + "9" * 1_000_000 + "}")


@case("describes no model")
def json_of_a_list(folder):
    return write_archive(folder / "x.keras", "[1, 2]")


# ---------------------------------------------------------------------------------------- archives


@case("holds 'assets/../../canary'")
def member_above_the_folder(folder):
    return write_archive(folder / "x.keras", more=[("assets/../../canary", "x")])


@case("'; a model has")
def member_with_an_absolute_path(folder):
    return write_archive(folder / "x.keras", more=[(str(folder / "canary"), "x")])


@case("as a link, and not as a file")
def member_that_is_a_link(folder):
    path = folder / "x.keras"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("model.weights.h5")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(folder / "secret"))
        archive.writestr("config.json", json.dumps(describe_model(DENSE)))
    return path


@case("config.json twice")
def config_that_is_there_twice(folder):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        hostile = json.dumps(describe_model(lambda_layer(folder)))
        return write_archive(folder / "x.keras", more=[("config.json", hostile)])


@case("encrypted")
def encrypted_member(folder):
    path = write_archive(folder / "x.keras")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1  # the last entry, of the weights
    path.write_bytes(content)
    return path


@case("holds 2,003 members")
def two_thousand_members(folder):
    return write_archive(folder / "x.keras", more=[(f"m{n}", "") for n in range(2000)])


@case("bytes of model.weights.h5")
def zip_bomb_of_weights(folder):
    return write_archive(folder / "x.keras", weights=bytes(64 << 20), compress=zipfile.ZIP_DEFLATED)


@case("bytes of config.json")
def zip_bomb_of_config(folder):
    return write_archive(folder / "x.keras", " " * (32 << 20), compress=zipfile.ZIP_DEFLATED)


@case("more than 16 MiB of config.json")
def large_config(folder):
    return write_archive(folder / "x.keras", " " * (17 << 20))


@case("is damaged")
def archive_with_a_wrong_checksum(folder):
    path = write_archive(folder / "x.keras")
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"units": 2', b'"units": 3', 1))
    return path


@case("is damaged")
def archive_cut_off(folder):
    path = write_archive(folder / "x.keras")
    path.write_bytes(path.read_bytes()[:-100])
    return path


@case("holds 'model.weights.npz'")
def pickled_array_as_weights(folder):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([pickle_canary(folder)], dtype=object))
    return write_archive(folder / "x.keras", more=[("model.weights.npz", buffer.getvalue())])


# ----------------------------------------------------------------------------------- HDF5 in them


def write_hdf5(folder, fill, name="x.keras"):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file.create_group("layers/dense/vars"))
    return write_archive(folder / name, weights=buffer.getvalue())


@case("claims 4,000,000,000,000 bytes")
def hdf5_shape_bomb_of_cve_2026_0897(folder):
    return write_hdf5(
        folder, lambda group: group.create_dataset("0", (10**6, 10**6), "f4", chunks=(100, 100))
    )


@case("claims 7,516,192,768 bytes")
def hdf5_of_two_tensors_just_under_the_limit_of_keras(folder):
    def fill(group):
        for name in "01":
            group.create_dataset(name, (7 << 27,), "f4", chunks=(1 << 20,))

    return write_hdf5(folder, fill)


@case("claims 268,435,456 bytes")
def hdf5_compressed_bomb(folder):
    return write_hdf5(
        folder,
        lambda group: group.create_dataset("0", (1 << 26,), "f4", chunks=(1 << 20,), fillvalue=0),
    )


@case("a link to somewhere else")
def hdf5_link_to_another_file_of_cve_2026_1669(folder):
    def fill(group):
        group["0"] = h5py.ExternalLink(str(folder / "secret"), "/a")

    return write_hdf5(folder, fill)


@case("a link to somewhere else")
def hdf5_soft_link(folder):
    def fill(group):
        group["0"] = h5py.SoftLink("/layers")

    return write_hdf5(folder, fill)


@case("one part twice")
def hdf5_group_that_holds_itself(folder):
    def fill(group):
        group["again"] = group

    return write_hdf5(folder, fill)


@case("in another file")
def hdf5_with_data_in_another_file(folder):
    return write_hdf5(
        folder,
        lambda group: group.create_dataset(
            "0", (3, 2), "f4", external=[(str(folder / "secret"), 0, 24)]
        ),
    )


@case("in another file")
def hdf5_with_a_virtual_tensor(folder):
    def fill(group):
        layout = h5py.VirtualLayout((3, 2), "f4")
        layout[:] = h5py.VirtualSource(str(folder / "secret"), "a", (3, 2))
        group.create_virtual_dataset("0", layout)

    return write_hdf5(folder, fill)


@case("no tensor of numbers")
def hdf5_of_texts(folder):
    return write_hdf5(folder, lambda group: group.create_dataset("0", data=["a"]))


@case("no tensor")
def hdf5_with_a_named_type(folder):
    def fill(group):
        group["0"] = np.dtype("f4")

    return write_hdf5(folder, fill)


# ----------------------------------------------------------------------------- no archives at all


@case(r"a whole model in one \(.h5\) is not loaded")
def whole_model_in_hdf5_of_cve_2025_9905(folder):
    path = folder / "x.keras"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(describe_model(lambda_layer(folder)))
        file.create_group("model_weights")
    return path


@case("is a folder: a model in a folder is not loaded")
def model_in_a_folder(folder):
    path = folder / "x.keras"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(describe_model(lambda_layer(folder))))
    (path / "model.weights.h5").write_bytes(write_weights())
    return path


@case("is a folder")
def saved_model(folder):
    (folder / "x.keras").mkdir()
    (folder / "x.keras/saved_model.pb").write_bytes(b"x")
    return folder / "x.keras"


@case("is a Python pickle")
def pickle_file(folder):
    (folder / "x.keras").write_bytes(base64.b64decode(pickle_canary(folder)))
    return folder / "x.keras"


@case("is no regular file")
def pipe(folder):
    os.mkfifo(folder / "x.keras")
    return folder / "x.keras"


@case("is no regular file")
def link_to_a_device_without_an_end(folder):
    (folder / "x.keras").symlink_to("/dev/zero")
    return folder / "x.keras"


@case("compressed with gzip")
def gzip_bomb(folder):
    (folder / "x.keras").write_bytes(zlib.compress(bytes(16 << 20), wbits=31))
    return folder / "x.keras"
