"""Bodies of requests that are gzip, and answers that become it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from tl_toolkit.serving.tensors import CLOSE, Refusal

__all__ = ["Compression", "Unpacking", "is_gzip"]

_PIECE = 1 << 18
_GZIP = 16 + zlib.MAX_WBITS
_PACKET = 1400  # bytes; a smaller answer arrives no sooner
_FAST = 1  # the last tenths of its size would take several times as long
_REFUSED = re.compile(r"\bgzip\s*;\s*q=0(\.0*)?\s*(,|$)", re.IGNORECASE)


class Compression(GZipMiddleware):
    """Compresses answers of more than a packet for clients that accept gzip.

    Starlette reads `gzip;q=0`, which refuses it, as an acceptance.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, minimum_size=_PACKET, compresslevel=_FAST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request.

        Args:
            scope: The request.
            receive: Returns its body.
            send: Takes the answer.
        """
        is_refused = scope["type"] == "http" and _REFUSED.search(
            Headers(scope=scope).get("accept-encoding", "")
        )
        answer = self.app if is_refused else super().__call__
        await answer(scope, receive, send)


class Unpacking:
    """Unpacks gzip, of one member or several behind each other."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._is_empty = True

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Yields what data holds, in pieces, none of which is large.

        Args:
            data: The next bytes.

        Raises:
            Refusal: It is no gzip.
        """
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
            self._is_empty = False
            try:
                piece = self._member.decompress(data, _PIECE)
            except zlib.error as error:
                raise Refusal(400, f"the body is no gzip: {error}", CLOSE) from error
            yield piece
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def finish(self) -> None:
        """Ends it.

        Raises:
            Refusal: The data ended too early.
        """
        if not (self._is_empty or self._member.eof):
            raise Refusal(400, "the body is no gzip: it ends too early", CLOSE)


def is_gzip(encoding: str) -> bool:
    """Returns whether a body is gzip.

    Args:
        encoding: Its Content-Encoding; "" for none.

    Raises:
        Refusal: It is anything else.
    """
    names = [name for word in encoding.split(",") if (name := word.strip().lower()) != "identity"]
    if names in ([], [""]):
        return False
    if names in (["gzip"], ["x-gzip"]):
        return True
    text = f"Content-Encoding {encoding[:40]}: expected gzip, or a body as it is"
    raise Refusal(415, text, CLOSE | {"Accept-Encoding": "gzip"})
