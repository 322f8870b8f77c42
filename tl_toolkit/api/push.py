"""`push`: a run's model, with its card and exports, to the Hugging Face Hub or to a folder."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tl_toolkit.api.card import write_card
from tl_toolkit.api.progress import handling
from tl_toolkit.api.run import Run, load_run
from tl_toolkit.catalog.published import is_offline
from tl_toolkit.errors import DataError, OutputError, Problem, RecipeError
from tl_toolkit.events import Handler, message
from tl_toolkit.recipe.export_formats import EXPORT_FORMATS, split_formats
from tl_toolkit.runs.files import drafted, reporting_unwritable, write_atomically
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.listing import measure_size
from tl_toolkit.runs.states import describe_absent, name_run

__all__ = ["Pushed", "push"]

_HUB = "hf://"
_NAME = re.compile(r"hf://[\w.-]+/[\w.-]+", re.ASCII)
_CARD, _CONFIG, _WEIGHTS = "README.md", "config.json", "model.weights.h5"
_ARCHIVE = (_CONFIG, "metadata.json", _WEIGHTS)
_ASSETS, _EXPORT = "assets", "export"
_REFUSED = (401, 403)  # statuses of a token that is missing, or may not write
_COMPANIONS = {"signature.json": ("saved_model",),
               "preprocess.json": ("litert", "litert-int8", "onnx", "openvino"),
               "predict.py": ("litert", "litert-int8", "onnx", "openvino")}  # fmt: skip


@dataclass(frozen=True)
class Pushed:
    """What was pushed, or would be.

    Attributes:
        target: Where to.
        files: The size of each file in bytes, by its name there.
        url: Its page on the Hub; "" for a folder, or for none yet.
    """

    target: str
    files: Mapping[str, int]
    url: str = ""

    def as_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {**asdict(self), "files": dict(self.files)}


def push(
    run: str | Path | Run,
    target: str | Path,
    *,
    root: str | Path = "runs",
    formats: Sequence[str] | None = None,
    private: bool = False,
    dry_run: bool = False,
    license: str = "unknown",
    data_license: str = "not stated",
    progress: Handler | bool = False,
) -> Pushed:
    """Pushes a finished run's model to the Hugging Face Hub, or writes the same files to a folder.

    `keras.saving.load_model` reads it from there. Beside the model lie its card as README.md, the
    names of its outputs, what its task learned, and its exports below `export`, but for those that
    were made before model or task changed. Of the run's other files, which name places on this
    machine, none is pushed. A repository gets all of them in one commit, which removes those of an
    earlier push that are no more. The Hub's own client finds the token, by `hf auth login` or
    HF_TOKEN: it is read by no other code, and written nowhere.

    Args:
        run: As in `load_run`.
        target: `hf://OWNER/NAME`, or a folder: a new or empty one, or one of an earlier push, which
            is replaced.
        root: Folder of all runs.
        formats: Exports to push; by default all that the run has.
        private: Make the repository private; one that is public already is refused.
        dry_run: List the files alone.
        license: As in `card`.
        data_license: As in `card`.
        progress: As in `finetune`.

    Returns:
        The files.

    Raises:
        DataError: The run lacks a file or an export, or the export is of an earlier model; or the
            Hub refuses it, or its repository holds something else.
        OutputError: The folder holds something else, or cannot be written.
        RecipeError: The target is no repository, or the Hub's client is not installed.
    """
    opened = run if isinstance(run, Run) else load_run(run, root=root)
    place = str(target)
    is_hub = place.startswith(_HUB)
    if not opened.folder.model.is_file():
        raise describe_absent(opened.folder, opened.folder.model)
    _check_target(place, is_dry=dry_run)
    chosen, stale = _find_exports(opened, formats)
    licences = {"license": license, "data_license": data_license}
    with handling(progress) as report, tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch, "model")
        for name in stale:
            report(message(f"left out: {name}, exported before the model or its task changed"))
        with reporting_unwritable(draft):
            _write(opened, draft, chosen, place if is_hub else ".", licences)
        files = {
            path.relative_to(draft).as_posix(): path.stat().st_size
            for path in sorted(draft.rglob("*")) if path.is_file()
        }  # fmt: skip
        if dry_run:
            return Pushed(place, files)
        report(message(f"pushing {len(files)} files, {measure_size(draft) / 1e6:.1f} MB"))
        if is_hub:
            repository = place.removeprefix(_HUB)
            return Pushed(place, files, _upload(draft, files, repository, private=private))
        with drafted(Path(target)) as beside:
            shutil.copytree(draft, beside)
    return Pushed(place, files)


def _check_target(place: str, *, is_dry: bool) -> None:
    """Refuses a target before anything is written."""
    if place.startswith(_HUB):
        if not _NAME.fullmatch(place):
            expected = "Expected hf://OWNER/NAME, of letters, digits, '.', '_' and '-'."
            raise RecipeError(Problem(place, "is no repository of the Hub", expected))
        if is_dry:
            return
        if is_offline():
            raise DataError(Problem(place, "cannot be reached: TL_TOOLKIT_OFFLINE is set"))
        if find_spec("huggingface_hub") is None:
            hint = "pip install 'tl-toolkit[hub]'"
            raise RecipeError(Problem(place, "takes huggingface_hub; not installed", hint=hint))
        return
    folder = Path(place)
    if "://" in place or (folder.exists() and not folder.is_dir()):
        raise RecipeError(Problem(place, "is neither hf://OWNER/NAME nor a folder"))
    if folder.resolve() == Path.cwd():
        expected = "A folder is replaced as a whole, which takes a shell out of it."
        raise OutputError(Problem(place, "is the working folder", expected, "another folder"))
    names = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
    }  # none of a folder that is not there
    if names and not ({_CARD, _CONFIG, _WEIGHTS} <= names and all(map(_is_own, names))):
        expected = "Expected a new or empty folder, or one of an earlier push."
        raise OutputError(Problem(place, "holds other files", expected, "another folder"))


def _is_own(name: str) -> bool:
    """Returns whether a push writes a file of this name: to the folder, or below `export`."""
    first, *below = name.split("/")
    if first == _EXPORT:
        exports = {form.path.split("/")[0] for form in EXPORT_FORMATS.values()}
        return bool(below) and below[0] in exports | set(_COMPANIONS)
    learned = (RunFolder.classes, RunFolder.task_state, RunFolder.bands)
    return first in (_CARD, *_ARCHIVE, _ASSETS, *(artifact.relative for artifact in learned))


def _find_exports(run: Run, formats: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Returns the exports to push, and those of an earlier model; what is asked for must be one."""
    from tl_toolkit.export.quick import is_stale

    names = list(EXPORT_FORMATS) if formats is None else list(split_formats(formats))
    export = run.folder.export
    places = {
        name: (export / EXPORT_FORMATS[name].path, export / EXPORT_FORMATS[name].proof)
        for name in names
    }
    there = [name for name in names if places[name][0].exists()]
    stale = [name for name in there if is_stale(run.folder, *places[name])]
    for what, those in (
        ("was not exported to", [name for name in names if name not in there]),
        ("has changed since its export to", stale),
    ):
        if formats is not None and those:
            hint = f"tltool export {name_run(run.path)} --to {','.join(those)}"
            raise DataError(Problem(str(run.path), f"{what} {', '.join(those)}", hint=hint))
    return [name for name in there if name not in stale], stale


