"""What is shown of a table: intervals, layouts, the forms and their agreement in every number, LaTeX that compiles."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import io
import json
import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
from grid_runs import METHODS, METRICS, rows, run_file, write_run

from zoo.errors import ConfigError, ProtocolError, UnknownNameError
from zoo.references import references
from zoo.registry import load_registry
from zoo.report import layout
from zoo.report.bibliography import bibliography, image_sets
from zoo.report.files import FORMATS, write_tables
from zoo.report.forms import Entry, Form, Group, Heading, to_html, to_latex, to_markdown
from zoo.report.layout import Layout
from zoo.report.present import present, to_csv, to_json
from zoo.report.reported import differences, sources
from zoo.report.statistics import Units, mean_intervals, timing_interval
from zoo.report.tables import Table, build_table


@pytest.fixture(scope="module")
def table() -> Table:
    return build_table(rows(), run_file())


def line(table: Table, method: str):
    return next(line for line in table.lines if line.method == method)


# -- intervals and marks -------------------------------------------------------------------------------------------


def test_intervals_of_quality_are_of_pairs_and_those_of_timings_of_repeats(table):
    own = [r for r in sorted(rows(), key=lambda r: (r.content, r.style)) if r.method == "adain.zoo"]
    scores = [r for r in own if r.metric == "ssim"]
    wanted = mean_intervals([r.value for r in scores], Units.of([r.content for r in scores], [r.style for r in scores]))
    assert wanted is not None
    assert line(table, "adain.zoo").intervals["ssim"] == pytest.approx(wanted[0])
    timed = timing_interval([r.samples for r in own if r.metric == "seconds.stylize"])
    assert line(table, "adain.zoo").intervals["seconds.stylize"] == timed
    assert set(line(table, "adain.zoo").intervals) == {*METRICS, "seconds.stylize"}
    assert "2000 resamples" in table.intervals


def test_the_interval_of_a_very_small_number_is_as_fine_as_the_number():
    """Decimals that end before the number begins would say that it is certain."""
    small = [dataclasses.replace(r, value=1e-5 * (r.value or 0)) if r.method == "adain.zoo" else r for r in rows()]
    made = present(build_table(small, run_file()), Layout.make("ssim"))
    (entry,) = (row[1] for group in made.groups for row in group.rows if row[0].text == "adain.zoo")
    assert re.fullmatch(r"\d\.\d\de-06", entry.text)
    assert re.fullmatch(r"± [1-9]\.\d\de-0\d", entry.spread)


def test_two_contents_have_no_intervals_and_the_table_says_so():
    few = build_table([r for r in rows() if r.content in ("astronaut", "coffee")], run_file())
    assert not set(line(few, "adain.zoo").intervals) & set(METRICS)
    assert "fewer than 3 contents or styles" in few.intervals
    # Speed alone, and metrics of all pictures together, lack no interval.
    assert "Quality" not in build_table([r for r in rows() if r.metric not in METRICS], run_file()).intervals


def test_the_second_is_underlined_and_sanity_rows_that_win_are_named(table):
    marks = {(table.lines[i].method, metric) for i, metric in table.second}
    assert marks == {
        ("adain.zoo", "ssim"),
        ("adain.zoo", "gram_loss"),
        ("adain.zoo", "lp"),
        ("wct.zoo", "seconds.stylize"),
        ("adain.zoo", "memory.resident"),
    }
    (said,) = [remark.text for remark in table.remarks if remark.kind == "sanity"]
    assert said == (
        "Sanity rows beat every method: content-copy in gram loss, LP; style-copy in gram loss, LP. "
        "No such column alone tells a good transfer."
    )


def test_methods_stand_by_family_whatever_the_order_they_were_measured_in():
    shuffled = sorted(rows(), key=lambda r: r.method)
    table = build_table(shuffled, run_file())
    assert [(own.method, own.family) for own in table.lines] == [
        ("gatys.zoo[num_steps=50]", "image optimisation"),
        ("adain.zoo", "networks of any style"),
        ("wct.zoo", "networks of any style"),
        ("content-copy", "sanity rows"),
        ("style-copy", "sanity rows"),
    ]
    assert [group.title for group in present(table).groups] == [
        "image optimisation",
        "networks of any style",
        "sanity rows",
    ]
    named = build_table([r for r in shuffled if r.method != "adain.zoo"] + [mine(r) for r in shuffled], run_file())
    assert line(named, "mine").family == "other pictures"


def mine(row):
    import dataclasses

    return dataclasses.replace(row, method="mine") if row.method == "adain.zoo" else row


# -- layout --------------------------------------------------------------------------------------------------------


def texts(form: Form) -> list[list[str]]:
    return [[f"{e.text} {e.spread}".strip() for e in row] for group in form.groups for row in group.rows]


def test_columns_order_rounding_names_and_sanity_rows_are_a_choice(table, tmp_path):
    file = tmp_path / "layout.yaml"
    file.write_text(
        "columns: [lp, {metric: seconds.stylize, name: time, decimals: 1}]\n"
        'names: {"gatys.zoo[num_steps=50]": Gatys}\n'
        "sort: lp\nintervals: brackets\ndigits: 2\nprecision: false\nsanity: false\n"
    )
    form = present(table, Layout.make(str(file)))
    assert [heading.text for heading in form.headings] == ["method", "LP ↑", "time (s) ↓"]
    shown = texts(form)
    assert [row[0] for row in shown] == ["wct.zoo", "adain.zoo", "Gatys"]
    assert re.fullmatch(r"0\.44 \[0\.4\d, 0\.4\d\]", shown[0][1])
    assert re.fullmatch(r"7\.0 \[(6\.9|7\.0), 7\.[01]\]", shown[2][2])


def test_flags_go_above_the_file_and_a_list_of_columns_may_hold_settings(table):
    layout = Layout.make("ssim,lp", sort="measured", digits=None)
    assert [heading.text for heading in present(table, layout).headings][-2:] == ["SSIM ↑", "LP ↑"]
    assert [choice.metric for choice in Layout.make("ssim[channels=rgb], lp").columns or ()] == [
        "ssim[channels=rgb]",
        "lp",
    ]
    with pytest.raises(UnknownNameError, match="did you mean ssim"):
        present(table, Layout.make("ssin"))
    with pytest.raises(UnknownNameError, match="order"):
        present(table, Layout.make(sort="nothing"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: []", "columns"),
        ("digits: 0", "digits"),
        ("intervals: maybe", "intervals"),
        ("colums: [ssim]", "colums: is not a known key"),
        ("- ssim", "must be a mapping"),
        ("columns: [{metric: ssim, decimals: -1}]", "decimals"),
    ],
)
def test_a_malformed_layout_is_one_sentence_that_names_the_place(text, message, tmp_path):
    (tmp_path / "layout.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        Layout.make(tmp_path / "layout.yaml")
    with pytest.raises(ConfigError, match="does not exist"):
        Layout.make(tmp_path / "absent.yaml")


# -- the forms agree -----------------------------------------------------------------------------------------------


class _Cells(html.parser.HTMLParser):
    """Texts of the body's rows of an HTML table."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = self._body = False

    def handle_starttag(self, tag, attrs):
        if tag == "tbody":
            self._body = True
        elif tag == "tr" and self._body and ("class", "group") not in attrs:
            self.rows.append([])
        elif tag in ("td", "th") and self._body and ("scope", "rowgroup") not in attrs:
            self._inside = True
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.rows[-1][-1] += data


