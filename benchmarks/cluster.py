"""Measures clusters of Ray on this machine: scheduling, and speed-up by workers.

    python benchmarks/cluster.py schedule               trials a second of an idle driver, of 500
    python benchmarks/cluster.py search --workers 1 2   seconds of a search: one process, workers
    python benchmarks/cluster.py fill --workers 1 2     seconds of filling the feature store
    python benchmarks/cluster.py predict --images 100000 --kills 3   a list, workers killed

Images are generated: noise of one colour for each class. `schedule` has the oracle, the journal,
the table of trials and a task of Ray for each trial, whose training is one line. Times of `search`,
`fill` and `predict` are of the whole call, with the start of the cluster and of TensorFlow in each
worker.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import tl_toolkit as tl
from tl_toolkit.api.base import reading_recipe
from tl_toolkit.api.search import Searching, open_search
from tl_toolkit.cluster.tasks import Cluster, open_cluster
from tl_toolkit.events import Event
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.tuning.jobs import Job, Outcome

_CLASSES = ("red", "green", "blue")


def generate(folder: Path, count: int, side: int = 64) -> Path:
    """Draws so many images, in a folder for each class."""
    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / _CLASSES[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 120, (side, side, 3), dtype=np.uint8)
        pixels[..., number % 3] += 100
        Image.fromarray(pixels).save(place / f"{number:06d}.jpg", quality=90)
    return folder


def recipe_of(photos: Path, store: Path, **sections: Any) -> dict[str, Any]:
    """Returns a recipe with a base of some work: MobileNet 0.25 with random weights."""
    return {
        "version": 1,
        "name": "cluster",
        "data": {"train": str(photos), "validation": 0.25, "image_size": 96, "batch_size": 32},
        "model": {"base": "mobilenet", "arguments": {"alpha": 0.25}, "weights": "random"},
        "phases": [  # statistics of random weights normalize nothing, so that they train
            {"name": "head", "epochs": 3},
            {
                "name": "tune",
                "epochs": 6,
                "learning_rate": 1e-3,
                "batch_norm": "train",
                "unfreeze": {"from": "conv_dw_8"},
            },
        ],
        "features": {"location": str(store), "part": 128, "store": "always"},
        "export": False,
        "report": False,
    } | sections


class TrivialExecutor:
    """Sends jobs whose training is one line."""

    def __init__(self, cluster: Cluster) -> None:
        self.slots = 2 * cluster.workers
        self._cluster = cluster

    def submit(self, job: Job) -> None:
        """Sends a job."""
        self._cluster.submit(job.number, train_trivially, job)

    def next(self) -> Outcome:
        """Waits for an outcome."""
        outcome: Outcome = self._cluster.next()[1]
        return outcome


def train_trivially(job: Job) -> Outcome:
    """Returns a score that follows from the values."""
    score = -abs(np.log10(job.values["phases.tune.learning_rate"]) + 3)
    best = {"phase": "tune", "epoch": 1, "val_loss": -score, "val_accuracy": score}
    return Outcome(job.number, "completed", score, best, "0" * 64, 0.0, "head", 1)


class TrivialSearch(Searching):
    """A search whose trials train nothing."""

    def _build_executor(self, manifest: Manifest) -> TrivialExecutor:
        assert self._cluster is not None  # noqa: S101
        return TrivialExecutor(self._cluster)


def measure_scheduling(folder: Path, trials: int, workers: int) -> None:
    """Prints trials a second, from the first proposal to the last row of the table."""
    space = {"phases.tune.learning_rate": {"min": 1e-5, "max": 1e-1, "sampling": "log"}}
    search = {"trials": trials, "space": space}
    recipe = recipe_of(generate(folder / "photos", 12), folder / "store", search=search)
    times: list[tuple[float, float]] = []

    def handle(event: Event) -> None:
        if event.kind in ("trial_began", "trial_ended"):
            times.append((time.perf_counter(), time.process_time()))

    with reading_recipe(recipe) as loaded, open_cluster("local", workers=workers) as cluster:
        for _ in range(workers):  # so that its processes have started, and imported NumPy
            cluster.submit(0, train_trivially, Job(0, {"phases.tune.learning_rate": 1.0}))
        while len(cluster):
            cluster.next()
        plan = check_recipe(loaded)
        with open_search(plan.recipe.name, folder, None, resume=False, overwrite=False) as place:
            TrivialSearch(plan, place, handle, cluster=cluster).run(None)
    (start, start_cpu), (end, end_cpu) = times[0], times[-1]
    print(
        f"schedule: {trials} trials in {end - start:.1f} s, {trials / (end - start):.0f} a second; "
        f"the driver computed {end_cpu - start_cpu:.1f} s, {trials / (end_cpu - start_cpu):.0f} a "
        "second of its processor time"
    )


def measure_search(folder: Path, images: int, workers: list[int]) -> None:
    """Prints the seconds of a search in one process, and on local workers."""
    photos = generate(folder / "photos", images)
    space = {"phases.tune.learning_rate": {"min": 1e-4, "max": 1e-2, "sampling": "log"}}
    digests = []
    for count in (0, *workers):
        recipe = recipe_of(photos, folder / f"store{count}", search={"trials": 8, "space": space})
        options: dict[str, Any] = {"ray": "local", "workers": count} if count else {}
        began = time.perf_counter()
        search = tl.search(recipe, out=folder / f"search{count}", threads=1, **options)
        seconds = time.perf_counter() - began
        digests.append([trial.weights_sha256 for trial in search.trials])
        name = f"{count} workers" if count else "one process"
        print(f"search: {name}: {seconds:.1f} s, 8 trials of {images} images")
    print(f"search: all trials equal: {all(other == digests[0] for other in digests)}")


def measure_filling(folder: Path, images: int, workers: list[int]) -> None:
    """Prints the seconds of filling the store in one process, and on local workers."""
    photos = generate(folder / "photos", images)
    for count in (0, *workers):
        recipe = recipe_of(photos, folder / f"store{count}")
        options: dict[str, Any] = {"ray": "local", "workers": count} if count else {}
        began = time.perf_counter()
        tl.fill_features(recipe, threads=1, **options)
        name = f"{count} workers" if count else "one process"
        print(f"fill: {name}: {time.perf_counter() - began:.1f} s, {images} images")


@contextlib.contextmanager
def killing_workers(times: int, every: float) -> Iterator[list[int]]:
    """Kills a worker of this command's cluster now and then; yields the processes killed."""
    killed: list[int] = []
    is_over = threading.Event()

    def kill() -> None:
        while len(killed) < times and not is_over.wait(every):
            workers = [pid for pid in find_descendants(os.getpid()) if is_working(pid)]
            if workers:
                killed.append(workers[0])
                os.kill(workers[0], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        is_over.set()
        thread.join()


def find_descendants(pid: int) -> list[int]:
    """Returns the processes below one."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def is_working(pid: int) -> bool:
    """Returns whether a process is a worker of Ray that has a task."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_run_task")
    return False


