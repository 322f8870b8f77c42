import json

import pytest

from tl_toolkit.architectures import generate
from tl_toolkit.architectures.generate import describe_blocks, describe_shapes
from tl_toolkit.catalog.lookup import ARCHITECTURES, BLOCKS_FILE, SHAPES_FILE
from tl_toolkit.catalog.registry import RECORDS


def recorded(path, name):
    return json.loads(path.read_text(encoding="utf-8"))[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet5", "vgg11", "mobilenet"])
def test_both_files_are_what_the_graphs_give(name):
    assert recorded(BLOCKS_FILE, name) == describe_blocks(ARCHITECTURES[name])
    assert recorded(SHAPES_FILE, name) == describe_shapes(ARCHITECTURES[name])


@pytest.mark.slow
@pytest.mark.turns
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_files_are_what_the_graphs_of_all_give(name):
    assert recorded(BLOCKS_FILE, name) == describe_blocks(ARCHITECTURES[name])
    assert recorded(SHAPES_FILE, name) == describe_shapes(ARCHITECTURES[name])


def test_one_name_changes_one_entry(tmp_path, monkeypatch):
    files = {"BLOCKS_FILE": BLOCKS_FILE, "SHAPES_FILE": SHAPES_FILE}
    for name, path in files.items():
        entries = json.loads(path.read_text(encoding="utf-8")) | {"lenet5": "old"}
        (tmp_path / name).write_text(json.dumps(entries))
        monkeypatch.setattr(generate, name, tmp_path / name)

    generate.main(["lenet5"])

    for name, path in files.items():
        assert (tmp_path / name).read_text() == path.read_text(encoding="utf-8")


def test_an_unknown_name_is_refused():
    with pytest.raises(SystemExit, match="lenet6"):
        generate.main(["lenet6"])


def test_no_record_is_left_in_the_files_that_the_registry_does_not_have():
    for path in (BLOCKS_FILE, SHAPES_FILE):
        assert list(json.loads(path.read_text(encoding="utf-8"))) == [r.name for r in RECORDS]
