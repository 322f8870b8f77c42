"""Feature maps read at single pixels of the image, without a dense map of that size."""

from typing import Any

import keras
from keras import ops

__all__ = ["AllPixels", "PixelSample", "sample_axis", "sample_pixels"]


@keras.saving.register_keras_serializable(package="tl_toolkit")
class PixelSample(keras.layers.Layer):
    """Reads a feature map at chosen pixels of the image (the sampling layer of PixelNet, RandBI).

    Half-pixel bilinear interpolation with edge clamping: what a resize of the map to the image's
    size (antialias off) would have there. Gradients of a pixel that is read twice add up.

    Args:
        stride: Pixels of the image for each cell of the map, in both directions.
    """

    def __init__(self, stride: int, **kwargs: Any) -> None:
        # Keras would cast the pixels to a policy's float16, in which 2049 is 2048.
        super().__init__(autocast=False, **kwargs)
        self.stride = stride

    def call(self, feature_map: Any, pixels: Any) -> Any:
        """Returns (batch, n, channels) as `sample_pixels` does.

        Args:
            feature_map: (batch, h, w, channels).
            pixels: float32 (batch, n, 2), y and x.
        """
        return sample_pixels(feature_map, pixels, self.stride)

    def compute_output_spec(self, feature_map: Any, pixels: Any) -> keras.KerasTensor:
        """Returns the shape and dtype of the outputs.

        Args:
            feature_map: (batch, h, w, channels).
            pixels: float32 (batch, n, 2), y and x.
        """
        shape = (pixels.shape[0], pixels.shape[1], feature_map.shape[-1])
        return keras.KerasTensor(shape, dtype=feature_map.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "stride": self.stride}


@keras.saving.register_keras_serializable(package="tl_toolkit")
class AllPixels(keras.layers.Layer):
    """Gives the places of all pixels of an image, row by row."""

    def call(self, images: Any) -> Any:
        """Returns y and x of each pixel, float32 (batch, h * w, 2).

        Args:
            images: (batch, h, w, channels).
        """
        _, height, width, _ = images.shape
        zeros = ops.reshape(ops.zeros_like(images[..., :1], dtype="float32"), (-1, height * width))
        places = ops.arange(height * width, dtype="int32")
        rows = ops.cast(places // width, "float32")
        columns = ops.cast(places % width, "float32")
        return ops.stack([zeros + rows, zeros + columns], axis=-1)


def sample_pixels(feature_map: Any, pixels: Any, stride: int) -> Any:
    """Interpolates a map at pixels of the image.

    Args:
        feature_map: (batch, h, w, channels).
        pixels: float32 (batch, n, 2): y and x in pixels of the image, 0 being the centre of its
            first one; need not be whole. What lies beyond the centre of a cell at the edge has
            that cell's values.
        stride: Pixels of the image for each cell of the map.

    Returns:
        (batch, n, channels).
    """
    shape = ops.shape(feature_map)
    height, width = shape[1], shape[2]
    flat = ops.reshape(feature_map, (-1, feature_map.shape[-1]))
    first = ops.reshape(ops.arange(shape[0]) * (height * width), (-1, 1))
    pixels = ops.cast(pixels, "float32")
    top, bottom, down = _neighbours(pixels[..., 0], height, stride)
    left, right, along = _neighbours(pixels[..., 1], width, stride)
    down = ops.cast(down[..., None], feature_map.dtype)
    along = ops.cast(along[..., None], feature_map.dtype)

    def look_up(y: Any, x: Any) -> Any:
        return ops.take(flat, first + y * width + x, axis=0)

    upper = look_up(top, left) * (1 - along) + look_up(top, right) * along
    lower = look_up(bottom, left) * (1 - along) + look_up(bottom, right) * along
    return upper * (1 - down) + lower * down


def sample_axis(feature_map: Any, places: Any, stride: int, *, axis: int) -> Any:
    """Interpolates a map along one axis; along both, it gives all pixels of some rows and columns.

    `sample_pixels` reads the same values, but with twice as many look-ups, all of them scattered.

    Args:
        feature_map: (batch, h, w, channels).
        places: float32 (n,), y or x as in `sample_pixels`.
        stride: Pixels of the image for each cell of the map.
        axis: 1 for rows, 2 for columns.

    Returns:
        The map with n cells along that axis.
    """
    low, high, part = _neighbours(ops.cast(places, "float32"), ops.shape(feature_map)[axis], stride)
    part = ops.reshape(ops.cast(part, feature_map.dtype), (-1, 1, 1) if axis == 1 else (-1, 1))
    below, above = (ops.take(feature_map, cells, axis=axis) for cells in (low, high))
    return below * (1 - part) + above * part


def _neighbours(places: Any, size: Any, stride: int) -> tuple[Any, Any, Any]:
    """Returns the cells below and above each place, and how far it lies between them, 0 to 1."""
    centred = (places - (stride - 1) / 2) / stride
    centred = ops.clip(centred, 0.0, ops.cast(size - 1, "float32"))
    low = ops.floor(centred)
    low_cell = ops.cast(low, "int32")
    return low_cell, ops.minimum(low_cell + 1, size - 1), centred - low
