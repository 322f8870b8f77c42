"""Downloads a file over HTTP into a part of it, which a later attempt resumes.

What is published, and whether it is the right file, is decided elsewhere (`fetch`).
"""

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["DownloadError", "Progress", "discard_part", "download"]

Progress = Callable[[int, int | None], None]
"""Receives, after each piece, the bytes so far and the total (None if it is not known)."""

_PIECE = 1 << 20
_TIMEOUT_SECONDS = 30.0
"""How long a server may send nothing."""
_ATTEMPTS = 5
"""How often a connection may break off that brought bytes; one that brought none is not resumed."""


class DownloadError(Exception):
    """A file could not be downloaded; its text is the reason, for the middle of a sentence."""


class _BrokenOffError(DownloadError):
    """A connection that ended early.

    Args:
        received: How many bytes it brought.
        reason: As in `DownloadError`.
    """

    def __init__(self, received: int, reason: str) -> None:
        super().__init__(reason)
        self.received = received


@dataclass(frozen=True)
class _Answer:
    """A server's response: from which byte on it sends, and how long the whole file is."""

    response: Any
    start: int
    total: int | None


def download(
    url: str,
    part: Path,
    *,
    size: int | None = None,
    is_verified: bool = False,
    progress: Progress | None = None,
) -> None:
    """Downloads a file, or the rest of it; what arrived stays in the part when it fails.

    The rest is asked for only where it surely belongs to the same file: by the server's tag (ETag
    or Last-Modified), which is kept beside the part, or because the caller compares digests.

    Args:
        url: The address.
        part: Where to write; may hold the beginning from an earlier attempt. One process writes.
        size: Bytes of the whole file, None if they are not known.
        is_verified: Whether the caller knows the digest of the whole file.
        progress: Called after each piece.

    Raises:
        DownloadError: The server cannot be reached, refuses, or breaks off again and again.
        OSError: The part cannot be written.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _continue(url, part, size, is_verified, progress)
        except _BrokenOffError as error:
            if attempt == _ATTEMPTS or not error.received:
                raise


def discard_part(part: Path) -> None:
    """Removes a part and its tag, as far as they are there.

    Args:
        part: As for `download`.
    """
    part.unlink(missing_ok=True)
    _tag_of(part).unlink(missing_ok=True)


def _tag_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _continue(
    url: str, part: Path, size: int | None, is_verified: bool, progress: Progress | None
) -> None:
    start = part.stat().st_size if part.exists() else 0
    tag = _tag_of(part).read_text() if start and _tag_of(part).exists() else ""
    answer = _request(url, start if tag or is_verified else 0, tag)
    if answer is None:  # the part is the whole file
        return
    total = size if answer.total is None else answer.total
    with answer.response as response:
        if not answer.start:
            discard_part(part)
            if tag := _read_tag(response.headers):
                _tag_of(part).write_text(tag)
        with open(part, "ab") as sink:
            done = answer.start
            while piece := _read(response, done - answer.start, _describe_counts(done, total)):
                sink.write(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, total)
            sink.flush()
            os.fsync(sink.fileno())
    if total is not None and done != total:
        raise _BrokenOffError(done - answer.start, _describe_counts(done, total))


def _describe_counts(done: int, total: int | None) -> str:
    of = "" if total is None else f" of {total:,}"
    return f"the connection broke off after {done:,}{of} bytes"


def _read(response: Any, received: int, broken_off: str) -> bytes:
    try:
        # What one packet brings, so that a connection that stalls loses nothing.
        piece: bytes = response.read1(_PIECE)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _BrokenOffError(received, f"{broken_off}: {_why(error)}") from error
    return piece


def _request(url: str, start: int, tag: str) -> _Answer | None:
    """Asks for a file from a byte on; returns None if the server says that it ends there."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and tag:
        headers["If-Range"] = tag  # of another file the server sends all
    try:
        request = urllib.request.Request(url, headers=headers)
        opener = urllib.request.build_opener(_SafeRedirects)
        response = opener.open(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416 or not start:
                raise DownloadError(_why(error)) from error
            is_whole = error.headers.get("Content-Range") == f"bytes */{start}"
        return None if is_whole else _request(url, 0, "")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(_why(error)) from error
    if response.status != 206:
        length = response.headers.get("Content-Length", "")
        return _Answer(response, 0, int(length) if length.isdecimal() else None)
    place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    sent = _read_tag(response.headers)
    if place is not None and int(place[1]) == start and sent in ("", tag or sent):
        return _Answer(response, start, int(place[2]))
    response.close()
    if not start:
        raise DownloadError("the server sent a part that was not asked for")
    return _request(url, 0, "")


def _read_tag(headers: Mapping[str, str]) -> str:
    """Returns what identifies this version of the file; a weak tag does not."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _why(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return " ".join(str(reason).split()) or type(error).__name__


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but none that leaves https: anyone on the way could send another file."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            reason = f"the server redirects to an address without https: {newurl}"
            raise urllib.error.HTTPError(req.full_url, code, reason, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
