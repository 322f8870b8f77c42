"""Layers of a user's own: their code is a part of what the stored features depend on."""

import importlib
import sys

import keras
import pytest

import tl_toolkit as tl
from tests.conftest import draw_class_folders
from tests.models import plan_values
from tl_toolkit.errors import RecipeError
from tl_toolkit.events import ignore
from tl_toolkit.features.fingerprint import PrefixKeys
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.features.source import FeatureSource
from tl_toolkit.features.store import FeatureCache
from tl_toolkit.plan.training import feature_values
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.training.prepare import assemble_model, survey_images
from tl_toolkit.transfer.freezing import digest_variables, split_at

CODE = """
import keras

FACTOR = 2.0

def scale(x):
    return x * FACTOR

@keras.saving.register_keras_serializable("own")
class Own(keras.layers.Layer):
    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed

    def call(self, x):
        return scale(x)

    def get_config(self):
        return super().get_config() | {"seed": self.seed}

@keras.saving.register_keras_serializable("own")
def bend(x):
    return keras.ops.relu(x)
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Writes the user's module, and imports it as a new process would."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(code=CODE):
        (tmp_path / "own_layers.py").write_text(code)
        sys.modules.pop("own_layers", None)
        importlib.invalidate_caches()
        return importlib.import_module("own_layers")

    yield load
    sys.modules.pop("own_layers", None)


def build(layer, *, inside=False):
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(2, 3, kernel_initializer="ones", name="first")(image)
    part = keras.Sequential([keras.Input((30, 30, 2)), layer], name="part") if inside else layer
    return keras.Model(image, keras.layers.Conv2D(2, 3, name="second")(part(x)))


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    photos = draw_class_folders(tmp_path_factory.mktemp("photos"), side=32, count=4)
    return {
        "version": 1,
        "name": "own",
        "data": {"train": str(photos), "validation": 0.25, "image_size": 32, "batch_size": 8},
        "phases": [{"name": "head", "epochs": 1}],
        "features": {"store": "always"},
        "export": False,
        "report": False,
    }


def assemble(values, path):
    plan, task = plan_values(values | {"model": {"base": {"model": str(path)}}})
    return plan, task, assemble_model(plan, task, ignore)


def key_of(values, path, layer="own"):
    """The key of the outputs of a layer, with the code that is loaded now."""
    transfer = assemble(values, path)[2]
    output = transfer.model.get_layer(layer).output
    return PrefixKeys(transfer, {}).key(output, digest_variables(transfer))


CHANGES = [
    ("return scale(x)", "return scale(x) + 1"),
    ("FACTOR = 2.0", "FACTOR = 3.0"),
    ("return x * FACTOR", "return x / FACTOR"),
]


@pytest.mark.parametrize(
    ("before", "after", "inside"),
    [
        (*CHANGES[0], False),
        (*CHANGES[1], True),
        (*CHANGES[2], False),
        *(pytest.param(*CHANGES[n], n != 1, marks=pytest.mark.slow) for n in range(3)),
    ],
)
def test_features_of_a_layer_whose_code_was_changed_are_others(
    values, load, tmp_path, before, after, inside
):
    path, layer = tmp_path / "own.keras", "part" if inside else "own"
    build(load().Own(name="own"), inside=inside).save(path)

    first = key_of(values, path, layer)
    load()
    again = key_of(values, path, layer)
    load(CODE.replace(before, after))
    changed = key_of(values, path, layer)

    assert first == again != changed
    assert key_of(values, path, "first") == key_of(values, path, "first")


def test_features_of_an_activation_whose_code_was_changed_are_others(values, load, tmp_path):
    path = tmp_path / "own.keras"
    build(keras.layers.Activation(load().bend, name="own")).save(path)

    first = key_of(values, path)
    load(CODE.replace("ops.relu", "ops.tanh"))

    assert key_of(values, path) != first


def test_what_is_loaded_counts_even_if_its_file_was_edited_since(values, load, tmp_path):
    path = tmp_path / "own.keras"
    build(load().Own(name="own")).save(path)
    edited = CODE.replace("return scale(x)", "return scale(x) + 1")

    (tmp_path / "own_layers.py").write_text(edited)
    stale = key_of(values, path)
    load(edited)

    assert key_of(values, path) != stale


def test_every_setting_of_a_layer_of_the_users_own_counts(values, load, tmp_path):
    own = load().Own
    for seed in (1, 2):
        build(own(seed, name="own")).save(tmp_path / f"{seed}.keras")

    keys = {key_of(values, tmp_path / f"{seed}.keras") for seed in (1, 2)}

    assert len(keys) == 2


@pytest.mark.slow
def test_a_search_is_not_resumed_with_other_code_of_its_base(values, load, tmp_path):
    path = tmp_path / "own.keras"
    build(load().Own(name="own")).save(path)
    search = {"algorithm": "grid", "refit": 0, "space": {"model.head.dropout": {"choices": [0.0]}}}
    recipe = values | {"model": {"base": {"model": str(path)}}, "search": search}
    options = {"out": tmp_path / "search", "progress": ignore}
    tl.search(recipe, **options)

    tl.search(recipe, resume=True, **options)
    load(CODE.replace("return scale(x)", "return scale(x) + 1"))

    with pytest.raises(RecipeError, match="begun with another code of the base's layers"):
        tl.search(recipe, resume=True, **options)


@pytest.mark.slow
def test_features_of_code_that_cannot_be_read_are_computed_live_and_the_run_says_so(
    values, tmp_path, monkeypatch
):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    typed = {"__name__": "__main__"}
    exec(CODE, typed)  # as in an interactive session
    build(typed["Own"](name="own")).save(tmp_path / "own.keras")
    plan, task, transfer = assemble(values, tmp_path / "own.keras")
    _, images = survey_images(plan, task, RunFolder(tmp_path / "run"), ignore)
    settings = FeatureSettings.from_values(feature_values(plan.recipe))
    told = []
    source = FeatureSource(transfer, settings, images, lambda event: told.append(event.text))

    features = source.at(split_at(transfer, ()), digest_variables(transfer), passes=9)

    assert set(features) == {"train", "validation"}
    assert FeatureCache().shards() == []
    assert told[-1].endswith(
        "layer own: the source of Own cannot be read, and a change of it would not be noticed"
    )
