"""Recipes from files and from Python: read, changed by overrides, validated, and written again."""

from __future__ import annotations

import io
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from tl_toolkit.errors import Problem, RecipeError, closest
from tl_toolkit.recipe.fields import expand_home, find_path_fault
from tl_toolkit.recipe.messages import explain, in_order
from tl_toolkit.recipe.overrides import Overrides, apply_overrides
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.recipe.tree import FieldPath, Node, build_tree, format_path, show
from tl_toolkit.recipe.yaml_reader import MAX_BYTES, read_scalar, read_yaml

__all__ = [
    "LoadedRecipe",
    "RecipeSource",
    "build_baseline",
    "build_recipe",
    "dump_recipe",
    "find_baseline_problems",
    "json_schema",
    "list_values",
    "load_recipe",
    "read_recipe",
    "replace_fields",
]

_PATH_FIELDS: tuple[FieldPath, ...] = (
    ("data", "train"),
    ("data", "csv"),
    ("data", "validation"),
    ("data", "test"),
    ("model", "weights"),
    ("model", "base", "model"),
    ("model", "start"),
    ("teacher",),
    ("teacher", "run"),
)
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_OLD_SWITCHES = ("y", "yes", "n", "no", "on", "off")
_WEIGHT_WORDS = ("imagenet", "random")
_BASE_HINT = "model.base.preprocessing=unit, for how the model takes its pixels"
_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
"""First bytes of JPEG, PNG, GIF, WebP, BMP and TIFF."""


@dataclass(frozen=True, repr=False)
class LoadedRecipe:
    """A recipe and the place of each of its fields.

    Attributes:
        recipe: The validated recipe; its paths are absolute.
        path: The file as the caller named it; `recipe` for one built in Python.
        locate: Returns the place of a field, ("phases", 1, "unfreeze"), as `recipes/x.yaml:14:9` or
            `override phases.1.unfreeze=7`; of its nearest parent if the field was not written.
    """

    recipe: Recipe
    path: Path
    locate: Callable[[FieldPath], str]

    def __repr__(self) -> str:
        """Returns name and file: the recipe alone has a repr of a hundred fields."""
        return f"LoadedRecipe({self.recipe.name!r}, path={str(self.path)!r})"


RecipeSource = str | os.PathLike[str] | Mapping[str, Any] | Recipe | LoadedRecipe
"""A source of a recipe: its file, its contents, a recipe, or a loaded recipe."""


def load_recipe(
    source: str | os.PathLike[str], overrides: Overrides = (), *, base: Path | None = None
) -> LoadedRecipe:
    """Returns the recipe in a file, changed by overrides.

    Relative paths in the file are relative to its folder, those in overrides to the working
    directory.

    Args:
        source: A YAML 1.2 file in UTF-8.
        overrides: Texts `a.b=value` or `~a.b`, or a mapping of dotted fields to values.
        base: File of a Keras model that replaces the recipe's base, with its weights and
            arguments.

    Raises:
        RecipeError: The file cannot be read, or it or the overrides have problems; all are named.
    """
    path = Path(source)
    tree = read_yaml(_read_text(path), lambda line, column: f"{path}:{line}:{column}")
    return _finish(tree, path, path.parent, overrides, base)


def build_recipe(
    values: Mapping[str, Any] | Recipe, overrides: Overrides = (), *, base: Path | None = None
) -> LoadedRecipe:
    """Returns the recipe described by a mapping, with the checks and messages of a file.

    Args:
        values: Sections and fields as in a file, or a recipe; relative paths are relative to the
            working directory.
        overrides: As in `load_recipe`.
        base: As in `load_recipe`.

    Raises:
        RecipeError: The recipe has problems; all are named.
    """
    values = list_values(values) if isinstance(values, Recipe) else values
    return _finish(build_tree(values, "recipe"), Path("recipe"), Path(), overrides, base)


def read_recipe(
    source: RecipeSource, overrides: Overrides = (), *, base: Path | None = None
) -> LoadedRecipe:
    """Returns a recipe from any of its sources.

    Args:
        source: As in `load_recipe` or `build_recipe`, or the result of either.
        overrides: As in `load_recipe`.
        base: As in `load_recipe`.

    Raises:
        RecipeError: The recipe has problems; all are named.
        TypeError: It is none of these sources.
    """
    if isinstance(source, LoadedRecipe):
        is_changed = bool(overrides) or base is not None
        return build_recipe(source.recipe, overrides, base=base) if is_changed else source
    if isinstance(source, Mapping | Recipe):
        return build_recipe(source, overrides, base=base)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"recipe: expected a path, a mapping or a tl.Recipe, got {_name(source)}")
    return load_recipe(source, overrides, base=base)


