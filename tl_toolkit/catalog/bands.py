"""How bands are brought to the range that a base expects: by statistics of the training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tl_toolkit.catalog.lookup import PIXEL_RULES, Architecture
from tl_toolkit.catalog.records import PixelRule
from tl_toolkit.catalog.registry import IMAGENET_DEVIATION, IMAGENET_MEAN

__all__ = ["BandStatistics", "build_band_rule", "without_color"]


@dataclass(frozen=True)
class BandStatistics:
    """The statistics of each band over the pixels of all training images.

    Attributes:
        mean: Their means, in the numbers of the files.
        deviation: Their standard deviations.
        images: How many images they are of.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    images: int

    def as_json(self) -> dict[str, Any]:
        """Returns them as plain values."""
        return {"mean": [*self.mean], "deviation": [*self.deviation], "images": self.images}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> BandStatistics:
        """Returns what `as_json` wrote.

        Args:
            values: Plain values.
        """
        return cls(tuple(values["mean"]), tuple(values["deviation"]), values["images"])


def build_band_rule(
    statistics: BandStatistics, architecture: Architecture, *, is_random: bool
) -> PixelRule:
    """Returns the rule that brings all bands to one mean and deviation.

    Weights of ImageNet were trained on pixels of another range in each base. So each band gets the
    mean and deviation that ImageNet's photos have where they enter the base, averaged over red,
    green and blue. Before random weights it gets the mean 0 and the deviation 1. A band that is the
    same everywhere gets the mean.

    Args:
        statistics: Of the training images.
        architecture: The record of the base.
        is_random: Whether the base begins with random weights.
    """
    mean, deviation = (0.0, 1.0) if is_random else _find_range(architecture)
    scale = [deviation / (own or 1.0) for own in statistics.deviation]
    offset = [mean - own * factor for own, factor in zip(statistics.mean, scale, strict=True)]
    text = "bands of the mean and deviation that the base expects, by those of training images"
    return PixelRule("bands", "rgb", tuple(scale), tuple(offset), text)


def _find_range(architecture: Architecture) -> tuple[float, float]:
    """Returns mean and deviation of ImageNet's photos after the pixel rule of a base."""
    rule = PIXEL_RULES[architecture.bands or architecture.pixels]
    means, deviations = (
        [255 * x for x in values] for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    if rule.color == "bgr":
        means, deviations = means[::-1], deviations[::-1]
    scale, offset = (_repeat(values, len(means)) for values in (rule.scale, rule.offset))
    after = [m * s + o for m, s, o in zip(means, scale, offset, strict=True)]
    spread = [d * s for d, s in zip(deviations, scale, strict=True)]
    return sum(after) / len(after), sum(spread) / len(spread)


def _repeat(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    return values if len(values) == count else values * count


def without_color(rule: str) -> PixelRule:
    """Returns a rule for images whose channels are those of the base already.

    Args:
        rule: Name of a rule with one factor for all channels.
    """
    named = PIXEL_RULES[rule]
    return PixelRule(named.name, "rgb", named.scale, named.offset, named.help)
