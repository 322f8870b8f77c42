"""Arrays and images of bands are checked and split by what has a meaning for them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tl_toolkit as tl
from tl_toolkit.audit.bands import inspect_bands, refuse_others
from tl_toolkit.errors import RecipeError


def pack(array, **settings):
    buffer = io.BytesIO()
    np.save(buffer, array, **settings)
    return buffer.getvalue()


@pytest.fixture
def fields(tmp_path, monkeypatch):
    """Two classes of arrays with four bands: a copy in each other class, a cut one, a flat one."""
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for name in ("dry", "wet"):
        (tmp_path / "fields" / name).mkdir(parents=True)
        for number in range(12):
            array = random.integers(0, 4000, (40, 48, 4)).astype(np.uint16)
            (tmp_path / "fields" / name / f"{number}.npy").write_bytes(pack(array))
    folder = tmp_path / "fields"
    (folder / "dry" / "copy.npy").write_bytes((folder / "wet" / "3.npy").read_bytes())
    (folder / "dry" / "cut.npy").write_bytes((folder / "wet" / "4.npy").read_bytes()[:-9])
    (folder / "wet" / "flat.npy").write_bytes(pack(np.full((40, 48, 4), 7, np.uint16)))
    (folder / "wet" / "wide.npy").write_bytes(pack(random.normal(size=(16, 90, 4))))
    (folder / "wet" / "other.npy").write_bytes(pack(random.normal(size=(40, 48, 5))))
    return folder


def test_a_check_of_arrays_finds_what_has_a_meaning_for_them(fields):
    report = tl.check_data(fields)

    found = {
        (finding.kind, path.rpartition("/")[2]) for finding in report.findings
        for path in finding.paths
    }  # fmt: skip
    assert found == {
        ("label_conflict", "3.npy"), ("label_conflict", "copy.npy"), ("truncated", "cut.npy"),
        ("flat", "flat.npy"), ("odd_shape", "wide.npy"), ("odd_size", "wide.npy"),
        ("unreadable", "other.npy"),
    }  # fmt: skip
    (other,) = report.of("unreadable")
    assert other.reason == "an array of 5 bands where data.channels is 4"
    assert report.notes[0].startswith("data.channels=4, as 28 arrays")
    assert report.counts[""]["dry"] == 13


def test_a_recipe_says_the_channels_of_what_it_checks(fields):
    recipe = {
        "version": 1,
        "name": "fields",
        "data": {"train": str(fields), "validation": 0.2, "image_size": 32, "channels": 5},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
    }

    unreadable = tl.check_data(recipe).of("unreadable")
    assert len(unreadable) == 27 and "where data.channels is 5" in unreadable[0].reason
    assert len(tl.check_data(recipe, {"data.channels": 4}).of("unreadable")) == 1
    with pytest.raises(RecipeError, match="Near duplicates are found among photos"):
        tl.validate(recipe, {"data.channels": 4, "data.leakage": "refuse_near"})


@pytest.mark.parametrize("ending", [".npy", ".tiff"])
def test_near_copies_of_one_band_are_not_claimed_to_be_found_but_in_photos(tmp_path, ending):
    for number, name in enumerate(("dry", "dry", "wet", "wet")):
        path = tmp_path / "fields" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 40), 20 + number).save(path)
    recipe = {
        "version": 1,
        "name": "fields",
        "data": {"train": str(tmp_path / "fields"), "validation": 0.5, "image_size": 32},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
    }
    changes = {"data.channels": 1, "data.leakage": "refuse_near"}
    tl.validate(recipe, changes)

    path.with_suffix(ending).write_bytes(pack(np.eye(40)))

    with pytest.raises(RecipeError, match=rf"channels = 1, of which \S+{ending} is an array"):
        tl.validate(recipe, changes)


def test_arrays_are_split_and_equal_ones_stay_together(fields, tmp_path):
    split = tl.split_data(fields, tmp_path / "splits.csv", validation=0.3)

    splits = {image.path.rpartition("fields/")[2]: image.split for image in split.images}
    assert len(splits) == 27 and splits["dry/copy.npy"] == splits["wet/3.npy"]
    assert "data.channels=4" in split.notes[0]
    report = tl.check_data(tmp_path / "splits.csv")  # a table of arrays
    assert not report.of("leak") and report.images == 27
    with pytest.raises(RecipeError, match="compared by their bytes alone"):
        tl.split_data(fields, None, near=True)


@pytest.mark.slow
def test_a_base_doubts_labels_of_bands(fields):
    weights = Path(__file__).parents[2] / "models/digits_vgg_tiny.weights.h5"

    report = tl.check_data(fields, base="vgg_tiny", weights=str(weights))

    assert report.notes[-1] == "labels and outliers by vgg_tiny"


def test_an_array_that_claims_all_memory_takes_none():
    head = pack(np.zeros((1, 1), np.uint8)).replace(b"(1, 1), ", b"(9999999, 9999999), ")[:128]

    content = inspect_bands(head, 1)

    assert content.fault == "unreadable" and "pixels are decoded" in content.reason


@pytest.mark.parametrize(
    ("mode", "kind", "channels", "fault"),
    [
        ("RGBA", "PNG", 4, ""), ("RGBA", "PNG", 5, "unreadable"), ("LA", "PNG", 2, ""),
        ("RGB", "JPEG", 1, ""), ("RGB", "JPEG", 4, "unreadable"), ("L", "PNG", 4, "unreadable"),
    ],
)  # fmt: skip
def test_photos_fit_as_training_reads_them(mode, kind, channels, fault):
    buffer = io.BytesIO()
    Image.effect_noise((40, 40), 60).convert(mode).save(buffer, kind)

    content = refuse_others(inspect_bands(buffer.getvalue(), channels), channels)

    assert content.fault == fault
