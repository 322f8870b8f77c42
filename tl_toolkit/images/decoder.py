"""The one decoder: file bytes to RGB pixels, in training, in prediction and in exported models."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import tensorflow as tf

from tl_toolkit.images.exif import read_orientation
from tl_toolkit.images.geometry import Padding, Resize
from tl_toolkit.images.gif_frames import table_bytes
from tl_toolkit.images.headers import KINDS, Header, find_kind, pad_bytes, read_header
from tl_toolkit.sources.listing import MAX_BYTES

__all__ = [
    "DECODER_VERSION",
    "REFUSED",
    "decode_bytes",
    "decode_image",
    "decode_without_webp",
    "explain",
    "fit_inside",
    "resize_image",
    "turn_upright",
]

# Raise this number when images get other pixels or verdicts: stored results depend on it.
DECODER_VERSION = 1

_ADOBE_MARKER = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"  # version 100, no flags, no transform
REFUSED = "cannot decode "
NO_WEBP = "a WebP image; this model is exported without WebP, for TensorFlow before 2.20"

# Pillow's ImageOps.exif_transpose, in terms of a transposition and then two reversals.
_TRANSPOSED = (5, 6, 7, 8)
_MIRRORED = (2, 3, 6, 7)
_UPSIDE_DOWN = (3, 4, 7, 8)
_NEVER_TURNED = ("unknown", "gif", "bmp")  # these hold no EXIF


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG, GIF, BMP or WebP image and turns it upright.

    The first bytes decide on the kind. Grey, CMYK and palette images become RGB, alpha is dropped
    (not blended), 16 bits are cut to their upper 8, an animated GIF or PNG gives its first frame.
    Pixels equal Pillow's (CMYK: within 1): `INTEGER_ACCURATE` is what libjpeg does by default.

    Args:
        encoded: string (), the bytes of the file.

    Returns:
        uint8 (h, w, 3), RGB in 0..255, after the EXIF orientation was applied.

    Raises:
        tf.errors.InvalidArgumentError: The image is refused (see `explain`): not an image or a
            damaged one, more than MAX_PIXELS by its header, TIFF, WebP with alpha or animation.
    """
    return _decode(encoded, with_webp=True)


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def decode_without_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes as `decode_image` does, and refuses WebP, whose operation came with TensorFlow 2.20.

    Args:
        encoded: As in `decode_image`.
    """
    return _decode(encoded, with_webp=False)


def decode_bytes(encoded: bytes) -> tf.Tensor:
    """Decodes an image that is in memory as `decode_image` does.

    Prepares of the graph what the kind of this image needs: a third of it for a JPEG.

    Args:
        encoded: The bytes of the file.

    Returns:
        As `decode_image` does.

    Raises:
        tf.errors.InvalidArgumentError: The image is refused.
    """
    pixels: tf.Tensor = _DECODERS[find_kind(encoded)](tf.constant(encoded))
    return pixels


def _decode(encoded: tf.Tensor, *, with_webp: bool, kind: int | None = None) -> tf.Tensor:
    # Dozens of tiny integer operations and string kernels: a GPU would only add transfers.
    with tf.device("CPU:0"):
        data = pad_bytes(encoded)
        header = read_header(encoded, data, kind)
        refusal = header.refusal
        if not with_webp:
            is_webp = (header.kind == KINDS.index("webp")) & tf.equal(refusal, "")
            refusal = tf.where(is_webp, NO_WEBP, refusal)
        message = tf.strings.join([REFUSED, refusal])
        check = tf.debugging.Assert(tf.equal(refusal, ""), [message])
        with tf.control_dependencies([check]):
            encoded = tf.identity(encoded)
        nothing = functools.partial(tf.zeros, [0, 0, 3], tf.uint8)  # refused above
        decoders: list[Callable[[], tf.Tensor]] = [
            nothing,
            lambda: _decode_jpeg(encoded, header),
            lambda: tf.io.decode_png(encoded, channels=3),
            lambda: _decode_gif(encoded, header),
            lambda: _decode_bmp(encoded, header),
            (lambda: _decode_webp(encoded, header)) if with_webp else nothing,
        ]
        image = tf.switch_case(header.kind, decoders) if kind is None else decoders[kind]()
        image = tf.ensure_shape(image, [None, None, 3])
        if kind is not None and KINDS[kind] in _NEVER_TURNED:
            return image
        orientation = read_orientation(data, header.exif_start, header.exif_end)
        return turn_upright(image, orientation)


def _compile(kind: int) -> Callable[[tf.Tensor], tf.Tensor]:
    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def decode(encoded: tf.Tensor) -> tf.Tensor:
        return _decode(encoded, with_webp=True, kind=kind)

    compiled: Callable[[tf.Tensor], tf.Tensor] = decode
    return compiled


_DECODERS = tuple(map(_compile, range(len(KINDS))))
"""Functions of files of one kind each; made here, as two threads would trace two."""


def _decode_jpeg(encoded: tf.Tensor, header: Header) -> tf.Tensor:
    # CMYK files hold inverted ink, as Adobe began it. Pillow always assumes that, TensorFlow only
    # behind Adobe's marker; a marker in the file itself comes after this one and replaces it.
    encoded = tf.cond(
        header.channels == 4,
        lambda: tf.strings.join([b"\xff\xd8", _ADOBE_MARKER, _cut(encoded, 2, MAX_BYTES)]),
        lambda: encoded,
    )
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_gif(encoded: tf.Tensor, header: Header) -> tf.Tensor:
    """Decodes the first frame as a GIF of its own, so that memory is bounded by its size.

    The control block is left out: transparent pixels keep the colour that the palette gives them.
    """
    flags = tf.io.decode_raw(tf.strings.substr(encoded, 10, 1), tf.uint8)[0]
    screen = _cut(encoded, 0, 13 + table_bytes(flags))
    frame = _cut(encoded, header.start, header.end)
    return tf.io.decode_gif(tf.strings.join([screen, frame, b"\x3b"]))[0]


def _cut(encoded: tf.Tensor, start: tf.Tensor | int, end: tf.Tensor | int) -> tf.Tensor:
    start = tf.cast(start, tf.int64)
    return tf.strings.substr(encoded, start, tf.cast(end, tf.int64) - start)


def _decode_bmp(encoded: tf.Tensor, header: Header) -> tf.Tensor:
    # TensorFlow refuses bytes after the pixels; Photoshop writes two.
    image = tf.io.decode_bmp(_cut(encoded, 0, header.size), channels=3)
    return tf.cond(
        header.end > 0, lambda: _apply_bmp_palette(encoded, header, image), lambda: image
    )


def _apply_bmp_palette(encoded: tf.Tensor, header: Header, image: tf.Tensor) -> tf.Tensor:
    """Looks up colours in the palette (4 bytes each, blue first) by TensorFlow's grey levels."""
    values = tf.io.decode_raw(_cut(encoded, header.start, header.end), tf.uint8)
    count = tf.size(values) // 4
    palette = tf.reverse(tf.reshape(values[: 4 * count], [count, 4])[:, :3], [1])
    palette = tf.pad(palette, [[0, 256 - count], [0, 0]])
    return tf.gather(palette, tf.cast(image[..., 0], tf.int32))