def _write(
    run: Run, draft: Path, formats: Sequence[str], place: str, licences: Mapping[str, str]
) -> None:
    """Writes the folder that Keras reads; the model's file is its archive."""
    folder = run.folder
    try:
        with zipfile.ZipFile(folder.model) as archive:
            names = archive.namelist()
            kept = [name for name in names if name in _ARCHIVE or name.startswith(f"{_ASSETS}/")]
            archive.extractall(draft, kept)
    except zipfile.BadZipFile as error:
        raise DataError(Problem(str(folder.model), f"is damaged: {error}")) from error
    if missing := [name for name in _ARCHIVE if name not in kept]:
        raise DataError(Problem(str(folder.model), f"is no model of Keras: no {missing[0]}"))
    for path in (folder.classes, folder.task_state, folder.bands):
        if path.is_file():
            shutil.copyfile(path, draft / path.name)
    for name in formats:
        source = folder.export / EXPORT_FORMATS[name].path
        copied = draft / _EXPORT / EXPORT_FORMATS[name].path
        copied.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copied)
    for name, of in _COMPANIONS.items():
        if set(of) & set(formats) and (folder.export / name).is_file():
            shutil.copyfile(folder.export / name, draft / _EXPORT / name)
    text = write_card(
        folder, **licences, place=place, has_saved_model="saved_model" in formats,
        is_foreign="tl_toolkit>" in (draft / _CONFIG).read_text("utf-8"),
    )  # fmt: skip
    write_atomically(draft / _CARD, text.encode())


def _upload(draft: Path, files: Collection[str], repository: str, *, private: bool) -> str:
    """Uploads files of a folder as one commit, and returns the page of the repository.

    `upload_folder` would make several commits of it, and end after some.
    """
    import huggingface_hub
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api = huggingface_hub.HfApi(library_name="tl_toolkit")
    place = _HUB + repository
    with _reporting_refusal(place):
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        info = api.model_info(repository)
        held = {sibling.rfilename for sibling in info.siblings or ()}
        if private and not info.private:
            what = "is public already, and --private was asked for"
            raise DataError(Problem(place, what, "Nothing was pushed.", "another name"))
        if held - {".gitattributes", _CARD} and not {_CARD, _CONFIG, _WEIGHTS} <= held:
            raise DataError(Problem(place, "holds other files", "Nothing was pushed."))
        gone = [name for name in sorted(held) if name not in files and _is_replaced(name)]
        api.create_commit(
            repository,
            [
                *(CommitOperationDelete(name, is_folder=False) for name in gone),
                *(CommitOperationAdd(name, draft / name) for name in files),
            ],
            commit_message="Push a model of tl_toolkit",
            parent_commit=info.sha,
        )
    return str(url)


def _is_replaced(name: str) -> bool:
    """Returns whether a file of the repository is of an earlier push: not a picture in assets."""
    return _is_own(name) and not name.startswith(f"{_ASSETS}/")


@contextlib.contextmanager
def _reporting_refusal(place: str) -> Iterator[None]:
    """Turns errors of the Hub's client into one that says what is refused."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except (httpx.HTTPError, OSError, ValueError) as error:  # ValueError of names, and of the card
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        what = "was refused" + (f": {' '.join(lines[:3])}" if lines else "")
        takes_token = isinstance(error, LocalTokenNotFoundError) or (
            isinstance(error, HfHubHTTPError) and error.response.status_code in _REFUSED
        )
        hint = "hf auth login, with a token that may write; or HF_TOKEN" if takes_token else ""
        raise DataError(Problem(place, what, hint=hint)) from error
