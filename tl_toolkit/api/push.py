"""`push`: a run's model, with its card and exports, to the Hugging Face Hub or to a folder."""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
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
from tl_toolkit.runs.files import drafted, write_atomically
from tl_toolkit.runs.listing import measure_size
from tl_toolkit.runs.states import describe_absent, name_run

__all__ = ["Pushed", "push"]

_HUB = "hf://"
_NAME = re.compile(r"hf://[\w.-]+/[\w.-]+")
_CARD, _CONFIG = "README.md", "config.json"
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
    names of its outputs, what its task learned, and its exports below `export`. Of the run's other
    files, which name places on this machine, none is pushed. The Hub's own client finds the token,
    by `hf auth login` or HF_TOKEN: it is read by no other code, and written nowhere.

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
        DataError: The run lacks a file or an export, or the Hub refuses it.
        OutputError: The folder holds something else, or cannot be written.
        RecipeError: The target is no repository, or the Hub's client is not installed.
    """
    opened = run if isinstance(run, Run) else load_run(run, root=root)
    place = str(target)
    is_hub = place.startswith(_HUB)
    if not opened.folder.model.is_file():
        raise describe_absent(opened.folder, opened.folder.model)
    _check_target(place, is_dry=dry_run)
    chosen = _find_exports(opened, formats)
    licences = {"license": license, "data_license": data_license}
    with handling(progress) as report, tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch, "model")
        _write(opened, draft, chosen, place if is_hub else ".", licences)
        files = {
            path.relative_to(draft).as_posix(): path.stat().st_size
            for path in sorted(draft.rglob("*")) if path.is_file()
        }  # fmt: skip
        if dry_run:
            return Pushed(place, files)
        report(message(f"pushing {len(files)} files, {measure_size(draft) / 1e6:.1f} MB"))
        if is_hub:
            return Pushed(place, files, _upload(draft, place.removeprefix(_HUB), private=private))
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
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and not {_CARD, _CONFIG, "model.weights.h5"} <= names:
        expected = "Expected a new or empty folder, or one of an earlier push."
        raise OutputError(Problem(place, "holds other files", expected, "another folder"))


def _find_exports(run: Run, formats: Sequence[str] | None) -> list[str]:
    """Returns the exports to push; those that are asked for must be there."""
    names = list(EXPORT_FORMATS) if formats is None else list(split_formats(formats))
    missing = [
        name for name in names if not (run.folder.export / EXPORT_FORMATS[name].path).exists()
    ]
    if formats is not None and missing:
        what = f"was not exported to {', '.join(missing)}"
        hint = f"tltool export {name_run(run.path)} --to {','.join(missing)}"
        raise DataError(Problem(str(run.path), what, hint=hint))
    return [name for name in names if name not in missing]


def _write(
    run: Run, draft: Path, formats: Sequence[str], place: str, licences: Mapping[str, str]
) -> None:
    """Writes the folder that Keras reads; the model's file is its archive."""
    folder = run.folder
    with zipfile.ZipFile(folder.model) as archive:
        archive.extractall(draft)
    for path in (folder.classes, folder.task_state, folder.bands):
        if path.is_file():
            shutil.copyfile(path, draft / path.name)
    for name in formats:
        source = folder.export / EXPORT_FORMATS[name].path
        copied = draft / "export" / EXPORT_FORMATS[name].path
        copied.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copied)
    for name, of in _COMPANIONS.items():
        if set(of) & set(formats) and (folder.export / name).is_file():
            shutil.copyfile(folder.export / name, draft / "export" / name)
    text = write_card(
        folder, **licences, place=place, has_saved_model="saved_model" in formats,
        is_foreign="tl_toolkit>" in (draft / _CONFIG).read_text("utf-8"),
    )  # fmt: skip
    write_atomically(draft / _CARD, text.encode())


def _upload(draft: Path, repository: str, *, private: bool) -> str:
    """Uploads a folder as one commit, and returns the page of the repository."""
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = huggingface_hub.HfApi(library_name="tl_toolkit")
    try:
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            what = "is public already, and --private was asked for"
            raise DataError(Problem(_HUB + repository, what, "Nothing was pushed.", "another name"))
        api.upload_folder(
            repo_id=repository, folder_path=draft, commit_message="Push a model of tl_toolkit"
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, httpx.HTTPError, OSError) as error:
        what = f"was refused: {str(error).strip().splitlines()[0]}" if str(error) else "was refused"
        hint = "hf auth login, with a token that may write; or HF_TOKEN"
        raise DataError(Problem(_HUB + repository, what, hint=hint)) from error
    return str(url)
