"""The sections of a recipe for images: where they are, and how they are changed."""

import unicodedata
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tl_toolkit.recipe.bands import RGB, find_conflicts_of_channels
from tl_toolkit.recipe.fields import (
    Conflict,
    Folder,
    Fraction,
    Listed,
    MixingStrength,
    Section,
    Seed,
    Source,
    Table,
    Text,
    expects,
    in_words,
    refuse_repeated,
)
from tl_toolkit.recipe.pixels import Masks
from tl_toolkit.recipe.remote import find_address, name_object

__all__ = ["Augment", "Columns", "Data", "RandAugment"]

_Side = Annotated[int, Field(ge=8, le=2048)]
_Level = Annotated[int, Field(ge=0, le=255)]
_FolderOrFraction = Annotated[
    Source | Fraction,
    expects("expected a fraction above 0 and below 1, or the path of a folder"),
]
_ClassName = Annotated[
    Text, AfterValidator(lambda name: unicodedata.normalize("NFC", name))
]  # folders that were unpacked on a Mac have decomposed names
_SOURCES = ("train", "csv", "table", "builtin")
_FILES = (".csv", ".json", ".parquet", ".tfrecord")  # beginnings of the endings of files of sources
_LISTED = "train, csv, table or builtin"


def _is_fraction(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < 1


def _refuse_no_validation(value: object) -> object:
    if value is None or (isinstance(value, bool | int | float) and value == 0):
        raise in_words(
            "expected a fraction above 0 and below 1, or the path of a folder: epochs are compared "
            "on validation images, and the best one is kept; 0.05 leaves the most to train on",
            hint="validation: 0.05",
        )
    return value


class Columns(Section):
    """Columns that a table calls otherwise."""

    path: Text | None = Field(
        default=None,
        examples=["file"],
        description="Column of the image, path by default; images in a Parquet or TFRecord file "
        "are found by their bytes.",
    )
    label: Text | None = Field(
        default=None,
        examples=["species"],
        description="Column of the class, label by default; of several classes see task.labels.",
    )
    split: Text | None = Field(
        default=None,
        examples=["fold"],
        description="Column of the split (train, validation, test), split by default.",
    )


class Data(Section):
    """Where the images are, how they are split, and the size they are resized to."""

    train: Source | None = Field(
        default=None,
        description="Folder of training images, one folder per class inside; for a dense "
        "task (an output per pixel), a folder of images and one of masks, or for masks of classes "
        "a file of annotations of COCO (.json). The address of one on an object store, as "
        "s3://BUCKET/FOLDER, works too: its images are read when they are needed.",
        examples=["data/flowers/train", "s3://photos/flowers/train"],
    )
    csv: Table | None = Field(
        default=None,
        description="Table of images with the columns path and label, and split (train, "
        "validation, test) if you like; paths in it are relative to the table. The address of "
        "one on an object store, as s3://BUCKET/TABLE.csv, works too.",
        examples=["data/flowers.csv", "s3://photos/flowers.csv"],
    )
    table: Source | None = Field(
        default=None,
        description="Table of images in another form than CSV, which works as csv does: a Hugging "
        "Face image folder, which lists its images by file_name in metadata.jsonl or metadata.csv, "
        "in folders of splits or not; a Parquet or TFRecord file with images in it, or a folder of "
        "them, as tfds prepares it. The address of one on an object store works too; files with "
        "images in them are copied into the cache as a whole.",
        examples=["data/flowers", "data/flowers.parquet", "s3://photos/flowers.parquet"],
    )
    columns: Columns | None = Field(
        default=None,
        description="Columns that the table (csv or table) calls otherwise than path, label and "
        "split.",
    )
    builtin: Literal["digits", "glyphs"] | None = Field(
        default=None,
        description="Images that come with the toolkit: digits, 1,797 handwritten ones; "
        "glyphs, 12,120 letters, signs and scribbles of 202 kinds, rendered in code.",
    )
    validation: Annotated[_FolderOrFraction, BeforeValidator(_refuse_no_validation)] = Field(
        default=0.2,
        description="What epochs are compared on: a fraction of the images of each class, or (with "
        "train) a folder with the same classes. There is no training without: 0.05 leaves the most "
        "images to train on.",
        examples=[0.2, "data/flowers/validation"],
    )
    test: _FolderOrFraction | None = Field(
        default=None,
        description="What the finished model is measured on: a fraction, or (with train) a folder; "
        "none by default.",
        examples=[0.1, "data/flowers/test"],
    )
    folds: Annotated[int, Field(ge=2, le=20)] | None = Field(
        default=None,
        examples=[5],
        description="Cross-validation, 2 to 20: the images that train and those that a fraction in "
        "validation would take are split into so many parts, stratified by class where there are "
        "classes. Each is predicted by a model that was trained on the others; the run's model is "
        "then trained on all of them, and keeps the epoch that was best in the mean of the folds.",
    )
    group: Text | None = Field(
        default=None,
        examples=["patient"],
        description="Column of the table (csv or table) that names what images have in common, as "
        "a patient or a place: images of one group lie in one split and in one fold.",
    )
    classes: Annotated[tuple[_ClassName, ...], Field(min_length=2), Listed] | None = Field(
        default=None,
        description="The classes to use, in the order of the outputs; all, by name, by default.",
        examples=[["ants", "bees"]],
    )
    class_folders: Literal["top", "all"] = Field(
        default="top",
        description="Which folders in train are classes: top, and images in folders below are of "
        "the class above; all, each folder that holds images, named by its path, as birds/owl.",
    )
    masks: Masks | None = Field(
        default=None,
        description="Where masks lie and what is in them, for dense tasks (an output per pixel).",
    )
    links: Literal["refuse", "follow", "ignore"] = Field(
        default="refuse",
        description="Linked folders, and linked files outside the folder: follow uses them, ignore "
        "leaves them out; refuse stops at linked folders, and names the linked files that it "
        "leaves out. A table names images outside its own folder with follow alone.",
    )
    exclude: Table | None = Field(
        default=None,
        examples=["data/flowers-exclude.csv", "s3://photos/exclude.csv"],
        description="Table of images to leave out, with the column path, relative to the table; as "
        "tltool data check --exclusions writes it. Its address on an object store works too.",
    )
    leakage: Literal["refuse", "refuse_near", "allow"] = Field(
        default="refuse",
        description="Images with the same bytes in two splits that folders or a table name, which "
        "flatter what is measured: allow trains and warns. Sampled splits have none. refuse_near "
        "also refuses images that look the same, in splits and folds of any kind: it looks at each "
        "image before training, with the eyes of tltool data check.",
    )
    examples_per_class: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        examples=[20],
        description="Training images to keep of each class, sampled by split_seed; all by default.",
    )
    image_size: Annotated[
        tuple[_Side, _Side],
        BeforeValidator(
            lambda value: (value, value) if isinstance(value, int) else value,
            json_schema_input_type=_Side | tuple[_Side, _Side],
        ),
        Listed,
        expects("expected a side or [height, width] in pixels, each an integer from 8 to 2048"),
    ] = Field(
        description="Height and width in pixels that images are resized to, 8 to 2048: one "
        "number for a square, or [height, width].",
        examples=[224],
    )
    channels: Annotated[int, Field(ge=1, le=256)] = Field(
        default=RGB,
        examples=[1, 4],
        description="Channels of an image: 3 for RGB, 1 for grey, or as many bands as .npy arrays "
        "(height, width, bands) and TIFF files hold, 1 to 256. But for 3, bands are brought to "
        "the same mean and deviation by those of the training images, and the first convolution "
        "of pretrained weights is widened.",
    )
    resize: Literal["stretch", "crop", "pad"] = Field(
        default="stretch",
        description="stretch changes proportions; crop scales to cover and keeps the centre; pad "
        "scales to fit and fills the rest with pad_color.",
    )
    pad_color: Annotated[
        _Level | Annotated[tuple[_Level, _Level, _Level], Listed] | None,
        expects("expected a grey level from 0 to 255, or a colour [red, green, blue]"),
    ] = Field(
        default=None,
        description="Colour of the padding with resize: pad, a grey level or [red, green, blue]; "
        "114 by default, about the mean of photos; with other channels than 3 one value for all of "
        "them, 0 by default.",
        examples=[0, [124, 116, 104]],
    )
    batch_size: int = Field(
        default=32,
        ge=1,
        le=4096,
        description="Images per training step, 1 to 4096; 5 by default for dense tasks (an "
        "output per pixel).",
    )
    broken: Literal["skip", "refuse"] = Field(
        default="refuse",
        description="What to do about images that cannot be read: skip and name them, or refuse.",
    )
    convert: bool = Field(
        default=False,
        description="Re-encode images that only Pillow can read (TIFF, some WebP) into the cache.",
    )
    split_seed: Seed = Field(
        default=0, description="Seed of the split into training, validation and test images."
    )

    @property
    def table_path(self) -> Path | None:
        """The table of images, of either form; None for other sources."""
        path = self.csv if self.table is None else self.table
        return None if path is None else Path(path)

    @property
    def sources(self) -> dict[str, Path | float | None]:
        """The folders and tables by their field; fractions beside them."""
        names = ("train", "csv", "table", "validation", "test", "exclude")
        return {f"data.{name}": getattr(self, name) for name in names}

    @property
    def source_name(self) -> str:
        """What to call the images: as their folder, table, file of annotations or built-in set.

        A file is called without its ending, and one that is called metadata, as in Hugging Face's
        image folders, as the folder that it lies in.
        """
        if self.builtin is not None:
            return self.builtin
        source = Path(str(self.train or self.table_path))
        if address := find_address(source):
            return address.rpartition("/")[2]
        source = Path(name_object(str(source)))
        if self.table is not None and source.name.endswith(".gz"):
            source = source.with_suffix("")
        if source.stem == "metadata" and source.suffix:
            return source.parent.name or source.stem
        is_file = self.csv is not None or source.suffix.lower().startswith(_FILES)
        return source.stem if is_file else source.name

    @property
    def column_names(self) -> dict[str, str]:
        """The table's own name of each column that it calls otherwise."""
        columns = self.columns or Columns()
        names = {"path": columns.path, "label": columns.label, "split": columns.split}
        return {name: own for name, own in names.items() if own is not None}

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields conflicts between sources, splits, fractions and classes.

        Args:
            values: As in `Section.find_conflicts`.
        """
        sources = [name for name in _SOURCES if values.get(name) is not None]
        if not sources:
            yield Conflict((), f"expected one of {_LISTED}, got none", "train: data/train")
        elif len(sources) > 1:
            expected = f"expected one of {_LISTED}, got {' and '.join(sources)}"
            hint = f"remove data.{sources[0]} (as an override: ~data.{sources[0]})"
            yield Conflict((sources[-1],), expected, hint)
        if sources and "train" not in sources:
            for name in ("validation", "test"):
                if isinstance(values.get(name), str | PathLike):
                    expected = (
                        f"expected a fraction: a folder goes with train, not with {sources[0]}"
                    )
                    yield Conflict((name,), expected, f"{name}: 0.2")
        fractions = [values.get("validation", 0.2), values.get("test")]
        if all(_is_fraction(value) for value in fractions) and sum(fractions) >= 1:
            expected = f"expected fractions that leave images to train on, got {sum(fractions):g}"
            yield Conflict(("test",), f"{expected} for validation and test together", "test: 0.1")
        if values.get("exclude") is not None and values.get("builtin") is not None:
            expected = "expected none with data.builtin, whose images are no files"
            yield Conflict(("exclude",), expected, "~data.exclude")
        if values.get("class_folders") == "all" and "train" not in sources:
            expected = "expected none without data.train: classes are its folders"
            yield Conflict(("class_folders",), expected, "~data.class_folders")
        yield from _find_conflicts_of_folds(values)
        yield from refuse_repeated(values.get("classes"), "classes")
        if values.get("pad_color") is not None and values.get("resize", "stretch") != "pad":
            expected = "expected none without resize: pad"
            yield Conflict(("pad_color",), expected, "resize: pad")
        yield from find_conflicts_of_channels(values)
        yield from _find_conflicts_of_masks(values)


def _find_conflicts_of_folds(values: Mapping[str, Any]) -> Iterable[Conflict]:
    """Yields conflicts of folds with a folder for validation, and of groups without a table."""
    if values.get("folds") is not None and isinstance(values.get("validation"), str | PathLike):
        expected = (
            "expected no folder beside data.folds, where each image that trains validates once"
        )
        yield Conflict(("validation",), expected, "~data.validation, or ~data.folds")
    is_table = any(values.get(name) is not None for name in ("csv", "table"))
    if values.get("group") is not None and not is_table:
        expected = "expected none without data.csv or data.table: groups are a column of a table"
        yield Conflict(("group",), expected, "~data.group")
    if values.get("columns") is not None and not is_table:
        expected = "expected none without data.csv or data.table, whose columns they name"
        yield Conflict(("columns",), expected, "~data.columns")


def _find_conflicts_of_masks(values: Mapping[str, Any]) -> Iterable[Conflict]:
    """Yields conflicts of lists of splits, and of as many values or colours as not of classes."""
    masks, classes = values.get("masks"), values.get("classes")
    lists = masks.get("lists") if isinstance(masks, Mapping) else getattr(masks, "lists", None)
    for name in ("validation", "test"):
        if lists is not None and isinstance(values.get(name), str | PathLike):
            expected = "expected no folder beside data.masks.lists, which name the splits of train"
            yield Conflict((name,), expected, f"~data.{name}, or ~data.masks.lists")
    if masks is None or not isinstance(classes, list | tuple):
        return
    for name in ("ids", "colors"):
        ids = masks.get(name) if isinstance(masks, Mapping) else getattr(masks, name, None)
        if isinstance(ids, list | tuple) and len(ids) != len(classes):
            expected = f"expected {len(classes)}, one for each of data.classes, got {len(ids)}"
            yield Conflict(("masks", name), expected)


class RandAugment(Section):
    """RandAugment (Cubuk et al., 2020): a few operations sampled for each image."""

    num_ops: int = Field(default=2, ge=1, le=10, description="Operations per image, 1 to 10.")
    magnitude: float = Field(
        default=0.5, ge=0, le=1, description="Strength of the operations, 0 to 1."
    )


class Augment(Section):
    """Random changes to training images, the same for an image at equal seed, phase and epoch."""

    flip: Literal["horizontal", "vertical", "both"] | None = Field(
        default=None, description="Mirror half of the images, along these axes."
    )
    rotation: Annotated[float, Field(ge=0, le=0.5)] | None = Field(
        default=None,
        examples=[0.05],
        description="Largest turn either way as a fraction of a full turn, 0 to 0.5.",
    )
    zoom: Annotated[float, Field(ge=0, le=0.9)] | None = Field(
        default=None,
        examples=[0.1],
        description="Largest zoom in or out as a fraction of the size, 0 to 0.9.",
    )
    contrast: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        examples=[0.2],
        description="Largest change of contrast as a fraction, 0 to 1.",
    )
    brightness: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        examples=[0.2],
        description="Largest change of brightness either way as a fraction of white, 0 to 1.",
    )
    saturation: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        examples=[0.3],
        description="Largest change of saturation either way as a fraction, 0 to 1.",
    )
    hue: Annotated[float, Field(ge=0, le=0.5)] | None = Field(
        default=None,
        examples=[0.05],
        description="Largest turn of the hue either way as a fraction of the colour circle, 0 to "
        "0.5.",
    )
    rand_augment: RandAugment | None = Field(
        default=None, description="RandAugment, applied after the changes above."
    )
    erasing: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        examples=[0.25],
        description="Share of the images in which a rectangle is replaced by noise, last of all "
        "changes (random erasing: Zhong et al., 2020); its sides are 14 to 57 % of the image's.",
    )
    mixup: MixingStrength | None = Field(
        default=None,
        examples=[0.2],
        description="Blend each image with another of its batch, and the losses of both targets "
        "likewise (MixUp: Zhang et al., 2018). The shares are of Beta(mixup, mixup): below 1 one "
        "of the two prevails. Mixed images are new ones in each epoch and are not stored.",
    )
    cutmix: MixingStrength | None = Field(
        default=None,
        examples=[1.0],
        description="Paste a box of another image of the batch into each image, and mix the "
        "losses by the areas (CutMix: Yun et al., 2019), which are of Beta(cutmix, cutmix). Beside "
        "mixup, each image gets one of the two.",
    )


class Features(Section):
    """Whether and how outputs of the frozen part of the network are kept for later use."""

    store: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="auto keeps them where that fits max_gb and saves time; always wherever it "
        "fits; never computes them anew each time. The result is the same, bit for bit.",
    )
    dtype: Literal["float32", "float16"] = Field(
        default="float32",
        description="float16 halves the size; training uses the rounded values.",
    )
    views: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        examples=[4],
        description="With augment: keep this many random views of each training image, and "
        "cycle through them in all phases; by default every epoch of every phase samples new "
        "views, which cannot be stored.",
    )
    folded: bool = Field(
        default=False,
        description="Compute the frozen part constant-folded, its weights as constants: about 1.4 "
        "times as fast, and different in the last digits.",
    )
    max_gb: float = Field(
        default=20.0,
        gt=0,
        description="Size of the whole store in GB (10^9 bytes); what was not used for longest "
        "makes room.",
    )
    location: Folder | None = Field(
        default=None,
        description="Folder of the store, by default `features` in the user's cache. Hosts that "
        "mount one folder share what they compute; so do those that name one address on an object "
        "store, of which each has copies in its cache, within max_gb.",
        examples=["/shared/features", "s3://photos/features"],
    )
    part: Annotated[int, Field(ge=1)] = Field(
        default=8192,
        description="Images that are computed and stored at a time: a kill loses no more, and of "
        "several processes and hosts each computes other parts.",
        examples=[1024],
    )
