"""The feature store: it makes runs faster and changes no bit of them."""

import errno
import json
import shutil
import subprocess

import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tests.command import TLTOOL, tltool, tltool_process
from tests.conftest import draw_class_folders
from tests.models import plan_values
from tl_toolkit.architectures.batches import FixedBatch
from tl_toolkit.catalog.lookup import resolve_unfreeze
from tl_toolkit.errors import RecipeError
from tl_toolkit.events import ignore
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.features.shards import ShardWriter
from tl_toolkit.features.source import FeatureSource
from tl_toolkit.features.store import FeatureCache
from tl_toolkit.plan.training import feature_values
from tl_toolkit.recipe.schema import UnfreezeFrom
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import derive_seed, numerics
from tl_toolkit.training.optimizers import build_optimizer
from tl_toolkit.training.prepare import assemble_model, load_images, scan_images, survey_images
from tl_toolkit.training.seeds import phase_seed
from tl_toolkit.transfer.freezing import digest_variables, split_at
from tl_toolkit.transfer.heads import initialize_head

PHASES = (
    {"name": "head", "epochs": 2, "learning_rate": 1e-2},
    {"name": "tune", "epochs": 2, "unfreeze": 1, "learning_rate": 3e-3},
)


def recipe_of(photos, **sections):
    """LeNet-5 on photos: 3 classes of 7 and 2 images, in batches of 8."""
    return {
        "version": 1,
        "name": "photos",
        "data": {"train": str(photos), "validation": 0.25, "image_size": 32, "batch_size": 8},
        "model": {"base": "lenet5", "weights": "random", "head": {"dropout": 0.4}},
        "phases": list(PHASES),
        "export": False,
        "report": False,
        "yardsticks": False,
    } | sections


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_class_folders(tmp_path_factory.mktemp("photos") / "all", count=9)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A store of the test's own, empty."""
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    return FeatureCache()


class Listener:
    """Keeps the sentences of a run, and how many images it computed."""

    def __init__(self):
        self.sentences = []
        self.images = 0

    def handle(self, event):
        if event.text:
            self.sentences.append(event.text)
        if event.kind == "features_computed":
            self.images = event.total


def outcome(run):
    """All that must be equal: every history to the last digit, and all weights."""
    histories = [path.read_text() for path in sorted(run.path.glob("phases/*/history.csv"))]
    predictions = (run.path / "predictions.csv").read_text()
    return histories, predictions, run.metrics["weights_sha256"]


def finetune(recipe, out, store="always", callbacks=(), **features):
    listener = Listener()
    recipe = recipe | {"features": {"store": store, **features}}
    run = tl.finetune(recipe, out=out, progress=listener.handle, callbacks=list(callbacks))
    return run, listener


class Epochs(keras.callbacks.Callback):
    """Keeps the logs and the weights of each epoch."""

    def __init__(self):
        super().__init__()
        self.ended = []

    def on_epoch_end(self, epoch, logs=None):
        weights = [layer.get_weights() for layer in self.model.layers if layer.weights]
        self.ended.append((epoch, logs, weights))


@pytest.fixture(scope="module")
def without_store(photos, tmp_path_factory):
    """The outcome of the recipe without the store, its epochs and what was heard."""
    epochs, out = Epochs(), tmp_path_factory.mktemp("live") / "run"
    run, listener = finetune(recipe_of(photos), out, "never", [epochs])
    return outcome(run), epochs.ended, listener


@pytest.fixture(scope="module")
def live(without_store):
    """The outcome of the recipe without the store."""
    return without_store[0]


