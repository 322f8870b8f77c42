"""`tltool weights`: published weight files, fetched ahead, checked, or brought by hand.

None of it imports TensorFlow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tl_toolkit.cli.arguments import read_arguments
from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import print_message, show, show_json
from tl_toolkit.errors import CheckFailedError
from tl_toolkit.printing.tables import Figure, build_table

if TYPE_CHECKING:
    from tl_toolkit.catalog.published import PublishedFile

_takes_arguments: Callable[[Any], Any] = click.argument(
    "arguments", nargs=-1, metavar="[KEY=VALUE]..."
)
_takes_size = click.option(
    "--input-size", type=click.IntRange(min=1), help="Side of the images.  [its default]"
)


@click.group("weights")
def weights_command() -> None:
    """List, pull, verify and import published weight files.

    They lie where Keras keeps them: in models/ of KERAS_HOME, by default of ~/.keras.
    """


@weights_command.command("list", short_help="List the published files, and which are here.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--here", is_flag=True, help="Only files that are here, or a part of them.")
@click.option("--json", "as_json", is_flag=True, help="Print addresses, digests and licences too.")
def list_files(names: tuple[str, ...], here: bool, as_json: bool) -> None:
    """List the published files of architectures NAME, by default of all; nothing is read.

    Checked by says which digest a file must have: a published one, or the one of its first use.
    """
    from tl_toolkit.api.weights import list_weights

    entries = [entry for entry in list_weights(*names) if entry.state != "absent" or not here]
    if as_json:
        show_json([_record_of(entry) for entry in entries])
        return
    columns = ["base", "arguments", "pixels", "size", "checked by", "state"]
    rows = [
        [
            entry.architecture.name,
            ", ".join(f"{key} {value}" for key, value in _when(entry).items()),
            entry.file.image_size,
            Figure(_describe_size(entry)),
            entry.checked_by or "first use",
            entry.state,
            *([entry.licence or "not stated"] if names else []),
        ]
        for entry in entries
    ]
    if rows:
        show(build_table([*columns, *(["licence"] if names else [])], rows))
    count = Counter(entry.state for entry in entries)["here"]
    print_message(f"{count} of {len(entries)} here")


def _when(entry: PublishedFile) -> dict[str, Any]:
    """Returns the arguments of a file, as recipes write them."""
    return {
        key: str(value).lower() if isinstance(value, bool) else value
        for key, value in entry.file.when.items()
        if value != entry.architecture.arguments[key].default
    }


def _describe_size(entry: PublishedFile) -> str:
    from tl_toolkit.catalog.published import spell_size

    if entry.state == "here":
        return f"{entry.path.stat().st_size / 1e6:.1f} MB"
    return spell_size(entry.architecture, entry.file)


def _record_of(entry: PublishedFile) -> dict[str, Any]:
    return {
        "base": entry.architecture.name,
        "arguments": dict(entry.file.when),
        "image_size": entry.file.image_size,
        "state": entry.state,
        "path": entry.path,
        "url": entry.file.url,
        "bytes": entry.bytes,
        "least_bytes": entry.least_bytes,
        "sha256": entry.file.sha256,
        "md5": entry.file.md5,
        "checked_by": entry.checked_by,
        "licence": entry.licence,
    }


@weights_command.command("pull", short_help="Fetch a file that weights: imagenet takes.")
@click.argument("name")
@_takes_arguments
@_takes_size
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder.  [where Keras looks]"
)
@click.option("--json", "as_json", is_flag=True, help="Print path, bytes and SHA-256 as JSON.")
def pull_file(
    name: str, arguments: tuple[str, ...], input_size: int | None, out: Path | None, as_json: bool
) -> None:
    """Fetch the file that weights: imagenet takes for architecture NAME, and print its path.

    KEY=VALUE are arguments of the architecture, as alpha=0.25. A download that was interrupted is
    resumed. A file that is here is compared with its digest and not fetched again.
    """
    from tl_toolkit.api.weights import pull_weights

    path = pull_weights(
        name,
        read_arguments(arguments),
        image_size=input_size,
        out=out,
        progress=current.print_events(),
    )
    _show_file(path, as_json)


def _show_file(path: Path, as_json: bool) -> None:
    from tl_toolkit.runs.files import hash_file

    if as_json:
        show_json({"path": path, "bytes": path.stat().st_size, "sha256": hash_file(path)})
    else:
        show(str(path))


@weights_command.command("verify", short_help="Read files in full and compare their digests.")
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...")
@click.option("--json", "as_json", is_flag=True, help="Print paths and states as JSON.")
def verify_files(names: tuple[str, ...], as_json: bool) -> None:
    """Read weight files in full and compare their digests; exit with 4 if one is not as it was.

    NAME stands for the published files of an architecture that are here; without any, all that are
    here are read. If nobody has published a file's digest, it is pinned: it must have the digest of
    its first use. FILE is any weight file, beside which nothing is written.
    """
    from tl_toolkit.api.weights import verify_weights

    verdicts = verify_weights(*names)
    if as_json:
        show_json([{"path": verdict.path, "state": verdict.state} for verdict in verdicts])
    elif verdicts:
        rows = [[verdict.state, str(verdict.path)] for verdict in verdicts]
        show(build_table(["state", "file"], rows))
    else:
        print_message("no file is here")
    problems = [verdict.problem for verdict in verdicts if verdict.problem is not None]
    if problems:
        raise CheckFailedError(problems)


@weights_command.command("import", short_help="Copy a file to where weights: imagenet looks.")
@click.argument("file", type=click.Path(path_type=Path))
@_takes_arguments
@click.option("--as", "base", metavar="NAME", required=True, help="The architecture it is of.")
@_takes_size
@click.option("--overwrite", is_flag=True, help="Replace another file there, and its pin.")
@click.option("--json", "as_json", is_flag=True, help="Print path, bytes and SHA-256 as JSON.")
def import_file(
    file: Path,
    arguments: tuple[str, ...],
    base: str,
    input_size: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Copy FILE to where weights: imagenet looks for it, and print that place.

    FILE was fetched on another machine. It must hold plain weights that fit the architecture, and
    have the published digest where there is one.
    """
    from tl_toolkit.api.weights import import_weights

    path = import_weights(
        file, base, read_arguments(arguments), image_size=input_size, overwrite=overwrite
    )
    _show_file(path, as_json)
