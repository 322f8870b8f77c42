import gzip
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from tl_toolkit.catalog.lookup import ARCHITECTURES, read_variants
from tl_toolkit.catalog.weight_files import cache_path, inspect_weights, recall_weights
from tl_toolkit.catalog.weight_matching import (
    describe_misfit,
    match_layers,
    recognise,
    suggest_base,
)
from tl_toolkit.errors import WeightsError
from tl_toolkit.runs.files import hash_file

MOBILENET = ARCHITECTURES["mobilenet"]
LENET = ARCHITECTURES["lenet5"]


def write_layers(path, layers, *, root=None, **options):
    """Writes {layer: {weight name: array}} in the layout of keras.applications."""
    with h5py.File(path, "w", **options) as file:
        group = file if root is None else file.create_group(root)
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for name, weights in layers.items():
            layer = group.require_group(name)
            layer.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight, value in weights.items():
                layer.create_dataset(weight, data=value)
    return path


def write_variant(path, name, index=0, *, rename=lambda name: name):
    """Writes zeros in the shapes of an architecture, as its catalog has them."""
    _, shapes = read_variants(name)[index]
    layers = {
        rename(layer): {
            f"{rename(layer)}/w{i}:0": np.zeros(shape, "float32") for i, shape in enumerate(weights)
        }
        for layer, weights in shapes.items()
    }
    return write_layers(path, layers)


SMALL = {"conv1": {"conv1/kernel:0": np.ones((3, 3, 1, 2), "float32")}}


# ---------------------------------------------------------------------------- what a file really is


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.h5  is not there"):
        inspect_weights(tmp_path / "none.h5")


def test_a_folder_is_told(tmp_path):
    with pytest.raises(WeightsError, match="is a folder"):
        inspect_weights(tmp_path)


def test_a_saved_model_is_told(tmp_path):
    (tmp_path / "saved_model.pb").touch()

    with pytest.raises(WeightsError, match="is a SavedModel"):
        inspect_weights(tmp_path)


def test_a_pipe_is_told_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.h5")

    with pytest.raises(WeightsError, match="is no regular file"):
        inspect_weights(tmp_path / "x.h5")


def write_keras_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"")


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.h5", b"")


def write_safetensors(path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


NO_WEIGHTS = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:f8af\nsize 9406464\n",
        "is a Git LFS pointer: the file of 9,406,464 bytes that it stands for was never fetched"
        r"[\s\S]*Try: git lfs pull",
    ),
    "xml": (
        b'<?xml version="1.0"?>\n<Error><Message>Request has expired</Message></Error>',
        "is an error page saved as weights: 'Request has expired'",
    ),
    "html": (
        b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>",
        "is an error page saved as weights: '404 Not Found'",
    ),
    "text": (b"Download from:\nhttps://example.org/x.h5", "is a text file: 'Download from: https"),
    "long text": ("ä".encode() * 5000, "is a text file: 'ä"),
    "pickle": (pickle.dumps([1.0]), "is a Python pickle, which can run code"),
    "gzip": (gzip.compress(b"x"), "is compressed with gzip"),
    "noise": (
        b"\x00\x01\x02\x03\xff\xfe\xfd\xfc",
        "is of an unknown kind .it begins with 00 01 02 03 ff",
    ),
    "keras": (write_keras_archive, "is a damaged HDF5 file"),
    "zip": (write_zip, r"is a zip archive \(of 'weights\.h5'\)"),
    "cut zip": (b"PK\x03\x04rest", "is a damaged zip archive"),
    "safetensors": (write_safetensors, "is a safetensors file"),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_what_is_no_weight_file_is_told_for_what_it_is(kind, tmp_path):
    content, expected = NO_WEIGHTS[kind]
    path = tmp_path / "x.h5"
    content(path) if callable(content) else path.write_bytes(content)

    with pytest.raises(WeightsError, match=rf"^{path}  {expected}"):
        inspect_weights(path)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("userblock_size", [0, 512])
def test_a_cut_off_file_is_told_with_both_lengths(libver, userblock_size, tmp_path):
    path = write_layers(tmp_path / "x.h5", SMALL, libver=libver, userblock_size=userblock_size)
    size = path.stat().st_size
    os.truncate(path, size - 100)

    with pytest.raises(WeightsError, match=rf"is cut off: {size - 100:,} of {size:,} bytes"):
        inspect_weights(path)


