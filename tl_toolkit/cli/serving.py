"""`tltool serve`."""

from __future__ import annotations

from pathlib import Path

import click

from tl_toolkit.cli.arguments import takes_root
from tl_toolkit.cli.command import current
from tl_toolkit.errors import DataError, Problem


def _read_token(token: str | None, file: Path | None) -> str | None:
    if token is not None and file is not None:
        raise click.UsageError("--token and --token-file: one of them is enough")
    if file is None:
        return token
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise DataError(Problem(str(file), f"cannot be read: {error}")) from error
    if not text:
        raise DataError(Problem(str(file), "is empty", "It holds the token that clients send."))
    return text


@click.command("serve")
@click.argument("run")
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to bind; 0.0.0.0 for all of this machine.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True,
              help="Port; 0 takes a free one.")  # fmt: skip
@click.option("--token", help="Bearer token that requests need; others see it by `ps`.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A file that holds it.")
@click.option("--watch", is_flag=True, help="Load new versions, which take the place of old ones.")
@click.option("--name", help="Name of the model in paths.  [the recipe's, or the folder's]")
@click.option("--max-batch", type=click.IntRange(min=1), default=32, show_default=True,
              help="Most images of a call of the model.")  # fmt: skip
@click.option("--batch-wait-ms", type=click.FloatRange(0, 1000), default=2.0, show_default=True,
              help="How long the first image of a call waits for others.")  # fmt: skip
@click.option("--queue", type=click.IntRange(min=1), default=256, show_default=True,
              help="Most images that wait; more are refused with 429.")  # fmt: skip
@click.option("--max-body", type=click.FloatRange(0, 1024, min_open=True), default=16.0,
              show_default=True, metavar="MIB", help="Most MiB of a request.")  # fmt: skip
@click.option("--max-pixels", type=click.FloatRange(0, min_open=True), default=50.0,
              show_default=True, metavar="MILLIONS", help="Most pixels of an image.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=30.0,
              show_default=True, metavar="SECONDS",
              help="Longest time of a request, and of its answer.")  # fmt: skip
@click.option("--take-over", is_flag=True,
              help="Take the place of your server at this address: it ends when this one answers, "
              "and no request is lost.  [Linux]")  # fmt: skip
@takes_root
def serve_command(
    run: str,
    host: str,
    port: int,
    token: str | None,
    token_file: Path | None,
    watch: bool,
    name: str | None,
    max_batch: int,
    batch_wait_ms: float,
    queue: int,
    max_body: float,
    max_pixels: float,
    timeout: float,
    take_over: bool,
    root: Path,
) -> None:
    """Answer requests over HTTP with the SavedModel of RUN, or of a folder of numbered versions.

    It speaks TensorFlow Serving's REST interface and the Open Inference Protocol 2; its root is a
    page that takes an image. Ctrl-C and SIGTERM end it when requests in flight are answered.
    """
    from tl_toolkit.api.serve import serve

    server = serve(
        run, host=host, port=port, token=_read_token(token, token_file), watch=watch, name=name,
        max_batch=max_batch, batch_wait_ms=batch_wait_ms, queue=queue, max_body_mib=max_body,
        max_megapixels=max_pixels, timeout_seconds=timeout, take_over=take_over,
        root=root, progress=current.print_events(),
    )  # fmt: skip
    server.wait()
