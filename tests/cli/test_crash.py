"""What libraries write before a process dies reaches the log of the run, or the terminal."""

import signal
import subprocess
import sys

import pytest

from tl_toolkit.runs.folder import RunFolder

BEFORE = "F0000 tensor.cc: Check failed: dtype() == expected_dtype"

# The command as the entry point runs it, with a verb that dies as C++ code does.
DYING = """
import os, signal, sys
import tl_toolkit.api.finetune, tl_toolkit.cli.main
from pathlib import Path
from tl_toolkit.events import Event

def die(recipe, *, progress, **options):
    progress(Event("run_began", facts={"folder": Path("run").absolute()}))
    os.write(2, b"%s\\n")
    %s

tl_toolkit.api.finetune.finetune = die
sys.argv = ["tltool", "finetune", "recipe.yaml"]
tl_toolkit.cli.main.main()
"""


def run_process(code, cwd):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "death, number",
    [
        ("os.abort()", signal.SIGABRT),
        *(
            pytest.param(f"os.kill(os.getpid(), signal.{name})", number, marks=pytest.mark.slow)
            for name, number in (("SIGSEGV", signal.SIGSEGV), ("SIGKILL", signal.SIGKILL))
        ),
    ],
)
def test_what_is_written_before_a_process_dies_is_in_the_log_of_the_run(tmp_path, death, number):
    (tmp_path / "run").mkdir()

    done = run_process(DYING % (BEFORE, death), tmp_path)

    log = RunFolder(tmp_path / "run").log.read_text()
    assert done.returncode == 128 + number
    first, rest = done.stderr.split("\n", 1)
    assert first == f"run {tmp_path / 'run'}"
    assert f"The process that trains was ended by {number.name}, as " in rest
    assert log.startswith("$ tltool finetune recipe.yaml\n") and BEFORE in log
    if number != signal.SIGKILL:
        assert "Fatal Python error" in log and "in die" in log


def test_what_is_written_before_a_process_dies_while_tensorflow_starts_is_on_the_terminal(tmp_path):
    code = f"""
import os
from tl_toolkit.runtime import quiet_stderr

with quiet_stderr():
    os.write(2, b"{BEFORE}\\n")
    os.abort()
"""

    done = run_process(code, tmp_path)

    assert done.returncode == -signal.SIGABRT
    assert done.stderr == f"{BEFORE}\n"


def test_a_block_that_fails_prints_what_it_held_back_and_one_that_ends_does_not(tmp_path):
    code = """
import os
from tl_toolkit.runtime import quiet_stderr

for error in (None, ImportError("no driver")):
    try:
        with quiet_stderr():
            os.write(2, b"with %r\\n" % str(error).encode())
            if error:
                raise error
    except ImportError:
        os.write(2, b"failed\\n")
"""

    done = run_process(code, tmp_path)

    assert done.stderr == "with b'no driver'\nfailed\n"


FAKE = """
import os
from unittest.mock import MagicMock

os.write(2, b"logged while TensorFlow starts\\n")

def __getattr__(name):
    return MagicMock()
"""


@pytest.mark.parametrize(
    ("begin", "stderr"),
    [("", "logged while TensorFlow starts\n"), ("runtime.claim_process()", "")],
    ids=["caller", "command line"],
)
def test_only_the_command_line_holds_stderr_back_while_tensorflow_starts(tmp_path, begin, stderr):
    """A process of its own, in which TensorFlow starts; one that takes no seconds is enough."""
    (tmp_path / "tensorflow.py").write_text(FAKE)
    (tmp_path / "keras.py").write_text(
        "from unittest.mock import MagicMock\nconfig = MagicMock()\n"
    )
    code = f"""
from tl_toolkit import runtime

{begin}
runtime.start_tensorflow()
"""

    done = run_process(code, tmp_path)

    assert (done.returncode, done.stderr) == (0, stderr)


def test_a_log_that_cannot_be_written_leaves_stderr_on_the_terminal(tmp_path):
    (tmp_path / "run" / "command.log").mkdir(parents=True)

    done = run_process(DYING % (BEFORE, "os.abort()"), tmp_path)

    assert BEFORE in done.stderr and "Fatal Python error" in done.stderr


def test_a_command_gives_stderr_back(tmp_path):
    code = """
import os
from pathlib import Path
from tl_toolkit.cli.command import current
from tl_toolkit.runs.folder import RunFolder

current.use_run(RunFolder(Path.cwd()))
os.write(2, b"to the log\\n")
print("to people", file=current.terminal)
current.end()
os.write(2, b"to the terminal\\n")
"""

    done = run_process(code, tmp_path)

    assert done.stderr == "to people\nto the terminal\n"
    assert "to the log\n" in (tmp_path / "command.log").read_text()


@pytest.mark.parametrize("verb", ["finetune", "models"])
def test_a_command_ends_after_what_must_be_done_at_exit_and_frees_nothing_else(tmp_path, verb):
    """`finetune` runs in a child process, `models` does not."""
    code = f"""
import atexit, os, sys
import tl_toolkit.cli.main as cli

class Large:
    def __del__(self, write=os.write):
        write(1, b"freed")

def run(arguments):
    atexit.register(print, "closed")
    sys.kept = Large()
    return 3

cli.run = run
sys.argv = ["tltool", "{verb}"]
cli.main()
"""

    done = run_process(code, tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (3, "closed\n", "")
