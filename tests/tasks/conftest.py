"""Fixtures of tests of tasks."""

from tests.data.conftest import save, write_png  # noqa: F401
