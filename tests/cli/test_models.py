"""`tltool models`, and the Python functions behind it: numbers, diagrams, experiments."""

import json
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

import tl_toolkit as tl
from tests.command import tltool
from tests.models import build_transfer
from tl_toolkit.catalog.lookup import find_architecture
from tl_toolkit.cli.models import models_command


def models(*arguments):
    """Runs `tltool models ...` in this process; returns what it printed on stdout."""
    done = CliRunner().invoke(models_command, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "lenet5",
        "vgg_tiny",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("alexnet", "unet", "convnext_tiny", "nasnet_mobile")
        ),
    ],
)
def test_totals_equal_count_params_of_the_model_with_the_papers_head(name):
    size = {"lenet5": 32, "alexnet": 67, "unet": 32}.get(name, 64)
    actual = tl.describe_architecture(name, image_size=(size, size), num_classes=7)

    head = dict(find_architecture(name).head or {})
    whole = build_transfer(name, classes=7, head=head, size=(size, size)).model
    assert actual.parameters == whole.count_params()
    for rows in (actual.blocks, actual.units, actual.layers):
        assert sum(row.parameters for row in rows) == actual.parameters
        assert sum(row.trainable for row in rows) == actual.trainable
        assert sum(row.multiply_accumulates for row in rows) == actual.multiply_accumulates
        assert sum(row.activation_bytes for row in rows) == actual.activation_bytes
    assert actual.blocks[-1].block == "head" and actual.blocks[-1].shape == (7,)


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "expected"), [(1, 1.135e9), (2, 0.724e9)])
def test_alexnet_has_the_known_multiply_accumulates(groups, expected):
    actual = tl.describe_architecture("alexnet", {"groups": groups}, num_classes=1000)

    assert actual.multiply_accumulates == pytest.approx(expected, rel=1e-3)
    assert actual.blocks[-2].receptive_field == (195, 195)


def test_unfreezing_moves_the_trainable_share_and_the_head_always_trains():
    actual = tl.describe_architecture("mobilenet", {"alpha": 0.25}, unfreeze=1, num_classes=5)

    shares = {row.block: row.trainable for row in actual.blocks}
    assert [name for name, count in shares.items() if count] == ["block5", "head"]
    assert shares["block5"] == 101_760


def test_show_prints_blocks_and_on_request_units_and_layers():
    size = ["mobilenet", "--input-size", 64]
    blocks, units, layers = (
        models("show", *size, *more) for more in ([], ["--units"], ["--layers"])
    )

    assert "block5" in blocks and "conv_dw_12" not in blocks
    assert "conv_dw_12" in units and "conv_pw_12_bn" not in units
    assert "conv_pw_12_bn" in layers
    assert "ceil(64/2) = 32" in layers and "1,024" in layers
    assert "3,228,864 parameters" in blocks
    assert "reads 1,984 channels: conv_pw_1_relu, conv_pw_3_relu" in blocks


def test_show_with_json_has_rows_of_all_three_levels_and_totals():
    actual = json.loads(models("show", "vgg_tiny", "--classes", 3, "--json"))

    assert actual["family"] == "vgg_tiny" and actual["input_size"] == [32, 32]
    assert [row["block"] for row in actual["rows"]][-1] == "head"
    assert actual["totals"]["parameters"] == sum(row["parameters"] for row in actual["units"])
    assert actual["layers"][0]["kind"] == "Conv2D"
    assert list(actual["taps"].values()) == [16, 24, 48, 96]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xception", "efficientnet_b1"])
def test_maps_are_those_of_images_padded_to_whole_cells(name):
    # Their default sizes, 299 and 240, are none of theirs.
    actual = tl.describe_architecture(name)

    assert tuple(actual.taps) == find_architecture(name).taps


def test_the_list_fits_80_columns_and_its_json_names_families():
    table = models("list")
    records = json.loads(models("list", "--json"))

    assert max(map(len, table.splitlines())) <= 80
    assert all(record["family"] for record in records)


def test_draw_writes_a_diagram_that_shows_what_trains(tmp_path):
    models("draw", "vgg_tiny", "-o", tmp_path / "net.svg", "--unfreeze", 1, "--classes", 3)

    document = (tmp_path / "net.svg").read_text()
    ElementTree.fromstring(document)
    assert "block4" in document and "4 × 4 × 96" in document


@pytest.mark.slow
@pytest.mark.parametrize("typed", [["alpha=0.25"], ["--set", "alpha=0.25"]])
def test_show_draw_and_probe_take_arguments_in_one_way(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = models("show", "mobilenet", *typed, "--input-size", 32)
    models("draw", "mobilenet", *typed, "--input-size", 32)
    probe = json.loads(models("probe", "mobilenet", *typed, "--input-size", 32, "--json"))

    assert "argument alpha=0.25  (0.03125 to 4, default 1.0)" in shown
    assert "MobileNet alpha=0.25: 218,544 parameters" in shown
    assert ">MobileNet alpha=0.25" in (tmp_path / "mobilenet.svg").read_text()
    assert [block["shape"][-1] for block in probe["blocks"]][-1] == 256


@pytest.mark.slow
def test_probe_takes_folders_and_files(tmp_path, draw_photos):
    photos = draw_photos(tmp_path / "photos", count=2)
    odd = photos / "a=1.jpg"
    odd.write_bytes((photos / "ants" / "0.jpg").read_bytes())

    probe = json.loads(models("probe", "lenet5", photos / "bees", odd, "--json"))

    assert probe["num_images"] == 3 and probe["images"] == "given"


def test_draw_writes_to_stdout_where_the_file_is_a_dash(tmp_path):
    done = tltool("models", "draw", "lenet5", "-o", "-", cwd=tmp_path)

    assert done.stdout.startswith("<svg") and not list(tmp_path.iterdir())


def test_draw_refuses_a_name_that_is_no_svg(tmp_path):
    done = CliRunner().invoke(models_command, ["draw", "vgg_tiny", "-o", str(tmp_path / "a.png")])

    assert done.exit_code == 2 and ".svg" in done.output


@pytest.mark.slow
def test_probe_says_which_blocks_are_equivariant_and_that_images_were_drawn():
    table = models("probe", "vgg_tiny")
    actual = json.loads(models("probe", "vgg_tiny", "--json"))

    assert "4 images, drawn in code" in table
    assert actual["blocks"][0]["is_exact"] and actual["blocks"][0]["relative"] < 1e-5
    assert not actual["blocks"][-1]["is_exact"]
