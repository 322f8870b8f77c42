"""Weight files on object stores: a copy of each, checked and loaded as a local file is."""

import hashlib
import json

import keras
import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.stores import count_reads, recipe_of
from tl_toolkit.architectures.lenet import build_lenet5
from tl_toolkit.errors import RecipeError, WeightsError
from tl_toolkit.events import ignore
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.recipe.load import dump_recipe, read_recipe
from tl_toolkit.recipe.remote import mirror_of_file
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.sources.addresses import find_weights_file
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.training.filling import FillContext, fill_part
from tl_toolkit.training.prepare import survey_images

SECRET = "hunter2"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Weights of LeNet-5's base, in the three forms that Keras writes."""
    folder = tmp_path_factory.mktemp("weights")
    keras.utils.set_random_seed(0)
    pixels = keras.Input((32, 32, 1))
    model = keras.Model(pixels, build_lenet5(pixels))
    model.save_weights(folder / "lenet.weights.h5")
    for name in ("lenet.keras", "lenet.h5"):
        model.save(folder / name)
    return folder


@pytest.fixture
def send(bucket, saved):
    """Returns a function that sends a file of weights to the store, and returns its address."""

    def send(name="lenet.weights.h5", content=None):
        content = (saved / name).read_bytes() if content is None else content
        bucket[0].pipe(f"{bucket[1]}-weights/{name}", content)
        return f"{bucket[2]}-weights/{name}"

    send.root = f"{bucket[1]}-weights"
    return send


def read(address, weights, *changes):
    values = recipe_of(address)
    return read_recipe({**values, "model": {"base": "lenet5", "weights": weights}}, changes)


@pytest.mark.parametrize("name", ["lenet.weights.h5", "lenet.keras", "lenet.h5"])
def test_a_file_of_weights_is_copied_and_checked(bucket, send, saved, name, tmp_path):
    address = send(name)

    plan = check_recipe(read(bucket[2], address))
    (tmp_path / "recipe.yaml").write_text(dump_recipe(plan.recipe))

    assert plan.weights_file == mirror_of_file(address)
    assert plan.weights_file.read_bytes() == (saved / name).read_bytes()
    assert plan.recipe.model.weights == address
    assert f'weights: "{address}"' in dump_recipe(plan.recipe)
    assert read_recipe(tmp_path / "recipe.yaml").recipe == plan.recipe


def test_a_file_that_has_not_changed_is_copied_once(bucket, send, saved, monkeypatch):
    address = send()
    copied = count_reads(bucket[0], monkeypatch)

    check_recipe(read(bucket[2], address))
    check_recipe(read(bucket[2], address))
    assert copied == [f"{send.root}/lenet.weights.h5"]

    send(content=(saved / "lenet.h5").read_bytes())
    plan = check_recipe(read(bucket[2], address))
    assert len(copied) == 2
    assert plan.weights_file.read_bytes() == (saved / "lenet.h5").read_bytes()


def test_validate_names_the_address_of_what_is_wrong(bucket, send, saved, tmp_path):
    whole = (saved / "lenet.weights.h5").read_bytes()
    contents = {"cut.h5": whole[:-50], "page.h5": b"<!DOCTYPE html><html>no</html>", "none.h5": b""}
    words = {"cut.h5": "is cut off", "page.h5": "error page", "none.h5": "is empty"}

    for name, content in contents.items():
        address = send(name, content)
        (tmp_path / "r.yaml").write_text(dump_recipe(read(bucket[2], address).recipe))
        text = tltool("validate", "r.yaml", cwd=tmp_path, code=3).stderr
        assert f"model.weights: '{address}' " in text and words[name] in text
        assert str(tmp_path / "cache") not in text


def test_a_missing_file_and_a_wrong_folder_are_named_together(bucket, tmp_path):
    values = dump_recipe(read(f"{bucket[2]}/ants", f"{bucket[2]}/none.h5").recipe)
    (tmp_path / "r.yaml").write_text(values)

    text = tltool("validate", "r.yaml", cwd=tmp_path, code=3).stderr

    assert f"model.weights: {bucket[2]}/none.h5 no such object" in text
    assert "data.train" in text


def test_a_near_name_is_offered_for_a_file_that_is_missing(bucket, send):
    address = send()

    with pytest.raises(WeightsError, match="did you mean 'lenet.weights.h5'"):
        find_weights_file(address.replace("weights.h5", "weigths.h5"))


