"""`tltool env`."""

from __future__ import annotations

import click

from tl_toolkit.cli.console import show_json


@click.command("env")
def env_command() -> None:
    """Print versions, devices and the flags that a float's last bits depend on, as JSON."""
    from tl_toolkit.runtime import describe_numerics, start_tensorflow

    start_tensorflow()
    show_json(describe_numerics())
