"""Ends commands at random moments, resumes them, and compares with what was never killed.

    python tests/soak.py --kills 200

A fine-tune (features stored, images augmented, states every few steps, an export), one with folds
and a baseline, a search and an export of a finished run take turns. After each kill every file that
a reader may see is read; when a command has ended, digests of weights, histories, receipts,
predictions, trials and winner are compared. One cache of features is shared by all of a command's
processes, so that what a kill leaves in it is used by the next.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_KILLS = 5  # of one run, which then ends by itself
DATA = {
    "builtin": "digits",
    "classes": ["3", "5", "8"],
    "examples_per_class": 40,
    "validation": 0.2,
    "test": 0.1,
    "image_size": 32,
    "batch_size": 8,
}
RECIPE = {
    "version": 1,
    "name": "soak",
    "data": DATA,
    "model": {"base": "lenet5", "weights": "random", "head": {"dropout": 0.3}},
    "phases": [
        {"name": "head", "epochs": 12, "learning_rate": 1e-2},
        {
            "name": "tune",
            "epochs": 12,
            "unfreeze": 2,
            "learning_rate": {"kind": "cosine", "initial": 3e-3},
            "optimizer": {"kind": "adam", "ema": 0.9},
        },
    ],
    "augment": {"rotation": 0.05},
    "features": {"views": 2, "store": "always"},
    "early_stopping": {"patience": 11},
    "checkpoint": {"every": "4 steps"},
    "yardsticks": False,
}
FOLDS = {
    **RECIPE,
    "data": {**DATA, "folds": 3},
    "baseline": "scratch",
    "export": False,
}
SEARCH = {
    **RECIPE,
    "export": False,
    "search": {
        "trials": 6,
        "space": {
            "model.head.dropout": {"min": 0.0, "max": 0.5},
            "phases.tune.unfreeze": {"choices": [1, 2, 3]},
        },
    },
}


@dataclass(frozen=True)
class Job:
    """A command that is killed.

    Attributes:
        name: Its name.
        begin: Arguments of the first call, without those that resume.
        resume: Arguments of each later one.
        digest: Returns what must not depend on kills.
    """

    name: str
    begin: Sequence[str]
    resume: Sequence[str]
    digest: Callable[[Path], dict[str, str]]


def hash_files(folder: Path, patterns: Sequence[str]) -> dict[str, str]:
    """Returns the digest of each file that matches, by its path in the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in patterns
        for path in sorted(folder.glob(pattern))
    }


def digest_run(folder: Path) -> dict[str, str]:
    """Returns digests of a run: of its metrics those that are no times."""
    metrics = json.loads((folder / "metrics.json").read_text())
    names = ("weights_sha256", "best", "validation", "test", "folds", "baseline")
    kept = {name: metrics.get(name) for name in names}
    files = hash_files(folder, ["**/history.csv", "**/receipt.json", "predictions.csv"])
    is_exported = (folder / "export/parity.json").is_file()
    return {**files, "metrics": json.dumps(kept), "is exported": str(is_exported)}


def digest_search(folder: Path) -> dict[str, str]:
    """Returns digests of a search: of its trials all but their times."""
    trials = {
        path.name: json.dumps({name: trial[name] for name in ("values", "score", "state")})
        for path in sorted((folder / "trials").glob("*.json"))
        for trial in [json.loads(path.read_text())]
    }
    return {**trials, **hash_files(folder, ["best.yaml"])}


def check_readable(folder: Path) -> None:
    """Reads each file that has its name: none may be torn, whatever was killed."""
    for path in folder.rglob("*"):
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue  # drafts begin with a dot
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix in (".npz", ".keras"):
            with zipfile.ZipFile(path) as archive:
                if (name := archive.testzip()) is not None:
                    raise ValueError(f"{path}: {name} is damaged")
        elif path.suffix == ".csv":
            if not path.read_text().endswith("\n"):
                raise ValueError(f"{path}: its last line is torn")
    if (model := folder / "export/saved_model/1").exists() and not all(
        (model / name).is_file() for name in ("saved_model.pb", "variables/variables.index")
    ):
        raise ValueError(f"{model}: published without its parts")


ENDINGS: list[Callable[[int], None]] = [
    lambda process: os.killpg(process, signal.SIGKILL),
    lambda process: os.kill(process, signal.SIGKILL),  # its child ends with it
    lambda process: os.killpg(process, signal.SIGTERM),  # as a service is stopped
    lambda process: os.kill(process, signal.SIGINT),
]
"""What ends a command: half of the kills leave it no time."""


