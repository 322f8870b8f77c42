"""Decoded and resized images of one split, by index."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import io
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.images.bands import DECODING, as_channels, decode_file, dtype_of, encode_npy
from tl_toolkit.images.convert import CONVERTED, convert_to_png
from tl_toolkit.images.decoder import explain, resize_image
from tl_toolkit.images.geometry import Resize
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.tiff import TIFF_MAGICS
from tl_toolkit.sources.builtin import BUILTIN, load_builtin_image
from tl_toolkit.sources.listing import MAX_BYTES, count_threads
from tl_toolkit.sources.objects import count_readers, read_image_file, stat_image

__all__ = [
    "MEMORY_BUDGET",
    "DecodedImages",
    "Images",
    "decode_example",
    "load_file",
    "read_encoded",
    "read_image",
    "read_pixels",
    "read_tensor",
    "resize_pixels",
]

MEMORY_BUDGET = 2 << 30  # bytes


class DecodedImages:
    """Images as the scan decoded them, resized, so that they need not be decoded again.

    Args:
        image_size: Height and width to resize to.
        resize: As in `resize_image`.
        channels: Channels of the images.
        memory_budget: Bytes that they may take; later images are not kept.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        resize: Resize = "stretch",
        *,
        channels: int = RGB,
        memory_budget: int = MEMORY_BUDGET // 2,
    ) -> None:
        self._resize = _compile_resize(tuple(image_size), resize, channels)
        self._pixels: dict[str, np.ndarray] = {}
        self._room = memory_budget // _count_bytes((*image_size, channels))

    def add(self, sha256: str, pixels: tf.Tensor) -> None:
        """Keeps a decoded image if there is room; may be called by several threads.

        Args:
            sha256: SHA-256 of its file.
            pixels: (h, w, channels), as `decode_file` gives them.
        """
        if len(self._pixels) < self._room:
            self._pixels[sha256] = self._resize(pixels).numpy()

    def get(self, sha256: str) -> np.ndarray | None:
        """Returns an image, (height, width, channels), or None if it is not here.

        Args:
            sha256: SHA-256 of its file.
        """
        return self._pixels.get(sha256)


