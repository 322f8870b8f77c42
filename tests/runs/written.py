"""Run folders as a fine-tune writes them, made without one."""

import contextlib
import csv

from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.recipe.load import build_recipe, dump_recipe
from tl_toolkit.runs.files import write_json
from tl_toolkit.runs.places import create_run, point_latest

CLASSES = ("ant", "bee")

HISTORY = """phase,epoch,learning_rate,loss,accuracy,val_loss,val_accuracy,regularization_loss
head,0,0.001,,,1.2,0.25,0.0
head,1,0.001,1.1,0.5,0.9,0.75,0.0
head,2,0.0005,0.9,0.5,1.0,0.5,0.0
"""


def write_run(root, name="photos", *, accuracy=0.75, error=None, start=None, changes=(), **options):
    """Writes a run of LeNet-5; with an error one that it ended before there was a model."""
    recipe = build_recipe(
        {
            "version": 1,
            "name": name,
            "data": {"train": "photos", "image_size": 32},
            "model": {"base": "lenet5", "weights": "random"},
            "phases": [{"name": "head", "epochs": 3}],
        },
        changes,
    ).recipe
    ended = contextlib.nullcontext() if error is None else contextlib.suppress(type(error))
    with ended, create_run(name, root=root, **options) as folder:
        folder.recipe.write_text(dump_recipe(recipe))
        folder.phase(0, "head").mkdir(parents=True)
        folder.history(0, "head").write_text(HISTORY)
        begun = None if start is None else {"run": str(start.path)}
        numerics = {"versions": {"keras": "3.15.1"}}
        write_json(folder.lock, {"seed": 7, "start": begun, "numerics": numerics})
        if error is not None:
            raise error
        folder.model.write_bytes(b"x" * 1000)
        measured = {"images": 4, "accuracy": accuracy, "intervals": {"accuracy": [0.3, 0.95]}}
        write_json(folder.metrics, {"best": {"phase": "head", "epoch": 1}, "validation": measured})
    point_latest(folder, root=root, name=name)
    return folder


def write_predictions(folder, rows, *, split="test"):
    """Writes what a run predicted: (content of an image, its label, the predicted class)."""
    examples, cells = [], []
    for place, (content, label, predicted) in enumerate(rows):
        path = f"{folder.path.name}/{place}.png"
        examples.append(Example(path, content, split, (label,)))
        shares = [float(name == predicted) for name in CLASSES]
        cells.append([path, split, label, predicted, 1.0, *shares])
    Manifest(tuple(examples), CLASSES).save(folder.manifest)
    write_json(folder.classes, list(CLASSES))
    with open(folder.predictions, "w", newline="") as file:
        columns = [f"probability_{name}" for name in CLASSES]
        titles = ["path", "split", "label", "predicted", "probability", *columns]
        csv.writer(file).writerows([titles, *cells])
