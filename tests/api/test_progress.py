"""What a script sees of a run: nothing but warnings, what the command line prints, or events."""

import json
import logging
import threading

import pytest

import tl_toolkit as tl
from tests.conftest import draw_class_folders


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe whose test images are two of the training images, beside a broken file."""
    place = tmp_path_factory.mktemp("photos")
    photos = draw_class_folders(place / "all")
    draw_class_folders(place / "test", seed=1)
    for name in ("ants", "bees"):
        (place / "test" / name / "0.jpg").write_bytes((photos / name / "0.jpg").read_bytes())
    (photos / "ants" / "torn.jpg").write_bytes(b"torn")
    return {
        "version": 1,
        "name": "photos",
        "data": {
            "train": str(photos),
            "validation": 0.25,
            "test": str(place / "test"),
            "image_size": 32,
            "batch_size": 8,
            "broken": "skip",
        },
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
        "export": False,
    }


def test_a_script_sees_warnings_alone_and_by_logging(recipe, tmp_path, caplog, capsys):
    with caplog.at_level(logging.DEBUG, logger="tl_toolkit"):
        run = tl.finetune(recipe, out=tmp_path / "run")
        run.evaluate(recipe["data"]["train"])

    texts = [record.getMessage() for record in caplog.records]
    assert {(record.name, record.levelname) for record in caplog.records} == {
        ("tl_toolkit", "WARNING")
    }
    skips = [text for text in texts if "torn.jpg: " in text]
    assert len(skips) == 2 and all(text.startswith("skipped ") for text in skips)
    assert [text for text in texts if text.startswith("2 images are in two splits")]
    assert capsys.readouterr() == ("", "")


def test_progress_true_prints_what_the_command_line_prints(recipe, tmp_path, capsys, caplog):
    tl.finetune(recipe, out=tmp_path / "run", progress=True)

    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and not caplog.records
    assert lines[0] == f"run {tmp_path / 'run'}"
    assert [line for line in lines if line.startswith("head 1/1  loss ")]
    assert [line for line in lines if line.startswith("warning: 2 images are in two splits")]
    assert "kept: phase head" in err


def test_a_function_receives_every_event(recipe, tmp_path):
    events = []

    run = tl.finetune(recipe, out=tmp_path / "run", progress=events.append)

    kinds = [event.kind for event in events]
    assert kinds[0] == "run_began" and kinds[-1] == "run_ended"
    assert {"images_inspected", "planned", "phase_began", "step_ended", "warning"} <= set(kinds)
    row = next(event for event in events if event.kind == "epoch_ended" and event.is_best).facts
    assert run.metrics["best"]["phase"] == row["phase"] == "head"


def test_a_handler_that_is_no_function_is_refused(recipe, tmp_path):
    with pytest.raises(TypeError, match="progress = 'yes': expected True, False or a function"):
        tl.finetune(recipe, out=tmp_path / "run", progress="yes")

    assert not (tmp_path / "run").exists()


def test_images_in_two_splits_are_listed_in_the_metrics(recipe, tmp_path):
    run = tl.finetune(recipe, out=tmp_path / "run")

    leaks = json.loads((run.path / "metrics.json").read_text())["leaks"]
    train, test = recipe["data"]["train"], recipe["data"]["test"]
    assert [leak["path"] for leak in leaks] == [f"{test}/{name}/0.jpg" for name in ("ants", "bees")]
    assert [leak["equals"] for leak in leaks] == [
        f"{train}/{name}/0.jpg" for name in ("ants", "bees")
    ]
    assert {leak["split"] for leak in leaks} == {"test"}
    assert {leak["equals_split"] for leak in leaks} <= {"train", "validation"}


def test_an_interrupt_waits_for_the_thread_that_builds_the_model(recipe, tmp_path):
    # A process that ends while a thread of TensorFlow's still traces is aborted.
    def interrupt(event):
        if event.kind == "images_inspected":
            raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        tl.finetune(recipe, out=tmp_path / "run", progress=interrupt)

    assert set(threading.enumerate()) <= before
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "interrupted"