def test_markdown_latex_and_html_show_the_same_numbers(table):
    form = present(table)
    wanted = texts(form)
    body = [row for row in to_markdown(form).splitlines() if row.startswith("| ")][1:]
    cells = [[re.sub(r"\*\*|</?ins>", "", cell).strip() for cell in row.strip("| ").split(" | ")] for row in body]
    assert [row for row in cells if len(row) == len(wanted[0])] == wanted
    parser = _Cells()
    parser.feed(to_html(form))
    assert parser.rows == [[cell for cell in row] for row in wanted]
    tex = [row for row in to_latex(form).splitlines() if row.endswith(r"\\") and " & " in row][1:]
    numbers = [re.findall(r"\d+\.?\d*", re.sub(r"\\phantom\{[^}]*\}|\[num.*?\]|fp32", "", row)) for row in tex]
    assert numbers == [re.findall(r"\d+\.?\d*", re.sub(r"\[num.*?\]|fp32", "", " ".join(row))) for row in wanted]


def test_csv_and_json_hold_the_full_numbers_of_the_table(table):
    found = list(csv.DictReader(io.StringIO(to_csv(table))))
    data = json.loads(to_json(table))
    assert data["caption"] == table.caption
    for own, as_csv, as_json in zip(table.lines, found, data["lines"], strict=True):
        assert as_csv["method"] == as_json["method"] == own.method
        for column in table.columns:
            value = own.values[column.metric]
            if value is None:
                assert as_csv[column.metric] == ""
                assert column.metric not in as_json["values"]
                continue
            assert float(as_csv[column.metric]) == as_json["values"][column.metric]["value"] == value
            interval = own.intervals.get(column.metric)
            if interval is not None:
                assert float(as_csv[f"{column.metric}.low"]) == as_json["values"][column.metric]["low"] == interval.low
                assert float(as_csv[f"{column.metric}.high"]) == interval.high
    assert [column["metric"] for column in data["columns"]] == [column.metric for column in table.columns]
    places = {(own["method"], name): cell.get("place") for own in data["lines"] for name, cell in own["values"].items()}
    assert places["gatys.zoo[num_steps=50]", "ssim"] == 1
    assert places["adain.zoo", "ssim"] == 2


