"""Annotations of COCO on object stores, with images there or on this machine."""

import json

import numpy as np
import pytest
from PIL import Image

import tl_toolkit as tl
from tests.command import tltool
from tests.stores import count_reads, recipe_of
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import dump_recipe, read_recipe
from tl_toolkit.recipe.remote import mirror_of_file
from tl_toolkit.sources.coco import path_of, read_annotations

SECRET = "hunter2"
NAMES = [f"{number}.png" for number in range(8)]


@pytest.fixture
def coco(bucket, tmp_path):
    """Returns the folder and the address of eight images with annotations, the same on both."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "coco"
    (folder / "train2017").mkdir(parents=True)
    for name in NAMES:
        pixels = generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "train2017" / name)
    annotate(folder / "annotations/instances_train2017.json", NAMES)
    bucket[0].put(str(folder), f"{bucket[1]}-coco", recursive=True)
    return folder, f"{bucket[2]}-coco"


def annotate(path, names):
    """Writes annotations: a cat in each image, each a little wider."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [
        {"id": 10 + place, "file_name": name, "height": 40, "width": 40}
        for place, name in enumerate(names)
    ]
    boxes = [[4, 4, 20 + place, 4, 20 + place, 30, 4, 30] for place in range(len(names))]
    annotations = [
        {"image_id": 10 + place, "category_id": 7, "segmentation": [box]}
        for place, box in enumerate(boxes)
    ]
    values = {"images": images, "annotations": annotations}
    path.write_text(json.dumps({**values, "categories": [{"id": 7, "name": "cat"}]}))


def send(bucket, tmp_path, address, names):
    """Replaces the annotations at an address."""
    annotate(tmp_path / "other.json", names)
    bucket[0].put(str(tmp_path / "other.json"), address.removeprefix("memory:/"))


def read(source, *changes, **data):
    values = recipe_of(source, classes=["back", "cat"], **data)
    model = {"base": "mobilenet", "weights": "random", "arguments": {"alpha": 0.25}}
    return read_recipe({**values, "task": "segmentation", "model": model}, changes)


def survey(source, **data):
    return plan_task(check_recipe(read(source, **data)).recipe).survey().list_files()


def test_images_are_found_on_the_store_where_coco_has_them(coco, tmp_path):
    file = f"{coco[1]}/annotations/instances_train2017.json"

    files = survey(file).files
    recipe = check_recipe(read(file)).recipe
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))

    assert [entry.path for entry in files] == [f"{coco[1]}/train2017/{name}" for name in NAMES]
    assert [entry.targets for entry in files] == [(f"coco:{file}#{10 + n}",) for n in range(8)]
    assert path_of(files[0].targets[0]) == mirror_of_file(file)
    assert read_annotations(files[3].targets[0]).name == "3.png"
    assert recipe.data.source_name == "instances_train2017"
    assert f'train: "{file}"' in dump_recipe(recipe)
    assert read_recipe(tmp_path / "recipe.yaml").recipe == recipe


@pytest.mark.parametrize("place", ["images", ".", "pictures"])
def test_images_are_found_beside_the_file(coco, bucket, place):
    system, root = bucket[0], f"{bucket[1]}-coco"
    inner = "" if place == "." else f"{place}/"
    for name in NAMES:
        system.mv(f"{root}/train2017/{name}", f"{root}/annotations/{inner}{name}")
    masks = {"masks": {"images": place}} if place == "pictures" else {}

    files = survey(f"{coco[1]}/annotations/instances_train2017.json", **masks).files

    assert files[0].path == f"{coco[1]}/annotations/{inner}0.png"


def test_images_of_this_machine_go_with_annotations_of_a_store(coco):
    file = f"{coco[1]}/annotations/instances_train2017.json"

    files = survey(file, masks={"images": f"{coco[0]}/train2017"}).files

    assert [entry.path for entry in files] == [f"{coco[0]}/train2017/{name}" for name in NAMES]


@pytest.mark.parametrize("end", ["", "/"])
def test_images_of_a_store_go_with_annotations_of_this_machine(coco, end):
    file = f"{coco[0]}/annotations/instances_train2017.json"

    files = survey(file, masks={"images": f"{coco[1]}/train2017{end}"}).files

    assert [entry.path for entry in files] == [f"{coco[1]}/train2017/{name}" for name in NAMES]
    assert files[0].targets == (f"coco:{file}#10",)


