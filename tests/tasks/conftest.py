"""Fixtures of tests of tasks."""

from tests.images.conftest import save, write_png  # noqa: F401
