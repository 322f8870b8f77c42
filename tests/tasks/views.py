"""A split as tasks see it, of arrays: what a model returned for its images."""

from types import SimpleNamespace

import numpy as np


def make_view(outputs, targets, *, losses=None, paths=None):
    """Returns a view whose model returned these outputs.

    Args:
        outputs: float (n, units).
        targets: Texts of each image's targets, a tuple each.
        losses: float (n,); zeros by default.
        paths: Files; by default numbered.
    """
    outputs = np.asarray(outputs, np.float32)
    losses = np.zeros(len(outputs), np.float32) if losses is None else losses
    names = paths or [f"{number}.png" for number in range(len(outputs))]
    examples = [
        SimpleNamespace(path=path, targets=texts)
        for path, texts in zip(names, targets, strict=True)
    ]
    return SimpleNamespace(
        examples=examples, features=None, assess=lambda inputs: (losses, outputs)
    )