def _decode_webp(encoded: tf.Tensor, header: Header) -> tf.Tensor:
    image = tf.io.decode_webp(encoded, channels=3)  # (1, h, w, 3)
    return tf.reshape(image, tf.stack([header.height, header.width, 3]))


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes an EXIF orientation, as Pillow's ImageOps.exif_transpose does.

    Args:
        image: (h, w, c), as stored.
        orientation: int64 (), 1 to 8.

    Returns:
        (h, w, c), or (w, h, c) for orientations 5 to 8.
    """

    def is_one_of(values: tuple[int, ...]) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(values, tf.int64))

    def turn() -> tf.Tensor:
        turned = tf.cond(
            is_one_of(_TRANSPOSED), lambda: tf.transpose(image, [1, 0, 2]), lambda: image
        )
        turned = tf.cond(is_one_of(_MIRRORED), lambda: tf.reverse(turned, [1]), lambda: turned)
        return tf.cond(is_one_of(_UPSIDE_DOWN), lambda: tf.reverse(turned, [0]), lambda: turned)

    turned = tf.cond(orientation > 1, turn, lambda: image)
    return tf.ensure_shape(turned, [None, None, image.shape[-1]])


def resize_image(image: tf.Tensor, size: tuple[int, int], mode: Resize = "stretch") -> tf.Tensor:
    """Resizes bilinearly with antialiasing. An image of that size is not changed.

    Args:
        image: uint8, whose result is rounded, or float32; (h, w, c) or (n, h, w, c).
        size: Height and width of the result.
        mode: "stretch" changes the proportions; "crop" scales to cover and keeps the centre; a
            padding scales to fit, to whole pixels, and puts the image in the centre.

    Returns:
        (height, width, c) or (n, height, width, c), of the same type.
    """
    image = tf.convert_to_tensor(image)
    if image.shape.rank == 3:
        return resize_image(image[tf.newaxis], size, mode)[0]
    with tf.device("CPU:0"):
        is_same = tf.reduce_all(tf.shape(image)[1:3] == tf.constant(size))
        resized = tf.cond(is_same, lambda: image, lambda: _resize(image, size, mode))
        return tf.ensure_shape(resized, [image.shape[0], *size, image.shape[-1]])


def fit_inside(source: tf.Tensor, size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns where an image lies in its padding, in whole pixels.

    Args:
        source: int32 (2,), height and width of the image.
        size: Height and width that it is padded to.

    Returns:
        For rows and columns: float64 (2,), the factor of the scale; int32 (2,), the first pixel of
        the image in its padding; int32 (2,), how many pixels it has there.
    """
    before = tf.cast(source, tf.float64)
    scale = tf.reduce_min(tf.constant(size, tf.float64) / before)
    inner = tf.maximum(tf.cast(tf.round(before * scale), tf.int32), 1)
    start = (tf.constant(size) - inner) // 2
    return tf.cast(inner, tf.float64) / before, start, inner


