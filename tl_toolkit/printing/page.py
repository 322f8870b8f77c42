"""Pages in one HTML file: no font, script or picture besides itself, and every text escaped."""

from __future__ import annotations

import base64
import io
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["encode_picture", "render_page", "replace_undecodable"]


def render_page(template: str, *, maker: str, side: int, **values: Any) -> str:
    """Renders a page.

    Args:
        template: A file in this package that extends `printing/page.html.jinja`.
        maker: The program that makes it, which the page names as its generator.
        side: Pixels of the longer side of its pictures.
        values: What the template shows; every text is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template(template).render(maker=maker, side=side, **values)
    return replace_undecodable(page) + "\n"  # names of files may hold bytes that are no UTF-8


def _read(name: str) -> str:
    return resources.files("tl_toolkit").joinpath(name).read_text("utf-8")


def encode_picture(image: Image, *, kind: str = "JPEG") -> str:
    """Returns a picture as a data URI.

    Args:
        image: The picture.
        kind: "JPEG", which is small, or "PNG", which is exact.
    """
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 70} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def replace_undecodable(text: str) -> str:
    """Returns a text whose bytes that are no UTF-8, as names of files may hold, are replaced.

    Args:
        text: The text.
    """
    return text.encode("utf-8", "replace").decode()