def measure_prediction(folder: Path, images: int, workers: int, kills: int) -> None:
    """Prints the seconds of predicting a list while workers are killed, and checks its rows."""
    from pyarrow import parquet

    photos = generate(folder / "photos", images, side=32)
    recipe = recipe_of(generate(folder / "few", 60, side=32), folder / "store")
    recipe["data"] = recipe["data"] | {"train": str(folder / "few"), "image_size": 32}
    run = tl.finetune(recipe, overrides={"phases.tune.epochs": 1}, out=folder / "run")
    files = sorted(map(str, photos.rglob("*.jpg")))
    began = time.perf_counter()
    with killing_workers(kills, every=10.0) as killed:
        done = tl.predict_list(
            run.path, files, out=folder / "rows", part=512, ray="local", workers=workers
        )
    seconds = time.perf_counter() - began
    rows = parquet.read_table(folder / "rows", columns=["row", "path"]).to_pydict()
    is_whole = sorted(rows["row"]) == list(range(images)) and sorted(rows["path"]) == files
    print(
        f"predict: {done.rows} rows in {seconds:.0f} s, {done.rows / seconds:.0f} a second, "
        f"{workers} workers, {len(killed)} killed, {done.errors} errors, each once: {is_whole}"
    )


def main() -> None:
    """Runs one measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("schedule", "search", "fill", "predict"))
    parser.add_argument("--images", type=int, help="images that are generated")
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--kills", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        folder = Path(name)
        if chosen.what == "schedule":
            measure_scheduling(folder, chosen.trials, chosen.workers[0])
        elif chosen.what == "search":
            measure_search(folder, chosen.images or 600, chosen.workers)
        elif chosen.what == "fill":
            measure_filling(folder, chosen.images or 3000, chosen.workers)
        else:
            measure_prediction(folder, chosen.images or 100_000, chosen.workers[0], chosen.kills)


if __name__ == "__main__":
    main()
