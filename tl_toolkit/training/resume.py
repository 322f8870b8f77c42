"""The exact state of a training in files: a run that was killed goes on from the last whole one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.errors import DataError, NonFiniteError, Problem
from tl_toolkit.plan.training import PhaseSettings
from tl_toolkit.runs.files import drafted
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.training.checkpoint import BestState, Epoch
from tl_toolkit.training.outcome import FinishedPhase, Paused
from tl_toolkit.training.state import PhaseState

__all__ = ["Checkpoints", "StateSettings", "find_paused", "load_paused", "save_paused"]

_VERSION = 1
_METADATA = "metadata"
_NAME = re.compile(r"^(\d{6,})\.npz$")
_KEPT = 2

_Arrays = dict[str, np.ndarray]


class Checkpoints:
    """Writes the state of a training after so many epochs, steps or minutes; keeps the last two.

    Args:
        folder: Receives the files.
        every: As in the recipe: "1 epoch", "500 steps" or "10 minutes".
        batch_size: Images in a step. Of a state with another one the finished phases alone count.
        training: Digest of what decides the training: a state with another one is passed over.
        may_lengthen: Whether the last phase may get more epochs when it is over. Otherwise the last
            state holds what the training came to, and no optimizer.
        clock: Returns seconds.

    Attributes:
        done: The phases before the one that trains, which each state holds.
        may_lengthen: As in the arguments.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: str,
        batch_size: int,
        training: str = "",
        may_lengthen: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        count, _, unit = every.partition(" ")
        self._folder = folder
        self._count, self._unit = int(count), unit.rstrip("s")
        self._batch_size = batch_size
        self._training = training
        self.may_lengthen = may_lengthen
        self._clock = clock
        self._passed = dict.fromkeys(("epoch", "step"), 0)
        self._written = clock()
        self.done: Sequence[FinishedPhase] = ()

    @property
    def most_steps(self) -> int | None:
        """Steps after which it must be asked whether a state is due; None for any number."""
        return self._count if self._unit == "step" else None

    def is_due(self, *, steps: int = 0, epochs: int = 0) -> bool:
        """Returns whether to write a state now.

        Args:
            steps: Steps since the last question.
            epochs: Epochs that ended since the last question.
        """
        self._passed["step"] += steps
        self._passed["epoch"] += epochs
        if self._unit == "minute":
            return self._clock() - self._written >= 60 * self._count
        return self._passed[self._unit] >= self._count

    def write(self, best: BestState, phase: PhaseState | None) -> None:
        """Writes a state beside the last one, and removes those before.

        Args:
            best: The best state so far.
            phase: The state of the phase that trains; None before the first step of the next.

        Raises:
            OutputError: It cannot be written; the last one is as it was.
        """
        numbers = self._numbers()
        number = numbers[-1] + 1 if numbers else 1
        paused = Paused(tuple(self.done), best.copy(), phase)
        save_paused(
            paused, self._place(number), batch_size=self._batch_size, training=self._training
        )
        self._remove(numbers[: 1 - _KEPT])
        self._passed = dict.fromkeys(self._passed, 0)
        self._written = self._clock()

    def write_outcome(self, best: BestState) -> None:
        """Writes what a training came to, whose phases are all in `done`, as its only state.

        Args:
            best: The best state.

        Raises:
            OutputError: It cannot be written; the last one is as it was.
        """
        self.write(best, None)
        self._remove(self._numbers()[:-1])

    def read(self) -> tuple[Paused | None, list[str]]:
        """Returns the last state that is whole, None without one; and what is wrong with others.

        None as well where the first phase has to begin again, with another batch size.
        """
        faults: list[str] = []
        for number in reversed(self._numbers()):
            try:
                paused, batch_size = load_paused(self._place(number), training=self._training)
            except DataError as error:
                faults.append(str(error))
            else:
                is_same = batch_size == self._batch_size
                return paused if is_same else _leave_phase_out(paused), faults
        return None, faults

    def _numbers(self) -> list[int]:
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError:
            return []
        return sorted(int(match[1]) for name in names if (match := _NAME.match(name)))

    def _place(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npz"

    def _remove(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            with contextlib.suppress(OSError):
                self._place(number).unlink()


@dataclass(frozen=True)
class StateSettings:
    """How the trainings beside that of a run keep their states, each in a folder of its own.

    Attributes:
        every: As in `Checkpoints`.
        batch_size: As in `Checkpoints`.
        training: As in `Checkpoints`.
    """

    every: str
    batch_size: int
    training: str = ""

    def open(self, folder: RunFolder) -> Checkpoints:
        """Returns what keeps the states of one training.

        Args:
            folder: The training's folder.
        """
        return Checkpoints(
            folder.states, every=self.every, batch_size=self.batch_size, training=self.training,
            may_lengthen=False,
        )  # fmt: skip


def find_paused(
    checkpoints: Checkpoints, phases: Sequence[PhaseSettings]
) -> tuple[Paused | None, list[str]]:
    """Returns where a training goes on, None without a state; and what to tell of its states.

    Args:
        checkpoints: Its states.
        phases: All its phases.
    """
    paused, faults = checkpoints.read()
    texts = [f"passed over: {fault}" for fault in faults]
    return paused, texts if paused is None else [*texts, _describe_paused(paused, phases)]


def _describe_paused(paused: Paused, phases: Sequence[PhaseSettings]) -> str:
    """Returns where a training goes on, as a sentence."""
    name = phases[min(len(paused.done), len(phases) - 1)].name
    if len(paused.done) >= len(phases):
        return f"phase {name} is over: nothing is trained again"
    if paused.phase is None:
        return f"resuming at the beginning of phase {name}"
    text = f"resuming after epoch {paused.phase.epochs[-1].epoch if paused.phase.epochs else 0}"
    if paused.phase.progress is not None:
        text += f" and {paused.phase.progress.steps} steps of the next"
    return f"{text} of phase {name}"


def _leave_phase_out(paused: Paused) -> Paused | None:
    """Returns the state before the phase that was paused; None if there was none before."""
    return replace(paused, best=paused.done[-1].best, phase=None) if paused.done else None


def save_paused(paused: Paused, path: Path, *, batch_size: int, training: str = "") -> None:
    """Writes a training that was paused to a file, whole or not at all.

    Args:
        paused: The training.
        path: The file: a NumPy archive without pickled objects, as `*.npz`. An array that occurs
            several times is written once.
        batch_size: Images in a step.
        training: Digest of what decides the training; "" for none.

    Raises:
        OutputError: It cannot be written.
    """
    arrays: _Arrays = {}
    rest: dict[str, Any] = {
        "version": _VERSION,
        "batch_size": batch_size,
        **({"training": training} if training else {}),
        "done": [],
        "best": _pack_best(paused.best),
    }
    named: list[tuple[str, Mapping[str, np.ndarray]]] = [("best", paused.best.arrays)]
    for index, phase in enumerate(paused.done):
        named.append((f"done/{index}", phase.best.arrays))
        rest["done"].append(
            {
                "epochs": [asdict(epoch) for epoch in phase.epochs],
                "receipt": phase.receipt,
                "best": _pack_best(phase.best),
                "failure": _pack_failure(phase.failure),
            }
        )
    if paused.phase is not None:
        own, rest["phase"] = paused.phase.as_arrays()
        named.append(("phase", own))
    first: dict[int, str] = {}
    rest["same"] = {}
    for kind, members in named:
        for name, array in members.items():
            known = first.setdefault(id(array), f"{kind}/{name}")
            if known == f"{kind}/{name}":
                arrays[known] = array
            else:
                rest["same"][f"{kind}/{name}"] = known
    # Without the digest a bit that flips in an array would show nowhere.
    metadata = json.dumps({**rest, "sha256": _digest(arrays, rest)}).encode()
    whole: Any = {_METADATA: np.frombuffer(metadata, np.uint8), **arrays}
    with drafted(path) as draft, open(draft, "wb") as file:
        np.savez(file, **whole)


def load_paused(path: Path, *, training: str = "") -> tuple[Paused, int]:
    """Returns the training that `save_paused` wrote, and its batch size.

    Args:
        path: The file.
        training: Digest of what decides the training that is to go on.

    Raises:
        DataError: It is missing, damaged, of another version, or of another training.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            if any(info.compress_type for info in archive.zip.infolist()):  # never as written
                raise ValueError("it is compressed")
            arrays = {name: archive[name] for name in archive.files}
        rest = json.loads(arrays.pop(_METADATA).tobytes())
        sha256 = rest.pop("sha256")
        if rest["version"] != _VERSION or sha256 != _digest(arrays, rest):
            raise ValueError("its checksum or its version differs")
        if rest.get("training", "") != training:
            raise ValueError("the recipe of this training, or its weights, were others")
        return _unpack(arrays, rest), rest["batch_size"]
    except Exception as error:  # damaged archives raise nearly every kind
        what = f"holds no state of a training: {error}"
        raise DataError(Problem(str(path), what, "expected the file as it was written.")) from error


def _unpack(arrays: _Arrays, rest: Mapping[str, Any]) -> Paused:
    everything = {**arrays, **{name: arrays[known] for name, known in rest["same"].items()}}

    def members(kind: str) -> _Arrays:
        start = f"{kind}/"
        return {
            name.removeprefix(start): array
            for name, array in everything.items()
            if name.startswith(start)
        }

    done = tuple(
        FinishedPhase(
            tuple(Epoch(**row) for row in phase["epochs"]),
            phase["receipt"],
            _unpack_best(phase["best"], members(f"done/{index}")),
            _unpack_failure(phase["failure"]),
        )
        for index, phase in enumerate(rest["done"])
    )
    best = _unpack_best(rest["best"], members("best"))
    phase = PhaseState.from_arrays(members("phase"), rest["phase"]) if "phase" in rest else None
    return Paused(done, best, phase)


def _pack_best(best: BestState) -> dict[str, Any]:
    epoch = None if best.epoch is None else asdict(best.epoch)
    return {"epoch": epoch, "keep_start": best.keeps_start}


def _unpack_best(packed: Mapping[str, Any], arrays: _Arrays) -> BestState:
    epoch = None if packed["epoch"] is None else Epoch(**packed["epoch"])
    return BestState.of(epoch, arrays, keep_start=packed["keep_start"])


def _pack_failure(failure: NonFiniteError | None) -> list[dict[str, Any]] | None:
    return None if failure is None else [asdict(problem) for problem in failure.problems]


def _unpack_failure(packed: Sequence[Mapping[str, Any]] | None) -> NonFiniteError | None:
    return None if packed is None else NonFiniteError([Problem(**problem) for problem in packed])


def _digest(arrays: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
