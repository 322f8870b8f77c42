from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import keras
import pytest

from tl_toolkit.architectures.graph import BlockGraph, build_base, find_blocks
from tl_toolkit.architectures.pixels import apply_pixel_rule
from tl_toolkit.catalog.lookup import find_architecture


@dataclass(frozen=True)
class Drawn:
    """A base behind its preprocessing, as one flat graph."""

    model: keras.Model
    blocks: tuple[BlockGraph, ...]
    pixels: keras.KerasTensor
    features: keras.KerasTensor


def draw(
    name: str, arguments: Mapping[str, bool | int | float | str] | None = None, *, size: int = 32
) -> Drawn:
    """Draws a base anew, with random weights from one seed."""
    architecture = find_architecture(name)
    keras.utils.set_random_seed(0)
    image = keras.Input((size, size, 3), name="image")
    pixels = apply_pixel_rule(image, architecture.pixels)
    features = build_base(architecture, pixels, arguments or {})
    blocks = find_blocks(architecture, pixels, features)
    return Drawn(keras.Model(image, features), blocks, pixels, features)


@pytest.fixture(scope="session")
def drawn() -> Callable[[str], Drawn]:
    """Each base at its minimum size, drawn once for the tests that only look at it."""
    return cache(lambda name: draw(name, size=find_architecture(name).minimum_size))


@pytest.fixture(name="draw", scope="session")
def draw_fixture() -> Callable[..., Drawn]:
    return draw


@pytest.fixture(scope="session")
def outline() -> Callable[[str], Drawn]:
    """Each base without values of its weights, in half the time, for tests that read its graph."""

    def read(name):
        with without_values():
            return draw(name, size=find_architecture(name).minimum_size)

    return cache(read)


@contextmanager
def without_values():
    """Models drawn in the block have weights of a shape only: no time, no memory."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    # Keras would fill the waiting weights, up to a gigabyte, when it next draws a model.
    keras.utils.clear_session(free_memory=False)


@pytest.fixture
def blank():
    """Models drawn in this test have weights of a shape only: no time, no memory."""
    with without_values():
        yield
