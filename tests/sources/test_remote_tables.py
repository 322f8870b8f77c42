"""Tables on object stores: read as local ones, with images beside them on the store."""

import csv
import io
import json
import unicodedata
from pathlib import Path

import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.stores import count_reads, recipe_of
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import dump_recipe, read_recipe
from tl_toolkit.sources import objects, table_rows
from tl_toolkit.sources.addresses import find_source

SECRET = "hunter2"
NAMES = [(f"{name}/{number}.jpg", name) for name in ("ants", "bees") for number in range(5)]


@pytest.fixture
def table(bucket, tmp_path):
    """A table on the store, and the same one beside a local copy of the images."""
    system, root, address = bucket
    write(bucket, tmp_path, NAMES)
    return f"{address}/labels.csv"


def write(bucket, tmp_path, rows, header="path,label"):
    text = "\n".join([header, *(",".join(row) for row in rows)]) + "\n"
    (tmp_path / "photos" / "labels.csv").write_text(text)
    bucket[0].pipe(f"{bucket[1]}/labels.csv", text.encode())


def survey(table, **data):
    recipe = check_recipe(read_recipe(recipe_of(None, csv=table, **data))).recipe
    return plan_task(recipe).survey().list_files()


def test_a_table_names_images_relative_to_its_own_folder_on_the_store(bucket, table, tmp_path):
    found = check_recipe(read_recipe(recipe_of(None, csv=table)))
    (tmp_path / "recipe.yaml").write_text(dump_recipe(found.recipe))

    assert [file.path for file in survey(table).files] == [
        f"{bucket[2]}/{name}" for name, _ in NAMES
    ]
    assert found.classes == ("ants", "bees")
    assert found.recipe.data.source_name == "labels"
    assert f'csv: "{table}"' in dump_recipe(found.recipe)
    assert read_recipe(tmp_path / "recipe.yaml").recipe == found.recipe


def test_a_table_that_has_not_changed_is_read_once(bucket, table, tmp_path, monkeypatch):
    read = count_reads(bucket[0], monkeypatch)

    survey(table)
    monkeypatch.setattr(objects, "_facts", {})  # as in a new process
    survey(table)
    assert read == [f"{bucket[1]}/labels.csv"]

    write(bucket, tmp_path, NAMES[1:])
    assert len(survey(table).files) == 9
    assert read == [f"{bucket[1]}/labels.csv"] * 2


@pytest.mark.parametrize("source", ["train", "csv"])
def test_a_recipe_that_names_an_address_is_checked(bucket, table, source):
    data = {"train": bucket[2]} if source == "train" else {"train": None, "csv": table}
    recipe = recipe_of(None)

    report = tl.check_data({**recipe, "data": {**recipe["data"], **data}}, features=False)

    assert (report.images, report.root) == (10, bucket[2])


def test_paths_are_normalized_and_whole_addresses_stay(bucket, tmp_path):
    rows = [("./ants/../ants/0.jpg", "ants"), (f"{bucket[2]}/bees/1.jpg", "bees"), *NAMES[1:6]]
    write(bucket, tmp_path, rows)

    paths = [file.path for file in survey(f"{bucket[2]}/labels.csv").files]

    assert paths[:2] == [f"{bucket[2]}/ants/0.jpg", f"{bucket[2]}/bees/1.jpg"]


def test_images_outside_the_folder_of_a_table_take_links_follow(bucket, tmp_path):
    system, root, address = bucket
    system.copy(f"{root}/ants/0.jpg", f"{root}-more/0.jpg")
    rows = [("../photos-more/0.jpg", "ants"), *NAMES]
    write(bucket, tmp_path, rows)

    with pytest.raises(DataError, match="outside its folder: line 2: 'memory://.*-more/0.jpg'"):
        survey(f"{address}/labels.csv")
    files = survey(f"{address}/labels.csv", links="follow").files

    assert files[0].path == f"{address}-more/0.jpg"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ants/9.jpg", r"labels.csv:12: no object {}/ants/9.jpg"),
        ("../../../../ants/9.jpg", "labels.csv:12: expected an address of plain folders"),
        ("bees/4.jpg", "labels.csv:12: the image of line 11 again"),
        ("", "labels.csv:12: no path"),
    ],
)
def test_wrong_rows_are_named_by_their_line(bucket, tmp_path, name, words):
    write(bucket, tmp_path, [*NAMES, (name, "ants")])

    with pytest.raises(DataError, match=words.format(bucket[2])):
        survey(f"{bucket[2]}/labels.csv")


