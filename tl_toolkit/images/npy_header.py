"""What headers of numpy's .npy format are read: for training, and for checks without TensorFlow."""

from __future__ import annotations

__all__ = ["HEADER", "KINDS", "MOST_HEADER_BYTES", "NPY_MAGIC", "SHAPE", "TYPE"]

NPY_MAGIC = b"\x93NUMPY"

MOST_HEADER_BYTES = 10_000  # as numpy
HEADER = (
    r"\{ ?'descr': ?'([^']*)', ?'fortran_order': ?(True|False), ?'shape': ?\(([0-9, ]*)\),? ?\}"
    r"[\t\n\f\r ]*"
)
"""Of type, order and shape, as numpy writes it: for RE2 and for Python alike."""
SHAPE = r"([0-9]{1,9}), ?([0-9]{1,9})(?:, ?([0-9]{1,9}))?,?"
TYPE = r"[|<>=]?([a-z][1-8])"
KINDS = {
    "u1": "uint8", "b1": "uint8", "i1": "int8", "u2": "uint16", "i2": "int16", "u4": "uint32",
    "i4": "int32", "i8": "int64", "f2": "float16", "f4": "float32", "f8": "float64",
}  # fmt: skip
"""Types of numbers that are read, by their name in a header without the order of bytes."""
