"""``zoo report --paper``: numbers that equal the rows, words that tell the run, two pages where TeX is."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import statistics
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command import run as command
from grid_runs import CONTENTS, METHODS, METRICS, SANITY, STYLES, write_run
from PIL import Image

from zoo.bench.plan import Cell
from zoo.bench.rows import Row, read_rows
from zoo.errors import ProtocolError
from zoo.report import paper
from zoo.report.layout import Layout
from zoo.report.paper import write_paper
from zoo.report.present import number

NAMES = {"gatys.zoo[num_steps=50]": r"gatys, num\_steps=50", "adain.zoo": "adain", "wct.zoo": "wct"}
NAMES |= {name: name for name in SANITY}
# The last power of ten below the column's largest mean, which its heading tells.
SCALES = {"ssim": 1.0, "gram_loss": 1e9, "lp": 1.0, "seconds.stylize": 1.0, "memory.resident": 1.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid run with what a real run.json says beside, and with its pictures."""
    folder = write_run(tmp_path_factory.mktemp("paper") / "run")
    data = json.loads((folder / "run.json").read_text())
    data["protocol"]["resolved"] |= {
        "resize": "long",
        "timing": {"warmup": 1, "repeats": 7, "budget": 2.0},
        "optimisation": {"options": {"num_steps": 50}, "timing": {"warmup": 1, "repeats": 1, "budget": 0}},
    }
    data["runs"][0]["environment"] |= {"libraries": {"torch": "2.15.0"}, "python": "3.11.7"}
    (folder / "run.json").write_text(json.dumps(data))
    (folder / "outputs" / "inputs").mkdir(parents=True)
    random = np.random.default_rng(0)

    def draw(path: Path) -> None:
        Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)

    for role, names in (("content", CONTENTS), ("style", STYLES)):
        for name in names:
            draw(folder / "outputs" / "inputs" / f"{role}__{name}__64.png")
    for method in METHODS:
        for content in CONTENTS:
            for style in STYLES:
                draw(folder / "outputs" / Cell(method, content, style, 64, 0, 1.0).filename)
    return folder


@pytest.fixture(scope="module")
def written(run: Path) -> paper.Paper:
    return write_paper(run)


def mean(rows: list[Row], method: str, metric: str) -> float:
    """What a cell of the tables must be: of memory the largest, of everything else the mean over all pairs."""
    values = [row.value for row in rows if (row.method, row.metric) == (method, metric) and row.value is not None]
    assert len(values) == len(CONTENTS) * len(STYLES)
    return max(values) if metric.startswith("memory.") else statistics.fmean(values)


def cells(line: str) -> list[str]:
    """A line of a table as its cells, without what marks the best and the second, and without spreads."""
    plain = re.sub(r"\\phantom\{[^}]*\}", "", line).removesuffix(r" \\")
    plain = re.sub(r"\{?\\underline\{([^}]*)\}\}?", r"\1", plain).replace(r"\bfseries ", "")
    return [cell.strip() for cell in plain.split(" & ") if "pm" not in cell]


@pytest.mark.parametrize(
    ("name", "metrics", "methods"),
    [
        ("quality.tex", ("ssim", "lp", "gram_loss"), (*METHODS, *SANITY)),
        ("cost.tex", ("seconds.stylize", "memory.resident"), METHODS),
    ],
)
def test_every_number_of_the_tables_is_that_of_the_rows(run, written, name, metrics, methods):
    rows = read_rows(run / "rows.jsonl")
    text = (written.folder / name).read_text()
    lines = {found[0]: found[1:] for line in text.splitlines() if line.count(" & ") and (found := cells(line))}
    head = next(line for line in text.splitlines() if line.startswith("method &"))
    order = sorted(metrics, key=lambda metric: head.index(_title(metric)))
    for method in methods:
        expected = [number(mean(rows, method, metric) / SCALES[metric]) for metric in order]
        assert lines[NAMES[method]] == expected, method
    assert set(lines) == {"method", *(NAMES[method] for method in methods)}
    assert "1e9" in head or name == "cost.tex"


