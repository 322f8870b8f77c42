"""The page of a server in a real browser: a process of its own, Chromium."""

import pytest

import tl_toolkit as tl
from tests.devtools import open_browser
from tests.serving.models import NAMES, draw_image


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
    assert page.console == []


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
