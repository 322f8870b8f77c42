"""The page of a server in a real browser: a process of its own, Chromium."""

import pytest

import tl_toolkit as tl
from tests.devtools import open_browser
from tests.serving.models import NAMES, Doubtful, Masks, Values, draw_image, write_model


@pytest.fixture(scope="module")
def page():
    with open_browser() as page:
        yield page


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "<b>red.png"
    path.write_bytes(draw_image(255))
    return path


def wait_for_answer(page):
    page.wait("!document.getElementById('answer').hidden")


def text_of(page, selector):
    return page.run(f"document.querySelector({selector!r}).innerText")


def test_an_image_that_is_dropped_is_answered(page, server, photo):
    page.open(server.url)
    assert page.inspect() == []

    page.drop("body", photo)
    wait_for_answer(page)

    assert text_of(page, "h2") == NAMES[1]
    rows = [line.split("\t") for line in text_of(page, "tbody").splitlines() if "\t" in line]
    assert [row[-1] for row in rows] == ["1.0000", "0.0000"]
    assert text_of(page, "tbody").startswith(NAMES[1])
    assert "version: 1" in text_of(page, ".notes")
    assert page.run("document.getElementById('image').naturalWidth") == 8
    assert page.run("document.getElementById('image').alt") == "The image <b>red.png"
    assert page.inspect() == []
    assert not [line for line in page.console if server.url in line]


@pytest.mark.parametrize(("dark", "width"), [(False, 1200), (True, 375)])
def test_an_image_that_is_chosen_is_answered_on_each_screen(page, server, photo, dark, width):
    page.open(server.url, dark=dark, width=width)

    page.choose("#file", photo)
    wait_for_answer(page)

    assert text_of(page, "h2") == NAMES[1]
    assert page.inspect() == []
    assert page.run("document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_file_that_is_no_image_is_refused_in_words(page, server, tmp_path):
    (tmp_path / "x.png").write_bytes(b"<script>document.title = 'run'</script>")
    page.open(server.url)

    page.choose("#file", tmp_path / "x.png")
    page.wait("document.getElementById('fault').textContent")

    assert "The model refuses" in text_of(page, "#fault")
    assert page.run("document.getElementById('answer').hidden")
    assert page.run("document.title") == "photos"


def test_the_token_is_typed(page, small_model, photo):
    with tl.serve(small_model, port=0, token="s3cret", progress=False) as server:
        page.open(server.url)
        assert page.inspect() == []
        page.choose("#file", photo)
        page.wait("document.getElementById('fault').textContent")
        assert text_of(page, "#fault") == "a bearer token is needed"

        page.run("document.getElementById('token').value = 's3cret'")
        page.drop("body", photo)
        wait_for_answer(page)

        assert text_of(page, "h2") == NAMES[1]


@pytest.mark.slow
def test_a_mask_is_laid_over_its_image(page, tmp_path, photo):
    with tl.serve(write_model(tmp_path / "masks", kind=Masks), port=0, progress=False) as server:
        page.open(server.url)
        page.drop("body", photo)
        wait_for_answer(page)

        assert colours_of(page) == [[230, 159, 0, 255], [86, 180, 233, 255], [0, 0, 0, 0]]
        assert text_of(page, "h2") == "Each pixel"
        rows = text_of(page, "tbody").splitlines()
        assert rows == [f"{name}\t50.0 %" for name in NAMES]
        covers = page.run(
            "['image', 'overlay'].map(id => document.getElementById(id).getBoundingClientRect())"
            ".map(box => [box.x, box.y, box.width, box.height].map(Math.round))"
        )
        assert covers[0] == covers[1]
        assert page.run("getComputedStyle(document.getElementById('overlay')).opacity") == "0.6"
        assert page.inspect() == []

        page.run("document.querySelectorAll('[name=map]')[1].click()")
        page.wait("document.getElementById('overlay').ariaLabel === 'probability of each pixel'")

        shades = [colour[3] for colour in colours_of(page)]
        assert shades == pytest.approx([0, 0, 7 * 8000 / 257], abs=1)
        assert not [line for line in page.console if server.url in line]


def colours_of(page):
    """The colours of the overlay at the upper left, the upper right and the lower left."""
    return page.run(
        "[[0, 0], [7, 0], [0, 7]].map(([x, y]) => [...document.getElementById('overlay')"
        ".getContext('2d').getImageData(x, y, 1, 1).data])"
    )


@pytest.mark.slow
def test_what_a_model_says_of_its_limits_is_shown(page, tmp_path, photo):
    folder = write_model(tmp_path / "doubtful", kind=Doubtful)
    with tl.serve(folder, port=0, progress=False) as server:
        page.open(server.url)
        page.drop("body", photo)
        wait_for_answer(page)

        assert text_of(page, ".notes").splitlines() == [
            f"Label set: {NAMES[1]}",
            "The model does not abstain",
            "Distance from known images (ood_score): 0.000",
            "version: 1",
        ]


def test_numbers_are_shown_by_their_names(page, tmp_path, photo):
    folder = write_model(tmp_path / "numbers", kind=Values)
    with tl.serve(folder, port=0, progress=False) as server:
        page.open(server.url)
        page.drop("body", photo)
        wait_for_answer(page)

        assert text_of(page, "caption") == "Values"
        rows = text_of(page, "tbody").splitlines()
        assert rows == [f"{NAMES[0]}\t255", f"{NAMES[1]}\t127.5"]
