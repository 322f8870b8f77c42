"""Who may ask: the bearer token, and without one the hosts that a browser may name."""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tl_toolkit.serving.messages import write_error
from tl_toolkit.serving.tensors import CLOSE

__all__ = ["Guard", "is_loopback"]

_OPEN = ("/", "/v2/health/live", "/v2/health/ready")
"""Paths that need no token: nothing of the model is in them but its name."""


class Guard:
    """Refuses those who may not ask, before a path or a body is read.

    A server without a token on a loopback address trusts whoever works at this machine, but not the
    web pages that they read. A page can send requests there, and can read the answers where its own
    name leads there; what its browser says of `Host` and `Origin` gives it away.

    Args:
        app: The application.
        token: The bearer token; "" for none.
        local_host: The host that the server was told to bind where it is a loopback address; None
            where it is not.
    """

    def __init__(self, app: ASGIApp, *, token: str, local_host: str | None) -> None:
        self._app = app
        self._token = token.encode()
        self._local_host = local_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request.

        Args:
            scope: The request.
            receive: Returns its body.
            send: Takes the answer.
        """
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if self._token and scope["path"] not in _OPEN:
                if not self._knows(headers.get(b"authorization", b"")):
                    extra = {"WWW-Authenticate": "Bearer", **CLOSE}
                    refused = write_error(401, "a bearer token is needed", extra)
                    return await refused(scope, receive, send)
            if not self._token and self._local_host is not None:
                for name in (b"host", b"origin"):
                    if name in headers and not self._is_local(headers[name], name):
                        text = f"{name.decode()}: a server without a token answers localhost alone"
                        return await write_error(403, text, CLOSE)(scope, receive, send)
        await self._app(scope, receive, _adding_nosniff(send))

    def _knows(self, authorization: bytes) -> bool:
        scheme, _, token = authorization.partition(b" ")
        return hmac.compare_digest(token, self._token) and scheme.lower() == b"bearer"

    def _is_local(self, value: bytes, name: bytes) -> bool:
        text = value.decode("latin-1")
        try:
            host = urlsplit(f"//{text}" if name == b"host" else text).hostname or ""
        except ValueError:
            return False
        names = ("localhost", (self._local_host or "localhost").lower())
        return host in names or host.endswith(".localhost") or is_loopback(host)


def is_loopback(host: str) -> bool:
    """Returns whether a host is an address that is reached from this machine alone.

    Args:
        host: An address, or a name, which is none.
    """
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _adding_nosniff(send: Send) -> Send:
    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
        await send(message)

    return add
