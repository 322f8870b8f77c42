"""Refuses images of one split or fold that are, or look like, images of another."""

from __future__ import annotations

from collections.abc import Sequence

from tl_toolkit.audit.near_leaks import find_near_leaks
from tl_toolkit.errors import DataError
from tl_toolkit.events import Handler, report_counts, warning
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.images.members import EXTRACTED, extract_members
from tl_toolkit.plan.plan import Plan
from tl_toolkit.runs.files import default_cache_dir
from tl_toolkit.sources.leaks import Leak, describe_leaks, refuse_leaks
from tl_toolkit.sources.table_rows import INSIDE, name_image

__all__ = ["refuse_leakage"]


def refuse_leakage(plan: Plan, manifest: Manifest, progress: Handler) -> None:
    """Refuses images in two splits, as far as the recipe does; warns of the others.

    `tltool validate` refuses files with the same bytes. Here the images in a file with others are
    known too.

    Args:
        plan: The plan.
        manifest: Its images.
        progress: Receives the number of images looked at, and warnings.

    Raises:
        DataError: There are some.
    """
    data = plan.recipe.data
    if leaks := manifest.find_leaks():
        if data.leakage != "allow" and len(plan.survey.counts) > 1:
            _refuse(plan, [(leak, first) for first, leak in leaks])
        first, second = leaks[0]
        progress(
            warning(
                f"{len(leaks)} images are in two splits, and flatter what is measured there: "
                f"{first.path} is {second.path}"
            )
        )
    if data.leakage == "refuse_near":
        near = find_near_leaks(manifest, report_counts(progress, "images_inspected"))
        if near:
            _refuse(plan, near, is_near=True)


def _refuse(plan: Plan, pairs: Sequence[tuple[Example, Example]], *, is_near: bool = False) -> None:
    data = plan.recipe.data
    rows = _name_rows(plan)
    leaks = [
        Leak(
            rows.get(one.path, one.path),
            _name_side(one),
            rows.get(other.path, other.path),
            _name_side(other),
            is_near,
        )
        for one, other in pairs
    ]
    hint = ""
    if len(plan.survey.counts) < 2:
        hint = "tltool data split SOURCE -o splits.csv --near, and data.csv=splits.csv"
        if data.folds is not None:
            hint = f"{hint} data.group=group_near"
    what = f"data.leakage = {data.leakage!r}: {describe_leaks(leaks)}"
    raise DataError(refuse_leaks(what, " --exclude near_leak" if is_near else "", hint=hint))


def _name_rows(plan: Plan) -> dict[str, str]:
    """Returns `shop.parquet#12` for the extracted file of each image in a file with others."""
    members = [file.path for file in plan.listing.files if file.path.startswith(INSIDE)]
    files = extract_members(members, default_cache_dir() / EXTRACTED)
    return {file: name_image(member) for file, member in zip(files, members, strict=True)}


def _name_side(example: Example) -> str:
    return f"fold {example.fold}" if example.fold else example.split