def fill(folder, recipe, **features):
    """Runs a recipe with a store of its own; returns the store, the outcome and what was heard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_TOOLKIT_CACHE", str(folder / "cache"))
        run, listener = finetune(recipe, folder / "run", **features)
        return FeatureCache(), outcome(run), listener


@pytest.fixture(scope="module")
def filled(photos, tmp_path_factory):
    """The store that the recipe fills."""
    return fill(tmp_path_factory.mktemp("filled"), recipe_of(photos))


def test_a_run_with_the_store_equals_one_without_it_bit_for_bit(
    tmp_path, photos, live, filled, monkeypatch
):
    store, cold, _ = filled
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(store.root.parent))

    warm, listener = finetune(recipe_of(photos), tmp_path / "warm")

    assert live == cold == outcome(warm)
    assert listener.images == 0


@pytest.mark.slow
@pytest.mark.parametrize("unfreeze", [0, 2, {"from": "c5"}])
def test_so_it_is_at_every_depth(tmp_path, photos, cache, unfreeze):
    recipe = recipe_of(photos, phases=[PHASES[0], PHASES[1] | {"unfreeze": unfreeze}])

    live, _ = finetune(recipe, tmp_path / "live", "never")
    cold, _ = finetune(recipe, tmp_path / "cold")
    warm, listener = finetune(recipe, tmp_path / "warm")

    assert outcome(live) == outcome(cold) == outcome(warm)
    assert listener.images == 0


def test_one_pass_fills_the_cuts_of_all_phases(filled):
    store, _, listener = filled

    (sentence,) = [text for text in listener.sentences if text.startswith("features")]
    assert "before f6, head ran" in sentence and "ran once for 27 images" in sentence
    assert len(store.shards()) == 4  # two cuts of two splits


@pytest.mark.slow
def test_the_momentum_of_moving_statistics_hangs_no_feature_on_it(tmp_path, photos, cache):
    model = {"base": "vgg_tiny", "weights": "random"}
    head = {"name": "head", "epochs": 0}
    tune = {"name": "tune", "epochs": 0, "unfreeze": 1, "batch_norm": "train"}
    first = recipe_of(photos, model=model, phases=[head, tune])
    _, listener = finetune(first, tmp_path / "first")
    assert listener.images == 27

    phases = [head, tune | {"batch_norm_momentum": 0.5}]
    _, listener = finetune(first | {"phases": phases}, tmp_path / "second")

    assert listener.images == 0


@pytest.mark.slow
def test_deeper_features_are_computed_from_shallower_ones(
    tmp_path, photos, live, cache, monkeypatch
):
    finetune(
        recipe_of(photos, phases=[PHASES[1] | {"unfreeze": 2, "epochs": 0}]), tmp_path / "first"
    )
    from tl_toolkit.images.pipeline import Images

    def refuse(*_):
        raise AssertionError("An image was decoded.")

    monkeypatch.setattr(Images, "load", refuse)
    chained, listener = finetune(recipe_of(photos), tmp_path / "chained")

    assert listener.images == 27
    assert outcome(chained) == live


@pytest.mark.slow
def test_a_phase_after_tuned_units_sees_their_new_outputs(tmp_path, photos, cache):
    again = {"name": "again", "epochs": 1, "learning_rate": 1e-2}
    recipe = recipe_of(photos, phases=[*PHASES, again])

    live, _ = finetune(recipe, tmp_path / "live", "never")
    stored, _ = finetune(recipe, tmp_path / "stored")

    assert outcome(live) == outcome(stored)


def refuse_photos(really_open):
    """The function that opens files, but for photos."""

    def refuse(path, *rest, **settings):
        assert not str(path).endswith(".jpg"), path
        return really_open(path, *rest, **settings)

    return refuse


@pytest.mark.slow
def test_a_second_run_opens_no_image(tmp_path, photos, cache, monkeypatch):
    # A file that was changed this very moment is never taken for known.
    monkeypatch.setattr("tl_toolkit.sources.known_files._YOUNG", 0)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(recipe_of(photos, features={"store": "always"})))
    tltool("finetune", recipe, "--out", "first", cwd=tmp_path)

    changes = ["model.head.dropout=0.1", "phases.head.learning_rate=0.02"]
    monkeypatch.setattr("builtins.open", refuse_photos(open))
    tltool("finetune", recipe, *changes, "--out", "second", cwd=tmp_path)
    monkeypatch.undo()

    assert tl.load_run(tmp_path / "second").metrics["best"]["val_loss"] > 0


@pytest.mark.slow
def test_an_image_that_is_added_is_all_that_is_computed(tmp_path, photos, cache, draw_photos):
    photos = shutil.copytree(photos, tmp_path / "photos")
    validation = draw_photos(tmp_path / "validation", count=2, seed=5)
    recipe = recipe_of(photos)
    recipe["data"] = recipe["data"] | {"validation": str(validation)}
    finetune(recipe, tmp_path / "first")
    draw_photos(tmp_path / "more", count=1, seed=9)
    (tmp_path / "more" / "bees" / "0.jpg").rename(photos / "bees" / "new.jpg")

    more, listener = finetune(recipe, tmp_path / "second")
    live, _ = finetune(recipe, tmp_path / "live", "never")

    assert listener.images == 1
    assert outcome(more) == outcome(live)


@pytest.mark.slow
def test_a_pass_for_cuts_that_lack_different_images_mixes_none_up(tmp_path, photos, cache, live):
    # Of the last class nothing is stored, and of the head's cut nothing at all.
    recipe = recipe_of(photos)
    few = {**recipe, "data": recipe["data"] | {"classes": ["ants", "bees"]}}
    finetune({**few, "phases": [PHASES[1] | {"epochs": 0}]}, tmp_path / "few")

    run, listener = finetune(recipe, tmp_path / "all")

    assert listener.images and outcome(run) == live


@pytest.mark.slow
def test_views_that_are_stored_equal_those_that_are_computed_live(tmp_path, photos, cache):
    recipe = recipe_of(photos, augment={"flip": "horizontal", "rotation": 0.1})

    endless, listener = finetune(recipe, tmp_path / "endless", "auto")
    stored, _ = finetune(recipe, tmp_path / "stored", views=2)
    live, _ = finetune(recipe, tmp_path / "live", "never", views=2)
    fewer, _ = finetune(recipe, tmp_path / "fewer", views=1)

    assert any("augments the images anew" in text for text in listener.sentences)
    assert outcome(stored) == outcome(live) != outcome(fewer)
    assert outcome(endless) != outcome(stored)


FLIPPED = {"phases": [PHASES[0] | {"epochs": 1}], "augment": {"flip": "horizontal"}}


@pytest.fixture(scope="module")
def one_view(photos, tmp_path_factory):
    """The store of one view of each image."""
    return fill(tmp_path_factory.mktemp("view"), recipe_of(photos, **FLIPPED), views=1)[0]


@pytest.mark.slow
def test_views_that_are_complete_make_no_room_for_the_rest(tmp_path, photos, one_view, cache):
    shutil.copytree(one_view.root, cache.root)
    before = {shard.path: shard.size for shard in cache.shards()}
    budget = sum(before.values()) + 100

    _, listener = finetune(
        recipe_of(photos, **FLIPPED), tmp_path / "second", views=2, max_gb=budget / 1e9
    )

    (sentence,) = [text for text in listener.sentences if text.startswith("features")]
    assert sentence.endswith("GB do not fit into features.max_gb or on the disk")
    assert {shard.path: shard.size for shard in cache.shards()} == before


@pytest.mark.slow
def test_views_that_are_complete_are_read_beside_those_that_are_added(
    tmp_path, photos, one_view, cache
):
    shutil.copytree(one_view.root, cache.root)
    first = {shard.path for shard in cache.shards()}

    _, listener = finetune(recipe_of(photos, **FLIPPED), tmp_path / "second", views=2)

    assert listener.images == 21  # the second view of the training images alone
    assert first < {shard.path for shard in cache.shards()}


def test_views_need_augmentation_and_a_store_of_augmented_images_needs_views(photos):
    augment = {"flip": "horizontal"}
    with pytest.raises(RecipeError, match=r"features\.views = 2\n  expected a section augment"):
        tl.finetune(recipe_of(photos, features={"views": 2}))
    with pytest.raises(RecipeError, match="expected a number of views"):
        tl.finetune(recipe_of(photos, augment=augment, features={"store": "always"}))


@pytest.mark.slow
def test_float16_halves_the_store_and_is_equal_live(tmp_path, photos, cache):
    full, _ = finetune(recipe_of(photos), tmp_path / "full")
    whole = sum(shard.size for shard in cache.shards())
    cache.clear()

    half, _ = finetune(recipe_of(photos), tmp_path / "half", dtype="float16")
    live, _ = finetune(recipe_of(photos), tmp_path / "live", "never", dtype="float16")

    assert sum(shard.size for shard in cache.shards()) < 0.6 * whole
    assert outcome(half) == outcome(live) != outcome(full)


@pytest.mark.slow
def test_a_folded_prefix_is_nearly_equal_and_equal_live(tmp_path, photos, cache):
    plain, _ = finetune(recipe_of(photos), tmp_path / "plain")

    folded, _ = finetune(recipe_of(photos), tmp_path / "folded", folded=True)
    live, _ = finetune(recipe_of(photos), tmp_path / "live", "never", folded=True)

    assert outcome(folded) == outcome(live)
    best = [run.metrics["best"]["val_loss"] for run in (plain, folded)]
    assert best[0] == pytest.approx(best[1], rel=1e-3)


@pytest.mark.slow
def test_an_unfrozen_stem_runs_live_and_says_so(tmp_path, photos, cache):
    recipe = recipe_of(photos, phases=[PHASES[1] | {"unfreeze": 4}])

    _, listener = finetune(recipe, tmp_path / "run")

    assert any("none of them has weights" in text for text in listener.sentences)
    assert not cache.shards()


@pytest.mark.slow
def test_a_store_without_room_steps_aside(tmp_path, photos, live, cache):
    run, listener = finetune(recipe_of(photos), tmp_path / "run", max_gb=1e-9)

    assert any("do not fit into features.max_gb" in text for text in listener.sentences)
    assert outcome(run) == live
    assert not cache.shards()


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_costs_speed_only(tmp_path, photos, monkeypatch):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "features").write_text("a file in the way")
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))

    run, listener = finetune(recipe_of(photos), tmp_path / "run")

    assert any("cannot be written" in text for text in listener.sentences)
    assert run.metrics["best"]["val_loss"] > 0


@pytest.mark.slow
def test_an_error_of_the_handler_is_no_fault_of_the_store(tmp_path, photos, cache):
    def handle(event):
        if event.kind == "features_computed":
            raise OSError("mine")

    with pytest.raises(OSError, match="^mine$"):
        tl.finetune(
            recipe_of(photos, features={"store": "always"}), out=tmp_path / "run", progress=handle
        )


@pytest.mark.slow
def test_a_disk_that_runs_full_costs_one_pass_not_two(tmp_path, photos, cache, monkeypatch):
    def run_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Counter(Listener):
        batches = before_training = 0

        def handle(self, event):
            super().handle(event)
            if event.kind == "features_computed":
                self.batches += 1
            elif event.kind == "phase_began":
                self.before_training = self.batches

    monkeypatch.setattr(ShardWriter, "finish", run_full)
    recipe = recipe_of(photos, phases=PHASES[:1], features={"store": "always"})
    listener = Counter()

    tl.finetune(recipe, out=tmp_path / "run", progress=listener.handle)

    assert any("No space left on device" in text for text in listener.sentences)
    assert listener.before_training == 1  # the 21 images of train are one batch


def test_auto_does_not_store_what_is_cheaper_to_compute(tmp_path, photos, cache):
    plan, task = plan_values(recipe_of(photos))
    transfer = assemble_model(plan, task, ignore)
    _, images = survey_images(plan, task, RunFolder(tmp_path / "run"), ignore)
    settings = FeatureSettings.from_values(feature_values(plan.recipe))
    split = split_at(transfer, resolve_unfreeze(transfer.architecture, UnfreezeFrom(unit="c3")))
    listener = Listener()

    source = FeatureSource(transfer, settings, images, listener.handle)
    source.at(split, digest_variables(transfer), passes=2)

    assert any("would not be faster" in text for text in listener.sentences)


def test_layers_that_run_in_every_epoch_are_told_once_for_all_phases(without_store):
    _, _, listener = without_store

    told = [text for text in listener.sentences if text.startswith("features: ")]
    assert told == ["features: the frozen layers run in every epoch: features.store is never"]


@pytest.mark.slow
def test_weights_that_change_are_never_taken_for_stored_ones(tmp_path, photos, cache):
    finetune(recipe_of(photos), tmp_path / "first")

    _, listener = finetune(recipe_of(photos, seed=1), tmp_path / "second")

    assert listener.images == 27


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("unfreeze", [0, {"from": "conv5_block3"}, {"from": "conv4_block6"}])
def test_resnet50_is_equal_bit_for_bit(tmp_path, photos, cache, threads, unfreeze):
    """Its kernels choose their algorithm by batch size: MobileNet would hide a mistake."""
    tune = PHASES[1] | {"unfreeze": unfreeze, "batch_norm": "train", "epochs": 1}
    model = {"base": "resnet50", "weights": "random", "head": {"dropout": 0.4}}
    recipe = recipe_of(photos, phases=[PHASES[0], tune], model=model)
    recipe["data"] = recipe["data"] | {"image_size": 64}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))

    for store in ("never", "always"):
        out = ["--out", store, "--threads", threads]
        tltool_process("finetune", path, f"features.store={store}", *out, cwd=tmp_path)

    runs = [tl.load_run(tmp_path / store) for store in ("never", "always")]
    assert outcome(runs[0]) == outcome(runs[1])
    assert len(cache.shards()) == (2 if unfreeze == 0 else 4)


@pytest.mark.slow
def test_processes_may_share_the_store(tmp_path, photos, cache):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe_of(photos, features={"store": "always"})))
    commands = [
        [TLTOOL, "finetune", str(path), "--out", str(tmp_path / str(number))] for number in range(4)
    ]

    running = [subprocess.Popen(command) for command in commands]

    assert [process.wait() for process in running] == [0, 0, 0, 0]
    runs = [tl.load_run(tmp_path / str(number)) for number in range(4)]
    assert len({outcome(run)[2] for run in runs}) == 1
    assert not list(cache.root.glob("*/.draft-*"))


def test_the_compiled_loop_is_keras_fit_bit_for_bit(tmp_path, photos, without_store):
    plan, task = plan_values(recipe_of(photos))
    recipe = plan.recipe
    manifest = scan_images(plan, task, RunFolder(tmp_path / "scan"))
    images = load_images(plan, task, manifest)["train"]
    transfer = assemble_model(plan, task, ignore)
    seed = phase_seed(recipe.seed, "order", 0)
    initialize_head(transfer.parts[-1].layers, phase_seed(recipe.seed, "head", 0))
    transfer.model.trainable = False
    transfer.model.get_layer("predictions").trainable = True
    dropout = transfer.model.get_layer("head_dropout")
    masks = phase_seed(recipe.seed, "dropout", 0)
    dropout.seed_generator.state.assign([derive_seed(masks, "head_dropout"), 0])
    head = keras.Model(transfer.parts[-1].inputs[0], transfer.model.output)
    base = FixedBatch(keras.Model(transfer.model.input, transfer.parts[-1].inputs[0]))
    with numerics(deterministic=True):
        rows = base(images.load(np.arange(len(images)))).numpy()
        head.compile(build_optimizer(recipe.phases[0]), "sparse_categorical_crossentropy")
        for epoch in (1, 2):
            order = np.random.default_rng((seed, epoch)).permutation(len(images))
            labels = images.targets[order]
            head.fit(rows[order], labels, batch_size=8, shuffle=False, verbose=0)

    number, logs, weights = without_store[1][1]  # of the first phase
    assert number == 1 and set(logs) >= {"loss", "val_loss", "val_accuracy"}
    for mine, theirs in zip(weights[-1], head.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
