"""Bodies of requests, with their limits, and responses as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from tl_toolkit.serving.compression import Unpacking, is_gzip
from tl_toolkit.serving.tensors import CLOSE, Refusal
from tl_toolkit.serving.worker import Worker

__all__ = ["Bodies", "write_error", "write_json"]

_SMALL = 1 << 16
_HELD = 16
_T = TypeVar("_T")


class Bodies:
    """Reads the bodies of requests.

    At most 16 of the largest size are held in memory at once.

    Args:
        largest: The most bytes of one.
        seconds: How long a client may take to send it.
    """

    def __init__(self, largest: int, seconds: float) -> None:
        self._largest = largest
        self._seconds = seconds
        self._held = 0
        self._converter = Worker("json")

    @contextlib.asynccontextmanager
    async def reading(self, request: Request) -> AsyncIterator[bytearray]:
        """Yields the body of a request, which counts as held in memory during the block.

        What is read from it is held as long, so the block may empty it. One of gzip is unpacked,
        and counts as it unpacks.

        Args:
            request: The request.

        Raises:
            Refusal: It is too large, takes too long, cannot be unpacked, or others fill the memory.
        """
        unpacks = is_gzip(request.headers.get("content-encoding", ""))
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._largest:
            raise self._describe_large()
        body, size = bytearray(), 0
        try:
            try:
                async with asyncio.timeout(self._seconds):
                    stream = request.stream()
                    async for chunk in self._unpack(stream) if unpacks else stream:
                        body += chunk
                        size += len(chunk)
                        self._held += len(chunk)
                        self._check(size)
            except TimeoutError:
                text = f"the request took more than {self._seconds:g} s"
                raise Refusal(408, text, CLOSE) from None
            yield body
        finally:
            self._held -= size

    async def _unpack(self, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yields the pieces of a body of gzip, none of which is large."""
        unpacking, size = Unpacking(), 0
        async for chunk in stream:
            size += len(chunk)
            self._check(size)
            for piece in unpacking.unpack(chunk):
                yield piece
                await asyncio.sleep(0)
        unpacking.finish()

    def _check(self, size: int) -> None:
        if size > self._largest:
            raise self._describe_large()
        if self._held > _HELD * self._largest:
            raise Refusal(429, "too many requests at once", CLOSE | {"Retry-After": "1"})

    def _describe_large(self) -> Refusal:
        return Refusal(413, f"a request takes at most {self._largest:,} bytes", CLOSE)

    async def convert(self, size: int, function: Callable[..., _T], *arguments: Any) -> _T:
        """Returns what a function returns that reads or writes JSON.

        Where that takes long it is called in a thread, so that other requests are heard meanwhile;
        one at a time, as lists take many times the bytes of their text.

        Args:
            size: Bytes that it reads or writes.
            function: The function.
            arguments: What it takes.

        Raises:
            Refusal: It takes too long, those before it included.
        """
        if size <= _SMALL:
            return function(*arguments)
        try:
            async with asyncio.timeout(self._seconds):
                return await self._converter.run(function, *arguments)
        except TimeoutError:
            text = f"the JSON was not read or written within {self._seconds:g} seconds"
            raise Refusal(504, text) from None

    def close(self) -> None:
        """Ends the thread."""
        self._converter.close()


def write_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a response.

    Args:
        value: What JSON can hold; NaN and Infinity are written as TensorFlow Serving does.
        status: The status of HTTP.
        headers: Further headers.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), status, headers, media_type="application/json")


def write_error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """Returns an error, which has one form in both protocols.

    Args:
        status: The status of HTTP.
        text: A sentence.
        headers: Further headers.
    """
    return write_json({"error": text}, status, headers)
