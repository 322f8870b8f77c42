"""Small pictures of balls, with targets for each pixel, and a recipe that learns them.

    python tests/pixels.py recipes/data/balls

draws what the shipped recipes of balls take: 40 pictures to learn from, 20 to choose the epoch, 40
to measure.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
TASKS = ["segmentation", "edges", "normals"]


def draw_ball(random, radius=(12, 18)):
    """A shaded ball on a plane: its image, mask, outline and normals (x right, y up)."""
    margin = radius[1] + 4
    y, x = random.uniform(margin, SIDE - margin, 2)
    radius = random.uniform(*radius)
    ys, xs = np.mgrid[:SIDE, :SIDE]
    across, up = (xs - x) / radius, (y - ys) / radius
    inside = across**2 + up**2 < 1
    towards = np.sqrt(np.clip(1 - across**2 - up**2, 0, 1))
    normals = np.where(inside[..., None], np.stack([across, up, towards], -1), [0, 0, 1.0])
    outline = np.abs(np.hypot(across, up) - 1) < 0.8 / radius
    image = np.where(inside[..., None], 128 + 100 * normals * [1, 1, 0] + [0, 0, 90], [40, 70, 50])
    image += random.normal(0, 6, image.shape)
    return (
        image.clip(0, 255).astype(np.uint8),
        {
            "segmentation": inside.astype(np.uint8),
            "edges": (outline * 255).astype(np.uint8),
            "normals": ((normals + 1) / 2 * 255).round().astype(np.uint8),
        },
    )


def draw_balls(folder, *, train=10, validation=4, test=0, radius=(12, 18)):
    """Renders a folder for each task, with the same images."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        for number in range(count):
            image, targets = draw_ball(random, radius)
            for task, target in targets.items():
                for kind, pixels in (("images", image), ("masks", target)):
                    path = folder / task / split / kind / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(path)
    return folder


def make_recipe(task, folder, **sections):
    """Returns a recipe for the images of `draw_balls`, with sections replaced."""
    data = {name: str(folder / task / name) for name in ("train", "validation")}
    return {
        "version": 1,
        "name": task,
        "task": task,
        "data": {
            **data,
            "image_size": SIDE,
            "classes": ["plane", "ball"] if task == "segmentation" else None,
        },
        # Few layers: what a small run takes is the tracing of its functions.
        "model": {
            "base": "vgg_tiny",
            "weights": "random",
            "head": {"hidden": [{"units": 32}]},
        },
        "pixels": {"per_image": 500, "normalize": True},
        "phases": [
            {"name": "head", "epochs": 4, "learning_rate": 1e-2},
            # Random weights die out with depth unless BatchNormalization trains.
            {
                "name": "tune",
                "epochs": 1,
                "learning_rate": 1e-3,
                "unfreeze": {"from": "block3"},
                "batch_norm": "train",
            },
        ],
        "export": False,
        "report": False,
        **sections,
    }


if __name__ == "__main__":
    draw_balls(Path(sys.argv[1]), train=40, validation=20, test=40)
