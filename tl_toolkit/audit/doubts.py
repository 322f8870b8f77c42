"""Findings by features: labels that are likely wrong, and images that are like no others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tl_toolkit.audit.findings import Finding
from tl_toolkit.audit.inspect import InspectedFile
from tl_toolkit.audit.labels import FOLDS, find_label_errors, find_outliers, predict_out_of_fold
from tl_toolkit.audit.near import join_named, name_near
from tl_toolkit.sources.known_files import CacheTable

__all__ = ["DOUBTS_VERSION", "find_doubts", "recall_doubts"]

DOUBTS_VERSION = 1
"""Changes with how doubts are found, so that older ones are not used again."""

_Found = list[tuple[str, str, str, str, float]]  # kind, digest, label, reason, weight


def recall_doubts(
    key: str,
    files: Sequence[InspectedFile],
    find: Callable[[], list[Finding]],
    *,
    cache_dir: Path,
) -> list[Finding]:
    """Returns doubts that are known of the same images and base, else finds and keeps them.

    Args:
        key: Digest of all that they follow from.
        files: The images.
        find: Finds them.
        cache_dir: Keeps them.
    """
    table = _Doubts(cache_dir)
    if (known := table.get(key)) is not None:
        table.save()
        places = {(file.sha256, file.label): file.path for file in files}
        return [
            Finding(kind, (path,), reason, (path,), weight)
            for kind, sha256, label, reason, weight in known
            if (path := places.get((sha256, label)))
        ]
    findings = find()
    by_path = {file.path: file for file in files}
    table.add(key, [
        (finding.kind, by_path[path].sha256, by_path[path].label, finding.reason, finding.weight)
        for finding in findings
        for path in finding.paths
    ])  # fmt: skip
    table.save()
    return findings


class _Doubts(CacheTable):
    """Doubts by what they follow from."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "doubts (id TEXT PRIMARY KEY, found TEXT NOT NULL) WITHOUT ROWID")

    def get(self, key: str) -> _Found | None:
        row = self.read("SELECT found FROM doubts WHERE id = ?", key)
        try:
            return None if row is None else [tuple(entry) for entry in json.loads(row[0])]
        except (TypeError, ValueError):  # a cache that is damaged
            return None

    def add(self, key: str, found: _Found) -> None:
        self.new[key] = (key, json.dumps(found))


def find_doubts(files: Sequence[InspectedFile], vectors: np.ndarray) -> list[Finding]:
    """Returns labels that are likely wrong, and outliers.

    Labels of classes with fewer different images than FOLDS are not doubted.

    Args:
        files: The images.
        vectors: float (n, features), of the same images.
    """
    findings = [
        _of(files[index], "outlier", f"{score:.1f} deviations above the median distance", score)
        for index, score in find_outliers(vectors)
    ]
    groups = np.zeros(len(files), np.int64)
    near = name_near(
        [file.content.hash for file in files], [file.content.signature for file in files]
    )
    for number, indices in enumerate(join_named([file.sha256 for file in files], near)):
        groups[indices] = number
    different = Counter(
        label for label, _ in {(file.label, int(groups[i])) for i, file in enumerate(files)}
    )
    classes = sorted(label for label, count in different.items() if label and count >= FOLDS)
    places = np.array([i for i, file in enumerate(files) if file.label in classes], np.int64)
    if len(classes) < 2:
        return findings
    labels = np.array([classes.index(files[i].label) for i in places])
    probabilities = predict_out_of_fold(vectors[places], labels, groups[places], len(classes))
    for doubt in find_label_errors(probabilities, labels):
        file = files[places[doubt.image]]
        suggested = classes[doubt.suggested]
        reason = f"{file.label} ({doubt.own:.0%}), more likely {suggested} ({doubt.other:.0%})"
        findings.append(_of(file, "label_error", reason, doubt.other - doubt.own))
    return findings


def _of(file: InspectedFile, kind: str, reason: str, weight: float) -> Finding:
    return Finding(kind, (file.path,), reason, (file.path,), weight)
