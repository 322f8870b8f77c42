"""`tltool validate`, `init`, `recipes` and `schema`: none of them imports TensorFlow."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tl_toolkit.cli.arguments import takes_offline, takes_recipe
from tl_toolkit.cli.console import is_stdout, print_message, show, show_json, write_result
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.printing.tables import build_table
from tl_toolkit.runs.files import is_stream, write_atomically


@click.command("validate")
@takes_recipe
@click.argument("overrides", nargs=-1)
@takes_offline
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
def validate_command(recipe: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check RECIPE, its data and its weights, and name all problems at once.

    What finetune checks before it trains: the recipe's shape, names and ranges against the
    architecture, folders and classes, and the weight file. Images are not opened.
    """
    from tl_toolkit.plan.check import check_recipe
    from tl_toolkit.recipe.load import load_recipe

    summary = check_recipe(load_recipe(recipe, overrides))
    if as_json:
        show_json(summary.as_json())
    else:
        print_message(f"{recipe}: valid")
        print_message(summary.describe())


@click.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of recipes, for editors that complete from it."""
    from tl_toolkit.catalog.lookup import ARCHITECTURES
    from tl_toolkit.recipe.load import json_schema

    show_json(json_schema(ARCHITECTURES))


@click.group("recipes")
def recipes_command() -> None:
    """List, show and copy the shipped recipes."""


@recipes_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print names, paths and results as JSON.")
def list_recipes(as_json: bool) -> None:
    """List the shipped recipes with their measured results.

    Their names stand for their files: tltool finetune quickstart.
    """
    from tl_toolkit.recipe.shipped import list_shipped

    recipes = list_shipped()
    if as_json:
        show_json(
            [
                {
                    "name": recipe.name,
                    "path": str(recipe.path),
                    "summary": recipe.summary,
                    "result": recipe.result,
                }
                for recipe in recipes
            ]
        )
    else:
        rows = [[recipe.name, recipe.summary, recipe.result] for recipe in recipes]
        show(build_table(["recipe", "what it does", "measured result"], rows))


@recipes_command.command("show")
@click.argument("name")
def show_recipe(name: str) -> None:
    """Print the shipped recipe NAME."""
    from tl_toolkit.recipe.shipped import find_shipped

    click.echo(find_shipped(name).path.read_text(encoding="utf-8"), nl=False)


@recipes_command.command("copy")
@click.argument("name")
@click.argument("target", required=False, type=click.Path(path_type=Path))
def copy_recipe(name: str, target: Path | None) -> None:
    """Copy the shipped recipe NAME to TARGET, by default here; - is stdout.

    Relative paths of data then start at the copy's folder; shipped weights keep their full path.
    """
    from tl_toolkit.recipe.shipped import find_shipped

    source = find_shipped(name)
    target = target or Path(source.path.name)
    target = target / source.path.name if target.is_dir() else target
    _refuse_existing(target)
    write_result(target, source.read_for(target), option="TARGET")
    if is_stdout(target) or is_stream(target):
        return
    _copy_schema(target.parent)
    typed = shlex.quote(str(target))
    print_message(f"copied to {target}. Next: tltool validate {typed}")


@click.command("init")
@click.argument("data_dir", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="The recipe, a new file; - is stdout.  [NAME.yaml]",
)  # fmt: skip
@click.option("--base", default="mobilenet", show_default=True, help="Architecture to start from.")
@click.option("--task", default="", help="The task, if it is not to be found by the data.")
def init_command(data_dir: Path, output: Path | None, base: str, task: str) -> None:
    """Inspect DATA_DIR, a folder or a table, and write a first recipe for it.

    DATA_DIR holds a folder per class, or the folders images and masks (for segmentation, whose
    classes you name), or train/validation/test folders with these. A table
    (CSV) has a column path, and a column label, a column labels (names with | between them), a
    column of 0 and 1 for each class, or columns of numbers.

    Image folders of Hugging Face (metadata.jsonl), Parquet and TFRecord files, folders that tfds
    prepared, and for segmentation PASCAL VOC and COCO are recognized too. All of these may be
    addresses, as s3://BUCKET/FOLDER, s3://BUCKET/TABLE.csv or s3://BUCKET/FILE.parquet.
    """
    from tl_toolkit.plan.starter import write_starter

    place = output.parent if output else Path()
    starter = write_starter(data_dir, base=base, place=place, task=task)
    output = output or Path(f"{starter.name}.yaml")
    _refuse_existing(output)
    write_result(output, starter.text)
    for choice in starter.choices:
        print_message(choice)
    if is_stdout(output) or is_stream(output):
        return
    _copy_schema(output.parent)
    first = f"{starter.next_step}, then " if starter.next_step else ""
    typed = shlex.quote(str(output))
    print_message(
        f"wrote {output}. Next: {first}tltool validate {typed}, then tltool finetune {typed}"
    )


def _copy_schema(folder: Path) -> None:
    """Puts the schema that a recipe's first lines name beside it, for editors."""
    from tl_toolkit.recipe.shipped import find_schema

    target = folder / "recipe.schema.json"
    if not target.exists():
        write_atomically(target, find_schema().read_bytes())


def _refuse_existing(path: Path) -> None:
    if path.exists() and not is_stream(path):
        raise RecipeError(
            Problem(
                where=str(path),
                what="exists",
                expected="Nothing is overwritten.",
                hint="another name, or remove it first",
            )
        )
