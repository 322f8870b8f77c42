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
    wrong = [
        name for name, output in report.get("further_outputs", {}).items() if not output["holds"]
    ]
    if not report.get("lines", {"holds": True})["holds"]:
        wrong.append(report["lines"]["file"])
    if wrong:
        raise ParityError(
            Problem(
                where=where,
                what=f"the outputs {', '.join(wrong)} differ from the Keras model's",
                expected="Nothing was published; the report has the figures.",
                hint="tltool export RUN again; if it fails again, report it with that file",
            )
        )
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
    largest, mean = outputs["largest_difference"], outputs["mean_difference"]
    what = f"by up to {largest:.2g}, {mean:.2g} in the mean"
    if agreement["share"] is not None:
        what += f", and {agreement['share']:.1%} of its answers are equal"
    limits = {
        "{:g} at most": outputs["limit"],
        "{:g} in the mean": outputs["mean_limit"],
        "{:.0%} of equal answers": agreement["limit"],
    }
    expected = ", ".join(text.format(limit) for text, limit in limits.items() if limit is not None)
    return Problem(
        where=where,
        what=f"the exported model differs from the Keras model {what}",
        expected=f"Allowed: {expected}. Nothing was published; the report has the figures.",
        hint="tltool export RUN --to saved_model, or another of the formats",
    )
