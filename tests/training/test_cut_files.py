"""Files that end too early are refused, or hold what they held: at every length."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from tests.runs.written import write_run
from tl_toolkit.api.run import Run
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.features.store import FeatureCache
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.recipe.load import load_recipe
from tl_toolkit.runs.files import write_json
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.lock_files import inspect
from tl_toolkit.runs.locks import hold
from tl_toolkit.training.checkpoint import BestState, Epoch
from tl_toolkit.training.outcome import FinishedPhase, Paused
from tl_toolkit.training.resume import load_paused, save_paused
from tl_toolkit.tuning.journal import Journal, Trial


def lengths(path, step=1):
    """Cuts a file to each of its lengths in turn, and makes it whole at the end."""
    whole = path.read_bytes()
    for length in range(0, len(whole), step):
        path.write_bytes(whole[:length])
        yield length, whole
    path.write_bytes(whole)


def test_a_state_is_refused(tmp_path):
    best = BestState.of(
        Epoch("head", 1, 0.1, 0.5, 0.5, 0.4, 0.9), {"w": np.ones(2)}, keep_start=False
    )
    path = tmp_path / "1.npz"
    save_paused(Paused((FinishedPhase((), {}, best),), best, None), path, batch_size=8)

    for _ in lengths(path):
        with pytest.raises(DataError, match="holds no state of a training"):
            load_paused(path)

    assert load_paused(path)[0].best.arrays["w"].tolist() == [1, 1]


def test_stored_features_are_computed_again_or_right(tmp_path):
    images = [bytes([number]) * 32 for number in range(3)]
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    entry = FeatureCache(tmp_path).entry("ab")
    with entry.write(images, [(2,)], "float32", "test") as writer:
        writer.add([values])
    (shard,) = entry.folder.iterdir()
    files = {path: path.read_bytes() for path in shard.iterdir()}

    missed = 0
    for path in files:
        for _ in lengths(path):
            stored = FeatureCache(tmp_path).entry("ab").read(images)
            missed += stored is None
            assert stored is None or np.array_equal(stored.take(np.arange(3))[0], values)
            for other, content in files.items():  # a torn shard is deleted
                shard.mkdir(exist_ok=True)
                other.write_bytes(content)

    assert len(files) == 3 and missed > len(files[shard / "0.npy"])


def test_the_files_of_a_run_and_a_search_are_refused(tmp_path):
    folder, trial = RunFolder(tmp_path), Trial(1, {"a": 1}, "completed", 0.5, None, "ff", 1.0, 1.0)
    journal = Journal(folder)
    journal.add(trial)
    path = folder.trials / "00001.json"
    write_json(folder.lock, {"seed": 7})

    for length, whole in lengths(path):
        if whole[:length].strip() != whole.strip():
            with pytest.raises(DataError, match="cannot be read"):
                journal.read()
    for length, whole in lengths(folder.lock):
        if whole[:length].strip() != whole.strip():
            with pytest.raises(DataError, match="cannot be read"):
                folder.read_json(folder.lock)

    assert [asdict(it) for it in journal.read()] == [asdict(trial)]


def test_a_manifest_is_refused_also_where_a_whole_row_is_gone(tmp_path):
    folder = write_run(tmp_path)
    examples = tuple(Example(f"{n}.png", f"{n:064x}", "train", ("ant",)) for n in range(3))
    manifest = Manifest(examples, ("ant", "bee"))
    manifest.save(folder.manifest)
    write_json(folder.classes, ["ant", "bee"])
    write_json(folder.lock, {"data_sha256": manifest.digest})

    for length, whole in lengths(folder.manifest):
        if whole[:length].strip() != whole.strip():
            with pytest.raises(DataError, match="manifest"):
                Run(folder)._read_manifest()

    assert Run(folder)._read_manifest() == manifest


def test_a_recipe_is_refused_or_prepares_images_alike(tmp_path):
    folder = write_run(tmp_path)
    recipe = load_recipe(folder.recipe).recipe

    refused = 0
    for _, _ in lengths(folder.recipe, step=5):
        try:
            cut = load_recipe(folder.recipe).recipe
        except RecipeError:
            refused += 1
        else:
            assert (cut.data, cut.task) == (recipe.data, recipe.task)

    assert refused


def test_a_lock_holds_nobody_off_for_long(tmp_path):
    with hold(tmp_path):
        named = (tmp_path / ".writing").read_bytes()
    assert json.loads(named)["pid"]
    (tmp_path / ".writing").write_bytes(named)

    for _ in lengths(tmp_path / ".writing"):
        lock = inspect(tmp_path / ".writing")
        assert not lock.holder and lock.is_dead(lock.beat + 61)
