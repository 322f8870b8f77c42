"""Every page of the documentation says what exists: commands, options, recipes, names, links.

Nothing is run but the machinery itself: `make docs` runs the commands of the pages.
"""

import ast
import importlib.util
import re
import shlex
from typing import NamedTuple

import click
import pytest

import tl_toolkit as tl
from tests.conftest import ROOT
from tl_toolkit.cli.main import tltool
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.recipe.tasks import TASKS

PAGES = sorted([ROOT / "README.md", ROOT / "models" / "README.md", *(ROOT / "docs").glob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.M | re.S)
REDIRECTION = re.compile(r"(?<!\S)\d?>>?\s*(&\d|[^\s|;]+)")
# What stands for something else in prose, as `tltool cache info|clear`.
PLACEHOLDERS = re.compile(r"[|…<\[]|\.\.\.|\bVERB\b")
MINIMUM = {
    "version": "version: 1\n",
    "name": "name: fragment\n",
    "data": "data: {train: photos, image_size: 64}\n",
    "model": "model: {base: mobilenet, weights: imagenet}\n",
    "phases": "phases: [{name: head, epochs: 1}, {name: tune, epochs: 1, unfreeze: 1}]\n",
}
# Sections that need another one: a table, masks.
NEEDED = {
    "regression": "data: {csv: table.csv, image_size: 64}\n",
    "multilabel": "data: {csv: table.csv, image_size: 64}\n",
}


class Block(NamedTuple):
    language: str
    body: str
    line: int


def load_examples():
    path = ROOT / "docs" / "examples.py"
    spec = importlib.util.spec_from_file_location("examples", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


examples = load_examples()


def list_blocks(text):
    for block in BLOCK.finditer(text):
        language = block["info"].split(" ")[0]
        yield Block(language, block["body"], text.count("\n", 0, block.start()) + 1)


def list_commands(text):
    """Every command of tltool in blocks, as words."""
    typed: list[str] = []
    for block in list_blocks(text):
        if block.language == "console":
            typed += examples.list_commands(block.body)
        elif block.language in ("", "bash", "sh"):
            typed += block.body.splitlines()
    for line in filter(re.compile(r"\btltool ").search, typed):
        yield from (words[1:] for words in split_commands(line) if words[:1] == ["tltool"])


def list_mentions(text):
    """Every command in prose, as words; a mention may lack what the command needs."""
    for code in re.findall(r"`(tltool [^`]*)`", BLOCK.sub("", text)):
        if not PLACEHOLDERS.search(code):
            yield shlex.split(code)[1:]


def split_commands(line):
    """The commands of a shell's line, without redirections and comments."""
    line = re.sub(r"\s#\s.*", "", line.replace("\\\n", " "))
    lexer = shlex.shlex(REDIRECTION.sub("", line), posix=True, punctuation_chars="|;&")
    lexer.whitespace_split, lexer.commenters = True, ""
    command = []
    for word in lexer:
        if set(word) <= set("|;&"):
            yield command
            command = []
        else:
            command.append(word)
    yield command


def parse(words):
    """Parses a command as Click does, down to the options of the last verb; runs nothing."""
    command, name, context = tltool, "tltool", None
    while True:
        try:
            context = command.make_context(name, list(words), parent=context)
        except click.exceptions.Exit:  # --help
            return command
        if not isinstance(command, click.Group):
            return command
        rest = [*context._protected_args, *context.args]
        if not rest:
            return command
        name, command, words = command.resolve_command(context, rest)


@pytest.mark.parametrize("name", NAMES)
def test_each_command_of_a_page_parses(name):
    text = (ROOT / name).read_text()
    faults = [find_fault(words) for words in list_commands(text)]
    faults += [find_fault(words, missing=True) for words in list_mentions(text)]

    assert [fault for fault in faults if fault] == []


def find_fault(words, *, missing=False):
    try:
        parse(words)
    except click.UsageError as error:
        if not (missing and isinstance(error, click.MissingParameter)):
            return f"tltool {shlex.join(words)}: {error.format_message()}"
    return ""


def test_the_tutorial_has_commands_to_parse():
    commands = list(list_commands((ROOT / "docs" / "tutorial.md").read_text()))

    verbs = {words[0] for words in commands if words}
    assert {"init", "validate", "finetune", "evaluate", "predict", "export"} <= verbs


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("tltool cache info   # what is stored", [["tltool", "cache", "info"]]),
        ("ls | tltool predict latest - 2>&1", [["ls"], ["tltool", "predict", "latest", "-"]]),
        ("tltool predict 'a b.jpg' > out.csv", [["tltool", "predict", "a b.jpg"]]),
    ],
)  # fmt: skip
def test_a_line_is_split_as_a_shell_splits_it(line, commands):
    assert list(split_commands(line)) == commands


