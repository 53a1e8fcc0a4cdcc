"""The page in a real browser, from file://: table, chart, pictures and viewer, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import browser as browser  # the fixture
from report_runs import METHODS, write_run

from zoo.bench.plan import Cell
from zoo.download import file_sha256
from zoo.report.page import write_page
from zoo.report.tables import read_table

GATYS, ADAIN, WCT = METHODS


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "run"
    return write_page(write_run(path, sizes=(32, 64), strengths=(0.5, 1.0), lost=(GATYS, 64)))


class Visit:
    """A page that was opened, and what it asked for and complained about."""

    def __init__(self, browser: Any, index: Path, **options: Any) -> None:
        self.page = browser.new_page(viewport={"width": 1280, "height": 900}, **options)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        # Not a measure of speed: a machine that does much else is slow, not wrong.
        self.page.set_default_timeout(180_000)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(index.as_uri())

    def names(self) -> list[str]:
        """Methods of the table's visible lines, from top to bottom."""
        return self.page.eval_on_selector_all(
            "#results tbody tr:not([hidden]) th", "all => all.map(one => one.getAttribute('title'))"
        )

    def marks(self, attribute: str) -> list[str]:
        return self.page.eval_on_selector_all("#plot .mark", f"all => all.map(one => one.getAttribute('{attribute}'))")


@pytest.fixture
def visit(browser: Any, index: Path) -> Iterator[Visit]:
    visited = Visit(browser, index)
    yield visited
    visited.page.close()
    assert visited.complaints == []
    assert [url for url in visited.requests if not url.startswith(("file:", "data:"))] == []


def test_it_opens_with_table_chart_and_pictures(visit: Visit):
    page = visit.page
    assert "small@0123456789ab" in page.title()
    # Every method at two sizes and strengths, every baseline at two sizes.
    assert len(visit.names()) == 3 * 2 * 2 + 2 * 2
    assert len(visit.marks("d")) == len(visit.names()) - 2
    first = page.locator("#gallery img").first
    first.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#gallery img').naturalWidth > 0")
    assert "missing" in page.inner_text("#missing")


def test_headings_sort_best_first_and_then_the_other_way(visit: Visit):
    page = visit.page
    page.select_option("#filter-size", "32")
    page.select_option("#filter-strength", "1")
    page.uncheck("#filter-baselines")
    ssim = page.locator("#results th[data-key=ssim]")
    ssim.locator("button").click()
    assert visit.names() == [WCT, ADAIN, GATYS]
    assert ssim.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert visit.names() == [GATYS, ADAIN, WCT]
    page.locator("#results th[data-key=gram_loss] button").click()
    assert visit.names() == [WCT, ADAIN, GATYS]
    assert ssim.get_attribute("aria-sort") is None
    page.locator("#results th[data-key=name] button").click()
    assert visit.names() == [ADAIN, GATYS, WCT]


def test_lines_without_a_value_stand_last_in_both_orders(visit: Visit):
    page = visit.page
    page.select_option("#filter-size", "64")
    button = page.locator("#results th[data-key=ssim] button")
    for _ in range(2):
        button.click()
        assert visit.names()[-2:] == [GATYS, GATYS]


def test_filters_by_name_size_and_strength(visit: Visit):
    page = visit.page
    page.fill("#filter", "ADAIN")
    assert visit.names() == [ADAIN] * 4
    assert page.inner_text("#shown") == "4 lines"
    page.select_option("#filter-strength", "0.5")
    assert visit.names() == [ADAIN] * 2
    assert visit.marks("data-method") == [ADAIN] * 2
    page.fill("#filter", "nothing like it")
    assert visit.names() == []
    assert "No line" in page.text_content("#plot")


def test_the_chart_tells_exact_values_to_the_mouse_and_to_the_keyboard(visit: Visit, index: Path):
    page = visit.page
    lines = [line for line in read_table(index.parent.parent).lines if (line.size, line.strength) == (32, 1.0)]
    page.select_option("#filter-size", "32")
    page.select_option("#filter-strength", "1")
    page.select_option("#chart-y", "gram_loss")
    expected = {line.method: line.values["gram_loss"] for line in lines}
    found = dict(zip(visit.marks("data-method"), map(float, visit.marks("data-up")), strict=True))
    assert found == expected
    page.locator("#plot .mark").nth(1).hover()
    reading = page.inner_text("#reading")
    assert reading.startswith("adain, size 32, strength 1, gram loss ")
    assert float(reading.rpartition(" ")[2]) == expected[ADAIN]
    page.locator("#plot .mark").nth(2).focus()
    assert page.inner_text("#reading").startswith("wct")
    page.keyboard.press("Shift+Tab")
    assert page.inner_text("#reading") == reading
    page.select_option("#chart-x", "ssim")
    across = dict(zip(visit.marks("data-method"), map(float, visit.marks("data-across")), strict=True))
    assert across == {line.method: line.values["ssim"] for line in lines}


def test_cost_against_size_is_joined_and_logarithmic(visit: Visit):
    page = visit.page
    page.select_option("#filter-strength", "1")
    page.select_option("#chart-y", "seconds.stylize")
    page.select_option("#chart-x", "size")
    assert page.is_checked("#chart-log")
    # The method that ran out of memory has one size left, and a line needs two.
    assert page.locator("#plot polyline").count() == 2
    assert visit.marks("data-method") == [GATYS, ADAIN, ADAIN, WCT, WCT]


