"""Fixtures of tests of tasks."""

from tests.data.conftest import write_png  # noqa: F401