@pytest.mark.parametrize(
    "words", [["finetun", "a.yaml"], ["predict", "latest"], ["cache", "empty"], ["env", "--jsn"]]
)
def test_a_command_that_does_not_exist_is_no_command(words):
    with pytest.raises(click.UsageError):
        parse(words)


@pytest.mark.parametrize("name", NAMES)
def test_each_python_block_of_a_page_compiles_and_names_what_exists(name):
    text = (ROOT / name).read_text()

    missing = {
        node.attr
        for block in list_blocks(text)
        if block.language == "python"
        for node in ast.walk(ast.parse(as_code(block.body), f"{name}:{block.line}"))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id == "tl" and not hasattr(tl, node.attr)
    }
    written = {found for code in re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
               for found in re.findall(r"\btl\.([A-Za-z]\w*)", code)}  # fmt: skip

    assert missing | {word for word in written if not hasattr(tl, word)} == set()


def as_code(body):
    """Python that can be parsed: a signature, `tl.load_run(run: str) -> Run`, is a function's."""
    signature = re.fullmatch(r"(?P<name>[\w.]+)(?P<rest>\(.*\)( -> [^\n]+)?)\n", body, re.S)
    if not signature:
        return body
    try:
        ast.parse(body)
    except SyntaxError:
        return f"{signature['name']}\ndef signature{signature['rest']}: ..."
    return body


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_of_a_page_is_valid(name, tmp_path):
    for block in list_blocks((ROOT / name).read_text()):
        if block.language != "yaml":
            continue

        path = tmp_path / f"line{block.line}.yaml"
        path.write_text(complete_recipe(block.body))

        assert tl.load_recipe(path).recipe  # raises with the line of what is wrong


def complete_recipe(body):
    """A recipe of which the page shows some sections."""
    there = set(re.findall(r"^(\w+):", body, re.M))
    assert there <= set(Recipe.model_fields), f"no sections of a recipe: {there}"
    minimum = dict(MINIMUM)
    for word, section in NEEDED.items():
        if re.search(rf"^task:.*\n?.*\b{word}\b", body, re.M):
            minimum["data"] = section
    return body + "".join(text for section, text in minimum.items() if section not in there)


def list_links(text):
    return re.findall(r"\]\(([^()\s]+)\)", BLOCK.sub("", text))


def list_anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_each_link_and_picture_of_a_page_exists(name):
    page = ROOT / name
    missing = []
    for link in list_links(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in list_anchors(target.read_text())):
            missing.append(link)

    assert missing == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_the_index_lists_each_page():
    linked = set(list_links((ROOT / "docs" / "README.md").read_text()))

    assert {page.name for page in (ROOT / "docs").glob("*.md")} - linked == {"README.md"}


@pytest.mark.parametrize("kind", TASKS)
def test_each_task_has_a_page_with_its_commands_and_a_picture(kind):
    text = (ROOT / "docs" / f"{kind}.md").read_text()

    verbs = {words[0] for words in list_commands(text) if words}
    assert {"validate", "finetune", "evaluate", "predict", "export"} <= verbs
    assert examples.MARK in text
    assert "](pictures/" in text


def test_pictures_are_small_and_shown():
    pictures = list((ROOT / "docs" / "pictures").iterdir())
    pages = "".join(page.read_text() for page in PAGES)

    assert pictures
    assert [path.name for path in pictures if path.stat().st_size >= 100_000] == []
    assert [path.name for path in pictures if f"pictures/{path.name}" not in pages] == []


def test_pages_hold_the_output_of_each_command():
    for page in PAGES:
        text = page.read_text()
        if examples.MARK in text:
            for block in list_blocks(text):
                if block.language == "console":
                    assert not block.body.endswith("\\\n")
                    assert not re.search(r"Traceback|/tmp/", block.body), f"{page}:{block.line}"


PAGE = """# Page

```text note.txt
kept
```

```console first=1 last=1
$ cat note.txt
old output
$ seq 1 9; \\
    pwd
```

<!-- $ cp note.txt hidden.txt -->

```console exit=3
$ cat hidden.txt; exit 3
```
"""


def test_a_page_is_run_in_its_order_and_its_output_replaced(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()

    text = examples.run_page(PAGE, folder)

    assert "```console first=1 last=1\n$ cat note.txt\nkept\n\n$ seq" in text
    assert "    pwd\n1\n...\n~\n```" in text
    assert "$ cat hidden.txt; exit 3\nkept\n```" in text
    assert "old output" not in text
    assert examples.list_commands(PAGE)[0] == "cat note.txt"


def test_a_page_whose_command_ends_otherwise_is_refused(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()

    with pytest.raises(examples.Failed, match="exit code 3, not 0"):
        examples.run_page(PAGE.replace(" exit=3", ""), folder)
