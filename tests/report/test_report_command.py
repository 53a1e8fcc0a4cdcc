"""``zoo report`` and ``zoo compare``, and the summaries they write."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from command import run as command
from grid_runs import METHODS, METRICS, rows, run_file, write_run
from scipy import stats

from zoo.bench.rows import Row
from zoo.errors import ProtocolError
from zoo.report import statistics
from zoo.report.compare import compare_runs
from zoo.report.summary import Run


def scaled(method: str, metric: str, factor: float):
    def change(row: Row) -> Row:
        if (row.method, row.metric) != (method, metric) or row.value is None:
            return row
        samples = tuple(factor * sample for sample in row.samples)
        return dataclasses.replace(row, value=factor * row.value, samples=samples)

    return change


# -- summaries -----------------------------------------------------------------------------------------------------


def values(metric: str, method: str) -> np.ndarray:
    own = sorted((r for r in rows() if (r.metric, r.method) == (metric, method)), key=lambda r: (r.content, r.style))
    return np.array([r.value for r in own])


def test_contests_join_methods_alone_and_are_corrected_per_metric():
    run = Run(rows(), run_file())
    contests = run.contests()
    assert {(c.first, c.second) for c in contests} == {
        (METHODS[0], METHODS[1]),
        (METHODS[0], METHODS[2]),
        (METHODS[1], METHODS[2]),
    }
    assert {c.metric for c in contests} == set(METRICS)
    own = [c for c in contests if c.metric == "gram_loss"]
    assert [c.p_holm for c in own] == pytest.approx(statistics.holm([c.result.p or 0.0 for c in own]))
    first = own[0]
    difference = values("gram_loss", METHODS[0]) - values("gram_loss", METHODS[1])
    assert first.result.difference == pytest.approx(difference.mean())
    assert first.result.won == pytest.approx(np.mean(difference < 0)), "less is better"
    assert first.interval is not None
    assert first.interval.low <= first.result.difference <= first.interval.high
    assert first.pairs == 12


def test_ranks_take_the_direction_of_the_metric():
    ranks = {
        one.metric: dict(zip(one.methods, one.ranking.ranks, strict=True))
        for one in Run(rows(), run_file()).ranks()
        if not one.family
    }
    assert ranks["ssim"] == {METHODS[0]: 1.0, METHODS[1]: 2.0, METHODS[2]: 3.0}
    assert ranks["gram_loss"] == {METHODS[0]: 3.0, METHODS[1]: 2.0, METHODS[2]: 1.0}


def test_metrics_that_prefer_the_same_pictures_agree_whatever_their_direction():
    found = {(a.first, a.second): a.result for a in Run(rows(), run_file()).agreements()}
    assert set(found) == {("ssim", "gram_loss"), ("ssim", "lp"), ("gram_loss", "lp")}
    both = [np.concatenate([values(metric, method) for method in METHODS]) for metric in ("gram_loss", "lp")]
    assert found["gram_loss", "lp"].spearman == pytest.approx(stats.spearmanr(-both[0], both[1]).statistic)
    assert found["gram_loss", "lp"].spearman_within == pytest.approx(1.0)
    assert found["ssim", "lp"].spearman_within == pytest.approx(-1.0)
    assert (found["ssim", "lp"].pictures, found["ssim", "lp"].pairs) == (36, 12)


# -- zoo report ----------------------------------------------------------------------------------------------------


def test_report_writes_what_is_asked_for(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    assert command("report", str(run), "--columns", "lp,ssim", "--format", "md", "--digits", "2") == 0
    text = (run / "tables" / "table.md").read_text()
    assert "| method | LP ↑ | SSIM ↑ |" in text
    assert "| method | stylize (s) ↓ | peak memory" in (run / "table.md").read_text(), "as without a layout"
    assert "4 files in" in capsys.readouterr().err
    assert command("report", str(run), "--columns", "nonsense", "-q") == 2
    assert "Unknown column 'nonsense'" in capsys.readouterr().err
    assert command("report", str(run), "--against", "adain", "-q") == 2
    assert "Unknown method of this run 'adain': did you mean adain.zoo?" in capsys.readouterr().err
    assert command("report", str(tmp_path / "absent"), "-q") == 2
    assert "holds no results" in capsys.readouterr().err


# -- zoo compare ---------------------------------------------------------------------------------------------------


def verdicts(found) -> dict[tuple[str, str], str]:
    return {(c.method, c.metric): c.verdict for c in found.changes if c.verdict != "same"}


def test_a_run_equals_itself(tmp_path):
    run = write_run(tmp_path / "a")
    found = compare_runs(run, run)
    assert {c.verdict for c in found.changes} == {"same"}
    assert found.regressions == 0
    assert {c.metric for c in found.changes} == {*METRICS, "seconds.stylize", "memory.resident"}
    assert all(c.difference == 0 for c in found.changes)


@pytest.mark.parametrize(
    ("metric", "factor", "verdict"),
    [
        ("ssim", 0.95, "worse"),
        ("ssim", 1.05, "better"),
        ("ssim", 0.995, "same"),
        ("gram_loss", 1.05, "worse"),
        ("seconds.stylize", 1.3, "worse"),
        ("seconds.stylize", 1.08, "same"),
        ("seconds.stylize", 0.7, "better"),
        ("memory.resident", 1.5, "worse"),
    ],
)
def test_a_change_is_seen_in_its_direction_beyond_its_tolerance(metric, factor, verdict, tmp_path):
    before, after = write_run(tmp_path / "a"), write_run(tmp_path / "b", change=scaled("adain.zoo", metric, factor))
    found = compare_runs(before, after)
    assert verdicts(found) == ({} if verdict == "same" else {("adain.zoo", metric): verdict})
    (change,) = [c for c in found.changes if (c.method, c.metric) == ("adain.zoo", metric)]
    assert change.share == pytest.approx(factor - 1)
    if metric in METRICS:
        assert change.interval is not None
        assert change.interval.low <= change.difference <= change.interval.high


def test_a_change_that_the_pairs_do_not_agree_on_is_unsure(tmp_path):
    """Two per cent worse on average, from one of twelve pairs alone."""

    def change(row: Row) -> Row:
        odd = (row.method, row.metric, row.content, row.style) == ("wct.zoo", "ssim", "coffee", "mosaic")
        return dataclasses.replace(row, value=0.7 * (row.value or 0)) if odd else row

    before, after = write_run(tmp_path / "a"), write_run(tmp_path / "b", change=change)
    assert verdicts(compare_runs(before, after)) == {("wct.zoo", "ssim"): "unsure"}


def test_a_cell_that_fails_now_is_a_regression(tmp_path):
    def change(row: Row) -> Row:
        lost = (row.method, row.metric, row.content, row.style) == ("wct.zoo", "seconds.stylize", "coffee", "mosaic")
        return dataclasses.replace(row, value=None, status="failed", reason="boom.", samples=()) if lost else row

    found = compare_runs(write_run(tmp_path / "a"), write_run(tmp_path / "b", change=change))
    assert found.failed == ["wct.zoo coffee x mosaic at 64 (boom)"]
    assert found.regressions == 1


def test_what_is_skipped_or_not_measured_now_is_told(tmp_path):
    def change(row: Row) -> Row | None:
        if (row.method, row.content) == ("wct.zoo", "coffee"):
            skipped = dataclasses.replace(row, value=None, status="skipped", reason="too few", samples=())
            return skipped if row.metric == "seconds.stylize" else None
        return None if (row.method, row.metric) == ("adain.zoo", "lp") else row

    before, after = write_run(tmp_path / "a"), write_run(tmp_path / "b", change=change)
    found = compare_runs(before, after)
    lost = "12 numbers of adain.zoo, 15 numbers of wct.zoo"
    assert found.said == [f"Skipped or not measured in {after}, so not compared: {lost}."]
    assert {c.pairs for c in found.changes if c.method == "wct.zoo"} == {9}
    assert compare_runs(after, before).said == []


def test_a_method_that_fails_everywhere_is_a_regression_and_no_mistake(tmp_path):
    def change(row: Row) -> Row | None:
        lost = dataclasses.replace(row, value=None, status="failed", reason="boom.", samples=())
        return {"wct.zoo": lost if row.metric == "seconds.stylize" else None}.get(row.method)

    before = write_run(tmp_path / "a", change=lambda row: row if row.method == "wct.zoo" else None)
    found = compare_runs(before, write_run(tmp_path / "b", change=change))
    assert (found.regressions, found.changes, found.said) == (12, [], [])


def test_what_tells_a_steady_film_is_quality(tmp_path):
    """Its tolerance is that of quality, and another machine makes the same film."""

    def film(factor: float):
        def change(row: Row) -> Row | None:
            if row.metric == "gram_loss":
                return dataclasses.replace(row, metric="film.short", value=factor, unit="/255")
            return row if row.metric.startswith("seconds.") else None

        return change

    before = write_run(tmp_path / "a", change=film(2.0))
    after = write_run(tmp_path / "b", change=film(2.1), conditions={"machine": "Tower, 64 cores"})
    found = compare_runs(before, after)
    assert set(verdicts(found).items()) >= {(("wct.zoo", "film.short"), "worse")}
    assert {c.metric for c in found.changes} == {"film.short"}


def test_timings_of_another_machine_are_not_compared(tmp_path):
    before = write_run(tmp_path / "a")
    after = write_run(
        tmp_path / "b", change=scaled("adain.zoo", "seconds.stylize", 9), conditions={"machine": "Tower, 64 cores"}
    )
    found = compare_runs(before, after)
    assert {c.metric for c in found.changes} == set(METRICS)
    assert found.said == ["Seconds and memory are not compared: machine Box, 2 cores and Tower, 64 cores."]
    for folder in (before, after):
        lines = [line for line in (folder / "rows.jsonl").read_text().splitlines() if '"seconds.' in line]
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ProtocolError, match=r"no number in common\. Seconds and memory are not compared: machine Box"):
        compare_runs(before, after)


def test_the_exit_code_says_whether_anything_became_worse(tmp_path, capsys):
    before = write_run(tmp_path / "a")
    after = write_run(tmp_path / "b", change=scaled("adain.zoo", "ssim", 0.9))
    assert command("compare", str(before), str(after)) == 0
    assert "worse" in capsys.readouterr().out
    assert command("compare", str(before), str(after), "--fail-on-regression") == 1
    assert command("compare", str(before), str(after), "--fail-on-regression", "--tolerance", "0.2") == 0
    assert command("compare", str(after), str(before), "--fail-on-regression") == 0, "better is no regression"
    capsys.readouterr()
    assert command("compare", str(before), str(before)) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{before} before, {before} after; protocol grid@0123456789ab",
        "21 numbers compared, 21 the same within the tolerance; 0 worse.",
    ]
    assert command("compare", str(before), str(after), "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert [one["method"] for one in data["rows"] if one["verdict"] == "worse"] == ["adain.zoo"]


def test_runs_of_different_protocols_or_methods_cannot_be_compared(tmp_path, capsys):
    before = write_run(tmp_path / "a")
    other = write_run(tmp_path / "b", change=lambda row: dataclasses.replace(row, protocol="grid@ffffffffffff"))
    data = json.loads((other / "run.json").read_text())
    data["protocol"]["id"] = "grid@ffffffffffff"
    (other / "run.json").write_text(json.dumps(data))
    assert command("compare", str(before), str(other)) == 2
    assert "numbers of different protocols cannot be compared" in capsys.readouterr().err
    alone = write_run(tmp_path / "c", change=lambda row: row if row.method == "wct.zoo" else None)
    fewer = write_run(tmp_path / "d", change=lambda row: row if row.method == "adain.zoo" else None)
    assert command("compare", str(alone), str(fewer)) == 2
    assert "no number in common" in capsys.readouterr().err
    assert compare_runs(before, alone).said == [
        f"Not in {alone}: adain.zoo, content-copy, gatys.zoo[num_steps=50], style-copy."
    ]


def test_an_empty_folder_is_a_clear_error(tmp_path: Path, capsys):
    assert command("compare", str(tmp_path), str(tmp_path)) == 2
    assert "holds no results" in capsys.readouterr().err
