"""`tltool env`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from tl_toolkit.cli.console import show, show_json
from tl_toolkit.printing.words import describe_size

_TITLES = {"cpu": "cpu features", "bytes": "size"}
_SIZES = ("bytes", "free", "total", "available", "limit")


@click.command("env")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON on stdout.")
def env_command(as_json: bool) -> None:
    """Print what a bug report needs: versions, machine, devices, folders, variables, locale.

    Among it are the flags that a float's last bits depend on. Nothing secret is printed: of the
    environment's variables those alone that TensorFlow, Keras, Python and this package read, and
    of proxies only whether they are set.
    """
    from tl_toolkit.api.environment import describe_environment

    environment = describe_environment()
    if as_json:
        show_json(environment)
        return
    lines = list(_list_lines(environment))
    width = max(len(name) for name, _ in lines)
    show("\n".join(f"{name:{width}}  {text}".rstrip() for name, text in lines))


def _list_lines(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields a name and a text for each fact; one for each folder, variable and GPU."""
    for name, value in environment.items():
        if name in ("folders", "variables"):
            for place, facts in value.items():
                title = place if name == "variables" else f"{place} folder"
                yield title, facts if isinstance(facts, str) else _describe(facts)
        elif isinstance(value, list):
            for number, facts in enumerate(value):
                yield f"GPU {number}", _describe(facts)
        else:
            yield _TITLES.get(name, name).replace("_", " "), _describe(value)


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        parts = ((name, part) for name, part in value.items() if part is not None)
        return ", ".join(_describe_part(name, part) for name, part in parts)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _describe_part(name: str, value: Any) -> str:
    if name in ("path", "name"):
        return str(value)
    is_size = name in _SIZES and isinstance(value, int)
    title = _TITLES.get(name, name).replace("_", " ")
    return f"{title} {describe_size(value) if is_size else _describe(value)}"
