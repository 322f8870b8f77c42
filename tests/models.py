"""Models, tasks and images of recipes, in one call."""

import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.heads import HeadLayers
from tl_toolkit.events import ignore
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.training import feature_values
from tl_toolkit.recipe.load import read_recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.transfer.assemble import BaseSettings, assemble


def build_transfer(base, *, classes=3, head=None, task=None, size=(32, 32), seed=0, **settings):
    """A model of random weights; `head` is a section of a recipe, `settings` are those of a base.

    Without a task it tells so many classes apart.
    """
    names = [f"class{number}" for number in range(classes)]
    task = task or Classification(names, layers_of(head))
    return assemble(BaseSettings(base, **settings), task, image_size=size, seed=seed)


def measure_parts(transfer, split):
    """The largest difference between the outputs of a model and of its parts, on two images."""
    random = np.random.default_rng(0)
    images = tf.constant(transfer.sample_images(random, 2))
    sampled = transfer.task.sample_inputs(random, 2, transfer.image.shape[1:3])
    further = [tf.constant(values) for values in sampled]  # Keras mixes no tensors and arrays
    whole = transfer.model(transfer.join_inputs(images, further), training=False)
    entering = transfer.join_inputs(split.prefix.model(images, training=False), further)
    parts = split.suffix.model(entering, training=False)
    return transfer.task.measure_differences(parts.numpy(), whole.numpy()).max()


def layers_of(head=None):
    """The layers that a section of a recipe describes."""
    return HeadLayers.from_values(head or {})


def plan_values(values, changes=()):
    """The plan of a recipe, or of its values, and its task."""
    plan = check_recipe(read_recipe(values, changes))
    return plan, build_task(plan.recipe, plan.classes)


def build_trainer(plan, task, folder):
    """A trainer of its own for a plan, and the images of each split."""
    from tl_toolkit.features.settings import FeatureSettings
    from tl_toolkit.training import prepare
    from tl_toolkit.training.compiled import CompiledPhases

    _, images = prepare.survey_images(plan, task, RunFolder(folder), ignore)
    compiled = CompiledPhases(prepare.assemble_model(plan, task, ignore))
    features = FeatureSettings.from_values(feature_values(plan.recipe))
    return prepare.build_trainer(compiled, features, images), images
