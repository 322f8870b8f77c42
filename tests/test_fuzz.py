"""Short forms of tests/fuzz.py: mutated recipes and images end as documented."""

import pytest

from tests import fuzz
from tl_toolkit.runs.files import is_draft, name_draft


def test_the_recipes_that_are_damaged_are_right_before_that(tmp_path):
    fuzz.draw_photos(tmp_path)
    for text in (fuzz.TEXT, fuzz.BASE):
        (tmp_path / "x.yaml").write_text(text)

        assert fuzz.validate(tmp_path / "x.yaml")[0] == 0


def test_damaged_texts_and_bytes_of_recipes_end_with_a_documented_code(tmp_path):
    result = fuzz.fuzz_recipes(200, 1, tmp_path, by_hypothesis=False)

    assert sum(result["codes"].values()) == 200
    assert result["codes"].keys() <= set(fuzz.CODES)


@pytest.mark.slow
def test_recipes_by_the_schema_end_with_a_documented_code(tmp_path):
    pytest.importorskip("hypothesis")

    result = fuzz.fuzz_recipes(90, 2, tmp_path)

    assert sum(result["codes"].values()) == 90


def test_scan_and_training_agree_on_damaged_images(tmp_path, capfd):
    verdicts = fuzz.fuzz_images(40, 3, tmp_path)

    assert sum(verdicts.values()) == 40
    assert verdicts["good"] > 5 and verdicts["broken"] > 5


def test_a_recipe_in_json_may_hold_an_emoji_and_no_half_of_one(tmp_path):
    fuzz.draw_photos(tmp_path)
    recipe = tmp_path / "x.yaml"

    recipe.write_text(fuzz.BASE.replace('"photos"', '"\\ud83d\\ude00"'))
    code, text, _ = fuzz.validate(recipe)
    assert code == 3 and "😀' does not exist" in text
    recipe.write_text(fuzz.BASE.replace('"photos"', '"\\ud83d"'))
    code, text, _ = fuzz.validate(recipe)
    assert code == 2 and "expected text of whole characters" in text


def test_the_root_of_the_file_system_is_no_run(tmp_path):
    fuzz.draw_photos(tmp_path)
    (tmp_path / "x.yaml").write_text(fuzz.BASE[:-1] + ', "teacher": "/"}')

    code, text, _ = fuzz.validate(tmp_path / "x.yaml")

    assert code == 3 and "is no run" in text


def test_a_draft_of_the_longest_name_has_a_name_that_fits(tmp_path):
    draft = name_draft(tmp_path / ("é" * 120 + ".csv"))

    draft.touch()

    assert is_draft(draft.name) and draft.suffix == ".csv"
