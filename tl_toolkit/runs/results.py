"""The results of a finished run: their digests in status.json, and what was changed since."""

from __future__ import annotations

from pathlib import Path

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.runs.files import hash_file
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.states import name_run

__all__ = ["describe_damage", "finish", "list_damaged", "refuse_damaged"]

_DIGESTS = "files_sha256"
_RESULTS = (RunFolder.metrics.relative, RunFolder.predictions.relative, "history.csv")
"""Names of what people and later commands read, of folds and of the baseline too."""


def finish(folder: RunFolder) -> None:
    """Writes that a run, a search or a curve is done; of a run with the digests of its results.

    Args:
        folder: The folder.

    Raises:
        OutputError: As in `RunFolder.write_status`.
    """
    digests = _digest_results(folder) if folder.kind == "run" else {}
    folder.write_status("done", **({_DIGESTS: digests} if digests else {}))


def _digest_results(folder: RunFolder) -> dict[str, str]:
    files = sorted(file for name in _RESULTS for file in folder.path.rglob(name))
    return {file.relative_to(folder.path).as_posix(): hash_file(file) for file in files}


def list_damaged(folder: RunFolder, *files: Path) -> list[Path]:
    """Returns the results that are not what the run wrote; none where it kept no digests.

    A file that somebody removed is none of them: what reads it says that it is missing.

    Args:
        folder: The run.
        *files: Those that are compared; all without any.
    """
    digests = folder.read_status().get(_DIGESTS)
    named = sorted(digests.items()) if isinstance(digests, dict) else []
    kept = [(folder.path / name, digest) for name, digest in named]
    chosen = [(file, digest) for file, digest in kept if not files or file in files]
    return [file for file, digest in chosen if _differs(file, digest)]


def _differs(file: Path, digest: object) -> bool:
    try:
        return hash_file(file) != digest
    except FileNotFoundError:
        return False
    except OSError:
        return True


def describe_damage(folder: RunFolder, file: Path) -> Problem:
    """Returns the problem of a result that is not what the run wrote.

    Args:
        folder: The run.
        file: As in `list_damaged`.
    """
    return Problem(
        where=str(file),
        what="is not the file that the run wrote: status.json has the SHA-256 of another one",
        expected="It was cut off or changed after the run was done. The model has its own file.",
        hint=f"the file from a copy of the run, or tltool reproduce {name_run(folder.path)}",
    )


def refuse_damaged(folder: RunFolder, *files: Path) -> None:
    """Refuses to read results that are not what the run wrote.

    Args:
        folder: The run.
        *files: Those that are to be read; they need not be there.

    Raises:
        DataError: Some are not; all of them are named.
    """
    damaged = list_damaged(folder, *files) if files else []
    if damaged:
        raise DataError([describe_damage(folder, file) for file in damaged])
