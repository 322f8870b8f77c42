"""Finished runs that a recipe names: of one on an object store there is a copy on this host."""

from __future__ import annotations

from pathlib import Path

from tl_toolkit.recipe.remote import is_address
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.places import find_run
from tl_toolkit.sources.addresses import find_run_files

__all__ = ["open_run"]

_NEEDED = (RunFolder.status, RunFolder.recipe, RunFolder.classes, RunFolder.model)
_OPTIONAL = (RunFolder.bands,)


def open_run(field: str, run: Path | str, *, again: bool = False) -> RunFolder:
    """Returns a run that a recipe starts from or learns from.

    Args:
        field: The field that names it.
        run: Its folder, or its address on an object store.
        again: Whether the store is asked for what this process has from it already.

    Raises:
        DataError: There is no such run, or its files cannot be read.
        OutputError: The cache cannot be written.
    """
    if not is_address(str(run)):
        return find_run(run)
    needed, optional = ([file.relative for file in files] for files in (_NEEDED, _OPTIONAL))
    return RunFolder(find_run_files(field, str(run), needed, optional, again=again))