class Images:
    """The images of one split, each decoded when it is first asked for.

    They are kept in memory if all of them fit into the budget, else decoded at each call. Pixels
    are uint8, RGB in 0..255, or with other channels than 3 float32 in the numbers of the file.
    Python threads call the compiled decoder: measured faster than tf.data, which op determinism
    slows down further.

    Args:
        examples: Usable images of a manifest.
        image_size: Height and width to resize to.
        resize: As in `resize_image`.
        channels: Channels of the images.
        memory_budget: Bytes that decoded images may take.
        decoded: Images that are already decoded and resized.
        targets: Targets of the same images, as their task loads them.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        image_size: tuple[int, int],
        resize: Resize = "stretch",
        channels: int = RGB,
        memory_budget: int = MEMORY_BUDGET,
        decoded: DecodedImages | None = None,
        targets: Any = None,
    ) -> None:
        self.examples = tuple(examples)
        self.targets = targets
        self._shape = (*image_size, channels)
        self._resize = _compile_resize(tuple(image_size), resize, channels)
        self._keeps = len(self.examples) * _count_bytes(self._shape) <= memory_budget
        self._kept: dict[str, np.ndarray] = {}
        if decoded is not None and self._keeps:
            # The same arrays, not a copy: all images would be in memory twice for a while.
            known = ((entry.sha256, decoded.get(entry.sha256)) for entry in self.examples)
            self._kept = {sha256: pixels for sha256, pixels in known if pixels is not None}

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self._shape[-1]

    @functools.cached_property
    def _readers(self) -> int:
        return count_readers(entry.path for entry in self.examples)

    @functools.cached_property
    def keys(self) -> np.ndarray:
        """int64 (n,), made of each image's content: the same image has the same key anywhere."""
        heads = [bytes.fromhex(entry.sha256)[:8] for entry in self.examples]
        return np.array([int.from_bytes(head, "big", signed=True) for head in heads], np.int64)

    def select(self, indices: Sequence[int] | np.ndarray, targets: Any) -> Images:
        """Returns some of the images, which share what is decoded with all of them.

        Args:
            indices: Places among the examples.
            targets: Their targets.
        """
        selected = copy.copy(self)
        selected.__dict__.pop("keys", None)
        selected.examples = tuple(self.examples[index] for index in indices)
        selected.targets = targets
        return selected

    def load(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decodes the images at these indices.

        Args:
            indices: Places among the examples.

        Returns:
            (n, h, w, channels), which the caller may change.

        Raises:
            DataError: A file is gone, or is not the one that was scanned.
        """
        pixels = np.empty((len(indices), *self._shape), dtype_of(self._shape[-1]))
        missing = []
        for place, index in enumerate(np.asarray(indices, np.int64).tolist()):
            kept = self._kept.get(self.examples[index].sha256)
            if kept is not None:
                pixels[place] = kept
            else:
                missing.append((place, index))
        if missing:
            self._fill(pixels, missing)
        return pixels

    def batches(
        self, order: Sequence[int] | np.ndarray, batch_size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the images in an order, preparing one batch ahead, more from a store.

        Args:
            order: Indices of images.
            batch_size: Images in each batch; the last one may be shorter.

        Yields:
            Images (n, h, w, channels), and their indices (n,).
        """
        order = np.asarray(order, np.int64)
        parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        depth = 1 if self._readers == count_threads() else -(-self._readers // batch_size)
        with ThreadPoolExecutor(depth) as pool:
            waiting, ahead = iter(parts), deque[Future[np.ndarray]]()
            try:
                for part in parts:
                    following = itertools.islice(waiting, depth + 1 - len(ahead))
                    ahead.extend(pool.submit(self.load, later) for later in following)
                    yield ahead.popleft().result(), part
            finally:
                for future in ahead:
                    future.cancel()

    def _fill(self, pixels: np.ndarray, missing: Sequence[tuple[int, int]]) -> None:
        """Decodes images into their places, which come as (place, index)."""

        def decode(place: int, index: int) -> None:
            decoded = self._decode(self.examples[index])
            pixels[place] = decoded
            if self._keeps:
                self._kept[self.examples[index].sha256] = decoded

        with ThreadPoolExecutor(self._readers) as pool:
            for _ in pool.map(decode, *zip(*missing, strict=True)):
                pass  # takes each result, so that an error is raised here

    def _decode(self, example: Example) -> np.ndarray:
        channels = self._shape[-1]
        if example.path.startswith(BUILTIN):
            return _as_array(self._resize(decode_example(example, channels)))
        encoded = _read_unchanged(example)
        with DECODING:  # more are read at a time than fit into memory decoded
            return _as_array(self._resize(_decode_unchanged(example, encoded, channels)))


def decode_example(example: Example, channels: int) -> tf.Tensor:
    """Decodes an image of a manifest at its own size.

    Args:
        example: The image.
        channels: Channels of the images.

    Returns:
        (h, w, channels), as `decode_file` gives them.

    Raises:
        DataError: The file is gone, or is not the one that was scanned.
    """
    if example.path.startswith(BUILTIN):
        return tf.constant(as_channels(load_builtin_image(example.path), channels))
    return _decode_unchanged(example, _read_unchanged(example), channels)


def _decode_unchanged(example: Example, encoded: bytes, channels: int) -> tf.Tensor:
    try:
        return decode_file(encoded, channels)
    except tf.errors.InvalidArgumentError as error:
        raise _changed(example, f"cannot be decoded: {explain(error)}") from error


def _count_bytes(shape: tuple[int, ...]) -> int:
    """Returns the bytes of an image (h, w, channels)."""
    return int(np.prod(shape)) * np.dtype(dtype_of(shape[-1])).itemsize


@functools.cache
def _compile_resize(
    image_size: tuple[int, int], mode: Resize, channels: int
) -> Callable[..., tf.Tensor]:
    spec = tf.TensorSpec([None, None, channels], tf.as_dtype(dtype_of(channels)))

    # Not together with decode_image, whose graph takes a second to prepare in each function.
    @tf.function(input_signature=[spec], autograph=False)
    def resize(image: tf.Tensor) -> tf.Tensor:
        return resize_image(image, image_size, mode)

    compiled: Callable[..., tf.Tensor] = resize
    return compiled


def _as_array(tensor: tf.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.numpy()
    return array


def _read_unchanged(example: Example) -> bytes:
    try:
        encoded = read_image_file(example.path)
    except OSError as error:
        raise _changed(example, f"cannot be read: {error.strerror}") from error
    if hashlib.sha256(encoded).hexdigest() != example.sha256:
        raise _changed(example, "is not the image that was scanned before")
    return encoded


def _changed(example: Example, what: str) -> DataError:
    hint = "run it again: a new run scans all images anew"
    expected = "Images must not change while a run uses them."
    return DataError(Problem(example.path, what, expected, hint))


def read_image(
    path: str | os.PathLike[str], image_size: tuple[int, int], resize: Resize
) -> np.ndarray:
    """Decodes and resizes one file, as training does.

    Args:
        path: The file.
        image_size: Height and width to resize to.
        resize: As in `resize_image`.

    Returns:
        uint8 (h, w, 3), RGB in 0..255.

    Raises:
        DataError: The file cannot be read or decoded; its problem's `what` says why.
    """
    return resize_pixels(read_pixels(path), image_size, resize)


def resize_pixels(
    pixels: np.ndarray | tf.Tensor, image_size: tuple[int, int], resize: Resize
) -> np.ndarray:
    """Resizes a decoded image as training does.

    Args:
        pixels: (h, w, channels), as `decode_file` gives them.
        image_size: Height and width to resize to.
        resize: As in `resize_image`.

    Returns:
        (height, width, channels).
    """
    return _as_array(_compile_resize(tuple(image_size), resize, pixels.shape[-1])(pixels))


def read_pixels(
    path: str | os.PathLike[str], *, convert: bool = False, channels: int = RGB
) -> np.ndarray:
    """Decodes one file at its own size, upright.

    Args:
        path: The file.
        convert: Read what only Pillow can read, as `data.convert` does for training.
        channels: Channels of the image.

    Returns:
        uint8 (h, w, 3), RGB in 0..255; with other channels float32 (h, w, channels), in the
        numbers of the file.

    Raises:
        DataError: The file cannot be read or decoded; its problem's `what` says why.
    """
    return _as_array(read_tensor(path, convert=convert, channels=channels))


def load_file(path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of an image file or an object, which is no larger than MAX_BYTES.

    Args:
        path: The file or the address.

    Raises:
        DataError: It cannot be read, or is larger; its problem's `what` says why.
    """
    try:
        if stat_image(path).st_size > MAX_BYTES:
            raise DataError(Problem(str(path), f"a file of more than {MAX_BYTES >> 20} MiB"))
        return read_image_file(path)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise DataError(Problem(str(path), what)) from error


def read_tensor(
    path: str | os.PathLike[str],
    *,
    convert: bool = False,
    channels: int = RGB,
    load: Callable[..., bytes] = load_file,
) -> tf.Tensor:
    """Decodes as `read_pixels` does, without a copy of the pixels, which is a third of the time.

    Args:
        path: The file.
        convert: Read what only Pillow can read, as `data.convert` does for training.
        channels: Channels of the image.
        load: Returns its bytes, as `load_file` does.

    Returns:
        uint8 (h, w, 3), RGB in 0..255; with other channels float32 (h, w, channels), in the
        numbers of the file.

    Raises:
        DataError: The file cannot be read or decoded; its problem's `what` says why.
    """
    encoded = load(path)
    try:
        return decode_file(encoded, channels)
    except tf.errors.InvalidArgumentError as error:
        reason = explain(error)
        if convert and channels in CONVERTED:
            with contextlib.suppress(ValueError):
                return decode_file(convert_to_png(encoded), channels)
        raise DataError(Problem(str(path), reason)) from error


def read_encoded(example: Example, channels: int = RGB) -> bytes:
    """Returns an image as a file that exported models decode: a built-in one as PNG, TIFF as .npy.

    Args:
        example: An entry of the manifest.
        channels: Channels of the image.

    Raises:
        DataError: The file is gone, or is not the one that was scanned.
    """
    if not example.path.startswith(BUILTIN):
        encoded = _read_unchanged(example)
        is_tiff = channels != RGB and encoded.startswith(TIFF_MAGICS)
        return encode_npy(decode_example(example, channels).numpy()) if is_tiff else encoded
    buffer = io.BytesIO()
    Image.fromarray(load_builtin_image(example.path)).save(buffer, format="PNG")
    return buffer.getvalue()
