"""Runs the commands of the documentation's pages, and writes what they print below them.

    python docs/examples.py             # all pages with the line MARK
    python docs/examples.py tutorial    # docs/tutorial.md alone

A page runs from top to bottom in an empty folder that sees docs/, models/ and recipes/ of this
repository, with a feature store of its own:

- In a block ```console, each line `$ COMMAND` is run (a backslash continues it); all other lines
  are replaced by what it prints. `first=8 last=6` after the word keeps so many lines of each output
  and writes `...` for the others; `exit=2` names the exit code that is expected.
- A block with a file's name after its language, as ```yaml photos.yaml, is written to that file.
- A comment `<!-- $ COMMAND -->` is run too, and what it prints is not shown: it makes a picture.

The folder's own path becomes `~`, and spaces that follow it in a table fill the gap. Seconds and
dates are left as they were in that run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARK = "<!-- `make docs` runs the commands of this page and writes their output. -->"
_PARTS = re.compile(
    r"^```(?P<info>[^\n`]+)\n(?P<body>.*?)^```$|^<!-- \$ (?P<hidden>.*?) -->$", re.M | re.S
)
_LINKED = ("docs", "models", "recipes")


class Failed(Exception):
    """A command of a page ended otherwise than the page says."""


def run_page(text: str, folder: Path) -> str:
    """Returns a page with the output of its commands.

    Args:
        text: The page, as Markdown.
        folder: An empty folder, in which the commands run.

    Raises:
        Failed: A command's exit code is not the expected one.
    """
    environment = _prepare(folder)

    def replace(part: re.Match[str]) -> str:
        if part["hidden"]:
            _run(part["hidden"], folder, environment, 0)
        elif part["info"].startswith("console"):
            body = _run_block(part["info"], part["body"], folder, environment)
            return f"```{part['info']}\n{body}```"
        elif name := find_file_name(part["info"]):
            (folder / name).write_text(part["body"], encoding="utf-8")
        return part[0]

    return _PARTS.sub(replace, text)


def find_file_name(info: str) -> str:
    """Returns the file that a block is written to, or "".

    Args:
        info: What follows the block's opening, as `yaml photos.yaml`.
    """
    language, _, name = info.partition(" ")
    return "" if language == "console" else name.strip()


def list_commands(body: str) -> list[str]:
    """Returns the commands of a console block, each as it was typed, over several lines or one.

    Args:
        body: The lines of the block.
    """
    commands: list[str] = []
    continues = False
    for line in body.splitlines():
        if continues:
            commands[-1] += f"\n{line}"
        elif line.startswith("$ "):
            commands.append(line[2:])
        continues = (continues or line.startswith("$ ")) and line.endswith("\\")
    return commands


def _prepare(folder: Path) -> dict[str, str]:
    """Links the repository's folders, and returns an environment in which `tltool` is this one."""
    for name in _LINKED:
        (folder / name).symlink_to(ROOT / name)
    programs = folder.parent / f"{folder.name}-programs"
    programs.mkdir()
    for name, words in (("python", ""), ("tltool", "-m tl_toolkit ")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n', encoding="utf-8")
        program.chmod(0o755)
    return os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TL_TOOLKIT_CACHE": str(folder / ".cache" / "tl_toolkit"),
    }


def _run_block(info: str, body: str, folder: Path, environment: dict[str, str]) -> str:
    options = dict(word.split("=") for word in info.split()[1:])
    first, last = int(options.get("first", 1000)), int(options.get("last", 0))
    lines: list[str] = []
    for command in list_commands(body):
        output = _run(command, folder, environment, int(options.get("exit", 0)))
        if len(output) > first + last + 1:
            output = [*output[:first], "...", *output[len(output) - last :]]
        lines += [f"$ {command}", *output, ""]
    return "\n".join(lines[:-1]) + "\n"


def _run(command: str, folder: Path, environment: dict[str, str], expected: int) -> list[str]:
    """Returns the lines that a command prints."""
    began = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(f"{time.monotonic() - began:5.1f} s  {command.splitlines()[0]}", flush=True)
    if done.returncode != expected:
        raise Failed(f"{command}\n{done.stdout}exit code {done.returncode}, not {expected}")
    text = re.sub(
        rf"{re.escape(str(folder))}(\S*)(  +)?",
        lambda path: f"~{path[1]}" + (path[2] + " " * (len(str(folder)) - 1) if path[2] else ""),
        done.stdout,
    )
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def main(names: list[str]) -> None:
    """Runs pages, two at a time, and writes them again.

    Args:
        names: Names of pages without `.md`; none for all.
    """
    pages = [
        page
        for page in sorted((ROOT / "docs").glob("*.md"))
        if MARK in page.read_text(encoding="utf-8") and (not names or page.stem in names)
    ]
    with ThreadPoolExecutor(2) as pool:
        for page, _ in zip(pages, pool.map(_rewrite, pages), strict=True):
            print(f"wrote {page.relative_to(ROOT)}", flush=True)


def _rewrite(page: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve() / "here"
        folder.mkdir()
        text = run_page(page.read_text(encoding="utf-8"), folder)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Failed as error:
        sys.exit(str(error))
