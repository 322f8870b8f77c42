"""The page at the root of a server: an image in, what the model says of it out."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources

import jinja2

__all__ = ["PAGE_HEADERS", "render_page"]


def _read(name: str) -> str:
    return resources.files("tl_toolkit.serving").joinpath(name).read_text("utf-8")


def _digest(name: str) -> str:
    """Returns a file of the page as its policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(_read(name).encode()).digest()).decode()}'"


PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; "
    f"script-src {_digest('page.js')}; style-src {_digest('page.css')}; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Headers of the page: a browser runs its own script and style, and asks this server alone."""


@functools.cache
def render_page(name: str, *, has_token: bool) -> bytes:
    """Returns the page.

    Args:
        name: What the model is called in paths.
        has_token: Whether the page asks for a token.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    files = {"script": _read("page.js"), "style": _read("page.css")}
    page = environment.from_string(_read("page.html.jinja"))
    return page.render(name=name, has_token=has_token, **files).encode()
