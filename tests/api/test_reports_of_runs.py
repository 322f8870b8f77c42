"""`tl.report` and `tltool report`: the page of a run."""

import json
import math
import re
import shutil
from importlib import import_module
from xml.etree import ElementTree

import pytest

import tl_toolkit as tl
from tests.browser import inspect_page
from tests.command import tltool
from tests.conftest import draw_class_folders
from tl_toolkit.runs.folder import RunFolder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    photos = draw_class_folders(tmp_path_factory.mktemp("photos") / "all")
    return {
        "version": 1,
        "name": "photos",
        "data": {"train": str(photos), "validation": 0.25, "test": 0.25, "image_size": 32,
                 "batch_size": 8},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
        "export": False,
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """A run, and the report that it ended with."""
    with pytest.MonkeyPatch.context() as patch:  # a busy machine makes no run a long one
        patch.setattr(import_module("tl_toolkit.api.finetune"), "_SECONDS_OF_PICTURES", math.inf)
        run = tl.finetune(recipe, root=tmp_path_factory.mktemp("runs"))
    return run, (run.folder.report / "index.html").read_text()


@pytest.fixture(scope="module")
def run(finished):
    return finished[0]


def test_a_run_ends_with_its_report(finished):
    run, text = finished

    accuracy = run.metrics["test"]["accuracy"]
    assert f"Accuracy {accuracy:.3f} on test images" in text
    headings = re.findall(r'<h2 id="(\w+)">', text)
    assert headings == [
        "data", "course", "classes", "calibration", "images", "transfer", "freezing", "cost",
        "recipe",
    ]  # fmt: skip
    assert set(re.findall(r'href="#(\w+)"', text)) == {"main", *headings}
    assert "report" in run.metrics["seconds"]
    assert "Heat maps are left out of the report of a short run" in text
    assert len(text) < 5_000_000


def test_every_plot_is_a_file_of_its_own_and_in_the_page(run):
    text = (run.folder.report / "index.html").read_text()

    files = sorted(run.folder.report.glob("*.svg"))
    assert len(files) >= 6
    assert text.count("<svg") == len(files)
    for file in files:
        svg = ElementTree.parse(file).getroot()
        title, description = (svg.find(f"{{http://www.w3.org/2000/svg}}{tag}").text
                              for tag in ("title", "desc"))  # fmt: skip
        assert svg.get("role") == "img" and title and description
        assert f'id="{file.stem}-title"' in text


def test_ids_of_a_page_are_its_own(run):
    ids = re.findall(r' id="([^"]+)"', (run.folder.report / "index.html").read_text())

    assert len(ids) == len(set(ids))


def test_numbers_of_the_report_are_those_of_predictions(run):
    numbers = json.loads((run.folder.report / "numbers.json").read_text())

    assert set(numbers["classes"]["ranking"]) == {"ants", "bees", "wasps"}
    counted = sum(each["number"] for each in numbers["calibration"]["bins"])
    assert counted == run.metrics["test"]["images"]


def test_the_command_writes_the_report_again(run):
    page = run.folder.report / "index.html"
    before = page.read_text()
    page.unlink()

    done = tltool("report", run.path, "--json", cwd=run.path)

    assert json.loads(done.stdout) == {"report": str(page)}
    assert re.findall("<h2.*", page.read_text()) == re.findall("<h2.*", before)


def test_heat_maps_take_time_and_come_with_the_command(run):
    text = tl.report(run).read_text()

    shown = text.count('<img src="data:image/jpeg')
    assert shown == 2 * text.count('alt="heat map: ') > 0
    assert "speaks for the predicted class" in text


@pytest.mark.slow
def test_a_run_without_a_report_says_so_in_its_recipe(recipe, tmp_path):
    run = tl.finetune(recipe, overrides={"report": False, "phases.head.epochs": 0}, root=tmp_path)

    assert not run.folder.report.exists()
    assert tl.report(run) == run.folder.report / "index.html"


@pytest.mark.slow
def test_a_report_that_cannot_be_written_leaves_the_run_done(recipe, tmp_path):
    texts = []

    def block(event):
        if event.kind == "epoch_ended":
            (tmp_path / "out" / "report").write_text("in the way")
        texts.append(event.text)

    overrides = {"phases.head.epochs": 1}
    run = tl.finetune(recipe, overrides=overrides, out=tmp_path / "out", progress=block)

    assert run.folder.read_status()["state"] == "done"
    (text,) = [text for text in texts if "report failed" in text]
    assert text.endswith(f"; tltool report {run.path}")
    log = run.folder.log.read_text()
    assert "Traceback (most recent call last)" in log and "in write_report" in log


def test_a_run_of_an_earlier_version_has_a_report(run, tmp_path):
    """It has no cost in its metrics, no digests, and no field `report` in its recipe."""
    copy = shutil.copytree(run.path, tmp_path / "old")
    RunFolder(copy).write_status("done")
    metrics = json.loads((copy / "metrics.json").read_text())
    del metrics["cost"]
    (copy / "metrics.json").write_text(json.dumps(metrics))
    written = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(written.replace("report: true\n", ""))

    text = tl.report(copy).read_text()

    assert "multiply-accumulates" not in text and "Time by step" in text


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_the_page_to_everybody(run, tmp_path, dark):
    """Needs a process of its own: Chromium."""
    seen, console = inspect_page(run.folder.report / "index.html", tmp_path, dark=dark)

    assert console == []
    assert set(seen) == {"desktop", "phone"}
    for page in seen.values():
        assert page["violations"] == []
        assert page["passes"] > 20
        assert page["resources"] == []
        assert page["wider_by"] <= 0
        assert page["background"] == ("rgb(20, 24, 28)" if dark else "rgb(255, 255, 255)")


@pytest.mark.slow
def test_a_browser_finds_what_is_wrong_with_a_page(tmp_path):
    """Needs a process of its own: Chromium."""
    page = tmp_path / "bad.html"
    page.write_text(
        '<!doctype html><html lang="en"><title>x</title>'
        '<meta http-equiv="Content-Security-Policy" content="default-src data:">'
        "<body><main><h1>x</h1>"
        '<img src="http://127.0.0.1:9/x.png"><p style="color:#ccc;background:#fff">pale</p>'
        '<div style="width:3000px">wide</div></main></body></html>'
    )

    seen, console = inspect_page(page, tmp_path)

    assert {rule for _, rule, _ in seen["phone"]["violations"]} >= {"image-alt", "color-contrast"}
    assert seen["phone"]["resources"] and seen["phone"]["wider_by"] > 0
    assert any("Content Security Policy" in line for line in console)
