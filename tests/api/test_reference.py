"""docs/api.md: what `docs/build.py` writes from docstrings."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import tl_toolkit as tl
from tl_toolkit.recipe.fields import Section

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def reference(monkeypatch):
    """The module that writes the page."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("api_reference")


def test_the_page_is_current(reference, monkeypatch):
    places = importlib.import_module("build").PLACES

    assert (ROOT / "docs" / "api.md").read_text() == reference.build_api(places), "run: make docs"


def test_every_public_name_has_a_place(reference):
    grouped = [name for names in reference.GROUPS.values() for name in names]

    assert sorted([*grouped, *reference.ELSEWHERE]) == tl.__all__


def test_signatures_and_lists_hold_every_parameter():
    text = (ROOT / "docs" / "api.md").read_text()

    part = text.partition("### tl.finetune\n")[2].partition("### ")[0]
    listed = re.findall(r"^- `(\w+)`: \w", part.partition("Args:")[2].partition("Ra")[0], re.M)
    assert listed == list(inspect.signature(tl.finetune).parameters)
    assert all(f"    {name}: " in part for name in listed)


def test_links_to_the_recipe_lead_to_its_headings(reference):
    text = (ROOT / "docs" / "api.md").read_text()
    headings = re.findall("^## (.*)$", (ROOT / "docs" / "recipe.md").read_text(), re.M)

    anchors = re.findall(r"\]\(recipe\.md#([^)]*)\)", text)

    assert set(anchors) <= {reference.slug(heading) for heading in headings}
    sections = [getattr(tl.recipe, name) for name in dir(tl.recipe) if name[0].isupper()]
    count = sum(isinstance(kind, type) and issubclass(kind, Section) for kind in sections)
    assert len(anchors) == count + 6  # the tasks


def test_a_docstring_is_split_into_prose_and_items(reference):
    prose, sections = reference.split_docstring(
        "Does it.\n\nMore.\n\nArgs:\n    a: First\n        thing.\n    b: Second.\n\n"
        "Returns:\n    A sum: of\n    both.\n\nRaises:\n    ValueError: a < b."
    )

    assert prose == "Does it.\n\nMore."
    assert sections["Args"] == ["a: First thing.", "b: Second."]
    assert " ".join(sections["Returns"]) == "A sum: of both."
    assert sections["Raises"] == ["ValueError: a < b."]


def test_signs_that_would_be_tags_are_written_as_text(reference):
    def name(folder="runs"):
        """Names `<name>` below folder/<name>.

        Args:
            folder: Not <b>.
        """

    text = reference.write_docstring(name)

    assert text == "Names `<name>` below folder/&lt;name>.\n\nArgs:\n\n- `folder`: Not &lt;b>.\n"