def test_validate_names_the_address_where_all_is_well(bucket, send, tmp_path):
    address = send()
    (tmp_path / "r.yaml").write_text(dump_recipe(read(bucket[2], address).recipe))

    text = tltool("validate", "r.yaml", cwd=tmp_path).stderr

    assert f"weights {address}" in text


@pytest.mark.parametrize(
    "address",
    [
        f"s3://me:{SECRET}@b/w.h5",
        f"s3://b/w.h5?sig={SECRET}",
        f"gs://b/w.h5#{SECRET}",
    ],
)
@pytest.mark.parametrize("typed", [False, True])
def test_credentials_in_an_address_are_refused_and_not_repeated(address, typed):
    with pytest.raises(RecipeError, match=r"(?s)model\.weights.*without credentials") as caught:
        read("photos", "random" if typed else address, *([f"model.weights={address}"] * typed))

    assert SECRET not in str(caught.value)
    with pytest.raises(WeightsError, match="without credentials") as refused:
        find_weights_file(address)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("address", ["s3://b/", "s3://b", "s3://b/.w.h5"])
def test_an_address_of_no_file_is_refused(address):
    with pytest.raises(RecipeError, match=r"(?s)model\.weights.*expected s3://"):
        read("photos", address)


def test_what_a_store_says_of_secrets_is_hidden(bucket, send, monkeypatch):
    address = send()

    def fail(*arguments, **options):
        raise OSError(f"403 for https://b/w.h5?sig={SECRET}")

    monkeypatch.setattr(bucket[0], "info", fail)

    with pytest.raises(WeightsError, match="403 for https") as caught:
        check_recipe(read(bucket[2], address))
    assert SECRET not in str(caught.value)


def test_offline_the_copy_is_taken(bucket, send, monkeypatch):
    address = send()
    check_recipe(read(bucket[2], "random"))
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    with pytest.raises(WeightsError, match=rf"model\.weights: {address} is not in the cache"):
        check_recipe(read(bucket[2], address))
    monkeypatch.delenv("TL_TOOLKIT_OFFLINE")
    check_recipe(read(bucket[2], address))
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    send(content=b"another file by now")

    assert check_recipe(read(bucket[2], address)).weights_file == mirror_of_file(address)


@pytest.mark.slow
def test_a_base_embeds_with_weights_of_a_store(bucket, send, saved, tmp_path):
    address = send()
    local = str(saved / "lenet.weights.h5")

    outputs = [
        tl.embed("lenet5", tmp_path / "photos", weights=weights, image_size=32).vectors
        for weights in (address, local)
    ]

    assert (outputs[0] == outputs[1]).all()


@pytest.mark.slow
def test_a_run_records_the_weights_by_address_and_digest(bucket, send, saved, tmp_path):
    address = send()
    digest = hashlib.sha256((saved / "lenet.weights.h5").read_bytes()).hexdigest()
    runs = [
        tl.finetune(read(bucket[2], weights).recipe, out=tmp_path / name)
        for name, weights in {
            "remote": address,
            "local": str(saved / "lenet.weights.h5"),
        }.items()
    ]

    locks = [json.loads((run.path / "lock.json").read_text()) for run in runs]
    receipts = [
        [receipt.read_text() for receipt in sorted(run.path.glob("phases/*/receipt.json"))]
        for run in runs
    ]
    assert (locks[0]["weights"], locks[0]["weights_sha256"]) == (address, digest)
    assert locks[1]["weights_sha256"] == digest
    assert receipts[0] == receipts[1] != []
    assert str(tmp_path / "cache") not in (tmp_path / "remote" / "lock.json").read_text()
    assert "equal bit for bit" in tltool("reproduce", "remote", cwd=tmp_path).stderr


def test_weights_that_cannot_be_loaded_are_named_by_their_address(send):
    wrong, cut = send(), send("cut.weights.h5", b"junk")

    for address, words in ((wrong, "does not fit the network"), (cut, "is a text file")):
        with pytest.raises(WeightsError, match=rf"^{address}  {words}"):
            tl.probe_architecture("vgg_tiny", image_size=32, weights=address)


def test_a_worker_that_fills_the_feature_store_has_a_copy_of_its_own(
    bucket, send, tmp_path, monkeypatch
):
    address = send()
    plan = check_recipe(read(bucket[2], address, "features.store=always", "data.validation=0.25"))
    manifest, _ = survey_images(
        plan, build_task(plan.recipe, plan.classes), RunFolder(tmp_path / "run"), ignore
    )
    context = FillContext.of(plan, manifest, ())
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "other"))
    plan.weights_file.unlink()  # it is on the other host

    assert fill_part(context) is None
    assert mirror_of_file(address).is_file()
