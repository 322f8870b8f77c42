"""What a script sees of a run: nothing but warnings, what the command line prints, or events."""

import contextlib
import json
import logging
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorflow as tf

import tl_toolkit as tl
from tests.conftest import draw_class_folders
from tl_toolkit.api.finetune import _Finetuning
from tl_toolkit.api.progress import handling
from tl_toolkit.events import Event, message
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.states import describe_interrupted
from tl_toolkit.runtime import describe_threads


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe whose test images are two of the training images, beside broken files."""
    place = tmp_path_factory.mktemp("photos")
    photos = draw_class_folders(place / "all")
    draw_class_folders(place / "test", seed=1)
    for name in ("ants", "bees"):
        (place / "test" / name / "0.jpg").write_bytes((photos / name / "0.jpg").read_bytes())
    (photos / "ants" / "torn.jpg").write_bytes(b"torn")
    (photos / "ants" / "ugly.jpg").write_bytes(b"ugly")
    (place / "exclude.csv").write_text("path\nall/ants/ugly.jpg\n")
    (photos / "wasps" / "bee.jpg").write_bytes((photos / "bees" / "1.jpg").read_bytes())
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
            "leakage": "allow",
            "exclude": str(place / "exclude.csv"),
        },
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
        "export": False,
        "report": False,
        "yardsticks": False,
    }


@pytest.fixture(scope="module")
def told(recipe, tmp_path_factory):
    """A run, and the events that a function received of it."""
    events = []
    run = tl.finetune(recipe, out=tmp_path_factory.mktemp("told") / "run", progress=events.append)
    return run, events


@pytest.mark.slow
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
    (text,) = [text for text in texts if "again with another label" in text]
    assert text.startswith("1 image is there") and text.endswith("bee.jpg (wasps)")
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_progress_true_prints_what_the_command_line_prints(recipe, tmp_path, capsys, caplog):
    run = tl.finetune(recipe, out=tmp_path / "run", progress=True)

    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and not caplog.records
    assert lines[0] == f"run {tmp_path / 'run'}"
    assert [line for line in lines if line.startswith("head 1/1    ")]
    assert [line for line in lines if line.startswith("warning: 2 images are in two splits")]
    assert f"1 image left out by {recipe['data']['exclude']}" in lines
    assert json.loads((run.path / "lock.json").read_text())["excluded"] == 1
    assert "best epoch: 1 of phase head" in err

    predictions = run.predict(recipe["data"]["test"], progress=True)
    metrics = run.evaluate(progress=True)
    assert capsys.readouterr().err.splitlines() == [
        f"images: {len(predictions)} of {len(predictions)}",
        f"images: {metrics['images']} of {metrics['images']}",
    ]


def test_a_function_receives_every_event(told):
    run, events = told

    kinds = [event.kind for event in events]
    assert kinds[0] == "run_began" and kinds[-1] == "run_ended"
    assert {"images_inspected", "planned", "phase_began", "step_ended", "warning"} <= set(kinds)
    row = next(event for event in events if event.kind == "epoch_ended" and event.is_best).facts
    assert run.metrics["best"]["phase"] == row["phase"] == "head"


def test_a_handler_that_is_no_function_is_refused(recipe, tmp_path):
    with pytest.raises(TypeError, match="progress = 'yes': expected True, False or a function"):
        tl.finetune(recipe, out=tmp_path / "run", progress="yes")

    assert not (tmp_path / "run").exists()


def test_a_handler_receives_one_event_at_a_time():
    handled, inside = [], threading.Lock()

    def handle(event):
        assert inside.acquire(blocking=False), "called by two threads at a time"
        time.sleep(0.001)
        inside.release()
        handled.append(event)

    with handling(handle) as report, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: report(Event("step_ended", done=number)), range(40)))

    assert sorted(event.done for event in handled) == [*range(40)]


def test_a_handler_may_call_what_reports_to_it():
    texts = []

    with handling(lambda event: texts.append(event.text) or nest(event)) as report:

        def nest(event):
            if event.text == "outer":
                report(message("inner"))

        report(message("outer"))

    assert texts == ["outer", "inner"]


def test_an_interrupt_in_a_handler_lets_other_threads_report():
    begun, texts = threading.Event(), []

    def handle(event):
        if event.text == "interrupted":
            begun.set()
            time.sleep(0.05)
            raise KeyboardInterrupt
        texts.append(event.text)

    with ThreadPoolExecutor(1) as pool, handling(handle) as report:
        waiting = pool.submit(lambda: begun.wait(5) and report(message("aside")))
        with pytest.raises(KeyboardInterrupt):
            report(message("interrupted"))
        waiting.result(5)

    assert texts == ["aside"]


def test_what_a_handler_raises_reaches_the_caller_through_everything_that_catches_errors():
    error = OSError("mine")

    def handle(event):
        raise error

    with pytest.raises(OSError, match="^mine$") as raised:
        with handling(handle) as report:
            try:
                report(message("first"))
            except Exception:  # noqa: BLE001  (as a search does with a trial)
                pytest.fail("was caught on its way")

    assert raised.value is error
    assert error.__cause__ is None and error.__context__ is None


def test_a_handler_that_failed_ends_the_run_in_every_thread_and_is_not_called_again():
    texts = []

    def handle(event):
        texts.append(event.text)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        with handling(handle) as report:
            with contextlib.suppress(BaseException):  # as of a thread that nobody waits for yet
                report(message("aside"))
            report(message("main"))

    assert texts == ["aside"]


def test_a_run_that_a_handler_ended_says_why(recipe, tmp_path):
    def handle(event):
        if event.kind == "images_inspected":
            raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        tl.finetune(recipe, out=tmp_path / "run", progress=handle)

    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["error"]) == ("failed", "ValueError: mine")


def test_images_in_two_splits_are_listed_in_the_metrics(recipe, told):
    listed = json.loads((told[0].path / "metrics.json").read_text())["leaks"]
    leaks = [pair for pair in listed if "differs" not in pair]
    (pair,) = [pair for pair in listed if "differs" in pair]
    assert {pair["target"], pair["equals_target"]} == {"bees", "wasps"}
    train, test = recipe["data"]["train"], recipe["data"]["test"]
    assert [leak["path"] for leak in leaks] == [f"{test}/{name}/0.jpg" for name in ("ants", "bees")]
    assert [leak["equals"] for leak in leaks] == [
        f"{train}/{name}/0.jpg" for name in ("ants", "bees")
    ]
    assert {leak["split"] for leak in leaks} == {"test"}
    assert {leak["equals_split"] for leak in leaks} <= {"train", "validation"}


@pytest.fixture
def built(monkeypatch):
    """The models that were built aside, each after `delay`, which a test sets."""
    build = _Finetuning._compile
    built = _Built()

    def build_late(self, *arguments):
        built.delay()
        built.append(build(self, *arguments))
        return built[-1]

    monkeypatch.setattr(_Finetuning, "_compile", build_late)
    return built


class _Built(list):
    """Models; `delay` is called before each one is built."""

    delay = None


def state_of(folder):
    return json.loads((folder / "status.json").read_text())["state"]


def test_an_interrupt_of_the_scan_waits_for_the_model_that_is_built_aside(recipe, tmp_path, built):
    interrupted = threading.Event()

    def wait_for_the_interrupt():
        interrupted.wait(30)
        time.sleep(0.3)

    def interrupt(event):
        if event.kind == "images_inspected":
            interrupted.set()
            raise KeyboardInterrupt

    built.delay = wait_for_the_interrupt
    with pytest.raises(KeyboardInterrupt):
        tl.finetune(recipe, out=tmp_path / "run", progress=interrupt)

    assert len(built) == 1
    assert state_of(tmp_path / "run") == "interrupted"


def test_an_interrupt_after_the_scan_waits_for_the_model_too(recipe, tmp_path, built):
    scanned = threading.Event()
    # Tests that run in the background ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt_main():
        scanned.wait(30)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.4)

    def handle(event):
        if event.text.startswith("2 images are in two splits"):
            scanned.set()

    built.delay = interrupt_main
    try:
        with pytest.raises(KeyboardInterrupt):
            tl.finetune(recipe, out=tmp_path / "run", progress=handle)
    finally:
        signal.signal(signal.SIGINT, before)

    assert len(built) == 1
    assert state_of(tmp_path / "run") == "interrupted"


def test_an_interrupt_does_not_wait_for_a_download(recipe, tmp_path, monkeypatch):
    def handle(event):
        if event.kind == "images_inspected":
            raise KeyboardInterrupt

    stopped = []

    def download(self, task, report):
        try:
            while True:  # a piece each time
                time.sleep(0.05)
                report(Event("weights_fetched", done=1))
        except RuntimeError as error:
            stopped.append(str(error))
            raise

    monkeypatch.setattr(_Finetuning, "_compile", download)
    with pytest.raises(KeyboardInterrupt):
        tl.finetune(recipe, out=tmp_path / "run", progress=handle)

    assert stopped == ["its result is not needed any more"]


@pytest.mark.parametrize("progress", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_interrupt_names_the_run_that_holds_the_best_weights(
    recipe, tmp_path, monkeypatch, capsys, caplog, progress
):
    import keras

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tl.finetune(recipe, callbacks=[Interrupt()], progress=progress)

    said = capsys.readouterr().err.splitlines()[-1:] if progress else caplog.messages[-1:]
    expected = "interrupted; the best weights so far are in photos/001: tl.load_run('photos/001')"
    assert len(said) == 1 and said[0].startswith(f"{expected}, or resume with tl.finetune(")
    assert tl.load_run("photos/001").model.output_shape[0] is None
    assert tl.load_run("latest", unfinished=True).path == tmp_path / "runs" / "photos" / "001"


def test_an_interrupt_before_the_first_evaluation_says_that_there_is_no_model(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_status("running")

    assert "holds no model yet; resume with tl.finetune(" in describe_interrupted(folder)


def test_an_interrupted_search_names_what_resumes_it(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_status("running", kind="search")
    before = describe_interrupted(folder)
    folder.search.write_text("{}")

    words = describe_interrupted(folder)

    assert before.endswith("holds no trial")
    assert words.endswith(f": tl.search(..., out={str(tmp_path)!r}, resume=True)")


@pytest.mark.slow
def test_threads_that_come_too_late_are_a_warning(recipe, tmp_path, caplog):
    tf.constant(0)  # starts TensorFlow
    pool = tf.config.threading.get_intra_op_parallelism_threads()

    nothing = {"phases.head.epochs": 0}
    tl.finetune(recipe, overrides=nothing, out=tmp_path / "run", threads=pool + 1)

    (said,) = [text for text in caplog.messages if "threads" in text]
    assert said.startswith(f"threads={pool + 1} has no effect: TensorFlow has started")
    assert describe_threads(None) == ""
