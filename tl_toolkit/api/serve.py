"""`serve`: answers requests over HTTP with an exported model."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tl_toolkit.api.progress import handling
from tl_toolkit.api.run import Run
from tl_toolkit.errors import DataError, Problem, RecipeError
from tl_toolkit.events import Handler
from tl_toolkit.recipe.export_formats import EXPORT_FORMATS
from tl_toolkit.recipe.summary import read_summary
from tl_toolkit.runs.places import find_run
from tl_toolkit.runs.states import name_run
from tl_toolkit.runtime import start_tensorflow

if TYPE_CHECKING:
    from tl_toolkit.serving.server import Server

__all__ = ["find_served", "serve"]

_NEEDS = ("prometheus_client", "starlette", "uvicorn")
_NAME = re.compile(r"[\w.-]{1,100}")
_TOKEN = re.compile(r"[!-~]+")
_MIB = 1 << 20
_MILLION = 1_000_000


def serve(
    run: str | Path | Run,
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    token: str | None = None,
    watch: bool = False,
    name: str | None = None,
    max_batch: int = 32,
    batch_wait_ms: float = 2.0,
    queue: int = 256,
    max_body_mib: float = 16.0,
    max_megapixels: float = 50.0,
    timeout_seconds: float = 30.0,
    take_over: bool = False,
    root: str | Path = "runs",
    progress: Handler | bool = True,
) -> Server:
    """Starts a server of a run's SavedModel, in a thread of its own.

        with tl.serve("latest", port=0) as server:
            print(server.url, server.name)

        tl.serve("latest").wait()  # until Ctrl-C or SIGTERM

    It answers as TensorFlow Serving's REST interface does, and as the Open Inference Protocol 2
    asks; its root is a page that takes an image. The extra `serve` brings what it needs.

    Args:
        run: The run, or what `load_run` takes; or a folder with numbered folders of SavedModels.
        host: The address to bind; the default is reached from this machine alone.
        port: The port; 0 takes a free one, which `Server.url` names.
        token: The bearer token that requests need, of printable ASCII without spaces; None asks for
            none.
        watch: Load each new version beside the old one, which it then replaces.
        name: What the model is called in paths; by default the recipe's name, or the folder's.
        max_batch: The most images that the model gets in one call, of one request or several.
        batch_wait_ms: How long the first image of a batch waits for others.
        queue: The most images that wait; further requests are refused with 429.
        max_body_mib: The most MiB of a request.
        max_megapixels: The most millions of pixels of an image, and of a call of the model.
        timeout_seconds: How long a client may take to send a request, and an answer may take.
        take_over: Take the place of the server that answers at this address, if one of yours does.
            It ends as soon as this one answers, and no request is lost. On Linux alone.
        root: Folder of all runs.
        progress: As in `tl.finetune`: receives the address, and new versions.

    Returns:
        The server, which answers already.

    Raises:
        DataError: There is no such run, or it holds no SavedModel that can be loaded.
        RecipeError: The extra is missing, the address cannot be bound, a number is out of range.
    """
    _check_token(token)
    _check_numbers(
        port, max_batch, queue, batch_wait_ms, max_body_mib, max_megapixels, timeout_seconds
    )
    _check_modules()
    folder, own_name = find_served(run, root=Path(root))
    chosen = own_name if name is None else name
    if not _NAME.fullmatch(chosen):
        raise RecipeError(
            Problem(
                f"--name {chosen!r}",
                "is no name for a path",
                "Letters, digits, _, . and - are allowed.",
                "--name photos",
            )
        )
    start_tensorflow()
    from tl_toolkit.serving.server import Server
    from tl_toolkit.serving.settings import ServeSettings

    settings = ServeSettings(
        host, port, token or "", watch, max_batch, batch_wait_ms, queue,
        max_body=int(max_body_mib * _MIB), max_pixels=int(max_megapixels * _MILLION),
        timeout_seconds=timeout_seconds, take_over=take_over,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        report = stack.enter_context(handling(progress))
        server = Server(folder, chosen, settings, report, closing=stack.pop_all())
    server.start()
    return server


def find_served(run: str | Path | Run, *, root: Path = Path("runs")) -> tuple[Path, str]:
    """Returns the folder of a model's versions, and what the model is called.

    Args:
        run: As in `serve`.
        root: Folder of all runs.

    Raises:
        DataError: There is no such run, or it was not exported to a SavedModel.
    """
    from tl_toolkit.serving.versions import GRAPH, list_versions

    if not isinstance(run, Run):
        path = Path(run)
        if list_versions(path):
            return path, path.resolve().name
        if (path / GRAPH).is_file():
            raise DataError(
                Problem(
                    str(path),
                    "is one SavedModel",
                    "A folder is served that holds numbered ones, as 1/ and 2/.",
                    f"tltool serve {shlex.quote(str(path.resolve().parent))}",
                )
            )
    folder = run.folder if isinstance(run, Run) else find_run(run, root=root)
    versions = (folder.export / EXPORT_FORMATS["saved_model"].path).parent
    if not list_versions(versions):
        raise DataError(
            Problem(
                str(versions),
                "holds no SavedModel",
                "A run is served by its export.",
                f"tltool export {name_run(folder.path)} --to saved_model",
            )
        )
    return versions, read_summary(folder.recipe).name or folder.path.name


def _check_modules() -> None:
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise RecipeError(
            Problem(
                "serve",
                f"takes {', '.join(_NEEDS)}; not installed: {', '.join(missing)}",
                hint="pip install 'tl-toolkit[serve]'",
            )
        )


def _check_token(token: str | None) -> None:
    if token is not None and not _TOKEN.fullmatch(token):
        raise RecipeError(
            Problem(
                "token",
                "has letters that browsers cannot send" if token else "is empty",
                "It holds printable ASCII without spaces.",
                "openssl rand -hex 32",
            )
        )


def _check_numbers(
    port: int,
    max_batch: int,
    queue: int,
    wait_ms: float,
    body_mib: float,
    megapixels: float,
    timeout: float,
) -> None:
    claims = {
        "port: expected 0 to 65535": 0 <= port <= 65535,
        "max_batch: expected at least 1": max_batch >= 1,
        "batch_wait_ms: expected 0 to 1000": 0 <= wait_ms <= 1000,
        "max_body_mib: expected more than 0, at most 1024": 0 < body_mib <= 1024,
        "max_megapixels: expected a number above 0": 0 < megapixels < math.inf,
        "timeout_seconds: expected a number above 0": 0 < timeout < math.inf,
    }
    problems = [Problem("serve", text) for text, holds in claims.items() if not holds]
    if queue < max_batch:
        text = f"queue: expected at least max_batch, {max_batch}, got {queue}"
        problems.append(Problem("serve", text, hint=f"--queue {8 * max_batch}"))
    if problems:
        raise RecipeError(problems)
