"""Names as people give them to files and methods: in messages, in tables of every form, where they are looked up."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from browsers import absent
from command import run
from PIL import Image
from report_runs import write_run
from rich.console import Console
from test_trials_numbers import verbs

import zoo
from zoo.bench.protocol import Protocol
from zoo.cli import _expand_home, _repeat_lists, build
from zoo.cli.common import expand
from zoo.config import readable_type
from zoo.errors import UnknownNameError
from zoo.names import find, on_disk
from zoo.registry import load_registry
from zoo.report.figures import FigureOptions, draw_figures
from zoo.report.forms import (
    Entry,
    Form,
    Group,
    Heading,
    escape_markdown,
    escape_tex,
    to_html,
    to_latex,
    to_markdown,
    to_rich,
)
from zoo.styles import TrainedStyle, slug, trained_name
from zoo.stylizer import Style, Stylizer
from zoo.words import counted, visible

NFC, NFD = "caf\u00e9", "cafe\u0301"
# What is printed of each is itself, but for what would break the line or move the cursor.
NAMES = [
    "a, b", 'quo"te', "it's", "[bold]x[", "[12] x", "[red]", ":smile:", "a|b", "%s {0} {x}", "$HOME", "#1&2_3^4~",
    "back\\slash", "*?", "x\ny", "x\r\x1b[2Jy", NFC, NFD, "\u65e5\u672c", "-dash", " blank ", os.fsdecode(b"caf\xe9"),
]  # fmt: skip
STYLE = "style.png"
SMALL = ["-m", "adain", "--content-size", "16", "--style-size", "16", "--precision", "fp32", "--device", "cpu"]


@pytest.fixture(scope="module")
def model() -> Stylizer:
    return zoo.load("adain", device="cpu", precision="fp32")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Stylizer) -> Path:
    """A current folder of its own with a style image; AdaIN is loaded once for all."""
    monkeypatch.chdir(tmp_path)
    load = zoo.load
    monkeypatch.setattr("zoo.loading.load", lambda name, **rest: model if name == "adain" else load(name, **rest))
    picture(STYLE, seed=1)
    return tmp_path


def picture(path: str | Path, seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with open(path, "wb") as file:
        Image.fromarray(pixels).save(file, format="PNG")


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse some of these names")
@pytest.mark.parametrize("name", NAMES)
def test_a_files_name_is_printed_as_it_is_and_on_one_line(name, place, capsys):
    picture(f"{name}.png")
    arguments = ["--content", f"{name}.png", "--style", STYLE, *SMALL]
    assert run("stylize", *arguments, "-o", f"out {name}.png") == 0
    assert Path(f"out {name}.png").is_file()
    said = capsys.readouterr().err
    assert said.startswith(f"out {visible(name)}.png  16x16")
    assert said.count("\n") == 1
    assert "\x1b" not in said
    for wrong in (["--content", f"no {name}.png"], ["--content", f"{name}.png", "--style", f"no {name}"]):
        assert run("stylize", *wrong, *SMALL, "-o", "o.png") == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert visible(name) in said or repr(name)[1:-1] in said
        assert "\x1b" not in said
    assert not Path("o.png").exists()


def test_results_for_programs_hold_any_name(place, capsys):
    """The trial: a comma in the output's name shifted the columns of the losses."""
    fast = ["--num-steps", "2", "--content-layers", "relu1_1", "--style-layers", "relu1_1"]
    fast += ["--style-layer-weights", "1", "--content", STYLE, "--style", STYLE]
    fast += ["--content-size", "32", "--style-size", "32", "--precision", "fp32", "--device", "cpu"]
    for name in ("a, b.png", 'x"y\n.png', os.fsdecode(b"caf\xe9.png")):
        assert run("stylize", "-m", "gatys", *fast, "-o", name, "--losses", "l.csv", "--json", "-q") == 0
        assert json.loads(capsys.readouterr().out)[0]["output"] == name
        with open("l.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["output"] for row in rows] == [name.encode(errors="backslashreplace").decode()] * 2
        assert all(None not in row and float(row["total"]) > 0 for row in rows)


def test_words_around_one_and_many():
    assert counted(1, "core") == "1 core"
    assert counted(0, "row") == "0 rows"
    assert counted(2, "process", "processes") == "2 processes"
    assert visible("a\nb\x1b[0m\u2028", "\n") == "a\nb\\x1b[0m\\u2028"


# -- help -------------------------------------------------------------------------------------------------------------


def test_help_speaks_of_texts_and_numbers_and_of_no_python(capsys):
    for words, _ in verbs(build()):
        assert run(*words, "--help") == 0
        said = capsys.readouterr().out
        assert not re.search(r"<\w+(\[|>| range)|\b(str|int|float|bool|None) \|", said), words
    for method in ("gatys", "wct", "cnnmrf"):
        assert run("info", method) == 0
        said = capsys.readouterr().out
        assert "whole number" in said
        assert not re.search(r"\b(str|int|float|bool|tuple|Literal)\b", said)


def test_every_option_has_a_type_in_words():
    registry = load_registry()
    for method in registry.methods:
        for spec in registry.options(method):
            assert not re.search(r"\b(str|int|float|bool|tuple|list\[)\b", readable_type(spec.type))
    assert readable_type("tuple[int, ...] | None") == "list of whole numbers or none"
    assert readable_type("Literal['a', 'b'] | None") == "a, b or none"
    assert readable_type("Optional[float]") == "number or none"


# -- where names are looked up ----------------------------------------------------------------------------------------


def test_an_accent_is_one_character_or_a_letter_and_a_mark(place):
    assert find(NFD, [NFC]) == NFC
    assert find(NFC, [NFD, NFC]) == NFC
    assert find("x", [NFC]) is None
    (place / NFD).mkdir()
    picture(place / NFD / f"{NFD}.png")
    if (place / NFC).exists():
        pytest.skip("this file system takes both for one")
    assert on_disk(f"{NFC}/{NFC}.png") == Path(NFD, f"{NFD}.png")
    assert on_disk("nothing/here") == Path("nothing/here")
    assert expand([f"{NFC}/{NFC}.png"], "content") == [f"{NFD}/{NFD}.png"]
    assert expand([NFC], "content") == [f"{NFD}/{NFD}.png"]
    assert expand([NFD], "style", [NFC]) == [NFC]
    assert run("stylize", "--content", f"{NFC}/{NFC}.png", "--style", STYLE, *SMALL, "-o", "o.png", "-q") == 0


def test_a_trained_style_is_found_however_its_accent_is_written():
    assert trained_name(Style(name=NFD), {NFC: TrainedStyle(NFC)}, "johnson", None) == NFC  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError):
        trained_name(Style(name="cafe"), {NFC: TrainedStyle(NFC)}, "johnson", None)  # type: ignore[arg-type]


