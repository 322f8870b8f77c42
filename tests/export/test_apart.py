"""Scripts of exports in a process of their own."""

import multiprocessing
import os
import time

import numpy as np
import pytest

from tl_toolkit.errors import ParityError
from tl_toolkit.export.apart import run_apart, started


def test_a_process_of_its_own_that_is_killed_is_named(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")

    with pytest.raises(ParityError, match="cannot be run: its process was ended by SIGKILL"):
        run_apart(str(script), ["model"], {}, {}, failure="cannot be run")


def test_model_and_inputs_may_be_written_after_the_process_began(tmp_path):
    script, model = tmp_path / "script.py", tmp_path / "model"
    script.write_text(
        "import pathlib, shutil, sys\n"
        "sys.stdin.readline()\n"
        "assert pathlib.Path(sys.argv[1]).read_text() == 'written'\n"
        "shutil.copy(sys.argv[2], sys.argv[3])\n"
    )

    with started(str(script), [str(model)], {}, failure="cannot be run") as run:
        model.write_text("written")
        outputs = run({"numbers": np.arange(3)})()

    assert outputs["numbers"].tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_is_forked_meanwhile_holds_up_nothing(tmp_path):
    """In processes of their own, of which one inherits the other one's standard input."""
    script = tmp_path / "script.py"
    script.write_text(
        "import shutil, sys\nsys.stdin.readline()\nshutil.copy(sys.argv[2], sys.argv[3])\n"
    )
    forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(20,))

    with started(str(script), ["model"], {}, failure="cannot be run") as run:
        forked.start()
        outputs = run({"numbers": np.arange(3)})()

    assert outputs["numbers"].tolist() == [0, 1, 2]
    assert forked.is_alive()
    forked.kill()
    forked.join()


def test_a_process_that_was_not_asked_ends(tmp_path):
    script, began = tmp_path / "script.py", tmp_path / "began"
    script.write_text(
        f"import os, pathlib\npathlib.Path({str(began)!r}).write_text(str(os.getpid()))\n"
        "while True: pass\n"
    )

    with pytest.raises(OSError), started(str(script), ["model"], {}, failure="cannot be run"):
        while not (began.exists() and began.read_text()):
            pass
        raise OSError("the disk is full")

    with pytest.raises(ProcessLookupError):
        os.kill(int(began.read_text()), 0)
