"""Which maps of a base single pixels can be read from."""

from collections.abc import Iterator

import keras

from tl_toolkit.architectures.costs import measure_graph
from tl_toolkit.architectures.graph import find_blocks, find_cuts, sorted_calls
from tl_toolkit.catalog.lookup import PIXEL_STEP, Architecture
from tl_toolkit.catalog.records import RGB

__all__ = ["find_maps", "find_stride", "find_taps", "pad_to_cells"]


def pad_to_cells(image: keras.KerasTensor) -> keras.KerasTensor:
    """Pads a preprocessed image below and at the right to whole cells of the coarsest map.

    Args:
        image: (batch, h, w, c), with known height and width.
    """
    down, along = (-side % PIXEL_STEP for side in image.shape[1:3])
    if not down and not along:
        return image
    return keras.layers.ZeroPadding2D(((0, down), (0, along)), name="pixels_pad")(image)


def find_taps(
    architecture: Architecture, inputs: keras.KerasTensor, outputs: keras.KerasTensor
) -> tuple[keras.KerasTensor, ...]:
    """Finds the maps that single pixels are read from by default.

    These are the ends of the record's `tap_units`. Without any, they are the last map of each size
    that every path runs through, if it has more channels than the image, or than RGB.

    Args:
        architecture: The base's record.
        inputs: The image that entered the base, (batch, h, w, c).
        outputs: The tensor that left it.

    Returns:
        The maps among them that `find_maps` yields, finest first.
    """
    maps = {id(tensor) for tensor in find_maps(inputs, outputs)}
    if architecture.tap_units:
        blocks = find_blocks(architecture, inputs, outputs)
        ends = {unit.name: unit.tensor for block in blocks for unit in block.units}
        return tuple(ends[name] for name in architecture.tap_units if id(ends[name]) in maps)
    last = {
        cut.tensor.shape[1:3]: cut.tensor
        for cut in find_cuts(keras.Function(inputs, outputs))
        # An image of many bands has as many channels as the first maps of a base.
        if id(cut.tensor) in maps and cut.tensor.shape[-1] > min(inputs.shape[-1], RGB)
    }
    return tuple(sorted(last.values(), key=lambda tensor: -tensor.shape[1]))


def find_maps(image: keras.KerasTensor, outputs: keras.KerasTensor) -> Iterator[keras.KerasTensor]:
    """Yields the tensors that cover the image in whole cells, in topological order.

    In such a map, neighbours are one cell apart. In a map without padding they are nearer together,
    whatever the quotient of the sizes, which would give wrong places.

    Args:
        image: The image that entered the base, (batch, h, w, c).
        outputs: The tensor that left it.
    """
    fields = measure_graph(image, outputs).fields
    for call in sorted_calls(keras.Function(image, outputs)):
        for tensor in call.outputs:
            stride, field = find_stride(image, tensor), fields[id(tensor)]
            if stride and field and all(axis.step == stride for axis in field.axes):
                yield tensor


def find_stride(image: keras.KerasTensor, tensor: keras.KerasTensor) -> int | None:
    """Returns the pixels of the image for each cell of a map, None where that is no whole number.

    The number is the same for height and width. None also stands for a tensor that is no map.

    Args:
        image: The image that entered the base, (batch, h, w, c).
        tensor: Any tensor computed from it.
    """
    if len(tensor.shape) != 4:
        return None
    height, width = image.shape[1:3]
    stride: int = height // tensor.shape[1]
    covered = (tensor.shape[1] * stride, tensor.shape[2] * stride)
    return stride if covered == (height, width) else None
