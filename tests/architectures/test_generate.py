import json

import pytest

from tl_toolkit.architectures.catalog import ARCHITECTURES, BLOCKS_FILE, SHAPES_FILE
from tl_toolkit.architectures.generate import describe_blocks, describe_shapes
from tl_toolkit.architectures.registry import RECORDS


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_blocks_json_is_what_the_graphs_give(record):
    recorded = json.loads(BLOCKS_FILE.read_text(encoding="utf-8"))

    assert recorded[record.name] == describe_blocks(record)


def test_shapes_json_is_what_the_graph_of_lenet_gives():
    recorded = json.loads(SHAPES_FILE.read_text(encoding="utf-8"))

    assert recorded["lenet5"] == describe_shapes(ARCHITECTURES["lenet5"])


@pytest.mark.slow
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_shapes_json_is_what_the_graphs_give(record):
    recorded = json.loads(SHAPES_FILE.read_text(encoding="utf-8"))

    assert recorded[record.name] == describe_shapes(record)


def test_no_record_is_left_in_the_files_that_the_registry_does_not_have():
    for path in (BLOCKS_FILE, SHAPES_FILE):
        assert list(json.loads(path.read_text(encoding="utf-8"))) == [r.name for r in RECORDS]
