"""What a user gets wrong ends with its exit code and a message that says what to do."""

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests import command
from tl_toolkit.cli import main
from tl_toolkit.plan import check
from tl_toolkit.printing.printer import Printer
from tl_toolkit.runs.files import describe_full
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.training import loop, prepare

tltool = partial(command.tltool, code=None)


def assert_told(done, code, *texts):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for text in texts:
        assert text in done.stderr


@pytest.fixture
def recipe(tmp_path, draw_photos, write_recipe):
    return write_recipe(tmp_path / "r.yaml", draw_photos(tmp_path / "photos"), yardsticks=False)


def test_a_recipe_that_is_not_there(tmp_path):
    assert_told(tltool("finetune", "no.yaml", cwd=tmp_path), 2, "no.yaml", "Try:")


def test_a_missing_folder(tmp_path, recipe):
    done = tltool("finetune", recipe, "data.train=nowhere", cwd=tmp_path)

    assert_told(done, 3, "data.train", "nowhere")


def test_one_class_only(tmp_path, recipe, draw_photos):
    draw_photos(tmp_path / "one", classes=("tulip",))

    done = tltool("finetune", recipe, "data.train=one", cwd=tmp_path)

    assert_told(done, 3, "one class only (tulip)", "At least 2 folders")


def test_a_typo_in_a_key(tmp_path, recipe, write_recipe):
    recipe.write_text(recipe.read_text().replace('"epochs"', '"epocs"'))

    assert_told(tltool("finetune", recipe, cwd=tmp_path), 2, "r.yaml:1:", "'epochs'")


def test_an_unknown_base(tmp_path, recipe):
    done = tltool("finetune", recipe, "model.base=mobilenett", cwd=tmp_path)

    assert_told(done, 2, "model.base", "did you mean 'mobilenet'?")


def test_broken_weights(tmp_path, recipe):
    (tmp_path / "w.h5").write_text("<!DOCTYPE html><html>404</html>")

    done = tltool("finetune", recipe, "model.weights=w.h5", cwd=tmp_path)

    assert_told(done, 3, "w.h5", "is an error page saved as weights", "Try:")


def test_a_used_output_folder(tmp_path, recipe):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "status.json").write_text('{"state": "done", "pid": 1}')

    done = tltool("finetune", recipe, "--out", "out", cwd=tmp_path)

    assert_told(done, 2, "holds a run already", "--overwrite")


def test_an_output_folder_that_holds_something_else(tmp_path, recipe):
    done = tltool("finetune", recipe, "--out", tmp_path / "photos", "--overwrite", cwd=tmp_path)

    assert_told(done, 2, "holds no run")
    assert len(list((tmp_path / "photos").iterdir())) == 3


def test_an_unwritable_output(tmp_path, recipe):
    (tmp_path / "file").touch()

    done = tltool("finetune", recipe, "--out", "file/run", cwd=tmp_path)

    assert_told(done, 7, "cannot be written", "--out")


@pytest.mark.slow
def test_a_resume_with_another_seed_is_refused_with_what_to_type(tmp_path, recipe):
    tltool("finetune", recipe, "--out", "run", cwd=tmp_path)

    done = tltool("finetune", recipe, "--out", "run", "--resume", "seed=7", cwd=tmp_path)

    assert_told(done, 2, "was begun with another seed (0 before, 7 now)", "--resume --out")


@pytest.mark.slow
def test_a_loss_that_is_not_finite(tmp_path, recipe):
    burst = ["phases.head.optimizer=sgd", "phases.head.learning_rate=1e38", "phases.head.epochs=3"]

    done = tltool("finetune", recipe, *burst, cwd=tmp_path)

    assert_told(done, 6, "phase 'head', epoch", "phases.head.learning_rate=0.001")


@pytest.mark.slow  # test_loop has a receipt that fails, test_errors its exit code
def test_a_receipt_that_does_not_hold(tmp_path, recipe):
    frozen = ["model.base=mobilenet", "model.arguments={alpha: 0.25}", "phases.head.unfreeze=1"]

    done = tltool("finetune", recipe, *frozen, cwd=tmp_path)

    assert_told(done, 4, "nothing in it moved", "phases.head.batch_norm=train")


def test_overwrite_goes_with_out(tmp_path, recipe):
    assert_told(tltool("finetune", recipe, "--overwrite", cwd=tmp_path), 2, "--out DIR")


