"""Puts the shipped recipes and models into the package of a wheel; all else is in setup.cfg.

A checkout keeps them at its top level, where people look for them, and needs no copy: it is
installed with --editable.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ["recipes/*.yaml", "recipes/recipe.schema.json", "models/*"]


class BuildWithShipped(build_py):
    """Copies what is shipped to tl_toolkit/shipped/, file by file."""

    def _find_shipped(self) -> list[tuple[str, str]]:
        paths = sorted(path for pattern in SHIPPED for path in Path().glob(pattern))
        folder = Path(self.build_lib, "tl_toolkit", "shipped")
        return [(str(path), str(folder / path)) for path in paths if path.is_file()]

    def run(self) -> None:
        """Copies the modules, and then what is shipped."""
        super().run()
        if self.editable_mode:
            return
        for source, target in self._find_shipped():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target, preserve_mode=False)

    def get_source_files(self) -> list[str]:
        """Returns what a source distribution must hold."""
        return [*super().get_source_files(), *(source for source, _ in self._find_shipped())]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Returns what was built.

        Args:
            include_bytecode: Count compiled modules, too.
        """
        copies = [] if self.editable_mode else [target for _, target in self._find_shipped()]
        return [*super().get_outputs(include_bytecode), *copies]


setup(cmdclass={"build_py": BuildWithShipped})