def test_a_file_that_ends_inside_its_header_is_told(tmp_path):
    path = write_layers(tmp_path / "x.h5", SMALL)
    os.truncate(path, 20)

    with pytest.raises(WeightsError, match="its header is broken"):
        inspect_weights(path)


def test_a_file_with_a_broken_inside_is_told(tmp_path):
    path = write_layers(tmp_path / "x.h5", SMALL)
    content = bytearray(path.read_bytes())
    content[96:800] = b"\xaa" * 704
    path.write_bytes(content)

    with pytest.raises(WeightsError, match="is a damaged HDF5 file"):
        inspect_weights(path)


@pytest.mark.parametrize("names", [3, [b"conv1", b"nowhere"], [b"conv1/conv1/kernel:0/x"]])
def test_a_list_of_layers_that_makes_no_sense_is_told(names, tmp_path):
    path = write_layers(tmp_path / "x.h5", SMALL)
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = names

    with pytest.raises(WeightsError, match="is a damaged HDF5 file"):
        inspect_weights(path)


def test_an_hdf5_file_of_something_else_is_told_with_what_it_holds(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["images"] = np.zeros(3)

    with pytest.raises(WeightsError, match="holds no Keras weights .it holds 'images'"):
        inspect_weights(tmp_path / "x.h5")


def test_broken_files_are_told_without_h5py_and_numpy(tmp_path):
    path = write_layers(tmp_path / "x.h5", SMALL)
    os.truncate(path, path.stat().st_size - 1)
    script = (
        "import sys; from tl_toolkit.catalog.weight_files import inspect_weights as inspect\n"
        f"try: inspect({str(path)!r})\n"
        "except Exception as error: print('cut off' in str(error))\n"
        "print(sorted({'h5py', 'numpy', 'keras', 'tensorflow'} & set(sys.modules)))"
    )

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert result.stdout.split() == ["True", "[]"]


@pytest.mark.assets
@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("error_page", "is an error page saved as weights: 'Request has expired'"),
        ("lfs_pointer", "is a Git LFS pointer: the file of 9,406,464 bytes"),
        ("text_note", "is a text file: 'Download from: https://github.com/MinerKasch"),
        ("truncated", "is cut off: 1,048,576 of 94,653,016 bytes"),
    ],
)
def test_the_broken_files_of_the_assets_are_told(start, expected, assets):
    [path] = (assets / "weights" / "broken").glob(f"{start}*")

    with pytest.raises(WeightsError, match=expected):
        inspect_weights(path)


# --------------------------------------------------------------------------- what a file may not do


def test_a_link_to_another_file_is_refused(tmp_path):
    write_layers(tmp_path / "other.h5", SMALL)
    path = write_layers(tmp_path / "x.h5", SMALL)
    with h5py.File(path, "a") as file:
        del file["conv1/conv1/kernel:0"]
        file["conv1/conv1/kernel:0"] = h5py.ExternalLink("other.h5", "conv1/conv1/kernel:0")

    with pytest.raises(WeightsError, match=r"holds a link to somewhere else \('kernel:0'\)"):
        inspect_weights(path)


def test_data_kept_in_another_file_is_refused(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(72))
    path = write_layers(tmp_path / "x.h5", SMALL)
    with h5py.File(path, "a") as file:
        del file["conv1/conv1/kernel:0"]
        file.create_dataset(
            "conv1/conv1/kernel:0", (3, 3, 1, 2), "float32", external=[(str(secret), 0, 72)]
        )

    with pytest.raises(WeightsError, match="keeps '/conv1/conv1/kernel:0' in another file"):
        inspect_weights(path)


def test_a_tensor_larger_than_any_file_of_that_size_is_refused(tmp_path):
    path = write_layers(tmp_path / "x.h5", SMALL)
    with h5py.File(path, "a") as file:
        del file["conv1/conv1/kernel:0"]
        file.create_dataset("conv1/conv1/kernel:0", (2**17, 2**17), "float32", chunks=(64, 64))

    with pytest.raises(WeightsError, match=r"claims 68,719,476,736 bytes of tensors in a file of"):
        inspect_weights(path)