def _resize(image: tf.Tensor, size: tuple[int, int], mode: Resize) -> tf.Tensor:
    if isinstance(mode, Padding):
        return _pad(image, size, mode)
    target = tf.constant(size, tf.float32)
    source = tf.cast(tf.shape(image)[1:3], tf.float32)
    scale = target / source
    if mode == "crop":
        scale = tf.repeat(tf.reduce_max(scale), 2)
    return _scale(image, size, scale, (target - source * scale) / 2)


def _pad(image: tf.Tensor, size: tuple[int, int], padding: Padding) -> tf.Tensor:
    scale, start, inner = fit_inside(tf.shape(image)[1:3], size)
    resized = _scale(image, size, tf.cast(scale, tf.float32), tf.cast(start, tf.float32))
    rows, columns = (
        (tf.range(size[axis]) >= start[axis]) & (tf.range(size[axis]) < start[axis] + inner[axis])
        for axis in (0, 1)
    )
    is_image = (rows[:, tf.newaxis] & columns)[..., tf.newaxis]
    color = padding.color if image.shape[-1] == len(padding.color) else padding.color[0]
    return tf.where(is_image, resized, tf.constant(color, image.dtype))


def _scale(
    image: tf.Tensor, size: tuple[int, int], scale: tf.Tensor, translation: tf.Tensor
) -> tf.Tensor:
    # Scaling and cutting in one step never holds the scaled image: a strip of 1 x 10,000 pixels,
    # scaled to cover, would be gigabytes. tf.image.resize uses the same operation.
    resized = tf.raw_ops.ScaleAndTranslate(
        images=image,
        size=tf.constant(size),
        scale=scale,
        translation=translation,
        kernel_type="triangle",
        antialias=True,
    )
    return resized if image.dtype.is_floating else tf.saturate_cast(tf.round(resized), tf.uint8)


def explain(error: tf.errors.OpError) -> str:
    """Returns why `decode_image` refused an image, in words.

    Args:
        error: What it raised.
    """
    text = str(error)
    refusal = re.search(rf"\[{REFUSED}(.*?)\]\s*(?:\[\[|$)", text)
    if refusal:
        return refusal[1]
    for kind in KINDS:
        if re.search(rf"\b(Decode|Extract){kind}", text, re.IGNORECASE):
            return f"a {kind.upper()} image that is damaged or incomplete"
    return "an image that is damaged or incomplete"
