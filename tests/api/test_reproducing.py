"""`tl.reproduce`: a run is trained again from its folder, and compared to the last bit."""

import csv
import json
import shutil

import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.conftest import draw_class_folders
from tests.runs.written import write_run
from tl_toolkit.api.reproducing import compare_results
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.runs.files import write_json
from tl_toolkit.runs.folder import RunFolder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with a finished run, and what `reproduce` made of it."""
    place = tmp_path_factory.mktemp("place")
    draw_class_folders(place / "photos")
    recipe = {
        "version": 1,
        "name": "photos",
        "data": {
            "train": str(place / "photos"),
            "validation": 0.25,
            "image_size": 32,
            "batch_size": 8,
        },
        "model": {"base": "lenet5", "weights": "random", "head": {"dropout": 0.2}},
        "phases": [{"name": "all", "epochs": 1, "unfreeze": 2}],
        "yardsticks": False,
        "export": False,
    }
    tl.finetune(recipe, root=place / "runs")
    done = tltool("reproduce", "latest", cwd=place)
    (place / "printed").write_text(done.stdout + done.stderr)
    return place


@pytest.fixture
def pair(place, tmp_path):
    """Copies of the run and of its repetition, to be changed."""
    folders = []
    for name in ("photos", "photos-reproduced"):
        shutil.copytree(place / "runs" / name / "001", tmp_path / name)
        folders.append(RunFolder(tmp_path / name))
    return folders


def change(path, **facts):
    write_json(path, json.loads(path.read_text()) | facts)


def texts(found):
    return {part.name: part.text for part in found.parts if not part.is_equal}


def test_a_run_is_repeated_to_the_last_bit_and_stays_the_latest(place):
    runs = {name: tl.load_run(f"{name}/001", root=place / "runs")
            for name in ("photos", "photos-reproduced")}  # fmt: skip

    first, again = (run.metrics for run in runs.values())
    assert first["weights_sha256"] == again["weights_sha256"]
    assert first["validation"] == again["validation"]
    assert tl.load_run("latest", root=place / "runs").path == runs["photos"].path
    assert "equal bit for bit" in (place / "printed").read_text()


def test_all_parts_are_compared(pair):
    found = compare_results(*pair)

    assert found.is_equal and found.conditions == {} and found.explain() == ""
    assert [part.name for part in found.parts] == ["weights", "history", "metrics", "predictions"]
    assert found.as_json()["equal"] is True
    assert found.run.path == pair[1].path


def test_other_weights_are_told(pair):
    change(pair[1].metrics, weights_sha256="0" * 64)

    found = compare_results(*pair)

    assert texts(found) == {"weights": "other SHA-256 of the kept weights"}
    assert "deterministic=false" in found.explain()


def test_other_figures_are_told_with_the_largest_difference(pair):
    validation = json.loads(pair[1].metrics.read_text())["validation"]
    confusion = [list(row) for row in validation["confusion"]]
    confusion[0][1] += 2
    changed = validation | {"loss": validation["loss"] + 1e-6, "confusion": confusion}
    change(pair[1].metrics, validation=changed, seconds={"train": 1e9})

    assert texts(compare_results(*pair)) == {
        "metrics": "2 figures differ (validation.loss, validation.confusion.0.1), by 2 at most"
    }


def test_other_predictions_and_another_history_are_told(pair):
    for path in (pair[1].predictions, pair[1].history(0, "all")):
        with open(path, newline="") as file:
            rows = list(csv.reader(file))
        rows[1][-1] = str(float(rows[1][-1]) + 0.25)
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows(rows)

    found = texts(compare_results(*pair))

    assert found["predictions"] == "1 of 6 rows differ, by 0.25 at most"
    assert found["history"] == "1-all: 1 of 2 rows differ, by 0.25 at most"


def test_versions_and_machine_that_differ_are_told(pair):
    lock = json.loads(pair[0].lock.read_text())
    numerics = lock["numerics"]
    versions = numerics["versions"] | {"keras": "3.14.0"}
    change(pair[0].lock, numerics=numerics | {"versions": versions, "cpu": "an older one"})
    change(pair[1].metrics, weights_sha256="0" * 64)

    found = compare_results(*pair)

    assert set(found.conditions) == {"versions.keras", "cpu"}
    assert found.conditions["versions.keras"][0] == "3.14.0"
    assert found.explain() == "what differs beside it: versions.keras, cpu"


def test_images_that_changed_are_counted(pair):
    change(pair[1].lock, data_sha256="0" * 64)
    lines = pair[1].manifest.read_text().splitlines(keepends=True)
    digest = lines[1].split(",")[1]
    lines[1] = lines[1].replace(digest, "0" * 64)
    pair[1].manifest.write_text("".join(lines[:-1]))
    change(pair[1].metrics, weights_sha256="0" * 64)

    found = compare_results(*pair)

    assert found.data == {"added": 0, "removed": 1, "changed": 1, "moved": 0}
    assert found.explain() == "the images are not those of the run: 1 removed, 1 changed"


@pytest.mark.parametrize("is_changed", [False, True])
def test_an_image_in_another_split_is_told_from_one_that_changed(pair, is_changed):
    change(pair[1].lock, data_sha256="0" * 64)
    with open(pair[1].manifest, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:2]:
        row["split"] = {"train": "validation", "validation": "train"}[row["split"]]
    if is_changed:  # an image that is both counts once, as a changed one
        rows[0]["sha256"] = "0" * 64
    with open(pair[1].manifest, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    change(pair[1].metrics, weights_sha256="0" * 64)

    found = compare_results(*pair)

    assert (found.data["changed"], found.data["moved"]) == ((1, 1) if is_changed else (0, 2))
    assert found.explain() == (
        "the images are not those of the run: 1 changed, 1 in another split"
        if is_changed
        else "the images are those of the run, 2 in another split"
    )


def test_evaluate_measures_a_run_whose_metrics_were_changed_and_warns(pair):
    before = tl.load_run(pair[0].path).metrics["validation"]["accuracy"]
    change(pair[0].metrics, best={})
    events = []

    metrics = tl.load_run(pair[0].path).evaluate(progress=events.append)

    assert metrics["accuracy"] == before
    (text,) = [event.text for event in events if event.kind == "warning"]
    assert str(pair[0].metrics) in text and "changed after the run" in text


def test_a_report_is_refused_by_the_file_that_was_changed(pair):
    cut = pair[0].predictions.read_bytes()[:-20]
    pair[0].predictions.write_bytes(cut)

    with pytest.raises(DataError, match=r"predictions\.csv  is not the file that the run wrote"):
        tl.report(pair[0].path)


def test_a_repetition_says_what_of_the_run_was_changed_after_it_was_done(pair):
    lines = pair[0].predictions.read_bytes().splitlines(keepends=True)
    pair[0].predictions.write_bytes(b"".join(lines[:-1]))

    found = compare_results(*pair)

    assert found.damaged == ["predictions.csv"]
    assert found.explain() == "changed after the run was done: predictions.csv"


def test_what_is_no_finished_run_is_refused(tmp_path):
    write_run(tmp_path, error=KeyboardInterrupt())
    write_run(tmp_path).lock.unlink()
    write_run(tmp_path, "trees", kind="search")

    for run, words in {
        "photos/001": "is interrupted",
        "photos/002": "holds no lock.json",
        "trees/001": "is a search",
    }.items():
        with pytest.raises(RecipeError, match=words):
            tl.reproduce(run, root=tmp_path)


def test_a_run_whose_images_are_gone_leaves_no_folder(place, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(place / "runs" / "photos" / "001", root / "photos" / "001")
    recipe = root / "photos" / "001" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(place / "photos"), str(tmp_path / "gone")))

    with pytest.raises(DataError, match="gone"):
        tl.reproduce("photos/001", root=root)

    assert [path.name for path in root.iterdir()] == ["photos"]


def copy_of_five_devices(place, tmp_path):
    shutil.copytree(place / "runs" / "photos" / "001", tmp_path / "runs" / "photos" / "001")
    folder = RunFolder(tmp_path / "runs" / "photos" / "001")
    lock = json.loads(folder.lock.read_text())
    change(folder.lock, numerics=lock["numerics"] | {"device_count": 5})
    return folder


def test_a_run_of_more_devices_says_where_their_number_is_from(place, tmp_path):
    copy_of_five_devices(place, tmp_path)

    words = r"(?s)photos/001  was trained on 5 devices \(lock\.json.*1 logical CPU.*Try: devices=1"
    with pytest.raises(RecipeError, match=words):
        tl.reproduce("photos/001", root=tmp_path / "runs")


@pytest.mark.slow
def test_the_command_ends_with_4_where_results_differ_and_takes_other_devices(place, tmp_path):
    folder = copy_of_five_devices(place, tmp_path)
    change(folder.metrics, weights_sha256="0" * 64)

    done = tltool("reproduce", "photos/001", "--devices", "1", "--json", cwd=tmp_path, code=4)

    found = json.loads(done.stdout)
    assert found["equal"] is False
    assert found["conditions"] == {"device_count": [5, None]}
    assert "photos/001 differs from " in done.stderr and "photos-reproduced/001" in done.stderr
