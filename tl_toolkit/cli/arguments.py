"""Arguments that several commands take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tl_toolkit.cli.console import is_stdout


def _find_recipe(context: click.Context, parameter: click.Parameter, path: Path) -> Path:
    from tl_toolkit.recipe.shipped import find_recipe  # `--help` must not pay for it

    return find_recipe(path)


def read_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Returns the arguments of a builder, as they were typed: KEY=VALUE.

    Args:
        texts: The words.
    """
    from tl_toolkit.recipe.yaml_reader import read_scalar

    malformed = [text for text in texts if "=" not in text]
    if malformed:
        raise click.BadParameter(f"{malformed[0]!r}: expected KEY=VALUE, as alpha=0.25")
    return {key: read_scalar(value) for key, _, value in (text.partition("=") for text in texts)}


def is_argument(word: str) -> bool:
    """Returns whether a word is KEY=VALUE, and not the path of an image that has a = in it.

    Args:
        word: The word.
    """
    return word.partition("=")[0].isidentifier() and "=" in word and not Path(word).exists()


def _go_offline(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from tl_toolkit.catalog.published import going_offline  # `--help` must not pay for it

        context.with_resource(going_offline())


takes_recipe: Callable[[Any], Any] = click.argument(
    "recipe", type=click.Path(path_type=Path), callback=_find_recipe
)
"""Adds RECIPE: a file, or the name of a shipped recipe."""

takes_offline: Callable[[Any], Any] = click.option(
    "--offline", is_flag=True, expose_value=False, is_eager=True, callback=_go_offline,
    help="Fetch nothing: a weight file that is not here is an error.",
)  # fmt: skip
"""Adds --offline, to a command that may fetch a weight file; TL_TOOLKIT_OFFLINE=1 is the same."""

takes_ray: Callable[[Any], Any] = click.option(
    "--ray", metavar="ADDRESS",
    help="Work on a cluster of Ray: local for one on this machine, auto, or HOST:PORT.",
)  # fmt: skip
"""Adds --ray, to a command that may run on a cluster."""

takes_workers: Callable[[Any], Any] = click.option(
    "--workers", type=click.IntRange(min=1),
    help="Tasks that run at a time there.  [as many as there is room for]",
)  # fmt: skip
"""Adds --workers, beside --ray."""

takes_root: Callable[[Any], Any] = click.option(
    "--root", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
    help="Folder of all runs.",
)  # fmt: skip
"""Adds --root, to a command that reads runs."""


def takes_licences(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the licences that a model card names.

    Args:
        command: The command.
    """
    of_model = click.option(
        "--license", "licence", metavar="ID", default="unknown", show_default=True,
        help="Licence of the model, as the Hub spells it: apache-2.0, mit, cc-by-4.0.",
    )  # fmt: skip
    of_data = click.option(
        "--data-license", metavar="TEXT", default="not stated", show_default=True,
        help="Licence of the images.",
    )  # fmt: skip
    return of_model(of_data(command))


def refuse_two_results(as_json: bool, files: Mapping[str, Path | None]) -> bool:
    """Refuses a command that would print two results on stdout.

    Args:
        as_json: Whether one is JSON on stdout.
        files: The file of each other result, by its option; `-` is stdout.

    Returns:
        Whether one of these files is stdout.

    Raises:
        click.UsageError: Stdout would receive more than one.
    """
    written = [f"{option} -" for option, path in files.items() if path and is_stdout(path)]
    if len(written) + as_json > 1:
        names = " and ".join([*(["--json"] if as_json else []), *written])
        raise click.UsageError(f"{names}: stdout takes one of them, the others a file")
    return bool(written)
