"""Inspects every image once, before training, by decoding it."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG
from typing import Literal, NamedTuple

import PIL
import tensorflow as tf

from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.images.bands import DECODING, as_channels, decode_file, describe_decoder
from tl_toolkit.images.convert import CONVERTED, convert_to_png
from tl_toolkit.images.decoder import explain
from tl_toolkit.images.folds import assign_folds
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.images.members import EXTRACTED, extract_members
from tl_toolkit.images.splits import check_groups, keep_few, sample_splits
from tl_toolkit.images.verdicts import Verdicts
from tl_toolkit.runs.files import default_cache_dir, write_atomically
from tl_toolkit.sources.builtin import BUILTIN, load_builtin_image
from tl_toolkit.sources.known_files import KnownFiles
from tl_toolkit.sources.listing import (
    MAX_BYTES,
    MAX_NAMED,
    Listing,
    SourceFile,
    name_some,
)
from tl_toolkit.sources.members import INSIDE
from tl_toolkit.sources.objects import count_readers, read_image_file, stat_image

__all__ = ["Inspection", "judge", "inspect_images", "ScanSettings", "scan", "scan_files"]

# (images inspected, all images); called by the thread that scans.
Progress = Callable[[int, int], None]
# (SHA-256 of the file, pixels (h, w, channels)); called by several threads.
Keep = Callable[[str, tf.Tensor], None]


class Inspection(NamedTuple):
    """The result of inspecting an image; the fields are those of Example.

    Attributes:
        path: The file; of a converted image, the converted file.
        sha256: SHA-256 of its content; "" where that could not be read.
        verdict: good, convertible, converted or broken.
        reason: Why it is not good, or what it was converted from; "" for a good one.
    """

    path: str
    sha256: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class ScanSettings:
    """How images are scanned.

    Attributes:
        broken: Whether images that cannot be read are skipped or refused.
        convert: Whether images that only Pillow can read are re-encoded.
        split_seed: Seed of the splits that are sampled by fractions.
        examples_per_class: Training images to keep of each class; None for all.
        folds: Folds of a cross-validation that the training images are given; None for none.
        channels: Channels of the images.
    """

    broken: Literal["skip", "refuse"] = "refuse"
    convert: bool = False
    split_seed: int = 0
    examples_per_class: int | None = None
    folds: int | None = None
    channels: int = RGB


def scan(
    listing: Listing,
    settings: ScanSettings,
    *,
    inspect_targets: Callable[[Manifest], Manifest] = lambda manifest: manifest,
    cache_dir: Path | None = None,
    convert_dir: Path | None = None,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> Manifest:
    """Inspects all images of a listing and samples the splits.

    Args:
        listing: The images.
        settings: What to do with images that cannot be read, and how splits are sampled.
        inspect_targets: Opens files of targets, where there are any, and adds their columns to the
            manifest.
        cache_dir: Keeps verdicts between runs; by default TL_TOOLKIT_CACHE or the user's cache.
        convert_dir: Receives images that `convert` re-encodes; by default a folder in `cache_dir`.
        progress: Receives how many images are done.
        keep: Receives the pixels of each image that is decoded, so that it need not be decoded
            again. An image whose verdict is known is not decoded.

    Returns:
        The manifest; images that were skipped are part of it, with their reasons.

    Raises:
        DataError: Images cannot be used and may not be skipped, or a class or split has none left.
    """
    cache_dir = cache_dir or default_cache_dir()
    examples = scan_files(
        listing.files,
        broken=settings.broken,
        convert_dir=(convert_dir or cache_dir / "converted") if settings.convert else None,
        cache_dir=cache_dir,
        progress=progress,
        keep=keep,
        channels=settings.channels,
    )
    manifest = inspect_targets(Manifest(tuple(examples), listing.classes, listing.columns))
    examples = list(manifest.examples)
    stratify = listing.columns.index(listing.stratify) if listing.stratify else None
    seed = settings.split_seed
    groups = [file.group for file in listing.files if file.group]
    if listing.fractions:
        examples = sample_splits(
            examples, listing.fractions, seed=seed, stratify=stratify, groups=groups
        )
    if groups:
        check_groups(examples, groups)
    if settings.examples_per_class is not None:
        group_of = dict(zip(map(id, examples), groups, strict=False))
        examples = keep_few(examples, settings.examples_per_class, seed=seed)
        groups = [group_of[id(entry)] for entry in examples] if groups else []
    if settings.folds:
        examples = assign_folds(
            examples, settings.folds, seed=seed, stratify=stratify, groups=groups
        )
    manifest = replace(manifest, examples=tuple(examples))
    splits = {file.split or "train" for file in listing.files} | listing.fractions.keys()
    _check_left(manifest, splits, listing.stratify)
    return manifest


def scan_files(
    files: Sequence[SourceFile],
    *,
    broken: Literal["skip", "refuse"] = "refuse",
    convert_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    keep: Keep | None = None,
    channels: int = RGB,
) -> list[Example]:
    """Inspects listed images, in their order; one without a split goes into "train".

    Args:
        files: The images.
        broken: Whether images that cannot be read are skipped or refused.
        convert_dir: Receives re-encoded images; None refuses images that must be re-encoded.
        cache_dir: As in `scan`.
        progress: As in `scan`.
        keep: As in `scan`.
        channels: Channels of the images.

    Raises:
        DataError: With the names of images that cannot be used and may not be skipped.
    """
    inspections = inspect_images(
        [file.path for file in files],
        convert_dir=convert_dir,
        cache_dir=cache_dir,
        progress=progress,
        keep=keep,
        channels=channels,
    )
    _refuse(inspections, skip_broken=broken == "skip")
    return [
        Example(*inspection[:2], file.split or "train", file.targets, *inspection[2:])
        for file, inspection in zip(files, inspections, strict=True)
    ]


def inspect_images(
    paths: Sequence[str],
    *,
    convert_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    keep: Keep | None = None,
    channels: int = RGB,
) -> list[Inspection]:
    """Inspects images in parallel and never raises for their content.

    Args:
        paths: Files, `builtin:digits/<index>`, or `inside:<file>#<place>`, which becomes a file.
        convert_dir: Receives re-encoded images, named by the content of their originals; None
            leaves them "convertible".
        cache_dir: As in `scan`.
        progress: As in `scan`.
        keep: As in `scan`.
        channels: Channels of the images.

    Returns:
        An inspection for each path, in their order.

    Raises:
        OutputError: `convert_dir` cannot be written, or the cache for images of a file with others.
        DataError: A file with images in it cannot be read.
    """
    paths = extract_members(paths, (cache_dir or default_cache_dir()) / EXTRACTED)
    version = f"{describe_decoder(channels)}-{tf.__version__}-{PIL.__version__}"
    cache_dir = cache_dir or default_cache_dir()
    verdicts, files = Verdicts(cache_dir, version), KnownFiles(cache_dir)
    inspections: list[Inspection] = []
    pool = ThreadPoolExecutor(count_readers(paths))
    try:
        for inspection in pool.map(
            lambda path: _inspect(path, verdicts, files, convert_dir, keep, channels), paths
        ):
            inspections.append(inspection)
            if progress is not None:
                progress(len(inspections), len(paths))
    finally:
        pool.shutdown(cancel_futures=True)
        # Also after an interrupt, so that known images are not inspected again.
        verdicts.save()
        files.save()
    return inspections


def _inspect(
    path: str,
    verdicts: Verdicts,
    files: KnownFiles,
    convert_dir: Path | None,
    keep: Keep | None,
    channels: int,
) -> Inspection:
    if path.startswith(INSIDE):
        return Inspection(path, "", "broken", "holds no bytes of an image")
    if path.startswith(BUILTIN):
        pixels = as_channels(load_builtin_image(path), channels)
        return Inspection(path, hashlib.sha256(pixels.tobytes()).hexdigest(), "good", "")
    try:
        stat = stat_image(path)
        if not S_ISREG(stat.st_mode):  # a pipe would be waited for, a device has no end
            return Inspection(path, "", "broken", "no regular file")
        sha256 = files.get(path, stat)
        known = verdicts.get(sha256) if sha256 else None
        if sha256 and known and known[0] == "good":
            return Inspection(path, sha256, *known)
        if stat.st_size > MAX_BYTES:
            return Inspection(path, "", "broken", f"a file of more than {MAX_BYTES >> 20} MiB")
        encoded = read_image_file(path)
    except OSError as error:
        return Inspection(path, "", "broken", f"cannot be read: {error.strerror or error}")
    sha256 = hashlib.sha256(encoded).hexdigest()
    known = verdicts.get(sha256)
    if known is None:
        known = judge(encoded, channels, keep=keep and functools.partial(keep, sha256))
        verdicts.add(sha256, *known)
    files.add(path, stat, sha256)
    inspection = Inspection(path, sha256, *known)
    if inspection.verdict == "convertible" and convert_dir is not None:
        return _convert(inspection, encoded, convert_dir)
    return inspection


def judge(
    encoded: bytes, channels: int = RGB, *, keep: Callable[[tf.Tensor], None] | None = None
) -> tuple[str, str]:
    """Returns the verdict of the decoder on an image, and the reason.

    Args:
        encoded: The bytes of its file.
        channels: Channels of the images.
        keep: Receives the pixels of a good image.
    """
    try:
        with DECODING:
            pixels = decode_file(encoded, channels)
            if keep is not None:
                keep(pixels)
        return "good", ""
    except tf.errors.InvalidArgumentError as error:
        reason = explain(error)
    if channels not in CONVERTED:
        return "broken", reason
    try:
        convert_to_png(encoded)
    except ValueError as error:
        return "broken", f"{reason} ({error})" if str(error) else reason
    return "convertible", reason


def _convert(inspection: Inspection, encoded: bytes, folder: Path) -> Inspection:
    try:
        png = convert_to_png(encoded)
    except ValueError as error:  # The image could be read when the verdict was stored.
        return inspection._replace(verdict="broken", reason=f"{inspection.reason} ({error})")
    path = folder / f"{inspection.sha256}.png"
    write_atomically(path, png)
    reason = f"{inspection.reason}, converted from {inspection.path}"
    return Inspection(str(path), hashlib.sha256(png).hexdigest(), "converted", reason)


def _refuse(inspections: Sequence[Inspection], *, skip_broken: bool) -> None:
    broken = [entry for entry in inspections if entry.verdict == "broken" and not skip_broken]
    convertible = [entry for entry in inspections if entry.verdict == "convertible"]
    problems = []
    if broken:
        what = f"{_count(broken)} cannot be read"
        is_whole = len(broken) == len(inspections)
        hint = (is_whole and _suggest_channels(broken)) or "data.broken=skip to leave them out"
        problems.append(Problem("data", what, _name(broken), hint))
    if convertible:
        what = f"{_count(convertible)} must be converted before use"
        hint = "data.convert=true to have copies made in PNG"
        problems.append(Problem("data", what, _name(convertible), hint))
    if problems:
        raise DataError(problems)


def _suggest_channels(broken: Sequence[Inspection]) -> str:
    """Returns the channels that all images have, where they are refused for theirs; else ""."""
    found = [re.search(r" of (\d+) bands where data\.channels is", it.reason) for it in broken]
    counts = {match[1] if match else "" for match in found}
    return f"data.channels={counts.pop()}" if len(counts) == 1 and all(found) else ""


def _count(inspections: Sequence[Inspection]) -> str:
    return "1 image" if len(inspections) == 1 else f"{len(inspections)} images"


def _name(inspections: Sequence[Inspection | Example]) -> str:
    lines = [f"{inspection.path}: {inspection.reason}" for inspection in inspections[:MAX_NAMED]]
    if len(inspections) > MAX_NAMED:
        lines.append(f"and {len(inspections) - MAX_NAMED} more")
    return "\n  ".join(lines)


def _check_left(manifest: Manifest, splits: set[str], column: str) -> None:
    if not column:
        empty = [split for split in sorted(splits) if not manifest.of(split)]
        if empty:
            what = f"no usable image is left in {' and '.join(empty)}"
            skipped = [entry for entry in manifest.examples if entry.split in empty]
            raise DataError(Problem("data", what, _name(skipped)))
        return
    counts = manifest.count(column)
    problems = list(_describe_empty(manifest, counts, sorted(splits)))
    if problems:
        raise DataError(problems)


def _describe_empty(
    manifest: Manifest, counts: dict[str, dict[str, int]], splits: Sequence[str]
) -> Iterator[Problem]:
    for split in splits:
        of_split = counts.get(split, {})
        empty = [repr(name) for name in manifest.classes if not of_split.get(name)]
        if empty:
            what = f"no usable image of {name_some(empty)} is left in {split}"
            expected = "Each split needs images of every class; broken ones were skipped"
            broken = [
                each
                for each in manifest.examples
                if each.split == split and each.verdict == "broken"
            ]
            expected += f", as {broken[0].path}: {broken[0].reason}." if broken else "."
            yield Problem("data", what, expected, "add images, or leave the class out by classes")
