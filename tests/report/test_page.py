"""The page without a browser: its numbers equal the rows, its references are relative and there, it fetches nothing."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image
from report_runs import METHODS, PAIRS, read_json, write_run

from zoo.bench.plan import Cell
from zoo.bench.rows import latest, read_rows
from zoo.errors import ImageError, ProtocolError
from zoo.report.page import write_page
from zoo.report.page.pictures import THUMBNAIL
from zoo.report.tables import read_table


class Document(html.parser.HTMLParser):
    """What the tests ask of a page: references, identifiers, and the cells of the results."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.identifiers: list[str] = []
        self.labels: list[str] = []
        self.cells: list[list[str | None]] = []
        self.names: list[str] = []
        self.text: list[str] = []
        self._row: list[str | None] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.references += [value for key in ("href", "src") if (value := found.get(key)) is not None]
        self.identifiers += [value for key, value in attrs if key == "id" and value]
        self.labels += [value for key, value in attrs if key == "aria-labelledby" and value]
        if tag == "tr":
            self._row = [] if "data-line" in found else None
            if self._row is not None:
                self.cells.append(self._row)
        if self._row is not None and tag == "th":
            self.names.append(found["title"] or "")
        if self._row is not None and tag == "td":
            self._row.append(found.get("data-value"))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "run"
    return write_run(path, sizes=(32, 64), strengths=(0.5, 1.0), lost=(METHODS[0], 64))


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    for name in ("table.csv", "figures/speed.pdf"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(f"this is {name}")
    return write_page(run)


def embedded(page: Path) -> Any:
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_table_holds_the_numbers_of_the_table_in_full(run: Path, page: Path):
    document = Document(page.read_text(encoding="utf-8"))
    table = read_table(run)
    shown = [column.metric for column in table.columns if column.shown]
    assert document.names == [line.method for line in table.lines]
    for line, cells in zip(table.lines, document.cells, strict=True):
        values = [line.values.get(metric) for metric in shown]
        assert [None if cell is None else float(cell) for cell in cells[-len(shown) :]] == values
    data = embedded(page)["table"]
    assert [line["values"] for line in data["lines"]] == [
        {metric: line.values.get(metric) for metric in shown} for line in table.lines
    ]
    assert [line["intervals"] for line in data["lines"]] == [
        {metric: [found.low, found.high] for metric, found in line.intervals.items() if metric in shown}
        for line in table.lines
    ]
    assert [(line["size"], line["strength"]) for line in data["lines"]] == [
        (line.size, line.strength) for line in table.lines
    ]


def test_the_scores_of_every_picture_are_the_rows(run: Path, page: Path):
    found = {
        (one["method"], one["content"], one["style"], one["size"], one["seed"], one["strength"], metric): value
        for one in embedded(page)["pictures"]["outputs"]
        for metric, value in one["scores"].items()
    }
    expected = {
        row.key: row.value
        for row in latest(read_rows(run / "rows.jsonl"))
        if row.value is not None and not row.method.endswith("-copy")
    }
    assert found == expected


def test_a_picture_is_told_from_another_by_its_hash(run: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "run")
    changed = Cell(METHODS[1], *PAIRS[0], 32, 0, 1.0)
    with Image.open(copy / "outputs" / changed.filename) as opened:
        opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(copy / "outputs" / changed.filename)
    page = write_page(copy, tmp_path / "page")
    recorded = {row.key[:-1]: row.picture for row in read_rows(run / "rows.jsonl") if row.picture}
    for one in embedded(page)["pictures"]["outputs"]:
        cell = tuple(one[name] for name in ("method", "content", "style", "size", "seed", "strength"))
        assert one.get("sha256") == recorded.get(cell)
        assert "given" not in one
        assert ("changed" in one) == (cell == changed.key("")[:-1])
    text = " ".join("".join(Document(page.read_text(encoding="utf-8")).text).split())
    assert "1 of the 48 pictures are not the files that were measured" in text


def test_rows_without_a_hash_and_pictures_made_elsewhere_are_not_called_changed(run: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "run")
    rows = read_rows(copy / "rows.jsonl")
    # Without the row of its seconds a method looks like a folder of pictures: its hash is that of another file.
    outside = [
        dataclasses.replace(row, picture="ab" * 32 if row.method == METHODS[2] else None)
        for row in rows
        if (row.method, row.metric) != (METHODS[2], "seconds.stylize")
    ]
    (copy / "rows.jsonl").write_text("".join(row.to_json() + "\n" for row in outside))
    outputs = embedded(write_page(copy, tmp_path / "page"))["pictures"]["outputs"]
    assert not any("changed" in one for one in outputs)
    assert {one["method"] for one in outputs if "sha256" in one} == {METHODS[2]}
    assert all(one["given"] for one in outputs if "sha256" in one)


def test_pictures_are_webp_with_small_thumbnails_and_their_own_sizes(run: Path, page: Path):
    pictures = embedded(page)["pictures"]
    for one in [*pictures["inputs"], *pictures["outputs"]]:
        if "reason" in one:
            continue
        for kind in ("source", "thumbnail"):
            with Image.open(page.parent / unquote(one[kind])) as opened:
                assert opened.format == "WEBP"
                assert opened.size == (one["width"], one["height"])
    assert sum("reason" not in one for one in pictures["outputs"]) == len(PAIRS) * (3 * 2 + 2 * 2)


def test_a_large_picture_gets_a_small_thumbnail(run: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "run")
    target = next((copy / "outputs").glob("adain*32*strength1.png"))
    Image.new("RGB", (1000, 500), "red").save(target)
    page = write_page(copy)
    with Image.open(page.parent / "thumbnails" / f"{target.stem}.webp") as thumbnail:
        assert thumbnail.size == (THUMBNAIL, THUMBNAIL // 2)
    with Image.open(page.parent / "pictures" / f"{target.stem}.webp") as picture:
        assert picture.size == (1000, 500)


def test_a_missing_picture_says_why(run: Path, page: Path, tmp_path: Path):
    lost = [one for one in embedded(page)["pictures"]["outputs"] if "reason" in one]
    assert {(one["method"], one["size"]) for one in lost} == {(METHODS[0], 64)}
    assert all("out of memory: 7000 MiB" in one["reason"] for one in lost)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("rows.jsonl", "run.json"):
        shutil.copy(run / name, bare / name)
    page = write_page(bare)
    reasons = {one["reason"] for one in embedded(page)["pictures"]["outputs"] if one["size"] == 32}
    assert len(reasons) == 1
    assert "not kept under version control: 'zoo bench --again'" in reasons.pop()
    assert "pictures are missing" in "".join(Document(page.read_text(encoding="utf-8")).text)


def test_every_reference_is_relative_and_there(page: Path):
    document = Document(page.read_text(encoding="utf-8"))
    for reference in document.references:
        if reference.startswith("#"):
            assert reference[1:] in document.identifiers, reference
        elif not reference.startswith("data:"):
            assert (page.parent / unquote(reference)).is_file(), reference
    for one in embedded(page)["pictures"]["outputs"]:
        assert "reason" in one or (page.parent / unquote(one["source"])).is_file()
    assert len(set(document.identifiers)) == len(document.identifiers)
    assert set(document.labels) <= set(document.identifiers)


def test_nothing_is_fetched_from_anywhere(page: Path):
    namespace = "http://www.w3.org/2000/svg"  # a name, which browsers never ask for
    for name in ("index.html", "style.css", "script.js"):
        text = (page.parent / name).read_text(encoding="utf-8").replace(namespace, "")
        assert not re.search(r"https?:|\bfetch\(|XMLHttpRequest|@import|url\(", text), name


def test_tables_and_figures_of_the_run_are_there_to_download(run: Path, page: Path):
    document = Document(page.read_text(encoding="utf-8"))
    for name in ("rows.jsonl", "run.json", "table.csv", "figures/speed.pdf"):
        assert f"files/{name}" in document.references
        assert (page.parent / "files" / name).read_bytes() == (run / name).read_bytes()


def test_protocol_and_environment_are_told(page: Path):
    text = "".join(Document(page.read_text(encoding="utf-8")).text)
    for said in ("small@0123456789ab", "Box, 2 cores", "torch 2.15.0", "10.0 minutes, load 0.1 before and 1.2 after"):
        assert said in text


def test_names_are_never_read_as_markup(run: Path, page: Path, tmp_path: Path):
    assert "For <tests> & nothing else." in "".join(Document(page.read_text(encoding="utf-8")).text)
    page = write_page(run, tmp_path / "named", names={METHODS[1]: "</script><script>alert(1)</script>"})
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert embedded(page)["names"][METHODS[1]] == "</script><script>alert(1)</script>"


def test_a_page_replaces_a_page_and_nothing_else(run: Path, tmp_path: Path):
    target = tmp_path / "page"
    first = write_page(run, target)
    (target / "thumbnails" / "old.webp").touch()
    assert write_page(run, target) == first
    assert not (target / "thumbnails" / "old.webp").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    with pytest.raises(ProtocolError, match="other files than a page"):
        write_page(run, mine)
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


def test_a_damaged_picture_and_a_folder_without_results_are_refused(run: Path, tmp_path: Path):
    with pytest.raises(ProtocolError, match="holds no results"):
        write_page(tmp_path)
    copy = shutil.copytree(run, tmp_path / "run")
    next((copy / "outputs").glob("adain*.png")).write_bytes(b"no picture")
    with pytest.raises(ImageError, match="cannot be read"):
        write_page(copy, tmp_path / "page")
    assert not (tmp_path / "page").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_protocol_is_whole(run: Path, page: Path):
    text = page.read_text(encoding="utf-8")
    found = re.search(r"<pre[^>]*>(.*?)</pre>", text, re.DOTALL)
    assert found
    assert json.loads(html.unescape(found[1])) == read_json(run / "run.json")["protocol"]["resolved"]
