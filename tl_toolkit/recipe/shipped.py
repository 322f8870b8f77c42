"""The recipes that come with the package, in a checkout or in an installation's share folder."""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tl_toolkit.errors import Problem, RecipeError, closest

__all__ = ["ShippedRecipe", "find_schema", "find_shipped", "list_shipped"]


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe file of the package.

    Attributes:
        name: Its file name without .yaml.
        path: Where it is.
    """

    name: str
    path: Path

    def read_for(self, folder: Path) -> str:
        """Returns its text for a copy in `folder`: shipped weights are named by their full path."""
        text = self.path.read_text(encoding="utf-8")
        if folder.resolve() == self.path.parent.resolve():
            return text
        models = self.path.resolve().parents[1] / "models"
        return text.replace("weights: ../models/", f"weights: {models}/")

    @property
    def summary(self) -> str:
        """First sentence of its opening comment."""
        for line in self.path.read_text(encoding="utf-8").splitlines():
            text = line.lstrip("# ").strip()
            if line.startswith("#") and text and not text.startswith("yaml-language-server"):
                return text
        return ""


def _folder() -> Path:
    checkout = Path(__file__).resolve().parents[2] / "recipes"
    if checkout.is_dir():
        return checkout
    return Path(sysconfig.get_path("data"), "share", "tl_toolkit", "recipes")


def list_shipped() -> tuple[ShippedRecipe, ...]:
    """Returns the shipped recipes by name."""
    return tuple(ShippedRecipe(path.stem, path) for path in sorted(_folder().glob("*.yaml")))


def find_schema() -> Path:
    """Returns the JSON Schema that shipped recipes name in their first lines."""
    return _folder() / "recipe.schema.json"


def find_shipped(name: str) -> ShippedRecipe:
    """Finds a shipped recipe.

    Raises:
        RecipeError: There is none of that name.
    """
    found = {recipe.name: recipe for recipe in list_shipped()}
    stem = Path(name).stem if name.endswith(".yaml") else name
    if stem in found:
        return found[stem]
    near = closest(stem, found)
    raise RecipeError(
        Problem(
            where=name,
            what="is no shipped recipe" + (f"; {near}" if near else ""),
            expected=f"Shipped: {', '.join(found)}.",
            hint="tltool recipes list",
        )
    )
