"""Every public object has a docstring, and its Args are those of its signature."""

import ast
import re

import pytest

from tests.syntax import PACKAGE, parse_package


def public_objects(tree):
    """Yields (name, node, signature node) of public functions, classes and methods."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            init = next((item for item in methods if item.name == "__init__"), None)
            yield node.name, node, init
            for item in methods:
                if not item.name.startswith("_"):
                    yield f"{node.name}.{item.name}", item, item


def arguments_of(signature):
    """Returns the names of all arguments, but for *args and **kwargs that are handed on."""
    arguments = signature.args
    # A name other than these two says that the values have a meaning.
    unnamed = ("self", "cls", "args", "kwargs")
    every = [
        *arguments.posonlyargs,
        *arguments.args,
        arguments.vararg,
        *arguments.kwonlyargs,
        arguments.kwarg,
    ]
    return [argument.arg for argument in every if argument and argument.arg not in unnamed]


def is_command(node):
    """Returns whether Click makes a command of a function: its docstring is the text of --help."""
    decorators = getattr(node, "decorator_list", [])
    return any(re.search(r"\b(command|group)\(", ast.unparse(line)) for line in decorators)


def fields_of(node):
    """Returns the fields of a dataclass, a named tuple or a protocol; [] for another class."""
    marks = {ast.unparse(mark).split("(")[0] for mark in [*node.decorator_list, *node.bases]}
    if not marks & {"dataclass", "NamedTuple", "Protocol"}:
        return []
    annotated = [item for item in node.body if isinstance(item, ast.AnnAssign)]
    names = [item.target.id for item in annotated if "ClassVar" not in ast.unparse(item.annotation)]
    return [name for name in names if not name.startswith("_")]


def documented_arguments(docstring, title="Args"):
    """Returns the names of an Args section, or another of its kind, [] where there is none."""
    section = re.search(rf"^ *{title}:\n((?:.*\n?)*?)(?=^ *[A-Z]\w+:$|\Z)", docstring, re.MULTILINE)
    if section is None:
        return []
    lines = section.group(1).splitlines()
    indent = min((len(x) - len(x.lstrip()) for x in lines if x.strip()), default=0)
    return [
        re.match(r"\**(\w+)", line.strip()).group(1)
        for line in lines
        if line.strip() and len(line) - len(line.lstrip()) == indent
    ]


@pytest.fixture(scope="module")
def trees():
    """The syntax tree of each module, by its place in the package."""
    return {str(path.relative_to(PACKAGE)): tree for path, tree in parse_package().items()}


def test_public_objects_say_what_they_are_and_name_their_arguments(trees):
    undocumented, differing = [], {}
    for place, tree in trees.items():
        undocumented += [] if ast.get_docstring(tree) else [place]
        for name, node, signature in public_objects(tree):
            docstring = ast.get_docstring(node)
            if not docstring:
                undocumented.append(f"{place}: {name}")
            elif signature is not None and not is_command(node):
                named, taken = documented_arguments(docstring), arguments_of(signature)
                differing |= {} if named == taken else {f"{place}: {name}": (named, taken)}

    assert undocumented == []
    assert differing == {}


def test_classes_of_plain_values_name_their_fields(trees):
    missing = {}
    for place, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                documented = documented_arguments(ast.get_docstring(node), "(?:Attributes|Args)")
                if fields := set(fields_of(node)) - set(documented):
                    missing[f"{place}: {node.name}"] = fields

    assert missing == {}


@pytest.mark.parametrize("mark", ["@dataclass(frozen=True)\nclass A:", "class A(NamedTuple):"])
def test_a_field_that_is_not_documented_is_noticed(mark):
    body = "    a: int\n    _b: int = 0\n    c: ClassVar[int] = 1\n    d: str = ''\n"

    assert fields_of(ast.parse(mark + "\n" + body).body[0]) == ["a", "d"]
    assert fields_of(ast.parse("class A:\n" + body).body[0]) == []


@pytest.mark.parametrize(
    ("section", "documented"), [("\n\n    Args:\n        a: First.\n    ", ["a"]), ("", [])]
)
def test_an_argument_that_is_not_documented_is_noticed(section, documented):
    node = ast.parse(f'def f(a, *, b):\n    """Does.{section}"""\n').body[0]

    assert documented_arguments(ast.get_docstring(node)) == documented != arguments_of(node)


def test_arguments_of_any_number_count_if_their_name_says_something():
    first, second = ast.parse(
        "def f(a, /, b, *parts, c, **more): ...\ndef g(a, *args, **kwargs): ..."
    ).body

    assert arguments_of(first) == ["a", "b", "parts", "c", "more"]
    assert arguments_of(second) == ["a"]
    assert documented_arguments("Does.\n\nArgs:\n    *parts: Some.\n") == ["parts"]


def test_only_commands_of_click_need_no_section_of_arguments():
    source = "@group.command('x')\n@takes_size\ndef f(a): ...\n\n@cache\ndef g(a): ...\n"

    assert [is_command(node) for node in ast.parse(source).body] == [True, False]
