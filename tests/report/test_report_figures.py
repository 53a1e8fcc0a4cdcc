"""``zoo report --figures --html``: one command to figures and page, and its one-line errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_runs import METHODS, write_run

from zoo.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "run", sizes=(32,))


def command(*arguments: str | Path) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_figures_and_a_page_that_offers_them(run: Path, capsys: pytest.CaptureFixture[str]):
    losses = run.parent / "losses.csv"
    losses.write_text("step,total\n1,2\n2,1\n")
    chosen = ["--only", "tradeoff,losses,speed", "--width", "120", "--tradeoff", "cf,lp", "--losses", f"mine={losses}"]
    assert command("report", run, "--figures", "--html", *chosen) == 0
    names = {f"{name}.{form}" for name in ("tradeoff", "losses") for form in ("pdf", "png")}
    assert {path.name for path in (run / "figures").iterdir()} == names
    assert {path.name for path in (run / "page/files/figures").iterdir()} == names
    assert (run / "page/files/tables/report.tex").is_file()
    said = capsys.readouterr().err
    assert "No figure speed: the run has one size, 32 pixels" in said
    assert "Content (CF) against style (LP)" in said
    assert "page/index.html" in said


def test_out_holds_tables_figures_and_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "paper"
    methods = f"{METHODS[0]},{METHODS[2]}"
    grid = ["--only", "grid", "--pairs", "harbour:tiles", "--grid-methods", methods, "--zoom", "auto"]
    assert command("report", run, "-o", out, "-f", "md", "--html", "-q", *grid) == 0
    assert capsys.readouterr().err == ""
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"table.md", "figures/grid.pdf", "page/index.html", "page/files/tables/table.md"} <= found
    assert not any(name.endswith("tables/table.csv") for name in found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "speeed"], "speed"),
        (["--only", "tradeoff", "--tradeoff", "lpips"], "CONTENT,STYLE"),
        (["--losses", "absent.csv"], "--losses is of the figures: add --figures."),
        (["--only", "grid", "--pairs", "harbour"], "CONTENT:STYLE"),
        (["--only", "grid", "--zoom", "nose"], "no zoom region"),
        (["--only", "losses", "--losses", "absent.csv"], "cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
):
    assert command("report", run, "-o", tmp_path, "-f", "md", *arguments) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.startswith("zoo: ")
    assert message.count("\n") == 1
