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
    if "agreement" in report:
        raise ParityError(_describe_graph(report, where))
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


def _describe_graph(report: Mapping[str, Any], where: str) -> Problem:
    """Returns what is wrong by a report of `graph_parity`."""
    outputs, agreement = report["outputs"], report["agreement"]
    shares = ""
    if agreement["share"] is not None:
        shares = f", and {agreement['share']:.1%} of its answers are equal"
    return Problem(
        where=where,
        what=f"the exported model differs from the Keras model by up to "
        f"{outputs['largest_difference']:.2g}{shares}",
        expected=("" if outputs["limit"] is None else f"At most {outputs['limit']:g}. ")
        + f"At least {agreement['limit']:.0%} of equal answers. Nothing was published; the report "
        "has the figures.",
        hint="tltool export RUN --to saved_model, or another of the formats",
    )
