"""The command line, as tests run it: in this process, or as a person does."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

from click.testing import CliRunner

from tl_toolkit.cli.main import run

TLTOOL = Path(sys.executable).with_name("tltool")


def tltool(*arguments, cwd, code=0, answer=None):
    """Runs it in this process, and sees it end with an exit code; None leaves that to the caller.

    With an answer it is asked as at a terminal.

    TensorFlow is imported once for all tests, and its functions stay compiled; `--threads` has no
    effect, because TensorFlow runs already.
    """
    arguments = list(map(str, arguments))
    with (
        contextlib.chdir(cwd),
        mock.patch.object(sys, "argv", ["tltool", *arguments]),
        CliRunner().isolation(answer) as (out, err, _),
    ):
        sys.stdin.isatty = lambda: answer is not None
        returncode = run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    done = CompletedProcess(arguments, returncode, out.getvalue().decode(), err.getvalue().decode())
    assert code in (None, done.returncode), done.stderr
    return done


def tltool_process(*arguments, cwd=None, code=0, **environment):
    """Runs the installed command in a process of its own: that takes seconds, and a reason."""
    done = subprocess.run(
        [TLTOOL, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done
