"""Refuses an exported model whose outputs differ from the Keras model's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tl_toolkit.errors import ParityError, Problem

__all__ = ["check_report"]


def check_report(report: Mapping[str, Any], *, where: str) -> None:
    """Refuses an export whose outputs differ from the Keras model's.

    Args:
        report: What `tl_toolkit.tasks.parity.make_report` returned.
        where: The file that holds the report.

    Raises:
        ParityError: A difference is above its limit, or a label or class name differs.
    """
    if report["holds"]:
        return
    worst = max(report["images"], key=lambda image: max(image["pixels"], image["bytes"]))
    raise ParityError(
        Problem(
            where=where,
            what=f"the exported model differs from the Keras model, most on {worst['name']}: "
            f"{worst['pixels']:.2g} from pixels, {worst['bytes']:.2g} from bytes",
            expected=f"At most {report['pixels']['limit']:g} and {report['bytes']['limit']:g}, and "
            "equal labels. Nothing was published; the report has every image.",
            hint="tltool export RUN again; if it fails again, report it with that file",
        )
    )