def record_listings(bucket, monkeypatch):
    """Returns the list that receives each folder that is listed from now on."""
    listed, find = [], type(bucket[0]).find

    def record(self, path, *arguments, **options):
        listed.append(path)
        return find(self, path, *arguments, **options)

    monkeypatch.setattr(type(bucket[0]), "find", record)
    return listed


def test_nothing_above_a_bucket_is_asked_for(coco, bucket, tmp_path, monkeypatch):
    top = bucket[2].removesuffix("/photos")
    for name in NAMES:
        bucket[0].copy(f"{bucket[1]}-coco/train2017/{name}", f"/{tmp_path.name}/{name}")
    send(bucket, tmp_path, f"{top}/a.json", NAMES)
    listed = record_listings(bucket, monkeypatch)

    assert survey(f"{top}/a.json").files[0].path == f"{top}/0.png"
    assert {path.split("/")[1] for path in listed} == {tmp_path.name}


def test_each_folder_is_listed_once_and_the_annotations_are_copied_once(coco, bucket, monkeypatch):
    listed = record_listings(bucket, monkeypatch)
    copied = count_reads(bucket[0], monkeypatch)
    recipe = read(f"{coco[1]}/annotations/instances_train2017.json")

    check_recipe(recipe)
    assert len(listed) == len(set(listed))
    check_recipe(recipe)

    assert copied == [f"{bucket[1]}-coco/annotations/instances_train2017.json"]


def test_a_folder_that_nobody_may_list_is_a_guess_that_failed(coco, bucket, monkeypatch):
    find, denied = type(bucket[0]).find, f"{bucket[1]}-coco/annotations/images"

    def refuse(self, path, *arguments, **options):
        if path == denied.removesuffix("/images"):
            raise PermissionError("Access Denied")
        return find(self, path, *arguments, **options)

    monkeypatch.setattr(type(bucket[0]), "find", refuse)
    listed = record_listings(bucket, monkeypatch)
    file = f"{coco[1]}/annotations/instances_train2017.json"

    assert survey(file).files[0].path == f"{coco[1]}/train2017/0.png"
    assert f"{bucket[1]}-coco" not in listed  # all images were found before
    bucket[0].rm(f"{bucket[1]}-coco/train2017", recursive=True)
    with pytest.raises(DataError, match="Access Denied"):
        survey(file)


def test_images_are_found_in_a_folder_of_the_split_in_a_whole_path(coco):
    folder, file = coco[0], coco[0] / "annotations/instances_train2017.json"
    (folder / "all").mkdir()
    (folder / "train2017").rename(folder / "all/train2017")

    files = survey(str(file), masks={"images": str(folder / "all")}).files

    assert files[0].path == f"{folder}/all/train2017/0.png"


def test_validation_and_test_are_addresses_too(coco, bucket, tmp_path):
    file = f"{coco[1]}/annotations/instances_train2017.json"
    send(bucket, tmp_path, f"{coco[1]}/annotations/instances_val2017.json", NAMES[6:])
    send(bucket, tmp_path, file, NAMES[:6])
    bucket[0].copy(f"{bucket[1]}-coco/train2017", f"{bucket[1]}-coco/val2017", recursive=True)

    counts = check_recipe(
        read(file, validation=f"{coco[1]}/annotations/instances_val2017.json")
    ).survey.counts

    assert {split: sum(each.values()) for split, each in counts.items()} == {
        "train": 6, "validation": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["0.png", "9.png"], "names 1 images that are no files: {}/train2017/9.png"),
        (["0.png", "../secret.png"], "outside the folder of images: {}/secret.png"),
        (["0.png", "0.png"], "names 1 images twice: {}/train2017/0.png"),
    ],
)
def test_wrong_images_are_named_by_their_addresses(coco, bucket, tmp_path, names, words):
    file = f"{coco[1]}/annotations/instances_train2017.json"
    bucket[0].copy(f"{bucket[1]}-coco/train2017/0.png", f"{bucket[1]}-coco/secret.png")
    send(bucket, tmp_path, file, names)

    with pytest.raises(DataError) as caught:
        survey(file)
    assert f"data.train: '{file}' " in str(caught.value)
    assert words.format(coco[1]) in str(caught.value)
    if "outside" in words:
        assert survey(file, links="follow").files[0].path == f"{coco[1]}/secret.png"


