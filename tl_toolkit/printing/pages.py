"""Pages in one HTML file each: no font, script or file besides, and every text is escaped."""

from __future__ import annotations

from importlib import resources
from typing import Any

__all__ = ["render_page"]


def render_page(name: str, **values: Any) -> str:
    """Renders a page of this folder, which extends page.html.jinja.

    Args:
        name: Of its template, as "sheet".
        **values: What the template shows. Bytes of names that are no UTF-8 are replaced.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_read),
    )
    document = environment.get_template(f"{name}.html.jinja").render(**values)
    return document.encode("utf-8", "replace").decode() + "\n"


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