def test_pictures_follow_their_selectors(visit: Visit):
    page = visit.page
    assert page.locator("#gallery .row").count() == 4
    page.select_option("#picture-content", "harbour")
    assert page.locator("#gallery .row").count() == 2
    page.select_option("#picture-style", "tiles")
    page.locator("#picture-methods input").first.uncheck()
    captions = page.eval_on_selector_all("#gallery p", "all => all.map(one => one.textContent)")
    assert captions == ["content: harbour", "style: tiles", "adain", "wct"]
    alternatives = page.eval_on_selector_all("#gallery img", "all => all.map(one => one.alt)")
    assert alternatives[2] == "harbour in the style tiles, by adain"
    page.locator("#picture-methods input").first.check()
    page.select_option("#picture-size", "64")
    assert "out of memory: 7000 MiB" in page.inner_text("#gallery .empty")


def test_a_sanity_row_stands_beside_every_strength(browser: Any, tmp_path: Path):
    run = write_run(tmp_path / "run", strengths=(0.25, 0.5))
    for name in ("rows.jsonl", "run.json"):
        text = (run / name).read_text().replace("style-copy", "color-transfer")
        (run / name).write_text(text)
    for path in (run / "outputs").glob("style-copy*"):
        path.rename(path.with_name(path.name.replace("style-copy", "color-transfer")))
    page = Visit(browser, write_page(run)).page
    strengths = page.eval_on_selector_all("#picture-strength option", "all => all.map(one => one.value)")
    assert sorted(strengths) == ["0.25", "0.5"]
    for strength in strengths:
        page.select_option("#picture-strength", strength)
        assert page.locator("#gallery .empty").count() == 0
        assert page.inner_text("#picture-count") == "16 pictures of 4 pairs"
    page.close()


def test_the_viewer_compares_two_pictures_under_a_slider(visit: Visit):
    page = visit.page
    page.locator("#gallery button").nth(3).click()
    page.wait_for_selector("#viewer[open]")
    assert page.inner_text("#viewer-title") == "harbour × waves"
    left, right = (page.locator(f"#viewer-image-{side}") for side in ("left", "right"))
    assert "content__harbour" in left.get_attribute("src")
    assert "adain.zoo__harbour__waves" in right.get_attribute("src")
    assert page.evaluate("document.activeElement.id") == "viewer-slider"
    page.keyboard.press("ArrowRight")
    assert left.evaluate("one => one.style.clipPath") == "inset(0px 49% 0px 0px)"
    box = page.locator("#viewer-compare").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 5)
    page.mouse.up()
    assert int(page.input_value("#viewer-slider")) == pytest.approx(25, abs=2)
    page.wait_for_function("document.getElementById('viewer-image-right').naturalWidth === 32")
    assert right.evaluate("one => one.clientWidth") == 64
    page.check("#viewer-pixels")
    assert right.evaluate("one => one.clientWidth") == 32
    page.select_option("#viewer-left", label="wct")
    assert "wct.zoo__harbour__waves" in left.get_attribute("src")
    page.keyboard.press("Escape")
    assert page.locator("#viewer[open]").count() == 0


def test_the_viewer_steps_through_the_results_and_shows_their_scores(visit: Visit, index: Path):
    page = visit.page
    page.locator("#gallery button").nth(2).click()
    assert page.is_disabled("#viewer-previous")
    page.keyboard.press("PageDown")
    page.click("#viewer-next")
    assert "wct.zoo__harbour__waves" in page.locator("#viewer-image-right").get_attribute("src")
    text = page.inner_text("#viewer-scores")
    assert "SSIM\t0.4" in text
    file = Cell(WCT, "harbour", "waves", 32, 0, 1.0).filename
    assert file_sha256(index.parent.parent / "outputs" / file) in text
    assert "differs" not in text
    assert "stylize (s)\t0.003072" in text
    for _ in range(9):
        page.keyboard.press("PageDown")
    assert page.inner_text("#viewer-title") == "portrait × tiles"
    assert page.is_disabled("#viewer-next")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_systems_colours_and_can_be_told_otherwise(browser: Any, index: Path, scheme: str):
    visited = Visit(browser, index, color_scheme=scheme)
    page = visited.page

    def brightness() -> float:
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return float(color.partition("(")[2].split(",")[0])

    assert (brightness() > 128) == (scheme == "light")
    page.click("#theme")
    assert (brightness() > 128) == (scheme == "dark")
    assert page.get_attribute("#theme", "aria-pressed") == str(scheme == "light").lower()
    page.close()
    assert visited.complaints == []


def test_a_thousand_pictures_are_loaded_as_they_come_into_view(browser: Any, tmp_path: Path):
    contents = tuple(f"content{number}" for number in range(20))
    styles = tuple(f"style{number}" for number in range(17))
    run = write_run(tmp_path / "run", sizes=(16,), contents=contents, styles=styles)
    visited = Visit(browser, write_page(run))
    page = visited.page
    assert page.inner_text("#picture-count") == "1020 pictures of 340 pairs"
    page.locator("#gallery img").first.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#gallery img').naturalWidth > 0")
    loaded = [url for url in visited.requests if "thumbnails" in url]
    assert 0 < len(loaded) < 500
    # Twenty contents and styles are enough for intervals: drawn, and told.
    assert page.locator("#plot .interval").count() == 5
    page.locator("#plot .mark").first.focus()
    line = read_table(run).lines[0]
    bounds = line.intervals["ssim"]
    assert page.inner_text("#reading") == (
        f"gatys, num_steps=50, SSIM {line.values['ssim']}, interval {bounds.low} to {bounds.high}"
    )
    page.select_option("#picture-content", "content19")
    assert page.locator("#gallery .row").count() == 17
    page.close()
    assert visited.complaints == []