def test_a_name_may_hold_the_signs_that_credentials_take(bucket, tmp_path):
    bucket[0].copy(f"{bucket[1]}/ants/0.jpg", f"{bucket[1]}/ants/a@2x#1.jpg")
    write(bucket, tmp_path, [*NAMES, ("ants/a@2x#1.jpg", "ants")])

    assert survey(f"{bucket[2]}/labels.csv").files[-1].path == f"{bucket[2]}/ants/a@2x#1.jpg"


@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_a_name_may_be_composed_otherwise_than_on_the_store(bucket, tmp_path, written):
    other = {"NFC": "NFD", "NFD": "NFC"}[written]
    spelled = unicodedata.normalize(other, "ants/\N{LATIN SMALL LETTER E WITH ACUTE}.jpg")
    bucket[0].copy(f"{bucket[1]}/ants/0.jpg", f"{bucket[1]}/{spelled}")
    write(bucket, tmp_path, [*NAMES, (unicodedata.normalize(written, spelled), "ants")])

    assert survey(f"{bucket[2]}/labels.csv").files[-1].path == f"{bucket[2]}/{spelled}"


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_table_of_hugging_face_is_read_by_file_name(bucket, name):
    lines = ["file_name,label", *(",".join(row) for row in NAMES)]
    if name == "metadata.jsonl":
        lines = [json.dumps({"file_name": path, "label": label}) for path, label in NAMES]
    bucket[0].pipe(f"{bucket[1]}/{name}", "\n".join(lines).encode())
    recipe = read_recipe(recipe_of(None, csv=f"{bucket[2]}/{name}")).recipe

    assert survey(f"{bucket[2]}/{name}").files[0].path == f"{bucket[2]}/ants/0.jpg"
    assert recipe.data.source_name == "photos"


def test_a_table_that_is_missing_or_too_large_is_named_by_its_address(bucket, table, monkeypatch):
    with pytest.raises(DataError, match=rf"data\.csv: {bucket[2]}/none.csv  no such object"):
        survey(f"{bucket[2]}/none.csv")
    with pytest.raises(DataError, match=rf"data\.csv: {bucket[2]}  no such object"):
        survey(bucket[2])
    monkeypatch.setattr(table_rows, "MAX_BYTES", 100)
    with pytest.raises(DataError, match=rf"data\.csv: {table}  has more than"):
        survey(table)


def test_near_names_of_the_folder_are_offered_for_a_table_that_is_missing(bucket, table):
    for field in ("csv", "exclude", "table"):
        recipe = recipe_of(None, **{"csv": table, field: f"{bucket[2]}/lables.csv"})
        if field == "table":
            del recipe["data"]["csv"]
        with pytest.raises(
            DataError, match=rf"data\.{field}: {bucket[2]}/lables.csv  no such object"
        ) as caught:
            check_recipe(read_recipe(recipe))
        assert "A file is expected; did you mean 'labels.csv'?" in str(caught.value)


@pytest.mark.parametrize("end", ["", "/nowhere"])
def test_the_name_of_bucket_and_folder_is_asked_for_where_no_name_is_near(bucket, end, monkeypatch):
    with pytest.raises(DataError, match="no such object") as caught:
        find_source(f"{bucket[2]}{end}/other.csv", "--data")

    assert str(caught.value).endswith("A file is expected.\n  Try: the name of bucket and folder")


def test_a_table_that_is_missing_is_named_where_nobody_may_list_its_folder(bucket, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(bucket[0]), "find", refuse)

    with pytest.raises(DataError, match=r"no such object\n.*\n.*the name of bucket and folder$"):
        find_source(f"{bucket[2]}/none.csv", "--data")


