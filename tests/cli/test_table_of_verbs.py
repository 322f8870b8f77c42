"""The table of verbs: each line leads to a command of the same name."""

import os
import subprocess
import sys

import click
import pytest

from tests.command import tltool
from tl_toolkit.cli.main import _VERBS
from tl_toolkit.cli.main import tltool as group
from tl_toolkit.printing.words import describe_size


@pytest.mark.parametrize("name", _VERBS)
def test_a_verb_of_the_table_is_a_command_of_its_module(name):
    command = group.get_command(click.Context(group), name)

    assert command.name == name
    assert command.callback.__module__ == f"tl_toolkit.cli.{_VERBS[name].module}"


def test_help_lists_every_verb_with_its_line(tmp_path):
    printed = " ".join(tltool("--help", cwd=tmp_path).stdout.split())

    for name, verb in _VERBS.items():
        assert f"{name} {verb.help}" in printed


def test_help_imports_nothing_that_takes_long():
    slow = ["pydantic", "ruamel.yaml", "rich", "numpy", "keras", "tensorflow"]
    code = (
        "import sys; from tl_toolkit.cli.main import run; run(['--help']); "
        f"print([name for name in {slow} if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_the_package_is_the_command_and_completes_its_words():
    """Processes of their own: `python -m` and the environment of a shell are what is asked."""
    help_text = subprocess.run(
        [sys.executable, "-m", "tl_toolkit", "--help"], capture_output=True, text=True, check=True
    ).stdout
    words = subprocess.run(
        [sys.executable, "-m", "tl_toolkit"],
        env=os.environ
        | {"_TLTOOL_COMPLETE": "bash_complete", "COMP_WORDS": "tltool pre", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    ).stdout

    assert help_text.startswith("Usage: tltool ")
    assert words.split() == ["plain,predict"]


@pytest.mark.parametrize("group", ["models", "cache", "recipes", "runs"])
def test_no_line_of_the_help_of_a_group_is_cut(tmp_path, group):
    commands = tltool(group, "--help", cwd=tmp_path).stdout.partition("Commands:")[2]

    assert commands and "..." not in commands


@pytest.mark.parametrize("verb", ["search", "sweep"])
def test_the_help_of_a_search_names_its_own_folder(tmp_path, verb):
    assert f"[runs/NAME-{verb}/NNN]" in tltool(verb, "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("size", "told"), [(940, "0.9 kB"), (1_500_000, "1.5 MB"), (2_340_000_000, "2.34 GB")]
)
def test_sizes_are_told_in_units_that_fit_them(size, told):
    assert describe_size(size) == told
