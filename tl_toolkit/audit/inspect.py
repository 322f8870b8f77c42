"""Inspects files in parallel; what is known of their contents is not measured again."""

from __future__ import annotations

import hashlib
import json
import stat
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import PIL

from tl_toolkit.audit.bands import inspect_bands, refuse_others
from tl_toolkit.audit.content import CONTENT_VERSION, Content, inspect_content
from tl_toolkit.catalog.records import RGB
from tl_toolkit.images.members import EXTRACTED, extract_members
from tl_toolkit.images.tiff import describe_reader
from tl_toolkit.runs.files import default_cache_dir
from tl_toolkit.sources.builtin import BUILTIN, load_builtin_image
from tl_toolkit.sources.known_files import CacheTable, KnownFiles
from tl_toolkit.sources.listing import MAX_BYTES, SourceFile
from tl_toolkit.sources.objects import count_readers, read_image_file, stat_image
from tl_toolkit.sources.table_rows import name_image

__all__ = ["InspectedFile", "inspect_files"]


@dataclass(frozen=True)
class InspectedFile:
    """An image file and what its bytes are.

    Attributes:
        path: Absolute path, or `builtin:digits/<index>`; `shop.parquet#12` in a file with others.
        file: Where its bytes lie: the path, or in the cache for one in a file with others.
        label: Its class; "" where images have none.
        split: Its split; "" where fractions decide.
        sha256: SHA-256 of its bytes; "" where they cannot be read.
        bytes: How many they are.
        content: What is measured of them.
    """

    path: str
    file: str
    label: str
    split: str
    sha256: str
    bytes: int
    content: Content

    @property
    def is_usable(self) -> bool:
        """Whether an image is there, perhaps to be converted."""
        return self.content.fault in ("", "convertible")


_Inspection = tuple[str, int, Content]
"""Digest, size and content."""


class _Contents(CacheTable):
    """Contents by digest, of one version of what is measured."""

    def __init__(self, folder: Path, channels: int = RGB) -> None:
        super().__init__(
            folder,
            "contents (version TEXT, sha256 TEXT, facts TEXT NOT NULL, signature BLOB NOT NULL, "
            "PRIMARY KEY (version, sha256)) WITHOUT ROWID",
        )
        self._channels = channels
        self._version = f"{CONTENT_VERSION}-{PIL.__version__}"
        if channels != RGB:
            self._version += f"-{channels}-{describe_reader()}"

    def inspect(self, encoded: bytes) -> Content:
        """Measures an image that is not known.

        Args:
            encoded: The bytes of its file.
        """
        if self._channels == RGB:
            return inspect_content(encoded)
        return refuse_others(inspect_bands(encoded, self._channels), self._channels)

    def get(self, sha256: str) -> Content | None:
        row = self.new.get(sha256)
        if row is None:
            query = "SELECT facts, signature FROM contents WHERE version = ? AND sha256 = ?"
            row = self.read(query, self._version, sha256)
        if row is None:
            return None
        try:
            return Content(**json.loads(row[-2]), signature=bytes(row[-1]))
        except (TypeError, ValueError):  # a cache that is damaged is measured again
            return None

    def add(self, sha256: str, content: Content) -> None:
        facts = asdict(content)
        signature = facts.pop("signature")
        self.new[sha256] = (self._version, sha256, json.dumps(facts), signature)


def inspect_files(
    files: Sequence[SourceFile],
    labels: Sequence[str],
    *,
    channels: int = RGB,
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[InspectedFile]:
    """Inspects image files, in their order; never raises for their content.

    Images in a file with others are written into the cache first, where training reads them too.

    Args:
        files: The images.
        labels: The class of each, or "".
        channels: Channels that they are read with; with others than 3 arrays and bands are images.
        cache_dir: Keeps what is measured; by default TL_TOOLKIT_CACHE or the user's cache.
        progress: Receives how many images are done, and how many there are.

    Raises:
        DataError: A file that holds images cannot be read.
        OutputError: The cache cannot be written, where images lie in a file with others.
    """
    cache_dir = cache_dir or default_cache_dir()
    contents, known = _Contents(cache_dir, channels), KnownFiles(cache_dir)
    places = extract_members([file.path for file in files], cache_dir / EXTRACTED)
    inspections = [_recall(place, contents, known) for place in places]
    new = [index for index, inspection in enumerate(inspections) if inspection is None]
    done = len(files) - len(new)
    pool = ThreadPoolExecutor(count_readers(places))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF blocks, and of large images
            results = pool.map(lambda index: _inspect(places[index], contents, known), new)
            for index, inspection in zip(new, results, strict=True):
                inspections[index] = inspection
                done += 1
                if progress is not None:
                    progress(done, len(files))
    finally:
        pool.shutdown(cancel_futures=True)
        # Also after an interrupt, so that known images are not inspected again.
        contents.save()
        known.save()
    return [
        InspectedFile(name_image(file.path), place, label, file.split or "", *inspection)
        for file, place, label, inspection in zip(files, places, labels, inspections, strict=True)
        if inspection is not None
    ]


def _recall(path: str, contents: _Contents, known: KnownFiles) -> _Inspection | None:
    """Returns what is known of a file that has not changed; None if it must be read."""
    try:
        status = stat_image(path)
    except (OSError, ValueError):
        return None
    sha256 = known.get(path, status)
    content = contents.get(sha256) if sha256 else None
    return None if sha256 is None or content is None else (sha256, status.st_size, content)


def _inspect(path: str, contents: _Contents, known: KnownFiles) -> _Inspection:
    """Returns digest, size and content of a file, which is read."""
    if path.startswith(BUILTIN):
        pixels = load_builtin_image(path)
        height, width = pixels.shape[:2]
        content = Content(format="pixels", mode="RGB", height=height, width=width)
        return hashlib.sha256(pixels.tobytes()).hexdigest(), pixels.size, content
    try:
        status = stat_image(path)
        if not stat.S_ISREG(status.st_mode):
            return "", 0, Content("unreadable", "no regular file")
        if status.st_size > MAX_BYTES:
            reason = f"a file of more than {MAX_BYTES >> 20} MiB"
            return "", status.st_size, Content("unreadable", reason)
        encoded = read_image_file(path)
    except OSError as error:
        return "", 0, Content("unreadable", f"cannot be read: {error.strerror or error}")
    sha256 = hashlib.sha256(encoded).hexdigest()
    content = contents.get(sha256) or contents.inspect(encoded)
    contents.add(sha256, content)
    known.add(path, status, sha256)
    return sha256, status.st_size, content
