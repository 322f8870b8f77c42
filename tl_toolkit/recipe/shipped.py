"""The recipes that come with the package, in a checkout or inside an installed package."""

from __future__ import annotations

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
        """Returns its text for a copy, with the full path of shipped weights.

        Args:
            folder: The folder of the copy.
        """
        text = self.path.read_text(encoding="utf-8")
        if folder.resolve() == self.path.parent.resolve():
            return text
        models = self.path.resolve().parents[1] / "models"
        return text.replace("weights: ../models/", f"weights: {models}/")

    @property
    def summary(self) -> str:
        """The first sentence of its opening comment."""
        for line in self.path.read_text(encoding="utf-8").splitlines():
            text = line.lstrip("# ").strip()
            if line.startswith("#") and text and not text.startswith("yaml-language-server"):
                return text
        return ""


def _find_folder() -> Path:
    """Returns the folder that holds `recipes` and `models`.

    A wheel holds them inside the package, in any folder. A checkout holds them beside the package,
    and is recognized by its setup.cfg: beside an installed package there may be other folders of
    these names.
    """
    package = Path(__file__).resolve().parents[1]
    if (package / "shipped").is_dir():
        return package / "shipped"
    if (package.parent / "setup.cfg").is_file():
        return package.parent
    raise RecipeError(
        Problem(
            where=str(package),
            what="is installed without its recipes",
            expected=f"Expected the folder {package / 'shipped'}.",
            hint="pip install --force-reinstall --no-deps tl-toolkit",
        )
    )


def list_shipped() -> tuple[ShippedRecipe, ...]:
    """Returns the shipped recipes by name."""
    paths = sorted((_find_folder() / "recipes").glob("*.yaml"))
    return tuple(ShippedRecipe(path.stem, path) for path in paths)


def find_schema() -> Path:
    """Returns the JSON Schema that shipped recipes name in their first lines."""
    return _find_folder() / "recipes" / "recipe.schema.json"


def find_shipped(name: str) -> ShippedRecipe:
    """Finds a shipped recipe.

    Args:
        name: Its name, with or without .yaml.

    Raises:
        RecipeError: No shipped recipe has that name.
    """
    recipes = {recipe.name: recipe for recipe in list_shipped()}
    stem = Path(name).stem if name.endswith(".yaml") else name
    if stem in recipes:
        return recipes[stem]
    near = closest(stem, recipes)
    raise RecipeError(
        Problem(
            where=name,
            what="is no shipped recipe" + (f"; {near}" if near else ""),
            expected=f"Shipped: {', '.join(recipes)}.",
            hint="tltool recipes list",
        )
    )
