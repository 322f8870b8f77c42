"""Scripts of exports in a process of their own."""

import pytest

from tl_toolkit.errors import ParityError
from tl_toolkit.export.apart import run_apart


def test_a_process_of_its_own_that_is_killed_is_named(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")

    with pytest.raises(ParityError, match="cannot be run: its process was ended by SIGKILL"):
        run_apart(str(script), ["model"], {}, {}, failure="cannot be run")