def test_words_instead_of_numbers_are_refused(tmp_path):
    path = write_layers(tmp_path / "x.h5", {"conv1": {"conv1/kernel:0": np.array([b"rm -rf"])}})

    with pytest.raises(WeightsError, match="which is no tensor of numbers"):
        inspect_weights(path)


def test_a_weight_that_is_listed_and_absent_is_told(tmp_path):
    path = write_layers(tmp_path / "x.h5", SMALL)
    with h5py.File(path, "a") as file:
        del file["conv1/conv1/kernel:0"]

    with pytest.raises(WeightsError, match="is a damaged HDF5 file .*kernel:0"):
        inspect_weights(path)


# -------------------------------------------------------------------------------- what a file holds


def test_layers_come_in_the_order_of_the_network_with_their_shapes(tmp_path):
    layers = {
        "z": {"z/kernel:0": np.zeros((2, 3)), "z/bias:0": np.zeros(3)},
        "relu": {},
        "a": {"a/kernel:0": np.zeros((3, 1))},
    }

    info = inspect_weights(write_layers(tmp_path / "x.h5", layers))

    assert info.kind == "layers"
    assert {name: [(w.name, w.shape) for w in ws] for name, ws in info.layers.items()} == {
        "z": [("z/kernel:0", (2, 3)), ("z/bias:0", (3,))],
        "a": [("a/kernel:0", (3, 1))],
    }
    assert list(info.layers) == ["z", "a"]


def test_a_whole_model_in_h5_is_read_for_its_weights(tmp_path):
    info = inspect_weights(write_layers(tmp_path / "x.h5", SMALL, root="model_weights"))

    assert info.kind == "model"
    assert info.layers["conv1"][0].key == "model_weights/conv1/conv1/kernel:0"


def test_a_long_list_of_names_is_read_from_its_pieces(tmp_path):
    path = write_layers(tmp_path / "x.h5", {**SMALL, "dense": {"dense/kernel:0": np.zeros(2)}})
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"] = [b"conv1"]
        file.attrs["layer_names1"] = [b"dense"]

    assert list(inspect_weights(path).layers) == ["conv1", "dense"]


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")

    assert hash_file(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()


def test_published_files_lie_in_the_folder_of_keras(monkeypatch, tmp_path):
    file = MOBILENET.weight_files[0]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    assert cache_path(file) == tmp_path / "models" / file.name

    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert cache_path(file) == tmp_path / ".keras" / "models" / file.name


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenet_2_5_224_tf_no_top.h5", "mobilenet with alpha = 0.25"),
        ("mobilenet_7_5_224_tf_no_top.h5", "mobilenet with alpha = 0.75"),
        (
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5",
            "mobilenet_v2 with alpha = 0.35",
        ),
    ],
)
def test_the_real_files_are_recognised(name, expected, assets):
    info = inspect_weights(assets / "weights" / name)

    assert recognise(info) == expected


@pytest.mark.assets
def test_the_recorded_digest_is_that_of_the_original_file(assets):
    [file] = [file for file in MOBILENET.weight_files if file.sha256 is not None]
    path = assets / "weights" / file.name

    assert (hash_file(path), path.stat().st_size) == (file.sha256, file.bytes)


# --------------------------------------------------------------------------- does it fit, by header


# Files of larger ones take seconds to write.
SMALL_NAMES = [name for name, record in ARCHITECTURES.items() if record.parameters < 10_000_000]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("lenet5", "mobilenet") else pytest.mark.slow)
        for name in SMALL_NAMES
    ],
)
def test_a_file_of_the_same_architecture_fits(name, tmp_path):
    architecture = ARCHITECTURES[name]
    info = inspect_weights(write_variant(tmp_path / "x.h5", name))
    size = architecture.default_size

    assert describe_misfit(architecture, {}, info, image_size=(size, size)) is None


def test_a_file_of_another_width_is_told_with_both(tmp_path):
    arguments, _ = read_variants("mobilenet")[1]
    info = inspect_weights(write_variant(tmp_path / "x.h5", "mobilenet", 1))

    misfit = describe_misfit(MOBILENET, {"alpha": 0.75}, info)

    assert arguments == {"alpha": 0.25}
    assert (
        misfit
        == "holds the weights of mobilenet with alpha = 0.25, not of mobilenet with alpha = 0.75"
    )
    assert suggest_base(MOBILENET, {"alpha": 0.75}, info) == "model.arguments.alpha=0.25"