def call(
    arguments: Sequence[str],
    place: Path,
    kill_after: float | None,
    end: Callable[[int], None] = ENDINGS[0],
) -> tuple[bool, float]:
    """Runs a command, or ends it; returns whether it ended by itself, and seconds."""
    environment = {
        **os.environ,
        "TL_TOOLKIT_CACHE": str(place / "cache"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    log = open(place / "log.txt", "ab")  # noqa: SIM115
    began = time.monotonic()
    with log, subprocess.Popen(
        [sys.executable, "-m", "tl_toolkit", *arguments],
        cwd=place, env=environment, stdout=log, stderr=log, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            code = process.wait(kill_after)
        except subprocess.TimeoutExpired:
            end(process.pid)
            process.wait()
            return False, time.monotonic() - began
    if code:
        raise SystemExit(
            f"{' '.join(arguments)} ended with {code}:\n{(place / 'log.txt').read_text()[-3000:]}"
        )
    return True, time.monotonic() - began


def make_jobs(place: Path) -> Iterator[Job]:
    """Writes the recipes, and yields the jobs; each writes to the folder `out`."""
    for name, recipe in (("finetune", RECIPE), ("folds", FOLDS), ("search", SEARCH)):
        path = place / f"{name}.yaml"
        path.write_text(json.dumps(recipe))
        verb = "search" if name == "search" else "finetune"
        begin = [verb, str(path), "--out", "out"]
        digest = digest_search if name == "search" else digest_run
        yield Job(name, begin, [*begin, "--resume"], digest)
    yield Job("export", ["export", "out"], ["export", "out"], digest_run)


def soak(job: Job, whole: Mapping[str, Any], place: Path, sampler: random.Random) -> int:
    """Kills a job until it ends by itself, and compares; returns the number of kills."""
    shutil.rmtree(place / "out", ignore_errors=True)
    shutil.rmtree(place / "cache", ignore_errors=True)
    if job.name == "export":
        shutil.copytree(whole["folder"], place / "out")
    kills = 0
    while True:
        has_begun = (place / "out").is_dir() and job.name != "export"
        if job.name == "search":
            has_begun = (place / "out/search.json").is_file()
            if not has_begun:
                shutil.rmtree(place / "out", ignore_errors=True)
        arguments = job.resume if has_begun else job.begin
        limit = sampler.uniform(whole["start"], whole["seconds"]) if kills < MOST_KILLS else None
        ended, _ = call(arguments, place, limit, sampler.choice(ENDINGS))
        if (place / "out").is_dir():
            check_readable(place / "out")
        if ended:
            break
        kills += 1
    if (found := job.digest(place / "out")) != whole["digest"]:
        names = [name for name in found if found[name] != whole["digest"].get(name)]
        raise SystemExit(
            f"{job.name}: after {kills} kills these differ: {names}, in {place / 'out'}"
        )
    return kills


def main() -> None:
    """Prints kills and comparisons of each job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one job: finetune, folds or search")
    args = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="soak-"))
    sampler = random.Random(args.seed)
    wholes: dict[str, dict[str, Any]] = {}
    jobs = [job for job in make_jobs(place) if args.only in (None, job.name)]
    _, start = call(["env"], place, None)
    for job in jobs:
        folder = place / f"whole-{job.name}"
        if job.name != "export":
            shutil.rmtree(place / "out", ignore_errors=True)
            shutil.rmtree(place / "cache", ignore_errors=True)
        else:
            shutil.copytree(wholes["finetune"]["folder"], place / "out")
        _, seconds = call(job.begin, place, None)
        shutil.copytree(place / "out", folder)
        wholes[job.name] = {
            "folder": folder, "start": min(start, seconds / 2), "seconds": seconds,
            "digest": job.digest(folder),
        }  # fmt: skip
        if job.name == "search":
            shutil.rmtree(place / "out")
    total: dict[str, list[int]] = {job.name: [] for job in jobs}
    while sum(map(sum, total.values())) < args.kills:
        job = min(jobs, key=lambda job: len(total[job.name]))
        total[job.name].append(soak(job, wholes[job.name], place, sampler))
        print(f"{job.name}: {total[job.name][-1]} kills, equal", flush=True)
    print("| command | kills | ended, and equal to one that was never killed |")
    print("| --- | --- | --- |")
    for name, kills in total.items():
        print(f"| {name} | {sum(kills)} | {len(kills)} of {len(kills)} |")
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
