"""Docstrings of sections, as `help` and editors show them."""

import inspect
import pydoc

import pytest

import tl_toolkit as tl
from tl_toolkit.recipe.fields import Section
from tl_toolkit.recipe.load import json_schema
from tl_toolkit.recipe.tasks import TASKS, find_task

SECTIONS = [
    item
    for item in (
        *(getattr(tl.recipe, name) for name in dir(tl.recipe) if name[0].isupper()),
        *map(find_task, TASKS),
    )
    if isinstance(item, type) and issubclass(item, Section)
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_help_of_a_section_names_and_describes_its_fields(section):
    text = pydoc.plain(pydoc.render_doc(section))
    words = " ".join(text.replace("|", " ").split())

    for name, field in section.model_fields.items():
        described = " ".join(f"{name}: {field.description}".replace("|", " ").split())
        assert described in words, name


def test_a_field_says_whether_it_is_required_and_else_its_default():
    data, phase, unfreeze = (
        " ".join(getattr(tl.recipe, name).__doc__.split())
        for name in ("Data", "Phase", "UnfreezeFrom")
    )

    assert "Required." in phase.partition("epochs:")[2].partition("optimizer:")[0]
    assert "Default: 'frozen'. batch_norm_momentum:" in phase
    assert "Default: 0.2. test:" in data
    assert "Default" not in data.partition("test:")[2].partition("classes:")[0]
    assert "In files: `from`. Required." in unfreeze


def test_help_of_the_module_lists_every_section_with_its_fields():
    words = " ".join(pydoc.plain(pydoc.render_doc(tl.recipe)).split())

    assert len(SECTIONS) > 25
    for section in SECTIONS:
        assert f"{section.__name__}: {', '.join(section.model_fields)}" in words
    assert words.startswith("Python Library Documentation: package tl_toolkit.recipe")
    assert inspect.getdoc(tl.recipe).startswith("Recipes: their schema")


def test_the_schema_describes_a_field_in_its_own_place_alone():
    schema = json_schema()

    for section in [schema, *schema["$defs"].values()]:
        assert "Attributes:" not in section.get("description", "")
    assert schema["$defs"]["Masks"]["description"].endswith("\n\nMaps of edges and of normals are "
                                                            "called masks too.")  # fmt: skip
