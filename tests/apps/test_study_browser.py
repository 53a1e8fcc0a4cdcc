"""The page of a study in a real browser: answered by keyboard and by click, saved and scored, resumed, posted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import browser as browser  # the fixture
from command import run as command
from study_runs import make

from zoo.apps.study.answers import Key, read_answers
from zoo.apps.study.server import make_server


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    """Four judgements and a check in every form, three questions each; two in the check."""
    return make(tmp_path_factory.mktemp("browser"), per_judge=5, judges=1, checks=1, repeats=0)


class Sitting:
    """A judge before the page, in a profile of his own."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.url = url
        self.open()

    def open(self) -> None:
        """A new tab of the same profile."""
        self.page = self.context.new_page()
        # Not a measure of speed: a machine that does much else is slow, not wrong.
        self.page.set_default_timeout(180_000)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(self.url)

    def ready(self) -> None:
        self.page.wait_for_selector("#task[data-ready]:not([hidden])")

    def place(self) -> int:
        """The number of the question that is asked, from 1."""
        return int(self.page.inner_text("#count").split("question ")[1].split(" of ")[0])

    def count(self) -> int:
        return int(self.page.inner_text("#count").rpartition(" ")[2])

    def choose(self, how: str) -> None:
        """One answer, by key or by click on the first or second picture; returns when the next question stands."""
        self.ready()
        here, last = self.place(), self.count()
        if how.startswith("click"):
            self.page.locator(".take").nth(int(how[-1])).click()
        else:
            self.page.keyboard.press(how)
        if here < last:
            self.page.wait_for_selector(f"#count:has-text('question {here + 1} of')")

    def save(self) -> dict[str, Any]:
        with self.page.expect_download() as download:
            self.page.click("#save")
        self.file = Path(download.value.path())
        assert download.value.suggested_filename.startswith("answers-")
        return json.loads(self.file.read_text())


