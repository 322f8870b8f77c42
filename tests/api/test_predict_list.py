"""Predictions of a list: each row once, whatever is interrupted, and those of `predict`."""

import pytest
from pyarrow import parquet

import tl_toolkit as tl
from tests.command import tltool
from tests.conftest import draw_class_folders
from tl_toolkit.api import predict_list as module
from tl_toolkit.errors import DataError, RecipeError


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_class_folders(tmp_path_factory.mktemp("photos") / "all", count=4)


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    recipe = {
        "version": 1,
        "name": "photos",
        "data": {"train": str(photos), "validation": 0.25, "image_size": 32, "batch_size": 8},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
        "export": False,
        "report": False,
    }
    return tl.finetune(recipe, out=tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def listed(photos, tmp_path_factory):
    """A list of 13 files: one is no image, one is missing, one comes twice."""
    folder = tmp_path_factory.mktemp("list")
    (folder / "text.jpg").write_text("no image")
    images = sorted(photos.rglob("*.jpg"))[:10]
    paths = [*images[:5], folder / "text.jpg", folder / "gone.jpg", *images[5:], images[0]]
    (folder / "files.txt").write_text("".join(f"{path}\n" for path in paths))
    return folder / "files.txt"


def rows_of(folder):
    return parquet.read_table(folder).sort_by("row").to_pylist()


def test_each_line_is_a_row_with_what_predict_says(tmp_path, run, listed):
    out = tmp_path / "out"
    paths = listed.read_text().splitlines()
    expected = run.predict(paths)

    done = tl.predict_list(run.path, listed, out=out, part=3)

    rows = rows_of(out)
    assert (done.rows, done.errors, done.computed) == (13, 2, 13)
    assert [row["row"] for row in rows] == list(range(13))
    assert [row["path"] for row in rows] == paths
    assert [row["label"] for row in rows] == [getattr(item, "label", None) for item in expected]
    named = [item.probabilities["ants"] if item.error is None else None for item in expected]
    assert [row["probability_ants"] for row in rows] == named
    assert [row["error"] is None for row in rows] == [item.error is None for item in expected]
    assert rows[5]["error"] == expected[5].error
    assert rows[6]["error"] == "cannot be read: No such file or directory"
    assert sorted(path.name for path in out.glob("part*")) == [
        f"part-00000{number}.parquet" for number in range(5)
    ]


def test_a_list_that_was_interrupted_goes_on_and_writes_each_row_once(
    tmp_path, run, listed, monkeypatch
):
    out = tmp_path / "out"
    predict = module.predict_part

    def stop(job, files):
        if job.number == 2:
            raise KeyboardInterrupt
        return predict(job, files)

    with monkeypatch.context() as patch:
        patch.setattr(module, "predict_part", stop)
        with pytest.raises(KeyboardInterrupt):
            tl.predict_list(run.path, listed, out=out, part=3)
    (out / "part-000001.parquet").unlink()

    result = tltool(
        "predict", run.path, "--list", listed, "--out", out, "--part", 3, cwd=tmp_path, code=3
    )

    assert "13 rows are in" in result.stderr and "3 of them before" in result.stderr
    assert "2 of 13 files could not be read" in result.stderr
    assert [row["row"] for row in rows_of(out)] == list(range(13))


def test_a_folder_of_another_list_is_refused(tmp_path, run, listed, photos):
    out = tmp_path / "out"
    first, second = (str(path) for path in sorted(photos.rglob("*.jpg"))[:2])
    tl.predict_list(run.path, [first], out=out)

    with pytest.raises(RecipeError, match="holds predictions of another list, rows"):
        tl.predict_list(run.path, [first, second], out=out)

    assert [row["path"] for row in rows_of(out)] == [first]


def test_lists_that_name_no_file_are_refused(tmp_path, run):
    (tmp_path / "empty.txt").write_text("\n")

    with pytest.raises(DataError, match="names no file"):
        tl.predict_list(run.path, tmp_path / "empty.txt", out=tmp_path / "out")
    with pytest.raises(DataError, match="cannot be read"):
        tl.predict_list(run.path, tmp_path / "gone.txt", out=tmp_path / "out")


def test_a_column_of_a_parquet_file_is_a_list(tmp_path, run, listed):
    import pyarrow

    paths = listed.read_text().splitlines()[:2]
    parquet.write_table(pyarrow.table({"path": paths, "id": [7, 8]}), tmp_path / "list.parquet")

    tl.predict_list(run.path, tmp_path / "list.parquet", out=tmp_path / "out")

    assert [row["path"] for row in rows_of(tmp_path / "out")] == paths