def test_a_file_of_another_architecture_is_told_with_both(tmp_path):
    info = inspect_weights(write_variant(tmp_path / "x.h5", "lenet5"))

    misfit = describe_misfit(MOBILENET, {}, info)

    assert misfit == "holds the weights of lenet5, not of mobilenet with alpha = 1.0"
    assert suggest_base(MOBILENET, {}, info) == "model.base=lenet5"


def test_a_file_of_no_known_architecture_is_told_by_its_layers(tmp_path):
    info = inspect_weights(write_layers(tmp_path / "x.h5", SMALL))

    misfit = describe_misfit(LENET, {}, info)

    assert misfit == (
        "does not fit lenet5: the file has no c1_conv, c3_conv, c5_conv and 1 more layers; "
        "the network has no conv1"
    )


def test_shapes_that_the_catalog_does_not_know_are_left_to_loading(tmp_path):
    info = inspect_weights(write_variant(tmp_path / "x.h5", "mobilenet", 1))

    assert describe_misfit(MOBILENET, {"alpha": 0.3}, info) is None


def test_a_vector_base_at_another_image_size_is_compared_by_names_only(tmp_path):
    info = inspect_weights(write_variant(tmp_path / "x.h5", "lenet5"))

    assert describe_misfit(LENET, {}, info, image_size=(48, 48)) is None


# ---------------------------------------------------------------------------- which tensor is which

NETWORK = {"conv1": [("conv1/kernel", (3, 3, 1, 2))], "fc": [("fc/kernel", (4, 2))]}


def layers_of(**shapes):
    return {
        name: {f"{name}/kernel:0": np.zeros(shape, "float32")} for name, shape in shapes.items()
    }


def match(tmp_path, layers, network=NETWORK):
    return match_layers(network, inspect_weights(write_layers(tmp_path / "x.h5", layers)))


def test_layers_with_slashes_match_names_with_underscores(tmp_path):
    layers = {"conv1/a": {"conv1/a/kernel:0": np.zeros((3, 3, 1, 2))}}

    matched = match(tmp_path, layers, {"conv1_a": [("conv1_a/kernel", (3, 3, 1, 2))]})

    assert (matched.fits, matched.by, list(matched.weights)) == (True, "name", ["conv1_a"])


def test_layers_of_a_nested_model_match_by_the_names_of_their_tensors(tmp_path):
    layers = {
        "mobilenet": {
            "mobilenet/fc/kernel:0": np.zeros((4, 2)),
            "mobilenet/conv1/kernel:0": np.zeros((3, 3, 1, 2)),
        }
    }

    matched = match(tmp_path, layers)

    assert matched.fits
    assert [matched.weights[name][0].shape for name in NETWORK] == [(3, 3, 1, 2), (4, 2)]


def test_without_one_common_name_layers_match_in_order(tmp_path):
    matched = match(tmp_path, layers_of(conv2d_7=(3, 3, 1, 2), dense_3=(4, 2)))

    assert (matched.fits, matched.by) == (True, "order")
    assert matched.weights["fc"][0].name == "dense_3/kernel:0"


def test_without_one_common_name_and_with_other_shapes_nothing_matches(tmp_path):
    matched = match(tmp_path, layers_of(conv2d_7=(3, 3, 1, 2), dense_3=(5, 2)))

    assert not matched.fits
    assert matched.missing == ("conv1", "fc")


def test_with_one_common_name_the_others_are_not_taken_in_order(tmp_path):
    matched = match(tmp_path, layers_of(conv1=(3, 3, 1, 2), other=(4, 2)))

    assert (matched.missing, matched.left_out) == (("fc",), ("other",))


def test_a_classifier_after_the_base_is_left_out(tmp_path):
    layers = layers_of(conv1=(3, 3, 1, 2), fc=(4, 2), top=(2, 7), conv_preds=(1, 1, 2, 7))

    matched = match(tmp_path, layers)

    assert (matched.fits, matched.left_out) == (True, ("top", "conv_preds"))


def test_a_classifier_by_name_is_left_out_wherever_it_stands(tmp_path):
    matched = match(tmp_path, layers_of(predictions=(2, 7), conv1=(3, 3, 1, 2), fc=(4, 2)))

    assert (matched.fits, matched.left_out) == (True, ("predictions",))