def _name(value: object) -> str:
    return "None" if value is None else show(value)  # null is a word of YAML


def replace_fields(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """Returns a validated copy of a recipe in which dotted fields have new values.

    Args:
        recipe: A recipe, which is not changed.
        overrides: Values by field, as `{"phases.head.epochs": 3}`; `{"~augment": None}` removes.

    Raises:
        RecipeError: The recipe has problems; all are named.
    """
    return build_recipe(recipe, overrides).recipe


def build_baseline(recipe: Recipe) -> Recipe | None:
    """Returns the recipe that is trained beside this one: its baseline changes applied, or None.

    Args:
        recipe: A recipe, which is not changed. Its baseline from scratch takes the catalog.
    """
    if not isinstance(recipe.baseline, Mapping):
        return None
    return replace_fields(recipe, {"~baseline": None, **recipe.baseline})


def find_baseline_problems(recipe: Recipe) -> Iterator[tuple[FieldPath, Problem]]:
    """Yields the problems of the recipe that a baseline makes, each with the change's own path.

    Args:
        recipe: A recipe in which a preset has chosen its values.
    """
    try:
        build_baseline(recipe)
    except RecipeError as error:
        for problem in error.problems:
            names = [
                str(key)
                for key in recipe.baseline or ()
                if f"{problem.where}=".startswith(f"override {key}=")
            ]
            what = f"with its baseline, {problem.what}"
            yield ("baseline", *names[:1]), replace(problem, what=what)


def dump_recipe(recipe: Recipe, remarks: Sequence[str] = ()) -> str:
    """Returns YAML text with every field, which `load_recipe` reads back as an equal recipe.

    Args:
        recipe: A validated recipe.
        remarks: Lines that become comments above it.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 100
    yaml.representer.add_representer(str, _represent_text)
    yaml.representer.add_representer(list, _represent_list)
    stream = io.StringIO()
    stream.writelines(f"# {remark}\n" for remark in remarks)
    yaml.dump(list_values(recipe), stream)
    return stream.getvalue()


def json_schema(bases: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of a recipe, which editors complete from.

    Args:
        bases: Names of architectures to offer for `model.base`.
    """
    schema = Recipe.model_json_schema()
    if names := list(bases):
        schema["$defs"]["Model"]["properties"]["base"]["anyOf"][0]["enum"] = names
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _finish(
    tree: Node, path: Path, folder: Path, overrides: Overrides, base: Path | None
) -> LoadedRecipe:
    if not isinstance(tree.value, dict):
        what = "is empty" if tree.value is None else f"holds a {type(tree.value).__name__}"
        expected = "expected a recipe: lines such as `name: flowers`."
        raise RecipeError(Problem(tree.where, what, expected, "tltool recipes list"))
    _anchor_paths(tree, folder)
    if base is not None:
        _replace_base(tree, base)
    problems = apply_overrides(tree, overrides)
    problems += _separate_keys(tree)
    if base is not None and not _has_base(tree, base):
        what = "model.base is given twice, as a model and as an override"
        expected = "The model takes the place of the recipe's base, weights and arguments."
        raise RecipeError(Problem("override model.base", what, expected, _BASE_HINT))
    _anchor_paths(tree, Path())
    try:
        recipe = Recipe.model_validate(tree.plain())
    except ValidationError as error:
        try:
            problems += explain(error, tree)
        except UnicodeEncodeError:  # pydantic words no error about half characters
            problems += _find_surrogates(tree)
        # pydantic's error would stand first in a traceback, and says the same in other words.
        raise RecipeError(in_order(problems)) from None
    problems += _check_baseline(recipe, tree)
    if problems:
        raise RecipeError(in_order(problems))
    return LoadedRecipe(recipe, path, tree.locate)


def _find_surrogates(node: Node, path: FieldPath = ()) -> Iterator[Problem]:
    """Yields a problem for each text that holds half a character, as names of files may."""
    items = (
        node.value.items() if isinstance(node.value, dict) else enumerate(node.value)
        if isinstance(node.value, list) else ()
    )  # fmt: skip
    for key, child in list(items):
        yield from _find_surrogates(child, (*path, key))
    if isinstance(node.value, str) and re.search("[\ud800-\udfff]", node.value):
        what = f"{format_path(path)} = {show(node.value)}"
        yield Problem(node.where, what, "expected text in Unicode.")


def _separate_keys(node: Node, path: FieldPath = ()) -> Iterator[Problem]:
    """Yields a problem for each `key:value` without a blank, which YAML takes for a key alone.

    The value is put in its place, so that it is checked like all others.
    """
    children = node.value.items() if isinstance(node.value, dict) else ()
    for key, child in list(children):
        name, colon, text = str(key).partition(":")
        if child.value is None and name and colon and text:
            what = f"{format_path((*path, key))} holds no value"
            yield Problem(child.where, what, "expected a blank after the colon.", f"{name}: {text}")
            del node.value[key]
            node.value.setdefault(name, Node(read_scalar(text), child.where, text=text))
    items = node.value.items() if isinstance(node.value, dict) else enumerate(
        node.value if isinstance(node.value, list) else ()
    )  # fmt: skip
    for key, child in list(items):
        yield from _separate_keys(child, (*path, key))


def _has_base(tree: Node, base: Path) -> bool:
    model = tree.find(("model", "base", "model"))
    return model is not None and model.value == str(base)


def _replace_base(tree: Node, base: Path) -> None:
    """Replaces the base, its weights and arguments by a file; its preprocessing stays."""
    model = tree.child("model")
    if model is None:
        model = tree.value["model"] = Node({}, tree.where)
    if not isinstance(model.value, dict):
        return  # the schema refuses it
    for name in ("weights", "arguments"):
        model.value.pop(name, None)
    rest = {}
    if (preprocessing := model.find(("base", "preprocessing"))) is not None:
        rest = {"preprocessing": preprocessing}
    model.value["base"] = Node({"model": Node(str(base), model.where), **rest}, model.where)


def _check_baseline(recipe: Recipe, tree: Node) -> Iterator[Problem]:
    if recipe.preset is None:  # its phases are not chosen yet, which a baseline may change
        for path, problem in find_baseline_problems(recipe):
            yield replace(problem, where=tree.locate(path))


def _anchor_paths(tree: Node, folder: Path) -> None:
    """Makes relative paths absolute; the schema refuses other values later."""
    for field in _PATH_FIELDS:
        _anchor(tree.find(field), field, folder)
    baseline = tree.child("baseline")
    changes = baseline.value if baseline and isinstance(baseline.value, dict) else {}
    for key, node in changes.items():
        prefix = tuple(key.split("."))
        for field in _PATH_FIELDS:
            if field[: len(prefix)] == prefix:
                _anchor(node.find(field[len(prefix) :]), field, folder)


def _anchor(node: Node | None, field: FieldPath, folder: Path) -> None:
    if node is None or not isinstance(node.value, str | Path):
        return
    text = str(node.value)
    is_word = field[-1] == "weights" and text in _WEIGHT_WORDS
    if not is_word and not find_path_fault(text):
        node.value = os.path.abspath(os.path.join(folder, expand_home(text)))


def list_values(recipe: Recipe) -> dict[str, Any]:
    """Returns what a recipe's file holds, as plain values: the fields that are set, in sections.

    Args:
        recipe: A validated recipe.
    """
    # Fields that are None are left out, as None stands for "not set". Those of pixels are not left
    # out: null may turn off a default of the task.
    values = recipe.model_dump(mode="json", by_alias=True, exclude_none=True)
    if recipe.pixels is not None:
        values["pixels"] = recipe.pixels.model_dump(mode="json")
    return {key: value for key, value in values.items() if value is not None}


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        names = [f"{item}" for item in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        what = "; ".join(filter(None, ("no such file", closest(str(path), names))))
        raise RecipeError(
            Problem(str(path), what, "expected a recipe.", "tltool recipes list")
        ) from error
    except IsADirectoryError as error:
        hint = f"tltool init {shlex.quote(str(path))}, which writes a recipe for images in it"
        raise RecipeError(
            Problem(str(path), "is a folder", "expected a recipe file.", hint)
        ) from error
    except (OSError, ValueError) as error:
        raise RecipeError(
            Problem(str(path), f"cannot be read: {error}", "expected a recipe.")
        ) from error
    if len(content) > MAX_BYTES:
        expected = f"expected at most {MAX_BYTES // 1024} KiB of YAML."
        raise RecipeError(Problem(str(path), "is too large", expected))
    return _decode(content, path)


def _decode(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.startswith(_IMAGE_STARTS):
            what = "is an image, not a recipe"
            raise RecipeError(Problem(str(path), what, "expected a recipe file.")) from error
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        what = f"byte 0x{content[error.start]:02x} is not UTF-8"
        hint = "save the file with the encoding UTF-8"
        where = f"{path}:{line}:{column}"
        raise RecipeError(Problem(where, what, "expected text in UTF-8.", hint)) from error


def _represent_text(representer: Any, text: str) -> Any:
    # Quoted where a reader of YAML 1.2 or 1.1 would read something else than this text.
    is_plain = _PLAIN.fullmatch(text) and isinstance(read_scalar(text), str)
    style = None if is_plain and text.lower() not in _OLD_SWITCHES else '"'
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_list(representer: Any, items: list[Any]) -> Any:
    is_short = not any(isinstance(item, dict | list) for item in items)
    return representer.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=is_short)
