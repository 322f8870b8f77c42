"""The recipes that come with the package, in a checkout or inside an installed package."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tl_toolkit.errors import Problem, RecipeError, closest

__all__ = ["ShippedRecipe", "find_recipe", "find_schema", "find_shipped", "list_shipped"]


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe file of the package.

    Attributes:
        name: Its file name without .yaml.
        path: Where it is.
    """

    name: str
    path: Path

    def read_for(self, target: Path) -> str:
        """Returns its text for a copy: its command, places of data, and full path of weights.

        What was measured is said of the shipped recipe, from which a copy is soon to differ.

        Args:
            target: The file that the copy is written to.
        """
        text = self.path.read_text(encoding="utf-8")
        if target.resolve().parent == self.path.parent.resolve():
            return text
        models = self.path.resolve().parents[1] / "models"
        text = text.replace("weights: ../models/", f"weights: {models}/")
        text = text.replace(
            f"tltool finetune recipes/{self.name}.yaml",
            f"tltool finetune {shlex.quote(str(target))}",
        )
        text = text.replace("recipes/data/", f"{target.parent / 'data'}/")
        text = text.replace("\n# Result: ", f"\n# Result of the shipped {self.name}: ")
        return text.replace("\n# Measured ", f"\n# Measured with the shipped {self.name}, ")

    @property
    def summary(self) -> str:
        """The first sentence of its opening comment."""
        for line in self.path.read_text(encoding="utf-8").splitlines():
            text = line.lstrip("# ").strip()
            if line.startswith("#") and text and not text.startswith("yaml-language-server"):
                return text
        return ""

    @property
    def result(self) -> str:
        """What it reaches and when that was measured: the line `# Result:` of its comment."""
        found = re.search(r"^# Result: (.+)$", self.path.read_text(encoding="utf-8"), re.MULTILINE)
        return found.group(1) if found else ""


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


def find_recipe(path: Path) -> Path:
    """Returns a recipe's file: the one that a path names, else the shipped recipe of that name.

    Args:
        path: As it was typed: a path, or a name as `quickstart`, with or without .yaml.
    """
    if path.is_file() or len(path.parts) != 1:
        return path
    try:
        recipes = {recipe.name: recipe.path for recipe in list_shipped()}
    except RecipeError:  # without them the file that was typed is missing
        return path
    return recipes.get(path.name.removesuffix(".yaml"), path)
