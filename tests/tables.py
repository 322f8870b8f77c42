"""Small rendered images with tables of labels and of numbers, and recipes that learn them."""

import csv

import numpy as np
from PIL import Image

from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe import Recipe

CLASSES = ("blue", "green", "red")
PLACES = {"red": (2, 2, 0), "green": (20, 2, 1), "blue": (11, 20, 2)}
"""Row, column and channel of the square of each class."""


def draw_labels(random):
    """Renders dark noise with a bright square for each class of the image."""
    names = [name for name in CLASSES if random.random() < 0.5]
    pixels = random.integers(0, 60, (32, 32, 3)).astype(np.uint8)
    for name in names:
        row, column, channel = PLACES[name]
        pixels[row : row + 10, column : column + 10, channel] += 180
    return pixels, names


def draw_numbers(random):
    """Renders a bar, as high as `size` and as bright as `dose`, whose ranges differ much."""
    height, light = random.uniform(4, 28), random.random()
    pixels = random.integers(0, 20, (32, 32, 3)).astype(np.uint8)
    pixels[: int(height)] = 40 + 200 * light
    return pixels, [round(1000 + 10 * height, 2), round(light / 1000, 7)]


def draw_tables(folder, count=32):
    """Renders both kinds of images; writes labels.csv, flags.csv and numbers.csv beside them."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    tables = {
        "labels": [("path", "labels")],
        "flags": [("path", *CLASSES)],
        "numbers": [("path", "size", "dose")],
    }
    for number in range(count):
        for kind, draw in (("labels", draw_labels), ("numbers", draw_numbers)):
            pixels, targets = draw(random)
            path = f"images/{kind}{number}.png"
            Image.fromarray(pixels).save(folder / path)
            if kind == "numbers":
                tables[kind].append((path, *targets))
            else:
                tables[kind].append((path, "|".join(targets)))
                tables["flags"].append((path, *(int(name in targets) for name in CLASSES)))
    for name, rows in tables.items():
        write_table(folder / f"{name}.csv", rows)
    return folder


def write_table(path, rows):
    """Writes a table; returns its path."""
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def make_recipe(task, table, **sections):
    """Returns the values of a recipe that trains LeNet-5 on a table, with sections replaced."""
    return {
        "version": 1,
        "name": "table",
        "task": task,
        "data": {
            "csv": str(table),
            "validation": 0.25,
            "image_size": 32,
            "batch_size": 4,
            "links": "follow",
        },
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "all", "epochs": 20, "learning_rate": 0.003, "unfreeze": 4}],
        "export": False,
        "report": False,
    } | sections


def plan_data(task="classification", **data):
    """Returns the light half of the task of a recipe with this data."""
    recipe = Recipe(
        version=1,
        name="x",
        task=task,
        data={"image_size": 32, **data},
        model={"base": "lenet5", "weights": "random"},
        phases=[{"name": "head", "epochs": 1}],
    )
    return plan_task(recipe)


def list_recipe(task="classification", **data):
    """Returns the listing of a recipe with this data, and the problems of it."""
    survey = plan_data(task, **data).survey()
    return survey.list_files(), list(survey.problems)
