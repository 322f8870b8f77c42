"""Memory that runs out: the command says so, and the run goes on to the same bits."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.command import tltool
from tests.training.test_loop import digits_recipe
from tl_toolkit.training import loop

GROUPS = Path("/sys/fs/cgroup/memory")
RECIPE = digits_recipe(
    phases=[
        {"name": "head", "epochs": 6, "learning_rate": 1e-2},
        {"name": "tune", "epochs": 2, "unfreeze": 2, "learning_rate": 3e-3},
    ],
    checkpoint={"every": "4 steps"},
    yardsticks=False,
)


def lack(*arguments, **settings):
    np.empty(1 << 50, np.uint8)  # more than any machine gives


def test_an_error_for_want_of_memory_says_how_to_go_on_with_less(tmp_path, monkeypatch):
    (tmp_path / "r.yaml").write_text(json.dumps(RECIPE))
    monkeypatch.setattr(loop.Trainer, "_conclude", lack)

    done = tltool("finetune", "r.yaml", "phases.head.epochs=1", "~phases.tune", cwd=tmp_path,
                  code=1)  # fmt: skip

    assert done.stderr.count("Memory ran out: Unable to allocate 1.00 PiB") == 1
    assert "Add a smaller data.batch_size=N to what follows. The best weights so far" in done.stderr
    typed = r"Try: tltool finetune r\.yaml .* --out \S+/runs/digits/001 --resume"
    assert re.search(typed, done.stderr)
    assert "MemoryError" in (tmp_path / "runs/digits/001/command.log").read_text()


def read_weights(place):
    return json.loads((place / "metrics.json").read_text())["weights_sha256"]


def go_on(printed, place, *changes):
    """Types what the command said."""
    typed = re.search(r"Try: tltool (.*--resume)", printed)
    assert typed is not None, printed
    assert "emory ran out" in printed and "data.batch_size=N" in printed
    return tltool(*shlex.split(typed[1]), *changes, cwd=place)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_batch_that_needs_more_addresses_than_there_are_is_explained_and_a_smaller_one_trains(
    tmp_path,
):
    """A process of its own, under `ulimit -v`; each map of its first layers takes 200 MB."""
    recipe = digits_recipe(
        model={"base": "vgg_tiny", "weights": "random"},
        phases=[{"name": "all", "epochs": 1, "learning_rate": 1e-3, "unfreeze": 4}],
        yardsticks=False,
    )
    recipe["data"] |= {"image_size": 256, "batch_size": 48, "examples_per_class": 20}
    recipe["data"]["validation"] = 0.05
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    command = [sys.executable, "-m", "tl_toolkit", "finetune", "r.yaml", "--threads", "2"]
    limited = f"ulimit -v 3000000; exec {shlex.join([*command, '--out', 'run'])}"

    process = subprocess.run(
        ["sh", "-c", limited], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # of many cores each takes addresses
    )  # fmt: skip
    smaller = ["data.batch_size=4"]
    go_on(process.stderr, tmp_path, *smaller)
    tltool("finetune", "r.yaml", "--out", "whole", "--threads", "2", *smaller, cwd=tmp_path)

    assert process.returncode in (1, 128 + 6, 128 + 9, 128 + 11)
    assert read_weights(tmp_path / "run") == read_weights(tmp_path / "whole")


EAT = """
import os, runpy, sys
from pathlib import Path

group = Path(sys.argv.pop(1))

def patch():  # in the child alone: threads of numpy would take its parent's signals
    import numpy as np

    save, states = np.savez, []

    def save_and_eat(file, **arrays):
        states.extend(["states"] if "states" in str(getattr(file, "name", "")) else [])
        if len(states) == 2:  # the first one is whole
            used = int((group / "memory.usage_in_bytes").read_text())
            (group / "memory.limit_in_bytes").write_text(str(used))
            eaten = [np.ones(1 << 17) for _ in range(2 * used >> 20)]  # twice what there is
            sys.exit(f"the kernel gave {len(eaten)} MiB beyond the limit")
        save(file, **arrays)

    np.savez = save_and_eat

(group / "cgroup.procs").write_text(str(os.getpid()))
os.register_at_fork(after_in_child=patch)
runpy.run_module("tl_toolkit", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def group():
    """A cgroup for memory, as a container has one."""
    folder = GROUPS / f"tl-toolkit-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.swappiness").write_text("0")
    except OSError as error:
        pytest.skip(f"needs cgroups (version 1) that may be written: {error}")
    yield folder
    folder.rmdir()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_run_that_the_kernel_ends_for_its_memory_goes_on_to_the_same_bits(tmp_path, group):
    """A process of its own, which takes all memory of its cgroup after its first state."""
    (tmp_path / "r.yaml").write_text(json.dumps(RECIPE))

    process = subprocess.run(
        [sys.executable, "-c", EAT, str(group), "finetune", "r.yaml", "--out", "run"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    states = list(tmp_path.glob("run/checkpoints/states/[0-9]*.npz"))
    resumed = go_on(process.stderr, tmp_path)
    tltool("finetune", "r.yaml", "--out", "whole", cwd=tmp_path)

    assert process.returncode == 128 + 9, process.stderr
    assert len(states) == 1
    assert "resuming" in resumed.stderr
    assert read_weights(tmp_path / "run") == read_weights(tmp_path / "whole")
