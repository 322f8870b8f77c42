"""Renders the images of the documentation's examples: balls, boxes, cones and rings on a floor.

    python docs/images.py photos        # photos/ball/00.png, ... and unseen/: images of one thing
    python docs/images.py tables        # tables/photos/ with labels.csv and numbers.csv
    python docs/images.py scenes        # scenes/train, val, test: images/, masks/, edges/, normals/
    python docs/images.py fields        # fields/dry/00.npy, ...: blue, green, red, near infrared

The same images each time.
"""

from __future__ import annotations

import colorsys
import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ("ball", "box", "cone", "ring")
SIDE = 96
_SUPERSAMPLED = 2  # for smooth outlines
_PITCH = np.radians(35)  # of the camera, which looks down on the floor
_STEPS = 48  # at most
_NEAR = 2e-3
_BOUND = 1.6  # radii; the corners of a box are farthest from its centre, 1.51
_RIGHT = np.array([1.0, 0, 0])
_UP = np.array([0, np.cos(_PITCH), -np.sin(_PITCH)])
_TOWARDS = np.array([0, np.sin(_PITCH), np.cos(_PITCH)])  # the camera


@dataclass(frozen=True)
class Thing:
    """A thing on the floor.

    Attributes:
        kind: A word of `KINDS`.
        place: x and z of its centre; the picture shows -1 to 1.
        radius: Half its width.
        turn: Its turn about the vertical axis, in radians.
        hue: Of its colour, in [0, 1].
    """

    kind: str
    place: tuple[float, float]
    radius: float
    turn: float
    hue: float

    @property
    def centre(self) -> np.ndarray:
        """Its centre: x, y up, z towards the viewer."""
        return np.array([self.place[0], self.radius, self.place[1]], np.float32)

    def measure(self, points: np.ndarray) -> np.ndarray:
        """Returns the signed distance of points (..., 3) from the surface, or less."""
        x, y, z = np.moveaxis(points - self.centre, -1, 0)
        cosine, sine = float(np.cos(self.turn)), float(np.sin(self.turn))
        x, z = x * cosine - z * sine, x * sine + z * cosine
        size = self.radius
        across = np.hypot(x, z)
        if self.kind == "ball":
            return np.sqrt(x**2 + y**2 + z**2) - size
        if self.kind == "box":
            outside = [np.abs(x) - 0.8 * size, np.abs(y) - size, np.abs(z) - 0.8 * size]
            beyond = sum(part.clip(0) ** 2 for part in outside)
            return np.sqrt(beyond) + np.maximum.reduce(outside).clip(None, 0)
        if self.kind == "cone":
            slope = (2 * across + (y - size)) / np.sqrt(5)
            return np.maximum(slope, -y - size)
        upright = np.hypot(x, y)  # a ring that stands
        return np.hypot(upright - 0.72 * size, z) - 0.28 * size


@dataclass(frozen=True)
class View:
    """A rendered scene.

    Attributes:
        image: uint8 (h, w, 3), RGB.
        things: uint8 (h, w), 0 for the floor, else 1 + the number of the thing.
        normals: float (h, w, 3), of length 1: x right, y up, z towards the camera.
    """

    image: np.ndarray
    things: np.ndarray
    normals: np.ndarray


def render(things: list[Thing], random: np.random.Generator, *, light: float | None = None) -> View:
    """Renders things by marching along the rays of a parallel projection.

    Args:
        things: What stands on the floor.
        random: For the lamp's place, the floor's colour and noise.
        light: The lamp's brightness in [0, 1]; by default a random one.
    """
    side = SIDE * _SUPERSAMPLED
    across, down = np.meshgrid(*[np.linspace(-1, 1, side)] * 2)
    start = 4 * _TOWARDS + across[..., None] * _RIGHT + (0.15 - down[..., None]) * _UP
    start = start.astype(np.float32)
    points = _march(start, -_TOWARDS, things, start[..., 1] / _TOWARDS[1])  # as far as the floor
    distances = np.stack([points[..., 1], *(thing.measure(points) for thing in things)])
    nearest = distances.argmin(axis=0)
    slopes = _find_normals(points, things)
    azimuth = random.uniform(0.3, 2.8)
    lamp = np.array([np.cos(azimuth), 1.3, 0.4 + np.sin(azimuth) / 2])
    lamp /= np.linalg.norm(lamp)
    start = points + 0.02 * slopes
    reached = _march(start, lamp, things, np.full(nearest.shape, 2.5))
    is_shaded = (_distance(reached, things) < 2 * _NEAR) & (slopes @ lamp > 0)
    bright = random.uniform(0.8, 1.3) if light is None else 0.25 + 0.75 * light
    shine = np.where(is_shaded, 0, (slopes @ lamp).clip(0)) * 0.75 + 0.25
    floor = colorsys.hsv_to_rgb(random.random(), random.uniform(0, 0.3), random.uniform(0.4, 0.8))
    colors = np.array([floor, *(colorsys.hsv_to_rgb(thing.hue, 0.7, 0.95) for thing in things)])
    pixels = 255 * bright * shine[..., None] * colors[nearest]
    grid = (SIDE, _SUPERSAMPLED, SIDE, _SUPERSAMPLED)
    pixels = pixels.reshape(*grid, 3).mean((1, 3)) + random.normal(0, 5, (SIDE, SIDE, 3))
    axes = np.stack([_RIGHT, _UP, _TOWARDS], axis=-1)
    every = slice(None, None, _SUPERSAMPLED)
    return View(
        pixels.clip(0, 255).astype(np.uint8),
        nearest[every, every].astype(np.uint8),
        slopes[every, every] @ axes,
    )


