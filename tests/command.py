"""The installed command, as a person runs it."""

import subprocess
import sys
from pathlib import Path

TLTOOL = Path(sys.executable).with_name("tltool")


def tltool(*arguments, cwd, code=0):
    """Runs it, and sees it end with an exit code."""
    done = subprocess.run(
        [TLTOOL, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done