def test_a_styles_own_name_does_not_depend_on_how_its_accent_is_written():
    assert slug(NFC) == slug(NFD) == "cafe"
    assert slug("Starry Night (1889)") == "starry-night-1889"
    assert slug("\u661f\u7a7a") != slug("\u6d6e\u4e16\u7d75"), "names of another script stay apart"
    assert slug("Stra\u00dfe") == "strasse"
    assert slug("!?") == "style"


def test_a_protocols_names_are_composed_and_its_pairs_found_either_way():
    given = {"schema": 1, "name": "p", "styles": ["builtin:swirls"], "sizes": [16]}
    spec = Protocol.model_validate({**given, "contents": [f"{NFD}.png", "b.png"], "pairs": [[NFD, "swirls"]]})
    assert spec.listed == [(NFC, "swirls")]


def test_pictures_made_elsewhere_are_found_either_way(place):
    from zoo.bench.from_folder import _find
    from zoo.bench.plan import Cell

    spec = Protocol.model_validate(
        {"schema": 1, "name": "p", "contents": [f"{NFC}.png"], "styles": ["builtin:swirls"], "sizes": [16]}
    )
    picture(place / f"{NFD}__swirls.png")
    cell = Cell("mine", NFC, "swirls", 16, 0, 1.0)
    assert _find(place, [cell], spec)[cell].stem == f"{NFD}__swirls"