def _distance(points: np.ndarray, things: list[Thing]) -> np.ndarray:
    """Returns the distance of points from the floor or the nearest thing."""
    return np.minimum.reduce([points[..., 1], *(thing.measure(points) for thing in things)])


def _march(
    starts: np.ndarray, direction: np.ndarray, things: list[Thing], reach: np.ndarray
) -> np.ndarray:
    """Returns where rays meet a thing, or where they are at the end of their reach."""
    direction = direction.astype(np.float32)
    is_near = np.zeros(starts.shape[:2], bool)  # to the sphere around a thing
    for thing in things:
        to_centre = thing.centre - starts
        along = to_centre @ direction
        is_near |= (to_centre**2).sum(-1) - along**2 < (_BOUND * thing.radius) ** 2
    travelled = np.where(is_near, 0, reach).astype(np.float32)
    moving = np.nonzero(is_near & (reach > 0))
    for _ in range(_STEPS if moving[0].size else 0):
        points = starts[moving] + travelled[moving][:, None] * direction
        distances = np.minimum.reduce([thing.measure(points) for thing in things])
        travelled[moving] += distances
        keep = (distances > _NEAR) & (travelled[moving] < reach[moving])
        moving = tuple(index[keep] for index in moving)
        if not keep.any():
            break
    return starts + np.minimum(travelled, reach)[..., None].astype(np.float32) * direction


def _find_normals(points: np.ndarray, things: list[Thing]) -> np.ndarray:
    step = 1e-3 * np.eye(3)
    slopes = np.stack(
        [_distance(points + axis, things) - _distance(points - axis, things) for axis in step], -1
    )
    return slopes / np.linalg.norm(slopes, axis=-1, keepdims=True)


def place_things(random: np.random.Generator, kinds: list[str], radius: float) -> list[Thing]:
    """Returns things of these kinds that do not touch each other."""
    things: list[Thing] = []
    for kind in kinds:
        size = radius * random.uniform(0.8, 1.2)
        for _ in range(200):
            place = random.uniform(-0.8 + size, 0.8 - size), random.uniform(-0.8, 0.4)
            if all(
                np.hypot(place[0] - thing.place[0], place[1] - thing.place[1]) > size + thing.radius
                for thing in things
            ):
                break
        things.append(Thing(kind, place, size, random.uniform(0, np.pi), random.random()))
    return things


def write_photos(folder: Path, *, count: int = 40, unseen: int = 2) -> None:
    """Writes a folder for each kind, and `unseen` beside `folder` without labels."""
    random = np.random.default_rng(0)
    for kind in KINDS:
        for number in range(count + unseen):
            view = render(place_things(random, [kind], 0.4), random)
            path = folder / kind / f"{number:02}.png"
            if number >= count:
                path = folder.parent / "unseen" / f"{kind}{number - count + 1}.png"
            _write(path, view.image)


def write_tables(folder: Path, *, count: int = 120) -> None:
    """Writes images, labels.csv (what is in each) and numbers.csv (a ball's size, the light)."""
    random = np.random.default_rng(1)
    labels, numbers = [("path", "labels")], [("path", "diameter_mm", "light")]
    for number in range(count):
        kinds = [kind for kind in KINDS[:3] if random.random() < 0.5]
        _write(
            folder / f"photos/{number:03}.png",
            render(place_things(random, kinds, 0.28), random).image,
        )
        labels.append((f"photos/{number:03}.png", "|".join(kinds)))
        light, ball = random.random(), place_things(random, ["ball"], random.uniform(0.15, 0.5))
        _write(folder / f"balls/{number:03}.png", render(ball, random, light=light).image)
        numbers.append((f"balls/{number:03}.png", round(200 * ball[0].radius), round(light, 3)))
    for name, rows in (("labels", labels), ("numbers", numbers)):
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def write_scenes(folder: Path) -> None:
    """Writes scenes of three things, with masks of kinds, edges and normals."""
    random = np.random.default_rng(2)
    for split, count in (("train", 40), ("val", 15), ("test", 15)):
        for number in range(count):
            kinds = list(random.choice(KINDS[:3], size=3))
            view = render(place_things(random, kinds, 0.3), random)
            mask = np.array([0, *(1 + KINDS.index(kind) for kind in kinds)], np.uint8)[view.things]
            targets = {
                "images": view.image,
                "masks": mask,
                "edges": _find_edges(view.things),
                "normals": ((view.normals + 1) / 2 * 255).round().astype(np.uint8),
            }
            for kind, pixels in targets.items():
                _write(folder / split / kind / f"{number:02}.png", pixels)


def write_fields(folder: Path, *, count: int = 40) -> None:
    """Writes arrays of four bands: plants are brighter in near infrared, and else like dry soil."""
    random = np.random.default_rng(3)
    for kind, infrared in (("dry", 2400), ("plants", 3000)):
        for number in range(count):
            parcels = random.normal(0, 250, (6, 6, 4)) + (600, 800, 900, infrared)
            bands = np.kron(parcels, np.ones((8, 8, 1))) + random.normal(0, 60, (48, 48, 4))
            path = folder / kind / f"{number:02}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, bands.clip(0, 10_000).astype(np.uint16))


def _find_edges(things: np.ndarray) -> np.ndarray:
    """Returns 255 where a pixel and the one right of it or below show different things."""
    right, below = np.roll(things, -1, axis=1), np.roll(things, -1, axis=0)
    edges = (things != right) | (things != below)
    edges[-1], edges[:, -1] = False, False
    return edges.astype(np.uint8) * 255


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


WRITERS = {
    "photos": write_photos,
    "tables": write_tables,
    "scenes": write_scenes,
    "fields": write_fields,
}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        WRITERS[name](Path(name))
