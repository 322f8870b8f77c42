"""Fixtures of tests of tasks."""

from tests.images.conftest import draw, encode, save, write_png  # noqa: F401
