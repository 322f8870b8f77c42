"""Checks a set of images: its files, copies and classes; what is doubtful needs features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from tl_toolkit.audit.findings import Finding, find_in_images
from tl_toolkit.audit.groups import find_copies, find_in_classes
from tl_toolkit.audit.inspect import InspectedFile
from tl_toolkit.audit.kinds import KINDS
from tl_toolkit.audit.not_listed import find_not_listed
from tl_toolkit.audit.report import DataReport
from tl_toolkit.sources.listing import Listing

__all__ = ["build_report"]

_ORDER = {kind: place for place, kind in enumerate(KINDS)}


def build_report(
    listing: Listing,
    files: Sequence[InspectedFile],
    *,
    source: str,
    root: str,
    pairs: np.ndarray,
    more: Iterable[Finding] = (),
    notes: Sequence[str] = (),
) -> DataReport:
    """Returns what is wrong with a set of images.

    Args:
        listing: The set.
        files: Its images, inspected, in the order of the listing.
        source: Its name in the report.
        root: The folder that shown paths are relative to.
        pairs: Images that look the same, of `pair_files`.
        more: Findings by features.
        notes: Sentences on what was not checked.
    """
    findings = chain(
        find_in_images(files),
        find_copies(files, pairs),
        find_in_classes(listing, files),
        find_not_listed(listing.ignored),
        more,
    )
    ordered = sorted(
        findings,
        key=lambda finding: (_ORDER[finding.kind], -finding.weight, *finding.paths[:1]),
    )
    counts: dict[str, Counter[str]] = {}
    for file in files:
        if file.is_usable:
            counts.setdefault(file.split, Counter())[file.label] += 1
    inside = {file.path: file.file for file in files if file.file != file.path}
    return DataReport(source, root, len(files), counts, tuple(ordered), tuple(notes), inside)