def test_html_escapes_and_asks_for_nothing():
    form = Form("t", "a <b> & c", [Heading("m", False), Heading("x")], [Group("<i>", [[Entry("<s>"), Entry("1")]])])
    text = to_html(form)
    assert "<b>" not in text
    assert "<s>" not in text
    assert "&lt;i&gt;" in text
    assert "http" not in text


def test_latex_aligns_numbers_by_siunitx_and_marks_best_and_second(table):
    text = to_latex(present(table))
    assert re.search(r"S\[table-format=1\.\d\]@\{\\,\}l", text)
    assert r"\bfseries 0.49" in text or r"\bfseries 0.5" in text
    assert r"\underline{0.4" in text
    assert r"\multicolumn{2}{c}{SSIM $\uparrow$}" in text
    assert r"{\itshape networks of any style}" in text
    columns = {len(re.findall(r"(?<!\\)&", row)) for row in text.splitlines() if row.endswith(r"\\") and "& " in row}
    assert len(columns) == 2, "the heading joins number and spread, the rows do not"


def test_a_long_table_goes_on_in_further_environments():
    cells = [[Entry(f"m{i}"), Entry(str(i))] for i in range(70)]
    form = Form("t", "c", [Heading("m", False), Heading("x")], [Group("g", cells)], ["note"])
    text = to_latex(form)
    assert text.count(r"\begin{table}") == 3
    assert text.count(r"\label{tab:t}") == 1
    assert [int(n) for n in re.findall(r"^m\d+ & (\d+) \\\\$", text, re.MULTILINE)] == list(range(70))
    assert text.index("note") > text.rindex("m69")


