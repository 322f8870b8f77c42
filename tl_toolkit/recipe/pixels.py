"""The sections of a recipe for single pixels: where masks are, and how pixels are used.

All dense tasks share them, and they stand beside `data` and `model`, not in `task`: recipes that
name a task by a word keep them. They are defined here and not in `tl_toolkit.tasks.dense`, because
the words that they allow for a loss and for sampling are read off all tasks, whose specs have to be
complete by then. What is particular to a task (its choices, its defaults, what it refuses, what the
descriptions say of it) is in the task's spec. `data.examples_per_class` is no field of dense tasks,
which refuse it: classification samples by it.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from tl_toolkit.recipe.fields import (
    Conflict,
    Listed,
    Section,
    Text,
    expects,
    in_words,
    refuse_repeated,
)
from tl_toolkit.recipe.remote import find_address_fault, is_address
from tl_toolkit.recipe.task_types import Loss, Sampling
from tl_toolkit.recipe.tasks import list_remarks

__all__ = ["Masks", "Pixels"]

_Id = Annotated[int, Field(ge=0, le=255)]
_Color = Annotated[tuple[_Id, _Id, _Id], Listed]


def _refuse_faulty_address(folder: str) -> str:
    if is_address(folder) and (fault := find_address_fault(folder)):
        raise in_words(fault)
    return folder


class Masks(Section):
    """Where the masks of images lie, and what their values mean.

    Maps of edges and of normals are called masks too.
    """

    images: Annotated[Text, AfterValidator(_refuse_faulty_address)] = Field(
        default="images",
        description="Folder of the images in the folder of each split, or relative to a file of "
        "annotations of COCO, which may also name an address on an object store; where there is "
        "none, they are looked for beside that file.",
    )
    masks: Text = Field(
        default="masks",
        description="Folder of the masks beside it; a mask has the name of its image, and any "
        "suffix.",
    )
    ending: str = Field(
        default="",
        examples=["_mask"],
        description="End of a mask's name, before the suffix, that its image's name lacks: _mask "
        "for cat_mask.png and cat.jpg.",
    )
    lists: Text | None = Field(
        default=None,
        examples=["ImageSets/Segmentation"],
        description="Folder in data.train with lists of the images of each split: train.txt, "
        "val.txt and test.txt, a name without its suffix in each line, as PASCAL VOC has them. "
        "Other images are left out, and a fraction is taken only of a split without a list.",
    )
    ids: Annotated[tuple[_Id, ...], Listed] | None = Field(
        default=None,
        examples=[[0, 255]],
        description="The value of each class in masks of one channel, in the order of "
        "data.classes; 0, 1, 2, ... by default.",
    )
    colors: Annotated[tuple[_Color, ...], Listed] | None = Field(
        default=None,
        examples=[[[0, 0, 0], [255, 0, 0]]],
        description="The colour [red, green, blue] of each class in masks of RGB, in the order of "
        "data.classes.",
    )
    ignore: Annotated[
        _Id | _Color | None,
        expects("expected a value from 0 to 255, or a colour [red, green, blue]"),
    ] = Field(
        default=None,
        examples=[255],
        description="Value, or colour, of pixels without a target (of no class, without a "
        "normal); they count nowhere. Of 8 bits: in maps of 16 bits it is 257 times as much.",
    )

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields a conflict for repeated values, and for values together with colours.

        Args:
            values: As in `Section.find_conflicts`.
        """
        if values.get("ids") is not None and values.get("colors") is not None:
            yield Conflict(("colors",), "expected ids or colors, got both")
        yield from refuse_repeated(values.get("ids"), "ids")
        colors = values.get("colors")
        if isinstance(colors, list | tuple):
            yield from refuse_repeated([str(list(color)) for color in colors
                                        if isinstance(color, list | tuple)], "colors")  # fmt: skip


class Pixels(Section):
    """How single pixels are read from the base, sampled for training, and compared."""

    per_image: int = Field(
        default=2000,
        ge=1,
        le=1 << 22,
        description="Pixels of each image in a training step (PixelNet's 2,000).",
    )
    sampling: Sampling = Field(
        default="uniform",
        description="How they are sampled, from those that count: uniform, all alike; balanced, as "
        "many of each class that the image has (or of edges and background); edges, half of them "
        "beside a border of classes (or an edge).",
    )
    taps: Annotated[tuple[Text, ...], Field(min_length=1), Listed] | None = Field(
        default=None,
        examples=[["conv_pw_1_relu", "conv_pw_5_relu"]],
        description="Layers, or units, of the base whose maps are read; by default its paper's, or "
        "the last map of each size. `tltool models show BASE --layers` lists them.",
    )
    normalize: bool = Field(
        default=False,
        description="Normalize each map by its own batch statistics before it is read: predictors, "
        "linear ones above all, learn better from normalized maps.",
    )
    loss: Loss = Field(
        default="cross_entropy",
        description="cross_entropy; dice, 1 minus the overlap of each class; focal, cross-entropy "
        f"times (1 - p)^2, less for what is easy. {' '.join(list_remarks('loss'))}",
    )
    class_weights: Literal["balanced"] | dict[Text, Annotated[float, Field(gt=0)]] | None = Field(
        default=None,
        examples=["balanced", {"sign": 5.0}],
        description="Weight of each class in the loss, a mean over pixels: balanced, the median of "
        "the classes' frequencies over each one's, at most 50; or a weight for each class by name, "
        f"1 by default. {' '.join(list_remarks('class_weights'))}",
    )

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields a conflict for each repeated tap.

        Args:
            values: As in `Section.find_conflicts`.
        """
        yield from refuse_repeated(values.get("taps"), "taps")
