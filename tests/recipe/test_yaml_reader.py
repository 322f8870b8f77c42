"""Reading YAML 1.2: what values mean, where they are, and what is refused."""

import math

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError

from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.yaml_reader import read_scalar, read_yaml


def place(line, column):
    return f"x:{line}:{column}"


def read(text):
    return read_yaml(text, place).plain()


def refuse(text):
    with pytest.raises(RecipeError) as caught:
        read_yaml(text, place)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("012", 12),
        ("+7", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("-.inf", -math.inf),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("e5", "e5"),
        ("inf", "inf"),
        ("nan", "nan"),
        ("'1'", "1"),
        ('"true"', "true"),
    ],
)
def test_scalar_means_what_yaml_1_2_says(text, value):
    result = read(f"a: {text}")["a"]

    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("text", ["1_000", "0b1", "-0x1F", "2024-01-01", ".5e3", "._"])
def test_ruamel_reads_scalars_otherwise_which_is_why_they_are_typed_here(text):
    """Where ruamel.yaml follows the core schema one day, `read_scalar` can be its resolver."""
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except ValueError:
        value = None

    assert value != read_scalar(text)


def test_ruamel_stops_at_the_first_key_that_is_written_twice_which_is_why_they_are_found_here():
    with pytest.raises(DuplicateKeyError) as caught:
        YAML(pure=True).load("a: 1\na: 2\nb: 1\nb: 2\n")

    assert '"a"' in str(caught.value) and '"b"' not in str(caught.value)


def test_unquoted_scalar_may_be_read_alone():
    assert math.isnan(read_scalar(".nan"))
    assert read_scalar("1e-4") == 1e-4


def test_anchors_give_copies():
    tree = read_yaml("a: &x {b: 1}\nc: *x", place)

    tree.find(("c", "b")).value = 2

    assert tree.plain() == {"a": {"b": 1}, "c": {"b": 2}}


def test_places_are_those_of_keys_and_list_entries():
    tree = read_yaml("# first\na:\n  - b: 1\n    c: [5,\n  6]\n", place)

    assert tree.locate(()) == "x:2:1"
    assert tree.locate(("a", 0)) == "x:3:5"
    assert tree.locate(("a", 0, "c")) == "x:4:5"
    assert tree.locate(("a", 0, "c", 1)) == "x:5:3"


def test_place_of_what_is_not_written_is_that_of_its_parent():
    tree = read_yaml("a:\n  - b: 1\n", place)

    assert tree.locate(("a", 0, "z", "y")) == "x:2:5"
    assert tree.locate(("a", 7)) == "x:1:1"


def test_columns_count_characters():
    assert read_yaml("{é花: 1, b: 2}", place).locate(("b",)) == "x:1:9"


@pytest.mark.parametrize("text", ["a: 1\r\nb: 2\r\n", "a: 1\rb: 2", "---\na: 1\nb: 2\n...\n"])
def test_line_ends_and_document_marks_do_not_matter(text):
    assert read(text) == {"a": 1, "b": 2}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\n\n"])
def test_empty_document_is_none(text):
    assert read(text) is None


def test_every_duplicate_key_is_told_with_both_places():
    first, second = refuse("a: 1\nb: {c: 1, c: 2}\na: 3\n")

    assert (first.where, first.what) == ("x:2:11", "b.c is written twice")
    assert "x:2:5" in first.expected
    assert (second.where, second.what) == ("x:3:1", "a is written twice")
    assert "x:1:1" in second.expected


@pytest.mark.parametrize("key", ["a", "'a'", '"\\x61"'])
def test_duplicate_key_is_found_in_any_spelling(key):
    assert refuse(f"a: 1\n{key}: 2")[0].what == "a is written twice"


@pytest.mark.parametrize(
    ("text", "where", "expected"),
    [
        ("a:\n\tb: 1", "x:2:1", "does not indent with tabs"),
        ("a: b: c", "x:1:5", "quote a text that holds a colon"),
        ("a: [1, 2\nb: 3", "x:1:4", "close the bracket"),
        ("a: {b: 1", "x:1:4", "close the bracket"),
        ("a: 'x\nb: 3", "x:1:4", "close the text"),
        ("a:\n  b: 1\n c: 2", "x:3:2", "line the keys up"),
        ("a: 1\nb\nc: 2", "x:3:1", "put a colon"),
        ("a: *.jpg", "x:1:4", "quotes around text"),
        ("a: @x", "x:1:4", "quote a text that begins with this character"),
        ("a: *b", "x:1:4", "an anchor &b before it"),
        ("a: &a [*a]", "x:1:8", "an anchor &a before it"),
        ("a: !!int 3", "x:1:4", "tag '!!int'"),
        ("a: !!python/object:os.system x", "x:1:4", "a value without a tag"),
        ("a: !x\n  b: 1", "x:1:4", "a value without a tag"),
        ("!!str a: 1", "x:1:1", "keys like `name:`"),
        ("? [a]\n: 1", "x:1:3", "keys like `name:`"),
        ("a: 1\n---\nb: 2", "x:2:1", "one document in a file"),
        ("%YAML 1.1\n---\na: 1", "x:2:1", "YAML 1.2"),
        ("a: 1\nb: \0", "x:2:4", "expected printable text"),
        ("a: \x1b[0m", "x:1:4", "expected printable text"),
        ('a: "\\UFFFFFFFF"', "x:1:1", "not YAML"),
        ("a: " + "9" * 41, "x:1:4", "a number of at most 40 characters"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_place(text, where, expected):
    (problem,) = refuse(text)

    assert problem.where == where
    assert expected in str(problem)


def test_deep_nesting_is_refused_before_it_is_read():
    assert read("[" * 20 + "]" * 20)

    (problem,) = refuse("[" * 100_000)

    assert problem.where == "x:1:21"
    assert "at most 20 levels" in problem.expected


@pytest.mark.parametrize("first", ["[[[[[[[]]]]]]]", "[[[[[[[]]]]]], 1]"])
def test_aliases_cannot_nest_deeper_than_text(first):
    text = f"a: &a {first}\nb: &b [[[[[[[*a]]]]]], 1]\nc: [[[[[[[*b]]]]]]]"

    assert "at most 20 levels" in refuse(text)[0].expected


def test_aliases_are_counted():
    text = "a: &a 1\nb: [{}]"

    assert len(read(text.format("*a, " * 50))["b"]) == 50
    assert "at most 50 aliases" in refuse(text.format("*a, " * 51))[0].expected


def test_alias_bomb_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 6)]

    assert "at most 10000 values" in refuse("\n".join(lines))[0].expected


def test_number_of_values_is_limited():
    assert "at most 10000 values" in refuse("[" + "1," * 10_000 + "]")[0].expected