# -- a whole report ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory):
    folder = write_run(tmp_path_factory.mktemp("run"))
    # One method fails on a pair, with a reason that TeX would stumble over.
    from grid_runs import row

    with (folder / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write(row("cnnmrf.code", "astronaut", "swirls", "seconds.stylize", None).to_json() + "\n")
    return write_tables(folder)


def test_every_table_is_there_in_every_form(written):
    names = {f"{name}.{kind}" for name in ("table", "comparisons", "correlations", "reported") for kind in FORMATS}
    # Twelve pairs do not tell two methods of a family apart, so there are ranks as data alone.
    assert set(written.files) == names | {"ranks.csv", "ranks.json", "references.bib", "report.tex"}
    assert {path.name for path in written.folder.iterdir()} == set(written.files)
    assert set(written.omitted) == {"ranks"}


def test_the_bibliography_has_exactly_what_was_used(written):
    text = (written.folder / "references.bib").read_text()
    keys = set(re.findall(r"@\w+\{([^,]+),", text))
    methods = {"gatys2016image", "huang2017arbitrary", "li2017universal", "li2016combining"}
    metrics = {"wang2004image", "johnson2016perceptual", "wang2021evaluate", "simonyan2015very"}
    statistics = {"owen2007pigeonhole", "hesterberg2015what", "clark1973language", "holm1979simple"}
    quoted = {"chung2024style", "ioannou2024evaluation"}
    assert keys == methods | metrics | statistics | quoted | {"demsar2006statistical"}
    assert len(re.findall(r"^@", text, re.MULTILINE)) == len(keys), "no entry twice"
    assert "keywords" not in text
    assert text.count("{") == text.count("}")


def test_every_metric_and_bundled_encoder_has_its_reference():
    known = {keyword for reference in references().values() for keyword in reference.of}
    registry = load_registry()
    for name, metric in registry.metrics.items():
        assert f"metric:{name}" in known, name
        assert metric.package in (None, "lpips") or f"package:{metric.package}" in known
        assert metric.encoder is None or f"encoder:{metric.encoder}" in known
    assert {keyword.partition(":")[2] for keyword in known if keyword.startswith("metric:")} == set(registry.metrics)


def test_sets_are_told_by_the_hashes_of_their_images():
    from zoo import images
    from zoo.imagesets import load_manifest

    run = run_file()
    assert image_sets(run) == []
    run["protocol"]["resolved"]["contents"][0]["sha256"] = images.read("builtin:astronaut").sha256
    run["protocol"]["resolved"]["styles"][0]["sha256"] = load_manifest("styleid").styles[3].sha256
    assert image_sets(run) == ["builtin", "styleid"]
    text = bibliography([], run, load_registry())
    assert "lin2014microsoft" in text
    assert "vanderwalt2014scikit" in text


def test_formats_are_a_choice_and_unknown_ones_an_error(tmp_path):
    folder = write_run(tmp_path / "run")
    written = write_tables(folder, tmp_path / "out", formats=["csv"], layout=Layout.make("ssim"))
    assert set(written.files) == {f"{n}.csv" for n in ("table", "ranks", "comparisons", "correlations", "reported")}
    assert "lp" in (tmp_path / "out" / "table.csv").read_text().splitlines()[0], "CSV is whole whatever the layout"
    with pytest.raises(UnknownNameError, match="format"):
        write_tables(folder, formats=["docx"])
    with pytest.raises(ProtocolError, match="holds no results"):
        write_tables(tmp_path / "nothing")


def test_what_one_method_alone_lacks_is_said(tmp_path):
    folder = write_run(tmp_path / "run", change=lambda r: r if r.method == METHODS[0] and r.metric == "ssim" else None)
    written = write_tables(folder, formats=["md"])
    assert set(written.omitted) == {"ranks", "comparisons", "correlations"}
    assert set(written.files) == {"table.md", "reported.md"}


def test_the_latex_compiles_alone(written, tmp_path):
    tools = [shutil.which(name) for name in ("pdflatex", "bibtex")]
    if None in tools:
        # In CI a TeX is installed first: there, its absence is a failure.
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("no TeX (pdflatex and bibtex) is installed (Debian: texlive-latex-recommended, texlive-science)")
    for path in written.folder.iterdir():
        if path.suffix in (".tex", ".bib"):
            shutil.copy(path, tmp_path)
    latex = [str(tools[0]), "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    for command in (latex, [str(tools[1]), "report"], latex, latex):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
        assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "report.log").read_text(errors="replace")
    assert "Overfull" not in log
    assert "undefined" not in log
    assert (tmp_path / "report.pdf").stat().st_size > 10_000


# -- quoted figures ------------------------------------------------------------------------------------------------


def test_quoted_figures_stand_alone_and_are_not_comparable_with_what_differs_named(written):
    assert "artfid" not in (written.folder / "table.csv").read_text().lower()
    quoted = json.loads((written.folder / "reported.json").read_text())
    adain = [one for one in quoted["rows"] if (one["source"], one["method"]) == ("styleid", "AdaIN")]
    assert {one["metric"]: one["value"] for one in adain} == {
        "ArtFID": 30.933,
        "FID": 18.242,
        "LPIPS": 0.608,
        "CFSD": 0.315,
    }
    assert {one["beside_ours"] for one in adain} == {"not comparable"}
    assert adain[0]["differs"].startswith("other images; size 512 there; weights trained by the zoo here; ArtFID:")
    others = {one["beside_ours"] for one in quoted["rows"] if one["method"] == "StyleID"}
    assert others == {"not measured here"}


def test_the_products_of_the_quoted_artfid_rows_agree():
    """(1 + LPIPS)(1 + FID): a typing error in one of the three would show."""
    for key in ("styleid", "cocodiff"):
        for values in sources()[key].rows.values():
            product = (1 + float(values["LPIPS"])) * (1 + float(values["FID"]))
            assert product == pytest.approx(float(values["ArtFID"]), abs=0.03)


def test_a_figure_is_comparable_where_nothing_differs():
    import dataclasses

    from grid_runs import row

    from zoo.imagesets import load_manifest

    registry = load_registry()
    entry = registry.methods["adain"]
    kept = entry.checkpoints["zoo"]
    published = kept.model_copy(update={"given_provenance": kept.provenance.model_copy(update={"kind": "published"})})
    registry = dataclasses.replace(
        registry,
        methods={**registry.methods, "adain": entry.model_copy(update={"checkpoints": {"zoo": published}})},
    )
    manifest = load_manifest("styleid")
    run = run_file()
    resolved = run["protocol"]["resolved"]
    resolved["contents"] = [{"name": image.name, "sha256": image.sha256} for image in manifest.contents]
    resolved["styles"] = [{"name": image.name, "sha256": image.sha256} for image in manifest.styles]
    resolved["pairs"] = [[c.name, s.name] for c in manifest.contents for s in manifest.styles]
    metrics = ("artfid", "fid[network=art]", "lpips", "cfsd[encoder=vgg19.torchvision]")
    own = [dataclasses.replace(row("adain.zoo", "00", "00", metric, 1.0), size=512) for metric in metrics]
    source = sources()["styleid"]
    assert differences(source, "AdaIN", own, run, registry) == []
    assert differences(source, "StyTR2", own, run, registry) is None
    assert differences(source, "AdaIN", own[:3], run, registry) == [
        "CFSD: there torchvision's VGG-19, not measured here"
    ]
    resolved["pairs"].pop()
    assert differences(source, "AdaIN", own, run, registry) == ["799 of its 800 pairs here"]


def test_the_layout_in_the_documentation_is_one(table, tmp_path):
    """It is also the one in the docstring, so that neither promises what the other lacks."""
    documents = Path(__file__).resolve().parents[2] / "docs"
    (text,) = re.findall(r"```yaml\n(.*?)```", (documents / "reports.md").read_text(encoding="utf-8"), re.DOTALL)
    assert textwrap.indent(text, "    ") in str(layout.__doc__)
    (tmp_path / "layout.yaml").write_text(text, encoding="utf-8")
    form = present(table, Layout.make(tmp_path / "layout.yaml"))
    assert [heading.text for heading in form.headings] == ["method", "SSIM ↑", "time (s) ↓"]
    assert form.groups[0].rows[0][0].text == "Gatys et al."


def test_pictures_made_elsewhere_under_a_quoted_name_have_unknown_weights():
    import dataclasses

    from grid_runs import row

    own = [dataclasses.replace(row("StyTR2", "00", "00", "lpips", 1.0), size=512)]
    found = differences(sources()["styleid"], "StyTR2", own, run_file(), load_registry())
    assert found is not None
    assert "pictures made elsewhere here, with weights that nothing tells" in found
    assert "size 512 there" not in found


def test_names_are_told_with_their_accents():
    """The trial: pages and listings said Ku\\vcera."""
    read = [reference.field(name) for reference in references().values() for name in ("author", "title", "year")]
    assert not [text for text in read if "\\" in text]
    assert load_registry().resolve("nnst").entry.authors.split(", ")[1:4] == ["Kučera", "Paris", "Sýkora"]
