"""Pixels sampled for training belong to the images that were trained on, as these were changed."""

import numpy as np
import pytest
from PIL import Image

from tests.models import build_trainer, plan_values
from tl_toolkit.architectures.batches import as_list
from tl_toolkit.runtime import numerics, start_tensorflow

COLORS = np.array([[0, 200, 90], [50, 10, 240], [100, 90, 20], [150, 250, 130]], np.uint8)
SIZE = 64


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder of 8 images of large patches, red being 50 times the class, and their masks."""
    folder = tmp_path_factory.mktemp("scenes")
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number in range(8):
        patches = random.integers(0, len(COLORS), (4, 4), dtype=np.uint8)
        mask = np.kron(patches, np.ones((SIZE // 4, SIZE // 4), np.uint8))
        Image.fromarray(COLORS[mask]).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder


def recipe_of(scenes, **sections):
    raw = {
        "version": 1,
        "name": "scenes",
        "task": "segmentation",
        "data": {
            "train": str(scenes),
            "validation": 0.25,
            "classes": ["sky", "sea", "sand", "stone"],
            "masks": {},
            "image_size": SIZE,
            "batch_size": 4,
        },
        "model": {"base": "vgg_tiny", "weights": "random"},
        "pixels": {"per_image": 500, "taps": ["block1", "block2"]},
        "phases": [{"name": "head", "epochs": 2, "learning_rate": 1e-2}],
        "augment": {"flip": "horizontal", "rotation": 0.3, "zoom": 0.2},
        "export": False,
    }
    return raw | sections


class Trained:
    """What a phase of a recipe is trained on."""

    def __init__(self, values, folder):
        start_tensorflow()
        from tl_toolkit.images.augment import build_augment
        from tl_toolkit.plan.training import training_settings
        from tl_toolkit.training.seeds import phase_seed

        plan, task = plan_values(values)
        recipe = plan.recipe
        trainer, self.images = build_trainer(plan, task, folder)
        run = trainer._prepare(training_settings(plan), 0, trainer._initial, is_new=True)
        self.prefix = run.split.prefix
        self.features = run._features
        self.change = build_augment(recipe.augment)
        # Stored views belong to no phase.
        is_new = recipe.features.views is None
        self.seed = phase_seed(recipe.seed, "augmentation", 0) if is_new else recipe.seed

    def draw(self, split, epoch):
        """Returns features, places and classes of all images of a split."""
        order = np.arange(len(self.images[split]))
        rows, classes = zip(*self.features[split].chunks(order, 4, epoch=epoch), strict=True)
        rows = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        return rows[:-1], rows[-1].astype(int), np.concatenate(classes)

    def find_images(self, features, numbers):
        """Returns the training images, changed, that features are of, and with which number."""
        train = self.images["train"]
        pixels = train.load(np.arange(len(train)))
        for number in numbers:
            changed = self.change(pixels, self.seed, number, train.keys)
            if all(map(np.array_equal, as_list(self.prefix(changed)), features)):
                return changed.numpy(), number
        raise AssertionError("These features are of none of these images.")


@pytest.fixture(scope="module", autouse=True)
def settled():
    with numerics(deterministic=True):
        yield


@pytest.fixture(scope="module")
def live(scenes, tmp_path_factory):
    return Trained(recipe_of(scenes), tmp_path_factory.mktemp("run"))


def compare(images, places, classes):
    """Returns how often a class is what the image shows at its place, away from borders."""
    shown = np.round(images[..., 0] / 50)
    around = np.pad(shown, ((0, 0), (1, 1), (1, 1)), mode="edge")
    shifts = [around[:, y : y + SIZE, x : x + SIZE] for y in range(3) for x in range(3)]
    inner = (np.stack(shifts) == shown).all(axis=0)
    image = np.arange(len(images))[:, np.newaxis]
    ys, xs = np.moveaxis(places, -1, 0)
    chosen = inner[image, ys, xs]
    assert chosen.mean() > 0.5
    return (shown[image, ys, xs] == classes)[chosen].mean()


@pytest.mark.slow
def test_classes_are_those_of_the_images_as_each_epoch_changes_them(live):
    for epoch in (1, 2):
        features, places, classes = live.draw("train", epoch)
        images, number = live.find_images(features, (2, 1))

        assert number == epoch
        assert compare(images, places, classes) >= 0.99


@pytest.mark.slow
def test_classes_are_those_of_the_stored_view_that_is_read(scenes, tmp_path):
    features = {"store": "always", "views": 2}
    trained = Trained(recipe_of(scenes, features=features), tmp_path)

    for epoch, view in ((1, 1), (2, 2), (3, 1), (6, 2)):
        features, places, classes = trained.draw("train", epoch)
        images, number = trained.find_images(features, range(1, 7))

        assert number == view
        assert compare(images, places, classes) >= 0.99


@pytest.mark.slow
def test_evaluation_moves_no_mask(live):
    for split in ("train", "validation"):
        _, places, classes = live.draw(split, 0)
        targets = live.images[split].targets

        for index, (place, actual) in enumerate(zip(places, classes, strict=True)):
            np.testing.assert_array_equal(targets.resized(index)[tuple(place.T)], actual)


@pytest.mark.slow
def test_masks_of_images_that_nothing_changes_stay(scenes, tmp_path):
    trained = Trained(recipe_of(scenes, augment=None), tmp_path)

    _, places, classes = trained.draw("train", 1)

    images = trained.images["train"].load(np.arange(len(classes)))
    assert compare(images, places, classes) == 1
