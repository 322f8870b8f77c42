"""`tl.card`: the metadata that the Hub reads, and what the text says of a run."""

import json
import re

import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.runs.written import write_predictions, write_run
from tl_toolkit.errors import RecipeError, ToolkitError
from tl_toolkit.printing.markdown import escape_markdown, read_front_matter, write_table
from tl_toolkit.runs.results import finish

ROWS = [("image 0", "ant", "ant"), ("image 1", "bee", "ant"), ("image 2", "ant", "ant")]


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path / "runs")
    write_predictions(folder, ROWS)
    return folder


def test_the_front_matter_has_the_measured_results_with_their_intervals(run):
    metadata = read_front_matter(tl.card(run.path, license="mit"))

    assert {name: metadata[name] for name in ("license", "library_name", "pipeline_tag")} == {
        "license": "mit", "library_name": "keras", "pipeline_tag": "image-classification",
    }  # fmt: skip
    assert metadata["tags"][-2:] == ["classification", "lenet5"]
    assert metadata["datasets"] == ["photos"] and metadata["metrics"] == ["accuracy"]
    (model,) = metadata["model-index"]
    (result,) = model["results"]
    assert result["dataset"]["split"] == "validation"
    assert result["metrics"] == [
        {
            "type": "accuracy", "name": "accuracy (validation)", "value": 0.75,
            "args": {"interval_95": [0.3, 0.95]},
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("table: data/birds/metadata.jsonl", "birds"),
        ("table: data/birds.parquet", "birds"),
        ("table: data/birds-v1.0", "birds-v1.0"),
        ("csv: data/birds.csv", "birds"),
        ("train: data/instances_train2017.json", "instances_train2017"),
        ("builtin: digits", "digits"),
    ],
)
def test_the_images_are_called_by_their_source(run, source, name):
    run.recipe.write_text(re.sub("train: .*", source, run.recipe.read_text()))

    text = tl.card(run.path)

    metadata = read_front_matter(text)
    assert metadata["datasets"] == [name]
    assert metadata["model-index"][0]["results"][0]["dataset"]["name"] == name
    assert f"fine-tuned from lenet5 on {escape_markdown(name)} with tl_toolkit" in text


def test_the_version_is_the_one_that_trained_the_run(run):
    lock = json.loads(run.lock.read_text())
    lock["numerics"]["versions"]["tl-toolkit"] = "0.1.9"

    older = tl.card(run.path)
    run.lock.write_text(json.dumps(lock))

    assert "with tl_toolkit. " in older
    assert "with tl_toolkit 0.1.9. " in tl.card(run.path)


def test_test_images_come_before_validation_images(run):
    metrics = json.loads(run.metrics.read_text())
    metrics["test"] = {"images": 3, "accuracy": 0.5, "intervals": {}}
    run.metrics.write_text(json.dumps(metrics))
    finish(run)

    text = tl.card(run.path)

    (result,) = read_front_matter(text)["model-index"][0]["results"]
    assert (result["dataset"]["split"], result["metrics"][0]["value"]) == ("test", 0.5)
    assert "validation images chose the epoch, and flatter" not in text
    assert "Only 3 images were measured." in text


def test_the_text_counts_images_and_says_what_is_not_known(run):
    text = tl.card(run.path, data_license="CC BY 4.0")

    assert "| ant | 2 |" in text and "| bee | 1 |" in text
    assert "| accuracy | 0.7500 | 0.3000 | 0.9500 |" in text
    assert "| head | 2 | 0.0005 | 0.9000 |" in text
    assert "none: its weights began at random" in text and "| the images | CC BY 4.0 |" in text
    assert "validation images chose the epoch, and flatter" in text


def test_published_weights_bring_their_licence(run):
    text = run.recipe.read_text().replace("base: lenet5", "base: resnet50")
    run.recipe.write_text(text.replace("weights: random", "weights: imagenet"))

    assert "| MIT (Kaiming He) |" in tl.card(run.path)


def test_no_place_of_this_machine_is_in_a_card(run, tmp_path):
    text = re.sub("train: .*", f"train: {tmp_path}/x", run.recipe.read_text())
    run.recipe.write_text(text.replace("weights: random", f"weights: {tmp_path}/w.weights.h5"))

    text = tl.card(run.path)

    assert str(tmp_path) not in text
    assert "train: x\n" in text and "weights: w.weights.h5\n" in text


def test_names_are_shown_and_do_not_end_a_table_or_begin_a_tag():
    table = write_table(["class"], [["a|b <i>\n*c*"]])

    assert escape_markdown("a|b") == r"a\|b"
    assert table.splitlines()[-1] == r"| a\|b &lt;i&gt;\\n\*c\* |"


def test_a_run_that_is_not_finished_and_a_search_have_no_card(tmp_path):
    failed = write_run(tmp_path, error=ValueError("out of luck"))
    search = write_run(tmp_path, kind="search")

    with pytest.raises(ToolkitError, match="the run failed"):
        tl.card(failed.path)
    with pytest.raises(RecipeError, match="is a search"):
        tl.card(search.path)


def test_the_command_writes_the_card_and_prints_its_metadata(run, tmp_path):
    done = tltool("card", "photos/001", "-o", "README.md", "--license", "mit", cwd=tmp_path)
    as_json = tltool("card", "latest", "--json", cwd=tmp_path).stdout

    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\nlicense: mit\n") and "written: README.md" in done.stderr
    assert json.loads(as_json)["license"] == "unknown"
    assert tltool("card", "latest", "--license", "mit", cwd=tmp_path).stdout == text