def test_a_tilde_behind_an_equals_sign_is_the_home_folder(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    assert _expand_home("--out=~/x") == f"--out={place}/x"
    assert _expand_home("mine=~/x") == f"mine={place}/x"
    assert _expand_home("--content-dir=a,~/b,~") == f"--content-dir=a,{place}/b,{place}"
    assert _expand_home("--notes=about ~5") == "--notes=about ~5"
    assert _expand_home("--out=a~b/~") == "--out=a~b/~"
    assert _expand_home("~/x") == "~/x"
    assert run("stylize", f"--style={STYLE}", *SMALL, "--output=~/o.png", "-q") == 0
    assert (place / "o.png").is_file()
    assert not (place / "~").exists()


def test_a_name_that_begins_with_a_dash_follows_its_flag():
    given = ["--content", "-a.png", "b.png", "--style=c.png", "d.png", "-o", "-x.png"]
    assert _repeat_lists(given) == [
        "--content", "-a.png", "--content", "b.png", "--style=c.png", "--style", "d.png", "-o", "-x.png",
    ]  # fmt: skip


# -- tables -----------------------------------------------------------------------------------------------------------

ODD = [*NAMES, "<b>&amp;</b>", "</script>", "a--b", "\u2191\u00b1\u03b1", "_em_ `code` [l](u)", "\\|", "=1+1", "*star"]


def odd_form() -> Form:
    rows = [[Entry(name, notes=(1,) * (i == 0)), Entry("0.50", "[0.4, 0.6]")] for i, name in enumerate(ODD)]
    rows[1][1] = Entry("0.75", "[0.7, 0.8]", "best")
    groups = [Group(name, [row]) for name, row in zip(ODD, rows, strict=True)]
    return Form(
        "odd", f"All of {' '.join(ODD)}", [Heading("[m] *", False), Heading("x_1 | y \u2191")], groups, ODD[:4], ODD
    )


def test_markdown_tables_hold_any_name():
    lines = to_markdown(odd_form()).splitlines()
    body = [line for line in lines if line.startswith("|")]
    assert len(body) == 2 + 2 * len(ODD), "a line break in a name is none in the table"
    for line in body:
        # GitHub's rule: a pipe behind an odd number of backslashes is text.
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3, line
    for name in ODD:
        shown = re.sub(r"\\([\\|*`_(<&])", r"\1", escape_markdown(name))
        assert shown == re.sub(r"\s*[\r\n]\s*", " ", name)
    for name, source in (("<b>", "\\<b>"), ("&amp;", "\\&amp;"), ("a_b", "a_b"), ("_a_", "\\_a\\_"), ("<0.1", "<0.1")):
        assert escape_markdown(name) == source


class _Texts(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_html_tables_hold_any_name():
    parser = _Texts()
    parser.feed(to_html(odd_form()))
    assert not {"b", "script"} & set(parser.tags)
    text = "".join(parser.texts)
    assert all(name in text for name in ODD)


def test_tables_of_the_terminal_hold_any_name():
    console = Console(file=io.StringIO(), width=4000, record=True, force_terminal=True)
    console.print(to_rich(odd_form()))
    text = console.export_text()
    for name in ODD:
        assert visible(name).strip() in text
    assert "\x1b[2J" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_latex_row_that_begins_with_a_bracket_is_no_argument_of_the_row_before(tmp_path):
    """The trial: a method called '[12] AdaIN' in a layout."""
    layout = tmp_path / "layout.yaml"
    layout.write_text('columns: [ssim, lp]\nnames: {"adain.zoo": "[12] AdaIN", "wct.zoo": "* 50 % & more"}\n')
    folder = write_run(tmp_path / "run", pictures=False)
    assert run("report", str(folder), "--columns", str(layout), "--format", "tex", "-q") == 0
    text = (folder / "tables" / "table.tex").read_text(encoding="utf-8")
    assert "\n{[}12] AdaIN &" in text
    assert "\n{*} 50 \\% \\& more &" in text


def test_latex_prints_any_name_on_one_line():
    assert escape_tex(NFC) == escape_tex(NFD) == "caf\\'e"
    assert escape_tex("a--b\n# \u2013") == "a-{}-b \\# --"
    assert (
        escape_tex("\u0151\u00f1\u00c5\u00df \u03b1\u03a9 \u00bd \u661f")
        == r"\H{o}\~{n}\r{A}\ss{} $\alpha$$\Omega$ 1/2 ?"
    )


def test_latex_of_any_name_compiles(tmp_path):
    if shutil.which("pdflatex") is None:
        absent("no TeX (pdflatex) is installed (Debian: texlive-latex-recommended, texlive-science)")
    letters = "".join(
        map(chr, [*range(0xA0, 0x180), *range(0x386, 0x3D0), *range(0x2010, 0x2040), *range(0x2200, 0x2270)])
    )
    text = to_latex(odd_form()) + " ".join(escape_tex(letter) for letter in letters)
    head = r"\documentclass{article}\usepackage{booktabs,graphicx,siunitx}"
    (tmp_path / "a.tex").write_text(f"{head}\\begin{{document}}\n{text}\n\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-1500:]


def test_a_figure_draws_any_name(tmp_path):
    folder = write_run(tmp_path / "run", pictures=False)
    names = {"adain.zoo": r"$\frac", "wct.zoo": "$100 & $x_1$", "gatys.zoo[num_steps=50]": "\u65e5\u672c"}
    drawn = draw_figures(folder, tmp_path / "figures", FigureOptions(only=("tradeoff",), names=names))
    assert set(drawn.written) == {"tradeoff"}