def test_a_table_with_another_header_is_named_by_its_address(bucket, tmp_path):
    write(bucket, tmp_path, NAMES, header="path,kind")

    with pytest.raises(DataError, match=rf"'{bucket[2]}/labels.csv' has no column label") as caught:
        survey(f"{bucket[2]}/labels.csv")
    assert str(tmp_path / "cache") not in str(caught.value)


@pytest.mark.parametrize("name", ["", "labels.csv", "b/.mirror.json", "b/", "b//"])
def test_an_address_of_no_table_is_refused(name):
    with pytest.raises(RecipeError, match=r"(?s)data\.csv.*expected s3://BUCKET/"):
        read_recipe(recipe_of(None, csv=f"s3://{name}"))


def test_what_a_store_says_of_secrets_is_hidden(bucket, table, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(f"403 for https://b/labels.csv?sig={SECRET}")

    monkeypatch.setattr(bucket[0], "info", fail)

    with pytest.raises(DataError, match=f"{table}.*403 for https") as caught:
        survey(table)
    assert SECRET not in str(caught.value)


def test_offline_the_last_copy_and_the_cache_are_taken(bucket, table, tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    with pytest.raises(DataError, match=rf"data\.csv: {table}  is not in the cache"):
        survey(table)
    monkeypatch.delenv("TL_TOOLKIT_OFFLINE")
    first = tl.check_data(table)
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    monkeypatch.setattr(objects, "_facts", {})  # as in a new process
    write(bucket, tmp_path, NAMES[1:])

    assert len(survey(table).files) == 10
    assert len(objects.read_image_file(f"{bucket[2]}/ants/0.jpg")) > 0
    assert tl.check_data(table).as_json() == first.as_json()


def test_a_listing_of_its_folder_takes_the_table_that_was_read_last(bucket, table, tmp_path):
    system, root, _ = bucket
    tl.check_data(bucket[2])  # lists the folder, and copies the table
    info, whole = dict(system.info(f"{root}/labels.csv")), system.cat(f"{root}/labels.csv")
    system.pipe(f"{root}/labels.csv", whole.replace(b"ants", b"wasp").replace(b"wasp/", b"ants/"))
    assert survey(table).classes == ("bees", "wasp")
    system.pipe(f"{root}/labels.csv", whole)
    system.store[f"{root}/labels.csv"].created = info["created"]  # exactly as it was

    tl.check_data(bucket[2])

    assert objects.mirror_of(bucket[2]).joinpath("labels.csv").read_bytes() == whole


@pytest.mark.slow
def test_a_run_of_a_table_equals_one_of_a_local_copy(bucket, table, tmp_path):
    local = tl.finetune(
        recipe_of(None, csv=str(tmp_path / "photos" / "labels.csv")), out=tmp_path / "local"
    )
    remote = tl.finetune(recipe_of(None, csv=table), out=tmp_path / "remote")

    def metrics(run):
        values = json.loads((run.path / "metrics.json").read_text())
        return values["validation"], values["best"]

    assert metrics(remote) == metrics(local)
    for name in ("manifest.csv", "predictions.csv"):
        rows = (remote.path / name).read_text()
        assert rows.replace(bucket[2], str(tmp_path / "photos")) == (local.path / name).read_text()
    digests = [receipt.read_text() for receipt in sorted(remote.path.glob("phases/*/receipt.json"))]
    assert digests
    assert digests == [
        receipt.read_text() for receipt in sorted(local.path.glob("phases/*/receipt.json"))
    ]
    assert f'csv: "{table}"' in (remote.path / "recipe.yaml").read_text()
    others = remote.evaluate(Path(table)), local.evaluate(tmp_path / "photos" / "labels.csv")
    assert [values.pop("split") for values in others] == [table, f"{tmp_path}/photos/labels.csv"]
    assert others[0] == others[1]


def test_evaluate_names_an_address_as_it_was_typed(bucket, table, tmp_path):
    for name, _ in NAMES:
        bucket[0].pipe(f"{bucket[1]}/{name}", b"no image")
    run = tmp_path / "run"
    run.mkdir()
    recipe = dump_recipe(read_recipe(recipe_of(None, csv=table)).recipe)
    contents = {"classes.json": '["ants", "bees"]', "status.json": "{}", "recipe.yaml": recipe}
    for name, text in {**contents, "model.keras": ""}.items():
        (run / name).write_text(text)

    text = tltool("evaluate", run, "--data", table, cwd=tmp_path, code=3).stderr

    assert f"{table}  holds no image that can be decoded" in text


def splits_of(text):
    return {row["path"]: row["split"] for row in csv.DictReader(io.StringIO(text))}


@pytest.mark.parametrize("source", ["", "/labels.csv"])
def test_a_split_of_a_store_equals_that_of_a_local_copy(bucket, table, tmp_path, source):
    local, remote = tmp_path / "local.csv", tmp_path / "remote.csv"

    tl.split_data(f"{tmp_path}/photos{source}", local, exact=True)
    result = tltool(
        "data", "split", f"{bucket[2]}{source}", "-o", remote, "--exact", cwd=tmp_path, code=None
    )

    found = splits_of(remote.read_text())
    assert result.returncode == 0
    assert found == {
        name.replace("photos", bucket[2], 1): split
        for name, split in splits_of(local.read_text()).items()
    }
    assert set(found.values()) == {"train", "validation"}
    assert f"Next: data.csv={remote} data.links=follow" in result.stderr
    assert len(survey(str(remote), links="follow").files) == 10
    assert tl.split_data(f"{bucket[2]}{source}", remote, seed=1).count() == (
        tl.split_data(f"{tmp_path}/photos{source}", local, seed=1).count()
    )  # both are continued
    assert splits_of(remote.read_text()) == found


@pytest.mark.parametrize("source", ["", "/labels.csv"])
def test_init_writes_a_recipe_for_an_address(bucket, table, tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)

    result = tltool(
        "init",
        f"{bucket[2]}{source}",
        "-o",
        "new.yaml",
        "--base",
        "lenet5",
        cwd=tmp_path,
        code=None,
    )
    local = tltool(
        "init", f"photos{source}", "-o", "local.yaml", "--base", "lenet5", cwd=tmp_path, code=None
    )

    assert (result.returncode, local.returncode) == (0, 0)
    text = (tmp_path / "new.yaml").read_text()
    field = "csv" if source else "train"
    assert f'  {field}: "{bucket[2]}{source}"' in text
    assert text.replace(f'"{bucket[2]}{source}"', f"photos{source}") == (
        (tmp_path / "local.yaml").read_text()
    )
    check_recipe(read_recipe(tmp_path / "new.yaml"))


@pytest.mark.parametrize("command", [["init"], ["data", "split", "-o", "split.csv"]])
def test_commands_name_addresses_without_credentials(bucket, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)

    wrong = tltool(*command, f"s3://me:{SECRET}@b/photos", cwd=tmp_path, code=None)
    lost = tltool(*command, f"{bucket[2]}/none", cwd=tmp_path, code=None)

    assert wrong.returncode == 3 and "without credentials" in wrong.stderr
    assert SECRET not in wrong.stderr
    assert lost.returncode == 3 and f"{bucket[2]}/none" in lost.stderr
    assert "cache" not in lost.stderr


def test_a_wrong_table_or_folder_is_named_by_its_address(bucket, tmp_path):
    write(bucket, tmp_path, [*NAMES, ("ants/9.jpg", "ants")])
    bucket[0].pipe(f"{bucket[1]}/kinds.csv", b"file,kind\nants/0.jpg,a\n")
    bucket[0].pipe(f"{bucket[1]}/notes/a.txt", b"no image")
    for form in ("NFC", "NFD"):  # two folders of one class
        name = unicodedata.normalize(form, "\N{LATIN SMALL LETTER E WITH ACUTE}")
        bucket[0].copy(f"{bucket[1]}/ants/0.jpg", f"{bucket[1]}/twice/{name}/0.jpg")
    for name in ("train", "test"):
        bucket[0].copy(f"{bucket[1]}/ants", f"{bucket[1]}/sets/{name}/ants", recursive=True)
    commands = [
        (["data", "split", f"{bucket[2]}/kinds.csv", "-o", "-"], f"'{bucket[2]}/kinds.csv' has"),
        (["data", "split", f"{bucket[2]}/sets", "-o", "-"], f"{bucket[2]}/sets  holds splits"),
        (["data", "check", f"{bucket[2]}/twice"], f"{bucket[2]}/twice"),
        (["data", "check", f"{bucket[2]}/bees/0.jpg"], f"{bucket[2]}/bees/0.jpg"),
        (["data", "check", f"{bucket[2]}/labels.csv"], "labels.csv:12: no object memory://"),
        (["init", f"{bucket[2]}/kinds.csv"], f"{bucket[2]}/kinds.csv  has no column path"),
        (["init", f"{bucket[2]}/notes"], f"'{bucket[2]}/notes' holds nothing"),
    ]

    for command, words in commands:
        text = tltool(*command, cwd=tmp_path, code=3).stderr
        assert words in text
        assert str(tmp_path / "cache") not in text


def test_a_report_on_a_table_names_its_address(bucket, table):
    report = tl.check_data(table)

    assert (report.source, report.root, report.images) == (table, bucket[2], 10)


def test_a_table_on_a_store_names_files_of_this_machine_with_links_follow_alone(bucket, tmp_path):
    write(bucket, tmp_path, [*NAMES, (f"{tmp_path}/photos/ants/0.jpg", "ants")])

    with pytest.raises(DataError, match="outside its folder: line 12"):
        survey(f"{bucket[2]}/labels.csv")
    files = survey(f"{bucket[2]}/labels.csv", links="follow").files

    assert files[-1].path == f"{tmp_path}/photos/ants/0.jpg"


def test_images_are_left_out_by_a_table_on_the_store(bucket, tmp_path):
    bucket[0].pipe(
        f"{bucket[1]}/exclude.csv", f"path\nants/0.jpg\n{bucket[2]}/bees/1.jpg\n".encode()
    )
    recipe = read_recipe(recipe_of(bucket[2], exclude=f"{bucket[2]}/exclude.csv")).recipe

    listing = plan_task(check_recipe(read_recipe(recipe)).recipe).survey().list_files()

    assert len(listing.files) == 8
    assert listing.excluded.describe() == f"2 images left out by {bucket[2]}/exclude.csv"
    assert f'exclude: "{bucket[2]}/exclude.csv"' in dump_recipe(recipe)
    assert tl.check_data(recipe, features=False).images == 8


def test_a_table_on_the_store_leaves_out_files_of_this_machine(bucket, tmp_path):
    bucket[0].pipe(f"{bucket[1]}/exclude.csv", f"path\n{tmp_path}/photos/ants/0.jpg\n".encode())

    report = check_recipe(
        read_recipe(recipe_of(f"{tmp_path}/photos", exclude=f"{bucket[2]}/exclude.csv"))
    )

    assert len(report.listing.files) == 9


def test_a_table_that_leaves_out_what_is_not_there_is_named_by_its_address(bucket):
    address = f"{bucket[2]}/exclude.csv"
    bucket[0].pipe(f"{bucket[1]}/exclude.csv", b"path\nants/none.jpg\nnone/0.jpg\n")
    with pytest.raises(
        DataError, match=rf"'{address}' names no file that exists, as '{bucket[2]}/"
    ):
        check_recipe(read_recipe(recipe_of(bucket[2], exclude=address)))
    bucket[0].pipe(f"{bucket[1]}/exclude.csv", b"file\nants/none.jpg\n")
    with pytest.raises(DataError, match=rf"'{address}' has no column path"):
        check_recipe(read_recipe(recipe_of(bucket[2], exclude=address)))
    with pytest.raises(DataError, match=rf"data\.exclude: {bucket[2]}/none.csv  no such object"):
        check_recipe(read_recipe(recipe_of(bucket[2], exclude=f"{bucket[2]}/none.csv")))


def test_images_that_no_class_uses_are_not_missed(bucket):
    bucket[0].pipe(f"{bucket[1]}/exclude.csv", b"path\nants/0.jpg\nwasps/0.jpg\nwasps/1.jpg\n")
    bucket[0].copy(f"{bucket[1]}/ants/0.jpg", f"{bucket[1]}/wasps/0.jpg")
    data = {"exclude": f"{bucket[2]}/exclude.csv", "classes": ["ants", "bees"]}

    excluded = check_recipe(read_recipe(recipe_of(bucket[2], **data))).listing.excluded

    assert (excluded.images, excluded.missing) == (1, f"{bucket[2]}/wasps/1.jpg")


def test_a_secret_in_a_table_is_neither_sent_nor_repeated(bucket, tmp_path, monkeypatch):
    (tmp_path / "exclude.csv").write_text(f"path\ns3://me:{SECRET}@b/photos/0.jpg\n")

    with pytest.raises(DataError, match="names no file that exists") as caught:
        check_recipe(read_recipe(recipe_of(bucket[2], exclude=str(tmp_path / "exclude.csv"))))

    assert SECRET not in str(caught.value)
    with open(tmp_path / "exclude.csv", "a") as file:
        file.write(f"{bucket[2]}/ants/0.jpg\n")
    recipe = read_recipe(recipe_of(bucket[2], exclude=str(tmp_path / "exclude.csv")))
    words = check_recipe(recipe).listing.excluded.describe()
    assert words.endswith("names files that are not there: s3://...@b/photos/0.jpg")


def test_images_of_a_store_out_of_reach_count_as_missing(bucket, tmp_path, monkeypatch):
    asked = []

    def refuse(self, path, *arguments, **options):
        asked.append(path)
        raise PermissionError("Access Denied")

    lines = f"path\n{tmp_path}/photos/ants/0.jpg\n{bucket[2]}/0.jpg\n{bucket[2]}/1.jpg\n"
    (tmp_path / "exclude.csv").write_text(lines)
    monkeypatch.setattr(type(bucket[0]), "find", refuse)
    values = recipe_of(f"{tmp_path}/photos", exclude=str(tmp_path / "exclude.csv"))

    listing = check_recipe(read_recipe(values)).listing

    assert (len(listing.files), listing.excluded.images) == (9, 1)
    assert listing.excluded.missing == f"{bucket[2]}/0.jpg, {bucket[2]}/1.jpg"
    assert asked == [bucket[1]]


def test_offline_the_last_table_of_what_is_left_out_is_taken(bucket, monkeypatch):
    bucket[0].pipe(f"{bucket[1]}-lists/exclude.csv", f"path\n{bucket[2]}/ants/0.jpg\n".encode())
    recipe = read_recipe(recipe_of(bucket[2], exclude=f"{bucket[2]}-lists/exclude.csv"))
    check_recipe(recipe)
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    bucket[0].pipe(f"{bucket[1]}-lists/exclude.csv", b"path\n")

    assert len(check_recipe(recipe).listing.files) == 9


def test_a_new_copy_of_a_table_leaves_older_listings_old(bucket, tmp_path):
    top, image = bucket[2].removesuffix("/photos"), f"{bucket[1]}/ants/0.jpg"
    bucket[0].pipe(f"/{tmp_path.name}/t.csv", b"path\n")
    find_source(top, "SOURCE")
    bucket[0].pipe(image, b"another image")
    find_source(bucket[2], "SOURCE")
    bucket[0].pipe(f"/{tmp_path.name}/t.csv", b"path\nphotos/ants/0.jpg\n")

    find_source(f"{top}/t.csv", "SOURCE")
    objects._facts.clear()  # as in another process

    assert objects.read_image_file(f"{bucket[2]}/ants/0.jpg") == b"another image"