def test_a_wrong_or_missing_file_is_named_by_its_address(coco, bucket, tmp_path):
    file = f"{coco[1]}/annotations/instances_train2017.json"
    bucket[0].pipe(file.removeprefix("memory:/"), b"{no json")

    with pytest.raises(DataError, match=rf"'{file}' is no JSON") as caught:
        survey(file)
    assert str(tmp_path / "cache") not in str(caught.value)
    with pytest.raises(DataError, match=rf"data\.train: {coco[1]}/none.json  no such object"):
        survey(f"{coco[1]}/none.json")
    with pytest.raises(DataError, match="holds annotations of COCO") as caught:
        survey(coco[1])
    assert caught.value.problems[0].hint == f"data.train={file}"


def test_credentials_in_the_name_of_an_image_are_not_repeated(coco, bucket, tmp_path):
    file = f"{coco[1]}/annotations/instances_train2017.json"
    names = [f"s3://me:{SECRET}@b/0.png", f"s3://b/1.png?token={SECRET}"]
    send(bucket, tmp_path, file, [*NAMES, *names])

    with pytest.raises(DataError, match="names 2 images that are no files") as caught:
        survey(file)

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("typed", [False, True])
def test_credentials_in_the_folder_of_images_are_refused(coco, typed):
    images = f"s3://me:{SECRET}@b/train2017"
    masks = {} if typed else {"masks": {"images": images}}
    changes = [f"data.masks.images={images}"] if typed else []

    with pytest.raises(RecipeError, match=r"(?s)data\.masks\.images.*without cred") as caught:
        read(f"{coco[1]}/a.json", *changes, **masks)

    assert SECRET not in str(caught.value)


def test_offline_the_copy_and_the_last_listings_are_taken(coco, bucket, tmp_path, monkeypatch):
    file = f"{coco[1]}/annotations/instances_train2017.json"
    first = survey(file)
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    send(bucket, tmp_path, file, NAMES[:2])

    assert survey(file) == first


def test_a_host_without_a_copy_fetches_it_for_the_first_mask(coco):
    file = f"{coco[1]}/annotations/instances_train2017.json"
    survey(file)
    mirror_of_file(file).unlink()

    assert read_annotations(f"coco:{file}#12").name == "2.png"


def test_a_host_with_an_older_copy_asks_for_the_present_one_once(
    coco, bucket, tmp_path, monkeypatch
):
    file = f"{coco[1]}/annotations/instances_train2017.json"
    survey(file)
    send(bucket, tmp_path, file, NAMES[::-1])

    assert read_annotations(f"coco:{file}#10").name == "7.png"
    copied = count_reads(bucket[0], monkeypatch)
    send(bucket, tmp_path, file, NAMES)
    assert read_annotations(f"coco:{file}#11").name == "6.png"
    assert copied == []


def test_init_of_a_folder_on_a_store_writes_a_recipe_that_is_valid(coco, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    done = tltool("init", coco[1], "-o", "r.yaml", cwd=tmp_path)
    checked = tltool("validate", "r.yaml", cwd=tmp_path)

    assert "task: segmentation, by annotations of COCO" in done.stderr
    line = f'  train: "{coco[1]}/annotations/instances_train2017.json"\n'
    assert line in (tmp_path / "r.yaml").read_text()
    assert "images   8 to be split" in checked.stderr


@pytest.mark.slow
def test_a_run_equals_one_on_files(coco, tmp_path):
    rows = []
    for source in map(str, coco):
        file = f"{source}/annotations/instances_train2017.json"
        run = tl.finetune(read(file, validation=0.25).recipe, out=tmp_path / f"run{len(rows)}")
        metrics = json.loads((run.path / "metrics.json").read_text())["validation"]
        measured = run.evaluate(file)
        assert measured.pop("split") == file
        rows.append(
            [metrics, measured, (run.path / "manifest.csv").read_text().replace(source, "")]
        )

    assert rows[0] == rows[1]
    assert rows[0][2].count("coco:/annotations/") == 8
    assert (
        tl.check_data(
            read(f"{coco[1]}/annotations/instances_train2017.json").recipe, features=False
        ).images
        == 8
    )