def test_a_run_that_is_not_there(tmp_path):
    assert_told(tltool("evaluate", "flowers/007", cwd=tmp_path), 3, "flowers/007", "is no run")


def test_an_unknown_verb(tmp_path):
    assert_told(tltool("finetun", "r.yaml", cwd=tmp_path), 2, "did you mean 'finetune'?")


@pytest.mark.parametrize(("word", "verb"), [("train", "finetune"), ("eval", "evaluate")])
def test_a_word_of_another_tool_names_the_verb(tmp_path, word, verb):
    assert_told(tltool(word, "r.yaml", cwd=tmp_path), 2, f"did you mean '{verb}'?")


def test_all_problems_come_in_one_pass(tmp_path, recipe):
    done = tltool(
        "validate", recipe, "model.base=resnet", "data.batch_size=0", "seed=x", cwd=tmp_path
    )

    assert_told(done, 2, "data.batch_size", "seed")


def test_an_unexpected_failure_keeps_its_traceback_in_a_log(tmp_path, recipe, monkeypatch):
    def fail(loaded):
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(check, "check_recipe", fail)  # a fault that no check can foresee

    done = tltool("validate", recipe, cwd=tmp_path)

    assert_told(done, 1, "Unexpected failure: ZeroDivisionError: boom", "traceback is in")
    log = Path(done.stderr.split("traceback is in ")[1].strip())
    assert "ZeroDivisionError: boom" in log.read_text()


def test_an_interrupt_before_the_first_checkpoint_promises_no_weights(
    tmp_path, recipe, monkeypatch
):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "survey_images", interrupt)  # as Ctrl-C in the scan

    done = tltool("finetune", recipe, "--out", "run", cwd=tmp_path)

    assert_told(done, 130, "Interrupted.")
    assert "kept" not in done.stderr and not RunFolder(tmp_path / "run").checkpoint.exists()