def test_a_layer_in_the_middle_that_the_network_lacks_is_surplus(tmp_path):
    matched = match(tmp_path, layers_of(conv1=(3, 3, 1, 2), conv2=(1, 1, 2, 2), fc=(4, 2)))

    assert (matched.fits, matched.surplus) == (False, ("conv2",))
    assert str(matched) == "the network has no conv2"


def test_a_wide_convolution_after_the_base_is_surplus_and_no_classifier(tmp_path):
    matched = match(tmp_path, layers_of(conv1=(3, 3, 1, 2), fc=(4, 2), conv2=(3, 3, 2, 2)))

    assert matched.surplus == ("conv2",)


def test_a_layer_that_is_in_the_file_twice_is_surplus(tmp_path):
    layers = {
        **layers_of(conv1=(3, 3, 1, 2), fc=(4, 2)),
        "a/conv1": {"a/conv1/kernel:0": np.zeros((3, 3, 1, 2))},
    }

    assert match(tmp_path, layers).surplus == ("conv1",)


def test_another_shape_is_told_with_both(tmp_path):
    matched = match(tmp_path, layers_of(conv1=(3, 3, 1, 5), fc=(4, 2)))

    assert str(matched) == "conv1 has 3x3x1x2 in the network and 3x3x1x5 in the file"


def test_tensors_of_one_shape_go_by_their_names_inside_a_layer(tmp_path):
    names = ("gamma", "beta", "moving_mean")
    network = {"bn": [(f"bn/{name}", (4,)) for name in names]}
    layers = {"bn": {f"bn/{name}:0": np.zeros(4) for name in reversed(names)}}

    matched = match(tmp_path, layers, network)

    assert [w.name for w in matched.weights["bn"]] == [
        "bn/gamma:0",
        "bn/beta:0",
        "bn/moving_mean:0",
    ]


def test_tensors_with_names_of_their_own_go_in_order(tmp_path):
    network = {"bn": [("bn/gamma", (4,)), ("bn/moving_mean", (4,))]}
    layers = {"bn": {"bn_gamma_1:0": np.zeros(4), "bn_running_mean_1:0": np.zeros(4)}}

    matched = match(tmp_path, layers, network)

    assert [w.name for w in matched.weights["bn"]] == ["bn_gamma_1:0", "bn_running_mean_1:0"]


def test_what_a_file_holds_is_remembered_until_it_changes(tmp_path):
    path = tmp_path / "w.h5"
    write_layers(path, {"dense": {"kernel:0": np.zeros((2, 3))}})
    first = recall_weights(path)

    again = recall_weights(path)
    write_layers(path, {"other": {"kernel:0": np.zeros((2, 4))}})
    changed = recall_weights(path)

    assert (
        again.layers
        == first.layers
        == inspect_weights_of({"dense": {"kernel:0": np.zeros((2, 3))}}, tmp_path)
    )
    assert list(changed.layers) == ["other"]


def test_a_damaged_note_of_a_file_is_written_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    write_layers(tmp_path / "w.h5", {"dense": {"kernel:0": np.zeros((2, 3))}})
    first = recall_weights(tmp_path / "w.h5")
    for note in (tmp_path / "cache" / "weights").iterdir():
        note.write_text("[")

    assert recall_weights(tmp_path / "w.h5").layers == first.layers


def test_a_broken_file_is_never_recalled(tmp_path):
    path = tmp_path / "w.h5"
    write_layers(path, {"dense": {"kernel:0": np.zeros((2, 3))}})
    recall_weights(path)
    path.write_text("version https://git-lfs.github.com/spec/v1")

    with pytest.raises(WeightsError, match="LFS"):
        recall_weights(path)


def inspect_weights_of(shapes, folder):
    write_layers(folder / "fresh.h5", shapes)
    return inspect_weights(folder / "fresh.h5").layers


def test_a_file_edited_in_place_whose_time_was_set_back_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    path = write_layers(tmp_path / "w.h5", {"dense": {"kernel:0": np.zeros((2, 3))}})
    stat = path.stat()
    recall_weights(path)

    content = path.read_bytes().replace(b"dense", b"sense")
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert path.stat().st_size == stat.st_size
    assert list(recall_weights(path).layers) == ["sense"]
