"""Export formats are one table: recipes, the command and the code read the same lines."""

import importlib.util

import pytest
from click.testing import CliRunner

from tl_toolkit.cli.using import export_command
from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.export_formats import (
    EXPORT_FORMATS,
    ExportFormat,
    check_formats,
    describe_formats,
    split_formats,
)
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.recipe.schema import Export

every_format = pytest.mark.parametrize("name", EXPORT_FORMATS)


@every_format
def test_a_format_is_a_word_of_recipes(name):
    recipe = {
        "version": 1,
        "name": "export",
        "data": {"builtin": "digits", "image_size": 28},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
        "export": {"formats": [name]},
    }

    assert build_recipe(recipe).recipe.export.formats == (name,)


@every_format
def test_a_format_has_a_file_that_writes_it_and_a_proof_if_it_can_be_asked(name):
    from tl_toolkit.export.formats import find_format

    form = find_format(name)

    assert callable(form.write)
    assert (form.asking is not None or form.runtime != "") == bool(EXPORT_FORMATS[name].proof)
    assert min(form.limits.pixels, form.limits.encoded) > 0


def test_the_recipe_and_the_command_describe_all_formats():
    shown = CliRunner().invoke(export_command, ["--help"]).output

    assert describe_formats() in Export.model_fields["formats"].description
    assert all(name in shown for name in EXPORT_FORMATS)


def test_formats_are_named_with_commas_and_again_each_once():
    assert split_formats(["weights,saved_model", " weights"]) == ("weights", "saved_model")
    assert split_formats("weights") == ("weights",)


@pytest.mark.parametrize("option", ["--to", "--format"])
def test_an_unknown_format_is_refused_by_name(option):
    outcome = CliRunner().invoke(export_command, ["latest", option, "weights,savedmodel"])

    assert isinstance(outcome.exception, RecipeError)
    assert "'savedmodel' is no format; did you mean 'saved_model'?" in str(outcome.exception)


def test_a_format_whose_modules_are_not_installed_is_refused_with_its_extra(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else found(name)
    )
    words = r"not installed: tf2onnx. Try: pip install 'tl-toolkit\[onnx\]'"
    with pytest.raises(RecipeError, match=words):
        check_formats(["litert", "onnx"])

    check_formats(["litert"])


def test_no_format_is_refused():
    with pytest.raises(RecipeError, match="names no format"):
        split_formats([])


def test_a_new_format_is_a_line_and_a_file(monkeypatch, tmp_path):
    import tl_toolkit.export
    from tests.export.test_export import build_model, publish_model

    (tmp_path / "summary.py").write_text(
        "from tl_toolkit.export.formats import Format\n"
        "FORMAT = Format(lambda finished, path: path.write_text(repr(finished.task.classes)))\n"
    )
    monkeypatch.setattr(tl_toolkit.export, "__path__", [*tl_toolkit.export.__path__, str(tmp_path)])
    monkeypatch.setitem(EXPORT_FORMATS, "summary", ExportFormat("summary", "summary.txt", "a test"))

    paths = publish_model(build_model(), tmp_path, formats=["summary"])

    assert paths["summary"].read_text() == "('bee', 'fourmi é')"
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["summary.txt"]