@pytest.mark.slow
def test_an_interrupted_search_names_the_command_that_resumes_it(tmp_path, recipe, monkeypatch):
    trained = []
    train = loop.Trainer.train

    def interrupt_second(self, *settings, **more):
        if trained:
            raise KeyboardInterrupt
        trained.append(settings)
        return train(self, *settings, **more)

    monkeypatch.setattr(loop.Trainer, "train", interrupt_second)
    done = tltool("search", recipe, "search={trials: 2}", cwd=tmp_path)
    monkeypatch.undo()

    folder = RunFolder(tmp_path / "runs" / "photos-search" / "001")
    assert_told(done, 130, f"Interrupted. Trials that are done are kept in {folder.path}\n")
    assert "weights" not in done.stderr.partition("Interrupted.")[2]
    command_line = shlex.split(done.stderr.partition("Try: tltool ")[2])
    done = tltool(*command_line, "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["trials"]) == (0, 2)


def test_an_interrupt_between_epochs_keeps_the_best_weights_and_names_the_command_that_resumes(
    tmp_path, recipe, monkeypatch
):
    handle = Printer.handle

    def interrupt_second(self, event):
        handle(self, event)
        if event.kind == "epoch_ended" and event.facts["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Printer, "handle", interrupt_second)
    arguments = ["finetune", recipe, "phases.head.epochs=3", "--out", "run"]
    done = tltool(*arguments, cwd=tmp_path)

    assert_told(done, 130, "Interrupted. The best weights so far are kept in")
    assert f"Try: tltool {shlex.join(map(str, arguments))} --resume\n" in done.stderr
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "interrupted"
    assert (tmp_path / "run" / "model.keras").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_process_ends_with_130_and_keeps_its_best_weights(tmp_path, recipe, number):
    arguments = ["finetune", recipe, "phases.head.epochs=2000", "--out", "run"]
    with subprocess.Popen(
        [command.TLTOOL, *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # Tests in the background ignore SIGINT, those of nohup SIGHUP, and so would children.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        for line in process.stderr:
            if line.startswith("head 2/"):
                break
        process.send_signal(number)
        rest = process.stderr.read()

    assert process.returncode == 130
    assert "Interrupted. The best weights so far are kept in" in rest and "Traceback" not in rest
    assert f"Try: tltool {shlex.join(map(str, arguments))} --resume\n" in rest
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "interrupted"
    assert (tmp_path / "run" / "model.keras").is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_that_is_closed_interrupts_and_nohup_does_not(number, monkeypatch):
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.getsignal(each) for each in handled}
    monkeypatch.setattr(main, "_interrupted", -np.inf)
    try:
        signal.signal(number, signal.SIG_DFL)
        main.handle_signals()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(number)  # at once, as where it is sent to parent and child
        signal.signal(number, signal.SIG_IGN)
        main.handle_signals()
        signal.raise_signal(number)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_closed_output_is_no_failure(tmp_path):
    """A process of its own, whose descriptors are closed as a shell closes them."""
    code = "from tl_toolkit.cli.main import main; import sys; sys.argv[1:] = ['schema']; main()"
    shell = f"exec {shlex.join([sys.executable, '-c', code])} >&- <&-"

    done = subprocess.run(
        ["sh", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_a_usage_error_with_stderr_closed_keeps_its_code(tmp_path):
    """A process of its own, whose descriptors are closed as a shell closes them."""
    code = "from tl_toolkit.cli.main import main; import sys; sys.argv[1:] = ['nonsense']; main()"
    shell = f"exec {shlex.join([sys.executable, '-c', code])} 2>&-"

    done = subprocess.run(["sh", "-c", shell], cwd=tmp_path, capture_output=True, check=False)

    assert done.returncode == 2


def test_a_full_disk_is_named_by_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "runs" / "001" / "model.keras"

    def describe(*named):
        return str(describe_full(OSError(errno.ENOSPC, "No space left on device", *named), out))

    assert f"{out}  cannot be written: No space" in describe() and "--out DIR" in describe()
    scratch = describe(str(tmp_path / "scratch" / "tmp1"))
    assert "scratch/tmp1  cannot" in scratch and "TMPDIR=DIR" in scratch and "--out" not in scratch
    cache = describe(str(tmp_path / "cache" / "features" / "x"))
    assert "cache/features/x  cannot" in cache and "tltool cache clear" in cache
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage("scratch" not in str(place)))
    (tmp_path / "scratch").mkdir()
    assert "TMPDIR=DIR" in describe()


class Usage:
    """The part of `shutil.disk_usage` that is read."""

    def __init__(self, has_room):
        self.free = (1 << 30) * has_room


@pytest.mark.parametrize(
    ("stdout", "code", "stderr"),
    [
        ("/dev/full", 7, "stdout  cannot be written: No space left on device. Try:"),
        pytest.param("closed pipe", 141, "", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "verb",
    [
        ["schema"],
        pytest.param(["models", "list"], marks=pytest.mark.slow),
        pytest.param(["--help"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_a_stdout_that_takes_nothing_is_named_or_ends_the_command(
    tmp_path, stdout, code, stderr, verb
):
    """A process of its own, whose stdout is full, or a pipe that nobody reads."""
    if stdout == "/dev/full":
        writer = os.open(stdout, os.O_WRONLY)  # opened and written, never replaced
    else:
        reader, writer = os.pipe()
        os.close(reader)

    done = subprocess.run(
        [sys.executable, "-m", "tl_toolkit", *verb],
        cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip

    os.close(writer)
    assert done.returncode == code
    assert done.stderr.startswith(stderr) and done.stderr.count("\n") == bool(stderr)


def test_a_file_that_cannot_be_written_is_told_with_the_option_that_names_it(tmp_path):
    (tmp_path / "file").touch()

    copied = tltool("recipes", "copy", "quickstart", "file/x.yaml", cwd=tmp_path)
    drawn = tltool("models", "draw", "lenet5", "-o", "file/x.svg", cwd=tmp_path)

    assert "TARGET in a folder" in copied.stderr and "--out" not in copied.stderr
    assert "-o FILE elsewhere" in drawn.stderr and "--out" not in drawn.stderr
    assert (copied.returncode, drawn.returncode) == (7, 7)


def test_what_is_no_recipe_is_told_by_what_it_is(tmp_path, recipe):
    shutil.copy(tmp_path / "photos" / "ants" / "0.jpg", tmp_path / "ants.jpg")
    (tmp_path / "my photos").mkdir()

    folder = tltool("validate", "my photos", cwd=tmp_path)
    image = tltool("validate", "ants.jpg", cwd=tmp_path)

    assert_told(folder, 2, "is a folder", "Try: tltool init 'my photos'")
    assert_told(image, 2, "ants.jpg  is an image, not a recipe")
