"""Foreign models: a corpus of hostile files is refused with the reason, and does nothing."""

import ast
import re
import sys

import keras
import pytest

from tests.architectures.hostile_models import (
    CORPUS,
    DENSE,
    describe_model,
    write_archive,
)
from tests.architectures.own_models import build_inner
from tests.syntax import PACKAGE, nodes_of
from tl_toolkit.api.model import load_model
from tl_toolkit.architectures.loading import LoadError, load_keras_model, try_loading
from tl_toolkit.architectures.own import load_own_model
from tl_toolkit.catalog.foreign_models import Fault, ScannedModel, scan_model
from tl_toolkit.catalog.weight_files import inspect_weights
from tl_toolkit.errors import DataError, RecipeError, WeightsError
from tl_toolkit.recipe.load import build_recipe

FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn")
_watched = {"folder": None, "events": []}


def _watch(event, arguments):
    folder = _watched and _watched["folder"]  # None while Python ends, as all globals are
    if folder is None:
        return
    if event == "open" and str(arguments[0]) in (f"{folder}/canary", f"{folder}/secret"):
        _watched["events"].append((event, str(arguments[0])))
    elif event.startswith(FORBIDDEN):
        _watched["events"].append((event, repr(arguments)))


@pytest.fixture(scope="module")
def audit():
    sys.addaudithook(_watch)  # it stays until the process ends, and sleeps without a folder


@pytest.fixture
def folder(tmp_path, audit):
    """A folder with a secret, in which no canary may appear and no secret be read."""
    (tmp_path / "secret").write_text("a\nb\n")
    yield tmp_path
    events, _watched["folder"], _watched["events"] = _watched["events"], None, []
    assert not events
    assert not (tmp_path / "canary").exists()


def write(name, folder):
    """Writes a file of the corpus, then begins to watch."""
    path = CORPUS[name][0](folder)
    _watched["folder"] = folder
    return path


def test_the_corpus_holds_forty_files_and_more():
    assert len(CORPUS) >= 40


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_model_is_refused_with_the_reason_and_does_nothing(name, folder):
    path = write(name, folder)

    fault = scan_model(path)

    assert isinstance(fault, Fault)
    assert re.search(CORPUS[name][1], fault.reason), fault.reason
    assert len(fault.reason) < 250 and "\n" not in fault.reason


HARD = [
    "lambda layer (CVE-2024-3660)",
    "class of any module (CVE-2025-1550)",
    "hdf5_with_data_in_another_file",
    "model_in_a_folder",
    "pipe",
]


@pytest.mark.parametrize("name", HARD)
def test_no_way_to_a_model_leaves_out_the_scan(name, folder):
    path = write(name, folder)
    reason = CORPUS[name][1]

    with pytest.raises(LoadError, match=reason):
        load_keras_model(path)
    with pytest.raises(LoadError, match=reason):
        try_loading(path)
    with pytest.raises(
        WeightsError, match=reason.replace("'Popen', which", "layer Popen") + "|Pop"
    ):
        load_own_model(path)
    with pytest.raises(DataError):
        load_model(path)


def test_keras_is_called_in_one_module_which_scans_first():
    callers = {}
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in nodes_of(path) if re.search("load_model|safe_mode", text) else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("saving.load_model"):
                safe = {k.arg: ast.unparse(k.value) for k in node.keywords}
                callers.setdefault(path.name, []).append(safe)
            assert not (isinstance(node, ast.keyword) and node.arg == "safe_mode") or (
                ast.unparse(node.value) == "True"
            )

    safe = {"compile": "False", "safe_mode": "True"}
    assert callers == {"loading.py": [safe], "loading_process.py": [safe]}


@pytest.mark.parametrize("name", ["x.h5", "x.hdf5", "x.pb", "x", "x.pkl"])
def test_a_recipe_takes_no_other_file_for_a_base_than_a_keras_file(name, tmp_path):
    values = {
        "version": 1,
        "name": "x",
        "data": {"train": str(tmp_path)},
        "model": {"base": {"model": str(tmp_path / name)}},
        "phases": [{"name": "head", "epochs": 1}],
    }

    with pytest.raises(RecipeError, match=r"expected a file that ends in \.keras, got 'x"):
        build_recipe(values)


@pytest.mark.parametrize(
    "name",
    [
        "zip_bomb_of_weights",
        "hdf5_shape_bomb_of_cve_2026_0897",
        "hdf5_of_two_tensors_just_under_the_limit_of_keras",
        "hdf5_link_to_another_file_of_cve_2026_1669",
        "hdf5_with_data_in_another_file",
        "hdf5_with_a_virtual_tensor",
        "hdf5_soft_link",
        "hdf5_of_texts",
        "member_that_is_a_link",
        "pickle_file",
        "gzip_bomb",
        "archive_cut_off",
        "saved_model",
        "pipe",
        "link_to_a_device_without_an_end",
    ],
)
def test_a_hostile_file_of_weights_is_refused_and_does_nothing(name, folder):
    path = write(name, folder)

    with pytest.raises(WeightsError):
        inspect_weights(path)


def test_weights_beside_a_hostile_config_are_read_and_it_is_not_built(folder):
    path = write("lambda layer (CVE-2024-3660)", folder)

    assert [len(weights) for weights in inspect_weights(path).layers.values()] == [2]


def test_what_keras_saves_passes(tmp_path):
    image = keras.Input((32, 32, 3))
    x = keras.ops.clip(image[:, 1:] * 2.0 + keras.ops.relu(image[:, 1:]), 0, 1)
    model = keras.Model(image, keras.layers.Conv2D(8, 3, kernel_regularizer="l2")(x))
    model.compile("sgd", "mse", metrics=["mae"])
    outer = keras.Sequential([keras.Input((32, 32, 3)), model, build_inner("gelu")])
    outer.save(tmp_path / "x.keras")

    scanned = scan_model(tmp_path / "x.keras")

    assert isinstance(scanned, ScannedModel), scanned
    assert load_keras_model(tmp_path / "x.keras").count_params() == outer.count_params()


def test_layers_that_networks_of_keras_define_themselves_pass(tmp_path):
    from keras.src.applications import convnext, inception_resnet_v2

    image = keras.Input((4, 4, 3))
    x = convnext.StochasticDepth(0.1)(convnext.LayerScale(1e-6, 3)(image))
    x = inception_resnet_v2.CustomScaleLayer(0.5)([image, x])
    keras.Model(image, x).save(tmp_path / "x.keras")

    assert isinstance(scan_model(tmp_path / "x.keras"), ScannedModel)


# What passes the scan is loaded in a child process first, which takes seconds.
HUGE = {**DENSE, "config": {"name": "dense", "units": 200_000_000}}


@pytest.mark.slow
def test_a_layer_that_asks_for_all_memory_is_refused_in_a_child_process(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    path = write_archive(tmp_path / "x.keras", describe_model(HUGE))

    with pytest.raises(LoadError, match="asks for far more memory than its weights take"):
        try_loading(path)

    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_model_that_loads_in_a_child_process_is_not_loaded_there_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    path = write_archive(tmp_path / "x.keras", describe_model(DENSE))

    try_loading(path)
    monkeypatch.setattr("subprocess.run", None)
    try_loading(path)

    assert load_keras_model(path).count_params() == 8