def _title(metric: str) -> str:
    titles = {"seconds.stylize": "stylize", "memory.resident": "peak memory", "gram_loss": "gram loss"}
    return titles.get(metric, metric.upper())


def test_the_words_tell_the_run(run, written):
    text = " ".join((written.folder / "paper.tex").read_text().split()).replace(r"\allowbreak{}", "")
    rows = read_rows(run / "rows.jsonl")
    fastest, slowest = (number(mean(rows, method, "seconds.stylize")) for method in ("adain.zoo", METHODS[0]))
    for said in (
        r"\code{grid@0123456789ab}",
        "12 pairs of 4 contents (astronaut, coffee, chelsea, rocket) with 3 styles (swirls, mosaic, woodblock)",
        "at 64 pixels of the longer side",
        "Box, 2 cores (cpu, 2 threads; zoo 0.1.0, torch 2.15.0, Python 3.11.7)",
        r"(optimisation methods with num\_steps=50 and timed once)",
        f"the run's {len(rows)} rows none failed and none were skipped.",
        rf"\code{{adain.zoo}} takes {fastest} s a picture, \code{{gatys.zoo[num\_steps=50]}} {slowest} s",
        r"Gatys et al.~\cite{gatys2016image} as \code{gatys.zoo[num\_steps=50]}",
        r"Huang and Belongie~\cite{huang2017arbitrary} as \code{adain.zoo}",
        "This is a sample made by one command, not a study.",
        f"Of the {3 * len(METRICS)} comparisons",
    ):
        assert said in text, said
    assert "<<" not in text
    assert "<%" not in text


def test_what_is_cited_is_in_the_bibliography(written):
    text = (written.folder / "paper.tex").read_text()
    keys = {key for group in re.findall(r"\\cite\{([^}]*)\}", text) for key in group.split(",")}
    assert keys
    assert keys <= set(re.findall(r"^@\w+\{([^,]+),", (written.folder / "references.bib").read_text(), re.MULTILINE))


def test_an_edited_paper_is_kept_while_its_numbers_are_renewed(run, written, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "build_pdf", lambda *_: (None, 0, ""))
    mine = shutil.copytree(written.folder, tmp_path / "mine")
    assert write_paper(run, mine).said == ()
    edited = (mine / "paper.tex").read_text().replace("a sample paper", "my paper")
    (mine / "paper.tex").write_text(edited)
    (mine / "cost.tex").write_text("old")
    (mine / "notes.txt").write_text("mine")
    again = write_paper(run, mine)
    assert "was edited and stays" in again.said[0]
    assert (mine / "paper.tex").read_text() == edited
    assert (mine / "cost.tex").read_text() == (written.folder / "cost.tex").read_text()
    assert (mine / "notes.txt").read_text() == "mine"


def test_a_run_without_pictures_or_tex_says_so(run, tmp_path, monkeypatch, capsys):
    bare = tmp_path / "run"
    bare.mkdir()
    for name in ("rows.jsonl", "run.json"):
        shutil.copy(run / name, bare)
    monkeypatch.setattr("zoo.report.paper.shutil.which", lambda name: None)
    out = tmp_path / "out"
    chosen = ["--columns", "lp,seconds.stylize", "-f", "md", "-o", str(out)]
    assert command("report", str(bare), "--paper", *chosen) == 0
    assert "No PDF was built: pdflatex and bibtex are not installed." in capsys.readouterr().err
    folder = out / "paper"
    assert {path.name for path in folder.iterdir()} == {
        "paper.tex",
        "cost.tex",
        "quality.tex",
        "references.bib",
        "figures",
    }
    assert "so there is no grid of them" in " ".join((folder / "paper.tex").read_text().split())
    assert "SSIM" not in (folder / "quality.tex").read_text()
    assert "peak memory" not in (folder / "cost.tex").read_text()


