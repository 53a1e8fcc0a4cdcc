"""The page of ``zoo serve`` in a real browser: pictures, an upload, a bad file, stopping, and nothing left behind."""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import absent
from browsers import browser as browser  # the fixture
from PIL import Image
from serve_process import PATIENCE, Server
from test_serve_films import film


@pytest.fixture(scope="module", autouse=True)
def _gradio() -> None:
    if importlib.util.find_spec("gradio") is None:
        absent("the package gradio is not installed (the extra serve)")


@pytest.fixture(scope="module")
def server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ("--methods", "adain,johnson,gatys", "--max-megabytes", "1")
    with Server(tmp_path_factory.mktemp("serve"), *options) as server:
        yield server
        # Uploads, previews and results are gone.
        server.check_end()


class Visit:
    """An open page, and what it asked for and complained about."""

    def __init__(self, browser: Any, address: str) -> None:
        self.page = browser.new_page(viewport={"width": 1280, "height": 900})
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on(
            "console", lambda message: self.complaints.append(message.text) if message.type == "error" else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_function("document.querySelector('#content-preview img')?.naturalWidth > 0")

    def says(self, text: str) -> None:
        self.page.wait_for_selector(f"#message :text('{text}')")

    def size(self, pixels: int) -> None:
        box = self.page.get_by_role("spinbutton", name="Size")
        box.fill(str(pixels))
        box.press("Tab")

    def pick(self, *methods: str) -> None:
        for name in ("gatys", "adain", "johnson (trained styles)"):
            self.page.get_by_role("checkbox", name=name).set_checked(name.split()[0] in methods)

    def stylize(self) -> None:
        self.page.get_by_role("button", name="Stylise").click()

    def figures(self) -> list[list[str]]:
        return self.page.eval_on_selector_all(
            "#figures tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )


@pytest.fixture(scope="module")
def opened(browser: Any, server: Server) -> Iterator[Visit]:
    visit = Visit(browser, server.address)
    assert server.files()
    yield visit
    visit.page.close()
    # Previews and results of a closed page are deleted while the server goes on.
    patience = threading.Event()
    for _ in range(PATIENCE):
        if not server.files():
            break
        patience.wait(1)
    assert server.files() == []
    assert visit.complaints == []
    assert [url for url in visit.requests if not url.startswith((server.address, "data:", "blob:"))] == []


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(tmp_path / "holiday.png")
    return tmp_path / "holiday.png"


def test_an_upload_is_stylised_by_two_methods_with_time_and_memory(opened: Visit, server: Server, photo: Path):
    page = opened.page
    page.set_input_files("#content-drop input[type=file]", photo)
    opened.says("holiday.png: 80 x 60 pixels")
    assert "holiday.png" in page.input_value("#content-list input")
    # The upload itself is in memory only.
    assert [path for path in server.files() if path.name == "holiday.png"] == []
    opened.pick("adain", "johnson")
    assert page.input_value("#trained-list input") == "swirls"
    opened.size(64)
    opened.stylize()
    opened.says("2 pictures made.")
    adain, johnson = opened.figures()
    assert (adain[0], johnson[0], johnson[1]) == ("adain", "johnson", "swirls")
    for line in (adain, johnson):
        assert float(line[2]) > float(line[3].replace("<0.001", "0"))
        assert line[5] == "–" or float(line[5]) >= 0
    page.wait_for_function(
        "[...document.querySelectorAll('#results img')].filter(i => i.naturalWidth === 64).length === 2"
    )
    captions = page.eval_on_selector_all("#results .caption-label", "all => all.map(one => one.textContent.trim())")
    assert [re.fullmatch(r"(\w+): [\d.]+ s(, \d+ MiB)?", caption)[1] for caption in captions] == ["adain", "johnson"]


def test_a_bad_file_is_told_in_a_sentence_and_changes_nothing(opened: Visit, server: Server, tmp_path: Path):
    page = opened.page
    before = page.input_value("#style-list input")
    (tmp_path / "notes.png").write_text("these are notes")
    page.set_input_files("#style-drop input[type=file]", tmp_path / "notes.png")
    opened.says("is not an image that the zoo reads")
    message = page.inner_text("#message")
    assert message.startswith("'notes.png'")
    assert page.get_attribute("#message .fault", "role") == "alert"
    assert str(server.temporary) not in message
    assert page.input_value("#style-list input") == before
    assert [path for path in server.files() if path.name == "notes.png"] == []


def test_a_refused_order_is_told_and_the_next_one_goes_on(opened: Visit):
    before = opened.figures()
    opened.pick()
    opened.stylize()
    opened.says("No method is picked")
    assert opened.figures() == before


def test_an_optimisation_is_stopped_with_the_picture_so_far(opened: Visit):
    page = opened.page
    opened.pick("gatys")
    opened.size(64)
    opened.stylize()
    page.wait_for_selector("text=/[0-9]+\\/500/")
    page.get_by_role("button", name="Stop").click()
    opened.says("1 picture made.")
    ((name, *_, steps, _),) = opened.figures()
    assert name == "gatys"
    assert re.fullmatch(r"\d+ \(stopped\)", steps)
    assert int(steps.split()[0]) < 500


def test_the_page_allows_its_own_address_alone_and_answers_to_local_names(opened: Visit, server: Server):
    response = opened.page.request.get(server.address)
    assert response.headers["content-security-policy"].startswith("default-src 'self'")
    assert "fonts.googleapis" not in response.text()
    stranger = opened.page.request.get(server.address, headers={"Host": "example.org"})
    assert stranger.status == 421


def test_a_film_becomes_a_film_that_plays(opened: Visit, tmp_path: Path):
    page = opened.page
    film(tmp_path)
    page.set_input_files("#content-drop input[type=file]", tmp_path / "holiday.mp4")
    opened.says("holiday.mp4: a film of 64 x 48 pixels")
    opened.pick("johnson")
    opened.size(64)
    opened.stylize()
    opened.says("1 film made.")
    page.wait_for_function("document.querySelector('#results video')?.videoWidth === 64")
