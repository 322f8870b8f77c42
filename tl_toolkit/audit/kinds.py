"""The kinds of findings: what each means, and whether its images are left out by default."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        title: As a heading.
        meaning: What it is and what to do, a sentence.
        is_excluded: Whether an exclusions file names its images unless other kinds are chosen.
    """

    title: str
    meaning: str
    is_excluded: bool = False


KINDS = {
    "empty": Kind("empty files", "They hold no byte.", True),
    "truncated": Kind("truncated", "The end is missing, as after a download that broke off.", True),
    "bomb": Kind("bombs", "So many pixels that they are not decoded.", True),
    "unreadable": Kind("not readable", "No image, or a damaged one.", True),
    "convertible": Kind("to be converted", "Training needs data.convert: true for them."),
    "leak": Kind(
        "in several splits",
        "The same bytes train and measure: one copy stays, in test before validation before train.",
        True,
    ),
    "near_leak": Kind(
        "near duplicates in several splits", "They look the same, and flatter what is measured."
    ),
    "label_conflict": Kind(
        "in several classes", "The same bytes have two labels, one of which is wrong.", True
    ),
    "near_label_conflict": Kind(
        "near duplicates in several classes", "They look the same and have different labels."
    ),
    "duplicate": Kind("duplicates", "The same bytes several times in a class: one stays.", True),
    "near_duplicate": Kind(
        "near duplicates", "They look the same: another size, compression or brightness."
    ),
    "label_error": Kind(
        "doubtful labels", "A classifier that was trained without them is sure of another class."
    ),
    "outlier": Kind("outliers", "Their features are far from those of all others."),
    "flat": Kind("nothing to see", "All of the image has one grey level."),
    "dark": Kind("dark", "Nearly all of the image is almost black."),
    "bright": Kind("bright", "Nearly all of the image is almost white."),
    "blurred": Kind("blurred", "No edge is sharp, even at 256 pixels."),
    "odd_shape": Kind("odd shapes", "Much wider or narrower than the others."),
    "odd_size": Kind("odd sizes", "Much smaller or larger than the others, or below 32 pixels."),
    "odd_mode": Kind("odd modes", "Colours, alpha or frames that most others do not have."),
    "huge": Kind("huge", "More than 50 million pixels, each of which is decoded in each epoch."),
    "rotated": Kind("rotated by EXIF", "Training turns them upright; other tools may not."),
    "wrong_name": Kind("wrongly named", "The ending is that of another format."),
    "not_listed": Kind("not listed", "Images that no recipe would use, for their name or place."),
    "missing_class": Kind("missing classes", "A split has no usable image of a class."),
    "tiny_class": Kind("tiny classes", "Fewer than 10 usable images to train from."),
    "imbalance": Kind("imbalance", "The largest class has 10 times the images of the smallest."),
}
"""All kinds, the gravest first."""
