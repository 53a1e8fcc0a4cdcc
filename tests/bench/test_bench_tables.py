"""Tables from rows: which pairs a mean joins, what is bold, intervals, what the footnotes say, and the forms."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from typing import Any

import pytest
import torch
from rich.console import Console

from zoo import images
from zoo.bench.folder import Folder
from zoo.bench.plan import Cell
from zoo.bench.rows import Row
from zoo.errors import ProtocolError
from zoo.registry import load_registry
from zoo.report.files import SHEET_PAIRS, write_sheet
from zoo.report.forms import escape_tex, to_latex, to_markdown, to_rich
from zoo.report.present import number, present, to_csv, to_json
from zoo.report.tables import Table, build_table

RUN: dict[str, Any] = {
    "protocol": {
        "id": "p@1",
        "resolved": {
            "baselines": ["content-copy"],
            "pairs": [["a", "s"], ["b", "s"]],
            "seeds": [0],
            "strengths": [1],
            "timing": {"warmup": 1},
            "methods": {"n_1": {"timing": {"warmup": 0}}},
        },
    },
    "conditions": {"version": "0.1.0", "device": "cpu", "precision": "auto", "threads": 2, "machine": "Box, 2 cores"},
    "runs": [{"load_before": 0.1, "environment": {"usable_cores": 2, "source": "abc"}}],
}


def row(method: str, content: str | None, metric: str, value: float | None, **changes: Any) -> Row:
    base = Row(
        run_id="r",
        protocol="p@1",
        method=method,
        checkpoint=None,
        encoder=None,
        precision=None if method == "content-copy" else "bf16",
        content=content,
        style=None if content is None else "s",
        size=64,
        seed=0,
        strength=1.0,
        metric=metric,
        value=value,
        unit="",
        status="ok" if value is not None else "failed",
        reason="" if value is not None else "boom.",
        utc="2026-01-02T03:04:05Z",
    )
    return dataclasses.replace(base, **changes)


ROWS = [
    row("m.x", None, "seconds.first", 0.7),
    row("m.x", "a", "seconds.stylize", 0.25),
    row("m.x", "b", "seconds.stylize", 0.75),
    row("m.x", "a", "memory.resident", 100.0),
    row("m.x", "b", "memory.resident", 120.0),
    row("m.x", "a", "ssim", 0.5),
    row("m.x", "b", "ssim", 0.75),
    row("n_1.y[k=2]", "a", "seconds.stylize", 0.5),
    row("n_1.y[k=2]", "b", "seconds.stylize", 0.5),
    row("n_1.y[k=2]", "a", "ssim", 0.25),
    row("n_1.y[k=2]", "b", "ssim", 0.25),
    row("content-copy", "a", "ssim", 1.0),
    row("content-copy", "b", "ssim", 1.0),
]


COLD = "Times of n_1.y[k=2] are of calls without warm-up: this protocol is not one of speed."
SANITY = "Sanity rows beat every method: content-copy in SSIM. No such column alone tells a good transfer."


def texts(table: Table) -> list[str]:
    return [remark.text for remark in table.remarks]


def values(table: Table, metric: str) -> dict[str, float | None]:
    return {line.method: line.values.get(metric) for line in table.lines}


def test_speed_and_quality_are_means_and_memory_is_the_largest():
    table = build_table(ROWS, RUN)
    assert values(table, "seconds.stylize") == {"m.x": 0.5, "n_1.y[k=2]": 0.5, "content-copy": None}
    assert values(table, "ssim") == {"m.x": 0.625, "n_1.y[k=2]": 0.25, "content-copy": 1.0}
    assert values(table, "memory.resident")["m.x"] == 120.0
    assert values(table, "seconds.first")["m.x"] == 0.7
    assert texts(table) == [SANITY, COLD]
    assert table.notes == []


def test_a_mean_joins_only_pairs_that_every_line_covers():
    rows = [r for r in ROWS if not (r.method == "n_1.y[k=2]" and r.content == "b")]
    rows.append(row("n_1.y[k=2]", "b", "seconds.stylize", None))
    table = build_table(rows, RUN)
    assert values(table, "ssim") == {"m.x": 0.5, "n_1.y[k=2]": 0.25, "content-copy": 1.0}
    assert values(table, "seconds.stylize")["m.x"] == 0.25
    # Memory exists for one method alone, so both its pairs count.
    assert values(table, "memory.resident")["m.x"] == 120.0
    assert texts(table) == ["stylize, SSIM at 64: over the 1 of 2 pairs that every line covers: a x s.", SANITY, COLD]
    assert table.notes == ["failed on 1 pair: boom."]
    assert [line.notes for line in table.lines] == [(), (1,), ()]


def test_a_method_without_any_value_shrinks_nothing_for_the_others():
    rows = [*ROWS, *(row("bad.z", content, "seconds.stylize", None) for content in "ab")]
    table = build_table(rows, RUN)
    assert values(table, "ssim")["m.x"] == 0.625
    assert values(table, "ssim")["bad.z"] is None
    assert table.notes == ["failed on 2 pairs: boom."]
    assert [line.failed for line in table.lines] == [0, 0, 2, 0]


def test_the_best_method_is_bold_and_baselines_do_not_compete():
    table = build_table(ROWS, RUN)
    order = [line.method for line in table.lines]
    assert order == ["m.x", "n_1.y[k=2]", "content-copy"], "baselines come last"
    bold = {(order[i], metric) for i, metric in table.best}
    assert bold == {("m.x", "seconds.stylize"), ("n_1.y[k=2]", "seconds.stylize"), ("m.x", "ssim")}


def test_a_failed_row_that_was_measured_again_counts_once_with_its_value():
    rows = [row("m.x", "a", "ssim", None), *ROWS]
    assert build_table(rows, RUN).notes == []


def test_sizes_and_strengths_are_lines_of_their_own():
    larger = [dataclasses.replace(r, size=128, value=(r.value or 0) * 2) for r in ROWS if r.metric != "ssim"]
    weaker = [dataclasses.replace(r, strength=0.5) for r in ROWS if r.method == "m.x" and r.content]
    table = build_table([*ROWS, *larger, *weaker], RUN)
    found = {(line.method, line.size, line.strength): line.values for line in table.lines}
    assert found["m.x", 128, 1.0]["seconds.stylize"] == 1.0
    assert found["m.x", 64, 0.5]["ssim"] == 0.625
    # A first call has no strength: it stands beside every one.
    assert found["m.x", 64, 0.5]["seconds.first"] == 0.7
    assert found["content-copy", 64, 0.5]["ssim"] == 1.0


def test_rows_of_another_protocol_are_refused():
    with pytest.raises(ProtocolError, match="p@2"):
        build_table([dataclasses.replace(ROWS[0], protocol="p@2")], RUN)


def test_a_busy_machine_and_changed_code_are_remarked():
    busy = {"load_before": 1.5, "environment": {"usable_cores": 2, "source": "def"}}
    remarks = texts(build_table(ROWS, {**RUN, "runs": [*RUN["runs"], busy]}))
    assert any("load of 1.5 on 2 cores" in remark for remark in remarks)
    assert any("code changed" in remark for remark in remarks)


def test_other_libraries_and_variables_between_runs_are_remarked():
    def entry(**changes: Any) -> dict[str, Any]:
        environment = {"usable_cores": 2, "source": "abc", "python": "3.11.9", "libraries": {"torch": "2.6"}, **changes}
        return {"load_before": 0.1, "environment": environment}

    def said(*entries: dict[str, Any]) -> list[str]:
        return [remark for remark in texts(build_table(ROWS, {**RUN, "runs": entries})) if "other things" in remark]

    assert said(entry(), entry()) == []
    (remark,) = said(entry(), entry(libraries={"torch": "2.7"}, variables={"OMP_NUM_THREADS": "1"}))
    assert "torch (2.6, 2.7), OMP_NUM_THREADS (1, none)" in remark
    assert "driver (550, 560)" in said(entry(gpu={"driver": "550"}), entry(gpu={"driver": "560"}))[0]


def test_times_of_cold_calls_are_told_as_the_protocol_has_them():
    assert COLD in texts(build_table(ROWS, RUN))
    some = [one for one in ROWS if one.metric != "seconds.first"]
    assert COLD in texts(build_table(some, RUN)), "a table of some columns says the same"

    def cold(label: str, **timings: dict[str, int]) -> bool:
        entries = {name.replace("__", "."): {"timing": value} for name, value in timings.items()}
        resolved = {**RUN["protocol"]["resolved"], "timing": entries.pop("all")["timing"], "methods": entries}
        resolved["optimisation"] = entries.pop("optimisation", None)
        run = {**RUN, "protocol": {"id": "p@1", "resolved": resolved}}
        remarks = texts(build_table([row(label, "a", "seconds.stylize", 0.5)], run))
        return any("without warm-up" in remark for remark in remarks)

    warm, none = {"warmup": 2}, {"warmup": 0}
    assert cold("gatys.zoo[num_steps=5]", all=none)
    assert not cold("gatys.zoo", all=warm)
    assert cold("gatys.zoo", all=warm, optimisation=none)
    assert not cold("adain.zoo", all=warm, optimisation=none)
    assert not cold("gatys.zoo", all=none, optimisation=none, gatys=warm)
    assert cold("gatys.zoo", all=warm, gatys=warm, gatys__zoo=none)
    quality = [one for one in ROWS if one.metric == "ssim"]
    assert not [remark for remark in texts(build_table(quality, RUN)) if "warm-up" in remark]


def test_what_is_said_beside_a_column_names_the_lines_it_is_of():
    rows = [
        row("m.x", "a", "ssim", 0.5, reason="blind in one eye"),
        row("n.y", "a", "ssim", 0.5),
        row("m.x", "a", "ssim", 0.5, size=128, reason="blind in one eye"),
        row("n.y", "a", "ssim", 0.5, size=128, reason="tired"),
        row("m.x", "a", "gram_loss", 0.5, reason="of all"),
        row("n.y", "a", "gram_loss", 0.5, reason="of all"),
    ]
    remarks = texts(build_table(rows, RUN))
    assert "SSIM: blind in one eye (m.x)." in remarks
    assert "SSIM: tired (n.y at 128)." in remarks
    assert "gram loss: of all." in remarks


def test_weights_that_were_replaced_since_are_told():
    registry = load_registry()
    known = registry.resolve("adain.zoo").checkpoint
    assert known is not None
    old = row("adain.zoo", "a", "ssim", 0.5, checkpoint="0" * 64)
    said = "Measured with earlier weights than the zoo has now: adain.zoo."
    assert said in texts(build_table([old], RUN))
    new = dataclasses.replace(old, checkpoint=known.sha256)
    assert said not in texts(build_table([new], RUN))


def test_a_peak_of_another_run_is_told():
    def remarks(*rows: Row) -> list[str]:
        return [remark for remark in texts(build_table(rows, RUN)) if "another run" in remark]

    peak = row("machine[precision=bf16]", None, "machine.conv_gflops", 900.0, style=None, size=0)
    first = [row("m.x", "a", name, value) for name, value in (("seconds.stylize", 2.0), ("gflops.stylize", 900.0))]
    shares = [*first, row("m.x", "a", "share.conv_peak", 50.0)]
    assert remarks(peak, *shares) == []
    later = dataclasses.replace(peak, run_id="later")
    assert remarks(later, *shares) == ["of peak: the peak was measured in another run than the times."]
    weaker = [dataclasses.replace(one, strength=0.5, run_id="later") for one in shares]
    assert remarks(peak, *shares, *weaker) == remarks(later, *shares), "a cell is its strength too"
    own = dataclasses.replace(later, value=700.0)
    assert remarks(own, *shares) == [], "the share of a merged shard is of its own peak"


def test_intervals_beyond_the_bounds_of_a_metric_are_told():
    pairs = [[content, style] for content in "abc" for style in "stu"]
    run = {**RUN, "protocol": {"id": "p@1", "resolved": {**RUN["protocol"]["resolved"], "pairs": pairs}}}
    scores = iter((0.0, 0.0, 0.9, 0.0, 0.01, 0.8, 0.02, 0.0, 1.0))
    rows = [row("m.x", content, "ge", next(scores), style=style) for content, style in pairs]
    assert "let some pass the bounds of their metric (GE)" in build_table(rows, run).intervals
    rows = [dataclasses.replace(one, value=0.5 + 0.001 * i) for i, one in enumerate(rows)]
    assert "bounds" not in build_table(rows, run).intervals


def test_a_sheet_of_many_pairs_shows_some_of_them(tmp_path):
    """An image file ends at 65,500 pixels, and hundreds of pairs do not fit into memory."""
    pairs = [[f"c{i}", "s"] for i in range(SHEET_PAIRS + 20)]
    protocol = {"id": "p@1", "resolved": {**RUN["protocol"]["resolved"], "pairs": pairs}}
    folder = Folder(tmp_path)
    folder.outputs.mkdir()
    run = {**RUN, "protocol": protocol}
    picture = torch.zeros(1, 3, 64, 64)
    rows = [row("m.x", content, "ssim", 0.5) for content, _ in pairs]
    for content, style in pairs:
        images.write(folder.output(Cell("m.x", content, style, 64, 0, 1)), picture)
    write_sheet(folder, run, build_table(rows, run), cell=32)
    sheet = images.read(tmp_path / "sheet.jpg").pixels
    assert SHEET_PAIRS * 32 < sheet.shape[-2] < (SHEET_PAIRS + 2) * 36


def test_csv_holds_full_numbers_and_nothing_else():
    rows = [*ROWS, row("m.x", "a", "seconds.stylize.p95", 1 / 3)]
    lines = list(csv.DictReader(io.StringIO(to_csv(build_table(rows, RUN)))))
    assert [line["method"] for line in lines] == ["m.x", "n_1.y[k=2]", "content-copy"]
    assert float(lines[0]["seconds.stylize.p95"]) == 1 / 3
    assert (lines[0]["seconds.stylize.p95.pairs"], lines[0]["ssim.pairs"]) == ("1", "2")
    assert lines[1]["seconds.stylize.p95"] == ""
    texts = {"protocol", "method", "family", "precision"}
    for line in lines:
        assert line["protocol"] == "p@1"
        for name, value in line.items():
            assert name in texts or value == "" or float(value) >= 0


def test_markdown_has_one_shape_and_a_caption():
    text = to_markdown(present(build_table(ROWS, RUN)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert text.startswith("Protocol p@1; 2 pairs; Box, 2 cores; cpu, 2 threads, bf16; zoo 0.1.0; 2026-01-02\n")
    assert "SSIM ↑" in lines[0]
    assert "stylize (s) ↓" in lines[0]
    assert "**0.625**" in lines[2]


def test_latex_is_booktabs_with_everything_escaped():
    rows = [*ROWS, row("bad_&.z", "a", "seconds.stylize", None, reason="50% of {x}_1")]
    text = to_latex(present(build_table(rows, RUN)))
    assert r"\toprule" in text
    assert r"SSIM $\uparrow$" in text
    assert r"\bfseries 0.625 \\" in text
    assert r"n\_1.y[k=2]" in text
    assert r"50\% of \{x\}\_1" in text
    assert r"\caption{Protocol p@1;" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") and " & " in line]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1
    assert text.count("{") == text.count("}")


def test_escape_tex_covers_what_tex_reads_specially():
    assert escape_tex("a_b^~\\<|") == r"a\_b\textasciicircum{}\textasciitilde{}\textbackslash{}\textless{}\textbar{}"


def test_the_terminal_shows_the_same_numbers():
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(to_rich(present(build_table([*ROWS, row("bad.z", "a", "ssim", None, reason="[no] luck")], RUN))))
    shown = console.export_text()
    for text in ("p@1", "0.625", "n_1.y[k=2]", "bad.z (1)", "ssim failed on 1 pair: [no] luck"):
        assert text in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1.0, "1.00"),
        (0.99, "0.990"),
        (0.01234, "0.0123"),
        (12.34, "12.3"),
        (123.4, "123"),
        (99.96, "100"),
        (-99.96, "-100"),
        (9.996, "10.0"),
        (1.234e-5, "1.23e-05"),
        (12345.6, "12346"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_a_column_of_very_large_numbers_says_its_power_of_ten_once():
    rows = [*ROWS, row("m.x", "a", "gram_loss", 3.2e11), row("content-copy", "a", "gram_loss", 5e9)]
    text = to_markdown(present(build_table(rows, RUN)))
    assert "gram loss (1e11) ↓" in text
    assert "| 3.20 |" in text
    assert "| 0.0500 |" in text


# -- seeds, strengths and coverage -------------------------------------------------------------------------------------


def run_with(**resolved: Any) -> dict[str, Any]:
    protocol = {**RUN["protocol"], "resolved": {**RUN["protocol"]["resolved"], **resolved}}
    return {**RUN, "protocol": protocol}


def test_sanity_rows_count_for_every_seed():
    """They have no seed of their own, and must not take the other seeds of the methods away."""
    rows = [row("m.x", "a", "ssim", 0.5), row("m.x", "a", "ssim", 0.25, seed=1), row("content-copy", "a", "ssim", 1.0)]
    table = build_table(rows, run_with(seeds=[0, 1], pairs=[["a", "s"]]))
    assert values(table, "ssim") == {"m.x": 0.375, "content-copy": 1.0}
    assert set(table.pairs.values()) == {2}
    assert table.missing == {}


def test_what_is_lost_counts_pairs_and_not_seeds():
    rows = [row("m.x", "a", "ssim", None, seed=seed) for seed in (0, 1)]
    rows += [row("content-copy", content, "ssim", None) for content in "ab"]
    table = build_table(rows, run_with(seeds=[0, 1]))
    assert [(line.failed, [table.notes[note - 1] for note in line.notes]) for line in table.lines] == [
        (2, ["ssim failed on 1 pair: boom."]),
        (2, ["ssim failed on 2 pairs: boom."]),
    ]


def test_loading_has_no_strength_of_its_own():
    rows = [
        row("m.x", None, "seconds.load", 1.0),
        row("m.x", "a", "seconds.stylize", 0.5, strength=0.5),
        row("m.x", "a", "seconds.stylize", 0.25, strength=0.25),
    ]
    table = build_table(rows, run_with(baselines=[], strengths=[0.25, 0.5]))
    assert [(line.strength, line.values["seconds.load"]) for line in table.lines] == [(0.5, 1.0), (0.25, 1.0)]


def test_a_pair_that_few_lack_is_named_and_the_json_names_all():
    contents = [f"c{i:02}" for i in range(12)]
    pairs = [[content, "s"] for content in contents]
    rows = [row(method, content, "ssim", 0.5) for method in ("m.x", "m.y") for content in contents]
    run = run_with(baselines=[], pairs=pairs)
    table = build_table([r for r in rows if (r.method, r.content) != ("m.y", "c03")], run)
    assert texts(table) == ["SSIM at 64: over the 11 of 12 pairs that every line covers: all but c03 x s."]
    found = json.loads(to_json(table))
    assert [line["values"]["ssim"]["without"] for line in found["lines"]] == [["c03 x s"]] * 2
    most = build_table([r for r in rows if r.method == "m.x" or str(r.content) < "c10"], run)
    assert texts(most) == ["SSIM at 64: over the 10 of 12 pairs that every line covers: all but c10 x s, c11 x s."]