@pytest.fixture
def sitting(browser: Any, key: Key) -> Iterator[Sitting]:
    one = Sitting(browser, (key.path.parent / "send" / "index.html").as_uri() + "#form=1")
    yield one
    one.context.close()
    assert one.complaints == []
    assert [url for url in one.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_a_judge_answers_by_keyboard_and_click_and_the_file_is_scored(sitting: Sitting, key: Key, tmp_path: Path):
    page = sitting.page
    page.fill("#name", "Grace")
    page.click("#begin")
    how = ["ArrowLeft", "ArrowRight", "1", "2", "click0", "click1"]
    sitting.ready()
    total = sitting.count()
    assert total == sum(len(key.trials[trial]["questions"]) for trial in key.forms[0])
    expected = []
    for number in range(total):
        sitting.ready()
        shown = page.eval_on_selector_all(".take img", "all => all.map(one => one.src.slice(-17, -5))")
        texts = page.eval_on_selector_all("#task img", "all => all.map(one => one.alt)")
        assert texts == ["The photograph", "The style picture", "Result 1", "Result 2"]
        way = how[number % len(how)]
        expected.append((page.inner_text("#question"), shown, shown[way in ("ArrowRight", "2", "click1")]))
        sitting.choose(way)
    page.wait_for_selector("#end:not([hidden])")
    assert page.inner_text("#end-title") == "Thank you"
    assert f"You answered {total} of {total} questions" in page.inner_text("#end-text")
    data = sitting.save()
    assert (data["name"], data["form"], data["study"]) == ("Grace", 0, key.study)
    assert [(one["order"], one["choice"]) for one in data["answers"]] == [
        (shown, taken) for _, shown, taken in expected
    ]
    words = {"content": "keeps the content", "style": "carries the style", "prefer": "do you prefer"}
    assert all(words[one["question"]] in said for one, (said, _, _) in zip(data["answers"], expected, strict=True))
    assert all(one["seconds"] > 0 for one in data["answers"])
    # Read by the same rules as any other file, and scored.
    (answers,) = read_answers([sitting.file], key)
    assert answers.ended is not None
    arguments = ["--key", str(key.path), "--keep-all", "--format", "csv", "--out", str(tmp_path / "scores"), "-q"]
    assert command("study", "score", str(sitting.file), *arguments) == 0
    lines = (tmp_path / "scores" / "study-judges.csv").read_text().splitlines()
    assert lines[1].startswith(f"{data['judge']},1,{total},{total},2,")


def test_back_stop_and_go_on_where_it_was_left(sitting: Sitting, key: Key):
    page = sitting.page
    page.click("#begin")
    sitting.ready()
    assert page.is_disabled("#back")
    sitting.choose("ArrowLeft")
    sitting.choose("ArrowLeft")
    sitting.ready()
    page.keyboard.press("Backspace")
    sitting.ready()
    assert sitting.place() == 2
    sitting.choose("ArrowRight")
    # The enlarged picture takes the keys for itself.
    sitting.ready()
    page.locator(".option .look").first.click()
    page.wait_for_selector("#large[open]")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    assert sitting.place() == 3
    question = page.inner_text("#question")
    page.close()
    sitting.open()
    sitting.ready()
    assert (sitting.place(), sitting.page.inner_text("#question")) == (3, question)
    sitting.page.click("#pause")
    assert "You answered 2 of" in sitting.page.inner_text("#end-text")
    data = sitting.save()
    assert data["ended"] is None
    assert [one["order"].index(one["choice"]) for one in data["answers"]] == [0, 1]
    sitting.page.click("#resume")
    sitting.ready()
    assert sitting.place() == 3
    sitting.page.click("#pause")
    sitting.page.on("dialog", lambda dialog: dialog.accept())
    sitting.page.click("#again")
    assert sitting.page.is_visible("#begin")
    assert sitting.page.evaluate("localStorage.length") == 0


def test_served_answers_are_posted(browser: Any, key: Key):
    folder = key.path.parent
    with make_server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        one = Sitting(browser, server.url)
        try:
            one.page.click("#begin")
            one.ready()
            one.choose("ArrowLeft")
            one.ready()
            one.page.click("#pause")
            one.page.wait_for_selector("#sent:text-is('Sent.')")
            (partial,) = read_answers([folder / "answers"], key)
            assert (len(partial.answers), partial.ended) == (1, None)
            one.page.click("#resume")
            one.ready()
            for _ in range(one.count() - 1):
                one.choose("2")
            one.page.wait_for_selector("#sent:text-is('Sent.')")
            (whole,) = read_answers([folder / "answers"], key)
            assert (whole.judge, whole.ended is None) == (partial.judge, False)
            assert [answer.order.index(answer.choice) for answer in whole.answers] == [0] + [1] * (
                len(whole.answers) - 1
            )
            assert one.complaints == []
            assert all(url.startswith((server.url, "data:")) for url in one.requests)
            # Another answer of the same judge is refused, and the page says so and offers the file.
            (folder / "answers" / whole.filename).unlink()
            server.desk._answers[whole.judge] = partial
            one.page.evaluate(
                "slot => { const kept = JSON.parse(localStorage[slot]); kept.sent = false; kept.answers.shift();"
                " localStorage[slot] = JSON.stringify(kept); }",
                f"picture-study-{key.study}",
            )
            one.page.reload()
            one.page.wait_for_selector("#sent.error")
            assert "are not changed" in one.page.inner_text("#sent")
            assert one.page.is_visible("#send")
            assert one.page.is_visible("#save")
        finally:
            one.context.close()
            server.shutdown()
            thread.join()


def test_a_picture_that_is_missing_is_said(browser: Any, tmp_path: Path):
    key = make(tmp_path, per_judge=5, judges=1)
    for picture in (tmp_path / "study" / "send" / "pictures").iterdir():
        picture.unlink()
    one = Sitting(browser, (key.path.parent / "send" / "index.html").as_uri())
    one.page.click("#begin")
    one.page.wait_for_selector("#load-error:not(:empty)")
    assert "Was the folder unpacked whole?" in one.page.inner_text("#load-error")
    one.page.keyboard.press("ArrowLeft")
    assert one.place() == 1
    one.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_all_of_it_in_both_colours(browser: Any, key: Key, scheme: str):
    url = (key.path.parent / "send" / "index.html").as_uri()
    one = Sitting(browser, url, color_scheme=scheme)
    one.page.set_viewport_size({"width": 360, "height": 740})
    one.page.click("#begin")
    one.ready()
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 360
    boxes = [box.bounding_box() for box in one.page.locator(".take").all()]
    assert boxes[1]["y"] > boxes[0]["y"] + boxes[0]["height"]
    assert boxes[1]["y"] + boxes[1]["height"] <= 740
    assert one.page.locator(".take").all_inner_texts() == ["Upper", "Lower"]
    color = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (float(color.partition("(")[2].split(",")[0]) > 128) == (scheme == "light")
    one.context.close()
    assert one.complaints == []


def test_of_three_pictures_numbers_choose(browser: Any, tmp_path: Path):
    key = make(tmp_path, choices=3, checks=0, repeats=0, questions=("prefer",))
    one = Sitting(browser, (key.path.parent / "send" / "index.html").as_uri())
    one.page.click("#begin")
    one.ready()
    one.page.keyboard.press("ArrowRight")
    one.page.keyboard.press("4")
    assert one.place() == 1
    one.choose("3")
    one.choose("click1")
    one.ready()
    one.page.click("#pause")
    assert [answer["order"].index(answer["choice"]) for answer in one.save()["answers"]] == [2, 1]
    one.context.close()
    assert one.complaints == []