def test_one_method_has_its_cost_and_nothing_to_be_compared_with(tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "build_pdf", lambda *_: (None, 0, ""))
    alone = write_run(tmp_path / "run", change=lambda row: row if row.method == "adain.zoo" else None)
    text = " ".join((write_paper(alone).folder / "paper.tex").read_text().split())
    assert text.count(r"\input{cost.tex}") == text.count(r"\input{quality.tex}") == 1
    assert r"has the cost at 64 pixels. " in text
    assert "comparisons" not in text
    assert "1 style-transfer method under one protocol" in text


def test_films_have_measures_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "build_pdf", lambda *_: (None, 0, ""))

    def film(row: Row) -> Row | None:
        if row.metric == "gram_loss":
            return dataclasses.replace(row, metric="film.short", unit="/255")
        return row if row.metric.startswith("seconds.") else None

    text = (write_paper(write_run(tmp_path / "run", change=film)).folder / "paper.tex").read_text()
    assert "Of films: short-term (lower is better)" in text


def test_what_has_no_number_is_nothing_that_the_rows_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "build_pdf", lambda *_: (None, 0, ""))

    def skip(row: Row) -> Row:
        lost = {"metric": "sifid", "value": None, "status": "skipped", "reason": "no weights"}
        return dataclasses.replace(row, **lost) if row.metric == "gram_loss" else row

    text = (write_paper(write_run(tmp_path / "run", change=skip)).folder / "paper.tex").read_text()
    assert "The rows hold" not in text


def test_a_size_that_was_not_measured_is_one_line_and_exit_code_2(run, tmp_path, capsys):
    assert command("report", str(run), "--paper", "--size", "99", "-f", "md", "-o", str(tmp_path / "out")) == 2
    assert capsys.readouterr().err == "zoo: The run has no size 99: choose from 64.\n"
    assert not list((tmp_path / "out").glob("paper/*"))


def test_a_run_without_methods_is_refused(tmp_path):
    with pytest.raises(ProtocolError, match="holds no results"):
        write_paper(tmp_path)
    empty = write_run(tmp_path / "run", change=lambda row: row if row.method in SANITY else None)
    with pytest.raises(ProtocolError, match="No method of this run was measured"):
        write_paper(empty)


def test_it_is_two_pages_without_boxes_that_stick_out(written, tmp_path):
    tools = [shutil.which(name) for name in ("pdflatex", "bibtex")]
    if None in tools:
        # In CI a TeX is installed first: there, its absence is a failure.
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("no TeX (pdflatex and bibtex) is installed (Debian: texlive-latex-recommended, texlive-science)")
    assert (written.pages, written.said) == (2, ())
    assert written.pdf == written.folder / "paper.pdf"
    assert written.pdf.stat().st_size < 1_500_000
    # As an author does it, for the log.
    shutil.copytree(written.folder, tmp_path, dirs_exist_ok=True)
    latex = [str(tools[0]), "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    for one in (latex, [str(tools[1]), "paper"], latex, latex):
        subprocess.run(one, cwd=tmp_path, capture_output=True, check=True)
    log = (tmp_path / "paper.log").read_text(errors="replace").replace("\n", "")
    assert "undefined" not in log
    assert [points for points in re.findall(r"Overfull \\[hv]box \(([0-9.]+)pt", log) if float(points) > 5] == []


def test_the_same_rows_give_the_same_paper(run, written, tmp_path):
    again = write_paper(run, tmp_path / "again")
    names = sorted(path.relative_to(written.folder) for path in written.folder.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(again.folder) for path in again.folder.rglob("*") if path.is_file())
    differing = [name for name in names if (written.folder / name).read_bytes() != (again.folder / name).read_bytes()]
    assert differing == []


def test_names_and_brackets_of_a_layout_reach_the_tables(run, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "build_pdf", lambda *_: (None, 0, ""))
    layout = Layout.make(intervals="brackets", digits=2, names={"adain.zoo": "Huang & Belongie"})
    text = (write_paper(run, tmp_path / "named", layout=layout).folder / "quality.tex").read_text()
    assert r"Huang \& Belongie & " in text
    assert re.search(r"& \[0\.\d+, 0\.\d+\]", text)
